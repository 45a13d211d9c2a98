"""The k best of many scores, in an order that depends on nothing but the vectors.

Products of blocks round differently from block to block, so two equal vectors may get scores that
differ in the last digit. Hence two steps: all rows within rounding of the k-th score are
candidates; their scores are computed again in float64, each row in the same way; then the best
come first, and of equal ones those that stand first.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from echovec.files.parquet import Vectors

Places = NDArray[np.int64]
Scores = NDArray[np.float64]

ROUNDING = 4e-6
"""More than the products of unit vectors in float32 are off, at any width in use."""

SCORES_AT_ONCE = 1 << 24  # 64 MB
_RESCORED_AT_ONCE = 4096


def candidates(scores_N: Vectors, k: int, rounding: float = ROUNDING) -> Places:
    """The rows of the k largest scores and of those within `rounding` of them, in order."""
    k = min(k, len(scores_N))
    if k == 0:
        return np.zeros(0, np.int64)
    kth = np.partition(scores_N, len(scores_N) - k)[len(scores_N) - k]
    return np.flatnonzero(scores_N >= kth - rounding)


def nearest(queries_QD: Vectors, vectors_ND: Vectors, k: int) -> tuple[Places, Scores]:
    """The k rows of highest dot product for each query, best first, equal ones by row.

    Args:
        queries_QD: float32, of unit length as `vectors_ND` are.
        vectors_ND: in memory.
        k: how many; all, if there are fewer.

    Returns:
        Rows and float64 scores, both [q, k].
    """
    k = min(k, len(vectors_ND))
    places, scores = np.zeros((len(queries_QD), k), np.int64), np.zeros((len(queries_QD), k))
    at_once = max(1, SCORES_AT_ONCE // max(len(vectors_ND), 1))
    for start in range(0, len(queries_QD), at_once):
        some_QN = queries_QD[start : start + at_once] @ vectors_ND.T
        for q, scores_N in enumerate(some_QN, start):
            rows = candidates(scores_N, k)
            places[q], scores[q] = rescored(queries_QD[q], rows, vectors_ND.__getitem__, k)
    return places, scores


def rescored(
    query_D: Vectors, rows: Places, take: Callable[[Places], Vectors], k: int
) -> tuple[Places, Scores]:
    """The k best of `rows` by their dot products in float64; equal ones by row.

    Args:
        query_D: the query.
        rows: candidates, in order.
        take: gives the vectors of rows, float32 [n, d].
        k: how many.
    """
    query = query_D.astype(np.float64)
    pieces = [
        (take(rows[start : start + _RESCORED_AT_ONCE]) * query).sum(axis=1)
        for start in range(0, len(rows), _RESCORED_AT_ONCE)
    ]
    scores = np.concatenate(pieces) if pieces else np.zeros(0)
    best = np.argsort(-scores, kind="stable")[:k]
    return rows[best], scores[best]
