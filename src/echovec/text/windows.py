"""Windows: a long text as overlapping pieces, evenly spaced, so that each has the same weight."""

from __future__ import annotations

import math

OVERLAP = 1 / 8
"""The least share of a window that it has in common with the one before."""


def num_windows(length: int, size: int) -> int:
    """How many windows of `size` tokens cover `length`, `OVERLAP` of each in common."""
    step = max(1, size - math.ceil(OVERLAP * size))
    return 1 + max(0, math.ceil((length - size) / step))


def window_starts(length: int, size: int, count: int) -> list[int]:
    """Where each of `count` windows begins: evenly spaced from the beginning to the end."""
    room = max(0, length - size)
    return [i * room // max(1, count - 1) for i in range(count)]
