"""Heap: keeps what C libraries hold from growing with the length of a run.

glibc gives each thread a heap of its own, up to eight per core, and what is freed in one is not
used by another. Batches run in several threads, each with large tensors of many sizes, so a
process that embeds much would keep several heaps at their largest (docs/performance.md).

oneDNN, and PyTorch's layer around it, each keep the programs they made for the last 1,024 sizes of
product, two thirds of a megabyte a size. A batch has some dozens of sizes, which its layers share.
"""

from __future__ import annotations

import ctypes
import os

_M_ARENA_MAX = -8  # from glibc's malloc.h
_HEAPS = 2
_PROGRAMS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256", "LRU_CACHE_CAPACITY": "256"}


def limit_memory() -> None:
    """All that is in this module."""
    limit_heaps()
    limit_programs()


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


def give_back() -> bool:
    """Let the system have what was freed and is kept for later; True if the C library did so.

    Copying a model's weights into another layout frees as much again as it keeps, in pieces of a
    size that glibc's heaps hold on to: 0.6 of 1.5 GB for the default model.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return False
    return bool(trim(0))


def limit_programs() -> None:
    """Let oneDNN keep fewer programs; what the environment says already is respected.

    Read by it at its first product, so a process that has multiplied before is left as it was.
    """
    for name, value in _PROGRAMS.items():
        os.environ.setdefault(name, value)
