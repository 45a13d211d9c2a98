"""Blocks: the weights of a decoder model, taken out of the Hugging Face module that read them.

One layout serves every family whose block is norm, grouped attention with rotary positions, norm,
gated MLP: Llama (SmolLM, and all that borrow its class), Mistral, Qwen2 (biases), Qwen3 (norms on
queries and keys), SmolLM3 (layers without positions), Gemma (norm gain counted from one). What is
not in the table runs on the plain backbone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from echovec.model import gradients, loops
from echovec.model.gate import Gate
from echovec.model.linear import ACTIVATIONS, Linear
from echovec.model.threads import sharing

FAMILIES: Mapping[str, float] = {
    "LlamaModel": 0.0,
    "MistralModel": 0.0,
    "Qwen2Model": 0.0,
    "Qwen3Model": 0.0,
    "SmolLM3Model": 0.0,
    "GemmaModel": 1.0,
}
"""Classes of transformers that are known, and what their norms add to the gain."""

_POSITIONS = ("default", "linear", "llama3", "yarn")
"""Kinds of rotary positions whose angles do not depend on the batch."""


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
        frozen = not gain.requires_grad
        gain = (gain + self.offset if self.offset else gain).to(x.dtype)
        if frozen and torch.is_grad_enabled() and x.requires_grad:
            return gradients.norm(x, gain, self.eps)
        if x.device.type == "cpu" and not torch.is_grad_enabled():
            return scaled(x.float(), gain.float(), self.eps).to(x.dtype)
        return functional.rms_norm(x, gain.shape, gain, self.eps)

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
        return torch.tensor(value)


@dataclass(frozen=True, eq=False)
class Block:
    """One decoder block."""

    norm_attention: Norm
    norm_mlp: Norm
    norm_query: Norm | None
    norm_key: Norm | None
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

    window: int | None
    """How many keys back a query sees, itself included; None: all."""


def why_not(model: Any) -> str | None:
    """Why the packed backbone cannot run this model, in a few words; None if it can."""
    config = model.config
    family = type(model).__name__
    if family not in FAMILIES or not type(model).__module__.startswith("transformers.models."):
        return f"{family} is not among {', '.join(FAMILIES)}"
    if getattr(config, "quantization_config", None) is not None:
        return "its weights are quantised"
    positions = config.rope_parameters
    if positions.get("rope_type", "default") not in _POSITIONS:
        return f"its rotary positions are of kind {positions['rope_type']!r}"
    if positions.get("partial_rotary_factor", 1.0) != 1.0:
        return "its rotary positions turn a part of each head only"
    if config.hidden_act not in ACTIVATIONS:
        return f"its activation is {config.hidden_act!r}"
    if getattr(model.config, "tp_plan", None) or hasattr(model, "hf_device_map"):
        return "it is spread over several devices"
    return None


@dataclass(frozen=True)
class Make:
    """How a model's linear modules become what a block multiplies with."""

    linear: Callable[..., Linear]
    """`(*modules) -> Linear`: one linear map of the modules' outputs side by side."""

    gate: Callable[..., Gate]
    """`(gate, up) -> Gate`."""

    norm: Callable[[Norm], Norm] = lambda norm: norm
    """What its norms become."""

    done: Callable[[nn.Module], None] = lambda layer: None
    """What happens to a layer whose modules are taken."""

    at_once: int = 1
    """How many layers are made at once, by as many threads; each needs memory of its own."""


def blocks_of(model: Any, make: Make) -> list[Block]:
    """The blocks of a supported model, first to last.

    Args:
        model: a backbone of transformers, one that `why_not` has no word against.
        make: what its linear modules become.
    """
    workers = min(torch.get_num_threads(), make.at_once)
    if workers == 1:
        return [_taken(model, make, layer) for layer in model.layers]
    with sharing(workers) as pool:
        return list(pool.map(partial(_taken, model, make), model.layers))


def final_norm(model: Any) -> Norm:
    """The norm after the last block."""
    return _norm(model, model.norm)


def rotary_table(model: Any, length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines [length, D / 2] of each position, from the model's own module."""
    device = model.embed_tokens.weight.device
    positions = torch.arange(length, device=device)[None]
    like = torch.zeros(1, dtype=dtype, device=device)
    with torch.inference_mode(False), torch.no_grad():
        cos, sin = model.rotary_emb(like, positions)
    half = cos.shape[-1] // 2
    # Both halves of a head turn by the same angles: one is enough.
    return cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous()


def _taken(model: Any, make: Make, layer: Any) -> Block:
    block = _block(model, layer, make)
    make.done(layer)
    return block


def _block(model: Any, layer: Any, make: Make) -> Block:
    config = model.config
    attention, mlp = layer.self_attn, layer.mlp
    head_dim = int(attention.head_dim)
    query_norm = getattr(attention, "q_norm", None)
    key_norm = getattr(attention, "k_norm", None)
    return Block(
        norm_attention=make.norm(_norm(model, layer.input_layernorm)),
        norm_mlp=make.norm(_norm(model, layer.post_attention_layernorm)),
        norm_query=None if query_norm is None else make.norm(_norm(model, query_norm)),
        norm_key=None if key_norm is None else make.norm(_norm(model, key_norm)),
        qkv=make.linear(attention.q_proj, attention.k_proj, attention.v_proj),
        out=make.linear(attention.o_proj),
        gate=make.gate(mlp.gate_proj, mlp.up_proj),
        down=make.linear(mlp.down_proj),
        num_heads=int(config.num_attention_heads),
        num_kv_heads=int(config.num_key_value_heads),
        head_dim=head_dim,
        scale=float(attention.scaling),
        activation=str(config.hidden_act),
        rotary=bool(getattr(attention, "use_rope", True)),
        window=_window(config, attention),
    )


def _norm(model: Any, module: Any) -> Norm:
    eps = getattr(module, "variance_epsilon", None) or module.eps
    return Norm(module, FAMILIES[type(model).__name__], float(eps))


def _window(config: Any, attention: Any) -> int | None:
    # Mistral's attention reads it off the configuration, the others off each layer.
    own = getattr(attention, "sliding_window", None)
    if own is None and type(attention).__name__ == "MistralAttention":
        own = getattr(config, "sliding_window", None)
    return int(own) if own else None
