"""Parts: what a pass may ask for beyond hidden states of the model as it is.

A backbone that can do these has `read`; the plain one can do all. A backbone without it (the fast
one) may name a plain one that shares its weights as `plain`. `reader` finds who is to run a pass.
Shapes: T tokens of a batch, P pooled tokens, R tokens of one span of every sequence, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

from echovec.errors import ModelError
from echovec.model.backbone import Backbone
from echovec.text.batch import Batch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Importance:
    """What the prompt's last token attends to within one span, the largest over heads and blocks.

    ReBA and SCSP both weigh a text's tokens by it.
    """

    span: int
    """Which of the batch's K spans."""

    chunk: int | None = None
    """Divide by what falls on each run of so many tokens of the span, in each head, before the
    largest is taken, as if there were no other tokens to look at; None: attention as it is."""


@dataclass(frozen=True)
class How:
    """How a pass is run, and what is read beside hidden states; the defaults are the plain run."""

    bidirectional: bool = False
    """Every token sees all tokens of its sequence."""

    prepend: tuple[int, int] | None = None
    """Before these blocks, first and last, counted from 1, the last token's state is copied to the
    batch's placeholder."""

    attention: tuple[int, ...] = ()
    """Blocks, counted from 1, whose attention output (after its output projection) is read."""

    importance: tuple[Importance, ...] = ()
    """Which token weights are read."""

    @property
    def names(self) -> list[str]:
        """The parts asked for, for messages."""
        return [field.name for field in fields(self) if getattr(self, field.name) != field.default]


@dataclass(frozen=True, eq=False)
class Read:
    """What a pass gives, in the order asked for."""

    hidden: list[Tensor]
    """Hidden states h_PD."""

    attention: list[Tensor]
    """Attention outputs h_PD."""

    importance: list[Tensor]
    """Token weights w_R, sequence after sequence."""


class ReadingBackbone(Backbone, Protocol):
    """A backbone that can do the parts."""

    def read(self, batch: Batch, layers: Sequence[int], how: How, *, float32: bool = False) -> Read:
        """Run a pass as `how` says and read `batch.pooled[0]` rows of every layer asked for."""


def reader(backbone: Backbone, how: How) -> ReadingBackbone:
    """Who runs a pass with parts: the backbone itself, or the plain one that it names.

    Raises:
        ModelError: neither is there; the message names the parts.
    """
    for candidate in (backbone, getattr(backbone, "plain", None)):
        if hasattr(candidate, "read"):
            found: Any = candidate
            return found  # type: ignore[no-any-return]
    raise ModelError(
        f"{type(backbone).__name__} cannot do {', '.join(how.names)}, which this recipe asks for; "
        "the plain backbone can"
    )
