"""Results: what one recipe scored on one task, as a file beside mteb's own.

    DIR/results/<name>/<fingerprint>/<Task>.json    mteb's, for `mteb.ResultCache(DIR)`
    DIR/echovec/<name>/<fingerprint>/<Task>.json    ours: an `Outcome`

Ours holds what mteb's does not: each item's part of the score, from which intervals and paired
comparisons come, the interval, the cost, the recipe, and what was chosen on which data. <name> says
model, recipe and sample, so a sampled score can never be taken for a whole one. A file of ours is
written last, by rename: a task that has one is finished.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from echovec.errors import InputError, StorageError
from echovec.files.lines import finite

FORMAT = 1
FOLDER = "echovec"
TEST = "test"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One recipe on one split of one task."""

    task: str
    """mteb's name where the data are exactly mteb's split; else a name that no mteb task has."""

    category: str
    """mteb's type: "STS", "PairClassification", "Classification", "Clustering", "Retrieval",
    "Reranking", "Summarization", or another type of mteb."""

    metric: str
    """The name of mteb's main score, e.g. "cosine_spearman"."""

    main_score: float
    """mteb's main score: 0 to 1 (correlations from -1). NaN, and null in the file, where it is
    undefined, as a correlation with equal numbers is."""

    split: str
    """"test", or the development split's own name: "dev", "validation", "val", "train"."""

    num_items: int
    """Pairs, queries, texts or clustered texts that the score is over."""

    items: Mapping[str, Any]
    """Each item's part of the score; `interval.replicates` reads it."""

    interval: tuple[float, float] | None
    """95 % bootstrap interval of the main score; None where mteb gives no items to resample."""

    interval_method: str
    """What was resampled, in words."""

    sample: int | None = None
    """At most how many items were taken; None: all of them."""

    seed: int
    """What the sample was drawn with; of a whole task mteb's own, so that all have one."""

    model: str
    """The model's name."""

    recipe_name: str
    """The recipe's name."""

    adapter: str | None = None
    """What ships with an adapter, or the folder it was loaded from: the name; None without one."""

    fingerprint: str
    """The bound recipe's fingerprint."""

    recipe: Mapping[str, Any]
    """The bound recipe, as its JSON."""

    described: str
    """The recipe in a line for people: prompts and pooling."""

    instruction: Mapping[str, str] = field(default_factory=dict)
    """The task's instruction by role, where the recipe takes one."""

    chosen_on: str | None = None
    """The data that decided the recipe, if something was chosen."""

    texts: int
    """Distinct texts of the task."""

    tokens: int
    """Tokens of their whole prompts, computed now or before."""

    truncated: int = 0
    """How many of the texts were cut to the budget or to the model's limit."""

    blank: int = 0
    """How many texts were blank and got a vector of zeros."""

    forward_passes: int
    """Batches that went through the model in this run; 0 if all vectors were in the cache."""

    computed_tokens: int
    """Tokens that went through the model in this run."""

    seconds: float
    """Spent in the model in this run."""

    exact_split: bool
    """Whether the items are exactly those of mteb's task `published_name`."""

    reported: bool = False
    """Whether it is this split that mteb reports, whatever it is called."""

    published_name: str | None = None
    """The mteb task that published scores to compare with go by, if there is one."""

    data_revision: str = ""
    """mteb's revision of the data, or a hash of the local files."""

    versions: Mapping[str, str] = field(default_factory=dict)
    """Software that made it."""

    @property
    def name(self) -> str:
        """The name that mteb knows it by: model, recipe and sample."""
        return result_name(self.model, self.recipe_name, self.sample, self.seed)

    @property
    def is_test(self) -> bool:
        """Whether it was measured on test data, on which nothing may be chosen."""
        return self.reported or self.split not in DEVELOPMENT or self.task in _REPORTED_ON_DEV

    @property
    def drawn_with(self) -> tuple[int, int] | None:
        """Size and seed of the sample; None of a whole task, for which the seed plays no part."""
        return None if self.sample is None else (self.sample, self.seed)


_REPORTED_ON_DEV = ("MSMARCO",)
"""The task of the 56 that mteb reports on its development split, in files without `reported`."""

DEVELOPMENT = ("dev", "validation", "val", "train")
"""Splits that anything may be chosen on; all others are test data."""


def result_name(model: str, recipe: str, sample: int | None, seed: int) -> str:
    """What mteb calls a model with a recipe: "echovec/MODEL--RECIPE", and its sample if any."""
    parts = [model, recipe] + ([f"sample-{sample}-seed-{seed}"] if sample else [])
    return "echovec/" + "--".join(re.sub(r"[^\w.+]+", "-", part).strip("-") for part in parts)


def outcome_path(folder: Path, name: str, fingerprint: str, task: str, split: str = TEST) -> Path:
    """Where an outcome of this `result_name` lies."""
    file = f"{task}.json" if split == TEST else f"{task}--{split}.json"
    return folder / FOLDER / name.replace("/", "__") / fingerprint / file


def write_outcome(outcome: Outcome, folder: str | Path) -> Path:
    """Write an outcome into a result folder; whole or not at all.

    Raises:
        StorageError: the disk does not take it.
    """
    folder = Path(folder)
    path = outcome_path(folder, outcome.name, outcome.fingerprint, outcome.task, outcome.split)
    content = {"format": FORMAT, **dataclasses.asdict(outcome)}
    write_whole(path, (json.dumps(finite(content), indent=1, allow_nan=False) + "\n").encode())
    return path


def read_outcome(path: Path) -> Outcome:
    """Read an outcome's file.

    Raises:
        InputError: it cannot be read, or is none.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        if content.pop("format") != FORMAT:
            raise ValueError(f"another format than {FORMAT}")
        if content["main_score"] is None:
            content["main_score"] = math.nan
        if content["interval"] is not None:
            low, high = content["interval"]
            content["interval"] = (low, high)
        return Outcome(**content)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path}: not a result of `echovec eval` ({type(error).__name__}: {error}); delete it "
            "and run the evaluation again"
        ) from None


def read_outcomes(*folders: str | Path) -> list[Outcome]:
    """All outcomes of result folders (what `--out` named), sorted by path within each folder.

    Raises:
        InputError: a file is broken; a folder without outcomes gives none.
    """
    files = [f for folder in folders for f in sorted((Path(folder) / FOLDER).rglob("*.json"))]
    return [read_outcome(file) for file in files]


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole, or not at all, even after a power cut.

    Raises:
        StorageError: the disk is full or does not take it.
    """
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another folder; "
            "what is finished is kept"
        ) from error
