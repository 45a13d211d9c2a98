"""Heads: queries, keys and values out of one product, normed and turned by their positions.

Shapes: N flat rows, H heads, G key-value heads, E head width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from echovec.model import gradients, kernels
from echovec.model.blocks import Block

Turn = tuple[Tensor, Tensor]
"""Cosines and sines [N, 1, E / 2] of each row's position."""


def split(block: Block, x_NO: Tensor, turn: Turn) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [N, H, E], keys and values [N, G, E] of a block's product of all three."""
    H, G, E = block.num_heads, block.num_kv_heads, block.head_dim
    x_NXE = x_NO.view(len(x_NO), H + 2 * G, E)
    # Splitting, not slicing: a slice's gradient is a buffer of zeros as large as the whole.
    qk_NXE, v_NGE = torch.split(x_NXE, [H + G, G], dim=1)
    if block.norm_query is not None and block.norm_key is not None:
        q_NHE, k_NGE = torch.split(qk_NXE, [H, G], dim=1)
        qk_NXE = torch.cat([block.norm_query(q_NHE), block.norm_key(k_NGE)], 1)
    if block.rotary:
        qk_NXE = _turned(qk_NXE)(qk_NXE, *turn)
    q_NHE, k_NGE = torch.split(qk_NXE, [H, G], dim=1)
    return q_NHE, k_NGE, v_NGE


def _turned(qk_NXE: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    if kernels.usable(qk_NXE):
        return kernels.turn
    return gradients.turn if qk_NXE.requires_grad else kernels.turn_plain
