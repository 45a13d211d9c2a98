"""What each part of `best` is worth: every part alone, every part left out.

    python -m benchmarks.ablation --keep FOLDER [--share 1.0] [--count 1024] [--recipe best]

Scores are of the development sample of `echovec tune` (no test data), so they say what a part was
worth where it was chosen; differences to the whole recipe are paired. States are kept in FOLDER
block by block, so a run that was stopped goes on where it was. Needs the data folder
(`ECHOVEC_DATA`). At share 1 about ten minutes of one core with AMX.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.calibration_texts import MAX_TOKENS, States, states, table, vectors, without
from benchmarks.fit_recipes import CHOSEN, Parts
from benchmarks.workloads import folder
from echovec import Embedder
from echovec.calibrate import Writing, self_texts
from echovec.calibrate.kinds import OF_ONE_KIND
from echovec.presets import recipe_of
from echovec.tune.samples import read_dev
from echovec.tune.score import mean_replicates, middle, score
from echovec.vector.view import View


def main() -> None:
    """Run the prompts, take parts away, score, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--count", type=int, default=1024)
    parser.add_argument("--recipe", default="best", choices=CHOSEN)
    options = parser.parse_args()
    options.keep.mkdir(parents=True, exist_ok=True)
    parts = CHOSEN[options.recipe]
    bare = recipe_of(options.recipe, *(view for view, _, _ in parts), max_tokens=MAX_TOKENS)
    embedder = Embedder.load(recipe=bare, precision="fast")
    dev = read_dev(folder(), share=options.share)
    written = {
        "several": self_texts(embedder, Writing(options.count)),
        "one": self_texts(embedder, Writing(options.count, kinds=OF_ONE_KIND)),
    }
    fitted = {name: states(embedder, list(w.texts), options.keep) for name, w in written.items()}
    dev_states = states(embedder, dev.texts, options.keep)
    kinds = written["several"].kinds
    lines = []
    whole_R = None
    for name, own, places in _variants(parts):
        of_one = name.startswith("texts of one kind")
        unit = vectors(
            own,
            _only(fitted["one" if of_one else "several"], places),
            _only(dev_states, places),
            kinds,
        )
        replicates_R = mean_replicates(dev.tasks, unit)
        whole_R = replicates_R if whole_R is None else whole_R
        low, high = middle(replicates_R - whole_R)
        found = score(dev.tasks, unit)
        shown = [f"{value:.1f}" for value in found.categories.values()]
        change = "" if whole_R is replicates_R else f"{low:+.1f} to {high:+.1f}"
        lines.append([name, *shown, f"{found.mean:.1f}", change])
    heads = [options.recipe, *found.categories, "mean", "against the whole, 95 %"]
    print(f"{len(dev.texts):,} texts of {len(dev.tasks)} tasks; {options.count:,} to fit on")
    print(table(lines, heads))


def _variants(parts: Parts) -> Iterator[tuple[str, Parts, list[int]]]:
    """Each variant's name, its parts, and their places in the recipe."""
    every = list(range(len(parts)))
    yield "the whole", parts, every
    for place in every:
        rest = [other for other in every if other != place]
        yield f"without {_named(parts[place][0])}", [parts[p] for p in rest], rest
    for place in every:
        yield f"only {_named(parts[place][0])}", [parts[place]], [place]
    yield "all weights 1", [(view, 1.0, steps) for view, _, steps in parts], every
    yield "no whitening", without(parts, "whiten"), every
    yield "kinds left in", without(parts, "remove-kinds"), every
    yield "texts of one kind", without(parts, "remove-kinds"), every
    yield "centred only", [(view, weight, [("center", {})]) for view, weight, _ in parts], every
    yield "no calibration", [(view, weight, ()) for view, weight, _ in parts], every


def _named(view: View) -> str:
    prompt = "the topic prompt" if "topic" in view.template.prompt else "echo"
    if view.template.pooled == "end":
        return f"{prompt}'s word"
    return f"{prompt}'s copy, {'last layer' if view.layer == -1 else f'layer {view.layer}'}"


def _only(every: States, places: Sequence[int]) -> States:
    return [every[place] for place in places]


if __name__ == "__main__":
    main()
