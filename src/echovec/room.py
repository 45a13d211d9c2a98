"""Room: how large a batch may be, as running out of memory has taught.

Memory that ran out once runs out again at the next batch of that size, and each time costs a
forward that is thrown away. So the size that fitted is kept, and larger batches are cut to it
beforehand. Memory may come back (another program ends), so after some batches of that size twice as
much is tried; each try that fails doubles the number of batches until the next.
"""

from __future__ import annotations

import logging
import threading

import numpy as np

from echovec.text.batch import Chunk

_LOG = logging.getLogger(__name__)
_PATIENCE = 16
_MOST_PATIENCE = 4096


class Room:
    """What one kind of batch may have, in tokens counted as if padded; for use from any thread.

    Args:
        patience: how many batches of the largest size go well before a larger one is tried.
    """

    def __init__(self, patience: int = _PATIENCE) -> None:
        self.tokens: int | None = None
        """The most that is known to fit; None while nothing has failed."""
        self._patience = patience
        self._proven = 0
        self._went_well = 0
        self._on_trial = False
        self._lock = threading.Lock()

    def parts(self, chunk: Chunk) -> list[Chunk]:
        """The chunk itself, or cut so that each part fits or is one sequence."""
        if self.tokens is None or len(chunk[0]) == 1 or size_of(chunk) <= self.tokens:
            return [chunk]
        return [part for half in halves(chunk) for part in self.parts(half)]

    def ran_out(self, chunk: Chunk) -> None:
        """A chunk of several sequences did not fit; its halves are the next to be tried."""
        failed, half = size_of(chunk), max(size_of(half) for half in halves(chunk))
        with self._lock:
            if failed <= self._proven:  # there is less memory than there was
                self._proven = 0
            room = max(half, self._proven)
            if self.tokens is not None and self.tokens <= room:
                return  # it was under way when another taught the same
            if self._on_trial:
                self._patience = min(2 * self._patience, _MOST_PATIENCE)
            self.tokens, self._went_well, self._on_trial = room, 0, False
            _LOG.warning(
                "memory ran out in a batch of %s tokens; batches have %s at most for now",
                f"{failed:,}",
                f"{room:,}",
            )

    def went(self, chunk: Chunk) -> None:
        """A chunk fitted."""
        size = size_of(chunk)
        with self._lock:
            self._proven = max(self._proven, size)
            if self.tokens is None or 2 * size <= self.tokens:
                return  # too small to say anything about more
            self._on_trial = False
            self._went_well += 1
            if self._went_well >= self._patience:
                self.tokens *= 2
                self._went_well, self._on_trial = 0, True


def size_of(chunk: Chunk) -> int:
    """The tokens of a chunk's largest pass, as if padded to its longest sequence."""
    return max(len(batch) * int(np.max(batch.lengths_S)) for batch in chunk)


def halves(chunk: Chunk) -> tuple[Chunk, Chunk]:
    """Two chunks of half the sequences each; needs two sequences at least."""
    first, second = zip(*(batch.halves() for batch in chunk), strict=True)
    return first, second
