"""Recipes of the experiments: presets with one thing changed, under a name that says what."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from echovec.presets import preset
from echovec.recipe import Recipe, Role
from echovec.vector.view import View

if TYPE_CHECKING:
    from echovec.embedder import Embedder


def with_views(name: str, base: str, change: Callable[[View], View]) -> Recipe:
    """The preset `base` under another name, with every view changed."""
    recipe = preset(base)
    views: dict[Role, tuple[View, ...]] = {
        role: tuple(map(change, of_role)) for role, of_role in recipe.views.items()
    }
    return replace(recipe, name=name, views=views)


def pooled_as(base: str, *, pooling: str, copy: int = -1) -> Recipe:
    """A preset with another pooling, and another copy of the text pooled (0 is the first)."""

    def change(view: View) -> View:
        template = view.template
        if template.pooled != "end":
            template = template.pooling_copy(copy)
        return replace(view, pooling=pooling, template=template)

    which = "" if copy == -1 else f"-copy-{copy + 1}"
    return with_views(f"{base}{which}-{pooling}", base, change)


def common_settings(
    embedder: Embedder, recipes: Iterable[Recipe | str], *, data: str, size: str
) -> dict[str, str]:
    """What every page says about how it was run."""
    bound = embedder.recipe
    chosen = [preset(one) if isinstance(one, str) else one for one in recipes]
    return {
        "model": bound.model.name if bound.model else "in memory",
        "weights": bound.model.hash[:19] if bound.model else "unknown",
        "dtype": bound.dtype or "unknown",
        **{f"recipe {recipe.name}": recipe.describe() for recipe in chosen},
        "data": data,
        "size": size,
        "versions": ", ".join(f"{name} {number}" for name, number in bound.versions.items()),
    }
