"""Rectangles: attention of a batch as runs of sequences of like length; see layout.py, attend.py.

Shapes: N flat rows, O outputs of the product of queries, keys and values, H heads, G key-value
heads, E head width, R rows of one run.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from echovec.model.attend import attend
from echovec.model.blocks import Block
from echovec.model.heads import Turn, split
from echovec.model.layout import Group


@dataclass(frozen=True, eq=False)
class Rectangles:
    """Attention of all groups, one after the other; any device, differentiable."""

    groups: tuple[Group, ...]
    turn: Turn

    def __call__(self, block: Block, x_NO: Tensor, prefix_k: Tensor, prefix_v: Tensor) -> Tensor:
        """Outputs [rows, H * E], in the order of the groups' rows."""
        q_NHE, k_NGE, v_NGE = split(block, x_NO, self.turn)
        # Splitting, not slicing: a slice's gradient is a buffer of zeros as large as the whole.
        rows = [group.stop - group.start for group in self.groups]
        runs = zip(
            torch.split(q_NHE, rows),
            torch.split(k_NGE, rows),
            torch.split(v_NGE, rows),
            strict=True,
        )
        outputs = [
            _attend_group(block, *run, prefix_k, prefix_v, group)
            for run, group in zip(runs, self.groups, strict=True)
        ]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _attend_group(
    block: Block,
    q_NHE: Tensor,
    k_NGE: Tensor,
    v_NGE: Tensor,
    prefix_k: Tensor,
    prefix_v: Tensor,
    group: Group,
) -> Tensor:
    """Attention of one rectangle, given its own rows; rows in order, [rows, H * E]."""
    B = group.count
    q, k, v = q_NHE, k_NGE, v_NGE
    if group.pad is not None:
        rows = torch.from_numpy(group.pad - group.start).to(q_NHE.device)
        q, k, v = q[rows], k[rows], v[rows]
    q, k, v = (x.view(B, -1, *x.shape[1:]) for x in (q, k, v))
    last = group.first + group.length
    q, k, v = q[:, group.first : last], k[:, :last], v[:, :last]
    if len(prefix_k):
        k = torch.cat([prefix_k.expand(B, *prefix_k.shape), k], dim=1)
        v = torch.cat([prefix_v.expand(B, *prefix_v.shape), v], dim=1)
    o_BLD = attend(q, k, v, scale=block.scale, window=block.window, cap=block.cap)
    o_RD = o_BLD.flatten(0, 1)
    if group.unpad is not None:
        o_RD = o_RD[torch.from_numpy(group.unpad).to(o_RD.device)]
    return o_RD
