"""Hub: mteb's own tasks, which mteb fetches from the Hugging Face hub."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from echovec.errors import InputError, NotAvailableError, StorageError
from echovec.evaluate.local import SEED
from echovec.evaluate.results import TEST

BENCHMARK = "MTEB(eng, v1)"
"""What mteb calls the 56 English datasets of its first version."""


@dataclass(frozen=True)
class HubTask:
    """A task that mteb fetches."""

    name: str

    @property
    def category(self) -> str:
        """The type of task, as mteb calls it."""
        return str(self._metadata.type)

    @property
    def published_name(self) -> str | None:
        """Its own name."""
        return self.name

    @property
    def exact(self) -> bool:
        """Always: it is the task itself."""
        return True

    @property
    def revision(self) -> str:
        """The revision of the data, as mteb pins it."""
        return str(self._metadata.revision)

    def revision_of(self, split: str) -> str:
        """The same: one revision has all splits."""
        return self.revision

    def metadata(self, split: str) -> Any:
        """The task as mteb describes it."""
        return self._metadata

    @cached_property
    def _metadata(self) -> Any:
        return self.unloaded().metadata

    def is_reported(self, split: str) -> bool:
        """Whether mteb's own score is of this split: "test", or the only one that there is."""
        return self.split_of(TEST) == split

    @cached_property
    def parts(self) -> list[HubTask]:
        """The tasks that an aggregate is the mean of; empty for any other."""
        return [HubTask(part.metadata.name) for part in getattr(self.unloaded(), "tasks", [])]

    def make(self, split: str) -> Any:
        """The task, loaded.

        Raises:
            InputError: it has no such split.
            NotAvailableError: it cannot be fetched.
        """
        task = self.unloaded()
        if split not in task.eval_splits:
            raise InputError(
                f"{self.name} has no split {split!r} to evaluate; it has "
                f"{', '.join(task.eval_splits)}"
            )
        task.filter_eval_splits([split])
        try:
            task.load_data()
            if hasattr(task, "convert_v1_dataset_format_to_v2"):
                task.convert_v1_dataset_format_to_v2(num_proc=None)
        except Exception as error:  # loaders raise what their libraries raise: dozens of types
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise StorageError(f"no space left while fetching {self.name}") from error
            raise NotAvailableError(
                f"cannot fetch {self.name} ({type(error).__name__}: {str(error)[:200]}); it comes "
                "from the Hugging Face hub: connect to the network, or evaluate files of your own "
                "with --data DIR"
            ) from error
        return task

    def split_of(self, split: str) -> str | None:
        """The task's own name of a split, or None if it has none such."""
        return own_split(split, self.unloaded().eval_splits, only=True)

    def unloaded(self) -> Any:
        """The task without its data, in English where mteb's English benchmark has it so."""
        import mteb

        with warnings.catch_warnings(action="ignore"):  # that it is superseded by a newer one
            for task in mteb.get_benchmark(BENCHMARK).tasks:
                if task.metadata.name == self.name:
                    return type(task)(seed=SEED).filter_languages(None, hf_subsets=task.hf_subsets)
            return mteb.get_task(self.name)


def own_split(split: str, splits: Sequence[str], *, only: bool = False) -> str | None:
    """What a set calls a split: "dev", "val" and "validation" stand for each other.

    `only`: a set with a single split reports on that one, whatever it is called (MSMARCO: dev).
    """
    if split in splits:
        return split
    if split in ("dev", "val", "validation"):
        return next((s for s in splits if s in ("dev", "val", "validation")), None)
    return splits[0] if only and split == TEST and len(splits) == 1 else None
