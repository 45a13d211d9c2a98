"""llm: embedding models for the `llm` command, found by its entry point.

    llm embed-multi notes --files . '*.txt' --store -m echovec/best
    llm similar notes -c 'what is an echo embedding?'

There is one model for each of RECIPES. To embed with another model, name it:
ECHOVEC_LLM_MODELS="mine=/folder/of/a/saved/embedder" gives `echovec/mine`. `llm` knows no roles, so
every text is embedded as symmetric. Nothing is loaded before the first call.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, cast

from echovec.errors import DependencyError, InputError
from echovec.plugins.handle import Handle, floats

try:
    import llm
except ImportError as error:
    raise DependencyError(
        f'the llm plugin needs llm ({error}): pip install "echovec[plugins]"'
    ) from None

MODELS_VARIABLE = "ECHOVEC_LLM_MODELS"
RECIPES = (
    "best",
    "one-pass",
    "fast",
    "static",
    "similarity",
    "echo",
    "echo-sentence",
    "echo-eol",
    "echo-windows",
    "classical",
    "prompt-eol",
)
"""Recipes that are models of `llm`; a constant, so that starting `llm` loads no torch."""


class EchovecModel(llm.EmbeddingModel):  # type: ignore[misc]
    """One recipe as an embedding model of `llm`.

    Args:
        name: what stands after "echovec/".
        model: what to load; None for the default model.
        recipe: the recipe; None for the model folder's own.
    """

    batch_size = 256

    def __init__(self, name: str, model: str | None = None, recipe: str | None = None) -> None:
        self.model_id = f"echovec/{name}"
        self._handle = Handle(model, recipe)

    def embed_batch(
        self, items: Iterable[str | bytes], *, key: str | None = None
    ) -> Iterator[list[float]]:
        """Unit vectors of texts, in order; `key` is for models behind an API."""
        texts = cast(list[str], list(items))
        return iter(cast(list[list[float]], floats(self._handle.vectors(texts))))


@llm.hookimpl  # type: ignore[untyped-decorator]
def register_embedding_models(register: Any) -> None:
    """Tell `llm` which embedding models there are."""
    for name in RECIPES:
        register(EchovecModel(name, recipe=name))
    for name, model in named_models(os.environ.get(MODELS_VARIABLE, "")).items():
        register(EchovecModel(name, model))


def named_models(written: str) -> dict[str, str]:
    """Models by name from "name=model;name=model".

    Raises:
        InputError: a part has no name or no model, or a name is taken.
    """
    found: dict[str, str] = {}
    for part in filter(None, map(str.strip, written.split(";"))):
        name, _, model = part.partition("=")
        if not name or not model or name in RECIPES or name in found:
            raise InputError(
                f"{MODELS_VARIABLE} has the part {part!r}; write NAME=MODEL, parted by ';', with "
                f"names that differ and are none of {', '.join(RECIPES)}"
            )
        found[name] = model
    return found
