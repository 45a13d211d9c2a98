"""Prompts: how much depends on the wording of the prompt (figures 3 and 7 to 12, appendix D).

The 12 prompts sampled in the paper for a single copy, for echo and for a one-word prompt, each on
the same pairs. The spread of a method is the best of its prompts less the worst, and every resample
of the pairs takes its own best and worst.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from echovec.evaluate.report_parts import Cell, Difference, Measured, Plot, Series, Table
from echovec.evaluate.reproduce.comparison import Comparison
from echovec.evaluate.reproduce.findings import Findings, Options
from echovec.evaluate.reproduce.pairs import compare_on_pairs, cosines_of, sts_pairs
from echovec.evaluate.reproduce.recipes import common_settings
from echovec.evaluate.reproduce.verdict import Claim, Floats, measured
from echovec.presets import preset

if TYPE_CHECKING:
    from echovec.embedder import Embedder

METHODS = ("classical", "echo", "prompt-eol")
NUMBERS = range(1, 13)
SETS = ("STS13", "STS16", "STSBenchmark")
SIZE = 30


def prompts(embedder: Embedder, data: Path | None, options: Options) -> Findings:
    """36 prompts on STS pairs of the folder `data`; 30 pairs of each of three sets by default."""
    sets = sts_pairs(data, SETS, options.size(SIZE), options.seed)
    names = [f"paper-{method}-{number}" for method in METHODS for number in NUMBERS]
    cosines = {}
    for name in names:
        options.say(f"prompts: {name}")
        bound = embedder.with_recipe(name)
        cosines[name] = [cosines_of(bound, one) for one in sets]
    found = compare_on_pairs(cosines, sets)
    worst, best = (
        {method: _extreme(found, method, pick) for method in METHODS} for pick in (np.min, np.max)
    )
    spread = {method: _less(best[method], worst[method]) for method in METHODS}
    return Findings(
        experiment="prompts",
        title="Prompts: how much depends on the wording?",
        question=(
            "Twelve wordings of each kind of prompt, as the paper sampled them. Spearman x 100, "
            "mean of three STS sets."
        ),
        claims=(
            Claim(
                statement="Every echo prompt beats every prompt of a single copy: the worst echo "
                "prompt is better than the best single-copy prompt",
                items=found.items(),
                difference=_difference(worst["echo"], best["classical"]),
                paper="figure 3: every echo prompt beats every classical prompt (MTEB-MINI, "
                "Mistral-7B-Instruct-v0.1; no numbers printed)",
            ),
            Claim(
                statement="The one-word prompt depends more on its wording than echo does",
                items=found.items(),
                difference=_difference(spread["prompt-eol"], spread["echo"]),
                paper="figure 3: the spread among echo prompts is small, PromptEOL depends "
                "strongly on its prompt",
            ),
            Claim(
                statement="The mean over wordings is higher for echo than for a single copy",
                items=found.items(),
                difference=_difference(_average(found, "echo"), _average(found, "classical")),
                paper="figure 3",
            ),
        ),
        tables=(_summary(found, worst, best, spread), _table(found)),
        plots=(_plot(found),),
        settings=common_settings(
            embedder,
            (),
            data=f"test pairs: {', '.join(one.name for one in sets)}",
            size=f"{sum(len(one.gold) for one in sets):,} pairs, seed {options.seed}; nothing is "
            "chosen by them",
        ),
        notes=(
            (
                "The sampled one-word prompts do not include the canonical one, which is the "
                "recipe prompt-eol."
            ),
            "The best and the worst of twelve are extremes: a spread grows with noise.",
        ),
    )


Spot = tuple[float, Floats]
"""A number and the same on each resample."""


def _scores(found: Comparison, method: str) -> tuple[Floats, Floats]:
    """The twelve means [12] and the same on each resample [12, R]."""
    names = [f"paper-{method}-{number}" for number in NUMBERS]
    values = np.array([found.mean(name).value for name in names])
    return values, np.stack([found.resampled(name) for name in names])


def _extreme(found: Comparison, method: str, pick: Callable[..., Any]) -> Spot:
    values, resampled = _scores(found, method)
    return float(pick(values)), np.asarray(pick(resampled, axis=0))


def _average(found: Comparison, method: str) -> Spot:
    values, resampled = _scores(found, method)
    return float(values.mean()), np.asarray(resampled.mean(axis=0))


def _less(a: Spot, b: Spot) -> Spot:
    return a[0] - b[0], a[1] - b[1]


def _difference(a: Spot, b: Spot) -> Difference:
    found = measured(*_less(a, b))
    return Difference(found.value, found.low, found.high)


def _summary(
    found: Comparison, worst: dict[str, Spot], best: dict[str, Spot], spread: dict[str, Spot]
) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            method,
            *(
                measured(*spot)
                for spot in (worst[method], _average(found, method), best[method], spread[method])
            ),
        )
        for method in METHODS
    ]
    columns = ("method", "worst prompt", "mean", "best prompt", "best less worst")
    return Table("Spread over twelve wordings, Spearman x 100", columns, tuple(rows))


def _table(found: Comparison) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for name in found.scores:
        (view,) = preset(name).views["symmetric"]
        shown = view.template.prompt.replace("\n", "\\n")
        rows.append((name, found.mean(name), shown))
    return Table("Every prompt", ("recipe", "Spearman x 100", "prompt"), tuple(rows))


def _plot(found: Comparison) -> Plot:
    def ordered(method: str) -> list[Measured]:
        means = [found.mean(f"paper-{method}-{number}") for number in NUMBERS]
        return sorted(means, key=lambda mean: mean.value)

    return Plot(
        title="Twelve wordings of each, from worst to best",
        kind="lines",
        series=tuple(Series(method, tuple(ordered(method))) for method in METHODS),
        ticks=tuple(map(str, NUMBERS)),
        axis="Spearman x 100",
        places="place among the method's wordings",
        caption="The band is the 95 % interval of each wording.",
    )
