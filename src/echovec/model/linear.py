"""Linear maps of the packed backbone: what a block multiplies with, and what is fused into it.

- `Stock`: plain torch, any device, differentiable.
- `OneDNN`: weights laid out for the CPU once ("prepacked"), with the residual sum, the activation
  and the product with the gate done while the result is still in registers. On CPUs whose BLAS is
  tuned for another vendor this alone is 2.3 times as fast in float32 (docs/performance.md).
- `InPlace`: the same weights and products, and what follows a product written over it. In float32
  this is faster (1.02 to 1.03 times with AVX-512, 1.06 to 1.12 with AVX2), in bfloat16 level.
- `HalfStored`: the same by FBGEMM, which reads weights of 16 bits and computes in float32. Most
  models are published in 16 bits, so nothing is lost; weights that would lose anything stay with
  oneDNN. Half the memory, faster up to some hundred rows, level or a few hundredths slower above.

Figures: `python -m benchmarks.products`, docs/performance.md. In 8 bits, and so with other numbers:
`Quantized`, in quantized.py.
All of these give the same numbers up to rounding; `cpu_kind` says who multiplies.
Shapes: N rows, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu_pytorch_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "gelu": functional.gelu,
}
"""Activations of supported families, by their name in a configuration."""

# How oneDNN calls them: attribute, scalars, algorithm.
_ONEDNN: Mapping[str, tuple[str, str]] = {
    "silu": ("swish", ""),
    "gelu_pytorch_tanh": ("gelu", "tanh"),
    "gelu": ("gelu", "none"),
}


class Linear(Protocol):
    """`x_NI -> x_NI @ weight.T + bias`, alone or with one thing more."""

    def __call__(self, x_NI: Tensor) -> Tensor:
        """The product, [N, O]."""

    def activated(self, x_NI: Tensor, name: str) -> Tensor:
        """The product through an activation."""

    def plus(self, x_NI: Tensor, other_NO: Tensor) -> Tensor:
        """The product and another tensor, summed: a residual connection."""

    def times(self, x_NI: Tensor, other_NO: Tensor) -> Tensor:
        """The product times another tensor: a gate."""

    def weight(self) -> Tensor:
        """The weights [O, I], bit by bit as they were given."""

    @property
    def bias(self) -> Tensor | None:
        """The bias [O], or None."""


class Stock:
    """A linear map in plain torch."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None = None) -> None:
        self._weight = weight_OI
        self.bias = bias_O

    def __call__(self, x_NI: Tensor) -> Tensor:
        """The product."""
        return functional.linear(x_NI, self._weight, self.bias)

    def activated(self, x_NI: Tensor, name: str) -> Tensor:
        """The product through an activation."""
        return ACTIVATIONS[name](self(x_NI))

    def plus(self, x_NI: Tensor, other_NO: Tensor) -> Tensor:
        """The product plus another tensor."""
        return self(x_NI) + other_NO

    def times(self, x_NI: Tensor, other_NO: Tensor) -> Tensor:
        """The product times another tensor."""
        return self(x_NI) * other_NO

    def weight(self) -> Tensor:
        """The weights."""
        return self._weight


class OneDNN:
    """A linear map with weights prepacked by oneDNN; for inference on a CPU."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None = None) -> None:
        # The row count is a hint for the layout only; any number of rows may come.
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight_OI.contiguous(), 1024)
        self.bias = bias_O

    def __call__(self, x_NI: Tensor) -> Tensor:
        """The product."""
        return self._unary(x_NI, "none", "")

    def activated(self, x_NI: Tensor, name: str) -> Tensor:
        """The product through an activation, fused."""
        return self._unary(x_NI, *_ONEDNN[name])

    def plus(self, x_NI: Tensor, other_NO: Tensor) -> Tensor:
        """The product plus another tensor, fused."""
        return self._binary(x_NI, other_NO, "add")

    def times(self, x_NI: Tensor, other_NO: Tensor) -> Tensor:
        """The product times another tensor, fused."""
        return self._binary(x_NI, other_NO, "mul")

    def weight(self) -> Tensor:
        """The weights, laid out as they came."""
        plain: Tensor = self._packed.to_dense()
        return plain

    def _unary(self, x_NI: Tensor, name: str, algorithm: str) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            x_NI, self._packed, self.bias, name, [], algorithm
        )
        return product

    def _binary(self, x_NI: Tensor, other_NO: Tensor, name: str) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise.binary(
            x_NI, other_NO, self._packed, self.bias, name
        )
        return product


class InPlace(OneDNN):
    """A linear map with prepacked weights whose product is written over by what follows it."""

    def activated(self, x_NI: Tensor, name: str) -> Tensor:
        """The product through an activation."""
        product = self(x_NI)
        if name == "silu":  # the only one with a form in place
            return functional.silu(product, inplace=True)
        return ACTIVATIONS[name](product)

    def plus(self, x_NI: Tensor, other_NO: Tensor) -> Tensor:
        """The product plus another tensor."""
        return self(x_NI).add_(other_NO)

    def times(self, x_NI: Tensor, other_NO: Tensor) -> Tensor:
        """The product times another tensor."""
        return self(x_NI).mul_(other_NO)


class HalfStored(InPlace):
    """A linear map whose weights are kept in float16, exactly, and multiplied in float32 by FBGEMM.

    FBGEMM widens each weight as it is loaded into a register, so what is read from memory is half,
    and products are float32's own; it was made for the few rows of a query (Khudia et al.,
    arXiv 2101.05615). float16 holds every number of bfloat16 and more bits of it, but for those
    below 2^-14 in size, of which the last bits may be missing: they are kept beside, for `weight`.

    Raises:
        ValueError: 16 bits cannot hold these weights; `holds` says so beforehand.
    """

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None = None) -> None:
        lost_OI = _lost(weight_OI)
        if not _little(lost_OI, weight_OI):
            raise ValueError("float16 cannot hold these weights; keep them in float32")
        self._lost = None if lost_OI is None else lost_OI.to_sparse()
        self._packed = torch.ops.quantized.linear_prepack_fp16(weight_OI.contiguous(), bias_O)
        self.bias = bias_O

    def __call__(self, x_NI: Tensor) -> Tensor:
        """The product."""
        product: Tensor = torch.ops.quantized.linear_dynamic_fp16(x_NI, self._packed)
        return product

    def weight(self) -> Tensor:
        """The weights, laid out as they came."""
        plain: Tensor = torch.ops.quantized.linear_unpack_fp16(self._packed)[0]
        return plain if self._lost is None else plain + self._lost.to_dense()

    @staticmethod
    def holds(weight_OI: Tensor) -> bool:
        """Whether float16 loses no more of these float32 weights than one rounding in float32."""
        return _little(_lost(weight_OI), weight_OI)


def _lost(weight_OI: Tensor) -> Tensor | None:
    """What float16 loses of weights; None: nothing, which is quickly seen and true of most."""
    kept_OI = weight_OI.half().float()
    return None if torch.equal(kept_OI, weight_OI) else weight_OI - kept_OI


def _little(lost_OI: Tensor | None, weight_OI: Tensor) -> bool:
    if lost_OI is None:
        return True
    # Beyond float16's range the difference is infinite, and no number is as large.
    return bool(lost_OI.abs().sum() <= torch.finfo(torch.float32).eps / 2 * weight_OI.abs().sum())


def has_onednn(dtype: torch.dtype) -> bool:
    """Whether this torch and CPU multiply prepacked weights of this dtype."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def has_fbgemm() -> bool:
    """Whether this torch has FBGEMM's products of float16 weights, and this CPU what they need."""
    able = torch.cpu.get_capabilities().get("avx2", False)
    # The engine is a setting of the process; another one's layout is not FBGEMM's.
    built = torch.backends.quantized.engine in ("x86", "fbgemm")
    names = ("linear_prepack_fp16", "linear_dynamic_fp16", "linear_unpack_fp16")
    return bool(able and built) and all(hasattr(torch.ops.quantized, name) for name in names)


def cpu_kind(weight_OI: Tensor) -> Callable[[Tensor, Tensor | None], Linear]:
    """Which kind of linear map is the fastest with these weights on this CPU.

    Measured with AVX2 and AVX-512 (docs/performance.md).
    """
    exact = weight_OI.dtype == torch.float32
    if exact and has_fbgemm() and HalfStored.holds(weight_OI):
        return HalfStored
    if not has_onednn(weight_OI.dtype):
        return Stock
    return InPlace if exact else OneDNN
