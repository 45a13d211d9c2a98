"""`echovec export`: an embedder for other runtimes, compared with ours before it is kept."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, get_args

import typer

from echovec.cli.options import Revision


def export(
    folder: Annotated[Path, typer.Argument(help="Where to; must not be there yet.")],
    to: Annotated[
        str,
        typer.Option(help="sentence-transformers, onnx, onnx-int8, openvino or openvino-int8."),
    ] = "sentence-transformers",
    model: Annotated[str | None, typer.Option(help="Name, folder or .gguf; default model.")] = None,
    recipe: Annotated[str | None, typer.Option(help="A preset's name or a recipe file.")] = None,
    route: Annotated[
        str,
        typer.Option(help="auto, plain (no code to load) or module (a module file in the folder)."),
    ] = "auto",
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Token budget per copy; by default the recipe's.")
    ] = None,
    revision: Revision = None,
) -> None:
    """Write an embedder as other runtimes load it, with a parity check; what fails is removed."""
    from echovec.embedder import Embedder
    from echovec.errors import InputError
    from echovec.export.formats import FORMATS
    from echovec.export.to_sentence_transformers import Route, need_sentence_transformers

    if to not in FORMATS:
        raise InputError(f"--to {to!r}; there are {', '.join(FORMATS)}")
    need_sentence_transformers()  # before a model is loaded, as what follows
    if folder.exists():
        raise InputError(f"{folder} is there already; remove it or choose another folder")
    if route not in get_args(Route):
        raise InputError(f"--route {route!r}; there are {', '.join(get_args(Route))}")
    embedder = Embedder.load(model, recipe, max_tokens=max_tokens, revision=revision)
    parity = FORMATS[to](embedder, folder, route)
    print("\n".join(parity.lines()))
    print(f"{folder}: {parity.route}", file=sys.stderr)
