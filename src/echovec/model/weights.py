"""Weights: how a model's linear modules are held by the packed backbone, and had back.

`Modules` calls them as they are; `prepacked` copies them into another layout, after which
`drop_linears` lets go of the originals and `Unpacked` reads the state as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from echovec.model import adapted, gradients
from echovec.model.blocks import Block, Norm
from echovec.model.families import Make
from echovec.model.fused import Fused, FusedGate
from echovec.model.gate import Gate, Joint, Pair
from echovec.model.layout import rounded_rows
from echovec.model.linear import HalfStored, Linear, Stock, cpu_kind
from echovec.model.quantized import Quantized, QuantizedGate, quantizes


class Modules:
    """Linear modules of a model, called as they are: adapters apply and gradients flow."""

    def __init__(self, *modules: nn.Module) -> None:
        self._modules = modules

    def __call__(self, x_NI: Tensor) -> Tensor:
        """The modules' outputs, side by side."""
        if (fused := adapted.product(self._modules, x_NI)) is not None:
            return fused
        outputs = [module(x_NI) for module in self._modules]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)

    activated = Stock.activated
    plus = Stock.plus
    times = Stock.times

    def wide(self, x_NI: Tensor) -> Tensor:
        """The same in float32, adapters too; what is widened is let go again."""
        return torch.cat([in_float32(module, x_NI) for module in self._modules], dim=-1)

    def weight(self) -> Tensor:
        """The modules' weights, one below the other; adapters not included."""
        return torch.cat([module.weight for module in self._modules])  # type: ignore[misc]

    @property
    def bias(self) -> Tensor | None:
        """Their biases, or None."""
        if getattr(self._modules[0], "bias", None) is None:
            return None
        return torch.cat([module.bias for module in self._modules])  # type: ignore[misc]


def in_float32(module: nn.Module, x: Tensor) -> Tensor:
    """What a module makes of x in float32, adapters too; what is widened is let go again."""
    state = [*module.named_parameters(), *module.named_buffers()]
    widened = {name: x.float() if x.is_floating_point() else x for name, x in state}
    if type(module) is nn.Linear:  # nobody else who is in the model sees anything of it
        return functional.linear(x, widened["weight"], widened.get("bias"))
    outputs: Tensor = torch.func.functional_call(module, widened, (x,))
    return outputs


def prepacked(*modules: nn.Linear) -> Linear:
    """Linear modules as one prepacked map."""
    weight, bias = _joined(modules)
    return _kind(weight)(weight, bias)


def prepacked_gate(*modules: nn.Linear) -> Gate:
    """A gated MLP's linear modules, or the one that is both, in the way that is fastest here."""
    weight, bias = _joined(modules)
    kinds = {_kind(half) for half in weight.chunk(2)}
    if kinds == {HalfStored}:
        return Joint(HalfStored(weight, bias))
    if kinds == {Fused}:
        return FusedGate(Fused(weight, bias))
    biases = (None, None) if bias is None else bias.chunk(2)
    halves = zip(weight.chunk(2), biases, strict=True)
    return Pair(*(_kind(half)(half, own) for half, own in halves))


def _joined(modules: Sequence[nn.Linear]) -> tuple[Tensor, Tensor | None]:
    with torch.inference_mode(False), torch.no_grad():
        weight = torch.cat([m.weight for m in modules])
        has_bias = modules[0].bias is not None
        return weight, torch.cat([m.bias for m in modules]) if has_bias else None


def _kind(weight_OI: Tensor) -> Callable[[Tensor, Tensor | None], Linear]:
    if weight_OI.device.type == "cuda":
        return Fused
    return cpu_kind(weight_OI) if weight_OI.device.type == "cpu" else Stock


def shared_gate(*modules: nn.Module) -> Gate:
    """A gated MLP's linear modules, or the one that is both, called as they are."""
    return SharedGate(*modules) if len(modules) == 2 else SharedJoint(Modules(*modules))


class SharedJoint(Joint):
    """One linear module that is gate and up."""

    def __call__(self, x_NI: Tensor, name: str) -> Tensor:
        """The inside of the MLP; for a gradient its backward pass is ours."""
        if name == "silu" and torch.is_grad_enabled():
            return gradients.gate(self.linear(x_NI))
        return super().__call__(x_NI, name)


class SharedGate(Pair):
    """A gated MLP's two linear modules, called as they are."""

    def __init__(self, gate: nn.Module, up: nn.Module) -> None:
        super().__init__(Modules(gate), Modules(up))
        self.linear = Modules(gate, up)

    def __call__(self, x_NI: Tensor, name: str) -> Tensor:
        """The inside of the MLP; for a gradient one product, whose backward pass is ours."""
        if name == "silu" and torch.is_grad_enabled():
            return gradients.gate(self.linear(x_NI))
        return super().__call__(x_NI, name)


def drop_linears(layer: nn.Module) -> None:
    """Let go of a layer's linear weights, which have been repacked."""
    for module in layer.modules():
        if isinstance(module, nn.Linear):
            module.weight = None  # type: ignore[assignment]
            module.bias = None  # type: ignore[assignment]


PREPACKED = Make(prepacked, prepacked_gate, Norm.fixed, drop_linears, at_once=4)
"""Copied into another layout, a few layers at a time: for inference alone."""


def quantizing(largest: Mapping[nn.Module, Tensor]) -> Make:
    """As `PREPACKED`, but in 8 bits where it is known how large the inputs get."""
    return replace(
        PREPACKED,
        linear=partial(_quantized, largest),
        gate=partial(_quantized_gate, largest),
    )


def _quantized(largest: Mapping[nn.Module, Tensor], *modules: nn.Linear) -> Linear:
    if not quantizes(modules, largest):
        return prepacked(*modules)
    return Quantized(_joined(modules)[0], largest[modules[0]])


def _quantized_gate(largest: Mapping[nn.Module, Tensor], *modules: nn.Linear) -> Gate:
    if not quantizes(modules, largest):
        return prepacked_gate(*modules)
    return QuantizedGate(Quantized(_joined(modules)[0], largest[modules[0]]))


SHARED = Make(Modules, shared_gate)
"""The model's own modules."""


def rounded(blocks: Sequence[Block]) -> int:
    """How many products of some blocks are computed in 8 bits."""
    parts = [part for b in blocks for part in (b.qkv, b.out, b.gate, b.down)]
    return sum(isinstance(part, Quantized | QuantizedGate) for part in parts)


def row_counts(blocks: Sequence[Block], device: torch.device) -> Callable[[int], int]:
    """How many rows a pass is to have where there are so many.

    As many, but where oneDNN multiplies, which makes a program for each number: one of few there.
    """
    return int if device.type != "cpu" or all(map(_any_size, blocks)) else rounded_rows


def _any_size(block: Block) -> bool:
    inside = block.gate.linear if isinstance(block.gate, Joint) else None
    return all(isinstance(x, HalfStored) for x in (block.qkv, block.out, inside, block.down))


def widened(block: Block) -> Block:
    """The same block computing in float32, for one call."""
    return replace(
        block,
        qkv=Wide(block.qkv),
        out=Wide(block.out),
        gate=Joint(Wide(block.gate)),
        down=Wide(block.down),
    )


class Wide(Stock):
    """A linear map in float32, its weights widened at each call and let go again."""

    def __init__(self, inner: Linear | Gate) -> None:
        self._inner: Linear | Gate = getattr(inner, "linear", inner)

    def __call__(self, x_NI: Tensor) -> Tensor:
        """The product."""
        if isinstance(self._inner, Modules):
            return self._inner.wide(x_NI)
        bias = self._inner.bias
        return functional.linear(
            x_NI, self._inner.weight().float(), None if bias is None else bias.float()
        )


class Unpacked(Mapping[str, Tensor]):
    """The state of the model before it was prepacked, read one tensor at a time."""

    _PLACES: Mapping[str, tuple[str, int | None]] = {
        "self_attn.qkv_proj": ("qkv", None),
        "mlp.gate_up_proj": ("gate", None),
        "self_attn.q_proj": ("qkv", 0),
        "self_attn.k_proj": ("qkv", 1),
        "self_attn.v_proj": ("qkv", 2),
        "self_attn.o_proj": ("out", 0),
        "mlp.gate_proj": ("gate", 0),
        "mlp.up_proj": ("gate", 1),
        "mlp.down_proj": ("down", 0),
    }

    def __init__(
        self, names: Sequence[str], rest: Mapping[str, Tensor], blocks: Sequence[Block]
    ) -> None:
        self._names, self._rest, self._blocks = names, rest, blocks

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, name: str) -> Tensor:
        if name in self._rest:
            return self._rest[name]
        _, depth, *module, kind = name.split(".")
        attribute, part = self._PLACES[".".join(module)]
        block = self._blocks[int(depth)]
        linear: Linear | Gate = getattr(block, attribute)
        whole = linear.weight() if kind == "weight" else linear.bias
        assert whole is not None, name
        if part is None:
            return whole
        E = block.head_dim
        heads = [block.num_heads * E, block.num_kv_heads * E, block.num_kv_heads * E]
        parts = {"qkv": heads, "gate": [len(whole) // 2] * 2}
        return torch.split(whole, parts.get(attribute, [len(whole)]))[part]
