"""Handle: an embedder as a plugin holds it: named, loaded at the first call, called in turn.

Frameworks make their parts early, copy them, write them to files and call them from many threads.
So a handle knows what to load and loads it when a vector is first asked for; handles of the same
names share one model in memory; and a model computes one call at a time, for two at once would only
take each other's cores. Async calls wait in a queue of their own, not in the event loop's threads.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from echovec.errors import InputError
from echovec.recipe import Role

if TYPE_CHECKING:
    from echovec.embedder import Embedder

FIELDS = ("model", "recipe", "device", "precision", "max_tokens")
"""What `Embedder.load` is given, and what a serialised plugin keeps of its embedder."""


_IN_MEMORY = "in memory, fingerprint"
_SAVE = "save it with embedder.save(folder) and give model=folder"


class _Turns:
    """Who computes with a model now, and who waits for it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.queue = ThreadPoolExecutor(1, thread_name_prefix="echovec")


_LOADING = threading.Lock()
_COUNTING = threading.Lock()
_LOADED: WeakValueDictionary[tuple[Any, ...], Embedder] = WeakValueDictionary()
_TURNS: WeakKeyDictionary[Any, _Turns] = WeakKeyDictionary()


class Handle:
    """An embedder by name, or one that is there already.

    Args:
        model: an `Embedder`; or what `Embedder.load` takes: None for the default model, a hub
            name, a folder, a .gguf file. Nothing is loaded yet.
        recipe: a preset's name or a recipe file; by default the embedder's, or what
            `Embedder.load` takes.
        device: a torch device.
        precision: "exact", "fast" or "int8".
        max_tokens: the token budget per copy.

    Raises:
        InputError: options are given for an embedder that is loaded already.
    """

    def __init__(
        self,
        model: Embedder | str | Path | None = None,
        recipe: str | Path | None = None,
        *,
        device: str | None = None,
        precision: str | None = None,
        max_tokens: int | None = None,
    ) -> None:
        named = model is None or isinstance(model, str | Path)
        if isinstance(model, str) and model.startswith(_IN_MEMORY):
            raise InputError(f"{model!r} was an embedder in memory and is gone; {_SAVE}")
        values = (model if named else None, recipe, device, precision, max_tokens)
        self._names = dict(zip(FIELDS, map(_plain, values), strict=True))
        self._embedder: Embedder | None = None
        if not isinstance(model, str | Path) and model is not None:
            if any(value is not None for value in values):
                raise InputError(
                    "recipe, device, precision and max_tokens are for a model that is still to be "
                    "loaded; for an Embedder use model.with_recipe(...) and give only that"
                )
            self._embedder = model
        self._loads = named

    @property
    def embedder(self) -> Embedder:
        """The embedder; loaded when first asked for.

        Raises:
            ModelError: the model cannot be found, fetched or read.
            RecipeError: the recipe is unknown, or belongs to another model.
        """
        if self._embedder is None:
            from echovec.embedder import Embedder

            key = tuple(self._names.values())
            with _LOADING:
                found = _LOADED.get(key)
                if found is None:
                    found = _LOADED[key] = Embedder.load(**self._names)
                self._embedder = found
        return self._embedder

    def vectors(
        self, texts: Sequence[str], role: Role | None = None, instruction: str | None = None
    ) -> NDArray[np.float32]:
        """Unit vectors of texts, in order: float32 [n, d]; waits for its turn.

        Raises:
            InputError: a text cannot be embedded; `index` is its place. Or it is no list of texts.
        """
        if isinstance(texts, str):
            raise InputError(f"texts is a single text ({texts[:40]!r}); give a list of texts")
        embedder = self.embedder
        with _turns(embedder).lock:
            return embedder.encode(
                list(texts), role=role, instruction=instruction, show_progress_bar=False
            )

    async def vectors_async(
        self, texts: Sequence[str], role: Role | None = None, instruction: str | None = None
    ) -> NDArray[np.float32]:
        """`vectors` in a thread, so that the event loop goes on."""
        loop = asyncio.get_running_loop()
        embedder = await loop.run_in_executor(None, lambda: self.embedder)
        call = partial(self.vectors, texts, role, instruction)
        return await loop.run_in_executor(_turns(embedder).queue, call)

    @property
    def name(self) -> str:
        """The model's name or folder; "in memory" and the fingerprint of an embedder given."""
        if self._loads:
            return str(self._names["model"] or "default")
        return f"{_IN_MEMORY} {self.embedder.recipe.fingerprint}"

    def names(self) -> dict[str, Any]:
        """What to load, as strings and numbers for a file: model, recipe, device, and so on.

        Raises:
            InputError: the embedder lives in memory only, so there is no name to write.
        """
        if not self._loads:
            raise InputError(f"{self._embedder!r} is in memory and has no name to write; {_SAVE}")
        return dict(self._names)

    def __getstate__(self) -> dict[str, Any]:
        # An embedder that was given says itself how to load it, or that nobody else can.
        return {**self.__dict__, "_embedder": None if self._loads else self._embedder}

    def __deepcopy__(self, memo: dict[int, Any]) -> Handle:
        return self  # it changes only by loading, and its copies would share the model anyway


def floats(vectors: NDArray[np.float32]) -> Any:
    """Vectors as lists of Python floats, which most frameworks want."""
    return vectors.tolist()


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _turns(embedder: Embedder) -> _Turns:
    with _COUNTING:
        turns = _TURNS.get(embedder.backbone)
        if turns is None:
            turns = _TURNS[embedder.backbone] = _Turns()
        return turns
