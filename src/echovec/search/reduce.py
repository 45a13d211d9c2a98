"""Reduce: shorter vectors for an index, and queries shortened in the same way.

    first    the first numbers, for models trained so (Matryoshka) or recipes that sort them
    pca      the directions in which this index's vectors are longest, fitted at the build

Vectors are of unit length again afterwards. Directions are of the vectors as they are, not of their
differences from the mean: that keeps dot products, which is what a search compares, best.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from echovec.errors import InputError
from echovec.files.parquet import Vectors
from echovec.files.vectors import Block
from echovec.search.layout import Kept
from echovec.search.stored import NpyFile, mapped

How = Literal["first", "pca"]


@dataclass(frozen=True)
class Reduce:
    """Vectors of one width to unit vectors of a smaller one."""

    dim: int
    matrix_DE: Vectors | None = None
    """The directions kept; None for the first numbers."""

    def __call__(self, vectors_ND: Vectors) -> Vectors:
        """float32 [n, D] to [n, dim]."""
        matrix = self.matrix_DE
        short = vectors_ND[:, : self.dim] if matrix is None else vectors_ND @ matrix
        lengths_N1 = np.linalg.norm(short, axis=1, keepdims=True)
        unit: Vectors = short / np.maximum(lengths_N1, np.finfo(np.float32).tiny)
        return unit


def fit(blocks: Iterable[Block], dimension: int, dim: int, how: str) -> Reduce:
    """The reduction of an index's vectors to `dim` numbers; "pca" reads all of them once.

    Raises:
        InputError: an unknown way, or more numbers than there are.
    """
    if how not in get_args(How):
        raise InputError(f"reduce {how!r}; there are {', '.join(get_args(How))}")
    if not 1 <= dim <= dimension:
        raise InputError(f"dim={dim}; the vectors have {dimension} numbers, give 1 to {dimension}")
    if how == "first":
        return Reduce(dim)
    products_DD = np.zeros((dimension, dimension))
    for block in blocks:
        products_DD += block.vectors_ND.T @ block.vectors_ND
    _, directions = np.linalg.eigh(products_DD)
    return Reduce(dim, np.ascontiguousarray(directions[:, ::-1][:, :dim], dtype=np.float32))


def save(folder: Path, token: str, reduce: Reduce) -> dict[str, Kept]:
    """The file of its directions, where it has some."""
    if reduce.matrix_DE is None:
        return {}
    file = NpyFile(folder / f"reduce-{token}.npy", reduce.matrix_DE.shape, "float32")
    try:
        file.write(reduce.matrix_DE)
        return {"reduce": file.keep()}
    finally:
        file.close()


def load(folder: Path, dim: int | None, files: dict[str, Kept]) -> Reduce | None:
    """What an index was built with; None if its vectors are as long as the model's."""
    if dim is None:
        return None
    matrix = mapped(folder / files["reduce"].name) if "reduce" in files else None
    return Reduce(dim, matrix)
