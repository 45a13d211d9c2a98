"""Halved: vectors read from parts of a text's copies, all from one pass of the model.

What figure 2C of the paper pools: only the tokens of the first (or second) half of the second copy.
The halves are the caller's, so a border never depends on the middle token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from echovec.compute import compute
from echovec.evaluate.reproduce.recipes import pooled_as
from echovec.evaluate.reproduce.triplets import Halves
from echovec.evaluate.reproduce.verdict import Rows
from echovec.recipe import Recipe
from echovec.vector.pooling import POOLINGS

if TYPE_CHECKING:
    from echovec.embedder import Embedder
    from echovec.text.batch import Chunk

Part = Literal["all", "first", "second"]


@dataclass(frozen=True)
class Reading:
    """Which hidden states of a prompt become the vector, and how."""

    pooling: str = "mean"
    """A name of `echovec.vector.pooling.POOLINGS`."""

    part: Part = "all"
    """All tokens of the copy, or those of one half of the text."""

    copy: int = -1
    """Which copy of the text; 0 is the first, -1 the last."""


def read_all(
    embedder: Embedder, recipe: str, readings: Sequence[Reading], halves: Sequence[Halves]
) -> list[NDArray[np.float32]]:
    """The vectors [N, D] of every reading of a preset, last layer, from one pass over the texts."""
    bound = embedder.with_recipe(recipe)
    spans = [_spans(embedder, recipe, reading, halves) for reading in readings]

    def forward(chunk: Chunk, *, float32: bool = False) -> torch.Tensor:
        (batch,) = chunk  # one view, so one pass
        (h_TD,) = bound.backbone.forward(batch, (-1,), float32=float32)
        starts_S1 = batch.offsets_S1[:-1, None]
        vectors = [
            POOLINGS[reading.pooling](
                h_TD, torch.from_numpy(spans_N2[batch.order_S] + starts_S1).to(h_TD.device)
            )
            for reading, spans_N2 in zip(readings, spans, strict=True)
        ]
        return torch.cat(vectors, dim=1)

    chunks = bound.prepare([half.text for half in halves])
    joined, _ = compute(forward, chunks, show_progress_bar=False)
    return [part.numpy() for part in joined.chunk(len(readings), dim=1)]


def part_of(span_N2: Rows, first_N: Rows, part: Part) -> Rows:
    """The spans of one half, given how many tokens the first half has; half-open as the spans."""
    start_N, stop_N = span_N2.T
    border_N = start_N + first_N
    ends = {"all": (start_N, stop_N), "first": (start_N, border_N), "second": (border_N, stop_N)}
    return np.stack(ends[part], axis=1)


def first_half_tokens(embedder: Embedder, recipe: Recipe, halves: Sequence[Halves]) -> Rows:
    """How many tokens of each text belong to its first half, [N].

    Counted as the tokens that the first half alone and the whole text begin with: a token that
    crosses the border belongs to the second half, so the first never holds a letter of it.
    """
    lead = "" if embedder.tokenizer.adds_blank else recipe.views["symmetric"][0].template.lead
    whole = embedder.tokenizer.tokenize([lead + half.text for half in halves])
    first = embedder.tokenizer.tokenize([lead + half.first for half in halves])
    return np.array([_shared(a, b) for a, b in zip(whole, first, strict=True)], dtype=np.int64)


def _spans(embedder: Embedder, base: str, reading: Reading, halves: Sequence[Halves]) -> Rows:
    """The tokens that a reading pools, counted from each prompt's own start, [N, 2]."""
    recipe = pooled_as(base, pooling=reading.pooling, copy=reading.copy)
    spans_N2 = np.zeros((len(halves), 2), dtype=np.int64)
    for (batch,) in embedder.with_recipe(recipe).prepare([half.text for half in halves]):
        spans_N2[batch.order_S] = batch.spans_SK2[:, 0] - batch.offsets_S1[:-1, None]
    return part_of(spans_N2, first_half_tokens(embedder, recipe, halves), reading.part)


def _shared(a: Sequence[int], b: Sequence[int]) -> int:
    same = 0
    for left, right in zip(a, b, strict=False):
        if left != right:
            break
        same += 1
    return same
