"""Codes: short stand-ins for vectors that pick candidates, which the vectors then decide.

    int8      a byte a number       a quarter of float32
    binary    a bit a number        a thirty-second; on which side of the mean each number is

Only the codes are read for every query. How many candidates are needed is measured (docs/search.md)
and stands in `Code.oversample`: candidates for each hit that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
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
class Code:
    """One kind of code."""

    dtype: str
    width: Callable[[int], int]
    """Items of `dtype` for a vector of so many numbers."""
    encode: Callable[[Vectors, Vectors], Array]
    """(vectors [n, d], mean [d]) -> codes [n, width]."""
    scores: Callable[[Vectors, Vectors, Array], Vectors]
    """(query [d], mean [d], codes [n, width]) -> float32 [n], larger is nearer."""
    oversample: int


def code(name: str) -> Code:
    """The code of this name.

    Raises:
        InputError: there is none.
    """
    if name not in CODES:
        raise InputError(f"codes {name!r}; there are {', '.join(CODES)}")
    return CODES[name]


def _int8(vectors_ND: Vectors, mean_D: Vectors) -> Array:
    # One scale for all numbers of all vectors: unit vectors of d numbers spread as 1 / sqrt(d).
    scaled: Vectors = (vectors_ND - mean_D) * _int8_scale(len(mean_D))
    return np.clip(np.rint(scaled), -127, 127).astype(np.int8)


def _int8_scale(dimension: int) -> float:
    return float(127 * np.sqrt(dimension) / 4)


def _int8_scores(query_D: Vectors, mean_D: Vectors, codes: Array) -> Vectors:
    # The part of each product that belongs to the mean is the same for all rows.
    scores_N = np.empty(len(codes), np.float32)
    for start in range(0, len(codes), _BLOCK_ROWS):
        block = codes[start : start + _BLOCK_ROWS].astype(np.float32)
        np.matmul(block, query_D, out=scores_N[start : start + len(block)])
    return scores_N


def _binary(vectors_ND: Vectors, mean_D: Vectors) -> Array:
    above = vectors_ND > mean_D
    spare = _words(len(mean_D)) * _WORD_BITS - len(mean_D)
    packed = np.packbits(np.pad(above, ((0, 0), (0, spare))), axis=1)
    words: Array = packed.view("<u8")
    return words


def _binary_scores(query_D: Vectors, mean_D: Vectors, codes: Array) -> Vectors:
    asked = _binary(query_D[None], mean_D)[0]
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
