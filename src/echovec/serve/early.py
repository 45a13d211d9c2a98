"""Early: SIGTERM before there is a server that drains."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """End with 0 on SIGTERM within, until the server has its own handlers.

    The first process of a container has no other end: for it the system ignores signals that have
    no handler.
    """
    if signal.getsignal(signal.SIGTERM) is None:  # a host's, which Python could not put back
        yield
        return
    try:
        before = signal.signal(signal.SIGTERM, _end)
    except ValueError:  # not the main thread: whoever runs us stops us
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(0)
