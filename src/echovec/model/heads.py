"""Heads: queries, keys and values out of one product, normed and turned by their positions.

Shapes: N flat rows, H heads, G key-value heads, E head width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from echovec.model import gradients, kernels
from echovec.model.blocks import Block

Turn = tuple[Tensor, Tensor]
"""Cosines and sines [N, 1, E / 2] of each row's position."""


def split(block: Block, x_NO: Tensor, turn: Turn) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [N, H, E], keys and values [N, G, E] of a block's product of all three, turned."""
    qk_NXE, v_NGE = apart(block, x_NO)
    if block.rotary:
        qk_NXE = _turned(qk_NXE, turn)
    q_NHE, k_NGE = torch.split(qk_NXE, [block.num_heads, block.num_kv_heads], dim=1)
    return q_NHE, k_NGE, v_NGE


def apart(block: Block, x_NO: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys [N, H + G, E], normed but not turned, and values [N, G, E]."""
    H, G, E = block.num_heads, block.num_kv_heads, block.head_dim
    x_NXE = x_NO.view(len(x_NO), H + 2 * G, E)
    # Splitting, not slicing: a slice's gradient is a buffer of zeros as large as the whole.
    qk_NXE, v_NGE = torch.split(x_NXE, [H + G, G], dim=1)
    if block.norm_query is not None and block.norm_key is not None:
        q_NHE, k_NGE = torch.split(qk_NXE, [H, G], dim=1)
        qk_NXE = torch.cat([block.norm_query(q_NHE), block.norm_key(k_NGE)], 1)
    return qk_NXE, v_NGE


def _turned(x_NXE: Tensor, turn: Turn) -> Tensor:
    if kernels.usable(x_NXE):
        return kernels.turn(x_NXE, *turn)
    return (gradients.turn if x_NXE.requires_grad else kernels.turn_plain)(x_NXE, *turn)
