"""Score: unit vectors of all development texts to scores, per task, per category, in all.

Items are those of `echovec.evaluate.interval`, so every score has its bootstrap interval by the
same functions that tests are reported with. Shapes: N texts, D width, Q queries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echovec.errors import DependencyError
from echovec.evaluate.interval import Items, replicates, score_of
from echovec.tune.dev import CATEGORIES, DevTask

Vectors = NDArray[np.float32]
TOP = 10
_CLUSTERINGS = 3
_LEVEL = 95
_DRAWS = 300
"""Fewer than the 1,000 of evaluation: intervals of a dozen recipes shall not take minutes."""


@dataclass(frozen=True)
class Scores:
    """Scores x 100."""

    tasks: Mapping[str, float]

    categories: Mapping[str, float]
    """The mean of each category's tasks."""

    @property
    def mean(self) -> float:
        """The mean over categories: what is chosen by."""
        return float(np.mean(list(self.categories.values())))


def check_libraries() -> None:
    """DependencyError unless everything that tuning needs in the end is there at the start."""
    for module in ("scipy", "sklearn", "matplotlib"):
        try:
            __import__(module)
        except ImportError:
            raise DependencyError(
                f"tuning needs {module}, which is not installed: pip install echovec[eval]"
            ) from None


def score(tasks: Sequence[DevTask], z_ND: Vectors) -> Scores:
    """The score of every task.

    Args:
        tasks: whose rows are rows of `z_ND`.
        z_ND: vectors of unit length.
    """
    return summed_up(tasks, {task.name: 100 * score_of(items(task, z_ND)) for task in tasks})


def summed_up(tasks: Sequence[DevTask], by_task: Mapping[str, float]) -> Scores:
    """Scores of tasks put together by category."""
    grouped = {
        category: [by_task[task.name] for task in tasks if task.category == category]
        for category in CATEGORIES
    }
    means = {category: float(np.mean(own)) for category, own in grouped.items() if own}
    return Scores(dict(by_task), means)


def mean_replicates(tasks: Sequence[DevTask], z_ND: Vectors) -> NDArray[np.float64]:
    """The mean over categories x 100 of each bootstrap draw of items, [R].

    Draws are the same for all vectors, so differences of replicates are paired.
    """
    means_R = np.zeros(_DRAWS)
    categories = [task.category for task in tasks]
    for task in tasks:
        share = 1 / categories.count(task.category) / len(set(categories))
        means_R += 100 * share * replicates(items(task, z_ND), resamples=_DRAWS)
    return means_R


def middle(values_R: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % interval of replicates; draws without a score are passed over."""
    tail = (100 - _LEVEL) / 2
    low, high = np.nanpercentile(values_R, [tail, 100 - tail])
    return float(low), float(high)


def items(task: DevTask, z_ND: Vectors) -> Items:
    """What the score of a task is made of."""
    return _ITEMS[task.category](task, z_ND)


def _cosines(task: DevTask, z_ND: Vectors) -> NDArray[np.float64]:
    first, second = z_ND[task.rows["first"]], z_ND[task.rows["second"]]
    return np.asarray((first.astype(np.float64) * second).sum(axis=1))


def _sts(task: DevTask, z_ND: Vectors) -> Items:
    return {"kind": "spearman", "predicted": _cosines(task, z_ND), "gold": task.gold["score"]}


def _pair_classification(task: DevTask, z_ND: Vectors) -> Items:
    return {
        "kind": "average precision",
        "labels": task.gold["score"].astype(int),
        "scores": {"cosine": _cosines(task, z_ND)},
    }


def _classification(task: DevTask, z_ND: Vectors) -> Items:
    """Accuracy of the nearest mean of a label's texts.

    On unit vectors and few texts a regularised logistic regression, which mteb has, finds nearly
    the same borders; this is a thousand times faster.
    """
    learn_ND, ask_ND = z_ND[task.rows["learn"]], z_ND[task.rows["ask"]]
    labels, own = np.unique(task.gold["learn"], return_inverse=True)
    mean_LD = np.zeros((len(labels), z_ND.shape[1]))
    np.add.at(mean_LD, own, learn_ND)
    mean_LD /= np.bincount(own)[:, None]
    # The nearest in Euclidean distance: cosines would favour no label over another either way.
    distance_NL = (mean_LD**2).sum(axis=1) - 2 * ask_ND.astype(np.float64) @ mean_LD.T
    right = labels[distance_NL.argmin(axis=1)] == task.gold["ask"]
    return {"kind": "mean", "values": right.astype(float)}


def _clustering(task: DevTask, z_ND: Vectors) -> Items:
    from sklearn.cluster import KMeans

    own_ND = z_ND[task.rows["all"]].astype(np.float64)
    labels = np.unique(task.gold["label"], return_inverse=True)[1]  # numbers compare faster
    count = int(labels.max()) + 1
    # One clustering is luck; the mean of three is less of it.
    runs = [
        KMeans(count, n_init=1, random_state=seed).fit(own_ND).labels_
        for seed in range(_CLUSTERINGS)
    ]
    parts = [{"kind": "v-measure", "labels": labels, "clusters": run} for run in runs]
    return {"kind": "parts", "parts": parts, "same items": True}


def _retrieval(task: DevTask, z_ND: Vectors) -> Items:
    queries_QD, documents_ND = z_ND[task.rows["queries"]], z_ND[task.rows["documents"]]
    return {"kind": "mean", "values": ndcg(queries_QD @ documents_ND.T, task.gold["grade"])}


def ndcg(likeness_QN: NDArray[Any], grade_QN: NDArray[Any]) -> NDArray[np.float64]:
    """The nDCG at 10 of each query, grades as gains, as trec_eval has it."""
    top = min(TOP, likeness_QN.shape[1])
    order_QK = np.argsort(-likeness_QN, axis=1, kind="stable")[:, :top]
    discount_K = 1 / np.log2(np.arange(top) + 2)
    found_Q = np.take_along_axis(grade_QN, order_QK, axis=1) @ discount_K
    ideal_Q = -np.sort(-grade_QN, axis=1)[:, :top] @ discount_K
    return np.asarray(found_Q / ideal_Q, dtype=np.float64)


_ITEMS: Mapping[str, Callable[[DevTask, Vectors], Items]] = {
    "STS": _sts,
    "PairClassification": _pair_classification,
    "Classification": _classification,
    "Clustering": _clustering,
    "Retrieval": _retrieval,
}
