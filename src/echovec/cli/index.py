"""`echovec index VECTORS... -o INDEX`: what `echovec embed` wrote, made searchable."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import typer


def index(
    vectors: Annotated[
        list[str],
        typer.Argument(
            metavar="VECTORS", help="Files or folders that `echovec embed` wrote, of one recipe."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="INDEX", help="The folder of the index.")
    ],
    dtype: Annotated[
        Literal["float32", "float16", "int8"],
        typer.Option(help="How vectors are stored: 4, 2 or 1 bytes a number."),
    ] = "float32",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an index that is there.")
    ] = False,
) -> None:
    """Make an index of vectors, to search, map, cluster and find near-duplicates in."""
    from echovec.search.index import Index

    start = time.perf_counter()
    made = Index.build(vectors, out, dtype=dtype, overwrite=overwrite)
    print(
        f"{len(made):,} vectors of {made.dimension} numbers -> {out} ({made.facts.backend}, "
        f"{dtype}, fingerprint {made.fingerprint}) in {time.perf_counter() - start:.1f} s",
        file=sys.stderr,
    )
