"""Heap: keeps the C library's heap from growing with the length of a run.

glibc gives each thread a heap of its own, up to eight per core, and what is freed in one is not
used by another. Batches run in several threads, each with large tensors of many sizes, so a
process that embeds much would keep several heaps at their largest (docs/performance.md).
"""

from __future__ import annotations

import ctypes
import os

_M_ARENA_MAX = -8  # from glibc's malloc.h
_HEAPS = 2


def limit_heaps() -> bool:
    """Let all threads of this process share two heaps; True if the C library did so.

    `MALLOC_ARENA_MAX` in the environment is respected. Other C libraries than glibc have no such
    setting, and need none.
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # Windows has no library of this name
        return False
    return bool(mallopt(_M_ARENA_MAX, _HEAPS))
