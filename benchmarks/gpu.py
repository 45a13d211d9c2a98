"""On a GPU: this engine beside its peers, `python -m benchmarks.gpu --out FILE.json`.

Stages, each on its own so that one that fails leaves the others: the card's best bfloat16 product;
the default model's vectors against float32; STS sentences against eager transformers and
sentence-transformers' way of batching; a random model of Mistral-7B's shape on documents of 512
tokens and on instructed sentences. Data from ECHOVEC_DATA. Medians of alternating repetitions.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.workloads import INSTRUCTION, documents, sentences
from echovec import Embedder
from echovec.model.packed import PackedBackbone
from echovec.text.drafts import Rendered, render

Run = Callable[[], Any]


def timed(runs: Mapping[str, Run], repetitions: int) -> dict[str, float]:
    """Median seconds of each, alternating, after one run to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repetitions + 1):
        for name, run in runs.items():
            torch.cuda.synchronize()
            start = time.perf_counter()
            run()
            torch.cuda.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in seconds.items()}


def peak() -> float:
    """The best bfloat16 product of a few sizes, in TFLOP/s."""
    best = 0.0
    for size in (4096, 8192):
        a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        start, stop = (
            torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            for _ in range(2)
        )
        for _ in range(5):
            a @ b
        start.record()
        for _ in range(20):
            a @ b
        stop.record()
        torch.cuda.synchronize()
        best = max(best, 20 * 2 * size**3 / start.elapsed_time(stop) / 1e9)
    return best


def rendered(embedder: Embedder, texts: list[str], role: Any, instruction: Any) -> list[Rendered]:
    """Token ids and pooled span of every text."""
    return list(render(embedder._readers[role or "symmetric"].renderers[0], texts, instruction))


def padded(
    model: Any, embedder: Embedder, texts: list[str], size: int, *, by_length: bool, **said: Any
) -> Tensor:
    """Padded batches through a transformers model; the span's mean, of unit length."""
    every = rendered(embedder, texts, said.get("role"), said.get("instruction"))
    order = list(range(len(every)))
    if by_length:
        order.sort(key=lambda i: -len(every[i].ids))
    vectors = torch.zeros(len(every), embedder.dimension)
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        longest = max(len(every[i].ids) for i in chosen)
        ids, mask, span = (np.zeros((len(chosen), longest), dtype=np.int64) for _ in range(3))
        for row, i in enumerate(chosen):
            ids[row, : len(every[i].ids)] = every[i].ids
            mask[row, : len(every[i].ids)] = 1
            first, stop = every[i].spans[0]
            span[row, first:stop] = 1
        on_device = [torch.from_numpy(one).cuda() for one in (ids, mask, span)]
        with torch.inference_mode():
            states = model(
                input_ids=on_device[0], attention_mask=on_device[1], use_cache=False
            ).last_hidden_state
            w = on_device[2][..., None].to(states.dtype)
            z = ((states * w).sum(1) / w.sum(1)).float()
        vectors[chosen] = torch.nn.functional.normalize(z, dim=1).cpu()
    return vectors


def needed(model: Any, every: list[Rendered], prefix: int) -> float:
    """FLOP that these prompts need at least: no padding, the prefix once, no last-layer waste."""
    c = model.config
    d, f, h, k = c.hidden_size, c.intermediate_size, c.num_attention_heads, c.num_key_value_heads
    e = getattr(c, "head_dim", None) or d // h
    line = 2 * d * e * (h + 2 * k) + 2 * h * e * d + 6 * d * f
    total = 0.0
    for one in every:
        n = len(one.ids)
        total += c.num_hidden_layers * ((n - prefix) * line + 2 * h * e * (n * (n + 1) - prefix**2))
    return total


def accuracy(out: dict[str, Any], model: str) -> None:
    """bfloat16 on the GPU against float32 on it, and Spearman on STSBenchmark."""
    from scipy.stats import spearmanr

    from benchmarks.workloads import rows

    pairs = list(rows("STSBenchmark/test.jsonl.gz"))
    texts = [row[side] for side in ("sentence1", "sentence2") for row in pairs]
    gold = [row["score"] for row in pairs]
    found = {}
    for name, options in (
        ("exact", {"precision": "exact", "engine": "plain"}),
        ("fast", {"precision": "fast", "engine": "packed"}),
    ):
        embedder = Embedder.load(model, "echo-sentence", device="cuda", **options)  # type: ignore[arg-type]
        z = embedder.encode(texts)
        cosine = (z[: len(pairs)] * z[len(pairs) :]).sum(1)
        found[name] = z
        out[f"spearman, {name}"] = 100 * float(spearmanr(cosine, gold).statistic)
    out["lowest cosine"] = float((found["exact"] * found["fast"]).sum(1).min())


def small(out: dict[str, Any], model: str, repetitions: int) -> None:
    """The default model on STS sentences."""
    from transformers import AutoModel

    texts = list(sentences(2_500))
    ours = Embedder.load(model, "echo-sentence", device="cuda", precision="fast")
    assert isinstance(ours.backbone, PackedBackbone)
    out["ragged attention"] = ours.backbone._ragged
    peer = AutoModel.from_pretrained(str(ours.model_path), dtype=torch.bfloat16).cuda().eval()
    eager = (
        AutoModel.from_pretrained(
            str(ours.model_path), dtype=torch.bfloat16, attn_implementation="eager"
        )
        .cuda()
        .eval()
    )
    runs: dict[str, Run] = {
        "transformers, eager attention, unsorted, batch 32": lambda: padded(
            eager, ours, texts, 32, by_length=False
        ),
        "transformers, sdpa, sorted, batch 128": lambda: padded(
            peer, ours, texts, 128, by_length=True
        ),
        "transformers, sdpa, sorted, batch 512": lambda: padded(
            peer, ours, texts, 512, by_length=True
        ),
    }
    os.environ["ECHOVEC_CUDA_GRAPHS"] = "1"  # read as the model is loaded
    recorded = Embedder.load(model, "echo-sentence", device="cuda", precision="fast")
    del os.environ["ECHOVEC_CUDA_GRAPHS"]
    for kind, embedder in (("", ours), (", recorded", recorded)):
        for tokens in (4_096, 16_384, 65_536):
            runs[f"echovec{kind}, {tokens:,} tokens a batch"] = (
                lambda e=embedder, tokens=tokens: e.encode(texts, batch_tokens=tokens)  # type: ignore[misc]
            )
    seconds = timed(runs, repetitions)
    work = needed(peer, rendered(ours, texts, None, None), 5)
    out["texts"] = len(texts)
    out["seconds"] = seconds
    out["TFLOP/s"] = {name: work / s / 1e12 for name, s in seconds.items()}
    cosines = (ours.encode(texts) * recorded.encode(texts)).sum(1)
    out["recorded, lowest cosine"] = float(cosines.min())
    one = [texts[7]]
    out["one text, ms"] = {
        name: 1e3 * s
        for name, s in timed(
            {
                "transformers": lambda: padded(peer, ours, one, 1, by_length=False),
                "echovec": lambda: ours.encode(one),
                "echovec, recorded": lambda: recorded.encode(one),
            },
            20,
        ).items()
    }


def large(out: dict[str, Any], model: str, repetitions: int) -> None:
    """A random model of Mistral-7B's shape, on the default model's tokenizer."""
    from transformers import AutoConfig, MistralConfig, MistralModel

    small_one = Embedder.load(model, "echo", device="cpu", precision="fast")
    config = MistralConfig(
        vocab_size=AutoConfig.from_pretrained(str(small_one.model_path)).vocab_size
    )
    config.sliding_window = None
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            peer = MistralModel(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    backbone = PackedBackbone(copy.deepcopy(peer), prepack=True)
    long = documents(small_one.tokenizer, 48, 512)
    short = list(sentences(2_500))
    for name, recipe, texts, said, size in (
        ("documents of 512 tokens", "echo", list(long), {}, 16),
        (
            "instructed sentences",
            "echo-instruct",
            short[:1_000],
            {"role": "query", "instruction": INSTRUCTION},
            128,
        ),
    ):
        ours = Embedder(recipe, small_one.tokenizer, backbone)
        work = needed(
            peer,
            rendered(ours, texts, said.get("role"), said.get("instruction")),
            0 if recipe == "echo" else 18,
        )
        # The peer's last-token pooling and our mean cost the same: what is timed is the model.
        seconds = timed(
            {
                "transformers, sdpa, sorted": lambda o=ours, t=texts, s=size, k=said: padded(  # type: ignore[misc]
                    peer, o, t, s, by_length=True, **k
                ),
                "echovec": lambda o=ours, t=texts, k=said: o.encode(t, batch_tokens=32_768, **k),  # type: ignore[misc]
            },
            repetitions,
        )
        out[name] = {
            "seconds": seconds,
            "TFLOP/s": {peer_name: work / s / 1e12 for peer_name, s in seconds.items()},
        }
        print(name, out[name], flush=True)


def main() -> None:
    """Run all stages, print them, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default=None)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    found: dict[str, Any] = {
        "card": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "best product, TFLOP/s": peak(),
    }
    turns = options.repetitions
    stages: list[Callable[[dict[str, Any]], None]] = [
        lambda out: accuracy(out, options.model),
        lambda out: small(out, options.model, turns),
        lambda out: large(out, options.model, min(3, turns)),
    ]
    for stage in stages:
        own: dict[str, Any] = {}
        start = time.perf_counter()
        try:
            stage(own)
        except Exception:  # a stage that fails is reported beside those that did not
            own["failed"] = traceback.format_exc()
        own["stage seconds"] = time.perf_counter() - start
        print(json.dumps(own, indent=1), flush=True)
        found |= own
        options.out.write_text(json.dumps(found, indent=1), "utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
