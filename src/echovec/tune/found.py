"""Found: recipes that were chosen, bound to their model and held against what was scored."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from echovec.calibrate.fitting import RECORD
from echovec.errors import ModelError
from echovec.model.store import is_default
from echovec.tune.card import Entry
from echovec.tune.dev import DevData
from echovec.tune.parts import Vectors

if TYPE_CHECKING:
    from echovec.embedder import Embedder
    from echovec.recipe import Recipe

_CHECKED = 24
"""So many texts, the shortest, are embedded by a saved recipe."""


def options_of(embedder: Embedder) -> str:
    """What tells `echovec eval` the model; nothing of the default one, or of one in memory only."""
    recipe, adapter = embedder.recipe, embedder.adapter_path
    path = recipe.model and recipe.model.path
    if adapter is not None:
        path = str(adapter.parent)
    words = [f"--model {shlex.quote(path)}"] if path and not is_default(path) else []
    if recipe.model and recipe.model.revision:
        words.append(f"--revision {recipe.model.revision}")
    if recipe.precision != "exact":
        words.append(f"--precision {recipe.precision}")
    return "".join(f" {word}" for word in words)


def bound(embedder: Embedder, recipe: Recipe, record: str) -> Recipe:
    """The recipe with the model's hashes, and what is to be said of how it was found."""
    own = embedder.with_recipe(recipe).recipe
    return replace(own, versions={**own.versions, RECORD: record})


def checked(
    embedder: Embedder,
    folders: Mapping[str, Path],
    entries: Sequence[Entry],
    vectors: Vectors,
    dev: DevData,
) -> float:
    """The largest difference between saved recipes' vectors and those that were scored.

    Raises:
        ModelError: they are not the same vectors.
    """
    short = sorted(range(len(dev.texts)), key=lambda i: len(dev.texts[i]))[:_CHECKED]
    texts = [dev.texts[i] for i in short]
    worst = 0.0
    for one in entries:
        own = embedder.with_recipe(folders[one.name]).encode(texts, show_progress_bar=False)
        worst = max(worst, float(np.abs(own - vectors.of(one.mix)[short]).max()))
    limit = 0.01 if embedder.recipe.precision == "exact" else 0.1
    if worst > limit:
        raise ModelError(
            f"the saved recipes give other vectors than those that were scored ({worst:.3f}); "
            "remove the work folder and tune again"
        )
    return worst
