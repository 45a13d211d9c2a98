"""Blocks: the weights of a decoder model, taken out of the Hugging Face module that read them.

One layout serves every family whose block is norm, grouped attention with rotary positions, norm,
gated MLP: Llama (SmolLM, and all that borrow its class), Mistral, Ministral 3 (queries far
from the beginning are enlarged), Qwen2 (biases), Qwen3 (norms on
queries and keys), SmolLM3 (layers without positions), Gemma (norm gain counted from one), Gemma 3
(norms before and after, near and far layers with positions of their own), Granite (what a block
adds is scaled), Phi 3 (products that are one already), Seed-OSS, OLMo 2 and 3 and EXAONE 4 (norms
after only; OLMo's of all queries and of all keys at once). What is not in the table runs on the
plain backbone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from echovec.model import gradients, loops
from echovec.model.gate import Gate
from echovec.model.linear import ACTIVATIONS, Linear
from echovec.model.threads import sharing

FAMILIES: Mapping[str, float] = {
    "LlamaModel": 0.0,
    "MistralModel": 0.0,
    "Ministral3Model": 0.0,
    "Qwen2Model": 0.0,
    "Qwen3Model": 0.0,
    "SmolLM3Model": 0.0,
    "GemmaModel": 1.0,
    "Gemma3TextModel": 1.0,
    "GraniteModel": 0.0,
    "Phi3Model": 0.0,
    "SeedOssModel": 0.0,
    "Olmo2Model": 0.0,
    "Olmo3Model": 0.0,
    "Exaone4Model": 0.0,
}
"""Classes of transformers that are known, and what their norms add to the gain."""

_WINDOW_OF_ALL = ("MistralAttention", "Ministral3Attention", "Phi3Attention")
"""Attention that reads its window off the configuration; the others have their own."""

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
        return torch.tensor(value)


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


def why_not(model: Any) -> str | None:
    """Why the packed backbone cannot run this model, in a few words; None if it can."""
    config = model.config
    family = type(model).__name__
    if family not in FAMILIES or not type(model).__module__.startswith("transformers.models."):
        return f"{family} is not among {', '.join(FAMILIES)}"
    if getattr(config, "quantization_config", None) is not None:
        return "its weights are quantised"
    for positions in _kinds(config).values():
        if positions.get("rope_type", "default") not in _POSITIONS:
            return f"its rotary positions are of kind {positions['rope_type']!r}"
        if positions.get("partial_rotary_factor", 1.0) != 1.0:
            return "its rotary positions turn a part of each head only"
    if _activation(config) not in ACTIVATIONS:
        return f"its activation is {_activation(config)!r}"
    if getattr(config, "use_bidirectional_attention", False):
        return "its attention looks both ways"
    if getattr(config, "attn_logit_softcapping", None) is not None:
        return "its attention is capped"
    if getattr(model.config, "tp_plan", None) or hasattr(model, "hf_device_map"):
        return "it is spread over several devices"
    return None


@dataclass(frozen=True)
class Make:
    """How a model's linear modules become what a block multiplies with."""

    linear: Callable[..., Linear]
    """`(*modules) -> Linear`: one linear map of the modules' outputs side by side."""

    gate: Callable[..., Gate]
    """`(gate, up) -> Gate`, or `(both) -> Gate` where they are one module, the gate first."""

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


@dataclass(frozen=True)
class Enlarged:
    """Queries beyond some position, multiplied with a number that grows with it (Llama 4)."""

    beta: float
    within: int
    """Up to here nothing is enlarged."""

    def factors(self, positions_N: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """What the queries of each position are multiplied with; None: all of them with 1."""
        if positions_N.max(initial=0) < self.within:
            return None
        return (1 + self.beta * np.log1p(positions_N // self.within)).astype(np.float32)


def enlarged(model: Any) -> Enlarged | None:
    """How a model enlarges queries that stand far from the beginning; None: it does not."""
    beta = model.config.rope_parameters.get("llama_4_scaling_beta")
    within = model.config.rope_parameters.get("original_max_position_embeddings")
    return None if beta is None or within is None else Enlarged(float(beta), int(within))


def rotary_table(model: Any, kind: str, length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines [length, D / 2] of each position, from the model's own module."""
    device = model.embed_tokens.weight.device
    positions = torch.arange(length, device=device)[None]
    like = torch.zeros(1, dtype=dtype, device=device)
    with torch.inference_mode(False), torch.no_grad():
        cos, sin = model.rotary_emb(like, positions, *([kind] if kind else []))
    half = cos.shape[-1] // 2
    # Both halves of a head turn by the same angles: one is enough. Some give float32 always.
    return cos[0, :, :half].to(dtype).contiguous(), sin[0, :, :half].to(dtype).contiguous()


def _taken(model: Any, make: Make, layer: Any) -> Block:
    block = _block(model, layer, make)
    make.done(layer)
    return block


def _block(model: Any, layer: Any, make: Make) -> Block:
    config = model.config
    attention, mlp = layer.self_attn, layer.mlp
    head_dim = int(attention.head_dim)

    def norm(module: Any) -> Norm | None:
        return None if module is None else make.norm(_norm(model, module))

    # Where something else stands before the MLP or after it, "post attention" is meant literally.
    after_mlp = getattr(layer, "post_feedforward_layernorm", None)
    before_mlp, after = layer.post_attention_layernorm, None
    if after_mlp is not None:
        before_mlp, after = getattr(layer, "pre_feedforward_layernorm", None), before_mlp
    own = [norm(getattr(attention, name, None)) for name in ("q_norm", "k_norm")]
    of_heads = own[0] is None or own[0].width == head_dim
    return Block(
        norm_attention=norm(getattr(layer, "input_layernorm", None)),
        norm_mlp=norm(before_mlp),
        norm_query=own[0] if of_heads else None,
        norm_key=own[1] if of_heads else None,
        norm_queries=None if of_heads else own[0],
        norm_keys=None if of_heads else own[1],
        after_attention=norm(after),
        after_mlp=norm(after_mlp),
        share=float(getattr(layer, "residual_multiplier", 1.0)),
        qkv=make.linear(*_those(attention, "qkv_proj", "q_proj", "k_proj", "v_proj")),
        out=make.linear(attention.o_proj),
        gate=make.gate(*_those(mlp, "gate_up_proj", "gate_proj", "up_proj")),
        down=make.linear(mlp.down_proj),
        num_heads=int(config.num_attention_heads),
        num_kv_heads=int(config.num_key_value_heads),
        head_dim=head_dim,
        scale=float(attention.scaling),
        activation=_activation(config),
        rotary=_turns(attention),
        positions="" if "" in _kinds(config) else str(config.layer_types[attention.layer_idx]),
        window=_window(config, attention),
    )


def _those(module: Any, whole: str, *parts: str) -> list[Any]:
    """Linear modules that share an input: the one that is all of them, or each."""
    names = [whole] if hasattr(module, whole) else parts
    return [getattr(module, name) for name in names]


def _kinds(config: Any) -> Mapping[str, Any]:
    """The settings of a model's positions by kind of layer; of all of them under ""."""
    found = config.rope_parameters
    nested = all(isinstance(value, Mapping) for value in found.values())
    return found if found and nested else {"": found}


def _activation(config: Any) -> str:
    return str(getattr(config, "hidden_activation", None) or config.hidden_act)


def _norm(model: Any, module: Any) -> Norm:
    eps = getattr(module, "variance_epsilon", None) or module.eps
    return Norm(module, FAMILIES[type(model).__name__], float(eps))


def _turns(attention: Any) -> bool:
    """Whether positions turn queries and keys; some models leave out the layers that see far."""
    if type(attention).__name__ == "Exaone4Attention":
        return attention.sliding_window is None or bool(attention.is_sliding)
    return bool(getattr(attention, "use_rope", True))


def _window(config: Any, attention: Any) -> int | None:
    own = getattr(attention, "sliding_window", None)
    if own is None and type(attention).__name__ in _WINDOW_OF_ALL:
        own = getattr(config, "sliding_window", None)
    return int(own) if own and getattr(attention, "is_sliding", True) else None
