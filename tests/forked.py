"""Processes of their own for tests, forked from this one: what takes seconds to import is there.

For tests of what becomes of files, sockets and exit codes when a process is killed, signalled or
refused something. What a process imports, and how it starts, is tested by starting one.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import TextIO

import pytest

NEEDS_FORK = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system"
)


class Forked:
    """A process that does some work and ends; leaving the block kills it if it has not.

    Args:
        work: what it does; its exit code is 0, that of `SystemExit`, or 1 after another error.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        pipes = os.pipe(), os.pipe()
        context = multiprocessing.get_context("fork")
        self.process = context.Process(target=_run, args=(work, pipes), daemon=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads here, which the work does not need
            self.process.start()
        for _, writer in pipes:
            os.close(writer)
        self.stdout, self.stderr = (os.fdopen(reader, encoding="utf-8") for reader, _ in pipes)

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        self.send(signal.SIGKILL)
        self.process.join()
        self.stdout.close()
        self.stderr.close()

    def send(self, number: int) -> None:
        """A signal, unless it has ended."""
        if self.process.is_alive():
            os.kill(self.process.pid, number)

    def ended(self, timeout: float = 60) -> int:
        """Its exit code, once it has ended; minus a signal's number if that ended it."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, "it goes on and on"
        return self.process.exitcode


def _run(work: Callable[[], object], pipes: tuple[tuple[int, int], ...]) -> None:
    """In the new process: streams and signals as a process has them that was started."""
    streams: list[TextIO] = []
    for number, (reader, writer) in enumerate(pipes, 1):
        os.close(reader)
        os.dup2(writer, number)
        os.close(writer)
        streams.append(os.fdopen(number, "w", encoding="utf-8", closefd=False))
    sys.stdout, sys.stderr = streams
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # a fork takes no team of threads along
    work()
