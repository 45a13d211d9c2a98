"""Planner: texts to chunks without a model, in a value that other processes can be sent.

A cluster plans on its processors and computes on its GPUs: `Embedder.planner` gives the first half
and `Embedder.vectors` is the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from echovec.errors import InputError
from echovec.text.batch import Chunk, plan
from echovec.text.render import LongText, Renderer, render_passes
from echovec.text.unique import in_callers_list, unique_texts


@dataclass(frozen=True)
class Planned:
    """Texts as chunks."""

    chunks: list[Chunk]
    """Of each text once, longest first."""

    inverse_N: NDArray[np.int64]
    """For every text its place among those that the chunks were made of."""


@dataclass(frozen=True)
class Planner:
    """What decides the chunks of texts of one role."""

    renderers: tuple[Renderer, ...]
    long_text: LongText
    batch_tokens: int

    def __call__(self, texts: Sequence[str], instruction: str | None = None) -> Planned:
        """Plan texts.

        Raises:
            InputError: a text cannot be embedded; `index` is its place.
        """
        unique, inverse_N = unique_texts(list(texts))
        try:
            passes = render_passes(self.renderers, unique, instruction, long_text=self.long_text)
        except InputError as error:
            raise in_callers_list(error, inverse_N) from error.__cause__
        return Planned(list(plan(passes, batch_tokens=self.batch_tokens)), inverse_N)
