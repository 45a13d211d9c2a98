"""The demo's indexes: a second run opens them where they still fit.

An index fits if it is whole and holds the same texts under the same recipe fingerprint. Anything
else is said, and embedded again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from echovec.demo.docstrings import Docstring
from echovec.errors import InputError, StorageError

if TYPE_CHECKING:
    import numpy as np

    from echovec.recipe import Recipe
    from echovec.search.index import Index


def index_path(folder: Path, recipe_name: str) -> Path:
    """Where the index of a recipe lies: FOLDER/stdlib.NAME."""
    return folder / f"stdlib.{re.sub(r'[^A-Za-z0-9._-]', '_', recipe_name)}"


def make_folder(folder: Path) -> None:
    """Make the folder for the indexes, before the long work rather than after it.

    Raises:
        InputError: There is a file of that name.
        StorageError: The disk refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{folder} is not a folder; give another one with --out") from error
    except OSError as error:
        raise StorageError(f"cannot make {folder}: {error.strerror}; give another --out") from error


def build(path: Path, docs: Sequence[Docstring], vectors: np.ndarray, recipe: Recipe) -> Index:
    """Write an index of the texts; `path` is whole or as it was before.

    Raises:
        InputError: Something else is there.
        NonFiniteError: A vector is zero or not finite.
        StorageError: The disk is full, read-only or broken.
    """
    import pyarrow as pa

    from echovec.files.vectors import Made, in_memory
    from echovec.search.index import Index

    rows = pa.table({"id": [doc.name for doc in docs], "text": [doc.text for doc in docs]})
    made = Made(recipe_json=recipe.to_json(), fingerprint=recipe.fingerprint, role="document")
    source = in_memory(rows, vectors, made, name="the docstrings")
    return Index.build(source, path, backend="exact", overwrite=True)


def num_rows(path: Path) -> int | None:
    """How many texts the index at `path` says it holds; None where there is none to be read."""
    from echovec.search.index import Index

    try:
        return len(Index.open(path)) if path.exists() else None
    except (InputError, StorageError):
        return None


def open_fitting(
    path: Path, docs: Sequence[Docstring], fingerprint: str
) -> tuple[Index | None, str]:
    """The index of `docs`, or None and why not ("is damaged").

    The reason is empty if nothing is there, which is nothing to remark on.
    """
    from echovec.search.index import Index

    if not path.exists():
        return None, ""
    try:
        index = Index.open(path, verify=True)
        blocks = [block.rows for block in index.blocks()]
    except (InputError, StorageError) as error:
        return None, f"cannot be used: {str(error).splitlines()[0]}"
    if index.fingerprint != fingerprint:
        return None, "was made with another recipe or model"
    pairs = [
        (row["id"], row["text"])
        for rows in blocks
        for row in rows.select(["id", "text"]).to_pylist()
    ]
    if pairs != [(doc.name, doc.text) for doc in docs]:
        return None, "holds other texts"
    return index, ""
