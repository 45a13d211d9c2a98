"""`echovec tune`: search for the best recipe of a model on development data."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from echovec.cli.counts import counted
from echovec.cli.options import Device, Model, Precision

if TYPE_CHECKING:
    from echovec.tune import Tuned


def tune(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="RECIPE_DIR", help="Where the recipes go.")
    ],
    model: Model = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            envvar="ECHOVEC_DATA",
            help="Folder of data sets, of which only development splits are used; by default "
            "pairs made of texts that the model writes.",
        ),
    ] = None,
    budget: Annotated[
        float, typer.Option(metavar="MINUTES", help="How long it may take; 0: no limit.")
    ] = 20.0,
    prompts: Annotated[
        str | None,
        typer.Option(metavar="P[,P2...]", help="Prompts to try; by default seven (docs/tune.md)."),
    ] = None,
    texts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Texts to calibrate on; by default the model's own."),
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=2, help="How many texts to calibrate on; by default 1024.")
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where states are kept; by default RECIPE_DIR.work."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="What samples are drawn with.")] = 0,
    device: Device = None,
    precision: Precision = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the recipes in RECIPE_DIR.")
    ] = False,
) -> None:
    """Find the best recipes of a model, within a budget; test data is never looked at."""
    from echovec.cli.calibrate import named, read_texts
    from echovec.errors import InputError
    from echovec.recipe import RECIPE_FILE

    if (out / RECIPE_FILE).exists() and not overwrite:
        raise InputError(f"{out} holds a recipe already; give another folder or --overwrite")

    from echovec import Embedder
    from echovec.calibrate import Writing
    from echovec.tune import tune as search
    from echovec.tune.space import prompts_of

    names = [name.strip() for name in prompts.split(",")] if prompts else None
    prompts_of(None if names is None else tuple(names))  # a typo shall not wait for the model
    writing = Writing() if count is None else Writing(count=count)
    own = None if texts is None else read_texts(texts, "text", writing.count)
    embedder = Embedder.load(model, "echo", device=device, precision=precision)
    tuned = search(
        embedder,
        out,
        data=data,
        budget=budget or None,
        prompts=names,
        texts=own,
        source=None if texts is None else named(texts),
        writing=writing,
        work=work,
        seed=seed,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    _show(tuned)


def _show(tuned: Tuned) -> None:
    """The recipes found, on standard output."""
    for one in tuned.entries:
        low, high = one.gain[1:]
        print(
            f"{one.name}: {one.scores.mean:.2f} on development data, {one.gain[0]:+.2f} over echo "
            f"({low:+.2f} to {high:+.2f}), {counted(one.cost.passes, 'pass')} "
            f"-> {tuned.folders[one.name]}"
        )
    print(f"how they were found: {tuned.card}")
