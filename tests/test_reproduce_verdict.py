"""Verdicts: the rule on made-up numbers, and the paired bootstrap against a naive twin."""

from __future__ import annotations

import numpy as np
import pytest

from echovec.errors import InputError
from echovec.evaluate.interval import RESAMPLES, SEED
from echovec.evaluate.report_parts import Difference, Measured
from echovec.evaluate.reproduce.verdict import (
    Claim,
    close,
    greater,
    less_chance,
    mean_difference,
    mean_of,
    measured,
    not_greater,
    resampled_rows,
)

HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be told at this size"


def about(low, high):
    return Measured((low + high) / 2, low, high)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.1, 9.0, HOLDS),
        (0.1, 0.5, HOLDS),
        (-5.0, -0.1, FAILS),
        (-5.0, 0.9, FAILS),
        (-0.1, 1.1, OPEN),
        (0.0, 5.0, OPEN),
    ],
)
def test_greater(low, high, expected):
    """Better holds above 0, fails below the margin of 1, is open across both; its opposite too."""
    assert greater(about(low, high), 1.0) == expected
    turned = {HOLDS: FAILS, FAILS: HOLDS, OPEN: OPEN}
    assert not_greater(about(low, high), 1.0) == turned[expected]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.9, 0.9, HOLDS),
        (0.2, 0.8, HOLDS),
        (1.1, 5.0, FAILS),
        (-5.0, -1.1, FAILS),
        (0.5, 1.5, OPEN),
        (-3.0, 3.0, OPEN),
        (-0.5, 1.0, OPEN),
    ],
)
def test_close(low, high, expected):
    """As good holds inside the margin of 1, fails outside it, and is open across its edge."""
    assert close(about(low, high), 1.0) == expected


@pytest.mark.parametrize("kind", ["greater", "not greater", "close"])
@pytest.mark.parametrize("bounds", [(2.0, 3.0), (-3.0, -2.0), (-0.2, 0.2), (-2.0, 2.0), (0.2, 1.8)])
def test_every_verdict_has_a_reason_with_its_numbers(kind, bounds):
    """Whatever comes out, the reason names the difference and its interval."""
    claim = Claim(statement="A beats B", items=60, difference=about(*bounds), kind=kind)
    assert claim.verdict in (HOLDS, FAILS, OPEN)
    assert f"{bounds[0]:+.1f}, {bounds[1]:+.1f}" in claim.reason


def test_few_items_tell_nothing():
    """Below 30 items even a wide clear difference is open, and the reason says why."""
    few, enough = (Claim(statement="A", items=n, difference=about(20, 30)) for n in (29, 30))
    assert (few.verdict, enough.verdict) == (OPEN, HOLDS)
    assert "on 29 items" in few.reason


def test_a_negative_margin_is_refused():
    """A margin below 0 would make two verdicts true at once."""
    with pytest.raises(InputError, match="margin=-1"):
        Claim(statement="x", items=60, difference=about(0, 1), margin=-1)


def test_paired_bootstrap_equals_a_naive_loop():
    """The interval of a paired difference is that of a loop over resamples, written apart."""
    rng = np.random.default_rng(0)
    a, b = rng.random(40), rng.random(40)
    found = mean_difference(a, b)
    source = np.random.default_rng(SEED)
    drawn = source.integers(0, 40, size=(RESAMPLES, 40))
    means = sorted(100 * sum(a[i] - b[i] for i in rows) / 40 for rows in drawn)
    low, high = np.percentile(means, [2.5, 97.5])
    np.testing.assert_allclose((found.low, found.high), (low, high), rtol=1e-9)
    assert found.value == pytest.approx(100 * (a.mean() - b.mean()))


def test_pairing_narrows_the_interval():
    """Two methods that err on the same items differ by little; unpaired, that could not be told."""
    rng = np.random.default_rng(1)
    hard = rng.random(200)
    a, b = hard + 0.02 + rng.normal(0, 0.01, 200), hard + rng.normal(0, 0.01, 200)
    paired = Claim(statement="A beats B", items=60, difference=mean_difference(a, b))
    unpaired = Claim(statement="A beats B", items=60, difference=mean_difference(a, b[::-1]))
    assert paired.verdict == HOLDS
    assert unpaired.verdict != HOLDS


def test_no_difference_seldom_holds():
    """Negative control: of 200 pairs of equal methods, "better" holds for about 1 in 40."""
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(200):
        a, b = rng.random((2, 60)) < 0.5
        held += (
            Claim(statement="A beats B", items=60, difference=mean_difference(a, b)).verdict
            == HOLDS
        )
    assert held <= 14


def test_a_clear_difference_holds_and_its_reverse_fails():
    """0.9 against 0.1 on 60 items holds; the claim the other way round does not."""
    a, b = np.array([1.0] * 54 + [0.0] * 6), np.array([0.0] * 54 + [1.0] * 6)
    assert Claim(statement="A beats B", items=60, difference=mean_difference(a, b)).verdict == HOLDS
    assert Claim(statement="B beats A", items=60, difference=mean_difference(b, a)).verdict == FAILS


def test_the_same_seed_gives_the_same_rows():
    """Two sides of a comparison are resampled with the same items."""
    assert (resampled_rows(7) == resampled_rows(7)).all()
    assert (resampled_rows(7, seed=1) != resampled_rows(7, seed=2)).any()


def test_undefined_scores_are_an_error():
    """A score that is NaN in every resample, or unequal numbers of items, do not pass silently."""
    with pytest.raises(InputError, match="undefined"):
        measured(float("nan"), np.array([np.nan, np.nan]))
    with pytest.raises(InputError, match="cannot be paired"):
        mean_difference([1.0, 0.0], [1.0])
    with pytest.raises(InputError, match="1 items"):
        mean_of([1.0])


def test_less_chance_moves_the_whole_interval():
    """A score against chance is the score with its interval moved."""
    assert less_chance(Measured(60, 55, 65), 50) == Difference(10, 5, 15)


def test_differences_show_their_sign():
    """A difference is written with signs, a score without."""
    assert str(Difference(3, -1, 7)) == "+3.0 [-1.0, +7.0]"
    assert str(Measured(3, 1, 7)) == "3.0 [1.0, 7.0]"
