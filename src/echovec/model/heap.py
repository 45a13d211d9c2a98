"""Heap: keeps what C libraries hold from growing with the length of a run.

glibc gives each thread a heap of its own, up to eight per core, and what is freed in one is not
used by another. Batches run in several threads, each with large tensors of many sizes, so a
process that embeds much would keep several heaps at their largest (docs/performance.md).

It also gives memory back to the system as soon as it is freed at the end of a heap, and asks for it
anew a moment later, each page cleared by the system before it is used. So a little is kept
(`python -m benchmarks.products --resident HalfStored` counts page faults).

oneDNN, and PyTorch's layer around it, each keep the programs they made for the last 1,024 sizes of
product, two thirds of a megabyte a size. A batch has some dozens of sizes, which its layers share.
"""

from __future__ import annotations

import ctypes
import os

_M_ARENA_MAX = -8  # from glibc's malloc.h
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1
_HEAPS = 2
_OF_ITS_OWN = 32 << 20  # bytes: larger pieces are the system's own; the most that glibc takes
_KEPT = 64 << 20  # bytes at the end of a heap
_PROGRAMS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256", "LRU_CACHE_CAPACITY": "256"}


def limit_memory() -> None:
    """What is to be set before a model is read."""
    limit_heaps()
    limit_programs()


def limit_heaps() -> bool:
    """Let all threads of this process share two heaps; True if the C library did so.

    `MALLOC_ARENA_MAX` in the environment is respected. Other C libraries than glibc have no such
    setting, and need none.
    """
    return "MALLOC_ARENA_MAX" not in os.environ and _set(_M_ARENA_MAX, _HEAPS)


def keep_freed() -> bool:
    """Keep some of what is freed for what is asked for next; True if the C library does so.

    For a model that is loaded: what loading frees is not worth keeping.
    `MALLOC_MMAP_THRESHOLD_` and `MALLOC_TRIM_THRESHOLD_` in the environment are respected.
    """
    asked = {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"} & os.environ.keys()
    return not asked and _set(_M_MMAP_THRESHOLD, _OF_ITS_OWN) and _set(_M_TRIM_THRESHOLD, _KEPT)


def _set(name: int, value: int) -> bool:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # Windows has no library of this name
        return False
    return bool(mallopt(name, value))


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
