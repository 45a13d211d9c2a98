"""`python -m benchmarks.run`: all peers and this engine side by side, alternating, in one run.

Every speed stands beside its accuracy: the largest difference and the lowest cosine against the
plain engine in float32. Peers alternate (A, B, C, A, B, C, ...), so that a slow minute of the
machine falls on all of them; medians and minima of the repetitions are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Collection
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers import PEERS, Encode, Job
from benchmarks.table import is_narrow
from benchmarks.workloads import INSTRUCTION, Workload, sentences, workloads
from echovec import Embedder
from echovec.model.precision import multiplies_bfloat16

REST_S = 0.25
NO_BFLOAT16 = "this processor does not multiply bfloat16"

LIBRARIES = (
    "torch",
    "transformers",
    "sentence-transformers",
    "openvino",
    "onnxruntime",
    "numpy",
)


def main() -> None:
    """Parse the command line, run, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", default="", help="names or parts of names, with ; between")
    parser.add_argument("--workloads", default="", help="names or parts of names, with ; between")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="share of each workload's texts")
    parser.add_argument("--model", default=None)
    parser.add_argument("--quick", action="store_true", help="one repetition of a few texts")
    parser.add_argument("--latency", type=int, default=60, help="single queries per peer")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/run.json"))
    options = parser.parse_args()
    if options.quick:
        options.repetitions, options.scale, options.latency = 1, 0.05, 3
    oracle = Embedder.load(options.model, precision="exact", engine="plain")
    result = machine() | {"peak": peaks(), "repetitions": options.repetitions}
    peers = load(_chosen(PEERS, options.peers), Path(str(oracle.model_path)), result)
    every = {work.name: work for work in workloads(oracle.tokenizer, options.scale)}
    result["workloads"] = [
        measure(every[name], peers, oracle, options.repetitions)
        for name in _chosen(every, options.workloads)
    ]
    if options.latency:
        result["latency_ms"] = latency(peers, oracle, options.latency)
    result["load_after"] = os.getloadavg()[0]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1))
    print(f"written: {options.out}")


def load(names: list[str], path: Path, result: dict[str, Any]) -> dict[str, Encode]:
    """Load the peers; one that is not installed or fails is named with its reason."""
    loaded = {}
    result["not_run"] = {}
    for name in names:
        in_16_bits = is_narrow(name) and "int8" not in name
        if in_16_bits and not multiplies_bfloat16("cpu"):
            result["not_run"][name] = NO_BFLOAT16
            continue
        begin = time.perf_counter()
        try:
            loaded[name] = PEERS[name](path)
        except Exception as error:  # whatever a peer does, the others run
            result["not_run"][name] = f"{type(error).__name__}: {str(error)[:300]}"
            print(f"{name}: not run, {result['not_run'][name]}")
            continue
        print(f"{name}: loaded in {time.perf_counter() - begin:.1f} s")
    return loaded


def measure(
    work: Workload, peers: dict[str, Encode], oracle: Embedder, repetitions: int
) -> dict[str, Any]:
    """Seconds and accuracy of each peer on one workload."""
    job = Job(oracle, work.texts, work.recipe, work.instruction)
    role: Any = "query" if work.instruction else None
    bound = oracle.with_recipe(work.recipe)
    want, _ = bound.encode(
        list(work.texts), role=role, instruction=work.instruction, return_truncated=True
    )
    rendered = job.rendered()
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    accuracy = {}
    for name, encode in peers.items():  # also the warm-up
        got = encode(job)
        cosines = (got * want).sum(axis=1)
        accuracy[name] = [float(abs(got - want).max()), float(cosines.min())]
    for _ in range(repetitions):
        for name, encode in peers.items():
            begin = time.perf_counter()
            encode(job)
            seconds[name].append(time.perf_counter() - begin)
    row = {
        "name": work.name,
        "recipe": work.recipe,
        "texts": len(work.texts),
        "tokens": sum(len(r.ids) for r in rendered),
        "prefix": rendered[0].prefix,
        "flop": useful_flop(oracle, [(len(r.ids), r.prefix, r.spans[0]) for r in rendered]),
        "seconds": seconds,
        "accuracy": accuracy,
    }
    for name in peers:
        median = statistics.median(seconds[name])
        print(f"{work.name} | {name}: {median:.2f} s, {len(work.texts) / median:.1f} texts/s")
    return row


def latency(peers: dict[str, Encode], oracle: Embedder, count: int) -> dict[str, list[float]]:
    """Milliseconds of single queries, one at a time, peers alternating.

    Threads of some runtimes spin for a while after their work is done: without a rest the peer that
    comes next pays for it (ours behind ONNX Runtime: 191 ms without, 151 with it, 2026-11-28).
    """
    found: dict[str, list[float]] = {name: [] for name in peers}
    texts = sentences(count)
    for place, text in enumerate((*texts[:3], *texts)):
        for name, encode in peers.items():
            job = Job(oracle, [text], "echo-instruct", INSTRUCTION)
            time.sleep(REST_S)
            begin = time.perf_counter()
            encode(job)
            if place >= 3:
                found[name].append(1000 * (time.perf_counter() - begin))
    return found


def useful_flop(embedder: Embedder, prompts: list[tuple[int, int, tuple[int, int]]]) -> float:
    """What the texts need at least, in floating point operations, everything shared and pruned.

    Multiplications of the blocks and causal attention, of the tokens after the prompt's common
    beginning; in the last block keys and values for all, the rest for the pooled tokens only.
    """
    config: Any = embedder.backbone.model.config  # type: ignore[attr-defined]
    d, f, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    width = getattr(config, "head_dim", None) or d // heads
    query = out = 2 * d * heads * width
    key_value = 4 * d * groups * width
    mlp = 6 * d * f
    total = 0.0
    for length, prefix, (first, stop) in prompts:
        new, pooled = length - prefix, stop - first
        whole = new * (query + key_value + out + mlp)
        whole += 2 * heads * width * (length * (length + 1) - prefix * (prefix + 1))
        last = new * key_value + pooled * (query + out + mlp)
        last += 2 * heads * width * (stop * (stop + 1) - first * (first + 1))
        total += (layers - 1) * whole + last
    return total


def peaks(tries: int = 40) -> dict[str, float]:
    """The best rate of a matrix product seen on this machine, in FLOP per second, by dtype."""
    found = {}
    for name in ("float32", "bfloat16") if multiplies_bfloat16("cpu") else ("float32",):
        x = torch.randn(1024, 1536).to(getattr(torch, name))
        w = torch.randn(1536, 1536).to(getattr(torch, name))
        packed = torch.ops.mkldnn._reorder_linear_weight(w, 1024)
        best = float("inf")
        with torch.inference_mode():
            for _ in range(tries):
                begin = time.perf_counter()
                torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
                best = min(best, time.perf_counter() - begin)
        found[name] = 2 * 1024 * 1536 * 1536 / best
    return found


def machine() -> dict[str, Any]:
    """What this is running on."""
    cpu = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        wanted = ("model name", "cpu family", "model\t")
        cpu = "; ".join(
            dict.fromkeys(line.replace("\t", "") for line in lines if line.startswith(wanted))
        )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    load_before = os.getloadavg()[0]
    if load_before > 0.5:
        print(f"warning: load average {load_before:.1f}: something else runs")
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": cpu or platform.processor(),
        "threads": torch.get_num_threads(),
        "able": [k for k, v in torch.cpu.get_capabilities().items() if v is True],
        "versions": {name: _version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "commit": commit,
        "load_before": load_before,
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _chosen(names: Collection[str], wanted: str) -> list[str]:
    """The names asked for: by their whole name, or by a part of it; all where nothing is."""
    parts = [part.strip() for part in wanted.split(";") if part.strip()]
    return [
        name
        for name in names
        if not parts or any(p == name or (p not in names and p in name) for p in parts)
    ]


if __name__ == "__main__":
    main()
