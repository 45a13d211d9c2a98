"""Fused: linear maps on a GPU whose residual sum and gate cost no pass over memory of their own.

For inference. Shapes: N rows, I inputs, O outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from echovec.model import kernels
from echovec.model.gate import Joint
from echovec.model.linear import Stock


class Fused(Stock):
    """A linear map in CUDA's libraries and, where it is there, Triton."""

    def plus(self, x_NI: Tensor, other_NO: Tensor) -> Tensor:
        """The product plus another tensor, summed where the product is written."""
        if self.bias is not None:
            return super().plus(x_NI, other_NO)
        return torch.addmm(other_NO, x_NI, self._weight.t())


class FusedGate(Joint):
    """The inside of a gated MLP: one product, and activation and gate in one kernel."""

    def __call__(self, x_NI: Tensor, name: str) -> Tensor:
        """The inside of the MLP."""
        if name != "silu" or not kernels.usable(x_NI):
            return super().__call__(x_NI, name)
        return kernels.gate(self.linear(x_NI))
