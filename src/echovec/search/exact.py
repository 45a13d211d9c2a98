"""Exact search: every query against every row, over memory-mapped vectors.

    queries --products by blocks--> scores --top.candidates--> rows --top.rescored--> hits
            `--codes, if it has some--'

50,000 vectors of 576 float32 take a few milliseconds a query (docs/search.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from echovec.errors import InputError
from echovec.files.parquet import Vectors
from echovec.files.vectors import Block
from echovec.search.backend import Ask, Built, Hit, Source, hit, refuse
from echovec.search.codes import Code, Spread, code, measure_spread
from echovec.search.layout import Facts, Kept
from echovec.search.rows import Rows, RowsWriter
from echovec.search.stored import BLOCK_ROWS, DTYPES, NpyFile, Stored, VectorWriter, mapped
from echovec.search.top import SCORES_AT_ONCE, Places, candidates, rescored


def check(options: dict[str, Any]) -> None:
    """See `Module`.

    Raises:
        InputError: an unknown dtype or code.
    """
    if options["dtype"] not in DTYPES:
        raise InputError(f"dtype {options['dtype']!r}; there are {', '.join(DTYPES)}")
    if options["codes"] is not None:
        code(options["codes"])
    elif options["oversample"] is not None:
        raise InputError("oversample is for codes: how many candidates they give for each hit")


def build(folder: Path, token: str, source: Source, options: dict[str, Any]) -> Built:
    """See `Module`. `options`: `dtype`, `codes` (a name or None), `oversample` (or None)."""
    dtype, chosen = options["dtype"], code(options["codes"]) if options["codes"] else None
    with (
        RowsWriter(folder, token, source.schema) as rows,
        VectorWriter(folder, token, dtype, source.num_rows, source.dimension) as vectors,
    ):
        for block in source.blocks():
            rows.write(block.rows)
            vectors.write(block.vectors_ND)
        files = {"rows": rows.keep(), **vectors.keep()}
    kept: dict[str, Any] = {"dtype": dtype, "codes": options["codes"]}
    if chosen:
        files |= _write_codes(folder, token, chosen, files, source.dimension)
        kept["oversample"] = options["oversample"] or chosen.oversample
    return Built(kept, files, exact=dtype == "float32" and chosen is None)


def _write_codes(
    folder: Path, token: str, chosen: Code, files: dict[str, Kept], dimension: int
) -> dict[str, Kept]:
    stored = Stored(folder, files)
    spread = measure_spread(lambda: (vectors_ND for _, vectors_ND in stored.blocks()), dimension)
    shape = (len(stored), chosen.width(dimension))
    with ExitStack() as closed:
        codes = NpyFile(folder / f"codes-{token}.npy", shape, chosen.dtype)
        closed.callback(codes.close)
        kept = NpyFile(folder / f"spread-{token}.npy", (2, dimension), "float32")
        closed.callback(kept.close)
        for _, vectors_ND in stored.blocks():
            codes.write(chosen.encode(vectors_ND, spread))
        kept.write(np.stack([spread.mean_D, spread.reach_D]))
        return {"codes": codes.keep(), "spread": kept.keep()}


class Opened:
    """An exact index, opened: a Backend."""

    updatable = False

    def __init__(self, folder: Path, facts: Facts) -> None:
        self._stored = Stored(folder, facts.files)
        self._rows = Rows(folder / facts.files["rows"].name)
        self._code: Code | None = None
        if facts.options["codes"]:
            self._code = code(facts.options["codes"])
            self._oversample = int(facts.options["oversample"])
            self._codes = mapped(folder / facts.files["codes"].name)
            self._spread = Spread(*mapped(folder / facts.files["spread"].name))

    def __len__(self) -> int:
        return len(self._stored)

    def nearest(self, queries_QD: Vectors, ask: Ask) -> list[list[Hit]]:
        """See `Backend`.

        Raises:
            InputError: a filter or words, which this backend does not know.
        """
        if ask.filter is not None:
            refuse(f"filter {ask.filter!r}")
        if ask.words is not None:
            refuse("words")
        hits = []
        for query_D, rows in self._candidates(queries_QD, ask.k):
            best, scores = rescored(query_D, rows, self._stored.take, ask.k)
            hits.append(self._hits(best.tolist(), scores.tolist()))
        return hits

    def blocks(self) -> Iterator[Block]:
        """See `Backend`."""
        for start, vectors_ND in self._stored.blocks():
            yield Block(self._rows.part(start, start + BLOCK_ROWS), vectors_ND)

    def matching(self, ask: Ask) -> list[list[Hit]]:
        """Refuses: see `Backend`."""
        refuse("words")

    def upsert(self, source: Source) -> None:
        """Refuses: see `Backend`."""
        refuse("an update")

    def delete(self, ids: Sequence[str]) -> int:
        """Refuses: see `Backend`."""
        refuse("an update")

    def _candidates(self, queries_QD: Vectors, k: int) -> Iterator[tuple[Vectors, Places]]:
        if self._code:
            for query_D in queries_QD:
                scores_N = self._code.scores(query_D, self._spread, self._codes)
                yield query_D, candidates(scores_N, k * self._oversample, rounding=0.0)
            return
        at_once = max(1, SCORES_AT_ONCE // max(len(self), 1))
        for start in range(0, len(queries_QD), at_once):
            some_QD = queries_QD[start : start + at_once]
            for query_D, scores_N in zip(some_QD, self._stored.scores(some_QD), strict=True):
                yield query_D, candidates(scores_N, k)

    def _hits(self, rows: list[int], scores: list[float]) -> list[Hit]:
        found = zip(scores, self._rows.take(rows), strict=True)
        return [hit(rank, score, row) for rank, (score, row) in enumerate(found, 1)]
