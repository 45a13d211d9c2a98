"""Threads: pools whose threads compute with a share of the cores each.

torch gives every thread that computes a team of its own, as large as the machine has cores: a pool
of 32 on 64 cores would start two thousand.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


def threads(count: int, name: str = "", *, cores: int | None = None) -> ThreadPoolExecutor:
    """A pool that stays.

    Args:
        count: how many threads.
        name: what they are called.
        cores: how many each computes with; by default as many as the thread that asks.
    """
    # Told to each: what one thread is given is what later ones begin with.
    own = torch.get_num_threads() if cores is None else cores
    return ThreadPoolExecutor(count, name, torch.set_num_threads, (own,))


@contextmanager
def sharing(count: int, *, cores: int = 1) -> Iterator[ThreadPoolExecutor]:
    """A pool for a while, of so many cores each; afterwards torch's setting is what it was."""
    own = torch.get_num_threads()
    pool = threads(count, cores=cores)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(own)  # a part of the setting is the whole process's
