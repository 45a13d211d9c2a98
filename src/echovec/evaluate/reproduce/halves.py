"""Halves: whether a vector looks too much at the beginning (the paper's appendix E, real pairs).

Every sentence of an STS set is cut in half by word count. Among all pairs, take the tenth whose
*first* halves are most alike and the tenth whose *second* halves are. A pair's rank error is its
rank by cosine less its rank by gold score, in percent of the pairs: above 0, the method thinks the
two nearer than people do. A method that reads the beginning too much overestimates the pairs with
like first halves more than those with like second halves.

The paper measures the likeness of halves with bge-base-en-v1.5. Here it is the cosine of TF-IDF
word counts: no model that could share a bias with those under test, and nothing to fetch. Such
pairs begin (or end) with the same words, which is the case that the appendix shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from echovec.errors import DependencyError, InputError
from echovec.evaluate.report_parts import Cell, Difference, Plot, Series, Table
from echovec.evaluate.reproduce.findings import Findings, Options
from echovec.evaluate.reproduce.pairs import Pairs, cosines_of, sts_pairs
from echovec.evaluate.reproduce.recipes import common_settings
from echovec.evaluate.reproduce.verdict import (
    Claim,
    Floats,
    Rows,
    measured,
    resampled_rows,
)

if TYPE_CHECKING:
    from echovec.embedder import Embedder

SETS = ("STS12", "STS13", "STS14", "STS15", "STS16", "STSBenchmark")
RECIPES = ("classical", "echo")
SHARE = 0.10
SIZE = 100
MARGIN = 2.0
"""Percent of rank: smaller asymmetries are not worth a word."""


@dataclass(frozen=True)
class Errors:
    """Rank errors of the pairs of all sets, end to end, in percent of a set's pairs."""

    by_recipe: Mapping[str, Floats]
    first: NDArray[np.bool_]
    """Whether a pair is among those with the most alike first halves of its set."""

    second: NDArray[np.bool_]
    """The same for second halves; a pair may be in both."""

    starts: tuple[int, ...]
    """Where each set begins, and the end."""


def halves(embedder: Embedder, data: Path | None, options: Options) -> Findings:
    """Appendix E on the STS sets of the folder `data`; 100 pairs of each by default."""
    size = options.size(SIZE)
    sets = sts_pairs(data, SETS, size, options.seed)
    errors = _errors(embedder, sets, options)
    gaps = {name: _asymmetry(errors, errors.by_recipe[name]) for name in RECIPES}
    between = _asymmetry(errors, errors.by_recipe["classical"] - errors.by_recipe["echo"])
    group = int(min(errors.first.sum(), errors.second.sum()))
    shown = ", ".join(f"{one.name} {len(one.gold):,}" for one in sets)
    return Findings(
        experiment="halves",
        title="Halves: is the beginning of a text overrated?",
        question=(
            "Pairs whose first halves are alike against pairs whose second halves are alike: how "
            "much nearer does each method put them than people do? In percent of rank."
        ),
        claims=(
            Claim(
                statement="A single copy overestimates pairs with like first halves more than "
                "pairs with like second halves",
                items=group,
                difference=gaps["classical"],
                paper="appendix E: so on every STS set but BIOSSES and STS22 "
                "(Mistral-7B-Instruct-v0.1, figures without numbers)",
            ),
            Claim(
                statement="Echo treats both alike",
                items=group,
                difference=gaps["echo"],
                kind="close",
                margin=MARGIN,
                paper="appendix E: echo shows no difference",
            ),
            Claim(
                statement="The asymmetry of a single copy is larger than that of echo",
                items=group,
                difference=between,
                paper="appendix E, by comparison of the two figures",
            ),
        ),
        tables=(_table(errors), _by_set(errors, sets)),
        plots=(_plot(errors, sets),),
        settings=common_settings(
            embedder,
            RECIPES,
            data=f"test pairs: {shown}",
            size=f"{sum(len(one.gold) for one in sets):,} pairs, "
            f"{'all' if size is None else f'at most {size} a set'}, seed {options.seed}; "
            f"{group} pairs in each group",
        ),
        notes=(
            "Likeness of halves is TF-IDF word cosine here and bge-base-en-v1.5 in the paper.",
            (
                "Nothing is chosen by these pairs: both recipes and the share of a tenth are the "
                "paper's."
            ),
            "STS12 to STS16 and STSBenchmark have pairs in common by construction.",
        ),
    )


def _errors(embedder: Embedder, sets: Sequence[Pairs], options: Options) -> Errors:
    first = np.concatenate([_top(likeness(one, 0)) for one in sets])
    second = np.concatenate([_top(likeness(one, 1)) for one in sets])
    by_recipe = {}
    for name in RECIPES:
        options.say(f"halves: {sum(len(one.gold) for one in sets):,} pairs with {name}")
        bound = embedder.with_recipe(name)
        by_recipe[name] = np.concatenate(
            [rank_errors(cosines_of(bound, one), one.gold) for one in sets]
        )
    ends = np.cumsum([0, *(len(one.gold) for one in sets)])
    return Errors(by_recipe, first, second, tuple(map(int, ends)))


def rank_errors(predicted: NDArray[np.floating], gold: NDArray[np.floating]) -> Floats:
    """Rank by `predicted` less rank by `gold`, in percent of the pairs; ties share their rank."""
    return 100 * (_ranks(np.asarray(predicted)) - _ranks(np.asarray(gold))) / len(gold)


def _ranks(values: NDArray[np.floating]) -> Floats:
    ordered = np.sort(values)
    below = np.searchsorted(ordered, values, "left")
    upto = np.searchsorted(ordered, values, "right")
    return np.asarray((below + upto - 1) / 2, dtype=np.float64)


def split_words(text: str) -> tuple[str, str]:
    """The first and second half of a text by word count; the first is shorter if it is odd."""
    words = text.split()
    middle = len(words) // 2
    return " ".join(words[:middle]), " ".join(words[middle:])


def likeness(pairs: Pairs, half: int) -> Floats:
    """TF-IDF word cosine of the first (0) or second (1) halves of each pair, [N], 0 to 1.

    Raises:
        DependencyError: scikit-learn is not installed.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        raise DependencyError(
            "the experiment needs scikit-learn, which is not installed: pip install echovec[eval]"
        ) from None
    left, right = (
        [split_words(text)[half] for text in side] for side in (pairs.first, pairs.second)
    )
    vectoriser = TfidfVectorizer(token_pattern=r"\w+").fit([*left, *right])
    product = vectoriser.transform(left).multiply(vectoriser.transform(right))
    return np.asarray(product.sum(axis=1), dtype=np.float64).ravel()


def _top(likeness_N: Floats) -> NDArray[np.bool_]:
    """The tenth that is most alike; the earlier pair wins a tie."""
    chosen = np.argsort(-likeness_N, kind="stable")[: max(1, round(SHARE * len(likeness_N)))]
    mask = np.zeros(len(likeness_N), dtype=np.bool_)
    mask[chosen] = True
    return mask


def _group_mean(values: Floats, group: NDArray[np.bool_], rows: Rows) -> Floats:
    """Mean over the group's members in each resample of all pairs, [R]; NaN without members."""
    inside = group[rows]
    with np.errstate(invalid="ignore"):
        return np.asarray((values[rows] * inside).sum(axis=1) / inside.sum(axis=1))


def _asymmetry(
    errors: Errors, values: Floats, start: int = 0, stop: int | None = None
) -> Difference:
    """Mean error of the first group less that of the second, resampling whole pairs."""
    cut = slice(start, stop)
    values, first, second = values[cut], errors.first[cut], errors.second[cut]
    if not (first.any() and second.any()):
        raise InputError(f"{len(values)} pairs have no tenth to compare; give --sample 20 or more")
    rows = resampled_rows(len(values))
    apart = _group_mean(values, first, rows) - _group_mean(values, second, rows)
    found = measured(float(values[first].mean() - values[second].mean()), apart)
    return Difference(found.value, found.low, found.high)


def _table(errors: Errors) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for name in RECIPES:
        values = errors.by_recipe[name]
        resampled = resampled_rows(len(values))
        groups = [
            measured(float(values[group].mean()), _group_mean(values, group, resampled))
            for group in (errors.first, errors.second)
        ]
        rows.append((name, *groups, _asymmetry(errors, values)))
    columns = ("recipe", "like first halves", "like second halves", "difference")
    return Table("Mean rank error, percent of rank", columns, tuple(rows))


def _by_set(errors: Errors, sets: Sequence[Pairs]) -> Table:
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (one.name, len(one.gold), *_set_row(errors, place)) for place, one in enumerate(sets)
    )
    return Table("Difference by set", ("set", "pairs", *RECIPES), rows)


def _set_row(errors: Errors, place: int) -> tuple[Difference, ...]:
    start, stop = errors.starts[place : place + 2]
    return tuple(_asymmetry(errors, errors.by_recipe[name], start, stop) for name in RECIPES)


def _plot(errors: Errors, sets: Sequence[Pairs]) -> Plot:
    by_set = [_set_row(errors, place) for place in range(len(sets))]
    whole = tuple(_asymmetry(errors, errors.by_recipe[name]) for name in RECIPES)
    series = tuple(
        Series(name, (*(row[which] for row in by_set), whole[which]))
        for which, name in enumerate(RECIPES)
    )
    return Plot(
        title="How much more like beginnings count than like endings",
        kind="dots",
        series=series,
        ticks=(*(one.name for one in sets), "all pairs"),
        axis="difference of mean rank errors, percent of rank",
        mark=0.0,
        caption="To the right of the line, beginnings are overrated.",
    )
