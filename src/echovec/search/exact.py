"""Exact search: every query against every row, over memory-mapped vectors.

    queries --matrix product by blocks--> scores --top.candidates--> rows --top.rescored--> hits

50,000 vectors of 576 float32 take a few milliseconds a query (docs/search.md).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from echovec.errors import InputError
from echovec.files.parquet import Vectors
from echovec.files.vectors import Block
from echovec.search.backend import Ask, Hit, hit
from echovec.search.gather import Gathered
from echovec.search.layout import Facts
from echovec.search.rows import Rows, RowsWriter
from echovec.search.stored import BLOCK_ROWS, DTYPES, Stored, VectorWriter
from echovec.search.top import candidates, rescored

_SCORES_AT_ONCE = 1 << 24  # 64 MB


def build(folder: Path, source: Gathered, options: dict[str, Any]) -> Facts:
    """Write rows and vectors into `folder`.

    Args:
        folder: where to; it is there.
        source: what to index.
        options: `dtype`: "float32", "float16" or "int8".

    Raises:
        InputError: an unknown dtype; an id twice.
        NonFiniteError: a vector is not finite.
        StorageError: the disk fails.
    """
    dtype = options["dtype"]
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r}; there are {', '.join(DTYPES)}")
    token = secrets.token_hex(4)
    with (
        RowsWriter(folder, token, source.schema) as rows,
        VectorWriter(folder, token, dtype, source.num_rows, source.dimension) as vectors,
    ):
        for block in source.blocks():
            rows.write(block.rows)
            vectors.write(block.vectors_ND)
        files = {"rows": rows.keep(), **vectors.keep()}
    return Facts(
        backend="exact",
        rows=source.num_rows,
        dimension=source.dimension,
        made=source.made,
        options={"dtype": dtype},
        files=files,
    )


class Opened:
    """An exact index, opened: a Backend."""

    def __init__(self, folder: Path, facts: Facts) -> None:
        self._stored = Stored(folder, facts.files)
        self._rows = Rows(folder / facts.files["rows"].name)

    def __len__(self) -> int:
        return len(self._stored)

    def nearest(self, queries_QD: Vectors, ask: Ask) -> list[list[Hit]]:
        """See `Backend`.

        Raises:
            InputError: a filter or words, which this backend does not know.
        """
        for name in ("filter", "words"):
            if getattr(ask, name) is not None:
                raise InputError(
                    f"{name} {getattr(ask, name)!r}: an exact index knows nearness only; "
                    "build it with --backend lance"
                )
        at_once = max(1, _SCORES_AT_ONCE // max(len(self), 1))
        hits = []
        for start in range(0, len(queries_QD), at_once):
            some_QD = queries_QD[start : start + at_once]
            for query_D, scores_N in zip(some_QD, self._stored.scores(some_QD), strict=True):
                rows = candidates(scores_N, ask.k)
                rows, scores = rescored(query_D, rows, self._stored.take, ask.k)
                hits.append(self._hits(rows.tolist(), scores.tolist()))
        return hits

    def blocks(self) -> Iterator[Block]:
        """See `Backend`."""
        for start, vectors_ND in self._stored.blocks():
            yield Block(self._rows.part(start, start + BLOCK_ROWS), vectors_ND)

    def _hits(self, rows: list[int], scores: list[float]) -> list[Hit]:
        found = zip(scores, self._rows.take(rows), strict=True)
        return [hit(rank, score, row) for rank, (score, row) in enumerate(found, 1)]
