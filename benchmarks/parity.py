"""Parity: every recipe that ships, exported to every runtime, against the embedder; one table.

    python -m benchmarks.parity --markdown docs/export.md        all of it, about half an hour
    python -m benchmarks.parity --recipes echo --to onnx

Over real, hostile and over-long texts, with a budget of 64 tokens per copy so that the long ones do
not take all the time. A row says how far apart vectors are, and how large the export is.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from echovec import Embedder, RecipeError
from echovec.errors import DependencyError, ExportError
from echovec.export.parity import Parity
from echovec.export.to_graph import export_graph
from echovec.export.to_sentence_transformers import export
from echovec.saved import shipped_names

RECIPES = ("echo", "prompt-eol", "echo-instruct", "fast", "one-pass", "best", *shipped_names())
START, END = "<!-- parity: begin -->", "<!-- parity: end -->"
Export = Callable[[Embedder, Path], Parity]

RUNTIMES: Mapping[str, Export] = {
    "sentence-transformers, plain": lambda e, f: export(e, f, route="plain"),
    "sentence-transformers, module": lambda e, f: export(e, f, route="module"),
    "onnx": lambda e, f: _graph(e, f, "onnx"),
    "onnx-int8": lambda e, f: _graph(e, f, "onnx-int8"),
    "openvino": lambda e, f: _graph(e, f, "openvino"),
}
_KEPT = tempfile.TemporaryDirectory()


def _graph(embedder: Embedder, folder: Path, kind: str) -> Parity:
    """The ONNX file of a recipe is made once and serves all three."""
    kept = Path(_KEPT.name) / embedder.recipe.fingerprint / "model.onnx"
    parity = export_graph(embedder, folder, kind, source=kept if kept.is_file() else None)
    if kind == "onnx":
        kept.parent.mkdir()
        for file in folder.glob("model.onnx*"):
            shutil.copy(file, kept.parent)
    return parity


@dataclass(frozen=True)
class Row:
    """One export."""

    recipe: str
    runtime: str
    max_diff: float | None
    lowest_cosine: float | None
    megabytes: float | None
    seconds: float
    said: str
    """The verdict, or why there is none."""


def measure(embedder: Embedder, recipe: str, runtime: str) -> Row:
    """Export, compare, and remove again."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "export"
        try:
            parity = RUNTIMES[runtime](embedder, folder)
        except (RecipeError, ExportError, DependencyError) as error:
            said = str(error).splitlines()[0]
            return Row(recipe, runtime, None, None, None, time.perf_counter() - started, said)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
        shutil.rmtree(folder)
    seconds = time.perf_counter() - started
    said = "same" if parity.least_cosine > 0.9999 else "near"
    return Row(recipe, runtime, parity.max_diff, parity.lowest_cosine, size, seconds, said)


def table(rows: list[Row]) -> str:
    """Markdown; a recipe that a runtime cannot hold has a dash."""
    lines = [
        "| recipe | runtime | max difference | lowest cosine | MB | verdict |",
        "|---|---|---:|---:|---:|---|",
    ]
    for row in rows:
        if row.max_diff is None:
            why = row.said.rpartition(": ")[2].partition(";")[0]
            lines.append(f"| {row.recipe} | {row.runtime} | | | | no: {why} |")
        else:
            lines.append(
                f"| {row.recipe} | {row.runtime} | {row.max_diff:.1e} | {row.lowest_cosine:.7f} | "
                f"{row.megabytes:.0f} | {row.said} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure what is asked for and print, or write into a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--to", default=",".join(RUNTIMES), help="runtimes, parted by ';'")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--markdown", type=Path, help="a page with the two marks")
    parser.add_argument("--json", type=Path, help="where to keep the rows")
    given = parser.parse_args()
    runtimes = [name for name in RUNTIMES if name in given.to or given.to in name]
    model = Embedder.load()
    rows = []
    for name in given.recipes.split(","):
        if name in shipped_names():
            embedder = Embedder.load(name, max_tokens=given.max_tokens)
        else:
            embedder = model.with_recipe(name, max_tokens=given.max_tokens)
        for runtime in runtimes:
            rows.append(measure(embedder, name, runtime))
            print(rows[-1], flush=True)
    if given.json:
        given.json.write_text(json.dumps([vars(row) for row in rows], indent=1), "utf-8")
    text = table(rows)
    print(text)
    if given.markdown:
        page = given.markdown.read_text("utf-8")
        before, _, rest = page.partition(START)
        after = rest.partition(END)[2]
        given.markdown.write_text(f"{before}{START}\n\n{text}\n\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
