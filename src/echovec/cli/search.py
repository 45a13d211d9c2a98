"""`echovec search INDEX "query"`: the nearest rows of an index."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from echovec.files.lines import json_line

if TYPE_CHECKING:
    from echovec.search.backend import Hit


def search(
    index: Annotated[Path, typer.Argument(help="What `echovec index` made.")],
    query: Annotated[str, typer.Argument(help="A question or text, in quotes.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many rows.")] = 10,
    by: Annotated[
        Literal["meaning", "words", "both"],
        typer.Option(help="Nearness of vectors; of a lance index also its words, or both."),
    ] = "meaning",
    role: Annotated[
        Literal["query", "document", "symmetric"] | None,
        typer.Option(help="How the query is embedded; by default as fits the rows."),
    ] = None,
    instruction: Annotated[
        str | None, typer.Option(help="What the vectors are for, for recipes that take it.")
    ] = None,
    filter: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE",
            help='Only rows whose fields (embed --keep) meet this: "year > 2020"; lance indexes.',
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Where the model is, if it is no longer where the index says; words need none."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each hit.")] = False,
) -> None:
    """Print rank, score, id and text of the rows nearest to a query."""
    from echovec.search.index import Index
    from echovec.search.query import load_embedder

    opened = Index.open(index)
    if model is not None and by != "words":  # which no model has a part in
        embedder = load_embedder(index, opened.facts.made, model)
        opened = Index.open(index, embedder=embedder)
    for hit in opened.search(query, k, by=by, role=role, instruction=instruction, filter=filter):
        if as_json:
            print(_line(hit))
        else:
            text = "" if hit.text is None else " ".join(hit.text.split())
            print(f"{hit.rank:>3}  {hit.score:.3f}  {hit.id}  {_short(text)}")


def _line(hit: Hit) -> str:
    shown = {"rank": hit.rank, "score": round(hit.score, 6), "id": hit.id, "text": hit.text}
    for own, value in hit.fields.items():
        name = own
        while name in shown or (name != own and name in hit.fields):
            name = f"field_{name}"
        shown[name] = value
    return json_line(shown)


def _short(text: str, width: int = 100) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
