"""Recall of an index, measured at its build: of the ten nearest rows, how many does it find?

A hundred rows, evenly spread, are asked for what is nearest to them beside themselves. The answers
are compared with those of exact float32 search over the vectors as they came in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from echovec.files.parquet import Vectors

if TYPE_CHECKING:
    from echovec.search.backend import Backend
    from echovec.search.gather import Gathered

QUERIES = 100
DEPTH = 10
LEAST_RECALL = 0.95
"""Below this a backend that can look further does."""


@dataclass(frozen=True)
class Truth:
    """Rows that are asked, and the ids that are truly nearest to each."""

    ids: list[str]
    vectors_QD: Vectors
    nearest: list[list[str]]


def find_truth(source: Gathered, queries: int = QUERIES, depth: int = DEPTH) -> Truth:
    """Ask some of the source's own rows; reads all of it twice and holds a block at a time."""
    wanted = np.unique(np.linspace(0, source.num_rows - 1, queries).round().astype(np.int64))
    ids, vectors, start = [], [], 0
    for block in source.blocks():
        rows = wanted[(wanted >= start) & (wanted < start + len(block.vectors_ND))] - start
        ids += [block.ids[row] for row in rows.tolist()] if len(rows) else []
        vectors.append(np.array(block.vectors_ND[rows]))
        start += len(block.vectors_ND)
    asked_QD = np.concatenate(vectors)
    depth = min(depth, source.num_rows - 1)
    scores_Qk = np.zeros((len(ids), 0), np.float32)
    names_Qk = np.zeros((len(ids), 0), object)
    own = {key: query for query, key in enumerate(ids)}
    for block in source.blocks():
        scores_QB = asked_QD @ block.vectors_ND.T
        for place, key in enumerate(block.ids):
            if key in own:
                scores_QB[own[key], place] = -np.inf
        names_QB = np.broadcast_to(np.array(block.ids, object), scores_QB.shape)
        scores_Qk = np.concatenate([scores_Qk, scores_QB], axis=1)
        names_Qk = np.concatenate([names_Qk, names_QB], axis=1)
        best = np.argsort(-scores_Qk, axis=1, kind="stable")[:, :depth]
        scores_Qk = np.take_along_axis(scores_Qk, best, axis=1)
        names_Qk = np.take_along_axis(names_Qk, best, axis=1)
    return Truth(ids, asked_QD, names_Qk.tolist())


def measure(opened: Backend, queries_QD: Vectors, truth: Truth) -> dict[str, Any] | None:
    """The share of the truly nearest rows that an opened index gives; None if there is one row.

    Args:
        opened: the index.
        queries_QD: the truth's vectors as the index takes them.
        truth: what is to be found.
    """
    from echovec.search.backend import Ask

    depth = len(truth.nearest[0])
    if not depth:
        return None
    found = 0
    for own, hits, nearest in zip(
        truth.ids, opened.nearest(queries_QD, Ask(depth + 1)), truth.nearest, strict=True
    ):
        others = [hit.id for hit in hits if hit.id != own][:depth]
        found += len(set(others) & set(nearest))
    return {"at": depth, "queries": len(truth.ids), "recall": found / (depth * len(truth.ids))}
