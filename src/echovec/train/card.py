"""Card: what a trained adapter is, what it saw, and the command that made it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from echovec.train.data import TrainingSet
from echovec.train.run import Run


def write_card(run: Run, sets: Sequence[TrainingSet], out: Path, *, last: dict[str, float]) -> Path:
    """Write the model card, `README.md`.

    Args:
        run: the run.
        sets: what it saw.
        out: its folder.
        last: the development scores at its end.
    """
    rows = [
        f"| {one.name} | {len(one):,} of {len(one) + len(one.held):,} rows | "
        f"{one.source.ratio:g} | {one.source.licence} | {one.left_out:,} |"
        for one in sets
    ]
    scores = [f"| {name} | {value:g} |" for name, value in sorted(last.items())]
    lines = [
        f"# {run.name}",
        "",
        (
            f"A LoRA adapter (r = {run.rank}, alpha = {run.alpha:g}) that makes "
            f"{run.model or 'SmolLM2-135M-Instruct'} a text embedder: {_arm(run)}. Trained with "
            "echovec by the method of Springer et al., Repetition Improves Language Model "
            "Embeddings (arXiv 2402.15449, section 4)."
        ),
        "",
        "```python",
        "from echovec import Embedder",
        "",
        'embedder = Embedder.load("FOLDER")  # this folder',
        'vectors = embedder.encode(["a text", "another"])',
        "```",
        "",
        "## What it saw",
        "",
        "| set | rows to train on | ratio | licence | rows left out |",
        "|---|---|---|---|---|",
        *rows,
        "",
        "## Development scores at the end",
        "",
        (
            "Of rows held out of training; `sts_dev` is Spearman x 100 on a fifth of "
            "STSBenchmark's development split, which was never trained on."
        ),
        "",
        "| score | value |",
        "|---|---|",
        *scores,
        "",
        "## How it was made",
        "",
        "`echovec train run.toml -o FOLDER --data DATA` with:",
        "",
        "```toml",
        run.to_toml().rstrip(),
        "```",
        "",
    ]
    file = out / "README.md"
    file.write_text("\n".join(lines), "utf-8")
    return file


def _arm(run: Run) -> str:
    if run.base_recipe is not None:
        return f"it reads texts by the recipe {run.base_recipe}"
    pooled = "the end token" if run.prompt == "instruct" else "the mean"
    told = {
        "echo": f"it reads the text twice and pools {pooled} of the second copy",
        "classical": f"it reads the text once and pools {pooled}",
        "bidirectional": f"it reads the text once, both ways, and pools {pooled}",
    }
    return told[run.arm]
