"""Passes: the blocks of a model one after the other, over flat rows.

Shapes: N flat rows, D width, Q rows of the hulls, P pooled rows, I inputs, O outputs of the product
of queries, keys and values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from echovec.model.blocks import Block, Norm
from echovec.model.linear import Linear
from echovec.model.ragged import Ragged
from echovec.model.rectangles import Rectangles
from echovec.model.tiles import Tiles


@dataclass(frozen=True, eq=False)
class Prefix:
    """Keys and values of the shared beginning, per block, and its states where asked for."""

    keys: list[Tensor]
    values: list[Tensor]
    states: list[Tensor]


Attention = Rectangles | Ragged | Tiles
"""`(block, x_NO, prefix_k, prefix_v) -> o_ND`: who attends to whom in a batch; x_NO is the block's
product of queries, keys and values."""


@dataclass(frozen=True, eq=False)
class Reads:
    """What a pass reads beside the weights, on the device."""

    pooled_rows_P: Tensor
    hull_rows_Q: Tensor
    pooled_in_hull_P: Tensor
    factors_N1: Tensor | None
    attention: Callable[[str, bool], Attention]
    """`(positions, hulls)`; `hulls`: only the rows from each first to last pooled token ask."""


def states(
    h_ND: Tensor,
    reads: Reads,
    prefix: Prefix,
    blocks: Sequence[Block],
    norm: Norm,
    wanted: Sequence[int],
    *,
    pooled_only: bool,
) -> list[Tensor]:
    """States of each layer wanted: of the pooled rows in the batch's order, or of all.

    Args:
        h_ND: token embeddings of the flat rows.
        reads: what else the pass reads.
        prefix: of the shared beginning, as far as the last layer wanted.
        blocks: of the whole model; those above the last layer wanted do not run.
        norm: the model's own, of the last layer.
        wanted: layers, 0 (embeddings) to `len(blocks)`.
        pooled_only: only the pooled rows are wanted.
    """
    last = max(wanted)
    kept: dict[int, Tensor] = {}
    for depth in range(last + 1):
        if depth in wanted and not (depth == last and pooled_only and depth > 0):
            kept[depth] = h_ND[reads.pooled_rows_P] if pooled_only else h_ND
        if depth == last:
            break
        hulls = depth + 1 == last and pooled_only
        block = blocks[depth]
        h_ND = through(
            block,
            h_ND,
            reads.factors_N1,
            prefix.keys[depth],
            prefix.values[depth],
            reads.attention(block.positions, hulls),
            reads.hull_rows_Q if hulls else None,
        )
        if hulls:
            kept[last] = h_ND[reads.pooled_in_hull_P]
    if len(blocks) in kept:
        kept[len(blocks)] = norm(kept[len(blocks)])
    return [kept[layer] for layer in wanted]


def through(
    block: Block,
    h_ND: Tensor,
    factors_N1: Tensor | None,
    prefix_k: Tensor,
    prefix_v: Tensor,
    attention: Attention,
    hull_Q: Tensor | None,
) -> Tensor:
    """One block: h_ND to the next h_ND, or only to the rows `hull_Q`."""
    o_ND = attention(block, block.product(h_ND, factors_N1), prefix_k, prefix_v)
    if hull_Q is not None:
        h_ND = h_ND[hull_Q]
    h_ND = _added(block.out, o_ND, h_ND, block.after_attention, block.share)
    return _added(block.down, block.inside(h_ND), h_ND, block.after_mlp, block.share)


def _added(linear: Linear, x_NI: Tensor, h_ND: Tensor, norm: Norm | None, share: float) -> Tensor:
    """The residual sum, in the product where nothing comes between."""
    if norm is None and share == 1:
        return linear.plus(x_NI, h_ND)
    more_ND = linear(x_NI)
    return torch.add(h_ND, more_ND if norm is None else norm(more_ND), alpha=share)
