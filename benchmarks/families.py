"""`python -m benchmarks.families`: models of other families beside transformers, on this CPU.

Random weights in the shape of published models, rounded to bfloat16 as those are, with the default
model's tokenizer: how fast an engine is does not depend on what a model has learnt. STS sentences
by `echo-sentence`, peers alternating, medians; accuracy against the plain engine in float32. Data
from ECHOVEC_DATA.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.run import load, measure
from benchmarks.workloads import Workload, sentences
from echovec import Embedder

PEERS = (
    "transformers, sorted, float32",
    "transformers, sorted by token budget, bfloat16",
    "echovec, packed, exact",
    "echovec, packed, fast",
    "echovec, packed, int8",
)

SHAPES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "Gemma 3, 270M": (
        "Gemma3TextConfig",
        {
            "hidden_size": 640,
            "intermediate_size": 2048,
            "num_hidden_layers": 18,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "query_pre_attn_scalar": 256,
            "sliding_window": 512,
        },
    ),
    "Gemma 2 2B, 4 of its 26 layers": (
        "Gemma2Config",
        {
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_hidden_layers": 4,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "query_pre_attn_scalar": 256,
            "sliding_window": 4096,
            "attn_logit_softcapping": 50.0,
        },
    ),
    "Granite 4.0, 350M": (
        "GraniteConfig",
        {
            "hidden_size": 1024,
            "intermediate_size": 2048,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "embedding_multiplier": 12.0,
            "residual_multiplier": 0.25,
            "attention_multiplier": 1 / 64,
        },
    ),
    "Qwen3, 0.6B": (
        "Qwen3Config",
        {
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
        },
    ),
    "OLMo 2, 1B, 4 of its 16 layers": (
        "Olmo2Config",
        {
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 4,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
        },
    ),
    "Phi 3 mini, 4 of its 32 layers": (
        "Phi3Config",
        {
            "hidden_size": 3072,
            "intermediate_size": 8192,
            "num_hidden_layers": 4,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
        },
    ),
}
"""A class of transformers' configurations, and what a published model has in it."""


def main() -> None:
    """Print a line for each shape and peer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", default="", help="parts of names, with ; between")
    parser.add_argument("--texts", type=int, default=40)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/families.json"))
    options = parser.parse_args()
    tokenizer = Embedder.load().hugging_face[1]
    work = Workload("sentences", "echo-sentence", sentences(options.texts))
    found: dict[str, Any] = {}
    for name, (kind, arguments) in SHAPES.items():
        if not any(part in name for part in options.shapes.split(";")):
            continue
        with tempfile.TemporaryDirectory() as kept:
            folder = Path(kept)
            made(kind, arguments, len(tokenizer)).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            oracle = Embedder.load(folder, "echo-sentence", precision="exact", engine="plain")
            result: dict[str, Any] = {}
            peers = load(list(PEERS), folder, result)
            found[name] = measure(work, peers, oracle, options.repetitions) | result
        print(table(name, found[name]), flush=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=1))


def made(kind: str, arguments: Mapping[str, Any], vocabulary: int) -> Any:
    """A model of this shape whose weights are random numbers of bfloat16, kept in float32."""
    config = getattr(transformers, kind)(vocab_size=vocabulary, pad_token_id=0, **arguments)
    torch.manual_seed(0)
    return transformers.AutoModel.from_config(config).to(torch.bfloat16).float()


def table(name: str, found: Mapping[str, Any]) -> str:
    """Seconds of each peer, how much faster than the first of its kind, and accuracy."""
    medians = {peer: statistics.median(took) for peer, took in found["seconds"].items()}
    lines = [
        f"| {name} | s | faster | largest difference | lowest cosine |",
        "|---|---|---|---|---|",
    ]
    for peer, took in medians.items():
        than = PEERS[0] if "float32" in peer or "exact" in peer else PEERS[1]
        ratio = medians[than] / took if than in medians else float("nan")
        apart, cosine = found["accuracy"][peer]
        lines.append(f"| {peer} | {took:.2f} | {ratio:.2f}x | {apart:.1e} | {cosine:.5f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
