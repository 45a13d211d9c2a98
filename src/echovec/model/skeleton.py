"""Skeleton: a Llama's modules by their names, without transformers and without a forward pass.

The packed engine takes a model apart (families.py); it never calls it. So what it is given need not
be transformers' model, whose import takes longer than everything else that a small model needs
before its first vector. Names, shapes and attributes are transformers'; start.py holds one to the
other before a skeleton is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Config:
    """A configuration as transformers filled it in: attributes are the keys of its dictionary."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self._told = dict(told)

    def __getattr__(self, name: str) -> Any:
        if name != "_told" and name in self._told:
            return self._told[name]
        raise AttributeError(name)

    def get_text_config(self) -> Config:
        """Itself: there is nothing but text."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """All of it."""
        return dict(self._told)


class Skeleton(nn.Module):
    """A Llama's embeddings, blocks and last norm; weights are empty until they are loaded.

    Args:
        config: its configuration.
        turns: how far each pair of numbers of a head is turned from one position to the next.
        turned: what cosines and sines are multiplied with.
    """

    family = "LlamaModel"
    """The class of transformers that it stands for."""

    def __init__(self, config: Config, turns: Tensor, turned: float) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = _Embedding(int(config.vocab_size), int(config.hidden_size))
        self.layers = nn.ModuleList(Layer(config) for _ in range(int(config.num_hidden_layers)))
        self.norm = Norm(config)
        self.rotary_emb = Rotary(turns, turned)

    @property
    def base_model(self) -> Skeleton:
        """Itself: it has no head."""
        return self

    @property
    def device(self) -> torch.device:
        """Where it is: what fits into a batch goes by that."""
        return self.embed_tokens.weight.device


class Layer(nn.Module):
    """One block."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = Mlp(config)
        self.input_layernorm = Norm(config)
        self.post_attention_layernorm = Norm(config)


class Attention(nn.Module):
    """Four products and what scores are multiplied with."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.head_dim = int(config.head_dim)
        self.scaling = self.head_dim**-0.5
        width, biased = int(config.hidden_size), bool(config.attention_bias)
        queries = int(config.num_attention_heads) * self.head_dim
        keys = int(config.num_key_value_heads) * self.head_dim
        self.q_proj = _Linear(width, queries, biased)
        self.k_proj = _Linear(width, keys, biased)
        self.v_proj = _Linear(width, keys, biased)
        self.o_proj = _Linear(queries, width, biased)


class Mlp(nn.Module):
    """A gated MLP's three products."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, inner = int(config.hidden_size), int(config.intermediate_size)
        biased = bool(config.mlp_bias)
        self.gate_proj = _Linear(width, inner, biased)
        self.up_proj = _Linear(width, inner, biased)
        self.down_proj = _Linear(inner, width, biased)


class Norm(nn.Module):
    """A gain, and what keeps the root from zero."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(int(config.hidden_size), device="meta"))
        self.variance_epsilon = float(config.rms_norm_eps)


class Rotary(nn.Module):
    """Cosines and sines of positions."""

    inv_freq: Tensor

    def __init__(self, turns: Tensor, turned: float) -> None:
        super().__init__()
        self.register_buffer("inv_freq", turns, persistent=False)
        self.turned = turned

    def forward(self, like: Tensor, positions_1L: Tensor) -> tuple[Tensor, Tensor]:
        """Both [1, L, E] for the positions, in the dtype of `like`."""
        half = positions_1L[..., None].float() * self.inv_freq
        angles = torch.cat([half, half], dim=-1)
        cos, sin = angles.cos() * self.turned, angles.sin() * self.turned
        return cos.to(like.dtype), sin.to(like.dtype)


class _Linear(nn.Linear):
    """Without weights, also random ones: to draw such for nowhere torch imports its compiler."""

    def __init__(self, inputs: int, outputs: int, biased: bool) -> None:
        super().__init__(inputs, outputs, bias=biased, device="meta")

    def reset_parameters(self) -> None:
        """Nothing is drawn."""


class _Embedding(nn.Embedding):
    """The same."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__(count, width, device="meta")

    def reset_parameters(self) -> None:
        """Nothing is drawn."""
