"""`echovec compare A B`: how near two texts are, under one recipe and another."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from echovec.cli.options import Device, Dtype, Precision

if TYPE_CHECKING:
    from echovec import Embedder

ALWAYS = ("classical", "echo")


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A text, in quotes.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another text.")],
    recipe: Annotated[
        list[str] | None,
        typer.Option(help="One more recipe beside classical and echo; may be repeated."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Model name, folder or GGUF file; by default SmolLM2-135M-Instruct."),
    ] = None,
    precision: Precision = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Print the cosine of two texts under classical, echo and any other recipes."""
    from echovec import Embedder
    from echovec.errors import InputError
    from echovec.presets import as_recipe
    from echovec.text.check import text_problem

    for which, text in (("A", a), ("B", b)):
        if problem := text_problem(text):
            raise InputError(f'text {which} {problem}; give a text in quotes: compare "A" "B"')
    names = list(dict.fromkeys((*ALWAYS, *(recipe or ()))))
    for name in names:  # a typo shall not wait for the model
        as_recipe(name)
    embedder = Embedder.load(model, names[0], precision=precision, device=device, dtype=dtype)
    rows = [_cosine(embedder.with_recipe(name), a, b) for name in names]
    if as_json:
        print(json.dumps({"a": a, "b": b, "cosines": rows}, ensure_ascii=False))
    else:
        _print_table(rows)


def _cosine(embedder: Embedder, a: str, b: str) -> dict[str, str | float]:
    vectors = embedder.encode([a, b], show_progress_bar=False)
    return {
        "recipe": embedder.recipe.name,
        "cosine": float(embedder.similarity(vectors[:1], vectors[1:])[0, 0]),
        "fingerprint": embedder.recipe.fingerprint,
    }


def _print_table(rows: list[dict[str, str | float]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("recipe")
    table.add_column("cosine", justify="right")
    for row in rows:
        table.add_row(Text(str(row["recipe"])), f"{row['cosine']:.4f}")
    Console(highlight=False).print(table)
