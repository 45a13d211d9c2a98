"""Controls that the paper lacks: repetition alone, instruction alone, three and four copies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from echovec.evaluate.reproduce.comparison import category_plot, category_table, task_table
from echovec.evaluate.reproduce.findings import Findings, Options
from echovec.evaluate.reproduce.recipes import common_settings
from echovec.evaluate.reproduce.scores import SHORT, compare_on_tasks, data_settings
from echovec.presets import preset

if TYPE_CHECKING:
    from echovec.embedder import Embedder

METHODS = ("echo", "classical", "instruction-only", "repeat-only", "echo-3", "echo-4")
SIZE = 50


def controls(embedder: Embedder, data: Path | None, options: Options) -> Findings:
    """Six recipes on the short tasks of the folder `data`, 50 items of each by default."""
    methods = {name: preset(name) for name in METHODS}
    found = compare_on_tasks(embedder, methods, data, options, size=SIZE, tasks=SHORT)
    return Findings(
        experiment="controls",
        title="Controls: is it the repetition, or the instruction?",
        question=(
            "Echo changes two things at once: the prompt asks for a rewriting, and the text "
            "stands there twice. Each alone, and more copies than two."
        ),
        claims=(
            found.claim(
                "Repetition without an instruction beats a single copy",
                "repeat-only",
                "classical",
                paper="not studied",
            ),
            found.claim(
                "The instruction adds to repetition: echo beats repetition alone",
                "echo",
                "repeat-only",
                paper="not studied",
            ),
            found.claim(
                "Echo's instruction in front of a single copy is no better than the "
                "paper's own single-copy prompt",
                "instruction-only",
                "classical",
                kind="not greater",
                paper="not studied",
            ),
            found.claim(
                "Three copies are better than two",
                "echo-3",
                "echo",
                paper="not studied",
            ),
            found.claim(
                "Four copies are better than three",
                "echo-4",
                "echo-3",
                paper="not studied",
            ),
        ),
        tables=(category_table(found, title="By category"), task_table(found)),
        plots=(category_plot(found),),
        settings=common_settings(embedder, methods.values(), **data_settings(found, options)),
    )
