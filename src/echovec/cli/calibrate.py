"""`echovec calibrate`: a recipe fitted on unlabelled text, or on what the model writes itself."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from echovec.calibrate.kinds import KINDS
from echovec.cli.counts import counted
from echovec.cli.options import Device, MaxTokens, Model, Precision

if TYPE_CHECKING:
    from echovec import Embedder


def calibrate(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="RECIPE_DIR", help="Where the recipe goes.")
    ],
    recipe: Annotated[
        str, typer.Option(help="What to fit: a recipe's name, file or folder.")
    ] = "echo",
    model: Model = None,
    texts: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Unlabelled texts: .txt (a text a line), .jsonl, .csv or .parquet. Several times: "
            "each file is a kind of text, for remove-kinds.",
        ),
    ] = None,
    by_itself: Annotated[
        bool, typer.Option("--self", help="The model writes its texts itself: the default.")
    ] = False,
    count: Annotated[
        int | None,
        typer.Option(
            min=2, help="How many texts; by default 1024 of its own, or all of each FILE."
        ),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            help=f"What the model writes: {', '.join(KINDS)}; several times, by default all.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="What its own texts are drawn with.")] = 0,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="What is fitted: center, center-scale (the default), whiten, remove-top, "
            "remove-kinds or pca; several times: one after the other.",
        ),
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="whiten: 0 (centre only) to 1 (all axes alike).")
    ] = None,
    shrinkage: Annotated[
        float | None, typer.Option(help="whiten: 0 to 1; more where there are few texts.")
    ] = None,
    axes: Annotated[
        int | None, typer.Option(min=1, help="remove-top, remove-kinds: how many axes.")
    ] = None,
    dim: Annotated[int | None, typer.Option(min=1, help="pca: width of the vectors.")] = None,
    name: Annotated[
        str | None, typer.Option(help="The new recipe's name; by default RECIPE+METHOD.")
    ] = None,
    text_field: Annotated[str, typer.Option(help="Field or column that holds the text.")] = "text",
    max_tokens: MaxTokens = None,
    device: Device = None,
    precision: Precision = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the recipe in RECIPE_DIR.")
    ] = False,
) -> None:
    """Fit a calibration and write the recipe that has it."""
    from tqdm import tqdm

    from echovec.errors import InputError
    from echovec.files.disk import check_folder
    from echovec.recipe import RECIPE_FILE

    if texts and kind:
        raise InputError("--kind is for texts that the model writes; each --texts FILE is a kind")
    if texts and by_itself:
        raise InputError("--texts FILE and --self say two things; give one")
    if (out / RECIPE_FILE).exists() and not overwrite:
        raise InputError(f"{out} holds a recipe already; give another folder or --overwrite")
    check_folder(out)
    given = {"strength": strength, "shrinkage": shrinkage, "count": axes, "dim": dim}
    options: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    own: list[str] = []
    kinds: list[str] = []
    for file in texts or ():
        of_this = read_texts(file, text_field, count)
        own, kinds = own + of_this, kinds + [str(file)] * len(of_this)
    source = ", ".join(map(named, texts)) if texts else "written by the model itself"

    from echovec import Embedder
    from echovec.calibrate import Writing, self_texts
    from echovec.calibrate import calibrate as fit
    from echovec.calibrate.fitting import steps_of

    methods = method or ["center-scale"]
    # An option that cannot be used is said before a model is loaded.
    steps_of(methods, options)
    writing = Writing(seed=seed, kinds=tuple(kind or KINDS))
    writing = writing if count is None else replace(writing, count=count)
    started = time.monotonic()
    embedder = Embedder.load(
        model, recipe, device=device, precision=precision, max_tokens=max_tokens
    )
    if not texts:
        with tqdm(
            total=writing.count, unit=" texts", desc="writing", disable=None, leave=False
        ) as bar:
            written = self_texts(embedder, writing, advance=bar.update)
        print(
            f"{counted(len(written.texts), 'text')} written by the model itself "
            f"({written.new:,} of them now, {written.redrawn:,} drawn again)",
            file=sys.stderr,
        )
        own, kinds = list(written.texts), list(written.kinds)
    calibrated = fit(embedder, own, methods, kinds=kinds, name=name, source=source, **options)
    calibrated.recipe.save(out)
    _conclude(calibrated, out, time.monotonic() - started)


def read_texts(file: Path, text_field: str, count: int | None) -> list[str]:
    """The file's texts, the first `count` of them; a row that cannot be used is an error."""
    from echovec.corpus.source import Problem, read_rows
    from echovec.errors import InputError

    texts: list[str] = []
    for row in read_rows([str(file)], text_field=text_field):
        if isinstance(row, Problem):
            raise InputError(f"{row.where}: {row.reason}; correct it or take the row out")
        texts.append(row.text)
        if len(texts) == count:
            break
    return texts


def named(file: Path) -> str:
    """The file's name and hash, for the record."""
    from echovec.model.cache import sha256_of

    return f"{file.name} (sha256:{sha256_of(file)})"


def _conclude(calibrated: Embedder, out: Path, seconds: float) -> None:
    recipe = calibrated.recipe
    print(
        f"{recipe.name} ({recipe.fingerprint}) -> {out} in {seconds:.1f} s; "
        f"use it with --recipe {out}",
        file=sys.stderr,
    )
