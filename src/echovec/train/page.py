"""Page: a run's curves as one HTML file that needs nothing else."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from echovec.train.run import Run

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-bottom: .3rem; }
figure { margin: 0; background: #fff; border-radius: 8px; } svg { width: 100%; height: auto; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); gap: 1rem; }
pre { overflow-x: auto; padding: 1rem; background: #8882; border-radius: 8px; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem .2rem 0; text-align: left; }
"""

_OWN = {
    "loss": "Loss",
    "grad_norm": "Gradient norm",
    "learning_rate": "Learning rate",
    "sts_dev": "STSBenchmark, development split (Spearman x 100)",
}


def write_page(run: Run, history: Sequence[Mapping[str, Any]], out: Path) -> Path:
    """Write `index.html`: a curve for each number of the log, and the run's table."""
    figures = "\n".join(
        f"<section><h2>{html.escape(title)}</h2><figure>{_curve(points)}</figure></section>"
        for title, points in curves(history)
    )
    last = {k: v for entry in history for k, v in entry.items() if isinstance(v, int | float)}
    rows = "".join(
        f"<tr><th>{html.escape(k)}</th><td>{v:g}</td></tr>" for k, v in sorted(last.items())
    )
    file = out / "index.html"
    file.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(run.name)}</title><style>{_STYLE}</style>"
        f"<h1>{html.escape(run.name)}</h1>"
        f'<div class="grid">{figures}</div>'
        f"<h2>Last values</h2><table>{rows}</table>"
        f"<h2>The run</h2><pre>{html.escape(run.to_toml())}</pre></html>\n",
        "utf-8",
    )
    return file


def curves(history: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[tuple[int, float]]]]:
    """Titles and points of the curves, those everybody looks at first."""
    names = {k for entry in history for k, v in entry.items() if isinstance(v, int | float)}
    names -= {"step", "epoch"}
    chosen = [n for n in _OWN if n in names]
    chosen += sorted(n for n in names if n.endswith(("alignment", "uniformity", "recall_at_1")))
    return [
        (
            _OWN.get(name, name.replace("_", " ")),
            [(int(e["step"]), float(e[name])) for e in history if name in e],
        )
        for name in chosen
    ]


def _curve(points: Sequence[tuple[int, float]]) -> str:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([x for x, _ in points], [y for _, y in points], color="#3b6fd4", linewidth=1.6)
    axes.set_xlabel("step")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    text = io.StringIO()
    figure.savefig(text, format="svg")
    return text.getvalue().partition("<svg")[1] + text.getvalue().partition("<svg")[2]
