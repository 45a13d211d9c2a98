"""Verdict: what a measured difference says about a claim, by a rule stated once.

A claim is about one difference, in points (0 to 100), measured on the same items for both sides
and resampled 1,000 times with a fixed seed (paired percentile bootstrap, 95 %):

- "greater" (one side is better): **holds** if the whole interval is above 0; **does not hold** if
  it is wholly below `margin`, the smallest difference worth a word; else it **cannot be told**.
- "not greater" is the opposite, judged by the same two tests.
- "close" (both are as good): **holds** if the whole interval is within -margin to +margin; **does
  not hold** if it is wholly outside; else it **cannot be told**.

Below 30 items nothing can be told: the bootstrap's intervals are too narrow there.
A number of points is never judged by eye, and no verdict is written by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from echovec.errors import InputError
from echovec.evaluate.interval import LEVEL, RESAMPLES, SEED
from echovec.evaluate.report_parts import Difference, Measured

MIN_ITEMS = 30

RULE = (
    f"Intervals are 95 % paired bootstrap percentiles over items ({RESAMPLES:,} resamples, seed "
    f"{SEED}). "
    "A claim that one side is better holds if the whole interval is above 0, does not hold if it "
    "is wholly below the margin, and else cannot be told; that it is no better is the opposite; "
    "a claim that both are as good holds if "
    "the interval lies within the margin, and does not hold if it lies outside. Below 30 items "
    "nothing can be told."
)
"""The rule in words, for pages."""

Verdict = Literal["holds", "does not hold", "cannot be told at this size"]
Kind = Literal["greater", "not greater", "close"]
Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

HOLDS: Verdict = "holds"
FAILS: Verdict = "does not hold"
OPEN: Verdict = "cannot be told at this size"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One statement, the difference it is about, and what the paper prints on it."""

    statement: str
    """In words, e.g. "Echo is better than a single copy"."""

    difference: Measured
    """First side less second side, in points."""

    items: int
    """How many items the difference is over; the smaller side, where there are two groups."""

    kind: Kind = "greater"
    """"greater": the difference is above 0; "not greater": it is not; "close": it is within the
    margin."""

    margin: float = 1.0
    """The smallest difference worth a word, in points; at least 0."""

    paper: str = ""
    """What the paper says, with its own numbers, backbone and task set."""

    def __post_init__(self) -> None:
        if self.margin < 0:
            raise InputError(f"margin={self.margin} of {self.statement!r}; it is at least 0")

    @property
    def verdict(self) -> Verdict:
        """The rule of this module applied to the interval."""
        if self.items < MIN_ITEMS:
            return OPEN
        return _RULES[self.kind](self.difference, self.margin)

    @property
    def reason(self) -> str:
        """The rule in words, with this claim's numbers."""
        shown, margin = self.difference.signed(), f"{self.margin:g}"
        if self.items < MIN_ITEMS:
            return (
                f"The difference is {shown} points on {self.items} items: below {MIN_ITEMS} an "
                "interval cannot be trusted, so more are needed."
            )
        return _REASONS[self.kind, self.verdict].format(shown=shown, margin=margin)


def greater(difference: Measured, margin: float) -> Verdict:
    """The rule for "one side is better"."""
    if difference.low > 0:
        return HOLDS
    return FAILS if difference.high < margin else OPEN


def not_greater(difference: Measured, margin: float) -> Verdict:
    """The rule for "one side is no better": what `greater` says, turned round."""
    return {HOLDS: FAILS, FAILS: HOLDS, OPEN: OPEN}[greater(difference, margin)]


def close(difference: Measured, margin: float) -> Verdict:
    """The rule for "both are as good"."""
    if -margin < difference.low and difference.high < margin:
        return HOLDS
    return FAILS if difference.low > margin or difference.high < -margin else OPEN


_RULES: dict[Kind, Callable[[Measured, float], Verdict]] = {
    "greater": greater,
    "not greater": not_greater,
    "close": close,
}

_ABOVE = "The difference is {shown} points: all of its interval is above 0."
_BELOW = (
    "The difference is {shown} points: all of its interval is below {margin}, the smallest "
    "difference that would count."
)
_UNSURE = (
    "The difference is {shown} points: the interval holds 0 and differences of {margin} and more, "
    "so more items are needed."
)
_REASONS: dict[tuple[Kind, Verdict], str] = {
    ("greater", HOLDS): _ABOVE,
    ("greater", FAILS): _BELOW,
    ("greater", OPEN): _UNSURE,
    ("not greater", HOLDS): _BELOW,
    ("not greater", FAILS): _ABOVE,
    ("not greater", OPEN): _UNSURE,
    ("close", HOLDS): (
        "The difference is {shown} points: all of its interval is within {margin} of 0."
    ),
    ("close", FAILS): (
        "The difference is {shown} points: all of its interval is more than {margin} from 0."
    ),
    ("close", OPEN): (
        "The difference is {shown} points: the interval crosses {margin} points, so more items "
        "are needed."
    ),
}


def resampled_rows(num_items: int, *, resamples: int = RESAMPLES, seed: int = SEED) -> Rows:
    """Which items each resample draws, [R, N]: the same for the same number and seed.

    Paired means that both sides of a difference are resampled with these same rows.
    """
    if num_items < 2:
        raise InputError(f"{num_items} items cannot be resampled; give 2 or more")
    return np.random.default_rng(seed).integers(0, num_items, size=(resamples, num_items))


def measured(value: float, replicates_R: Floats, *, level: float = LEVEL) -> Measured:
    """A value with the percentile interval of its resamples.

    Resamples that are not finite (a constant sample has no correlation) are left out; InputError
    if none is left.
    """
    finite = replicates_R[np.isfinite(replicates_R)]
    if not len(finite) or not np.isfinite(value):
        raise InputError("the score is undefined on these items: they are all alike; take more")
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(finite, [tail, 100 - tail])
    return Measured(float(value), float(low), float(high))


def mean_of(values_N: Sequence[float] | NDArray[Any], *, scale: float = 100.0) -> Measured:
    """The mean of one number per item, times `scale`, with its interval."""
    values = np.asarray(values_N, dtype=np.float64) * scale
    return measured(float(values.mean()), values[resampled_rows(len(values))].mean(axis=1))


def mean_difference(
    first_N: Sequence[float] | NDArray[Any],
    second_N: Sequence[float] | NDArray[Any],
    *,
    scale: float = 100.0,
) -> Difference:
    """The mean of item-by-item differences, times `scale`: the paired bootstrap of two means."""
    first, second = np.asarray(first_N, np.float64), np.asarray(second_N, np.float64)
    if first.shape != second.shape:
        raise InputError(f"{first.shape} and {second.shape} items cannot be paired")
    mean = mean_of(first - second, scale=scale)
    return Difference(mean.value, mean.low, mean.high)


def less_chance(value: Measured, chance: float) -> Difference:
    """A score as its difference from a fixed number, such as chance."""
    return Difference(value.value - chance, value.low - chance, value.high - chance)
