"""Presets: the recipes that ship, by name, and a recipe from whatever names one."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from echovec.errors import RecipeError
from echovec.recipe import ROLES, Recipe
from echovec.text import presets
from echovec.text.drafts import LongText
from echovec.text.template import Template
from echovec.vector.transform import Normalize
from echovec.vector.view import View


def preset_names() -> tuple[str, ...]:
    """Names of the recipes that ship."""
    return tuple(PRESETS)


def fitted_names() -> tuple[str, ...]:
    """Names of the recipes that ship fitted to the default model; others refuse them."""
    return FITTED


def preset(name: str) -> Recipe:
    """The recipe of this name: without a model, or fitted to the default one.

    Raises:
        RecipeError: unknown; the message offers the nearest names.
    """
    if name in PRESETS:
        return PRESETS[name]
    if name in FITTED:
        return _fitted(name)
    near = difflib.get_close_matches(name, (*FITTED, *PRESETS), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "it is none of those that ship"
    if "{text}" in name:
        hint = "a prompt is a template: Template('...')"
    raise RecipeError(f"unknown recipe {name!r}; {hint} (`echovec recipes` lists them)")


def as_recipe(recipe: Recipe | Template | str | Path) -> Recipe:
    """A recipe from whatever the caller has: itself, a template, a preset's name, a file or folder.

    A text that is the name of a recipe that ships is that; a `Path` is always a file or folder.
    A bare template gets the pooling that fits it: the mean over the pooled copy, or the last token
    where the template pools its end or EOS.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, Template):
        return one_view("custom", recipe)
    path = Path(recipe)
    if isinstance(recipe, Path):
        return Recipe.load(path)
    if recipe not in (*PRESETS, *FITTED) and (path.suffix == ".json" or _is_folder(path)):
        return Recipe.load(path)
    return preset(recipe)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a whole prompt, say, is too long to be a name
        return False


def one_view(name: str, template: Template) -> Recipe:
    """A recipe that embeds every role alike, with the pooling that fits the template."""
    return Recipe(name=name, views=dict.fromkeys(ROLES, (_fitting_view(template),)))


def _fitting_view(template: Template) -> View:
    # The paper pools the mean when nothing is trained and the last token where a model was
    # trained to put the text there (EOS, section 4), as a one-word prompt does.
    last = template.pooled == "end" or template.eos == "pooled"
    return View(template, "lasttoken" if last else "mean")


def _recipes_of(templates: Mapping[str, Template]) -> dict[str, Recipe]:
    """A recipe per template; those named NAME-symmetric, -query and -document make one NAME."""
    recipes = {}
    for name, template in templates.items():
        base, _, role = name.rpartition("-")
        if role not in ROLES:
            recipes[name] = one_view(name, template)
        elif base not in recipes:
            views = {role: (_fitting_view(templates[f"{base}-{role}"]),) for role in ROLES}
            recipes[base] = Recipe(name=base, views=views)
    return recipes


def recipe_of(name: str, *views: View, **options: Any) -> Recipe:
    """A recipe that embeds every role alike by these views; options are fields of Recipe."""
    return Recipe(name=name, views=dict.fromkeys(ROLES, views), **options)


LONG_TEXT: Mapping[str, Any] = {"max_tokens": 1024, "long_text": "windows"}
"""What recipes that are found here do with long texts, as options of `recipe_of`: whole up to so
many tokens, then as windows of as many, so that nothing is cut (docs/recipes.md has the
measurements). The paper's own recipes cut."""


def _composed() -> dict[str, Recipe]:
    """Recipes of several views, or with parts beyond a template and a pooling."""
    echo, eol = presets.TEMPLATES["echo"], presets.PROMPT_EOL
    unit = (Normalize(),)
    last = replace(presets.ECHO_EOL, pooled="end")
    with_summary = replace(echo, prompt=echo.prompt + presets.SUMMARY)
    recipes = (
        recipe_of(
            "echo-eol",
            View(presets.ECHO_EOL, transforms=unit),
            View(last, "lasttoken", transforms=unit),
        ),
        recipe_of("meta-eol", *(View(t, "lasttoken") for t in presets.META_EOL)),
        recipe_of("echo-halved", View(echo), text_share=0.5),
        recipe_of("sif", View(presets.WORDS, "sif", layer=0)),
        recipe_of("echo-windows", View(echo), long_text="windows"),
        recipe_of("echo-attended", View(echo, "attended")),
        recipe_of("echo-selected", View(with_summary, "selected")),
        recipe_of(
            "classical-both-ways", View(presets.TEMPLATES["classical"], mask="bidirectional")
        ),
        recipe_of("aligned-wva", View(eol, "lasttoken", layer="all", states="attention")),
        recipe_of(
            "prompt-eol-prepended", View(presets.PROMPT_EOL_PREPENDED, "lasttoken", prepend=(2, 8))
        ),
    )
    return {recipe.name: recipe for recipe in recipes}


PRESETS: Mapping[str, Recipe] = (
    _recipes_of(presets.TEMPLATES) | _composed() | _recipes_of(presets.SAMPLED)
)


PUBLISHED: Mapping[str, str] = {"jspringer/echo-mistral-7b-instruct-lasttoken": "echo-instruct"}
"""The authors' checkpoints, and the recipe that each was trained with."""


def default_recipe(model: str | Path | None) -> str:
    """The recipe for a model where the caller names none.

    "best" for the default model (None), which it is fitted to; for a published checkpoint what it
    was trained with; else "echo", the paper's.
    """
    return "best" if model is None else PUBLISHED.get(str(model), "echo")


FITTED = ("best", "one-pass", "fast", "similarity", "static")
"""Recipes chosen on development data and calibrated for the default model (docs/recipes.md)."""


@cache
def _fitted(name: str) -> Recipe:
    return Recipe.load(Path(__file__).parent / "recipes" / name)


def with_limits(recipe: Recipe, max_tokens: int | None, long_text: LongText | None) -> Recipe:
    """The recipe with another token budget, or another way with what is beyond it."""
    changes: dict[str, Any] = {"max_tokens": max_tokens, "long_text": long_text}
    given = {name: value for name, value in changes.items() if value is not None}
    return replace(recipe, **given) if given else recipe
