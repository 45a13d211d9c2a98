"""Windows: a long text as overlapping pieces, evenly spaced, so that each has the same weight.

Shapes: N texts, S windows of all of them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Int = NDArray[np.int64]

OVERLAP = 1 / 8
"""The least share of a window that it has in common with the one before."""


def num_windows(lengths_N: Int, size: int) -> Int:
    """How many windows of `size` tokens cover each length, `OVERLAP` of each in common."""
    step = max(1, size - math.ceil(OVERLAP * size))
    return 1 + np.maximum(0, -(-(lengths_N - size) // step))


def window_starts(lengths_N: Int, size: int, counts_N: Int) -> Int:
    """Where each window begins, text after text: evenly spaced from its beginning to its end."""
    firsts_N = np.cumsum(counts_N) - counts_N
    number_S = np.arange(counts_N.sum()) - np.repeat(firsts_N, counts_N)
    room_N, steps_N = np.maximum(0, lengths_N - size), np.maximum(1, counts_N - 1)
    starts_S: Int = number_S * np.repeat(room_N, counts_N) // np.repeat(steps_N, counts_N)
    return starts_S
