"""Pooling: the hidden states of each span become one vector; plain differentiable functions.

Shapes: T tokens of a batch, D width, S sequences, S2 = [S, 2] half-open positions in T. Sums are
taken in float32 whatever the model computes in (float64 stays float64), over the span's own rows:
a difference of running sums loses 1e-5 on 200 tokens and more on longer batches.

Names are the ecosystem's (sentence-transformers: mean, lasttoken, weightedmean).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Pooling = Callable[[Tensor, Tensor], Tensor]
"""`(h_TD, spans_S2) -> z_SD`, float32 (float64 for float64)."""


def mean(h_TD: Tensor, spans_S2: Tensor) -> Tensor:
    """The mean of the span's states: the paper's choice when nothing is trained (section 3)."""
    rows_P, owner_P, _ = _spread(spans_S2)
    lengths_S1 = (spans_S2[:, 1] - spans_S2[:, 0])[:, None]
    return _segment_sum(_wide(h_TD[rows_P]), owner_P, len(spans_S2)) / lengths_S1


def last_token(h_TD: Tensor, spans_S2: Tensor) -> Tensor:
    """The state of the span's last token: the paper's choice after fine-tuning (section 4)."""
    return _wide(h_TD[spans_S2[:, 1] - 1])


def weighted_mean(h_TD: Tensor, spans_S2: Tensor) -> Tensor:
    """The mean weighted by position in the span, 1, 2, ... n (Muennighoff 2022, SGPT).

    The strongest classical baseline: later tokens of a causal model have seen more.
    """
    rows_P, owner_P, place_P = _spread(spans_S2)
    h_PD = _wide(h_TD[rows_P])
    weights_P1 = place_P[:, None].to(h_PD.dtype)
    lengths_S1 = (spans_S2[:, 1] - spans_S2[:, 0])[:, None].to(h_PD.dtype)
    total_S1 = lengths_S1 * (lengths_S1 + 1) / 2
    return _segment_sum(h_PD * weights_P1, owner_P, len(spans_S2)) / total_S1


POOLINGS: Mapping[str, Pooling] = {
    "mean": mean,
    "lasttoken": last_token,
    "weightedmean": weighted_mean,
}


def _wide(h: Tensor) -> Tensor:
    return h if h.dtype == torch.float64 else h.to(torch.float32)


def _spread(spans_S2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Every pooled token: its row in T, its sequence, and its place in the span from 1."""
    lengths_S = spans_S2[:, 1] - spans_S2[:, 0]
    owner_P = torch.repeat_interleave(lengths_S)
    ends_S = torch.cumsum(lengths_S, 0)
    place_P = torch.arange(len(owner_P), device=spans_S2.device) - (ends_S - lengths_S)[owner_P]
    return spans_S2[:, 0][owner_P] + place_P, owner_P, place_P + 1


def _segment_sum(h_PD: Tensor, owner_P: Tensor, num_sequences: int) -> Tensor:
    z_SD = h_PD.new_zeros(num_sequences, h_PD.shape[1])
    return z_SD.index_add(0, owner_P, h_PD)
