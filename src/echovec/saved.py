"""Saved: an embedder's folder on disk: the recipe's files and, where it has to be, `model/`."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from echovec.errors import RecipeError, StorageError
from echovec.recipe import RECIPE_FILE, ModelIdentity, Recipe
from echovec.version import __version__

MODEL_FOLDER = "model"


def saved_recipe(model: str | Path | None) -> Recipe | None:
    """The recipe of a saved folder; None if `model` names something else."""
    file = Path(model) / RECIPE_FILE if model is not None else None
    if file is None or not file.is_file():
        return None
    return Recipe.load(file)


def saved_model(folder: Path, recipe: Recipe) -> str | Path:
    """What to load the model of a saved folder from.

    Raises:
        RecipeError: it was saved without its weights and names no place to load them from.
    """
    if (folder / MODEL_FOLDER).is_dir():
        return folder / MODEL_FOLDER
    if recipe.model is None or recipe.model.path is None:
        raise RecipeError(
            f"{folder} names no model to load; give one: "
            f"Embedder.load(model, recipe={str(folder)!r})"
        )
    return recipe.model.path


def write_saved(folder: Path, recipe: Recipe, save_model: Callable[[Path], None] | None) -> None:
    """Write a saved folder; the recipe comes last, by rename, so a folder with one is whole.

    Args:
        folder: made if it is not there.
        recipe: what to write.
        save_model: writes weights and tokenizer into the folder it is given; None to name the
            model only.

    Raises:
        StorageError: the disk does not take it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if save_model is not None:
            save_model(folder / MODEL_FOLDER)
    except OSError as error:
        raise StorageError(
            f"cannot save to {folder}: {error.strerror or error}; free space or choose another "
            "folder"
        ) from error
    recipe.save(folder)


def library_versions() -> dict[str, str]:
    """The software that vectors are made with, for the record."""
    libraries = ("torch", "transformers", "tokenizers")
    return {
        "echovec": __version__,
        **{name: version(name) for name in libraries},
        "python": platform.python_version(),
    }


def check_same_model(bound: Recipe, found: ModelIdentity, dtype: str) -> None:
    """Refuse to use a recipe with another model than it was made for.

    Weights rounded to another dtype are other weights, so they are compared only when the dtype
    is the recipe's own; the fingerprint tells the others apart.

    Raises:
        RecipeError: the weights or the tokenizer differ; both hashes are named.
    """
    wanted = bound.model
    if wanted is None:
        return
    compared = [("tokenizer", wanted.tokenizer_hash, found.tokenizer_hash)]
    if bound.dtype == dtype:
        compared.append(("weights", wanted.hash, found.hash))
    for what, want, have in compared:
        if want != have:
            raise RecipeError(
                f"recipe {bound.name!r} was made for {wanted.name} with {what} {want[:19]}..., "
                f"but here they are {have[:19]}...; load that model, fit a recipe to this one with "
                "`echovec calibrate` or `echovec tune`, or use the recipe unbound: "
                "Embedder.load(model, recipe=dataclasses.replace(recipe, model=None, dtype=None))"
            )
