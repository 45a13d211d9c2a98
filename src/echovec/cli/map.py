"""`echovec map INDEX -o map.html`: a picture of an index, in one page."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from echovec.cli.counts import counted


def map_index(
    index: Annotated[Path, typer.Argument(help="What `echovec index` made.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="PAGE", help="The .html file to write.")
    ] = Path("map.html"),
    method: Annotated[
        Literal["pca", "umap"],
        typer.Option(help="pca: the two principal axes; umap: neighbourhoods (extra viz)."),
    ] = "pca",
    points: Annotated[
        int, typer.Option(min=1, help="At most so many rows, evenly taken.")
    ] = 20_000,
    clusters: Annotated[int, typer.Option(min=1, help="How many clusters to colour.")] = 12,
    title: Annotated[
        str | None, typer.Option(help="Above the map; by default the index's name.")
    ] = None,
) -> None:
    """Write a page that shows every row as a point, to hover, search, zoom and colour."""
    from echovec.errors import InputError
    from echovec.files.disk import check_out
    from echovec.search.index import Index
    from echovec.search.map import column_names, write_map

    if out.suffix.lower() != ".html":
        raise InputError(f'{out}: the ending "{out.suffix}"; name the page something.html')
    check_out(out)
    opened = Index.open(index)
    shown = opened.points(points)
    name = title or index.resolve().name
    table = write_map(shown, out, title=name, method=method, clusters=clusters)
    print(f"{len(shown.ids):,} of {counted(len(opened), 'row')} -> {out}", file=sys.stderr)
    names = column_names(shown)
    axes = f"--x {names['x']} --y {names['y']}"
    atlas = f"uvx embedding-atlas {shlex.quote(str(table))} {axes} --text text"
    print(f"the same points: {table}; to explore them further: {atlas}", file=sys.stderr)
