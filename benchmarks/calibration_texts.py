"""What the texts are worth that a recipe is calibrated on: the model's own, or people's.

    python -m benchmarks.calibration_texts --keep FOLDER [--share 1.0] [--count 1024]

The recipe `one-pass` is fitted several times, each time on as many texts of another source, and
scored on the development sample of `echovec tune` (no test data); where a source has texts of
several kinds, with and without what they differ by. Texts of the sample are in no source. States
are kept in FOLDER block by block, so a run that was stopped goes on where it was. Needs
the data folder (`ECHOVEC_DATA`). At share 1 about half an hour on two quiet cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.fit_recipes import CHOSEN, Parts
from benchmarks.workloads import folder, rows
from echovec import Embedder
from echovec.calibrate.fitting import calibrated_view
from echovec.calibrate.kept import self_texts
from echovec.calibrate.kinds import OF_ONE_KIND
from echovec.calibrate.write import Writing
from echovec.presets import recipe_of
from echovec.tune.samples import read_dev
from echovec.tune.score import mean_replicates, middle, score
from echovec.vector.combine import combine

RECIPE = "one-pass"
BLOCK = 128
MAX_TOKENS = 192
"""As in tuning."""

OWN, OWN_KINDS = "the model itself", "the model itself, seven kinds"

Kinds = list[tuple[str, str]]
"""Texts, each with its kind."""

States = list[NDArray[np.float32]]
"""Of each view z_LND."""

SETS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "short sentences (SNLI)": ("train_nli_snli_dev", ("query", "positive")),
    "questions and passages (SQuAD)": ("train_squad", ("query", "positive")),
    "queries and web passages (MS MARCO)": ("train_msmarco_v2_dl21", ("query", "positive")),
}


def sources(embedder: Embedder, count: int, never: set[str]) -> dict[str, Kinds]:
    """So many texts of each source with their kinds, none of them in `never`."""
    draw = np.random.default_rng(0)
    found = {OWN: _written(embedder, Writing(count, kinds=OF_ONE_KIND))}
    found[OWN_KINDS] = _written(embedder, Writing(count))
    for name, (data, fields) in SETS.items():
        every = dict.fromkeys(
            row[part] for row in rows(f"{data}/train.jsonl.gz") for part in fields
        )
        free = [text for text in every if text not in never]
        found[name] = [(free[i], name) for i in draw.permutation(len(free))[:count]]
    real = [pair for name in SETS for pair in found[name]]
    found["all three"] = [real[i] for i in draw.permutation(len(real))[:count]]
    return found


def _written(embedder: Embedder, writing: Writing) -> Kinds:
    written = self_texts(embedder, writing)
    return list(zip(written.texts, written.kinds, strict=True))


def states(embedder: Embedder, texts: Sequence[str], keep: Path) -> States:
    """States of each view, from what is kept where it is."""
    blocks = [_block(embedder, texts[i : i + BLOCK], keep) for i in range(0, len(texts), BLOCK)]
    return [np.concatenate(parts, axis=1) for parts in zip(*blocks, strict=True)]


def _block(embedder: Embedder, texts: Sequence[str], keep: Path) -> States:
    named = json.dumps([embedder.recipe.fingerprint, list(texts)])
    file = keep / f"{hashlib.sha256(named.encode()).hexdigest()[:24]}.npz"
    if not file.exists():
        own = {str(place): z_LND for place, z_LND in enumerate(embedder.states(texts))}
        np.savez(file.with_suffix(".part.npz"), **own)  # type: ignore[arg-type]
        file.with_suffix(".part.npz").rename(file)
    with np.load(file) as kept:
        return [kept[str(place)] for place in range(len(kept.files))]


def without(parts: Parts, *methods: str) -> Parts:
    """The parts without these calibrations."""
    return [(v, w, [step for step in steps if step[0] not in methods]) for v, w, steps in parts]


def vectors(
    parts: Parts, fitted_on: States, applied_to: States, kinds: Sequence[str]
) -> NDArray[np.float32]:
    """Unit vectors z_ND of parts that are fitted on some states and applied to others."""
    views = [
        replace(calibrated_view(view, z_LND, steps, kinds), weight=weight)
        for (view, weight, steps), z_LND in zip(parts, fitted_on, strict=True)
    ]
    given = [torch.from_numpy(z_LND) for z_LND in applied_to]
    z_ND = combine(views, given, "sum", ())
    unit: NDArray[np.float32] = torch.nn.functional.normalize(z_ND, dim=1).numpy()
    return unit


def table(lines: Iterable[Sequence[Any]], heads: Sequence[str]) -> str:
    """A table in Markdown."""
    every = [heads, ["---", *["---:"] * (len(heads) - 1)], *lines]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in every)


def main() -> None:
    """Run, fit, score, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--count", type=int, default=1024)
    options = parser.parse_args()
    options.keep.mkdir(parents=True, exist_ok=True)
    views = (view for view, _, _ in CHOSEN[RECIPE])
    recipe = recipe_of(RECIPE, *views, max_tokens=MAX_TOKENS)
    embedder = Embedder.load(recipe=recipe, precision="fast")
    dev = read_dev(folder(), share=options.share)
    given = sources(embedder, options.count, set(dev.texts))
    dev_states = states(embedder, dev.texts, options.keep)
    unit = {}
    for name, pairs in given.items():
        kinds = [kind for _, kind in pairs]
        fitted = states(embedder, [text for text, _ in pairs], options.keep)
        kept_in = without(CHOSEN[RECIPE], "remove-kinds")
        unit[name] = vectors(kept_in, fitted, dev_states, kinds)
        if len(set(kinds)) > 2:
            taken_out = vectors(CHOSEN[RECIPE], fitted, dev_states, kinds)
            unit[f"{name}, less what kinds differ by"] = taken_out
    bare = torch.nn.functional.normalize(torch.from_numpy(dev_states[0].mean(axis=0)), dim=1)
    unit["nothing: echo as it is"] = bare.numpy()
    own_R = mean_replicates(dev.tasks, unit[OWN])
    lines = []
    for name, z_ND in unit.items():
        found = score(dev.tasks, z_ND)
        low, high = middle(mean_replicates(dev.tasks, z_ND) - own_R)
        by_category = [f"{value:.1f}" for value in found.categories.values()]
        lines.append([name, *by_category, f"{found.mean:.1f}", f"{low:+.1f} to {high:+.1f}"])
    heads = ["fitted on", *found.categories, "mean", "against its own texts, 95 %"]
    print(f"{len(dev.texts):,} texts of {len(dev.tasks)} tasks; {options.count:,} to fit on")
    print(table(lines, heads))


if __name__ == "__main__":
    main()
