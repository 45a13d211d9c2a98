"""Comparison: several methods on the same tasks and items, resampled together.

Each method has, for each task, its score and the same score on 1,000 resamples of the items; the
r-th resample has the same items for every method, so the r-th difference of two methods is a
difference on the same items. A mean of tasks counts each task once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from echovec.evaluate.published import CATEGORIES, Published
from echovec.evaluate.report_parts import Cell, Difference, Label, Measured, Plot, Series, Table
from echovec.evaluate.reproduce.verdict import Claim, Floats, Kind, measured


@dataclass(frozen=True, eq=False)
class Scored:
    """One method on one task, in points (0 to 100)."""

    value: float
    resampled_R: Floats
    """The same score on each resample."""


@dataclass(frozen=True)
class Task:
    """What was scored."""

    name: str
    category: str
    split: str
    items: int
    """Pairs, texts or queries that the score is over."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Scores of every method on every task."""

    tasks: tuple[Task, ...]
    scores: Mapping[str, Mapping[str, Scored]]
    """Method to task to score; every method has every task."""

    @property
    def categories(self) -> dict[str, list[str]]:
        """Category to its tasks, in the paper's order."""
        found = {c: [t.name for t in self.tasks if t.category == c] for c in CATEGORIES}
        return {category: names for category, names in found.items() if names}

    def mean(self, method: str, tasks: Sequence[str] | None = None) -> Measured:
        """A method's mean over these tasks, by default all."""
        value, resampled_R = self._mean(method, tasks)
        return measured(value, resampled_R)

    def difference(self, a: str, b: str, tasks: Sequence[str] | None = None) -> Difference:
        """The mean of `a` less that of `b`, item by item."""
        (value_a, resampled_a), (value_b, resampled_b) = self._mean(a, tasks), self._mean(b, tasks)
        found = measured(value_a - value_b, resampled_a - resampled_b)
        return Difference(found.value, found.low, found.high)

    def claim(
        self,
        statement: str,
        a: str,
        b: str,
        *,
        paper: str,
        tasks: Sequence[str] | None = None,
        kind: Kind = "greater",
    ) -> Claim:
        """The claim that `a` is better than `b` (or what `kind` says) on these tasks."""
        return Claim(
            statement=statement,
            difference=self.difference(a, b, tasks),
            items=self.items(tasks),
            kind=kind,
            paper=paper,
        )

    def items(self, tasks: Sequence[str] | None = None) -> int:
        """How many items these tasks have together."""
        return sum(task.items for task in self.tasks if tasks is None or task.name in tasks)

    def resampled(self, method: str, tasks: Sequence[str] | None = None) -> Floats:
        """A method's mean on each resample, [R]."""
        return self._mean(method, tasks)[1]

    def _mean(self, method: str, tasks: Sequence[str] | None) -> tuple[float, Floats]:
        names = [task.name for task in self.tasks] if tasks is None else list(tasks)
        chosen = [self.scores[method][name] for name in names]
        value = float(np.mean([one.value for one in chosen]))
        return value, np.mean([one.resampled_R for one in chosen], axis=0)


def category_table(
    comparison: Comparison, published: Mapping[str, Published] | None = None, *, title: str
) -> Table:
    """Methods by category, each with the printed row of the same method below it, if given."""
    categories = comparison.categories
    rows: list[tuple[Cell, ...]] = []
    marked = set()
    for method in comparison.scores:
        means = [comparison.mean(method, names) for names in categories.values()]
        rows.append(
            (Label(method, "this run" if published else ""), *means, comparison.mean(method))
        )
        if published and (row := published.get(method)):
            marked.add(len(rows))
            where = f"{row.backbone}; {row.task_set}, {row.table}"
            scores = [row.scores.get(category) for category in categories]
            rows.append((Label(method, where), *scores, row.average))
    heads = (f"{category} ({len(names)})" for category, names in categories.items())
    columns = ("method", *heads, f"all ({len(comparison.tasks)})")
    notes = ["In brackets: how many tasks."]
    if marked:
        notes.append("Published rows are averages over other tasks with another model.")
    notes += [
        f"{name}, published: {row.note}." for name, row in (published or {}).items() if row.note
    ]
    return Table(title, columns, tuple(rows), " ".join(notes), frozenset(marked))


def task_table(comparison: Comparison) -> Table:
    """Every task with every method."""
    rows: list[tuple[Cell, ...]] = [
        (
            Label(task.name, f"{task.category}, {task.split}, {task.items:,} items"),
            *(comparison.mean(method, [task.name]) for method in comparison.scores),
        )
        for task in comparison.tasks
    ]
    return Table("By task", ("task", *comparison.scores), tuple(rows))


def difference_table(comparison: Comparison, a: str, b: str) -> Table:
    """`a` less `b`, by task, by category and in all."""
    rows: list[tuple[Cell, ...]] = [
        (task.name, comparison.difference(a, b, [task.name])) for task in comparison.tasks
    ]
    rows += [
        (f"{category}, mean of {len(names)}", comparison.difference(a, b, names))
        for category, names in comparison.categories.items()
        if len(names) > 1
    ]
    rows.append((f"all {len(comparison.tasks)}", comparison.difference(a, b)))
    return Table(f"{a} less {b}, points", ("task", "difference"), tuple(rows))


def category_plot(comparison: Comparison, title: str = "By category") -> Plot:
    """Methods side by side in each category."""
    rows = {**comparison.categories, "all": [task.name for task in comparison.tasks]}
    return Plot(
        title=title,
        kind="dots",
        series=tuple(
            Series(method, tuple(comparison.mean(method, names) for names in rows.values()))
            for method in comparison.scores
        ),
        ticks=tuple(rows),
        axis="score x 100",
    )


def difference_plot(comparison: Comparison, a: str, b: str) -> Plot:
    """`a` less `b` on each task."""
    differences = tuple(comparison.difference(a, b, [task.name]) for task in comparison.tasks)
    return Plot(
        title=f"{a} less {b}, by task",
        kind="dots",
        series=(Series("difference", differences),),
        ticks=tuple(task.name for task in comparison.tasks),
        axis="points",
        mark=0.0,
        caption=f"To the right of the line {a} is better.",
    )
