"""`python -m benchmarks.train_speed`: a training step here and in plain sentence-transformers.

Same model, LoRA, echo prompt, rows, batch and loss (cached, the same token budget); there with
padding and a padded mask for the second copy, here through the packed engine. Turns are taken in
one process, so what else the machine does falls on both. Losses must agree before speed is told.
Here it is taken three times: with every mini-batch twice through the model, as there; with one
kept from the first time, as a run does by default; and with all kept (`kept_tokens`).

`--memory ROWS` runs one cached step of so many rows in this process and prints its peak; `--kept`
says how many tokens it keeps.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

TOKENS = 4096


def main() -> None:
    """Print a table, or one JSON line for --memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", default="fast", choices=["fast", "exact"])
    parser.add_argument("--memory", type=int, help="rows of one step; used by --memories")
    parser.add_argument("--memories", help="rows of several, each in a process of its own")
    parser.add_argument("--kept", type=int, help="tokens kept, where memory is measured")
    options = parser.parse_args()
    if options.memory:
        print(json.dumps(memory(options.data, options.memory, options.kept)))
    elif options.memories:
        for rows in options.memories.split(","):
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.train_speed"]
            command += [str(options.data), "--memory", rows]
            command += [] if options.kept is None else ["--kept", str(options.kept)]
            print(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout, end=""
            )
    else:
        speed(options.data, options.rows, options.repeats, options.precision)


def speed(data: Path, rows: int, repeats: int, precision: str) -> None:
    """Both sides in turns: seconds of each and the ratio of medians."""
    run = chosen(rows, precision)
    ours, texts = our_step(run, data)
    sides = {
        "echovec": ours,
        "nothing kept": our_step(replace(run, kept_tokens=0), data)[0],
        "all kept": our_step(replace(run, kept_tokens=1 << 30), data)[0],
        "plain": plain_step(run, texts),
    }
    losses = {name: step() for name, step in sides.items()}  # and a warm-up
    print("losses", losses)
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, step in sides.items():
            begin = time.perf_counter()
            step()
            taken[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    for name, seconds in taken.items():
        rate = rows / medians[name]
        print(f"{name:12} {rate:6.2f} examples/s  {[round(s, 2) for s in seconds]}")
    for name in list(sides)[:-1]:
        print(f"{name}: {medians['plain'] / medians[name]:.2f} times as fast as plain")


def chosen(rows: int, precision: Any) -> Any:
    """The default model's run, with so many rows a step and GradCache."""
    from echovec.train.runs import RUNS

    return replace(
        RUNS["smollm2-echo"],
        batch_size=rows,
        mini_batch_tokens=TOKENS,
        precision=precision,
        sources=RUNS["smollm2-echo"].sources[:1],
        steps=1,
    )


def our_step(run: Any, data: Path) -> tuple[Callable[[], float], list[list[str]]]:
    """A step as the trainer does it, and the texts of its three columns."""
    from echovec.train.check import gradients
    from echovec.train.job import build, training_sets
    from echovec.train.schedule import schedule

    sets = training_sets(run, data)
    (planned,) = schedule(sets, batch_size=run.batch_size, steps=1, seed=run.seed)
    parts = build(run)
    examples = [sets[planned.of].examples[row] for row in planned.rows]
    columns = [
        [one.anchor for one in examples],
        [one.positive for one in examples],
        [one.negatives[0] for one in examples],
    ]
    return lambda: gradients(parts, sets, planned, run)[0], columns


def plain_step(run: Any, columns: list[list[str]]) -> Callable[[], float]:
    """The same step in sentence-transformers' own modules, as its users would write it."""
    import torch
    from sentence_transformers import SentenceTransformer, losses
    from torch import Tensor, nn

    from echovec.model.load import read_model
    from echovec.text.drafts import render
    from echovec.text.render import Renderer
    from echovec.text.tokenizer import HFTokenizer
    from echovec.train import lora

    dtype = torch.bfloat16 if run.precision == "fast" else torch.float32
    torch.manual_seed(run.seed)
    model, tokenizer, _ = read_model(None, device="cpu", dtype=dtype)
    wrapped = lora.adapted(model, rank=run.rank, alpha=run.alpha, dropout=0.0)
    view = run.recipe.views["symmetric"][0]
    renderer = Renderer(view.template, HFTokenizer(tokenizer), max_tokens=run.max_tokens)

    class Echo(nn.Module):
        """Prompts to padded states and the mask of their second copies."""

        def __init__(self) -> None:
            super().__init__()
            self.model = wrapped

        def preprocess(self, texts: list[str], **options: Any) -> dict[str, Tensor]:
            rendered = render(renderer, texts)
            shape = (len(rendered), max(len(one.ids) for one in rendered))
            ids, mask, span = (torch.zeros(shape, dtype=torch.long) for _ in range(3))
            for row, one in enumerate(rendered):
                ids[row, : len(one.ids)] = torch.as_tensor(one.ids)
                mask[row, : len(one.ids)] = 1
                span[row, slice(*one.spans[0])] = 1
            return {"input_ids": ids, "attention_mask": mask, "span": span}

        def forward(self, inputs: dict[str, Any], **options: Any) -> dict[str, Any]:
            states = wrapped(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
            ).last_hidden_state.float()
            weights = inputs["span"][..., None].float()
            pooled = (states * weights).sum(1) / weights.sum(1)
            return {**inputs, "sentence_embedding": pooled}

    transformer = SentenceTransformer(modules=[Echo()], device="cpu")
    transformer.train()
    loss = losses.CachedMultipleNegativesRankingLoss(
        transformer,
        scale=1 / run.temperature,
        mini_batch_size=run.batch_size,
        mini_batch_num_tokens=run.mini_batch_tokens,
    )
    features = [transformer[0].preprocess(texts) for texts in columns]

    def step() -> float:
        transformer.zero_grad()
        value = loss([dict(one) for one in features], None)
        value.backward()
        return float(value.detach())

    return step


def memory(data: Path, rows: int, kept: int | None = None) -> dict[str, float]:
    """The peak of one cached step in MB, over what the process had before it."""
    # Mini-batches that 64 rows of one column fill too: else more rows would fill them better.
    run = replace(chosen(rows, "fast"), max_tokens=8, mini_batch_tokens=1024, kept_tokens=kept)
    step, _ = our_step(run, data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    begin = time.perf_counter()
    step()
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"rows": rows, "before_mb": before, "peak_mb": peak, "seconds": seconds}


if __name__ == "__main__":
    main()
