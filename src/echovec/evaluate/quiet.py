"""Quiet: mteb and the libraries under it draw a progress bar for every step; ours is enough."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import Any, TextIO


class _WithoutBars:
    """A stream that drops progress bars, which all begin with a carriage return."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if "\r" in text or not text.strip():
            return len(text)
        return self._stream.write(text if text.endswith("\n") else f"{text}\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def without_noise() -> Iterator[None]:
    """Hide others' progress bars, and warnings that are about their own insides.

    Warnings of this package pass. mteb's log says of many tasks that there is a newer version; the
    versions here are those that published scores are of.
    """
    log = logging.getLogger("mteb")
    level = log.level
    log.setLevel(logging.ERROR)
    with contextlib.redirect_stderr(_WithoutBars(sys.stderr)), warnings.catch_warnings():
        for library in ("mteb", "sklearn", "datasets", "scipy", "numpy", "torch", "multiprocess"):
            warnings.filterwarnings("ignore", module=rf"{library}(\..*)?$")
        try:
            yield
        finally:
            log.setLevel(level)
