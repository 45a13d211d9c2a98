"""Tables and plots of a report: what a section of outcomes says, as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from echovec.evaluate.published import CATEGORIES, PER_TASK, Published, published_row
from echovec.evaluate.report_parts import Cell, Label, Measured, Plot, Series, Table
from echovec.evaluate.results import Outcome

Method = tuple[str, str, str]
"""(model, recipe's name, fingerprint): what is compared."""


@dataclass(frozen=True)
class Section:
    """Outcomes that were taken alike: the same split and sample; they may be compared."""

    title: str
    outcomes: tuple[Outcome, ...]

    @property
    def methods(self) -> list[Method]:
        """In order of first appearance."""
        return list(dict.fromkeys(map(method_of, self.outcomes)))

    def names(self) -> dict[Method, str]:
        """The shortest name that tells each method from the others."""
        methods = self.methods
        several_models = len({model for model, _, _ in methods}) > 1
        names = {}
        for method in methods:
            model, recipe, fingerprint = method
            name = f"{recipe}, {model}" if several_models else recipe
            twins = [other for other in methods if other[:2] == method[:2]]
            names[method] = f"{name} ({fingerprint[:6]})" if len(twins) > 1 else name
        return names

    def of(self, method: Method) -> dict[str, Outcome]:
        """A method's outcomes by task."""
        return {o.task: o for o in self.outcomes if method_of(o) == method}


def method_of(outcome: Outcome) -> Method:
    """What an outcome is an outcome of."""
    return (outcome.model, outcome.recipe_name, outcome.fingerprint)


def tables_of(section: Section) -> list[Table]:
    """All tables of a section; those without a row are left out."""
    tables = (_categories, _tasks, _single, _cost, _methods)
    return [table for table in (make(section) for make in tables) if table.rows]


def plots_of(section: Section) -> list[Plot]:
    """Categories, and the single tasks where there are more of them."""
    names, common = section.names(), common_tasks(section)
    categories = _ordered(common)
    tasks = {task: [task] for category in categories for task in common[category]}
    groups = {"By category": {category: common[category] for category in categories}}
    if len(tasks) > len(categories):
        groups["By task"] = tasks
    return [
        Plot(
            title=title,
            kind="dots",
            series=tuple(
                Series(name, tuple(_mean(section.of(method), chosen) for chosen in rows.values()))
                for method, name in names.items()
            ),
            ticks=tuple(rows),
            axis="score x 100",
        )
        for title, rows in groups.items()
        if rows
    ]


def common_tasks(section: Section) -> dict[str, list[str]]:
    """Category to the tasks that every method with a task in it has, in order of appearance."""
    found: dict[str, list[str]] = {}
    for category in dict.fromkeys(o.category for o in section.outcomes):
        by_method: dict[Method, list[str]] = {}
        for outcome in section.outcomes:
            if outcome.category == category:
                by_method.setdefault(method_of(outcome), []).append(outcome.task)
        first, *others = by_method.values()
        if shared := [task for task in first if all(task in other for other in others)]:
            found[category] = shared
    return found


def _ordered(categories: Mapping[str, object]) -> list[str]:
    """The paper's order, and then the others."""
    known = [category for category in CATEGORIES if category in categories]
    return known + [category for category in categories if category not in CATEGORIES]


def _mean(by_task: Mapping[str, Outcome], tasks: Sequence[str]) -> Measured | float | None:
    """The mean score of these tasks in points, or None if one is missing.

    Without an interval where a task has none: half of an interval would be too narrow.
    """
    if not tasks or any(task not in by_task for task in tasks):
        return None
    points = [_points(by_task[task]) for task in tasks]
    value = sum(p.value if isinstance(p, Measured) else p for p in points) / len(points)
    measured = [point for point in points if isinstance(point, Measured)]
    if len(measured) < len(points):
        return value
    below = math.hypot(*(p.value - p.low for p in measured)) / len(points)
    above = math.hypot(*(p.high - p.value for p in measured)) / len(points)
    return Measured(value, value - below, value + above)


def _points(outcome: Outcome) -> Measured | float:
    value = 100 * outcome.main_score
    if outcome.interval is None:
        return value
    return Measured(value, *(100 * bound for bound in outcome.interval))


def _categories(section: Section) -> Table:
    common = common_tasks(section)
    categories = _ordered(common)
    everything = [task for category in categories for task in common[category]]
    rows: list[tuple[Cell, ...]] = []
    published = set()
    notes: list[str] = []
    for method, name in section.names().items():
        by_task = section.of(method)
        means = [_mean(by_task, common[category]) for category in categories]
        rows.append((Label(name, method[0]), *means, _mean(by_task, everything)))
        if row := published_row(method[1], method[0]):
            published.add(len(rows))
            scores = [row.scores.get(category) for category in categories]
            rows.append((Label(row.method, _where(row)), *scores, row.average))
            notes += [f"{row.method}, published: {row.note}. "] if row.note else []
    left_out = sorted({o.task for o in section.outcomes} - set(everything))
    note = f"Left out of the means, as not all methods have them: {', '.join(left_out)}. "
    counts = [f"{category} ({len(common[category])})" for category in categories]
    return Table(
        "By category",
        ("method", *counts, f"all ({len(everything)})"),
        tuple(rows),
        note * bool(left_out)
        + "In brackets: how many tasks; a published row has its own. "
        + "".join(notes).strip(),
        frozenset(published),
    )


def _where(row: Published) -> str:
    return f"{row.backbone}; {row.task_set}, {row.table}"


def _tasks(section: Section) -> Table:
    names = section.names()
    by_method = {method: section.of(method) for method in names}
    rows: list[tuple[Cell, ...]] = []
    for task in dict.fromkeys(o.task for o in section.outcomes):
        one = next(by_task[task] for by_task in by_method.values() if task in by_task)
        scores = [
            _points(by_task[task]) if task in by_task else None for by_task in by_method.values()
        ]
        detail = f"{one.category}, {one.metric}, {one.split}, {one.num_items:,} items"
        rows.append((Label(task, detail), *scores))
    return Table("By task", ("task", *names.values()), tuple(rows))


def _single(section: Section) -> Table:
    """Datasets that version 1 of the paper prints one by one: ours, and theirs beside."""
    rows: list[tuple[Cell, ...]] = []
    backbones = dict.fromkeys(row.backbone for row in PER_TASK)
    for method, name in section.names().items():
        for task, outcome in section.of(method).items():
            dataset = outcome.published_name or task
            printed = {
                row.backbone: row.tasks[dataset]
                for row in PER_TASK
                if row.method == method[1] and dataset in row.tasks
            }
            if printed:
                same = outcome.exact_split and not outcome.sample
                detail = "the same test set" if same else f"not the items of {dataset}"
                scores = [printed.get(backbone) for backbone in backbones]
                rows.append((Label(task, detail), name, _points(outcome), *scores))
    tables = [next(row.table for row in PER_TASK if row.backbone == b) for b in backbones]
    heads = [f"{backbone}, {table}" for backbone, table in zip(backbones, tables, strict=True)]
    return Table(
        "Single datasets that the paper prints",
        ("dataset", "method", "here", *heads),
        tuple(rows),
        "Version 1 of the paper, with the prompt chosen on FiQA2018; its prompts are not ours.",
        published_columns=frozenset(range(3, 3 + len(heads))),
    )


def _cost(section: Section) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for method, name in section.names().items():
        outcomes = section.of(method).values()
        texts, tokens, truncated, passes, computed = (
            sum(getattr(outcome, field) for outcome in outcomes)
            for field in ("texts", "tokens", "truncated", "forward_passes", "computed_tokens")
        )
        seconds = float(sum(outcome.seconds for outcome in outcomes))
        rate = int(computed / seconds) if computed and seconds else None
        rows.append((name, len(outcomes), texts, truncated, tokens, passes, seconds, rate))
    return Table(
        "Cost",
        (
            "method",
            "tasks",
            "texts",
            "cut",
            "tokens",
            "batches computed",
            "seconds",
            "tokens a second",
        ),
        tuple(rows),
        "Tokens are those of whole prompts. Vectors found in the cache cost no batch and no "
        "seconds; the rate is over those computed.",
    )


def _methods(section: Section) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for method, name in section.names().items():
        one = next(iter(section.of(method).values()))
        dtype = one.recipe.get("dtype") or "dtype unknown"
        label = Label(name, f"{method[0]}, {dtype}, {method[2]}")
        rows.append((label, one.described, one.chosen_on or "nothing"))
    return Table(
        "Methods",
        ("method", "recipe", "chosen on"),
        tuple(rows),
        "Chosen on: the data that decided the recipe. Below a name: model, dtype and fingerprint.",
    )
