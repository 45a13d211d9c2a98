"""Parts of a page: numbers with intervals, tables and plots, as plain data without any markup.

report_page.py writes them as HTML and Markdown, report_plot.py draws the plots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Measured:
    """A number with its 95 % interval, in points (0 to 100) where it is a score."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}]"

    def signed(self) -> str:
        """With signs, for a difference: "+3.2 [+1.0, +5.5]"."""
        return f"{self.value:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


@dataclass(frozen=True)
class Difference(Measured):
    """A difference of two scores: shown with its sign."""

    def __str__(self) -> str:
        return self.signed()


@dataclass(frozen=True)
class Label:
    """A name, and in smaller letters what it belongs to."""

    text: str
    detail: str

    def __str__(self) -> str:
        return f"{self.text} ({self.detail})" if self.detail else self.text


Cell = str | int | float | Measured | Label | None
"""What stands in a table: text, a count, a number (shown with one decimal), or nothing."""


@dataclass(frozen=True)
class Table:
    """Rows under columns; the first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    published: frozenset[int] = frozenset()
    """Places of the rows that are printed in a paper, not measured here."""

    published_columns: frozenset[int] = frozenset()
    """The same of columns."""


@dataclass(frozen=True)
class Series:
    """One method's numbers, one per tick, None where it has none; any number in a histogram."""

    name: str
    points: tuple[Measured | float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Numbers as a picture; `ticks` name the places along the other axis."""

    title: str
    kind: Literal["dots", "lines", "histogram"]
    """"dots": a line per tick, a dot per series; "lines": ticks from left to right; "histogram":
    how often each number occurs."""

    series: tuple[Series, ...]
    ticks: tuple[str, ...] = ()
    axis: str = ""
    """What the numbers are, with their unit."""

    places: str = ""
    """What the ticks are."""

    mark: float | None = None
    """A thin line at this number, such as chance."""

    caption: str = ""


def shown(cell: Cell) -> str:
    """A cell as text: one decimal for numbers, thousands apart in counts, a dash for nothing."""
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return f"{cell:.1f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)
