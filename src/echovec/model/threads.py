"""Threads: pools of threads each of which computes with one of torch's.

torch gives every thread that computes a team of its own, as large as the machine has cores: a pool
of 32 on 64 cores would start two thousand.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def single_threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of `count` threads; torch's setting is what it was afterwards."""
    own = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(count, "", torch.set_num_threads, (1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(own)  # a part of the setting is the whole process's
