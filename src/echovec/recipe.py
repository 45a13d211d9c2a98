"""Recipe: everything that identifies an embedder, as one small JSON with a fingerprint.

A preset is a recipe without a model ("echo", "classical", ...). Bound to a model it also names
that model, its hash, its tokenizer's hash, the BOS and EOS ids in use and the dtype: vectors of
equal fingerprints may be compared, others may not. Names, paths and library versions are written
down beside but do not enter the fingerprint: the same weights under another name give the same
vectors, and library versions move them by rounding only (1e-6).
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from echovec.errors import InputError, RecipeError
from echovec.text import presets
from echovec.text.template import Template
from echovec.vector.transform import TRANSFORMS, Transform
from echovec.vector.view import View

Role = Literal["symmetric", "query", "document"]
ROLES: tuple[Role, ...] = ("symmetric", "query", "document")
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """Which model and tokenizer: what decides the vectors, and a name for people."""

    name: str
    """The hub's name, or the folder's."""

    hash: str
    """"sha256:..." over the configuration and every weight of the backbone."""

    tokenizer_hash: str
    """"sha256:..." over the tokenizer's vocabulary and rules."""

    bos_id: int | None
    """The id that stands for BOS, or None."""

    eos_id: int | None
    """The id that stands for EOS, or None."""

    path: str | None = None
    """Where to load it from: a hub name or a folder; None for a model that lived in memory."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One embedder's definition; see the module for what the fingerprint covers.

    Raises:
        RecipeError: a role is missing or unknown.
    """

    name: str
    """What people call it."""

    views: Mapping[Role, View]
    """How each role is embedded: "symmetric" (both sides alike), "query", "document"."""

    max_tokens: int = 512
    """Budget for each copy of a text, in tokens; longer texts are cut, all copies alike."""

    transforms: tuple[Transform, ...] = ()
    """What happens after pooling, in order."""

    model: ModelIdentity | None = None
    """The model it is bound to; None for a preset."""

    dtype: str | None = None
    """What the model computes in, e.g. "float32"; None for a preset."""

    versions: Mapping[str, str] = field(default_factory=dict)
    """Software that made it; for the record only."""

    def __post_init__(self) -> None:
        if set(self.views) != set(ROLES):
            raise RecipeError(
                f"recipe {self.name!r} has views for {sorted(self.views)}; "
                f"it needs {', '.join(ROLES)}"
            )
        if self.max_tokens < 1:
            raise InputError(f"max_tokens={self.max_tokens} leaves no text; give at least 1")

    @property
    def precision(self) -> str:
        """How it computes: "exact" (float32 or wider) or "fast" (a narrower dtype)."""
        return "exact" if self.dtype in (None, "float32", "float64") else "fast"

    @property
    def fingerprint(self) -> str:
        """16 hex digits that differ whenever the vectors would."""
        model = self.model
        content = {
            "format": FORMAT,
            "model": model and [model.hash, model.tokenizer_hash, model.bos_id, model.eos_id],
            "views": {role: _view_to_json(self.views[role]) for role in ROLES},
            "max_tokens": self.max_tokens,
            "transforms": [_transform_to_json(t) for t in self.transforms],
            "dtype": self.dtype,
        }
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def describe(self) -> str:
        """One line for people: prompts and pooling."""
        symmetric, document = self.views["symmetric"], self.views["document"]
        shown = [_shown(symmetric)] + ([_shown(document)] if document != symmetric else [])
        return " / ".join(shown)

    def to_json(self) -> str:
        """The recipe as JSON text, fingerprint included."""
        content = {
            "format": FORMAT,
            "name": self.name,
            "fingerprint": self.fingerprint,
            "model": self.model and dataclasses.asdict(self.model),
            "dtype": self.dtype,
            "precision": self.precision,
            "max_tokens": self.max_tokens,
            "views": _views_to_json(self.views),
            "transforms": [_transform_to_json(t) for t in self.transforms],
            "versions": dict(self.versions),
        }
        return json.dumps(content, indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, *, where: str = "recipe") -> Recipe:
        """Read `to_json`'s text back.

        Args:
            text: the JSON.
            where: its file, for messages.

        Raises:
            RecipeError: not JSON, of a newer format, or unknown, missing or edited fields.
        """
        try:
            content = json.loads(text)
            if content["format"] != FORMAT:
                raise RecipeError(
                    f"{where}: recipe format {content['format']!r}, this version reads {FORMAT}; "
                    "update echovec"
                )
            recipe = cls(
                name=content["name"],
                views=_views_from_json(content["views"]),
                max_tokens=content["max_tokens"],
                transforms=tuple(_transform_from_json(t) for t in content["transforms"]),
                model=content["model"] and ModelIdentity(**content["model"]),
                dtype=content["dtype"],
                versions=content["versions"],
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise RecipeError(f"{where}: not a recipe ({type(error).__name__}: {error})") from None
        if content.get("fingerprint") != recipe.fingerprint:
            raise RecipeError(
                f"{where}: the file says fingerprint {content.get('fingerprint')!r} but its "
                f"content has {recipe.fingerprint!r}; it was edited: make a recipe in Python and "
                "save it instead"
            )
        return recipe


def preset_names() -> tuple[str, ...]:
    """Names of the recipes that ship."""
    return tuple(PRESETS)


def preset(name: str) -> Recipe:
    """The recipe of this name, without a model.

    Raises:
        RecipeError: unknown; the message offers the nearest names.
    """
    if name in PRESETS:
        return PRESETS[name]
    near = difflib.get_close_matches(name, PRESETS, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "it is none of those that ship"
    raise RecipeError(f"unknown recipe {name!r}; {hint} (`echovec recipes` lists them)")


def as_recipe(recipe: Recipe | Template | str | Path) -> Recipe:
    """A recipe from whatever the caller has: itself, a template, a preset's name, a file or folder.

    A bare template gets the pooling that fits it: the mean over the pooled copy, or the last token
    where the template pools its end or EOS.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, Template):
        return one_view("custom", recipe)
    path = Path(recipe)
    if str(recipe) not in PRESETS and (path.suffix == ".json" or path.is_dir()):
        file = path / "recipe.json" if path.is_dir() else path
        try:
            return Recipe.from_json(file.read_text("utf-8"), where=str(file))
        except OSError as error:
            raise RecipeError(f"cannot read the recipe {file}: {error.strerror or error}") from None
    return preset(str(recipe))


def one_view(name: str, template: Template) -> Recipe:
    """A recipe that embeds every role alike, with the pooling that fits the template."""
    return Recipe(name=name, views=dict.fromkeys(ROLES, _fitting_view(template)))


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
            views = {role: _fitting_view(templates[f"{base}-{role}"]) for role in ROLES}
            recipes[base] = Recipe(name=base, views=views)
    return recipes


PRESETS: Mapping[str, Recipe] = _recipes_of(presets.TEMPLATES) | _recipes_of(presets.SAMPLED)


def with_limits(recipe: Recipe, max_tokens: int | None) -> Recipe:
    """The recipe with another token budget, if one is given."""
    return recipe if max_tokens is None else replace(recipe, max_tokens=max_tokens)


def _shown(view: View) -> str:
    prompt = view.template.prompt.replace("\n", "\\n")
    layer = "" if view.layer == -1 else f", layer {view.layer}"
    return f"{prompt} [{view.pooling}{layer}]"


def _views_to_json(views: Mapping[Role, View]) -> dict[str, Any]:
    """The symmetric view, and the others where they differ from it."""
    return {
        role: _view_to_json(views[role])
        for role in ROLES
        if role == "symmetric" or views[role] != views["symmetric"]
    }


def _views_from_json(content: dict[str, Any]) -> dict[Role, View]:
    if unknown := sorted(set(content) - set(ROLES)):
        raise RecipeError(f"unknown roles {unknown}; there are {', '.join(ROLES)}")
    symmetric = content["symmetric"]
    return {role: _view_from_json(content.get(role, symmetric)) for role in ROLES}


def _view_to_json(view: View) -> dict[str, Any]:
    return {
        "template": dataclasses.asdict(view.template),
        "pooling": view.pooling,
        "layer": view.layer,
    }


def _view_from_json(content: dict[str, Any]) -> View:
    return View(Template(**content["template"]), content["pooling"], content["layer"])


def _transform_to_json(transform: Transform) -> dict[str, Any]:
    kind = next(name for name, row in TRANSFORMS.items() if isinstance(transform, row))
    return {"kind": kind, **dataclasses.asdict(transform)}  # type: ignore[call-overload]


def _transform_from_json(content: dict[str, Any]) -> Transform:
    fields = dict(content)
    kind = fields.pop("kind")
    if kind not in TRANSFORMS:
        raise RecipeError(f"unknown transform {kind!r}; there are {', '.join(TRANSFORMS)}")
    return TRANSFORMS[kind](**fields)
