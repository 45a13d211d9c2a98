"""Families: decoder models of transformers as blocks, each taken out of the module that read it.

One layout serves every family whose block is norm, grouped attention with rotary positions, norm,
gated MLP. What is not in the table runs on the plain backbone.

| family | what is its own |
|---|---|
| Llama, SmolLM, and all that borrow the class; Mistral; Seed-OSS | nothing |
| Ministral | near and far layers |
| Ministral 3 | queries far from the beginning are enlarged |
| Qwen2 | biases |
| Qwen3 | norms of each head's queries and keys |
| SmolLM3, EXAONE 4 | layers without positions |
| Gemma | gains of norms are counted from one |
| Gemma 2 | norms before and after; near and far layers; scores that are capped |
| Gemma 3 | the same without a cap; near and far layers have positions of their own |
| Granite | embeddings, and what a block adds, are scaled |
| Phi 3 | products that are one module already |
| OLMo 2 and 3, EXAONE 4 | norms after only; OLMo's of all queries at once, and of all keys |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from echovec.model.blocks import Block, Norm
from echovec.model.gate import Gate
from echovec.model.linear import ACTIVATIONS, Linear
from echovec.model.skeleton import Skeleton
from echovec.model.threads import sharing

FAMILIES: Mapping[str, float] = {
    "LlamaModel": 0.0,
    "MistralModel": 0.0,
    "MinistralModel": 0.0,
    "Ministral3Model": 0.0,
    "Qwen2Model": 0.0,
    "Qwen3Model": 0.0,
    "SmolLM3Model": 0.0,
    "GemmaModel": 1.0,
    "Gemma2Model": 1.0,
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

# A configuration keeps whatever keys its file has: of each family those are read that its class
# reads, or a key that means nothing to a model would move its vectors.
_POSITIONS_BY_LAYER = ("Gemma3TextModel", "Olmo3Model")
_ENLARGED = ("Ministral3Model",)
_CAPPED = ("Gemma2Model",)
_OWN_ACTIVATION = ("Gemma2Model", "Gemma3TextModel")


def why_not(model: Any, *, repack: bool = False) -> str | None:
    """Why the packed backbone cannot run this model, in a few words; None if it can.

    Args:
        model: a backbone of transformers, adapters of PEFT inside it.
        repack: whether its weights are to be taken out of it; adapters would be left behind.
    """
    config = model.config
    family = _family(model)
    if family not in FAMILIES or not _is_known(model):
        return f"{family} is no family that the packed engine knows (docs/performance.md)"
    if getattr(config, "quantization_config", None) is not None:
        return "its weights are quantised"
    return _why_not_adapted(model, repack) or _why_not_attention(model) or _why_not_rest(model)


def _why_not_adapted(model: Any, repack: bool) -> str | None:
    if repack and any(map(_is_pefts, model.modules())):
        return "an adapter of PEFT is in it (merge_and_unload would merge it)"
    if _is_wrapped(model):
        return "an adapter of PEFT stands for whole blocks or norms of it"
    return None


def _why_not_attention(model: Any) -> str | None:
    for positions in _kinds(model).values():
        if positions.get("rope_type", "default") not in _POSITIONS:
            return f"its rotary positions are of kind {positions['rope_type']!r}"
        if positions.get("partial_rotary_factor", 1.0) != 1.0:
            return "its rotary positions turn a part of each head only"
    if getattr(model.config, "use_bidirectional_attention", False):
        return "its attention looks both ways"
    if any(not _agree(model, layer.self_attn) for layer in model.layers):
        return "its attention has a window of nothing, or another one than its masks"
    return None


def _why_not_rest(model: Any) -> str | None:
    if _activation(model) not in ACTIVATIONS:
        return f"its activation is {_activation(model)!r}"
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


def parts_of(model: Any) -> list[nn.Module]:
    """The modules that `blocks_of` and `final_norm` take, each in its place."""
    wholes = [part for layer in model.layers for part in (layer, layer.self_attn, layer.mlp)]
    return [model.norm, *(part for whole in wholes for part in whole.children())]


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
    if _family(model) not in _ENLARGED:
        return None
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
        activation=_activation(model),
        rotary=_turns(attention),
        positions="" if "" in _kinds(model) else str(config.layer_types[attention.layer_idx]),
        window=_window(config, attention),
        cap=config.attn_logit_softcapping if _family(model) in _CAPPED else None,
    )


def _family(model: Any) -> str:
    """The class of transformers that a model is of, or stands for."""
    return model.family if isinstance(model, Skeleton) else type(model).__name__


def _is_known(model: Any) -> bool:
    """Whether the class is the one of that name, not one of somebody's own."""
    own = type(model).__module__.startswith("transformers.models.")
    return own or isinstance(model, Skeleton)


def _those(module: Any, whole: str, *parts: str) -> list[Any]:
    """Linear modules that share an input: the one that is all of them, or each."""
    names = [whole] if hasattr(module, whole) else parts
    return [getattr(module, name) for name in names]


def _kinds(model: Any) -> Mapping[str, Any]:
    """The settings of a model's positions by kind of layer; of all of them under ""."""
    found = model.config.rope_parameters
    if _family(model) not in _POSITIONS_BY_LAYER:
        return {"": found}
    return {name: found[name] for name in set(model.config.layer_types)}


def _activation(model: Any) -> str:
    config = model.config
    own = _family(model) in _OWN_ACTIVATION
    return str(config.hidden_activation if own else config.hidden_act)


def _is_pefts(module: nn.Module) -> bool:
    # PEFT is an extra and stays unimported: its modules are known by name.
    return type(module).__module__.startswith("peft.")


def _is_wrapped(model: Any) -> bool:
    """Whether an adapter stands for what is not called as a module, and would be left out."""
    wholes = [part for layer in model.layers for part in (layer, layer.self_attn, layer.mlp)]
    norms = [x for part in wholes for name, x in part.named_children() if "norm" in name]
    return any(map(_is_pefts, wholes)) or not all(map(_has_eps, [*norms, model.norm]))


def _has_eps(module: nn.Module) -> bool:
    return hasattr(module, "variance_epsilon") or hasattr(module, "eps")


def _agree(model: Any, attention: Any) -> bool:
    """Whether a block's attention says of its window what the model's mask for it says."""
    types = getattr(model.config, "layer_types", None)
    window = _window(model.config, attention)
    if window is not None and window < 1:
        return False
    if types is None or not hasattr(attention, "sliding_window"):
        return True
    return bool((types[attention.layer_idx] == "sliding_attention") == (window is not None))


def _norm(model: Any, module: Any) -> Norm:
    eps = getattr(module, "variance_epsilon", None) or module.eps
    return Norm(module, FAMILIES[_family(model)], float(eps))


def _turns(attention: Any) -> bool:
    """Whether positions turn queries and keys; some models leave out the layers that see far."""
    if type(attention).__name__ == "Exaone4Attention":
        return attention.sliding_window is None or bool(attention.is_sliding)
    return bool(getattr(attention, "use_rope", True))


def _window(config: Any, attention: Any) -> int | None:
    own = getattr(attention, "sliding_window", None)
    if own is None and type(attention).__name__ in _WINDOW_OF_ALL:
        own = getattr(config, "sliding_window", None)
    return None if own is None or not getattr(attention, "is_sliding", True) else int(own)
