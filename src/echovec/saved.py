"""Saved: an embedder's folder on disk: the recipe's files and, where it has to be, `model/`.

A trained one has `adapter/`, which is merged into the model that the recipe names. Some ship with
the package and are loaded by their name. An export to sentence-transformers is one as well: the
model lies at its root, recipe and original tokenizer in `echovec/`.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from echovec.errors import InputError, ModelError, RecipeError, StorageError
from echovec.recipe import RECIPE_FILE, ModelIdentity, Recipe
from echovec.version import __version__

MODEL_FOLDER = "model"
ADAPTER_FOLDER = "adapter"
EXPORT_FOLDER = "echovec"
RUN_FILE = "run.toml"
"""In a training run's folder from its first second; its recipe is written last."""

_SHIPPED = Path(__file__).parent / "adapters"


def shipped_names() -> tuple[str, ...]:
    """Names of the trained embedders that ship with the package."""
    return tuple(sorted(file.parent.name for file in _SHIPPED.glob(f"*/{RECIPE_FILE}")))


def saved_folder(model: str | Path | None) -> Path | None:
    """The folder of a saved or shipped embedder; None if `model` names something else.

    The name of one that ships is that; a `Path` is always a folder.

    Raises:
        ModelError: it is a training run that has not ended.
    """
    if model is None:
        return None
    if isinstance(model, str) and model in shipped_names():
        return _SHIPPED / model
    folder = Path(model)
    for own in (folder, folder / EXPORT_FOLDER):
        if (own / RECIPE_FILE).is_file():
            return own
    if (folder / RUN_FILE).is_file() and not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} is a training run that has not ended; go on with the `echovec train` that "
            "began it, with the same -o"
        )
    return None


def saved_tokenizer(folder: Path) -> Path | None:
    """Where the tokenizer of a saved folder lies, if not beside its model."""
    if (folder / "config.json").is_file():  # a recipe was saved into the model's own folder
        return None
    return folder if (folder / "tokenizer_config.json").is_file() else None


def saved_adapter(folder: Path) -> Path | None:
    """The adapter of a saved folder, if it has one."""
    adapter = folder / ADAPTER_FOLDER
    return adapter if adapter.is_dir() else None


def saved_model(folder: Path, recipe: Recipe) -> str | Path | None:
    """What to load the model of a saved folder from.

    Raises:
        RecipeError: it was saved without its weights and names no place to load them from.
    """
    if (folder / MODEL_FOLDER).is_dir():
        return folder / MODEL_FOLDER
    if saved_tokenizer(folder) is not None:
        return folder.parent
    if (
        recipe.model is not None
        and recipe.model.path is None
        and (folder / ADAPTER_FOLDER).is_dir()
    ):
        return None  # a shipped adapter is for the default model
    if recipe.model is None or recipe.model.path is None:
        raise RecipeError(
            f"{folder} names no model to load; give one: "
            f"Embedder.load(model, recipe={str(folder)!r})"
        )
    return recipe.model.path


def write_saved(
    folder: Path,
    recipe: Recipe,
    parts: Sequence[Any] = (),
    *,
    adapter: Path | None = None,
) -> Path:
    """Write a saved folder; the recipe comes last, by rename, so a folder with one is whole.

    Args:
        folder: made if it is not there.
        recipe: what to write.
        parts: the model and its tokenizer, to be written too; none to name the model only.
        adapter: a folder to copy as the saved one's adapter.

    Returns:
        The folder.

    Raises:
        StorageError: the disk does not take it.
        InputError: a model or an adapter of another embedder lies there, and would be loaded; or
            PEFT's adapters are inside the model, and what is written could not be.
    """
    if any(type(x).__module__.startswith("peft.") for part in parts[:1] for x in part.modules()):
        raise InputError(
            "an adapter of PEFT is in the model, which could not be loaded from a saved folder; "
            "merge it (`model = model.merge_and_unload()`) and make an embedder of that"
        )
    path = None if recipe.model is None else recipe.model.path
    own = path is not None and Path(path).resolve() == (folder / MODEL_FOLDER).resolve()
    for name, wanted in ((MODEL_FOLDER, parts or own), (ADAPTER_FOLDER, adapter)):
        if not wanted and (folder / name).is_dir():
            raise InputError(
                f"{folder} has {name}/ of an embedder that was saved there before, which would be "
                "loaded with this one; choose another folder, or remove that"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if parts:
            _write_model(folder / MODEL_FOLDER, parts)
        if adapter is not None and adapter.resolve() != (folder / ADAPTER_FOLDER).resolve():
            shutil.copytree(adapter, folder / ADAPTER_FOLDER, dirs_exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"cannot save to {folder}: {error.strerror or error}; free space or choose another "
            "folder"
        ) from error
    recipe.save(folder)
    return folder


def _write_model(folder: Path, parts: Sequence[Any]) -> None:
    """A model and its tokenizer, without the bar that transformers draws."""
    from echovec.model.load import quiet_transformers  # torch is here: so is the model

    with quiet_transformers():
        for part in parts:
            part.save_pretrained(folder)


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
