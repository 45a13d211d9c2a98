"""Scores: several recipes on the tasks of a data folder, through the evaluation's own runner.

Scores are mteb's. Their resamples come from the items that the runner keeps, the same items for
every recipe, which is what makes the differences of a Comparison paired.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from echovec.errors import InputError
from echovec.evaluate.interval import RESAMPLES, SEED
from echovec.evaluate.layout import find_sets
from echovec.evaluate.reproduce.comparison import Comparison, Scored, Task
from echovec.evaluate.reproduce.findings import Options
from echovec.evaluate.reproduce.verdict import Floats

if TYPE_CHECKING:
    from echovec.embedder import Embedder
    from echovec.evaluate.results import Outcome
    from echovec.recipe import Recipe

SHORT = (
    "STS16",
    "STSBenchmark",
    "MRPC",
    "QuoraPairs",
    "Emotion",
    "StackOverflowShort",
    "TwentyNewsgroups-subjects",
)
"""Folders of short texts: two tasks of a category where there are two that cost little."""

LONG = ("XQuAD-en-retrieval", "MSMARCO-DL19-rerank", "SummEval-12systems")
"""Folders whose texts are long and whose items are several texts each."""

LONG_SHARE = 5
"""By default an experiment takes this many times fewer items of the long ones."""


def compare_on_tasks(
    embedder: Embedder,
    methods: Mapping[str, Recipe],
    data: Path | None,
    options: Options,
    *,
    size: int,
    tasks: Sequence[str] = (*SHORT, *LONG),
) -> Comparison:
    """Methods side by side on test data; nothing may be chosen by what comes out.

    Args:
        embedder: the model.
        methods: what to call each recipe.
        data: the data folder.
        options: sample, seed, cache.
        size: items of each task at most, a fifth of it for long ones, unless the options say
            how many.
        tasks: folders of `data`; if it has none of them, all its sets are taken.

    Raises:
        InputError: there is no folder, or nothing in it can be compared.
    """
    from echovec.evaluate.run import evaluate

    if data is None:
        raise InputError("this experiment needs a folder of data sets: give --data DIR")
    here = [one.folder.name for one in find_sets(data)[0] if "test" in one.splits]
    chosen = [task for task in tasks if task in here] or here
    sizes = {task: size_of(task, options, size) for task in chosen}
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as temporary:
        for sample in dict.fromkeys(sizes.values()):
            outcomes += evaluate(
                embedder,
                [replace(recipe, name=method) for method, recipe in methods.items()],
                [task for task in chosen if sizes[task] == sample],
                out=options.cache or Path(temporary),
                data=data,
                sample=sample,
                seed=options.seed,
                say=options.say,
            )
    return comparison_of(outcomes, list(methods))


def size_of(task: str, options: Options, size: int) -> int | None:
    """Items of a task at most, None for all: the options' number, or a default by its length."""
    return options.size(max(10, size // LONG_SHARE) if task in LONG else size)


def comparison_of(outcomes: Sequence[Outcome], methods: Sequence[str]) -> Comparison:
    """Outcomes of every method on the same tasks, samples and items as a Comparison.

    A task whose score cannot be resampled is left out: it has no interval to judge by.
    """
    found: dict[str, dict[str, Outcome]] = {}
    for outcome in outcomes:
        if outcome.items:
            found.setdefault(outcome.task, {})[outcome.recipe_name] = outcome
    shared = {task: by for task, by in found.items() if set(by) >= set(methods)}
    if not shared:
        raise InputError("no task has a score of every recipe that can be resampled")
    first = {task: next(iter(by_method.values())) for task, by_method in shared.items()}
    scores: dict[str, dict[str, Scored]] = {method: {} for method in methods}
    for task, by_method in shared.items():
        for method in methods:
            outcome = by_method[method]
            if (outcome.num_items, outcome.drawn_with) != (
                first[task].num_items,
                first[task].drawn_with,
            ):
                raise InputError(f"{task}: {method} was scored on other items than the others")
            scores[method][task] = Scored(100 * outcome.main_score, _resampled(outcome))
    tasks = tuple(Task(task, one.category, one.split, one.num_items) for task, one in first.items())
    return Comparison(tasks, scores)


def data_settings(found: Comparison, options: Options) -> dict[str, str]:
    """What a page says about the tasks and how many of their items were taken."""
    taken = ", ".join(f"{task.name} ({task.split}, {task.items:,})" for task in found.tasks)
    whole = "whole tasks" if options.sample == 0 else f"samples, seed {options.seed}"
    return {"data": taken, "size": f"{found.items():,} items, {whole}"}


def _resampled(outcome: Outcome) -> Floats:
    from echovec.evaluate.interval import replicates

    return 100 * replicates(outcome.items, resamples=RESAMPLES, seed=SEED)
