"""Blocks: what a decoder model is made of, whatever its family.

Norm, grouped attention with rotary positions, norm, gated MLP, each part of which a family may have
or lack; families.py says which model has what. The sums and the order of steps are in packed.py.

Shapes: N rows, D width, H heads, G key-value heads, E head width, O = (H + 2 G) * E, F inner width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from echovec.model import gradients, loops
from echovec.model.gate import Gate
from echovec.model.linear import Linear


@dataclass(frozen=True, eq=False)
class Norm:
    """Root mean square norm; `x -> x / rms(x) * gain`, over the last dimension."""

    module: nn.Module
    """Where the gain is read from at each call, so that a gain in training stays in training."""

    offset: float
    eps: float

    held: Tensor | None = None
    """The gain in float32, offset included, where it cannot change any more."""

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise."""
        if self.held is not None and x.dim() == 2 and loops.usable(x):
            return loops.norm(x, self.held, self.eps)
        gain = self.module.weight
        assert isinstance(gain, Tensor)
        if self.offset:  # summed in float32: 16 bits have few digits left beside a 1
            gain = self.wide_gain()
        if x.device.type == "cpu" and not torch.is_grad_enabled():
            return scaled(x.float(), gain.float(), self.eps).to(x.dtype)
        frozen, gain = not gain.requires_grad, gain.to(x.dtype)
        if frozen and torch.is_grad_enabled() and x.requires_grad:
            return gradients.norm(x, gain, self.eps)
        return functional.rms_norm(x, gain.shape, gain, self.eps)

    @property
    def width(self) -> int:
        """How many numbers it normalises at once."""
        gain = self.module.weight
        assert isinstance(gain, Tensor)
        return len(gain)

    def wide_gain(self) -> Tensor:
        """The gain in float32, offset included."""
        if self.held is not None:
            return self.held
        gain = self.module.weight
        assert isinstance(gain, Tensor)
        return gain.float() + self.offset

    def fixed(self) -> Norm:
        """The same norm, its gain read once."""
        with torch.inference_mode(False), torch.no_grad():
            return replace(self, held=self.wide_gain().contiguous())


def scaled(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """The root mean square norm of float32 in fewer steps than torch's own, for inference.

    torch writes every square down before it sums them; the length of a row is found in one pass.
    1.5 times as fast, of bfloat16 1.7 times (`python -m benchmarks.products`).
    """
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    scale = torch.addcmul(_constant(eps), length, length, value=1 / x.shape[-1]).rsqrt_()
    return (x * scale).mul_(gain)


@lru_cache
def _constant(value: float) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(value, dtype=torch.float32, device="cpu")


@dataclass(frozen=True, eq=False)
class Block:
    """One decoder block."""

    norm_attention: Norm | None
    """Of what attention reads; None: nothing is normed there, as with all of these."""

    norm_mlp: Norm | None
    norm_query: Norm | None
    """Of the queries of each head."""

    norm_key: Norm | None
    norm_queries: Norm | None
    """Of the queries of all heads at once."""

    norm_keys: Norm | None
    after_attention: Norm | None
    """Of what attention adds, before it is added."""

    after_mlp: Norm | None
    share: float
    """What everything that the block adds is multiplied with."""

    qkv: Linear
    """Queries, keys and values in one product; outputs in this order."""

    out: Linear
    gate: Gate
    """The inside of the MLP."""

    down: Linear
    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    activation: str
    rotary: bool
    """Whether queries and keys are turned by their positions."""

    positions: str
    """Which of the model's kinds of positions; "" where it has one."""

    window: int | None
    """How many keys back a query sees, itself included; None: all."""

    cap: float | None
    """What no scaled score gets beyond; None: there is none."""

    def product(self, h_ND: Tensor, factors_N1: Tensor | None = None) -> Tensor:
        """Queries, keys and values of all heads side by side, [N, (H + 2 G) * E].

        Args:
            h_ND: what is read.
            factors_N1: what queries are multiplied with.
        """
        x_NO = self.qkv(h_ND if self.norm_attention is None else self.norm_attention(h_ND))
        if self.norm_queries is None and factors_N1 is None:
            return x_NO
        E = self.head_dim
        widths = [self.num_heads * E, self.num_kv_heads * E, self.num_kv_heads * E]
        q, k, v = torch.split(x_NO, widths, dim=-1)
        if self.norm_queries is not None and self.norm_keys is not None:
            q, k = self.norm_queries(q), self.norm_keys(k)
        if factors_N1 is not None:
            q = q * factors_N1
        return torch.cat([q, k, v], dim=-1)

    def inside(self, h_ND: Tensor) -> Tensor:
        """The inside of the MLP, [N, F]."""
        x_ND = h_ND if self.norm_mlp is None else self.norm_mlp(h_ND)
        return self.gate(x_ND, self.activation)
