"""Items: each item's part of a score, from what mteb hands out while it evaluates.

mteb writes the predictions of a task on request, and hands retrieval's scores of each query to a
method that tasks may override. From these come the items; whether they add up to mteb's main score
is checked, and items that do not are thrown away: a task has no interval rather than a wrong one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from echovec.evaluate.interval import Items, score_of

PerQuery = Mapping[str, Mapping[str, float]]
"""Query to metric (trec_eval's names) to score."""

_TREC = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P"}
_ROUNDING = 2e-5
"""mteb rounds retrieval's scores to five digits."""


class Watch:
    """Sees what a task hands out: `with` it around an evaluation of the task.

    Args:
        task: the loaded task.
        folder: an empty folder for mteb's predictions.
    """

    def __init__(self, task: Any, folder: Path) -> None:
        self.task = task
        self.folder = folder
        self.per_query: dict[tuple[str, str], PerQuery] = {}

    def __enter__(self) -> Watch:
        original = getattr(self.task, "task_specific_scores", None)
        if original is not None:

            def watched(scores: PerQuery, qrels: Any, results: Any, **where: str) -> Any:
                self.per_query[where["hf_split"], where["hf_subset"]] = scores
                return original(scores, qrels, results, **where)

            self.task.task_specific_scores = watched
        return self

    def __exit__(self, *_: object) -> None:
        self.task.__dict__.pop("task_specific_scores", None)

    def items(self, split: str, scores: Mapping[str, Mapping[str, Any]]) -> Items:
        """The items of a split, {} if there are none that give mteb's score.

        Args:
            split: the split.
            scores: mteb's scores by subset.
        """
        file = self.folder / self.task.prediction_file_name
        written = json.loads(file.read_text("utf-8")) if file.is_file() else {}
        parts = []
        for subset, of_subset in scores.items():
            predictions = written.get(subset, {}).get(split)
            part = self._of_subset(split, subset, predictions, of_subset)
            if not part or not _agree(score_of(part), of_subset["main_score"]):
                return {}
            parts.append(part)
        return parts[0] if len(parts) == 1 else {"kind": "parts", "parts": parts} if parts else {}

    def _of_subset(
        self, split: str, subset: str, predictions: Any, scores: Mapping[str, Any]
    ) -> Items:
        metric = self.task.metadata.main_score
        if queries := self.per_query.get((split, subset)):
            return _retrieval(queries, metric)
        data = self.task.dataset.get(subset, self.task.dataset)[split]
        reader = _READERS.get(self.task.metadata.type)
        if reader is None or predictions is None:
            return {}
        return reader(self.task, data, predictions, metric, scores)


def rounded(values: Any) -> list[float]:
    """Numbers with seven digits: what float32 holds."""
    return [float(f"{value:.7g}") for value in np.asarray(values, np.float64).ravel()]


def _agree(found: float, main_score: float) -> bool:
    return math.isclose(found, main_score, rel_tol=0, abs_tol=_ROUNDING)


def _retrieval(queries: PerQuery, metric: str) -> Items:
    match = re.fullmatch(r"(\w+)_at_(\d+)", metric)
    if match is None or match[1] not in _TREC:
        return {}
    name = f"{_TREC[match[1]]}_{match[2]}"
    values = [queries[query][name] for query in sorted(queries)]
    return {"kind": "mean", "of": "queries", "values": rounded(values)}


def _sts(task: Any, data: Any, predictions: Any, metric: str, scores: Any) -> Items:
    fields = {"cosine_spearman": "cosine_scores", "spearman": "similarity_scores"}
    if metric not in fields or predictions.get(fields[metric]) is None:
        return {}
    predicted = predictions[fields[metric]]
    return {"kind": "spearman", "predicted": rounded(predicted), "gold": rounded(data["score"])}


def _pairs(task: Any, data: Any, predictions: Any, metric: str, scores: Any) -> Items:
    rows = data[0] if len(data) == 1 else data
    found = {"cosine": np.asarray(predictions["cosine_scores"])}
    if metric == "max_ap":  # vectors have unit length: all but this one rank alike
        found["manhattan"] = -np.asarray(predictions["manhattan_distances"])
    elif metric not in ("cosine_ap", "similarity_ap"):
        return {}
    return {
        "kind": "average precision",
        "scores": {name: rounded(one) for name, one in found.items()},
        "labels": [int(label) for label in rows[task.label_column_name]],
    }


def _classification(task: Any, data: Any, predictions: Any, metric: str, scores: Any) -> Items:
    if metric != "accuracy":
        return {}
    gold = np.asarray(data[task.label_column_name])
    right = [(np.asarray(one) == gold) for one in predictions]
    return {
        "kind": "mean",
        "of": "test texts (the few-shot examples stay as mteb drew them)",
        "values": rounded(np.mean(right, axis=0)),
    }


def _clustering(task: Any, data: Any, predictions: Any, metric: str, scores: Any) -> Items:
    if metric != "v_measure":
        return {}
    if isinstance(predictions, dict):  # mteb's newer type draws texts itself and does not say which
        values = [value for level in scores["v_measures"].values() for value in level]
        return {"kind": "mean", "of": "mteb's own draws of texts", "values": rounded(values)}
    sets = [row for row in data if len(set(row[task.label_column_name])) > 1]
    if len(sets) != len(data) or len(sets) != len(predictions):
        return {}
    parts: list[Items] = [
        {
            "kind": "v-measure",
            "labels": np.unique(row[task.label_column_name], return_inverse=True)[1].tolist(),
            "clusters": clusters,
        }
        for row, clusters in zip(sets, predictions, strict=True)
    ]
    return parts[0] if len(parts) == 1 else {"kind": "parts", "parts": parts}


def _summarization(task: Any, data: Any, predictions: Any, metric: str, scores: Any) -> Items:
    from scipy.stats import spearmanr

    if metric != "cosine_spearman":
        return {}
    both = zip(predictions["human_scores"], predictions["cosine_scores"], strict=True)
    values = [float(spearmanr(human, cosine).statistic) for human, cosine in both]
    return {"kind": "mean", "of": "articles", "values": rounded(values)}


_READERS: Mapping[str, Callable[[Any, Any, Any, str, Any], Items]] = {
    "STS": _sts,
    "PairClassification": _pairs,
    "Classification": _classification,
    "Clustering": _clustering,
    "Summarization": _summarization,
}
"""mteb's type to what makes items of predictions; retrieval and reranking come by query."""
