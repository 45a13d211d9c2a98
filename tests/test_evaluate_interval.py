"""Intervals: each kind of items gives mteb's score, and resamples as a naive twin does."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from echovec.errors import InputError
from echovec.evaluate.interval import (
    KINDS,
    interval,
    interval_method,
    num_items,
    replicates,
    score_of,
)

metrics = pytest.importorskip("sklearn.metrics")
SOURCE = np.random.default_rng(0)
N = 60
ITEMS = {
    "mean": {"kind": "mean", "values": SOURCE.random(N).tolist()},
    "spearman": {
        "kind": "spearman",
        "predicted": SOURCE.random(N).round(1).tolist(),
        "gold": SOURCE.integers(0, 5, N).tolist(),
    },
    "average precision": {
        "kind": "average precision",
        "scores": {"a": SOURCE.random(N).tolist(), "b": SOURCE.random(N).tolist()},
        "labels": SOURCE.integers(0, 2, N).tolist(),
    },
    "v-measure": {
        "kind": "v-measure",
        "labels": SOURCE.integers(0, 3, N).tolist(),
        "clusters": SOURCE.integers(0, 3, N).tolist(),
    },
}


def naive(items, rows):
    """The score of some rows by the plain library call."""
    take = {k: np.asarray(v)[rows] for k, v in items.items() if isinstance(v, list)}
    if items["kind"] == "mean":
        return take["values"].mean()
    if items["kind"] == "spearman":
        return spearmanr(take["predicted"], take["gold"]).statistic
    if items["kind"] == "v-measure":
        return metrics.v_measure_score(take["labels"], take["clusters"])
    scores = (np.asarray(one)[rows] for one in items["scores"].values())
    return max(metrics.average_precision_score(take["labels"], one) for one in scores)


@pytest.mark.parametrize("kind", ITEMS)
def test_the_score_of_all_items_is_the_librarys(kind):
    """Every item once gives what the library gives."""
    assert score_of(ITEMS[kind]) == pytest.approx(naive(ITEMS[kind], np.arange(N)), abs=1e-12)
    assert num_items(ITEMS[kind]) == N


@pytest.mark.parametrize("kind", ITEMS)
def test_replicates_are_scores_of_drawn_items(kind):
    """The r-th replicate is the library's score of the r-th draw; other draws give others."""
    items, rows_RN = ITEMS[kind], np.random.default_rng(5).integers(0, N, size=(20, N))
    expected = np.array([naive(items, rows) for rows in rows_RN])
    if kind == "v-measure":
        expected += score_of(items) - expected.mean()
    np.testing.assert_allclose(replicates(items, resamples=20, seed=5), expected, atol=1e-12)
    assert np.abs(replicates(items, resamples=20, seed=6) - expected).max() > 1e-3


def test_two_methods_have_the_same_draws():
    """A method that is better by the same on every item is better by that in every replicate."""
    better = {"kind": "mean", "values": [value + 0.1 for value in ITEMS["mean"]["values"]]}
    np.testing.assert_allclose(replicates(better) - replicates(ITEMS["mean"]), 0.1)


def test_an_interval_covers_about_95_of_100():
    """Of 200 samples of a known mean, between 88 and 99 percent of intervals hold it."""
    source, hits = np.random.default_rng(1), 0
    for _ in range(200):
        low, high = interval({"kind": "mean", "values": source.random(80).tolist()})
        hits += low <= 0.5 <= high
    assert 176 <= hits <= 198


def test_parts_count_alike():
    """The score of several sets is their mean, whatever their sizes."""
    parts = [ITEMS["mean"], {"kind": "mean", "values": [1.0, 1.0]}]
    both = {"kind": "parts", "parts": parts}
    assert score_of(both) == pytest.approx((score_of(ITEMS["mean"]) + 1) / 2)
    assert num_items(both) == N + 2
    low, high = interval(both)
    assert low < score_of(both) < high
    assert "within each part" in interval_method(both)


def test_parts_over_the_same_items_share_their_draws():
    """The mean of a part with itself is as unsure as the part; of two samples it is surer."""
    one = ITEMS["v-measure"]
    same = {"kind": "parts", "parts": [one, one], "same items": True}
    np.testing.assert_allclose(replicates(same), replicates(one), atol=1e-12)
    two = {"kind": "parts", "parts": [one, one]}
    assert replicates(two).std() < 0.85 * replicates(one).std()


@pytest.mark.parametrize("seed", range(6))
def test_the_v_measure_of_all_draws_is_sklearns_of_each(seed):
    """Few and many labels and clusters, one of either, names for labels; a swap is noticed."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(["a", "b", "c", "d"][: 1 + seed % 4], 40)
    clusters = rng.integers(0, 1 + (seed * 7) % 11, 40)
    items = {"kind": "v-measure", "labels": labels.tolist(), "clusters": clusters.tolist()}
    rows_RN = rng.integers(0, 40, (50, 40))
    found = KINDS["v-measure"].score(items, rows_RN)
    wanted = [metrics.v_measure_score(labels[rows], clusters[rows]) for rows in rows_RN]
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    if len(set(labels)) > 1 and len(set(clusters)) > 1:
        assert np.abs(KINDS["v-measure"].score(items, rows_RN[::-1]) - wanted).max() > 1e-3


@pytest.mark.parametrize("kinds", [1, 2, 7, 1000])
@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_the_average_precision_of_all_draws_is_sklearns_of_each(kinds, share):
    """Few and many equal scores, few right pairs and none but; a swap is noticed."""
    rng = np.random.default_rng(kinds)
    labels = (rng.random(40) < share).astype(int)
    labels[-1] = 1
    scores = {name: rng.integers(0, kinds, 40) / 7 - 1 for name in "ab"}
    items = {"kind": "average precision", "labels": labels.tolist(), "scores": scores}
    rows_RN = rng.integers(0, 40, (50, 40))
    rows_RN[0] = labels.argmin()  # a draw without a right pair, where there are wrong ones
    found = KINDS["average precision"].score(items, rows_RN)
    for rows, one in zip(rows_RN, found, strict=True):
        right = labels[rows]
        if right.any():
            of = [metrics.average_precision_score(right, each[rows]) for each in scores.values()]
            assert one == pytest.approx(max(of), abs=1e-12)
        else:
            assert np.isnan(one)
    if kinds > 1 and share < 1:
        swapped = KINDS["average precision"].score(items, rows_RN[::-1])
        assert np.nanmax(np.abs(swapped - found)) > 1e-3


def test_parts_may_have_parts():
    """An aggregate of tasks that have several sets each has an interval and words for it."""
    inner = {"kind": "parts", "parts": [ITEMS["v-measure"]] * 2}
    outer = {"kind": "parts", "parts": [inner, ITEMS["v-measure"]]}
    assert num_items(outer) == 3 * N
    assert "texts (the clustering is not repeated" in interval_method(outer)
    low, high = interval(outer)
    assert 0 <= low < high <= 1


def test_nothing_to_resample_has_no_interval():
    """No items: no interval, words that say so, and an error for who asks for replicates."""
    assert interval({}) is None
    assert "none" in interval_method({})
    with pytest.raises(InputError, match="no items"):
        replicates({})


def test_draws_without_a_score_are_left_out():
    """A draw of equal values has no correlation; the others make the interval."""
    items = {"kind": "spearman", "predicted": [1, 2, 3], "gold": [1, 3, 2]}
    assert np.isnan(replicates(items)).any()
    low, high = interval(items)
    assert -1 <= low <= high <= 1
