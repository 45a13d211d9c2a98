"""`python -m benchmarks.train_arms DATA OUT`: the paper's fine-tuning claim on a small model.

Echo, echo at classical's cost (half the steps), classical and bidirectional, trained on the same
rows in the same order with the same settings, several seeds each, then scored on tasks that none of
them saw. The other way to echo at classical's cost, texts cut in half (`smollm2-echo-matched`), is
for long texts: of a sentence it leaves half a sentence (docs/LOG.md).

Resumable: runs and scores that are in OUT are not made again. Prints a Markdown table of means over
seeds with 95 % t-intervals, and of differences to echo, seed by seed.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ARMS = {
    "echo": "smollm2-echo",
    "echo, half the steps": "smollm2-echo",
    "classical": "smollm2-classical",
    "bidirectional": "smollm2-bidirectional",
}
TASKS = {
    "STSBenchmark": "STS",
    "STS16-local": "STS",
    "SciFact": "Retrieval",
    "XQuAD-en-retrieval": "Retrieval",
    "Banking77Classification": "Classification",
    "EmotionClassification": "Classification",
    "StackOverflowShort": "Clustering",
    "TwentyNewsgroups-subjects": "Clustering",
}
Scores = Mapping[str, Mapping[int, Mapping[str, float]]]
"""By arm, seed and task, in points."""


def main() -> None:
    """Train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--sources", type=int, default=2, help="1: sentences only, thrice as fast")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--sample", type=int, default=150)
    parser.add_argument("--print", action="store_true", help="only what is there")
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    scores: dict[str, dict[int, dict[str, float]]] = {arm: {} for arm in ARMS}
    for seed in seeds:  # seed by seed, so that an early end leaves whole comparisons
        for arm in ARMS:
            found = scored(arm, seed, options)
            if found:
                scores[arm][seed] = found
    print(table(scores))


def scored(arm: str, seed: int, options: argparse.Namespace) -> dict[str, float] | None:
    """One arm's scores by task, from its file or made now."""
    folder = options.out / f"{arm.replace(', ', '-')}-{seed}"
    file = folder / "scores.json"
    if file.is_file():
        found: dict[str, float] = json.loads(file.read_text("utf-8"))
        return found
    if options.print:
        return None
    from echovec import Embedder
    from echovec.evaluate.run import evaluate
    from echovec.train.job import train
    from echovec.train.runs import RUNS

    if not (folder / "recipe.json").is_file():
        run = RUNS[ARMS[arm]]
        steps = options.steps // 2 if arm.endswith("half the steps") else options.steps
        sources = run.sources[: options.sources]
        run = replace(run, sources=sources, steps=steps, seed=seed, warmup_steps=2)
        run = replace(run, batch_size=options.batch, eval_every=1000)
        train(run, folder, data=options.data)
    trained = Embedder.load(folder, precision="fast", max_tokens=128)
    outcomes = evaluate(
        trained,
        [trained.definition],
        list(TASKS),
        out=folder / "eval",
        data=options.data,
        sample=options.sample,
    )
    made = {outcome.task: 100 * outcome.main_score for outcome in outcomes}
    file.write_text(json.dumps(made), "utf-8")
    print(arm, seed, made, flush=True)
    return made


def table(scores: Scores) -> str:
    """Means over seeds by category, and differences to echo of the same seed."""
    categories = list(dict.fromkeys(TASKS.values()))
    lines = ["| arm | seeds | " + " | ".join((*categories, "mean")) + " | echo minus it |"]
    lines.append("|---" * (len(categories) + 4) + "|")
    for arm, by_seed in scores.items():
        rows = {seed: by_category(tasks, categories) for seed, tasks in by_seed.items()}
        cells = [interval([row[c] for row in rows.values()]) for c in (*categories, "mean")]
        gaps = [
            by_category(scores["echo"][seed], categories)["mean"] - row["mean"]
            for seed, row in rows.items()
            if seed in scores["echo"] and arm != "echo"
        ]
        lines.append(f"| {arm} | {len(rows)} | " + " | ".join(cells) + f" | {interval(gaps)} |")
    return "\n".join(lines)


def by_category(tasks: Mapping[str, float], categories: Sequence[str]) -> dict[str, float]:
    """Means over tasks of a category, and the mean of those."""
    means = {
        category: statistics.fmean(
            score for task, score in tasks.items() if category_of(task) == category
        )
        for category in categories
    }
    return means | {"mean": statistics.fmean(means.values())}


def category_of(task: str) -> str:
    """A task's category."""
    return TASKS[task]


def interval(values: Sequence[float]) -> str:
    """Mean and half the width of its 95 % t-interval."""
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    from scipy import stats

    wide: Any = stats.t.ppf(0.975, len(values) - 1)
    half = wide * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.fmean(values):.1f} ± {half:.1f}"


if __name__ == "__main__":
    main()
