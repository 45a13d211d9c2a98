"""Ragged: attention of sequences of unlike length in one call, on a GPU.

`attend.py` cuts a batch into rectangles, which suits a CPU. A GPU has kernels that take sequences
end to end with their offsets; torch offers one as `torch.nn.attention.varlen.varlen_attn`. Queries
and keys have offsets of their own, so the shared prefix stands in front of every sequence's keys,
and the last layer asks for its pooled rows only: a query sees what stands before it, counted from
the end (the last query sits on the last key).

Shapes: N flat rows, Q query rows, K key rows, S sequences, A prefix rows, O outputs of the
product of queries, keys and values, H heads, G key-value heads, E head width.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from echovec.model import kernels
from echovec.model.blocks import Block
from echovec.model.feed import Edges, Fed
from echovec.model.heads import Turn, apart, split

Kernel = Callable[..., Tensor]
"""`(q_QHE, k_KGE, v_KGE, ragged, scale, window) -> o_QHE`."""

_DTYPES = (torch.bfloat16, torch.float16)
_WIDEST = 256
"""Head width that flash attention takes."""


@dataclass(frozen=True, eq=False)
class Ragged:
    """Attention of all sequences of a batch, called like `Rectangles`."""

    query_rows_Q: Tensor | None
    """Flat rows that ask, or None: all of them."""

    edges: Edges
    most_queries: int
    most_keys: int
    kernel: Kernel
    turn: Turn

    def __call__(self, block: Block, x_NO: Tensor, prefix_k: Tensor, prefix_v: Tensor) -> Tensor:
        """Outputs [Q, H * E], in the order of the query rows."""
        begin = prefix_k, prefix_v, self.edges.key_rows_K
        if kernels.usable(x_NO):
            qk_NXE, v_NGE = apart(block, x_NO)
            q_NHE, k_NGE = torch.split(qk_NXE, [block.num_heads, block.num_kv_heads], dim=1)
            turn = self.turn if block.rotary else None
            k_KGE, v_KGE = kernels.place(k_NGE, v_NGE, *begin, turn)
            q_NHE = q_NHE if turn is None else kernels.turn(q_NHE, *turn)
        else:
            q_NHE, k_NGE, v_NGE = split(block, x_NO, self.turn)
            k_KGE, v_KGE = kernels.place_plain(k_NGE, v_NGE, *begin, None)
        q_QHE = q_NHE if self.query_rows_Q is None else q_NHE[self.query_rows_Q]
        o_QHE = self.kernel(q_QHE, k_KGE, v_KGE, self, block.scale, block.window)
        return o_QHE.flatten(1)


def can_attend(device: torch.device, dtype: torch.dtype, blocks: list[Block]) -> bool:
    """Whether this device, dtype and model have a kernel for ragged attention."""
    return (
        device.type == "cuda"
        and dtype in _DTYPES
        and all(map(_suits, blocks))
        and torch.cuda.get_device_capability(device)[0] >= 8
        and _options(any(b.window is not None for b in blocks)) is not None
    )


def _suits(block: Block) -> bool:
    """Whether torch's kernel can do what a block's attention does; it knows of no cap."""
    return block.head_dim <= _WIDEST and block.head_dim % 8 == 0 and block.cap is None


def ragged(fed: Fed, turn: Turn, *, hulls: bool) -> Ragged:
    """The ragged attention of what is fed.

    Args:
        fed: a batch's numbers on the device.
        turn: the positions of its rows.
        hulls: whether only the rows from each first to last pooled token ask.
    """
    sizes, edges = fed.sizes, fed.hulls if hulls else fed.every
    return Ragged(
        query_rows_Q=fed.hull_rows_Q if hulls else None,
        edges=edges,
        most_queries=sizes.most_hull_rows if hulls else sizes.most_rows,
        most_keys=sizes.most_keys,
        kernel=varlen,
        turn=turn,
    )


def varlen(
    q_QHE: Tensor, k_KGE: Tensor, v_KGE: Tensor, how: Ragged, scale: float, window: int | None
) -> Tensor:
    """Torch's kernel for sequences of unlike length; bfloat16 or float16, on CUDA."""
    from torch.nn.attention.varlen import varlen_attn

    options = _options(window is not None)
    assert options is not None, "can_attend was asked before"
    told: dict[str, Any] = {}
    for name, value in (
        ("scale", scale),
        ("enable_gqa", q_QHE.shape[1] != k_KGE.shape[1]),
        ("is_causal", True),
        ("window_size", (-1 if window is None else window - 1, 0)),
    ):
        if name in options and not (name == "is_causal" and "window_size" in options):
            told[name] = value
    if "scale" not in options:  # its own is 1 / sqrt(E)
        q_QHE = q_QHE * (scale * q_QHE.shape[-1] ** 0.5)
    output = varlen_attn(
        q_QHE,
        k_KGE,
        v_KGE,
        how.edges.query_edges_S1,
        how.edges.key_edges_S1,
        how.most_queries,
        how.most_keys,
        **told,
    )
    assert isinstance(output, Tensor), "nothing but the output was asked for"
    return output


@lru_cache
def _options(needs_window: bool) -> frozenset[str] | None:
    """What this torch's kernel may be told, which differs between releases; None: it cannot."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    names = frozenset(inspect.signature(varlen_attn).parameters)
    causal = "window_size" in names or ("is_causal" in names and not needs_window)
    return names if causal else None
