"""Near-duplicates of an index: rows so near to an earlier one that they could go.

Rows are taken in order. One whose cosine with a row that is kept reaches the threshold belongs to
that row, else it is kept itself. So every row that could go is near the one that stays, which
chains of pairs would not give. Every row is compared with every one before it: twice the rows take
four times as long, and 100,000 rows of 576 numbers are 2.9e12 multiplications.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from echovec.errors import InputError
from echovec.files.parquet import Vectors

SHARE = 0.1
_BLOCK_ROWS = 2048
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Group:
    """A row that is kept, and the later ones that are near-duplicates of it."""

    kept: int
    others: list[int]
    cosines: list[float]
    """Of each of the others with the kept row."""


def mean_cosine(vectors_ND: Vectors) -> float:
    """The cosine of two different rows on average; 0 for a single row."""
    rows = len(vectors_ND)
    squared = float(np.square(vectors_ND.sum(axis=0, dtype=np.float64)).sum())
    return (squared - rows) / (rows * (rows - 1)) if rows > 1 else 0.0


def usual_threshold(vectors_ND: Vectors) -> float:
    """A cosine as near 1 as a tenth of the distance that two rows have on average.

    Recipes differ in how near all texts are to each other, so a number for all would not do.
    """
    return 1 - SHARE * (1 - min(mean_cosine(vectors_ND), 1.0))


def find_groups(
    vectors_ND: Vectors,
    threshold: float,
    *,
    progress: Callable[[int], object] | None = None,
) -> list[Group]:
    """The groups of near-duplicates, in the order of the rows that are kept.

    Args:
        vectors_ND: unit vectors.
        threshold: the least cosine with the row that is kept, above 0 and at most 1.
        progress: called with the number of rows that each step has dealt with.

    Raises:
        InputError: a threshold that is no such cosine.
    """
    if not 0 < threshold <= 1:
        raise InputError(f"threshold={threshold}; give a cosine above 0, at most 1")
    least = max(threshold - _ROUNDING, float(np.finfo(np.float32).tiny))
    owner_N = np.arange(len(vectors_ND))
    cosine_N = np.full(len(vectors_ND), -np.inf, np.float32)
    for start in range(0, len(vectors_ND), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        for earlier in range(0, start, _BLOCK_ROWS):
            before = slice(earlier, earlier + _BLOCK_ROWS)
            scores = vectors_ND[block] @ vectors_ND[before].T
            scores[:, owner_N[before] != np.arange(len(owner_N))[before]] = -np.inf
            _take_better(owner_N[block], cosine_N[block], scores, earlier, least)
        _within(owner_N, cosine_N, start, vectors_ND[block], least)
        if progress:
            progress(len(vectors_ND[block]))
    return _groups(owner_N, cosine_N)


def _take_better(
    owner_B: NDArray[np.int64], cosine_B: Vectors, scores: Vectors, first: int, least: float
) -> None:
    """Rows of a block go to the kept row that is nearest, of equally near ones to the earliest."""
    best = scores.argmax(axis=1)
    reached = scores[np.arange(len(best)), best]
    better = (reached >= least) & (reached > cosine_B)
    owner_B[better], cosine_B[better] = best[better] + first, reached[better]


def _within(
    owner_N: NDArray[np.int64], cosine_N: Vectors, start: int, block_BD: Vectors, least: float
) -> None:
    """Pairs inside a block, row after row: an earlier row counts only if it is kept."""
    scores = np.tril(block_BD @ block_BD.T, k=-1)
    owners, cosines = owner_N[start : start + len(scores)], cosine_N[start : start + len(scores)]
    kept = owners == np.arange(start, start + len(scores))
    for row in np.flatnonzero(scores.max(axis=1) >= least).tolist():
        best = int(np.where(kept[:row], scores[row, :row], -np.inf).argmax())
        if kept[best] and scores[row, best] >= least and scores[row, best] > cosines[row]:
            owners[row], cosines[row] = start + best, scores[row, best]
            kept[row] = False


def _groups(owner_N: NDArray[np.int64], cosine_N: Vectors) -> list[Group]:
    order = np.argsort(owner_N, kind="stable")
    owners, starts, counts = np.unique(owner_N[order], return_index=True, return_counts=True)
    groups = []
    for kept, start, count in zip(owners.tolist(), starts.tolist(), counts.tolist(), strict=True):
        if count > 1:
            others = [row for row in order[start : start + count].tolist() if row != kept]
            cosines = [min(float(cosine_N[row]), 1.0) for row in others]
            groups.append(Group(kept, others, cosines))
    return groups
