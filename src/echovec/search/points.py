"""Points: rows of an index in the plane, for pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echovec.errors import InputError
from echovec.files.parquet import Vectors
from echovec.files.vectors import Block
from echovec.search.rows import columns_of


@dataclass(frozen=True)
class Points:
    """Rows in order, and where each is in the plane."""

    ids: list[str]
    texts: list[str | None]
    """None where the vectors were embedded with --no-text."""

    fields: dict[str, list[Any]]
    """Every other field, a value for each row."""

    xy_N2: NDArray[np.float32]
    vectors_ND: Vectors
    """As stored, of unit length."""

    num_rows: int
    """Of the whole index; more than there are points where a limit was given."""


def points_of(blocks: Iterable[Block], num_rows: int, limit: int | None) -> Points:
    """The points of an index's blocks; see `Index.points`."""
    import pyarrow as pa

    if not num_rows:
        raise InputError("the index holds no rows: all were removed; add some with --update")
    if limit is not None and limit < 1:
        raise InputError(f"limit={limit}; ask for at least 1 point")
    count = num_rows if limit is None else min(limit, num_rows)
    wanted = np.unique(np.linspace(0, num_rows - 1, count).round().astype(np.int64))
    tables, vectors, start = [], [], 0
    for block in blocks:
        stop = start + len(block.vectors_ND)
        here = wanted[(wanted >= start) & (wanted < stop)] - start
        if len(here):
            tables.append(block.rows.take(here))
            vectors.append(np.array(block.vectors_ND[here]))
        start = stop
    rows = columns_of(pa.concat_tables(tables))
    vectors_ND = np.concatenate(vectors)
    ids = rows.pop("id")
    texts = rows.pop("text", [None] * len(ids))
    return Points(ids, texts, rows, principal_plane(vectors_ND), vectors_ND, num_rows)


def principal_plane(vectors_ND: Vectors) -> NDArray[np.float32]:
    """Each row on the two axes of largest variance: float32 [n, 2].

    The sign of an axis is chosen so that its largest weight is positive.
    """
    centred = vectors_ND - vectors_ND.mean(axis=0)
    _, axes = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    axes_D2 = axes[:, ::-1][:, :2]
    largest = np.abs(axes_D2).argmax(axis=0)
    axes_D2 = axes_D2 * np.sign(axes_D2[largest, np.arange(axes_D2.shape[1])])
    xy = np.zeros((len(vectors_ND), 2), np.float32)
    xy[:, : axes_D2.shape[1]] = centred @ axes_D2.astype(np.float32)
    return xy
