"""Pickled: an embedder as another process gets it: how it was loaded, never its weights.

A pickle says what `Embedder.load` was asked for, the recipe with its arrays, and the hashes of
weights and tokenizer. What arrives loads the model when it is first used, checks the hashes, and
has the same fingerprint; so a process that only passes it on loads nothing, and an error is raised
where a caller sees it (a worker that fails while it reads its task takes the pool with it).

Pools pickle what they call with every task. So a process keeps the model that arrived last, and
embedders of one model share it, whatever their recipes.

Equal embedders have equal pickles in all processes, byte for byte: caches know them by that.
"""

from __future__ import annotations

import copy
import json
import threading
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Self

from echovec.errors import InputError, ModelError, RecipeError
from echovec.loading import Opened, open_model
from echovec.model.backbone import has_changed
from echovec.model.packed import PackedBackbone
from echovec.recipe import ModelIdentity, Recipe

if TYPE_CHECKING:
    from echovec.loading import Source
    from echovec.model.backbone import Backbone

_Told = tuple[str, bytes]
"""JSON text, and the arrays of the recipe's transforms as safetensors."""

_LOADING = threading.RLock()
_kept: dict[str, Opened] = {}
"""The model that arrived last, by what it was asked for."""


class Picklable:
    """What makes an embedder travel; the embedder itself has the attributes."""

    if TYPE_CHECKING:
        backbone: Backbone
        _definition: Recipe
        _source: Source

        @property
        def identity(self) -> ModelIdentity:
            """Which model this is."""

        @property
        def recipe(self) -> Recipe:
            """The recipe bound to it."""

    def __getstate__(self) -> _Told:
        if "backbone" not in self.__dict__:  # it arrived here, and has not been used
            told: _Told = self.__dict__["_told"]
            return told
        asked, model = self._source.asked, self.identity
        if asked is None:
            raise InputError(
                f"{self!r} cannot be pickled: its model is in this process only; save it with "
                "embedder.save(folder) and pickle Embedder.load(folder), or make it in each process"
            )
        if has_changed(self.backbone):
            raise InputError(
                f"{self!r} cannot be pickled: its weights have changed since they were loaded, and "
                "another process would load them as they were; save it with "
                "embedder.save(folder, include_model=True) and pickle Embedder.load(folder)"
            )
        content = {
            "asked": {**asdict(asked), "revision": self._source.revision},
            "name": model.name,
            "weights": model.hash,
            "tokenizer": model.tokenizer_hash,
            "dtype": self.backbone.dtype,
            "fingerprint": self.recipe.fingerprint,
            "recipe": self._definition.to_json(),
        }
        return json.dumps(content, sort_keys=True), _packed(self._definition)

    def __setstate__(self, told: _Told) -> None:
        self.__dict__["_told"] = told

    if not TYPE_CHECKING:  # it would make any name an attribute

        def __getattr__(self, name: str) -> Any:
            # Asked for what is not there: of one that arrived, nothing is until it is loaded.
            if "_told" not in self.__dict__ or name.startswith("__"):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            with _LOADING:
                if "backbone" not in self.__dict__:
                    self.__dict__.update(_arrived(type(self), self.__dict__["_told"]).__dict__)
            return object.__getattribute__(self, name)

    def __copy__(self) -> Self:
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        backbone = self.backbone
        if isinstance(backbone, PackedBackbone) and backbone.prepacked:
            return copy.copy(self)  # nobody can change these weights
        raise InputError(
            f"{self!r} has weights that may change, so a deep copy would need its own: load it "
            "again, or copy the model and give that to Embedder.from_model; "
            "copy.copy(embedder) and embedder.with_recipe(...) share them"
        )


def _arrived(kind: type, told: _Told) -> Any:
    """The embedder that was pickled.

    Raises:
        ModelError: the model is not here, or not what it was.
    """
    content = json.loads(told[0])
    recipe = Recipe.from_json(content["recipe"], _unpacked(told[1]), where="the pickled recipe")
    opened = _opened(content, recipe)
    source = replace(opened.source, name=content["name"])
    embedder = kind(recipe, opened.tokenizer, opened.backbone, source=source)
    if embedder.recipe.fingerprint != content["fingerprint"]:
        raise RecipeError(
            f"{embedder!r} was pickled with the fingerprint {content['fingerprint']} and has "
            f"{embedder.recipe.fingerprint} here: use one version of echovec on both sides"
        )
    return embedder


def _opened(content: dict[str, Any], recipe: Recipe) -> Opened:
    """The model that was asked for, the kept one if it is that."""
    asked = content["asked"]
    key = json.dumps([asked, *(content[part] for part in ("weights", "tokenizer", "dtype"))])
    kept = _kept.get(key)
    if kept is not None and not has_changed(kept.backbone):
        return kept
    _kept.clear()  # before another is read: there may be no room for both
    opened = open_model(recipe=recipe, dtype=content["dtype"], precision=None, hashed=True, **asked)
    found = {
        "weights": opened.backbone.weights_hash(),
        "tokenizer": opened.tokenizer.fingerprint,
        "dtype": opened.backbone.dtype,
    }
    for what, have in found.items():
        if have != content[what]:
            raise ModelError(
                f"the model {content['name']} ({asked['model'] or 'default'}) is not what it was "
                f"when its embedder was pickled: {what} {content[what][:19]} there, {have[:19]} "
                "here; its files have changed since or differ between the machines, or it was "
                "trained in memory before: save that with "
                "embedder.save(folder, include_model=True) and pickle Embedder.load(folder)"
            )
    _kept[key] = opened
    return opened


def _packed(recipe: Recipe) -> bytes:
    from safetensors.numpy import save

    arrays = recipe.arrays
    return save(arrays) if arrays else b""


def _unpacked(arrays: bytes) -> dict[str, Any]:
    from safetensors.numpy import load

    return load(arrays) if arrays else {}
