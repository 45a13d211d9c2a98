"""Near-duplicates of an index: rows whose cosine is at least a threshold, in groups.

Every row is compared with every row that stands after it, block by block. Rows are in one group if
a chain of pairs joins them; the first row of a group is the one to keep. Twice the rows take four
times as long: 100,000 rows of 576 numbers are 2.9e12 multiplications.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from echovec.errors import InputError
from echovec.files.parquet import Vectors

THRESHOLD = 0.95
_BLOCK_ROWS = 2048
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Group:
    """Rows that are near-duplicates of each other."""

    kept: int
    """The first of them."""

    others: list[int]
    cosines: list[float]
    """Of each of the others with the row of the group that it is nearest to."""


def find_groups(
    vectors_ND: Vectors,
    threshold: float = THRESHOLD,
    *,
    progress: Callable[[int], object] | None = None,
) -> list[Group]:
    """The groups of near-duplicates, in the order of their first rows.

    Args:
        vectors_ND: unit vectors.
        threshold: the least cosine of a pair, above 0 and at most 1.
        progress: called with the number of rows that each step has dealt with.

    Raises:
        InputError: a threshold that is no such cosine.
    """
    if not 0 < threshold <= 1:
        raise InputError(f"threshold={threshold}; give a cosine above 0, at most 1")
    root_N = np.arange(len(vectors_ND))
    cosine_N = np.zeros(len(vectors_ND), np.float32)
    for a, b, cosine in _pairs(vectors_ND, threshold, progress):
        root_N = _joined(root_N, a, b)
        np.maximum.at(cosine_N, a, cosine)
        np.maximum.at(cosine_N, b, cosine)
    order = np.argsort(root_N, kind="stable")
    _, starts, counts = np.unique(root_N[order], return_index=True, return_counts=True)
    groups = []
    for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
        if count > 1:
            kept, *others = order[start : start + count].tolist()
            cosines = [min(float(cosine_N[row]), 1.0) for row in others]
            groups.append(Group(kept, others, cosines))
    return groups


Pairs = tuple[NDArray[np.int64], NDArray[np.int64], Vectors]


def _pairs(
    vectors_ND: Vectors, threshold: float, progress: Callable[[int], object] | None
) -> Iterator[Pairs]:
    """(earlier rows, later rows, cosines) at or above the threshold."""
    for start in range(0, len(vectors_ND), _BLOCK_ROWS):
        block = vectors_ND[start : start + _BLOCK_ROWS]
        for other in range(start, len(vectors_ND), _BLOCK_ROWS):
            scores = block @ vectors_ND[other : other + _BLOCK_ROWS].T
            a, b = np.nonzero(scores >= threshold - _ROUNDING)
            later = b + other > a + start
            a, b = a[later], b[later]
            yield a + start, b + other, scores[a, b]
        if progress:
            progress(len(block))


def _joined(
    root_N: NDArray[np.int64], a: NDArray[np.int64], b: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Give every pair one root, the smallest row of both groups; all pairs at once."""
    while True:
        low, high = np.minimum(root_N[a], root_N[b]), np.maximum(root_N[a], root_N[b])
        apart = low < high
        if not apart.any():
            return root_N
        np.minimum.at(root_N, high[apart], low[apart])
        above = root_N[root_N]
        while not np.array_equal(above, root_N):
            root_N, above = above, above[above]
