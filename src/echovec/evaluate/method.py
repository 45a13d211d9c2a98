"""Method: one recipe on one task, evaluated by mteb and kept."""

from __future__ import annotations

import copy
import errno
import json
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import mteb
from mteb.results import TaskResult

from echovec.errors import StorageError
from echovec.evaluate.encoder import MtebEncoder, task_instruction
from echovec.evaluate.hub import HubTask
from echovec.evaluate.interval import Items, interval, interval_method, num_items
from echovec.evaluate.items import Watch
from echovec.evaluate.local import SEED, LocalTask
from echovec.evaluate.quiet import without_noise
from echovec.evaluate.results import (
    Outcome,
    outcome_path,
    read_outcome,
    write_outcome,
)
from echovec.evaluate.vectors import Cost, Vectors
from echovec.recipe import ROLES
from echovec.version import __version__

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True)
class Method:
    """A recipe with all that its results are marked with.

    Args:
        encoder: the embedder as mteb wants it.
        out: the result folder.
        sample: at most how many items of each task are taken; None for all.
        seed: what the sample is drawn with.
        chosen_on: the data that decided the recipe, if something was chosen.
    """

    encoder: MtebEncoder
    out: Path
    sample: int | None = None
    seed: int = 42
    chosen_on: str | None = None

    @property
    def vectors(self) -> Vectors:
        """Where its vectors come from."""
        vectors: Vectors = self.encoder.vectors
        return vectors

    @property
    def recipe_name(self) -> str:
        """The recipe's name."""
        return self.vectors.recipe.name

    @property
    def name(self) -> str:
        """What mteb calls it: model, recipe and sample."""
        return str(self.encoder.mteb_model_meta.name)

    def finished(self, source: LocalTask | HubTask, split: str) -> Outcome | None:
        """The outcome of an earlier run, if its file and mteb's are there and it would be the same.

        Another instruction, type of task or mteb task makes it another outcome, as other data do.
        """
        meta = self.encoder.mteb_model_meta
        ours = outcome_path(self.out, meta.name, meta.revision, source.name, split)
        if not ours.is_file():
            return None
        mtebs = mteb.ResultCache(self.out).get_task_result_path(source.name, meta)
        outcome = read_outcome(ours) if mtebs.is_file() else None
        if outcome is None or outcome.data_revision != source.revision_of(split):
            return None
        before = (outcome.category, outcome.published_name, outcome.instruction)
        now = (source.category, source.published_name, self._instruction(source.metadata(split)))
        return outcome if before == now else None

    def marked(self, outcome: Outcome) -> Outcome:
        """An outcome with what this run says of the choice, written if it did not say so before.

        Raises:
            StorageError: the disk does not take it.
        """
        if self.chosen_on is None or outcome.chosen_on == self.chosen_on:
            return outcome
        outcome = replace(outcome, chosen_on=self.chosen_on)
        write_outcome(outcome, self.out)
        return outcome

    def _instruction(self, metadata: Any) -> dict[str, str]:
        """A task's instruction by role, for the roles that take one."""
        return {
            role: task_instruction(metadata, role)
            for role in ROLES
            if self.vectors.takes_instruction(role)
        }

    def run(self, source: LocalTask | HubTask, task: Any, split: str) -> Outcome:
        """Evaluate a loaded task with mteb, write its result and ours.

        Raises:
            StorageError: the disk is full; what was finished before is kept.
        """
        self.vectors.start()
        task = _fresh(task)
        try:
            with tempfile.TemporaryDirectory() as folder:
                with Watch(task, Path(folder)) as watch, without_noise():
                    found = mteb.evaluate(
                        self.encoder,
                        task,
                        cache=None,
                        prediction_folder=folder,
                        show_progress_bar=False,
                        co2_tracker=False,
                    )
                result = found.task_results[0]
                scores = {one["hf_subset"]: one for one in result.scores[split]}
                items = watch.items(split, scores)
            return self._keep(source, task.metadata, split, result, items, self.vectors.cost)
        except OSError as error:
            raise _storage_error(error, self.out) from error

    def combine(self, source: HubTask, task: Any, parts: Sequence[Outcome]) -> Outcome:
        """Put the finished parts of an aggregate together, as mteb does."""
        meta = self.encoder.mteb_model_meta
        cache = mteb.ResultCache(self.out)
        results = [cache.load_task_result(part.task, meta) for part in parts]
        result = task.combine_task_results(results)
        of_parts = [part.items for part in parts]
        items: Items = {"kind": "parts", "parts": of_parts} if all(of_parts) else {}
        names = [field.name for field in fields(Cost)]
        cost = Cost(**{name: sum(getattr(part, name) for part in parts) for name in names})
        try:
            return self._keep(source, task.metadata, parts[0].split, result, items, cost)
        except OSError as error:
            raise _storage_error(error, self.out) from error

    def _keep(
        self,
        source: LocalTask | HubTask,
        metadata: Any,
        split: str,
        result: TaskResult,
        items: Items,
        cost: Cost,
    ) -> Outcome:
        recipe = self.vectors.recipe
        assert recipe.model is not None, "an embedder's recipe is bound"
        _save_for_mteb(result, self.encoder.mteb_model_meta, self.out)
        adapter = self.vectors.embedder.adapter_path
        outcome = Outcome(
            task=metadata.name,
            category=metadata.type,
            metric=metadata.main_score,
            main_score=float(result.get_score(splits=[split])),
            split=split,
            num_items=num_items(items),
            items=items,
            interval=interval(items),
            interval_method=interval_method(items),
            sample=self.sample,
            seed=SEED if self.sample is None else self.seed,
            model=recipe.model.name,
            adapter=None if adapter is None else adapter.parent.name,
            recipe_name=recipe.name,
            fingerprint=self.vectors.fingerprint,
            recipe=json.loads(recipe.to_json()),
            described=recipe.describe(),
            instruction=self._instruction(metadata),
            chosen_on=self.chosen_on,
            **asdict(cost),
            exact_split=source.exact and self.sample is None and source.is_reported(split),
            reported=source.is_reported(split),
            published_name=source.published_name,
            data_revision=source.revision_of(split),
            versions={**recipe.versions, "mteb": mteb_version(), "echovec": __version__},
        )
        write_outcome(outcome, self.out)
        return outcome


def mteb_version() -> str:
    """The installed mteb's version."""
    from importlib.metadata import version

    return version("mteb")


def _fresh(task: Any) -> Any:
    """A copy with the same data and mteb's random state as at the start.

    Its draws then never depend on what was evaluated before.
    """
    again = copy.copy(task)
    reset = type(task)(seed=SEED)
    again.rng_state, again.np_rng = reset.rng_state, reset.np_rng
    return again


def _save_for_mteb(result: TaskResult, meta: Any, out: Path) -> None:
    """Write mteb's result where its reader looks, beside splits that are there already."""
    cache = mteb.ResultCache(out)
    path = cache.get_task_result_path(result.task_name, meta)
    if path.is_file():
        try:
            before = TaskResult.from_disk(path)
        except (ValueError, KeyError, TypeError):  # cut short when a run was killed
            warnings.warn(f"{path} was damaged and is written again", stacklevel=2)
        else:
            if before.is_mergeable(result):
                kept = {s: v for s, v in before.scores.items() if s not in result.scores}
                result = before.model_copy(update={"scores": kept}).merge(result)
    cache.save_to_cache(result, meta)


def _storage_error(error: OSError, out: Path) -> OSError:
    if isinstance(error, StorageError) or error.errno not in _FULL:
        return error
    return StorageError(
        f"cannot write results to {out}: {error.strerror}; free space or choose another folder; "
        "what is finished is kept, and the same command goes on from there"
    )
