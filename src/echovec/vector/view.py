"""View: one way to read a vector off the model: a template, a layer and a pooling."""

from __future__ import annotations

from dataclasses import dataclass

from echovec.errors import RecipeError
from echovec.text.template import Template

POOLING_NAMES = ("mean", "lasttoken", "weightedmean")
"""The rows of `echovec.vector.pooling.POOLINGS`, known here without loading torch."""


@dataclass(frozen=True)
class View:
    """One (template, layer, pooling).

    Raises:
        RecipeError: the pooling's name is unknown.
    """

    template: Template
    """How the text becomes a prompt, and which of its tokens are pooled."""

    pooling: str = "mean"
    """"mean", "lasttoken" or "weightedmean"."""

    layer: int = -1
    """Which hidden states: 0 the token embeddings, k those after block k, -1 the last, after the
    final norm (what Hugging Face calls `last_hidden_state`); counted as in a list."""

    def __post_init__(self) -> None:
        if self.pooling not in POOLING_NAMES:
            raise RecipeError(
                f"unknown pooling {self.pooling!r}; there are {', '.join(POOLING_NAMES)}"
            )
