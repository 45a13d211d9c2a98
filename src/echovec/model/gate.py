"""Gate: the inside of a gated MLP, `x -> activation(x @ gate.T) * (x @ up.T)`.

- `Pair`: two products; the activation and the product with the gate are done in them where the
  linear maps can (oneDNN).
- `Joint`: one product twice as wide, and both steps after it: less to call for few rows and on a
  GPU, and FBGEMM is faster the wider a product is.

Shapes: N rows, I inputs, F inner width.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from echovec.model import loops
from echovec.model.linear import ACTIVATIONS, Linear


class Gate(Protocol):
    """`x_NI -> activation(gate(x_NI)) * up(x_NI)`."""

    def __call__(self, x_NI: Tensor, name: str) -> Tensor:
        """The inside of the MLP, [N, F], with the activation of this name."""

    def weight(self) -> Tensor:
        """The weights [2 F, I], the gate's above the other's, bit by bit as they were given."""

    @property
    def bias(self) -> Tensor | None:
        """The biases [2 F], or None."""


class Pair:
    """Two linear maps, one after the other."""

    def __init__(self, gate: Linear, up: Linear) -> None:
        self.gate, self.up = gate, up

    def __call__(self, x_NI: Tensor, name: str) -> Tensor:
        """The inside of the MLP."""
        return self.up.times(x_NI, self.gate.activated(x_NI, name))

    def weight(self) -> Tensor:
        """The weights."""
        return torch.cat([self.gate.weight(), self.up.weight()])

    @property
    def bias(self) -> Tensor | None:
        """The biases, or None."""
        gate, up = self.gate.bias, self.up.bias
        return None if gate is None or up is None else torch.cat([gate, up])


class Joint:
    """One linear map of both, side by side."""

    def __init__(self, linear: Linear) -> None:
        self.linear = linear
        self.weight = linear.weight

    def __call__(self, x_NI: Tensor, name: str) -> Tensor:
        """The inside of the MLP."""
        both = self.linear(x_NI)
        if name == "silu" and loops.usable(both):
            return loops.gate(both)
        left, right = both.chunk(2, dim=-1)
        inside = ACTIVATIONS[name](left)
        return inside * right if torch.is_grad_enabled() else inside.mul_(right)

    @property
    def bias(self) -> Tensor | None:
        """The biases, or None."""
        return self.linear.bias
