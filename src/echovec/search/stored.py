"""Vectors on a disk, memory-mapped: written block by block, multiplied block by block.

    float32    as they are
    float16    half the bytes, three digits
    int8       a quarter: each vector's largest number is 127, its scale a float32 beside it

Whatever is stored is widened to float32 a block at a time, so memory stays small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echovec.errors import StorageError
from echovec.files.disk import NewFile
from echovec.files.parquet import Vectors
from echovec.search.layout import Kept

BLOCK_ROWS = 8192
_WIDENED_ROWS = 512  # 1 MB: what is widened is still in the cache when it is multiplied
DTYPES = ("float32", "float16", "int8")


class VectorWriter:
    """Unit vectors into `vectors-TOKEN.npy` (and `scales-TOKEN.npy`); a context manager.

    Raises:
        StorageError: the disk is full, read-only or broken.
    """

    def __init__(self, folder: Path, token: str, dtype: str, rows: int, dimension: int) -> None:
        self._dtype = dtype
        shapes: dict[str, tuple[tuple[int, ...], str]] = {"vectors": ((rows, dimension), dtype)}
        if dtype == "int8":
            shapes["scales"] = ((rows,), "float32")
        self._files = {
            name: NpyFile(folder / f"{name}-{token}.npy", shape, kind)
            for name, (shape, kind) in shapes.items()
        }

    def __enter__(self) -> VectorWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def write(self, vectors_ND: Vectors) -> None:
        """The next rows."""
        parts = encode(vectors_ND, self._dtype)
        for file, part in zip(self._files.values(), parts, strict=True):
            file.write(part)

    def keep(self) -> dict[str, Kept]:
        """Flush and name the files."""
        return {name: file.keep() for name, file in self._files.items()}


class NpyFile:
    """A .npy file of a known shape, written row after row."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str) -> None:
        self._path, self._shape, self._dtype = path, shape, np.dtype(dtype)
        self._written = 0
        self._file = NewFile(path)
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def write(self, rows: NDArray[Any]) -> None:
        """The next rows."""
        self._written += len(rows)
        self._file.write(np.ascontiguousarray(rows, dtype=self._dtype).data)

    def keep(self) -> Kept:
        """Flush it and give it its name."""
        if self._written != self._shape[0]:
            raise StorageError(
                f"{self._path}: {self._written:,} of {self._shape[0]:,} rows came; the input "
                "changed while it was read: run again"
            )
        self._file.keep()
        return Kept(self._path.name, self._file.bytes, self._file.sha256)

    def close(self) -> None:
        """Close it, and delete it unless it was kept."""
        self._file.close()


class Stored:
    """The vectors of an index, opened; nothing is read before it is used."""

    def __init__(self, folder: Path, files: dict[str, Kept]) -> None:
        self._vectors_ND = mapped(folder / files["vectors"].name)
        self._scales_N = mapped(folder / files["scales"].name) if "scales" in files else None

    def __len__(self) -> int:
        return len(self._vectors_ND)

    def block(self, start: int, stop: int) -> Vectors:
        """Rows `start` to `stop`, widened to float32 [n, d]; a view if they are float32."""
        return self._taken(slice(start, stop))

    def take(self, rows: NDArray[np.int64]) -> Vectors:
        """Some rows, widened to float32 [n, d]."""
        return self._taken(rows)

    def blocks(self) -> Iterator[tuple[int, Vectors]]:
        """All rows in order: (start, float32 [n, d])."""
        for start in range(0, len(self), BLOCK_ROWS):
            yield start, self.block(start, min(start + BLOCK_ROWS, len(self)))

    def scores(self, queries_QD: Vectors) -> Vectors:
        """The dot product of every query with every row: float32 [q, n]."""
        scores_QN = np.empty((len(queries_QD), len(self)), np.float32)
        widen, factor = _WIDEN[self._vectors_ND.dtype.name]
        queries_QD = queries_QD * factor
        rows = BLOCK_ROWS if widen is _as_is else _WIDENED_ROWS
        for start in range(0, len(self), rows):
            block_ND = widen(self._vectors_ND[start : start + rows])
            np.matmul(queries_QD, block_ND.T, out=scores_QN[:, start : start + rows])
        if self._scales_N is not None:
            scores_QN *= self._scales_N
        return scores_QN

    def _taken(self, rows: Any) -> Vectors:
        widen, factor = _WIDEN[self._vectors_ND.dtype.name]
        vectors_ND = widen(self._vectors_ND[rows])
        if self._scales_N is not None:
            vectors_ND = vectors_ND * np.asarray(self._scales_N[rows])[:, None]
        return vectors_ND if factor == 1 else vectors_ND * factor


def _as_is(block: NDArray[Any]) -> Vectors:
    return block


def _from_int8(block: NDArray[Any]) -> Vectors:
    return block.astype(np.float32)


def _from_float16(block: NDArray[Any]) -> Vectors:
    # The bits of a float16, moved to where a float32 has them, are the number divided by 2 ** 112:
    # four times as fast as numpy's conversion, and exact. Never infinite here, so that is all.
    bits = block.view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= np.int32(-0x70000001)  # 0x8FFFFFFF: the sign was extended over three bits
    floats: Vectors = bits.view(np.float32)
    return floats


_Widen = Callable[[NDArray[Any]], Vectors]
_WIDEN: dict[str, tuple[_Widen, np.float32]] = {
    "float32": (_as_is, np.float32(1)),
    "float16": (_from_float16, np.float32(2.0**112)),
    "int8": (_from_int8, np.float32(1)),
}
"""How a block becomes float32, and the number that it is then to be multiplied by."""


def encode(vectors_ND: Vectors, dtype: str) -> tuple[NDArray[Any], ...]:
    """What is stored of float32 vectors: (values,), or (values, scales) for int8."""
    if dtype != "int8":
        return (vectors_ND.astype(dtype),)
    scales_N = np.abs(vectors_ND).max(axis=1) / 127
    codes_ND = np.rint(vectors_ND / np.maximum(scales_N, np.finfo(np.float32).tiny)[:, None])
    return codes_ND.astype(np.int8), scales_N.astype(np.float32)


def mapped(path: Path) -> NDArray[Any]:
    """The array of a .npy file, memory-mapped.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise StorageError(f"{path} cannot be read: {error}; build the index again") from error
    return array.view(np.ndarray)
