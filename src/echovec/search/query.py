"""Questions to an index as vectors: embedded as its rows were, or refused."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from echovec.errors import InputError, RecipeError
from echovec.files.disk import write_file
from echovec.files.parquet import Vectors
from echovec.files.vectors import Made
from echovec.search.layout import RECIPE, Kept, read_facts

if TYPE_CHECKING:
    from echovec.embedder import Embedder
    from echovec.recipe import Role


def keep_recipe(folder: Path, token: str, made: Made, arrays: Path | None) -> dict[str, Kept]:
    """Write the recipe into an index, `token` in its name, and its arrays beside it.

    Raises:
        StorageError: the disk is full, read-only or broken.
    """
    fields = json.loads(made.recipe_json)
    fields.pop("run", None)  # beside .npy and .jsonl it stands in the recipe's file
    text = json.dumps(fields, indent=2, ensure_ascii=False)
    kept = {RECIPE: _keep(folder / f"recipe-{token}.json", text.encode() + b"\n")}
    if arrays is not None:
        kept["arrays"] = _keep(folder / f"recipe-{token}.safetensors", arrays.read_bytes())
    return kept


def _keep(path: Path, data: bytes) -> Kept:
    write_file(path, data)
    return Kept(path.name, len(data), sha256(data).hexdigest())


def load_embedder(folder: Path, made: Made, model: str | Path | None = None) -> Embedder:
    """The embedder that an index was made with.

    Args:
        folder: the index.
        made: what it says of its vectors.
        model: where to load the model from; by default what the recipe names, or the default
            model where that is gone.

    Raises:
        ModelError: the model cannot be found, fetched or read.
        RecipeError: it is another model, or the recipe's arrays are not here.
        InputError: it embeds otherwise than the index's rows; both fingerprints are shown.
    """
    from echovec.embedder import Embedder
    from echovec.presets import preset
    from echovec.recipe import Recipe

    try:
        recipe = Recipe.load(folder / read_facts(folder).files[RECIPE].name)
    except RecipeError:
        # A single file of vectors names the arrays of a fitted recipe and does not hold them.
        name = str(json.loads(made.recipe_json).get("name"))
        recipe = preset(name)
    revision = None
    if model is None and recipe.model is not None and recipe.model.path is not None:
        given = Path(recipe.model.path)
        model = str(given) if given.exists() or not given.is_absolute() else None
        revision = recipe.model.revision
    embedder = Embedder.load(model, recipe, revision=revision)
    check_fingerprint(made, embedder.recipe.fingerprint)
    return embedder


def check_fingerprint(made: Made, fingerprint: str) -> None:
    """Refuse queries of another recipe or model.

    Raises:
        InputError: both fingerprints.
    """
    if fingerprint != made.fingerprint:
        raise InputError(
            f"the index was made with the recipe of fingerprint {made.fingerprint} and the query "
            f"with {fingerprint}: their vectors cannot be compared; use the same model and recipe, "
            "or embed and index again"
        )


def role_of_queries(made: Made, asked: Role | None) -> Role | None:
    """How to embed a query: as asked, else the side that fits the rows.

    Raises:
        InputError: the recipe embeds the role asked for and the rows' side differently, and they
            are not the two sides of one search.
    """
    if asked is None:
        return "query" if made.role == "document" else made.role  # type: ignore[return-value]
    if {asked, made.role} == {"query", "document"} or asked == made.role:
        return asked
    views = json.loads(made.recipe_json).get("views", {})
    apart = [role for role in (asked, made.role or "symmetric") if role in views]
    if apart and apart != ["symmetric"] and (asked in apart or made.role in apart):
        raise InputError(
            f"role {asked!r} for a query, but the rows were embedded as "
            f"{made.role or 'symmetric'}, which this recipe does differently; leave --role out, "
            "or embed the rows with --role document"
        )
    return asked


def embed(
    embedder: Any, texts: list[str], made: Made, role: Role | None, instruction: str | None
) -> Vectors:
    """Unit vectors of queries, as the rows' own: float32 [q, d].

    Raises:
        InputError: another fingerprint, a role that does not fit, or a text that has no tokens.
    """
    check_fingerprint(made, embedder.recipe.fingerprint)
    role = role_of_queries(made, role)
    if instruction is None and role != "query":
        instruction = made.instruction
    vectors: Vectors = embedder.encode(
        texts,
        role=role,
        instruction=instruction,
        truncate_dim=made.truncate_dim,
        show_progress_bar=False,
    )
    return vectors


def as_vectors(given: Any, dimension: int) -> Vectors:
    """Query vectors as float32 [q, d] of unit length.

    Raises:
        InputError: another width than the index's, not finite, or zero; the place is named.
    """
    vectors_QD = np.atleast_2d(np.asarray(given, dtype=np.float32))
    if vectors_QD.ndim != 2 or vectors_QD.shape[1] != dimension:
        raise InputError(f"queries of shape {vectors_QD.shape}; the index has {dimension} numbers")
    lengths_Q = np.linalg.norm(vectors_QD, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(lengths_Q[:, 0]) & (lengths_Q[:, 0] > 0)))
    if len(bad):
        raise InputError(f"query {bad[0]} is zero or not finite", index=int(bad[0]))
    unit: Vectors = vectors_QD / lengths_Q
    return unit
