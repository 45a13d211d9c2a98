"""Threads: pools whose threads compute with a share of the cores each, and what a fork leaves.

torch gives every thread that computes a team of its own, as large as the machine has cores: a pool
of 32 on 64 cores would start two thousand.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

_log = logging.getLogger("echovec")
_process: int | None = None
"""In which process torch computed for us last."""


def heed_fork() -> None:
    """One core for each computation, in a process forked from one where torch has computed.

    A fork takes no threads along, and torch would wait for those of its team forever (libgomp).
    Whoever computes asks for this first. Batches still run side by side, in threads of our own.
    """
    global _process
    before, _process = _process, os.getpid()
    if before in (None, _process) or torch.get_num_threads() == 1:
        return
    torch.set_num_threads(1)
    _log.warning(
        "this process was forked from one that had computed: one core for each batch from here on; "
        "start processes with 'spawn' or 'forkserver' for all of them"
    )


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
