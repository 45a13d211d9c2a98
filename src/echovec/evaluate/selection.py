"""Selection: choosing a recipe by its scores, on development data only.

Whoever chooses a layer, a prompt or a transform by the scores that are then reported measures
luck. `choose` takes outcomes of development splits and refuses those of test data; what it returns
says on which data the choice was made, and results of the chosen recipe carry that on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from echovec.errors import InputError
from echovec.evaluate.results import DEVELOPMENT, Outcome


@dataclass(frozen=True)
class Selection:
    """A recipe that was chosen, and how."""

    recipe: str
    """The recipe's name."""

    fingerprint: str

    chosen_on: str
    """The development data, in words: for `Evaluation(chosen_on=...)` and `--chosen-on`."""

    scores: tuple[tuple[str, float], ...]
    """Every candidate with its mean score, best first."""


def choose(outcomes: Sequence[Outcome]) -> Selection:
    """The recipe with the best mean score over the same development tasks.

    Raises:
        InputError: an outcome is of test data, there is none, or candidates were not measured on
            the same data.
    """
    check_may_choose(outcomes)
    tables: dict[tuple[str, str], dict[tuple[object, ...], float]] = {}
    for one in outcomes:
        place = (one.task, one.split, one.drawn_with, one.data_revision)
        tables.setdefault((one.recipe_name, one.fingerprint), {})[place] = one.main_score
    measured = {frozenset(table) for table in tables.values()}
    if len(measured) > 1:
        raise InputError(
            "the candidates were not measured on the same tasks, splits, samples and data: "
            + "; ".join(f"{name}: {len(table)} tasks" for (name, _), table in tables.items())
        )
    means = {key: float(np.mean(list(table.values()))) for key, table in tables.items()}
    best = max(means, key=lambda key: _rank(means[key]))
    if math.isnan(means[best]):
        raise InputError(
            f"no candidate has a score on all of the tasks ({_shown(outcomes)}); leave out those "
            "without one: a correlation needs scores that are not all alike"
        )
    pairs = [(name, mean) for (name, _), mean in means.items()]
    ranked = sorted(pairs, key=lambda pair: -_rank(pair[1]))
    return Selection(best[0], best[1], _shown(outcomes), tuple(ranked))


def check_may_choose(outcomes: Sequence[Outcome]) -> None:
    """Refuse outcomes on which nothing may be chosen.

    Raises:
        InputError: there is none, or one is of test data.
    """
    if not outcomes:
        raise InputError("there are no outcomes to choose by; evaluate with --split dev")
    if tests := sorted({f"{one.task} {one.split}" for one in outcomes if one.is_test}):
        raise InputError(
            f"nothing may be chosen on test data, and these are: {', '.join(tests)}; evaluate the "
            f"candidates with --split dev (development splits: {', '.join(DEVELOPMENT)})"
        )


def _rank(mean: float) -> float:
    """A mean to compare by: one that is undefined is the least."""
    return -math.inf if math.isnan(mean) else mean


def _shown(outcomes: Sequence[Outcome]) -> str:
    return ", ".join(sorted({f"{one.task} {one.split}" + _sampled(one) for one in outcomes}))


def _sampled(outcome: Outcome) -> str:
    return f" (sample of {outcome.sample}, seed {outcome.seed})" if outcome.sample else ""
