"""Shards: vectors on disk, found by the hash of their text; only ever added to.

A folder holds the vectors of one recipe in one role. Each file is one numpy array of records (hash
of the text, vector, tokens, cut) and is named by the hash of its own bytes: it is written whole, by
rename, two processes cannot collide, and a damaged file is noticed, set aside and made again. The
index costs about 200 bytes of memory per text; vectors stay on disk until they are asked for.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echovec.evaluate.results import write_whole

KEY_BYTES = 16
Record = NDArray[Any]
"""A structured array with the fields key, vector, tokens and cut."""


def text_key(text: str) -> bytes:
    """What a text is found by: the first half of its SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:KEY_BYTES]


def records_of(
    texts: Sequence[str],
    vectors_ND: NDArray[np.float32],
    tokens_N: NDArray[np.int64],
    cut_N: NDArray[np.bool_],
) -> Record:
    """Texts with their vectors as records."""
    records = np.zeros(len(texts), dtype=_dtype(vectors_ND.shape[1]))
    records["key"] = [np.void(text_key(text)) for text in texts]
    records["vector"], records["tokens"], records["cut"] = vectors_ND, tokens_N, cut_N
    return records


class Shards:
    """The records of a folder, or of memory only (`folder=None`).

    Args:
        folder: where the files lie; made at the first `add`.
        dim: the width that the vectors have.
    """

    def __init__(self, folder: Path | None, dim: int) -> None:
        self.folder = folder
        self.dim = dim
        self._parts: list[Path | Record] = []
        self._places: dict[bytes, tuple[int, int]] = {}
        for file in sorted(folder.glob("*.npy")) if folder else ():
            records = _read(file, dim)
            if records is not None:
                self._index(records, file)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def add(self, records: Record) -> None:
        """Keep records, on disk before this returns.

        Raises:
            StorageError: the disk does not take them.
        """
        if self.folder is not None:
            buffer = io.BytesIO()
            np.save(buffer, records, allow_pickle=False)
            content = buffer.getvalue()
            file = self.folder / f"{_hash(content)}.npy"
            write_whole(file, content)
            self._index(records, file)
        else:
            self._index(records, records)

    def get(self, keys: Sequence[bytes]) -> Record:
        """The records of these keys, in order; all of them have to be here."""
        found = np.zeros(len(keys), dtype=_dtype(self.dim))
        places = np.array([self._places[key] for key in keys], dtype=np.int64).reshape(-1, 2)
        for number in np.unique(places[:, 0]):
            rows = np.flatnonzero(places[:, 0] == number)
            # Not memory-mapped: each mapping keeps a file open, and there may be thousands.
            part = self._parts[number]
            records = np.load(part, allow_pickle=False) if isinstance(part, Path) else part
            found[rows] = records[places[rows, 1]]
        return found

    def _index(self, records: Record, part: Path | Record) -> None:
        number = len(self._parts)
        self._parts.append(part)
        for row, key in enumerate(records["key"]):
            self._places.setdefault(key.tobytes(), (number, row))


def _dtype(dim: int) -> np.dtype[Any]:
    return np.dtype(
        [("key", f"V{KEY_BYTES}"), ("vector", "<f4", (dim,)), ("tokens", "<i4"), ("cut", "?")]
    )


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _read(file: Path, dim: int) -> Record | None:
    """A file's records, or None after setting aside a file that is not what its name says."""
    content = file.read_bytes()
    if _hash(content) == file.stem:
        records: Record = np.load(io.BytesIO(content), allow_pickle=False)
        if records.dtype == _dtype(dim):
            return records
    aside = file.with_suffix(".damaged")
    file.replace(aside)
    warnings.warn(
        f"{file} was damaged and is now {aside.name}; its texts are embedded again", stacklevel=4
    )
    return None
