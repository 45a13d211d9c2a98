"""Layers: which hidden layer to read (the paper always reads the last).

Every layer is read from one pass, as one recipe with a view per layer. The best layer is chosen on
STSBenchmark's development pairs, and what the choice is worth is measured on test pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from echovec.evaluate.report_parts import Cell, Plot, Series, Table
from echovec.evaluate.reproduce.comparison import Comparison, difference_table
from echovec.evaluate.reproduce.findings import Findings, Options
from echovec.evaluate.reproduce.pairs import Pairs, compare_on_pairs, dev_pairs, sts_pairs
from echovec.evaluate.reproduce.recipes import common_settings
from echovec.presets import preset
from echovec.recipe import Recipe
from echovec.vector.similarity import cosine_pairwise
from echovec.vector.view import View

if TYPE_CHECKING:
    from echovec.embedder import Embedder

RECIPES = ("classical", "echo")
TEST_SETS = ("STS13", "STS16", "STSBenchmark")
SIZE = 150


def layers(embedder: Embedder, data: Path | None, options: Options) -> Findings:
    """Every layer of a single copy and of echo on STS pairs of the folder `data`."""
    size = options.size(SIZE)
    dev = dev_pairs(data, size, options.seed)
    test = sts_pairs(data, TEST_SETS, size, options.seed)
    count = embedder.backbone.num_layers + 1
    on_dev, on_test = {}, {}
    for name in RECIPES:
        options.say(f"layers: {count} layers of {name}")
        bound = embedder.with_recipe(all_layers(name, count))
        on_dev[name] = _by_layer(bound, [dev], count)
        on_test[name] = _by_layer(bound, test, count)
    chosen = {name: best_layer(on_dev[name]) for name in RECIPES}
    last = count - 1
    at_best = _compared({n: (on_test[n], chosen[n]) for n in RECIPES}, test)
    at_last = _compared({n: (on_test[n], last) for n in RECIPES}, test)
    both = Comparison(
        at_last.tasks,
        {f"{name}, layer {last}": at_last.scores[name] for name in RECIPES}
        | {f"{name}, best layer": at_best.scores[name] for name in RECIPES},
    )
    return Findings(
        experiment="layers",
        title="Layers: is the last one the one to read?",
        question=(
            "The paper reads the last layer throughout. How good are the others, for a single "
            "copy and for echo? Spearman x 100 on STS pairs."
        ),
        claims=(
            both.claim(
                f"For echo, the layer chosen on development pairs ({chosen['echo']} of "
                f"{last}) is better than the last on test pairs",
                "echo, best layer",
                f"echo, layer {last}",
                paper="not studied; the last layer is read throughout",
            ),
            both.claim(
                "For a single copy, the layer chosen on development pairs "
                f"({chosen['classical']} of {last}) is better than the last on test pairs",
                "classical, best layer",
                f"classical, layer {last}",
                paper="not studied",
            ),
            both.claim(
                "Each at its best layer, echo still beats a single copy",
                "echo, best layer",
                "classical, best layer",
                paper="not studied; at the last layer echo is 6.26 points ahead on 56 datasets "
                "(48.64 against 42.38, Mistral-7B-Instruct-v0.1, v2 table 1)",
            ),
        ),
        tables=(
            _table(on_dev, on_test, dev, test, count),
            difference_table(both, "echo, best layer", f"echo, layer {last}"),
        ),
        plots=(_plot(on_dev, dev, count),),
        settings=common_settings(
            embedder,
            RECIPES,
            data=f"chosen on {dev.name} dev; reported on {', '.join(p.name for p in test)} test",
            size=f"{len(dev.gold):,} development pairs, "
            f"{sum(len(p.gold) for p in test):,} test pairs, seed {options.seed}",
        ),
        notes=(
            (
                "Layer 0 is the token embeddings, and the last is after the final norm; those "
                "between are not normed."
            ),
            "STSBenchmark and STS13 and STS16 come from the same contests.",
        ),
    )


def all_layers(base: str, count: int) -> Recipe:
    """A preset that reads every layer, one after the other in one vector, from one pass."""
    recipe = preset(base)

    def each(views: tuple[View, ...]) -> tuple[View, ...]:
        return tuple(replace(view, layer=layer) for view in views for layer in range(count))

    views = {role: each(of_role) for role, of_role in recipe.views.items()}
    return replace(recipe, name=f"{base}-all-layers", views=views, combine="concat")


def best_layer(by_layer: Sequence[Comparison]) -> int:
    """The layer of the best score; the later of equals."""
    means = [one.mean("layer").value for one in by_layer]
    return max(range(len(means)), key=lambda layer: (means[layer], layer))


def _by_layer(embedder: Embedder, sets: Sequence[Pairs], count: int) -> list[Comparison]:
    cosines = [_cosines_by_layer(embedder, one, count) for one in sets]
    return [
        compare_on_pairs({"layer": [of_set[layer] for of_set in cosines]}, sets)
        for layer in range(count)
    ]


def _cosines_by_layer(embedder: Embedder, pairs: Pairs, count: int) -> list[NDArray[Any]]:
    vectors = embedder.encode(
        [*pairs.first, *pairs.second], normalize_embeddings=False, show_progress_bar=False
    )
    middle = len(pairs.gold)
    return [
        cosine_pairwise(layer[:middle], layer[middle:])
        for layer in np.split(vectors, count, axis=1)
    ]


def _compared(chosen: dict[str, tuple[list[Comparison], int]], test: Sequence[Pairs]) -> Comparison:
    """One layer of each method as one comparison."""
    scores = {name: by_layer[layer].scores["layer"] for name, (by_layer, layer) in chosen.items()}
    some, _ = next(iter(chosen.values()))
    return Comparison(some[0].tasks, scores)


def _table(
    on_dev: dict[str, list[Comparison]],
    on_test: dict[str, list[Comparison]],
    dev: Pairs,
    test: Sequence[Pairs],
    count: int,
) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            str(layer),
            *(on_dev[name][layer].mean("layer") for name in RECIPES),
            *(on_test[name][layer].mean("layer") for name in RECIPES),
        )
        for layer in range(count)
    ]
    columns = (
        "layer",
        *(f"{name}, {dev.name} dev" for name in RECIPES),
        *(f"{name}, mean of {len(test)} test sets" for name in RECIPES),
    )
    return Table("Spearman x 100 by layer", columns, tuple(rows))


def _plot(on_dev: dict[str, list[Comparison]], dev: Pairs, count: int) -> Plot:
    return Plot(
        title=f"By layer, {dev.name} dev",
        kind="lines",
        series=tuple(
            Series(name, tuple(one.mean("layer") for one in on_dev[name])) for name in RECIPES
        ),
        ticks=tuple(map(str, range(count))),
        axis="Spearman x 100",
        places="layer",
        caption="The band is the 95 % interval.",
    )
