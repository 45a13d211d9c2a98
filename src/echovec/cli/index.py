"""`echovec index VECTORS... -o INDEX`: what `echovec embed` wrote, made searchable."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from echovec.cli.counts import counted


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
    backend: Annotated[
        Literal["exact", "lance"] | None,
        typer.Option(
            help="lance: filters, full text, updates, many rows (extra search); by default exact "
            "up to 100,000 rows.",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[
        Literal["float32", "float16", "int8"],
        typer.Option(help="How vectors are stored: 4, 2 or 1 bytes a number."),
    ] = "float32",
    dim: Annotated[
        int | None, typer.Option(min=1, help="Keep so many numbers of each vector.")
    ] = None,
    reduce: Annotated[
        Literal["first", "pca"], typer.Option(help="Which: the first, or those that hold most.")
    ] = "first",
    codes: Annotated[
        Literal["int8", "binary"] | None,
        typer.Option(help="Search short codes; vectors decide among what these find."),
    ] = None,
    oversample: Annotated[
        int | None, typer.Option(min=1, help="Candidates of codes for each hit.")
    ] = None,
    update: Annotated[
        bool,
        typer.Option("--update", help="Add to a lance index; rows whose id is there are replaced."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an index that is there.")
    ] = False,
) -> None:
    """Make an index of vectors, to search, map, cluster and find near-duplicates in."""
    from echovec.errors import InputError
    from echovec.search.index import Index

    start = time.perf_counter()
    if update:
        of_a_build = {
            "--backend": backend is not None,
            "--dtype": dtype != "float32",
            "--dim": dim is not None,
            "--reduce": reduce != "first",
            "--codes": codes is not None,
            "--oversample": oversample is not None,
            "--overwrite": overwrite,
        }
        if given := [option for option, is_given in of_a_build.items() if is_given]:
            raise InputError(f"{given[0]} is for a new index; --update takes the index as it is")
        opened = Index.open(out)
        before = len(opened)
        opened.update(vectors)
        print(
            f"{counted(before, 'row')} and now {len(opened):,} in {out}, "
            f"in {time.perf_counter() - start:.1f} s",
            file=sys.stderr,
        )
        return
    made = Index.build(
        vectors,
        out,
        backend=backend,
        dtype=dtype,
        dim=dim,
        reduce=reduce,
        codes=codes,
        oversample=oversample,
        overwrite=overwrite,
    )
    facts = [made.facts.backend]
    facts += [dtype] if made.facts.backend == "exact" else []
    facts += [f"{dim} kept ({reduce})"] if dim else []
    facts += [f"{codes} codes"] if codes else []
    print(
        f"{counted(len(made), 'vector')} of {counted(made.dimension, 'number')} -> {out} "
        f"({', '.join(facts)}, fingerprint {made.fingerprint}) "
        f"in {time.perf_counter() - start:.1f} s",
        file=sys.stderr,
    )
    if recall := made.facts.recall:
        print(
            f"recall@{recall['at']} {recall['recall']:.3f}: {counted(recall['queries'], 'row')} "
            "asked, compared with exact search over the vectors as they came",
            file=sys.stderr,
        )
