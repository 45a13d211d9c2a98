"""Similarity: the cosine of vectors, in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from echovec.errors import InputError

Vectors = NDArray[np.float32]


def cosine(a: NDArray[Any], b: NDArray[Any]) -> Vectors:
    """Cosine of every vector of `a` [n, d] (or [d]) with every one of `b`: float32 [n, m].

    Raises:
        InputError: the vectors have different widths.
    """
    a, b = _rows(a), _rows(b)
    if a.shape[1] != b.shape[1]:
        raise InputError(
            f"vectors of {a.shape[1]} and {b.shape[1]} numbers cannot be compared; "
            "embed both with the same recipe and truncate_dim"
        )
    return np.asarray(_unit(a) @ _unit(b).T, dtype=np.float32)


def cosine_pairwise(a: NDArray[Any], b: NDArray[Any]) -> Vectors:
    """Cosine of each row of `a` with the same row of `b`: float32 [n].

    Raises:
        InputError: the shapes differ.
    """
    a, b = _rows(a), _rows(b)
    if a.shape != b.shape:
        raise InputError(f"shapes {a.shape} and {b.shape} differ; pairs need equal ones")
    return np.asarray((_unit(a) * _unit(b)).sum(axis=1), dtype=np.float32)


def _rows(x: NDArray[Any]) -> NDArray[Any]:
    return np.atleast_2d(np.asarray(x))


def _unit(x: NDArray[Any]) -> NDArray[Any]:
    x = x.astype(np.float32, copy=False)
    # A zero vector has cosine 0 with everything, not NaN.
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30))
