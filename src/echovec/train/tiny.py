"""Tiny: a random Llama over bytes and a few made-up pairs, for tests and a first look."""

from __future__ import annotations

from typing import Any

import torch

from echovec.train.data import Example, Source, TrainingSet

_NOUNS = ("cat", "dog", "ship", "tree", "king", "road", "song", "lamp")
_VERBS = ("sees", "finds", "loses", "paints")


def tiny_model(seed: int = 0) -> tuple[Any, Any]:
    """A two-block Llama of width 32 with random weights, and a tokenizer of bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0, "</s>": 1, **{letter: i for i, letter in enumerate(alphabet, 2)}}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.2,  # a deviation at which random blocks do something
    )
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        return LlamaModel(config).eval(), tokenizer
    finally:
        torch.set_rng_state(state)


def tiny_sets() -> list[TrainingSet]:
    """Two sets of 32 rows: sentences with negatives, and pairs without."""
    sentences = [
        Example(f"the {a} {v} the {b}", f"a {a} {v} a {b}", (f"the {b} {v} the {a}",))
        for v in _VERBS
        for a, b in zip(_NOUNS, _NOUNS[1:] + _NOUNS[:1], strict=True)
    ]
    pairs = [
        Example(f"who {v} the {b}?", f"{a} {v} {b} today")
        for v in _VERBS
        for a, b in zip(_NOUNS, _NOUNS[3:] + _NOUNS[:3], strict=True)
    ]
    return [
        TrainingSet(Source(path="", symmetric=True), "sentences", tuple(sentences)),
        TrainingSet(Source(path=""), "pairs", tuple(pairs)),
    ]
