"""Quantized: linear maps in 8 bits, for `dtype="int8"` on a CPU that multiplies them.

Weights are rounded once, with a scale for each output; inputs at each call, with a scale for each
row. A few inputs are far larger than the others, and rounding would leave those little. So before
it large inputs are made smaller and their weights larger by as much (SmoothQuant: Xiao et al.,
arXiv 2211.10438; how large inputs get is looked up on a few sentences that come with the package),
and both are spread: every number becomes a sum of 64 (QuaRot: Ashkboos et al., arXiv 2404.00456).
oneDNN multiplies and gives 16 or 32 bits; the row's scale is applied in the loop that follows.

Shapes: N rows, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from echovec.model import loops
from echovec.model.gate import Joint
from echovec.model.linear import ACTIVATIONS

LEVELS = 127
MIGRATION = 0.5
"""How much of an input's size goes into its weights: 0 none, 1 all; SmoothQuant's alpha."""

MASSIVE = 30
"""How many times larger than usual a token's inputs may be where they are rounded."""

_ZERO = 128  # of inputs: oneDNN is quick with unsigned ones only
_SMALLEST = 1e-5
_MODULES = ("q_proj", "qkv_proj", "gate_proj", "gate_up_proj", "o_proj", "down_proj")
"""One of each set of modules that share an input."""

SENTENCES = (
    "The harbour was quiet that morning, and only two boats had come in from the night's fishing.",
    "How do I change the e-mail address of my account?",
    "In 2019 the company reported a loss of 4.2 million euros, which it put down to higher prices.",
    "def mean(values):\n    return sum(values) / len(values)",
    "Patients who were given the drug recovered two days sooner than those who were not.",
    "A woman is slicing a tomato.",
    "Good food, but we waited an hour and nobody said sorry!",
    "The theorem follows from the fact that every bounded sequence has a convergent subsequence.",
    "cheap flights london to rome in may",
    "Le vent s'est levé dans la nuit, et la pluie n'a pas cessé depuis.",
    "She asked whether the parcel had been sent, and if so, when it could be expected.",
    "The cell membrane controls which molecules enter and which leave the cell.",
)
"""Texts of many kinds, to see how large a model's inputs get."""


class Quantized:
    """A linear map without bias whose weights and inputs are rounded to 8 bits.

    Args:
        weight_OI: the weights, in the dtype that products are given in.
        largest_I: how large each input gets.
    """

    bias: Tensor | None = None

    def __init__(self, weight_OI: Tensor, largest_I: Tensor) -> None:
        wide_OI = weight_OI.float()
        most_I = wide_OI.abs().amax(0).clamp_min(_SMALLEST)
        move_I = largest_I.float().clamp_min(_SMALLEST) ** MIGRATION / most_I ** (1 - MIGRATION)
        moved_OI = loops.spread(wide_OI * move_I) / loops.SPREAD
        self._by_I = 1 / move_I
        self._scale_O = moved_OI.abs().amax(1).clamp_min(_SMALLEST) / LEVELS
        whole_OI = (moved_OI / self._scale_O[:, None]).round_().to(torch.int8)
        self._packed = torch.ops.onednn.qlinear_prepack(whole_OI, None)
        self._zeros_O = torch.zeros(len(whole_OI), dtype=torch.int32)
        self._dtype = weight_OI.dtype

    def parts(self, x_NI: Tensor) -> tuple[Tensor, Tensor]:
        """The product but for the scale of each row, and these scales [N]."""
        x_NI, step_N = loops.quantize(x_NI, self._by_I)
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            x_NI,
            1.0,
            _ZERO,
            self._packed,
            self._scale_O,
            self._zeros_O,
            None,
            1.0,
            0,
            self._dtype,
            "none",
            [],
            "",
        )
        return product, step_N

    def __call__(self, x_NI: Tensor) -> Tensor:
        """The product."""
        return loops.dequantize(*self.parts(x_NI))

    def activated(self, x_NI: Tensor, name: str) -> Tensor:
        """The product through an activation."""
        return ACTIVATIONS[name](self(x_NI))

    def plus(self, x_NI: Tensor, other_NO: Tensor) -> Tensor:
        """The product plus another tensor."""
        return loops.dequantize(*self.parts(x_NI), other_NO)

    def times(self, x_NI: Tensor, other_NO: Tensor) -> Tensor:
        """The product times another tensor."""
        return self(x_NI).mul_(other_NO)

    def weight(self) -> Tensor:
        """The weights as near as 8 bits hold them; nothing keeps the others."""
        whole_OI: Tensor = self._packed.to_dense().float().t() * self._scale_O[:, None]
        back_II = loops.spread(torch.eye(whole_OI.shape[1], dtype=torch.float32)).t()
        return ((whole_OI @ back_II) * self._by_I).to(self._dtype)


class QuantizedGate(Joint):
    """The inside of a gated MLP in 8 bits; activation, gate and the rows' scales in one loop."""

    linear: Quantized

    def __call__(self, x_NI: Tensor, name: str) -> Tensor:
        """The inside of the MLP."""
        if name != "silu":
            return super().__call__(x_NI, name)
        return loops.gate(*self.linear.parts(x_NI))


def why_not_int8() -> str | None:
    """Why there is no arithmetic of 8 bits here, in a few words; None if there is."""
    able = torch.cpu.get_capabilities()
    if not any(able.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8")):
        return "this processor has no products of 8 bits (VNNI or AMX)"
    if not hasattr(torch.ops.onednn, "qlinear_pointwise"):
        return "this torch has no oneDNN"
    if not loops.ready():
        return "numba is missing or cannot compile here: pip install 'echovec[fast]'"
    return None


def largest_inputs(model: Any, rows: Sequence[Sequence[int]]) -> dict[nn.Module, Tensor]:
    """How large each input of the modules to be rounded gets in some texts.

    Args:
        model: a backbone of transformers.
        rows: token ids of each text.

    Returns:
        The largest of each input, the first token's apart. Modules where one token's are larger
        than the others' by `MASSIVE` are not in it: there a model writes down, and later takes
        back, what all its tokens look at (Sun et al., arXiv 2402.17762), to the last digit.
    """
    seen: dict[nn.Module, _Seen] = {}
    with _watched(model, seen), torch.inference_mode():
        for ids in rows:
            model(input_ids=torch.tensor([ids], device=model.device), use_cache=False)
    return {module: found.largest_I for module, found in seen.items() if not found.massive}


@dataclass
class _Seen:
    """What is known of a module's inputs."""

    largest_I: Tensor
    by_token: list[Tensor]
    """The largest of each token, a tensor a text."""

    @property
    def massive(self) -> bool:
        """Whether one token's are far larger than is usual."""
        largest_T = torch.cat(self.by_token)
        return bool(largest_T.max() > MASSIVE * largest_T.median())


@contextmanager
def _watched(model: Any, seen: dict[nn.Module, _Seen]) -> Iterator[None]:
    def look(module: nn.Module, inputs: tuple[Tensor]) -> None:
        x_TI = inputs[0][0].abs()
        found = seen.setdefault(module, _Seen(torch.zeros_like(x_TI[0]), []))
        found.largest_I = torch.maximum(found.largest_I, x_TI[1:].amax(0))
        found.by_token.append(x_TI.amax(1))

    hooks = [
        module.register_forward_pre_hook(look)
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in _MODULES and isinstance(module, nn.Linear)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def quantizes(modules: Sequence[nn.Linear], largest: Mapping[nn.Module, Tensor]) -> bool:
    """Whether modules that share an input are to be rounded."""
    first = modules[0]
    has_bias = getattr(first, "bias", None) is not None
    return first in largest and not has_bias and len(largest[first]) % loops.SPREAD == 0
