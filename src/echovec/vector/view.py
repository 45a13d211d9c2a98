"""View: one way to read a vector off the model: a template, a layer and a pooling.

A recipe has one view for each role, or several whose vectors are summed or put side by side. Views
that share their prompt share the pass: reading the second copy and the last token of a suffix after
it costs one run of the model. `states`, `mask`, `prepend` and the two poolings that look at
attention ask for more than running the model as it is; the plain backbone can do all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import index
from typing import Any, Literal, get_args

from echovec.errors import RecipeError
from echovec.text.template import Template
from echovec.vector.transform import Transform

POOLING_NAMES = ("mean", "lasttoken", "weightedmean")
"""The rows of `echovec.vector.pooling.POOLINGS`, known here without loading torch."""

TOKEN_POOLING_NAMES = ("sif",)
"""The rows of `echovec.vector.pooling.TOKEN_POOLINGS`."""

ATTENTION_POOLING_NAMES = ("attended", "selected")
"""The rows of `echovec.vector.pooling.ATTENTION_POOLINGS`."""

Combine = Literal["sum", "concat"]
"""How the vectors of several views become one: added up, or put side by side."""

Mask = Literal["causal", "bidirectional"]
States = Literal["hidden", "attention"]


@dataclass(frozen=True)
class View:
    """One (template, pooling, layers), with its weight and its own transforms.

    Raises:
        RecipeError: a name is unknown, a layer is no number or none is named, a number is out of
            its range, or the template lacks the placeholder that `prepend` needs.
    """

    template: Template
    """How the text becomes a prompt, and which of its tokens are pooled."""

    pooling: str = "mean"
    """"mean", "lasttoken" or "weightedmean"; by how rare each token is, "sif"; or, by what the
    prompt's last token attends to, "attended" or "selected"."""

    layer: int | tuple[int, ...] | Literal["all"] = -1
    """Which hidden states: 0 the token embeddings, k those after block k, -1 the last, after the
    final norm (what Hugging Face calls `last_hidden_state`); counted as in a list. Several layers,
    or "all" but the embeddings, are averaged."""

    weight: float = 1.0
    """What its vector is multiplied by before it is put together with those of other views."""

    transforms: tuple[Transform, ...] = ()
    """What happens to this view's vector, in order, before it is weighted."""

    mask: Mask = "causal"
    """"causal", as the model was trained, or "bidirectional": every token sees all tokens (the
    paper's comparison, table 3)."""

    states: States = "hidden"
    """"hidden", or "attention": what the attention of block k adds to the hidden states. Averaged
    over "all" layers at the last token of a one-word prompt this is AlignedWVA (arXiv 2602.01572;
    there a sum, which differs by a constant factor)."""

    prepend: tuple[int, int] | None = None
    """Token prepending (Fu et al., arXiv 2412.11556): the blocks, first and last, before which the
    state of the prompt's last token is copied to the template's `{placeholder}`, so that the text's
    tokens see a summary of it. The paper has 2 to 8 of 32."""

    threshold: float = 1.5
    """For the pooling "selected": how many times the mean importance a token needs to be kept."""

    def __post_init__(self) -> None:
        poolings = POOLING_NAMES + TOKEN_POOLING_NAMES + ATTENTION_POOLING_NAMES
        if self.pooling not in poolings:
            raise RecipeError(f"unknown pooling {self.pooling!r}; there are {', '.join(poolings)}")
        _check_name("mask", self.mask, Mask)
        _check_name("states", self.states, States)
        object.__setattr__(self, "layer", _layers(self.layer))
        for name in ("weight", "threshold"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise RecipeError(f"{name}={value!r}; give a number above 0")
        if self.prepend is not None:
            if len(self.prepend) != 2 or not 1 <= self.prepend[0] <= self.prepend[1]:
                raise RecipeError(
                    f"prepend={self.prepend!r}; give the first block, 1 or more, and the last, not "
                    "below it"
                )
            if not self.template.has_placeholder:
                raise RecipeError(
                    f"prepend={self.prepend!r} needs a {{placeholder}} before the text in "
                    f"{self.template.prompt!r}"
                )


def _check_name(field: str, value: str, names: Any) -> None:
    if value not in get_args(names):
        raise RecipeError(f"{field}={value!r}; there are {', '.join(get_args(names))}")


def _layers(given: Any) -> int | tuple[int, ...] | Literal["all"]:
    """One layer, several as a tuple, or "all"; RecipeError for anything else."""
    if isinstance(given, str) and given == "all":
        return "all"
    try:
        layers = tuple(map(index, given)) if isinstance(given, list | tuple) else index(given)
    except TypeError:
        layers = ()
    if layers == ():
        raise RecipeError(f"layer={given!r}; give a number, several, or 'all'")
    return layers
