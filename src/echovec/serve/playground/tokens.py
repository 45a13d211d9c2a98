"""Tokens: how near each token of a text's copies is to another text; what the heat map shows.

A token of the first copy has seen what stands before it, a token of the second copy the whole text.
Both texts go through the model once, with a span for each copy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from echovec.embedder import Embedder
from echovec.errors import InputError
from echovec.reader import layers_of
from echovec.text.drafts import render_passes
from echovec.text.render import Renderer
from echovec.text.template import Marker

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Copies:
    """The tokens of one text, and their cosine with the other text's vector in each copy."""

    tokens: list[str]
    first: list[float]
    second: list[float]


@dataclass(frozen=True)
class Shared:
    """The tokens that two texts begin with alike: the mean cosine of each with its twin.

    In the first copy it is 1, for none of them has seen where the texts part.
    """

    count: int
    first: float
    second: float


def repeats(embedder: Embedder) -> bool:
    """Whether its first prompt has the text twice, in the same tokens."""
    wordings = embedder.definition.views["symmetric"][0].template.wordings
    return len(wordings) >= 2 and len(set(wordings)) == 1


def renderer_of(embedder: Embedder) -> Renderer:
    """Its first prompt, with a span for the first copy of the text and one for the last.

    A server makes it before it serves: a prompt is tokenised with a switch of the tokenizer set,
    by which a text that another thread tokenises meanwhile would be read.

    Raises:
        InputError: the recipe's prompt has no two copies of a text in the same tokens.
    """
    if not repeats(embedder):
        raise InputError(
            f"{embedder.definition.name} has no two copies of a text in the same tokens; choose an "
            "echo"
        )
    template = embedder.definition.views["symmetric"][0].template
    # Markers stay in the prompt, but are no tokens of the text.
    bare = replace(template, bos=_not_pooled(template.bos), eos=_not_pooled(template.eos))
    return Renderer(
        [bare.pooling_copy(copy) for copy in (0, bare.num_copies - 1)],
        embedder.tokenizer,
        max_tokens=embedder.definition.max_tokens,
        max_positions=embedder.backbone.max_positions,
    )


def near_tokens(
    embedder: Embedder, texts: tuple[str, str], renderer: Renderer | None = None
) -> tuple[list[Copies], Shared | None]:
    """Two texts' tokens, each against the other text's mean over its last copy.

    Args:
        embedder: whose model and first view.
        texts: the two.
        renderer: `renderer_of(embedder)`, if it is there already.

    Returns:
        The tokens of each text, and what the texts' common beginning does, where they have one.

    Raises:
        InputError: a text cannot be embedded, or `renderer_of` refuses the recipe.
    """
    (drafts,) = render_passes([renderer or renderer_of(embedder)], texts)
    batch = drafts.lay(range(len(drafts)))
    view = embedder.definition.views["symmetric"][0]
    layers = layers_of(view, embedder.backbone.num_layers)
    with torch.inference_mode():
        states = embedder.backbone.forward(batch, layers, pooled_only=True)
        h_PD = torch.stack([h.float() for h in states]).mean(0).cpu().numpy()
    spans_SK2 = batch.pooled[1]
    h_by_copy = [[h_PD[start:stop] for start, stop in spans_K2] for spans_K2 in spans_SK2]
    ids = [batch.ids_T[slice(*batch.spans_SK2[place, 0])].tolist() for place in range(2)]
    found = []
    for place, other in ((0, 1), (1, 0)):
        vector_D = h_by_copy[other][1].mean(axis=0)
        near = [_cosines(h_LD, vector_D) for h_LD in h_by_copy[place]]
        shown = [embedder.tokenizer.detokenize([one]) for one in ids[place]]
        found.append(Copies(shown, *near))
    return found, _shared(ids, h_by_copy)


def _not_pooled(marker: Marker) -> Marker:
    return "present" if marker == "pooled" else marker


def _cosines(h_LD: Floats, vector_D: Floats) -> list[float]:
    lengths_L = np.linalg.norm(h_LD, axis=1) * np.linalg.norm(vector_D)
    return [float(one) for one in h_LD @ vector_D / lengths_L]


def _shared(ids: list[list[int]], h_by_copy: list[list[Floats]]) -> Shared | None:
    alike = [one == two for one, two in zip(*ids, strict=False)]
    count = alike.index(False) if False in alike else len(alike)
    if not count or ids[0] == ids[1]:
        return None
    means = []
    for copy in (0, 1):
        pairs = zip(h_by_copy[0][copy][:count], h_by_copy[1][copy][:count], strict=True)
        means.append(float(np.mean([_cosines(one[None], two)[0] for one, two in pairs])))
    return Shared(count, *means)
