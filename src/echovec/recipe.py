"""Recipe: everything that identifies an embedder, as one small JSON with a fingerprint.

A preset is a recipe without a model ("echo", "classical", ...). Bound to a model it also names
that model, its hash, its tokenizer's hash, the BOS and EOS ids in use and the dtype: vectors of
equal fingerprints may be compared, others may not. Names, paths and library versions are written
down beside but do not enter the fingerprint: the same weights under another name give the same
vectors, and library versions move them by rounding only (1e-6). Arrays of fitted transforms lie in
a safetensors file beside the JSON, which names each by its hash.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from echovec.errors import InputError, RecipeError, StorageError
from echovec.files.disk import write_file
from echovec.text.drafts import LongText
from echovec.vector.as_json import (
    Arrays,
    arrays_of,
    transforms_from_json,
    transforms_to_json,
    view_from_json,
    view_to_json,
)
from echovec.vector.transform import Array, Transform
from echovec.vector.view import Combine, View

Role = Literal["symmetric", "query", "document"]
ROLES: tuple[Role, ...] = ("symmetric", "query", "document")
FORMAT = 2
RECIPE_FILE = "recipe.json"


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

    revision: str | None = None
    """The hub's commit, where `path` is a hub name; None if it was not told."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One embedder's definition; see the module for what the fingerprint covers.

    Raises:
        RecipeError: a role is missing or unknown, or has no view.
        InputError: a number is out of its range.
    """

    name: str
    """What people call it."""

    views: Mapping[Role, tuple[View, ...]]
    """How each role is embedded: "symmetric" (both sides alike), "query", "document". One view may
    be given bare; it is kept as a tuple of one."""

    combine: Combine = "sum"
    """How a role's views become one vector, each multiplied by its weight: added up, or one after
    the other."""

    max_tokens: int = 512
    """Budget for each copy of a text, in tokens; see `long_text` for longer ones."""

    long_text: LongText = "cut"
    """What becomes of a text beyond the budget: "cut" (all copies alike), or "windows": it is
    embedded as overlapping windows, and its vector is their mean."""

    text_share: float = 1.0
    """How much of each text is kept, rounded up to a token; 0.5 gives an echo the length of the
    classical prompt (the paper's compute-matched comparison). It does not count as cut."""

    transforms: tuple[Transform, ...] = ()
    """What happens to the vector of all views, in order."""

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
        views = {role: _as_tuple(self.views[role]) for role in ROLES}
        object.__setattr__(self, "views", views)
        if empty := [role for role in ROLES if not views[role]]:
            raise RecipeError(f"recipe {self.name!r} has no view for {', '.join(empty)}")
        for name, kind in (("combine", Combine), ("long_text", LongText)):
            if getattr(self, name) not in get_args(kind):
                raise RecipeError(
                    f"{name}={getattr(self, name)!r}; there are {', '.join(get_args(kind))}"
                )
        if self.max_tokens < 1:
            raise InputError(f"max_tokens={self.max_tokens} leaves no text; give at least 1")
        if not 0 < self.text_share <= 1:
            raise InputError(f"text_share={self.text_share}; give a number above 0, at most 1")

    @property
    def precision(self) -> str:
        """How it computes: "exact" (float32 or wider), "int8", or "fast" (what is between)."""
        if self.dtype in (None, "float32", "float64"):
            return "exact"
        return "int8" if self.dtype == "int8" else "fast"

    @property
    def arrays(self) -> dict[str, Array]:
        """The arrays of all its transforms, by the name that the JSON calls them."""
        views = [view for role in ROLES for view in self.views[role]]
        return arrays_of([*(t for view in views for t in view.transforms), *self.transforms])

    @property
    def fingerprint(self) -> str:
        """16 hex digits that differ whenever the vectors would."""
        model = self.model
        content = {
            "format": FORMAT,
            "model": model and [model.hash, model.tokenizer_hash, model.bos_id, model.eos_id],
            "views": {role: [view_to_json(v) for v in self.views[role]] for role in ROLES},
            "dtype": self.dtype,
            **self._options(),
        }
        text = json.dumps(content, sort_keys=True, default=_plain)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def describe(self) -> str:
        """One line for people: prompts and pooling."""
        symmetric, document = self.views["symmetric"], self.views["document"]
        shown = [_shown(symmetric)] + ([_shown(document)] if document != symmetric else [])
        return " / ".join(shown)

    def to_json(self) -> str:
        """The recipe as JSON text, fingerprint included; arrays are named only (see `save`)."""
        content = {
            "format": FORMAT,
            "name": self.name,
            "fingerprint": self.fingerprint,
            "model": self.model and _identity_to_json(self.model),
            "dtype": self.dtype,
            "precision": self.precision,
            "views": _views_to_json(self.views),
            **self._options(),
            "versions": dict(self.versions),
        }
        return json.dumps(content, indent=2, ensure_ascii=False, default=_plain)

    @classmethod
    def from_json(cls, text: str, arrays: Arrays | None = None, *, where: str = "recipe") -> Recipe:
        """Read `to_json`'s text back.

        Args:
            text: the JSON.
            arrays: the arrays it names, where it has fitted transforms.
            where: its file, for messages.

        Raises:
            RecipeError: not JSON, of another format, or unknown, missing or edited content.
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
                views=_views_from_json(content["views"], arrays or {}),
                combine=content["combine"],
                max_tokens=content["max_tokens"],
                long_text=content["long_text"],
                text_share=content["text_share"],
                transforms=transforms_from_json(content["transforms"], arrays or {}),
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

    def save(self, folder: str | Path) -> Path:
        """Write `recipe.json`, and `recipe.safetensors` where transforms hold arrays.

        Each is whole or not there. The JSON comes last, so a new folder that has one is whole;
        where a fitted recipe replaces another, a stop between the two leaves what `load` refuses.

        Raises:
            StorageError: the disk does not take it.
        """
        folder = Path(folder)
        file = folder / RECIPE_FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"cannot save to {folder}: {error.strerror or error}; choose another folder"
            ) from error
        if arrays := self.arrays:
            from safetensors.numpy import save

            write_file(file.with_suffix(".safetensors"), save(arrays))
        write_file(file, (self.to_json() + "\n").encode())
        return folder

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a recipe from its JSON file, or from a folder's `recipe.json`.

        Raises:
            RecipeError: it cannot be read, or its arrays are missing or edited.
        """
        path = Path(path)
        file = path / RECIPE_FILE if path.is_dir() else path
        beside = file.with_suffix(".safetensors")
        try:
            text = file.read_text("utf-8")
            packed = beside.read_bytes() if beside.is_file() else None
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RecipeError(
                f"cannot read the recipe {file}: {reason}; check the path and the file, or name a "
                "recipe that ships (`echovec recipes` lists them)"
            ) from None
        arrays = _read_arrays(packed, beside) if packed is not None else {}
        return cls.from_json(text, arrays, where=str(file))

    def _options(self) -> dict[str, Any]:
        """What decides vectors beside model, dtype and views, as JSON values."""
        return {
            "combine": self.combine,
            "max_tokens": self.max_tokens,
            "long_text": self.long_text,
            "text_share": self.text_share,
            "transforms": transforms_to_json(self.transforms),
        }


def _identity_to_json(model: ModelIdentity) -> dict[str, Any]:
    """All fields; the revision only where there is one."""
    content = dataclasses.asdict(model)
    return content if model.revision else {k: v for k, v in content.items() if k != "revision"}


def _as_tuple(views: View | tuple[View, ...]) -> tuple[View, ...]:
    return (views,) if isinstance(views, View) else tuple(views)


def _shown(views: tuple[View, ...]) -> str:
    shown = []
    for view in views:
        prompt = view.template.prompt.replace("\n", "\\n")
        layer = "" if view.layer == -1 else f", layer {view.layer}"
        weight = "" if view.weight == 1 else f", weight {view.weight:g}"
        shown.append(f"{prompt} [{view.pooling}{layer}{weight}]")
    return " + ".join(shown)


def _views_to_json(views: Mapping[Role, tuple[View, ...]]) -> dict[str, Any]:
    """The symmetric views, and those of other roles where they differ from them."""
    return {
        role: [view_to_json(view) for view in views[role]]
        for role in ROLES
        if role == "symmetric" or views[role] != views["symmetric"]
    }


def _views_from_json(content: dict[str, Any], arrays: Arrays) -> dict[Role, tuple[View, ...]]:
    if unknown := sorted(set(content) - set(ROLES)):
        raise RecipeError(f"unknown roles {unknown}; there are {', '.join(ROLES)}")
    symmetric = content["symmetric"]
    return {
        role: tuple(view_from_json(view, arrays) for view in content.get(role, symmetric))
        for role in ROLES
    }


def _plain(value: object) -> Any:
    """A number of numpy's as JSON has it."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written into a recipe")


def _read_arrays(packed: bytes, file: Path) -> Arrays:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays: Arrays = load(packed)
    except SafetensorError as error:
        raise RecipeError(f"{file}: not a safetensors file ({error})") from None
    return arrays
