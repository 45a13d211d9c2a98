"""Cache: vectors of texts on disk, in one SQLite file. Texts are not in it, only their hashes.

A vector's key covers the recipe's fingerprint, role, instruction and text, so a file may be shared
by all recipes and stays right when one changes. Losing the file costs time and nothing else: it is
written without waiting for the disk, and a damaged one is begun anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echovec.errors import StorageError

_LOG = logging.getLogger(__name__)
_ASK = 500  # keys of one query: SQLite takes 999 in old versions
_WAIT_SECONDS = 5.0  # for another server that opens the same file; SQLite's own for the rest
_SCHEMA = (
    "create table if not exists vectors (key blob primary key, cut integer not null, "
    "vector blob not null, check_sum blob not null)"
)

Vector = NDArray[np.float32]


class VectorCache:
    """Vectors by key, the oldest of them dropped beyond `max_rows`; for use from any thread.

    Raises:
        StorageError: the file cannot be opened or made.
    """

    def __init__(self, path: Path, max_rows: int) -> None:
        self._path = path
        self._max_rows = max_rows
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._open()
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"cannot keep vectors in {path}: {error}") from error

    @staticmethod
    def key(fingerprint: str, role: str | None, instruction: str | None, text: str) -> bytes:
        """The key of a text's vector."""
        named = json.dumps([fingerprint, role, instruction, text])
        return hashlib.sha256(named.encode()).digest()

    def get(self, keys: Sequence[bytes], dimension: int) -> dict[int, tuple[Vector, bool]]:
        """The place of each key that is there -> its vector and whether its text was cut."""
        place = {key: index for index, key in enumerate(keys)}
        found: dict[int, tuple[Vector, bool]] = {}
        for start in range(0, len(keys), _ASK):
            part = keys[start : start + _ASK]
            marks = ",".join("?" * len(part))
            query = f"select key, cut, vector, check_sum from vectors where key in ({marks})"
            for key, cut, blob, check_sum in self._do(query, [tuple(part)]):
                if _sum(blob) == check_sum and len(blob) == 4 * dimension:
                    found[place[key]] = np.frombuffer(blob, "<f4").astype(np.float32), bool(cut)
        return found

    def put(self, rows: Sequence[tuple[bytes, Vector, bool]]) -> None:
        """Add vectors; equal keys replace each other."""
        blobs = [(key, cut, np.asarray(v, "<f4").tobytes()) for key, v, cut in rows]
        self._do(
            "insert or replace into vectors values (?, ?, ?, ?)",
            [(key, cut, blob, _sum(blob)) for key, cut, blob in blobs],
        )
        self._do(
            "delete from vectors where rowid <= (select max(rowid) from vectors) - ?",
            [(self._max_rows,)],
        )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()

    # -- inside -------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            self._path.rename(self._path.with_name(self._path.name + ".damaged"))
            _LOG.warning("%s is damaged and was put aside; a new one begins", self._path)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        file = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
        try:
            _write_ahead(file)
            file.execute("pragma synchronous=off")
            file.execute(_SCHEMA)
        except sqlite3.Error:
            file.close()
            raise
        return file

    def _do(self, query: str, rows: Sequence[tuple[object, ...]]) -> list[tuple[Any, ...]]:
        """Run a query on each row of values; a disk that fails costs the cache, not the request."""
        with self._lock:
            try:
                self._file.execute("begin")
                try:
                    return [line for row in rows for line in self._file.execute(query, row)]
                finally:
                    self._file.execute("commit")
            except sqlite3.Error as error:
                _LOG.warning("the vector cache failed: %s", error)
                return []


def _write_ahead(file: sqlite3.Connection) -> None:
    """Readers and a writer at once. SQLite waits for other locks, but not for this one."""
    until = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            file.execute("pragma journal_mode=wal")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(0.02)


def _sum(blob: bytes) -> bytes:
    return hashlib.blake2b(blob, digest_size=8).digest()
