"""Known: 16-byte hashes and a whole number for each; the newest in memory, all others on the disk.

    in memory    sorted runs, newest last, each at least twice as long as the next
    on the disk  sorted runs in nameless files, merged four at a time

Of a row on the disk two bytes of its hash stay in memory, and of each 64 rows the first hash: 2.25
bytes a row (a Python dict would take 150). Where these say that a hash may be there, its 64 rows
are read; of 1,000 unknown hashes one is looked for in vain. All look-ups are of many at once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echovec.files.disk import storage_errors

Hashes = NDArray[np.bytes_]
Places = NDArray[np.int64]
Run = tuple[Hashes, Places]

IN_MEMORY = 1 << 16
"""Rows; with so many they go to the disk."""

_FAN = 4
_BLOCK = 64
_AHEAD = 4096
_RECORD = np.dtype([("hash", "S16"), ("place", "<i8")])


def hash_texts(texts: Iterable[str]) -> Hashes:
    """blake2b of each text's UTF-8, 16 bytes, as an array of dtype S16."""
    joined = [blake2b(text.encode(), digest_size=16).digest() for text in texts]
    return np.array(joined, dtype="S16")


class Known:
    """A growing table hash -> number; where a hash is added twice, the first number stays.

    A context manager, which closes its files; they have no names, so a kill leaves none behind.

    Args:
        folder: where its files are; None keeps all rows in memory, at 24 bytes each.
        in_memory: with so many rows in memory, they go to the disk.

    Raises:
        StorageError: the disk is full or broken.
    """

    def __init__(self, folder: Path | None = None, in_memory: int = IN_MEMORY) -> None:
        self._folder, self._in_memory = folder, in_memory
        self._runs: list[Run] = []
        self._stored: list[_Stored] = []

    def __enter__(self) -> Known:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for stored in self._stored:
            stored.close()

    def __len__(self) -> int:
        return sum(len(hashes) for hashes, _ in self._runs) + sum(map(len, self._stored))

    def find(self, hashes: Hashes) -> Places:
        """The number of each hash, -1 where it is not known."""
        found = np.full(len(hashes), -1, dtype=np.int64)
        for run, places in self._runs:
            at = np.minimum(np.searchsorted(run, hashes), len(run) - 1)
            hit = (run[at] == hashes) & (found < 0)
            found[hit] = places[at[hit]]
        for stored in self._stored:
            stored.find(hashes, found)
        return found

    def add(self, hashes: Hashes, places: Places) -> Places:
        """Learn the hashes that are not known yet, of equal ones the first; the number of each."""
        unique, first, which = np.unique(hashes, return_index=True, return_inverse=True)
        there = self.find(unique)
        new = there < 0
        if new.any():
            self._runs.append((unique[new], places[first[new]]))
            while len(self._runs) > 1 and len(self._runs[-2][0]) < 2 * len(self._runs[-1][0]):
                self._runs[-2:] = [_in_order(self._runs[-2:])]
            if self._folder and sum(len(run) for run, _ in self._runs) >= self._in_memory:
                self._store(self._folder)
        kept: Places = np.where(new, places[first], there)[which]
        return kept

    def _store(self, folder: Path) -> None:
        """What is in memory to the disk; four runs of one level there become one of the next."""
        with storage_errors(folder):
            rows = sum(len(run) for run, _ in self._runs)
            self._stored.append(_Stored(folder, rows, [_in_order(self._runs)], 0))
            self._runs = []
            while (
                len(level := [s for s in self._stored if s.level == self._stored[-1].level]) == _FAN
            ):
                rows = sum(map(len, level))
                joined = _Stored(folder, rows, _merged(level), level[0].level + 1)
                for stored in level:
                    stored.close()
                self._stored[-_FAN:] = [joined]


class _Stored:
    """A sorted run on the disk."""

    def __init__(self, folder: Path, rows: int, runs: Iterable[Run], level: int) -> None:
        """`runs`: one behind the other they are the `rows` sorted rows."""
        self.level, self._rows = level, rows
        self._file: Any = tempfile.TemporaryFile(  # noqa: SIM115 - closed by `close`
            dir=folder, prefix=".echovec-", suffix=".tmp"
        )
        blocks = -(-rows // _BLOCK)
        self._firsts = np.empty(blocks, "S16")
        self._prints = np.zeros((blocks, _BLOCK), np.uint16)
        try:
            self._write(runs)
        except BaseException:
            with suppress(OSError):  # it would write the rest
                self._file.close()
            raise

    def _write(self, runs: Iterable[Run]) -> None:
        start = 0
        for hashes, places in runs:
            records = np.empty(len(hashes), _RECORD)
            records["hash"], records["place"] = hashes, places
            self._file.write(records.data)
            first = -(-start // _BLOCK)
            firsts = hashes[-start % _BLOCK :: _BLOCK]
            self._firsts[first : first + len(firsts)] = firsts
            self._prints.reshape(-1)[start : start + len(hashes)] = _prints(hashes)
            start += len(hashes)
        self._file.flush()  # a full disk is met here, not when it is read

    def __len__(self) -> int:
        return self._rows

    def close(self) -> None:
        """Its file is gone with that."""
        self._file.close()

    def find(self, hashes: Hashes, found: Places) -> None:
        """Put the numbers of hashes that are here into `found`, where it has none (-1)."""
        block = np.searchsorted(self._firsts, hashes, side="right") - 1
        alike = self._prints[np.maximum(block, 0)] == _prints(hashes)[:, None]
        may = np.flatnonzero(alike.any(axis=1) & (block >= 0) & (found < 0))
        for number in np.unique(block[may]):
            here = may[block[may] == number]
            run, places = self.read(number * _BLOCK, _BLOCK)
            at = np.minimum(np.searchsorted(run, hashes[here]), len(run) - 1)
            hit = run[at] == hashes[here]
            found[here[hit]] = places[at[hit]]

    def read(self, start: int, count: int) -> Run:
        """Up to `count` rows from `start` on."""
        count = min(count, self._rows - start)
        self._file.seek(start * _RECORD.itemsize)
        records = np.frombuffer(self._file.read(count * _RECORD.itemsize), _RECORD, count)
        return records["hash"], records["place"]


def _prints(hashes: Hashes) -> NDArray[np.uint16]:
    """The last two bytes of each hash."""
    return np.ascontiguousarray(hashes).view(np.uint16)[7::8]


def _in_order(runs: Sequence[Run]) -> Run:
    """Runs that have no hash in common, as one."""
    hashes = np.concatenate([run for run, _ in runs])
    order = np.argsort(hashes, kind="stable")
    return hashes[order], np.concatenate([places for _, places in runs])[order]


def _merged(runs: Sequence[_Stored]) -> Iterator[Run]:
    """The rows of all `runs` in order, a few thousand at a time from each."""
    at = [0] * len(runs)
    while any(start < len(run) for start, run in zip(at, runs, strict=True)):
        ahead = [run.read(start, _AHEAD) for start, run in zip(at, runs, strict=True)]
        # What comes after the last row that was read of a run is not known: it goes so far.
        ends = [
            hashes[-1]
            for start, run, (hashes, _) in zip(at, runs, ahead, strict=True)
            if start + len(hashes) < len(run)
        ]
        taken = [len(h) for h, _ in ahead]
        if ends:
            taken = [int(np.searchsorted(h, min(ends), side="right")) for h, _ in ahead]
        yield _in_order([(h[:n], p[:n]) for (h, p), n in zip(ahead, taken, strict=True)])
        at = [start + n for start, n in zip(at, taken, strict=True)]
