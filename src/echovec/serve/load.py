"""Load: what a server is started with: embedders by name, keys from a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from echovec.embedder import Embedder
from echovec.errors import InputError, StorageError
from echovec.model.precision import PRECISIONS, Precision
from echovec.recipe import ROLES, Role
from echovec.serve.playground.searchable import Shown

COMPANIONS = ("echo", "classical", "best", "fast")
"""Served where no recipe is named: they share the model, so they cost no memory."""


def embedders(
    model: str | None = None,
    recipes: Sequence[str] | None = None,
    also: Sequence[str] = (),
    *,
    device: str | None = None,
    precision: str | None = None,
    max_tokens: int | None = None,
) -> dict[str, Embedder]:
    """Load one model with several recipes, and further models; name -> embedder.

    Args:
        model: what `Embedder.load` takes.
        recipes: names or files; by default the model's own, and those of `COMPANIONS` that fit.
        also: "NAME=MODEL", "NAME=MODEL@RECIPE", or "NAME=@RECIPE": the first model again, by
            another name and with a recipe, at no cost in memory.
        device: as `Embedder.load`.
        precision: as `Embedder.load`.
        max_tokens: as `Embedder.load`.

    Raises:
        InputError: an entry of `also` is no such thing, or a name comes twice.
        ModelError, RecipeError: as `Embedder.load`.
    """
    chosen: Precision | None = _precision(precision)
    given = list(recipes or ())
    first = Embedder.load(
        model,
        given[0] if given else None,
        device=device,
        precision=chosen,
        max_tokens=max_tokens,
    )
    found = {_name(given[0]) if given else first.definition.name: first}
    for recipe in given[1:]:
        _add(found, _name(recipe), first.with_recipe(recipe, max_tokens=max_tokens))
    for recipe in () if given else COMPANIONS:
        if recipe not in found:
            try:
                found[recipe] = first.with_recipe(recipe, max_tokens=max_tokens)
            except InputError:  # fitted to another model, and nobody asked for it
                continue
    for entry in also:
        name, equals, what = entry.partition("=")
        path, _, recipe = what.partition("@")
        if not equals or not name or not (path or recipe):
            raise InputError(f"{entry!r} is no NAME=MODEL, NAME=MODEL@RECIPE or NAME=@RECIPE")
        if not path:
            _add(found, name, first.with_recipe(recipe, max_tokens=max_tokens))
            continue
        _add(
            found,
            name,
            Embedder.load(
                path, recipe or None, device=device, precision=chosen, max_tokens=max_tokens
            ),
        )
    return found


def opened(folder: Path) -> Shown:
    """The index in a folder, for the playground.

    Raises:
        InputError: it is no index.
        StorageError: it is damaged.
    """
    from echovec.search.index import Index

    index = Index.open(folder)
    made = index.facts.made
    role = "query" if made.role == "document" else _role(made.role)
    instruction = None if role == "query" else made.instruction
    return Shown(index, folder.name, role, instruction, made.truncate_dim)


def read_keys(path: Path) -> tuple[str, ...]:
    """The keys in a file, one a line; blank lines and lines that begin with "#" do not count.

    Raises:
        StorageError: it cannot be read.
        InputError: it holds none.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"cannot read the keys in {path}: {error}") from error
    words = map(str.strip, lines)
    keys = tuple(word for word in words if word and not word.startswith("#"))
    if not keys:
        raise InputError(f"{path} holds no key; write one a line, or leave the option out")
    return keys


def _add(found: dict[str, Embedder], name: str, embedder: Embedder) -> None:
    if name in found:
        raise InputError(f"the name {name!r} is there twice; name each model once")
    found[name] = embedder


def _name(recipe: str) -> str:
    """A preset's name, or that of a recipe's file or folder."""
    path = Path(recipe)
    if path.name == "recipe.json":
        path = path.parent
    return path.stem if path.suffix == ".json" else path.name


def _role(given: str | None) -> Role | None:
    return next((role for role in ROLES if role == given), None)


def _precision(given: str | None) -> Precision | None:
    if given not in (None, *PRECISIONS):
        raise InputError(f"precision={given!r}; there are {', '.join(PRECISIONS)}")
    return given  # type: ignore[return-value]  # just checked
