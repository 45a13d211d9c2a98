"""Interval: how sure a score is: its 95 % bootstrap interval over the task's items.

Items are drawn with replacement 1,000 times with a fixed seed. Each draw is scored as mteb does, by
the correlation of ranks, average precision (scikit-learn's), V-measure, or the mean where mteb has
the mean over items. Two methods on the same items have the same draws, so the difference of their
replicates is a paired comparison.

What is not resampled: the few-shot examples of classification and the clustering itself stay as
mteb drew them, so the interval is about the items, not about those draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echovec.errors import DependencyError, InputError

RESAMPLES = 1_000
SEED = 42
LEVEL = 0.95

Items = Mapping[str, Any]
Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
_CHUNK = 4_000_000
"""Numbers held at once."""


@dataclass(frozen=True)
class Kind:
    """How a score comes from items."""

    size: Callable[[Items], int]
    """How many items there are."""

    score: Callable[[Items, Rows], Floats]
    """Scores [R] of draws rows_RN."""

    method: str
    """What is resampled, in words."""


def num_items(items: Items) -> int:
    """How many items a score is over; 0 if mteb gives none."""
    if items.get("kind") == "parts":
        return sum(map(num_items, items["parts"]))
    return KINDS[items["kind"]].size(items) if items else 0


def score_of(items: Items) -> float:
    """The score of all items, each once: mteb's main score again."""
    if items["kind"] == "parts":
        return float(np.mean([score_of(part) for part in items["parts"]]))
    kind = KINDS[items["kind"]]
    return float(kind.score(items, np.arange(kind.size(items))[None])[0])


def replicates(items: Items, *, resamples: int = RESAMPLES, seed: int = SEED) -> Floats:
    """The score of each draw, [R]; the r-th draw has the same items for equal numbers of items.

    A draw of a V-measure has repeated items, which agree with themselves: the replicates are moved
    so that their mean is the score. A draw whose score is undefined is NaN.

    Raises:
        InputError: there are no items.
    """
    if not items:
        raise InputError("mteb gives no items for this task; it has a score but no interval")
    if items["kind"] == "parts":
        # Parts over the same items share their draws: three runs on one sample are one sample.
        step = 0 if items.get("same items") else 1
        parts = [
            replicates(part, resamples=resamples, seed=seed + step * i)
            for i, part in enumerate(items["parts"])
        ]
        return np.asarray(np.mean(parts, axis=0))
    kind = KINDS[items["kind"]]
    draws = _draws(kind.size(items), resamples, seed)
    scores_R = np.concatenate([kind.score(items, rows_RN) for rows_RN in draws])
    return (
        scores_R - scores_R.mean() + score_of(items) if items["kind"] == "v-measure" else scores_R
    )


def interval(items: Items) -> tuple[float, float] | None:
    """The 95 % percentile interval of the replicates; None where nothing can be resampled."""
    if not items:
        return None
    scores_R = replicates(items, resamples=RESAMPLES)
    finite = scores_R[np.isfinite(scores_R)]
    if not len(finite):
        return None
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(finite, [tail, 100 - tail])
    # What was moved may have left the range.
    least = 0.0 if _first(items)["kind"] == "v-measure" else -1.0
    return max(float(low), least), min(float(high), 1.0)


def interval_method(items: Items) -> str:
    """What was resampled, in words."""
    if not items:
        return "none: mteb gives no items for this type of task"
    first = _first(items)
    within = ", within each part" if items["kind"] == "parts" else ""
    what = first.get("of") or KINDS[first["kind"]].method
    return f"bootstrap over {what}{within}, {RESAMPLES:,} resamples"


def _first(items: Items) -> Items:
    """The items themselves, or those of the first part, which may have parts of its own."""
    return _first(items["parts"][0]) if items["kind"] == "parts" else items


def _draws(size: int, resamples: int, seed: int) -> Iterator[Rows]:
    source = np.random.default_rng(seed)
    step = max(1, _CHUNK // max(size, 1))
    for start in range(0, resamples, step):
        yield source.integers(0, size, size=(min(step, resamples - start), size))


def _mean(items: Items, rows_RN: Rows) -> Floats:
    return np.asarray(np.asarray(items["values"], np.float64)[rows_RN].mean(axis=1))


def _spearman(items: Items, rows_RN: Rows) -> Floats:
    rankdata = _scipy().rankdata
    ranks = []
    for field in ("predicted", "gold"):
        ranks_RN = rankdata(np.asarray(items[field], np.float64)[rows_RN], axis=1)
        ranks.append(ranks_RN - ranks_RN.mean(axis=1, keepdims=True))
    a, b = ranks
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1)))


def _average_precision(items: Items, rows_RN: Rows) -> Floats:
    labels_RN = np.asarray(items["labels"])[rows_RN] == 1
    best_R = np.max(
        [
            _precisions(labels_RN, np.asarray(one, np.float64)[rows_RN])
            for one in items["scores"].values()
        ],
        axis=0,
    )
    return np.where(labels_RN.any(axis=1), best_R, np.nan)


def _precisions(labels_RN: NDArray[np.bool_], scores_RN: Floats) -> Floats:
    """Of every draw at once: sklearn's own takes milliseconds for each of a thousand draws."""
    N = labels_RN.shape[1]
    order_RN = np.argsort(-scores_RN, axis=1)
    labels_RN = np.take_along_axis(labels_RN, order_RN, axis=1)
    scores_RN = np.take_along_axis(scores_RN, order_RN, axis=1)
    precision_RN = labels_RN.cumsum(axis=1) / np.arange(1, N + 1)
    # Equal scores are found together: all of them have the precision at the last of them.
    last_RN = np.full(labels_RN.shape, N - 1)
    last_RN[:, :-1] = np.where(scores_RN[:, :-1] != scores_RN[:, 1:], np.arange(N - 1), N - 1)
    last_RN = np.minimum.accumulate(last_RN[:, ::-1], axis=1)[:, ::-1]
    found_RN = labels_RN * np.take_along_axis(precision_RN, last_RN, axis=1)
    return np.asarray(found_RN.sum(axis=1) / np.maximum(labels_RN.sum(axis=1), 1))


def _v_measure(items: Items, rows_RN: Rows) -> Floats:
    """Of every draw at once: sklearn's own takes some milliseconds for each of a thousand."""
    labels_N, clusters_N = _codes(items["labels"]), _codes(items["clusters"])
    both_N = _codes(labels_N * (clusters_N.max() + 1) + clusters_N)
    of_labels_R, of_clusters_R, of_both_R = (
        _entropies(codes_N[rows_RN]) for codes_N in (labels_N, clusters_N, both_N)
    )
    shared_R = np.maximum(of_labels_R + of_clusters_R - of_both_R, 0)
    # Where all have one label, or are in one cluster, nothing is left to be told apart: 1.
    homogeneity_R = np.where(of_labels_R > 0, shared_R / np.maximum(of_labels_R, 1e-300), 1)
    completeness_R = np.where(of_clusters_R > 0, shared_R / np.maximum(of_clusters_R, 1e-300), 1)
    total_R = homogeneity_R + completeness_R
    return 2 * homogeneity_R * completeness_R / np.where(total_R > 0, total_R, 1)


def _codes(values: Any) -> Rows:
    """Whole numbers from 0 on in place of values, equal for equal ones."""
    return np.unique(np.asarray(values), return_inverse=True)[1].reshape(-1)


def _entropies(codes_RN: Rows) -> Floats:
    """The entropy of each row of codes, in nats."""
    R, N = codes_RN.shape
    kinds = int(codes_RN.max(initial=0)) + 1
    flat = (codes_RN + kinds * np.arange(R)[:, None]).reshape(-1)
    share_RK = np.bincount(flat, minlength=R * kinds).reshape(R, kinds) / N
    logs_RK = np.log(share_RK, where=share_RK > 0, out=np.zeros_like(share_RK))
    return np.asarray(-(share_RK * logs_RK).sum(1))


def _scipy() -> Any:
    try:
        import scipy.stats
    except ImportError:
        raise DependencyError("intervals need scipy: pip install echovec[eval]") from None
    return scipy.stats


KINDS: Mapping[str, Kind] = {
    "mean": Kind(lambda items: len(items["values"]), _mean, "items"),
    "spearman": Kind(lambda items: len(items["gold"]), _spearman, "pairs"),
    "average precision": Kind(lambda items: len(items["labels"]), _average_precision, "pairs"),
    "v-measure": Kind(
        lambda items: len(items["labels"]),
        _v_measure,
        "texts (the clustering is not repeated; recentred on the score)",
    ),
}
"""How each kind of items becomes a score. "parts" (the mean of several) is beside them;
with "same items" all of them are over one sample."""
