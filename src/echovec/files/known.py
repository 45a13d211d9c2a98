"""Known: 16-byte hashes and a whole number for each, in 24 bytes a row.

A Python dict would take about 150. Hashes are kept as sorted runs, newest last, each at least twice
as long as the next: adding n hashes sorts n, and now and then merges runs, so that a look-up walks
through few of them. All look-ups are of many hashes at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.bytes_]
Places = NDArray[np.int64]


def hash_texts(texts: Iterable[str]) -> Hashes:
    """blake2b of each text's UTF-8, 16 bytes, as an array of dtype S16."""
    joined = [blake2b(text.encode(), digest_size=16).digest() for text in texts]
    return np.array(joined, dtype="S16")


class Known:
    """A growing table hash -> number; where a hash is added twice, the first number stays."""

    def __init__(self) -> None:
        self._runs: list[tuple[Hashes, Places]] = []

    def __len__(self) -> int:
        return sum(len(hashes) for hashes, _ in self._runs)

    def find(self, hashes: Hashes) -> Places:
        """The number of each hash, -1 where it is not known."""
        found = np.full(len(hashes), -1, dtype=np.int64)
        for run, places in self._runs:
            at = np.minimum(np.searchsorted(run, hashes), len(run) - 1)
            hit = (run[at] == hashes) & (found < 0)
            found[hit] = places[at[hit]]
        return found

    def add(self, hashes: Hashes, places: Places) -> None:
        """Learn the hashes that are not known yet; of equal ones the first."""
        unique, first = np.unique(hashes, return_index=True)
        new = self.find(unique) < 0
        if not new.any():
            return
        self._runs.append((unique[new], places[first[new]]))
        while len(self._runs) > 1 and len(self._runs[-2][0]) < 2 * len(self._runs[-1][0]):
            (a, a_places), (b, b_places) = self._runs[-2:]
            joined, joined_places = np.concatenate([a, b]), np.concatenate([a_places, b_places])
            order = np.argsort(joined, kind="stable")
            self._runs[-2:] = [(joined[order], joined_places[order])]
