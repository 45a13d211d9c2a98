"""datasets: a column of vectors for a Hugging Face data set.

    dataset = with_vectors(dataset, Embedder.load(), column="text")

`map` keeps its result by a fingerprint of what it ran. It knows an embedder by how it was loaded,
and a model in memory not at all, so it is told the recipe's fingerprint: the same texts under the
same recipe are embedded once, in any process, and under another one again.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from echovec.errors import DependencyError, InputError
from echovec.plugins.handle import Handle
from echovec.recipe import Role

try:
    from datasets import Dataset, List, Value
except ImportError as error:
    raise DependencyError(
        f'with_vectors needs datasets 4 or newer ({error}): pip install "echovec[plugins]"'
    ) from None

if TYPE_CHECKING:
    from echovec.embedder import Embedder


def with_vectors(
    dataset: Any,
    model: Embedder | str | None = None,
    *,
    column: str = "text",
    to: str = "vector",
    role: Role | None = None,
    instruction: str | None = None,
    batch_size: int = 1000,
) -> Any:
    """The data set with one more column: float32 vectors of unit length.

    Args:
        dataset: a `Dataset`, or an `IterableDataset`, which is embedded as it is read.
        model: an `Embedder`, or the name or folder of a model; None for the default model.
        column: which texts.
        to: the new column's name.
        role: "query", "document", or None for neither.
        instruction: what the vectors are for, for recipes that take one.
        batch_size: rows at a time; what is done so far is lost if the process stops.

    Raises:
        InputError: the column is not there, the new one is, or a text cannot be embedded; `index`
            is its row.
    """
    names = dataset.column_names
    if names is not None and column not in names:
        raise InputError(f"the data set has no column {column!r}, only {', '.join(names)}")
    if names is not None and to in names:
        raise InputError(f"the data set has a column {to!r} already; give another name: to=...")
    handle = Handle(model)
    embedder = handle.embedder

    def embed(rows: dict[str, list[Any]], places: list[int]) -> dict[str, Any]:
        try:
            return {to: handle.vectors(rows[column], role, instruction)}
        except InputError as error:
            if error.index is None:
                raise
            row = int(places[error.index])  # of the data set, not of this batch
            said = str(error).replace(f"texts[{error.index}]", f"{column}[{row}]", 1)
            raise InputError(said, index=row) from None

    options: dict[str, Any] = {"batched": True, "batch_size": batch_size, "with_indices": True}
    vector = List(Value("float32"), length=embedder.dimension)
    if dataset.features is not None:
        options["features"] = type(dataset.features)({**dataset.features, to: vector})
    if isinstance(dataset, Dataset):
        if not len(dataset):  # `map` would give it back without the column
            return dataset.add_column(to, [], feature=vector)
        asked = (dataset._fingerprint, embedder.recipe.fingerprint, column, to, role, instruction)
        options["new_fingerprint"] = hashlib.sha256(repr(asked).encode()).hexdigest()[:16]
        options["desc"] = f"{to} by {embedder.recipe.name}"
    return dataset.map(embed, **options)
