"""Tiny randomly initialised models of every family, each with its own kind of tokenizer."""

from __future__ import annotations

import ast
import functools
import gc
import json
import sysconfig
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

VOCAB = 640


def sentences(count: int = 200) -> tuple[str, ...]:
    """Real sentences of mixed length that every machine has: docstrings of the standard library."""
    by_length = _paragraphs()
    step = len(by_length) / count
    return tuple(by_length[int(i * step)] for i in range(count))


@functools.cache
def _paragraphs() -> list[str]:
    """First paragraphs of docstrings, by length."""
    found: dict[str, None] = {}
    folder = Path(sysconfig.get_path("stdlib"))
    for file in sorted(folder.glob("*.py"))[:70]:
        gc.disable()  # a collection that parses too breaks this parse on CPython 3.11
        try:
            tree = ast.parse(file.read_text("utf-8", errors="replace"))
        finally:
            gc.enable()
        for node in _statements(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                paragraph = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
                if 12 <= len(paragraph) <= 400:
                    found[paragraph] = None
    return sorted(found, key=len)


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """As `ast.walk`, which also looks into each expression, where there are no docstrings."""
    found: deque[ast.AST] = deque([tree])
    while found:
        node = found.popleft()
        found += (n for n in ast.iter_child_nodes(node) if not isinstance(n, ast.expr))
        yield node


def _train(tokenizer: Tokenizer, special: list[str], *, byte_level: bool) -> Tokenizer:
    alphabet = pre_tokenizers.ByteLevel.alphabet() if byte_level else []
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences(), trainer)
    return tokenizer


def _byte_level(
    bos: str | None, eos: str | None, *, prefix_blank: bool = False
) -> PreTrainedTokenizerFast:
    """GPT-2, SmolLM, Qwen, OPT: byte-level BPE."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_blank)
    tokenizer.decoder = decoders.ByteLevel()
    special = [t for t in dict.fromkeys([bos, eos, "<|im_start|>"]) if t]
    return PreTrainedTokenizerFast(
        tokenizer_object=_train(tokenizer, special, byte_level=True), bos_token=bos, eos_token=eos
    )


def _sentencepiece(kind: str) -> PreTrainedTokenizerFast:
    """Llama and Gemma: SentencePiece-style BPE, with a prefix blank ("legacy", "first") or none."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    # As in the published tokenizer.json of Llama 2 and Mistral v0.1; newer Llama; Gemma.
    normalizer, pre_tokenizer = {
        "legacy": (
            normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
            None,
        ),
        "first": (None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False)),
        "none": (
            normalizers.Replace(" ", "▁"),
            pre_tokenizers.Split(" ", "merged_with_previous"),
        ),
    }[kind]
    # SentencePiece learns no piece that crosses a blank; say so while training only.
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    # The byte pieces stand in the vocabulary as ordinary pieces, as in real ones.
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trained = _only_special(_train(tokenizer, special, byte_level=False), special[:3])
    trained.normalizer = normalizer or normalizers.Sequence([])
    trained.pre_tokenizer = pre_tokenizer or pre_tokenizers.Sequence([])
    return PreTrainedTokenizerFast(
        tokenizer_object=trained, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def _only_special(tokenizer: Tokenizer, special: list[str]) -> Tokenizer:
    """Keep these added tokens only: trainers register every special piece as an added token."""
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] in special]
    return Tokenizer.from_str(json.dumps(content))


def _unigram() -> PreTrainedTokenizerFast:
    """Unigram with "</s>" as an ordinary piece of the vocabulary: the trap of XGLM and T5."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCAB,
        special_tokens=["<unk>", "<s>", "</s>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "byte-bos": lambda: _byte_level("<s>", "</s>"),
    "byte-no-bos": lambda: _byte_level(None, "<|endoftext|>"),
    "byte-one-marker": lambda: _byte_level("<|endoftext|>", "<|endoftext|>"),
    "byte-prefix-blank": lambda: _byte_level("<s>", "</s>", prefix_blank=True),
    "sentencepiece-legacy": lambda: _sentencepiece("legacy"),
    "sentencepiece-first": lambda: _sentencepiece("first"),
    "sentencepiece-no-prefix": lambda: _sentencepiece("none"),
    "unigram": _unigram,
}


@functools.cache
def tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """One of TOKENIZERS, trained once."""
    return TOKENIZERS[kind]()


_COMMON = {
    "vocab_size": VOCAB + 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 2048,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
_GROUPED = _COMMON | {"num_key_value_heads": 2}

# family: (configuration class, its arguments, tokenizer kind)
FAMILIES: dict[str, tuple[str, dict[str, Any], str]] = {
    "llama": ("LlamaConfig", _GROUPED, "sentencepiece-legacy"),
    "mistral": ("MistralConfig", _GROUPED | {"sliding_window": None}, "sentencepiece-first"),
    "ministral": (
        "MinistralConfig",
        _GROUPED
        | {
            "head_dim": 8,
            "sliding_window": 16,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        "byte-bos",
    ),
    "ministral3": (
        "Ministral3Config",
        _GROUPED
        | {
            "head_dim": 8,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10_000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
                "llama_4_scaling_beta": 0.5,
            },
        },
        "byte-bos",
    ),
    "qwen2": ("Qwen2Config", _GROUPED, "byte-no-bos"),
    "qwen3": ("Qwen3Config", _GROUPED | {"head_dim": 8}, "byte-no-bos"),
    "gemma": ("GemmaConfig", _GROUPED | {"head_dim": 8}, "sentencepiece-no-prefix"),
    "gemma2": (
        "Gemma2Config",
        _GROUPED
        | {
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "attn_logit_softcapping": 2.0,
            "sliding_window": 16,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        "sentencepiece-no-prefix",
    ),
    "gemma3": (
        "Gemma3TextConfig",
        _GROUPED
        | {
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": 16,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        "sentencepiece-no-prefix",
    ),
    "granite": (
        "GraniteConfig",
        _GROUPED
        | {
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.6,
            "attention_multiplier": 0.25,
        },
        "byte-one-marker",
    ),
    "seed_oss": ("SeedOssConfig", _GROUPED | {"head_dim": 8}, "byte-bos"),
    "olmo2": ("Olmo2Config", _GROUPED, "byte-one-marker"),
    "olmo3": (
        "Olmo3Config",
        _GROUPED | {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]},
        "byte-one-marker",
    ),
    "exaone4": (
        "Exaone4Config",
        _GROUPED
        | {
            "sliding_window": 16,
            "sliding_window_pattern": 2,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        "byte-bos",
    ),
    "gpt2": (
        "GPT2Config",
        {
            "vocab_size": VOCAB + 300,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 2048,
            "bos_token_id": None,
            "eos_token_id": None,
        },
        "byte-one-marker",
    ),
    "gpt_neox": ("GPTNeoXConfig", _COMMON, "byte-one-marker"),
    "opt": (
        "OPTConfig",
        {
            "vocab_size": VOCAB + 300,
            "hidden_size": 32,
            "ffn_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 2048,
            "word_embed_proj_dim": 24,
        },
        "byte-bos",
    ),
    "phi": ("PhiConfig", _COMMON, "byte-one-marker"),
    "phi3": ("Phi3Config", _GROUPED | {"pad_token_id": 0}, "sentencepiece-legacy"),
}


@functools.cache
def causal_model(family: str) -> Any:
    """A tiny model with its LM head, float32; the same weights at each call."""
    name, arguments, _ = FAMILIES[family]
    config = getattr(transformers, name)(**arguments)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = transformers.AutoModelForCausalLM.from_config(config)
        # Default initialisation is so small that attention hardly matters: make it matter.
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.3)
            else:  # one norm taken for another shall be seen
                parameter.data.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def family_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """The tokenizer kind that this family uses."""
    return tokenizer(FAMILIES[family][2])
