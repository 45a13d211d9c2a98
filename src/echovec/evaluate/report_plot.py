"""Plots: drawn by matplotlib as SVG that takes its colours from the page, light or dark.

The drawing uses stand-in colours which are replaced by the page's CSS variables, and leaves text
as text in the page's own font. Pictures are 420 pixels wide, so that they are readable on a phone
at nearly full size and stand two in a row on a desk.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from echovec.errors import DependencyError
from echovec.evaluate.report_parts import Measured, Plot, Series

WIDTH_INCHES, PIXELS_PER_INCH = 4.2, 100
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
SHAPES = ("●", "■", "◆", "▲", "▼", "✚", "✖")
"""The markers as characters, for the legend that the page writes."""

# Stand-ins that no drawing would use by itself, and the variable of the page that replaces each.
_INK, _QUIET, _RULE = "#010203", "#010204", "#010205"
_LINES = tuple(f"#0102{10 + place:02d}" for place in range(7))
_VARIABLES = {
    _INK: "var(--ink)",
    _QUIET: "var(--quiet)",
    _RULE: "var(--rule)",
    **{colour: f"var(--line-{place})" for place, colour in enumerate(_LINES)},
}


def svg(plot: Plot) -> str:
    """The plot as an `<svg>` element for a page of report_page.py.

    Raises:
        DependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise DependencyError(
            "plots need matplotlib, which is not installed: pip install echovec[eval]"
        ) from None
    style: Any = {
        "svg.fonttype": "none",
        "text.parse_math": False,  # a name with dollar signs is a name
        "svg.hashsalt": plot.title,
        "font.size": 9,
        "font.family": "sans-serif",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": _RULE,
        "axes.labelcolor": _QUIET,
        "xtick.color": _RULE,
        "ytick.color": _RULE,
        "xtick.labelcolor": _QUIET,
        "ytick.labelcolor": _INK,
        "text.color": _INK,
    }
    with rc_context(style), warnings.catch_warnings():
        # Of no account: the page's own font draws the letters.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(WIDTH_INCHES, _height(plot)), layout="constrained")
        axes = figure.add_subplot()
        _KINDS[plot.kind](axes, plot)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return _for_page(out.getvalue(), plot)


def _height(plot: Plot) -> float:
    if plot.kind == "dots":
        return 0.75 + max(len(plot.ticks), 1) * (0.16 + 0.13 * len(plot.series))
    return 2.9


def _dots(axes: Any, plot: Plot) -> None:
    places = np.arange(len(plot.ticks), dtype=float)
    spread = 0.72 / max(len(plot.series), 1)
    for which, series in enumerate(plot.series):
        offset = (which - (len(plot.series) - 1) / 2) * spread
        at, values, below, above = _columns(series)
        axes.errorbar(
            values,
            places[at] + offset,
            xerr=(below, above),
            **_look(which),
            linestyle="none",
            elinewidth=1.2,
        )
    for place in places[:-1]:
        axes.axhline(place + 0.5, color=_RULE, linewidth=0.5)
    axes.set_yticks(places, plot.ticks)
    axes.set_ylim(len(plot.ticks) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(plot.axis)
    axes.set_ylabel(plot.places)
    if plot.mark is not None:
        axes.axvline(plot.mark, color=_QUIET, linewidth=0.8, linestyle=(0, (3, 3)))


def _lines(axes: Any, plot: Plot) -> None:
    places = np.arange(len(plot.ticks), dtype=float)
    for which, series in enumerate(plot.series):
        at, values, below, above = _columns(series)
        look = _look(which)
        axes.plot(places[at], values, **look, linewidth=1.4)
        axes.fill_between(
            places[at], values - below, values + above, color=look["color"], alpha=0.13, linewidth=0
        )
    axes.set_xticks(places, plot.ticks)
    if len(plot.ticks) > 10:
        axes.set_xticks(places[::5], plot.ticks[::5])
    axes.set_xlabel(plot.places)
    axes.set_ylabel(plot.axis)
    if plot.mark is not None:
        axes.axhline(plot.mark, color=_QUIET, linewidth=0.8, linestyle=(0, (3, 3)))


def _histogram(axes: Any, plot: Plot) -> None:
    columns = [_columns(series)[1] for series in plot.series]
    edges = np.histogram_bin_edges(np.concatenate(columns), bins=24)
    for which, values in enumerate(columns):
        colour = _LINES[which % len(_LINES)]
        axes.hist(values, edges, color=colour, alpha=0.3, linewidth=0)
        axes.hist(values, edges, histtype="step", color=colour, linewidth=1.4)
    axes.set_xlabel(plot.axis)
    axes.set_ylabel(plot.places)
    if plot.mark is not None:
        axes.axvline(plot.mark, color=_QUIET, linewidth=0.8, linestyle=(0, (3, 3)))


_KINDS: dict[str, Callable[[Any, Plot], None]] = {
    "dots": _dots,
    "lines": _lines,
    "histogram": _histogram,
}


def _look(which: int) -> dict[str, Any]:
    # Shape as well as colour: the pictures shall be readable without colours.
    return {
        "color": _LINES[which % len(_LINES)],
        "marker": MARKERS[which % len(MARKERS)],
        "markersize": 4.6,
    }


def _columns(series: Series) -> tuple[Any, Any, Any, Any]:
    """Places that have a number, the numbers, and how far the interval goes below and above."""
    points = [(place, point) for place, point in enumerate(series.points) if point is not None]
    rows = [(place, *_extent(point)) for place, point in points]
    place, value, low, high = np.array(rows, dtype=float).reshape(-1, 4).T
    # A percentile interval need not hold the value itself; a whisker cannot be negative.
    return place.astype(int), value, np.maximum(value - low, 0), np.maximum(high - value, 0)


def _extent(point: Measured | float) -> Iterator[float]:
    if isinstance(point, Measured):
        return iter((point.value, point.low, point.high))
    return iter((point, point, point))


def _for_page(drawn: str, plot: Plot) -> str:
    """Only the svg element, with the page's colours and ids of its own."""
    body = drawn[drawn.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, variable)
    own = re.sub(r"\W+", "-", plot.title.lower())
    body = re.sub(r'\bid="([^"]+)"', rf'id="{own}-\1"', body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{own}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{own}-\1)", body)
    # The page's font stands in for the one that matplotlib measured with.
    body = re.sub(r"(font: [\d.]+px )[^;\"]+", r"\1var(--font)", body)
    body = re.sub(r"font-family: ?[^;\"]+", "font-family: var(--font)", body)
    return re.sub(r'<svg\b[^>]*?viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" role="img">', body)
