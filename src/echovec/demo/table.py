"""One answer as a table: rank, and a column of hits for each recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from echovec.demo.ask import Answer, Hit

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

MAX_WIDTH = 120
_MAX_SNIPPET = 60


def answer_table(answer: Answer, *, num_rows: int, width: int) -> Table:
    """The first `num_rows` hits of each recipe side by side, in `width` columns of a terminal.

    Names are broken rather than cut, docstrings are cut to one line; "*" marks an answer that was
    named beforehand as a right one.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(answer.question.text, style="bold"),
        title_justify="left",
        width=min(width, MAX_WIDTH),
        show_lines=True,
    )
    table.add_column("#", justify="right", width=max(1, len(str(num_rows))))
    for recipe in answer.hits:
        table.add_column(recipe, ratio=1)
    rows = list(zip(*(hits[:num_rows] for hits in answer.hits.values()), strict=True))
    for rank, row in enumerate(rows, start=1):
        table.add_row(str(rank), *map(_cell, row))
    return table


def _cell(hit: Hit) -> Table:
    # Text, not strings: brackets in a docstring are no markup.
    from rich.table import Table
    from rich.text import Text

    cell = Table.grid(expand=True)
    cell.add_column(overflow="fold")
    cell.add_row(_heading(hit))
    cell.add_row(Text(_snippet(hit.text), style="dim", no_wrap=True, overflow="ellipsis"))
    return cell


def _snippet(text: str) -> str:
    return text if len(text) <= _MAX_SNIPPET else text[: _MAX_SNIPPET - 1] + "…"


def _heading(hit: Hit) -> Text:
    from rich.text import Text

    mark = "* " if hit.right else ""
    style = "bold green" if hit.right else "bold"
    return Text.assemble((f"{mark}{hit.name}", style), f"  {hit.score:.3f}", overflow="fold")
