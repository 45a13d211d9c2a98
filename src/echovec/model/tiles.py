"""Tiles: attention of a batch in compiled loops and two products a group, for inference on a CPU.

The same as `Rectangles` in fewer passes: one loop turns queries and keys and lays them out beside
the prefix's, one scales, hides and normalises the scores where they lie, one puts the outputs back
in rows. Nothing is gathered for padding, repeated or joined.

Shapes: N flat rows, O outputs of the product of queries, keys and values, B sequences, L queries of
each, M keys of each, H heads, G key-value heads, R = H / G, E head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from echovec.model import loops
from echovec.model.attend import BLOCK, FEW, KEPT, MAX_SCORES, hidden
from echovec.model.blocks import Block
from echovec.model.layout import Group, Int

_ALL = 1 << 40  # keys: no window


@dataclass(frozen=True, eq=False)
class _Part:
    """Some sequences of a group, in the numbers that loops take."""

    count: int
    queries: int
    first: int
    begins_B: Int
    """Where they begin among the flat rows."""

    own_begins_B: Int
    """Where they begin among the rows that come out."""

    lengths_B: Int


class Tiles:
    """Attention of all groups, called like `Rectangles`.

    Args:
        groups: of one batch.
        prefix: rows of the shared prefix.
        heads: query heads of a block.
        cos: cosines [positions, E / 2], float32.
        sin: sines.
    """

    def __init__(
        self, groups: Sequence[Group], prefix: int, heads: int, cos: Tensor, sin: Tensor
    ) -> None:
        self._prefix, self._cos, self._sin = prefix, cos, sin
        self._rows = 0
        self._parts: list[_Part] = []
        for group in groups:
            keys = prefix + group.first + group.length
            at_once = max(1, MAX_SCORES // (heads * min(group.length, BLOCK) * keys))
            for begin in range(0, group.count, at_once):
                part = slice(begin, begin + at_once)
                lengths_B = _plain(group.lengths_B[part])
                self._parts.append(
                    _Part(
                        len(lengths_B),
                        group.length,
                        group.first,
                        _plain(group.begins_B[part]),
                        _plain(self._rows + group.own_begins_B[part]),
                        lengths_B,
                    )
                )
            self._rows += group.rows

    def __call__(self, block: Block, x_NO: Tensor, prefix_k: Tensor, prefix_v: Tensor) -> Tensor:
        """Outputs [rows, H * E], in the order of the groups' rows."""
        x_NO = x_NO.contiguous()
        H, G, E = block.num_heads, block.num_kv_heads, block.head_dim
        R, P, half = H // G, self._prefix, x_NO.dtype == torch.bfloat16
        place, softmax, gather = (loops.loop(name) for name in ("place", "softmax", "gather"))
        norms = (block.norm_query, block.norm_key)
        gains = [None if norm is None else norm.wide_gain() for norm in norms]
        turn = (
            *(self._cos.data_ptr(), self._sin.data_ptr(), len(self._cos), block.rotary),
            *(x_NO.data_ptr() if gain is None else gain.data_ptr() for gain in gains),
            *(gains[0] is not None, 0.0 if norms[0] is None else norms[0].eps),
            *(prefix_k.data_ptr(), prefix_v.data_ptr()),
        )
        rows = (x_NO.data_ptr(), half, len(x_NO))
        out_ND = x_NO.new_empty(self._rows, H * E)
        for part in self._parts:
            B, L, first = part.count, part.queries, part.first
            M = P + first + L
            q_bnE, k_bME = x_NO.new_empty(B * G, L * R, E), x_NO.new_empty(B * G, M, E)
            v_bME = torch.empty_like(k_bME)
            begins, lengths = _address(part.begins_B), _address(part.lengths_B)
            laid = (q_bnE.data_ptr(), k_bME.data_ptr(), v_bME.data_ptr())
            place(*rows, begins, lengths, B, first, L, P, G, R, E, first + L, *turn, *laid)
            own = (_address(part.own_begins_B), lengths, self._rows, out_ND.data_ptr())
            if B * L <= FEW and block.cap is None:
                o_BGnE = functional.scaled_dot_product_attention(
                    q_bnE.view(B, G, L * R, E),
                    k_bME.view(B, G, M, E),
                    v_bME.view(B, G, M, E),
                    attn_mask=_hidden(L, R, M, block.window, x_NO.dtype),
                    scale=block.scale,
                ).contiguous()
                gather(o_BGnE.data_ptr(), half, B, first, L, G, R, E, *own)
                continue
            window = block.window or _ALL
            for begin in range(0, L, BLOCK):
                end = min(begin + BLOCK, L)
                before = M - L + begin  # keys that stand before the first of these queries
                low = max(0, before - window + 1)
                keys = slice(low, before + end - begin)
                s_bnM = torch.bmm(q_bnE[:, begin * R : end * R], k_bME[:, keys].transpose(1, 2))
                scale = block.scale
                if block.cap is not None:  # the loop multiplies with the cap
                    s_bnM.mul_(scale / block.cap).tanh_()
                    scale = block.cap
                sizes = (B * G, end - begin, R, s_bnM.shape[2], before - low)
                softmax(s_bnM.data_ptr(), half, *sizes, window, scale)
                o_bnE = torch.bmm(s_bnM, v_bME[:, keys])
                gather(o_bnE.data_ptr(), half, B, first + begin, end - begin, G, R, E, *own)
        return out_ND


def _plain(array: Int) -> Int:
    """In one piece and in 64 bits, as the loops read it."""
    return np.ascontiguousarray(array, dtype=np.int64)


def _address(array: Int) -> int:
    return int(array.__array_interface__["data"][0])


def _hidden(
    queries: int, repeats: int, keys: int, window: int | None, dtype: torch.dtype
) -> Tensor:
    """[queries * repeats, keys]: 0, or -inf where a query may not look."""
    made = _kept_hidden if queries * repeats * keys <= KEPT else _kept_hidden.__wrapped__
    return made(queries, repeats, keys, window, dtype)


@lru_cache(maxsize=256)
def _kept_hidden(
    queries: int, repeats: int, keys: int, window: int | None, dtype: torch.dtype
) -> Tensor:
    mask = hidden(queries, keys, window, dtype, torch.device("cpu"))
    with torch.inference_mode(False):
        return mask.repeat_interleave(repeats, 0)
