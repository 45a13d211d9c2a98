"""Bidirectional: a single copy with the causal mask switched off, nothing trained (table 3).

Only where the model's mask can be switched; the paper finds that most models do not survive it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from echovec.evaluate.published import TABLE_3
from echovec.evaluate.report_parts import Cell, Label, Table
from echovec.evaluate.reproduce.comparison import category_plot, category_table, task_table
from echovec.evaluate.reproduce.findings import Findings, Options
from echovec.evaluate.reproduce.recipes import common_settings
from echovec.evaluate.reproduce.scores import SHORT, compare_on_tasks, data_settings
from echovec.presets import preset

if TYPE_CHECKING:
    from echovec.embedder import Embedder

SIZE = 60
SWITCHED = "classical-both-ways"


def bidirectional(embedder: Embedder, data: Path | None, options: Options) -> Findings:
    """Echo, a single copy, and a single copy that sees both ways, on the folder `data`.

    Raises:
        ModelError: the model's mask cannot be switched.
    """
    methods = {name: preset(name) for name in ("echo", "classical", SWITCHED)}
    embedder.with_recipe(methods[SWITCHED]).encode("Can the mask be switched?")
    found = compare_on_tasks(embedder, methods, data, options, size=SIZE, tasks=SHORT)
    return Findings(
        experiment="bidirectional",
        title="Bidirectional: is it enough to switch the mask off?",
        question=(
            "If the first words of a single copy could see the last ones, would echo still be "
            "needed? The same weights with and without the causal mask."
        ),
        claims=(
            found.claim(
                "Echo beats a single copy without the causal mask",
                "echo",
                SWITCHED,
                paper=_printed("echo", SWITCHED),
            ),
            found.claim(
                "Switching the mask off makes a single copy worse",
                "classical",
                SWITCHED,
                paper=_printed("classical", SWITCHED) + "; only Mistral-7B survives the switch",
            ),
            found.claim(
                "Echo beats a single copy with its causal mask",
                "echo",
                "classical",
                paper=_printed("echo", "classical"),
            ),
        ),
        tables=(
            category_table(found, title="By category"),
            _published_table(),
            task_table(found),
        ),
        plots=(category_plot(found),),
        settings=common_settings(embedder, methods.values(), **data_settings(found, options)),
    )


def _printed(a: str, b: str) -> str:
    scores = {(row.backbone, row.method): row.average for row in TABLE_3}
    pairs = [
        f"{scores[backbone, a]:.2f} against {scores[backbone, b]:.2f} ({backbone})"
        for backbone in dict.fromkeys(backbone for backbone, _ in scores)
    ]
    return f"{', '.join(pairs)}; {TABLE_3[0].task_set}, {TABLE_3[0].table}"


def _published_table() -> Table:
    rows: list[tuple[Cell, ...]] = [
        (Label(row.method, f"{row.task_set}, {row.table}"), row.backbone, row.average)
        for row in TABLE_3
    ]
    columns = ("method", "backbone", "average")
    return Table("What the paper prints", columns, tuple(rows), "", frozenset(range(len(rows))))
