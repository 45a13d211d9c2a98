"""Codes: short stand-ins for vectors that pick candidates, which the vectors then decide.

    int8      a byte a number       a quarter of float32; 127 is as far from the mean as any goes
    binary    a bit a number        a thirty-second; on which side of the mean each number is

Only the codes are read for every query. How many candidates are needed is measured (docs/search.md)
and stands in `Code.oversample`: candidates for each hit that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echovec.errors import InputError
from echovec.files.parquet import Vectors

Array = NDArray[Any]

_BLOCK_ROWS = 512  # what is widened is still in the cache when it is multiplied
_WORD_BITS = 64


@dataclass(frozen=True)
class Spread:
    """How the numbers of an index's vectors lie, place by place."""

    mean_D: Vectors
    reach_D: Vectors
    """How far from the mean the farthest vector is."""


@dataclass(frozen=True)
class Code:
    """One kind of code."""

    dtype: str
    width: Callable[[int], int]
    """Items of `dtype` for a vector of so many numbers."""
    encode: Callable[[Vectors, Spread], Array]
    """(vectors [n, d], spread) -> codes [n, width]."""
    scores: Callable[[Vectors, Spread, Array], Vectors]
    """(query [d], spread, codes [n, width]) -> float32 [n], larger is nearer."""
    oversample: int


def code(name: str) -> Code:
    """The code of this name.

    Raises:
        InputError: there is none.
    """
    if name not in CODES:
        raise InputError(f"codes {name!r}; there are {', '.join(CODES)}")
    return CODES[name]


def measure_spread(blocks: Callable[[], Iterable[Vectors]], dimension: int) -> Spread:
    """Of blocks of vectors, which are gone through twice."""
    sum_D, rows = np.zeros(dimension), 0
    for vectors_ND in blocks():
        sum_D = sum_D + vectors_ND.sum(axis=0, dtype=np.float64)
        rows += len(vectors_ND)
    mean_D: Vectors = (sum_D / rows).astype(np.float32)
    reach_D = np.zeros(dimension, np.float32)
    for vectors_ND in blocks():
        np.maximum(reach_D, np.abs(vectors_ND - mean_D).max(axis=0), out=reach_D)
    return Spread(mean_D, np.maximum(reach_D, np.finfo(np.float32).tiny))


def _int8(vectors_ND: Vectors, spread: Spread) -> Array:
    steps = (vectors_ND - spread.mean_D) / spread.reach_D * np.float32(127)
    codes: Array = np.clip(np.rint(steps), -127, 127).astype(np.int8)
    return codes


def _int8_scores(query_D: Vectors, spread: Spread, codes: Array) -> Vectors:
    # The part of each product that belongs to the mean is the same for all rows.
    stretched_D = query_D * spread.reach_D / 127
    scores_N = np.empty(len(codes), np.float32)
    for start in range(0, len(codes), _BLOCK_ROWS):
        block = codes[start : start + _BLOCK_ROWS].astype(np.float32)
        np.matmul(block, stretched_D, out=scores_N[start : start + len(block)])
    return scores_N


def _binary(vectors_ND: Vectors, spread: Spread) -> Array:
    above = vectors_ND > spread.mean_D
    spare = _words(above.shape[1]) * _WORD_BITS - above.shape[1]
    packed = np.packbits(np.pad(above, ((0, 0), (0, spare))), axis=1)
    words: Array = packed.view("<u8")
    return words


def _binary_scores(query_D: Vectors, spread: Spread, codes: Array) -> Vectors:
    asked = _binary(query_D[None], spread)[0]
    differing_N = np.zeros(len(codes), np.uint16)
    for word in range(len(asked)):
        differing_N += np.bitwise_count(codes[:, word] ^ asked[word])
    return -differing_N.astype(np.float32)


def _words(dimension: int) -> int:
    return -(-dimension // _WORD_BITS)


CODES = {
    "int8": Code("int8", int, _int8, _int8_scores, oversample=4),
    "binary": Code("<u8", _words, _binary, _binary_scores, oversample=30),
}
