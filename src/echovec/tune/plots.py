"""Plots: score by layer, by calibration, and quality against cost, as SVG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from echovec.errors import DependencyError

_SIZE = (6.4, 3.8)


def line_plot(
    file: Path, series: Mapping[str, Sequence[tuple[float, float]]], *, x: str, y: str
) -> None:
    """A line with markers for each series of (x, y)."""
    figure, axes = _figure()
    for name, points in series.items():
        at = sorted(points)
        axes.plot([p[0] for p in at], [p[1] for p in at], marker="o", markersize=3, label=name)
    if series:
        axes.legend(fontsize=7, frameon=False)
    _save(figure, axes, file, x, y)


def bar_plot(file: Path, values: Mapping[str, float], *, x: str) -> None:
    """A bar for each value, the first on top."""
    figure, axes = _figure()
    names = list(values)[::-1]
    bars = axes.barh(names, [values[name] for name in names])
    axes.bar_label(bars, fmt="%.1f", fontsize=7, padding=2)
    axes.tick_params(axis="y", labelsize=7)
    lowest = min(values.values())
    axes.set_xlim(left=max(0.0, lowest - 10))  # differences, not heights, are what to see
    _save(figure, axes, file, x, "")


def point_plot(file: Path, points: Mapping[str, tuple[float, float]], *, x: str, y: str) -> None:
    """A named point for each (x, y)."""
    figure, axes = _figure()
    for name, (at, value) in points.items():
        axes.plot([at], [value], marker="o", linestyle="none")
        axes.annotate(name, (at, value), xytext=(5, 3), textcoords="offset points", fontsize=8)
    axes.margins(0.15)
    _save(figure, axes, file, x, y)


def _figure() -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise DependencyError(
            "plots need matplotlib, which is not installed: pip install echovec[eval]"
        ) from None
    figure = Figure(figsize=_SIZE, layout="constrained")
    return figure, figure.add_subplot()


def _save(figure: Any, axes: Any, file: Path, x: str, y: str) -> None:
    from matplotlib import rc_context

    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": file.name}):
        figure.savefig(file, metadata={"Date": None})
