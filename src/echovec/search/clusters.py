"""Clusters of an index's rows by their directions, with the words that tell them apart.

The mean of all rows is taken off first, for the vectors of most models share a direction that tells
nothing (docs/map.md has what that gains). Then k-means on the sphere: every row goes to the centre
with the largest dot product, every centre becomes the unit mean of its rows, until nothing moves.
First centres are drawn as k-means++ draws them, from a seed, so equal input gives equal clusters.

The words of a cluster are those that set its texts apart most: p log(p / q), where p is a word's
share in the cluster's texts and q its share in all, each text counting a word once. c-TF-IDF
(arXiv 2203.05794) put "to", "how" and "in" first where texts are short.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from echovec.errors import InputError
from echovec.files.parquet import Vectors

ROUNDS = 50
WORDS = 6

_WORD = re.compile(r"[^\W\d_]{2,}")
_SCORES_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Clusters:
    """Which cluster each row is in; clusters are numbered by size, largest first."""

    labels_N: NDArray[np.int64]
    centres_KD: Vectors
    """Of centred vectors, of unit length."""
    cosines_N: Vectors
    """Each centred row with its centre."""

    words: list[list[str]]
    """The words that tell each cluster apart, most telling first; empty without texts."""

    @property
    def sizes(self) -> list[int]:
        """Rows in each cluster."""
        counts: list[int] = np.bincount(self.labels_N, minlength=len(self.centres_KD)).tolist()
        return counts


def find_clusters(
    vectors_ND: Vectors, count: int, *, texts: Sequence[str | None] = (), seed: int = 0
) -> Clusters:
    """Cluster unit vectors.

    Args:
        vectors_ND: unit vectors.
        count: how many clusters; fewer come out if fewer rows differ.
        texts: for the words, in the order of rows; None where there is none.
        seed: of the first centres.

    Raises:
        InputError: fewer rows than clusters, or less than one cluster.
    """
    if not 1 <= count <= len(vectors_ND):
        raise InputError(f"{count} clusters of {len(vectors_ND):,} rows; give 1 to that many")
    vectors_ND = centred(vectors_ND)
    centres_KD = _seeds(vectors_ND, count, np.random.default_rng(seed))
    labels_N = np.full(len(vectors_ND), -1)
    for _ in range(ROUNDS):
        new_N, cosines_N = _nearest(vectors_ND, centres_KD)
        if np.array_equal(new_N, labels_N):
            break
        labels_N, centres_KD = new_N, _means(vectors_ND, new_N, centres_KD)
    else:
        labels_N, cosines_N = _nearest(vectors_ND, centres_KD)
    sizes = np.bincount(labels_N, minlength=len(centres_KD))
    order = np.argsort(-sizes, kind="stable")[: int((sizes > 0).sum())]
    rank_K = np.full(len(centres_KD), -1)
    rank_K[order] = np.arange(len(order))
    labels_N = rank_K[labels_N]
    words = telling_words(labels_N, len(order), texts)
    return Clusters(labels_N, centres_KD[order], cosines_N, words)


def telling_words(
    labels_N: NDArray[np.int64], count: int, texts: Sequence[str | None], limit: int = WORDS
) -> list[list[str]]:
    """The words that set each cluster apart, by p log(p / q); none that are rarer in it."""
    in_cluster: list[Counter[str]] = [Counter() for _ in range(count)]
    for label, text in zip(labels_N.tolist(), texts, strict=False):
        in_cluster[label].update(set(_WORD.findall((text or "").lower())))
    everywhere: Counter[str] = Counter()
    for counts in in_cluster:
        everywhere.update(counts)
    telling = []
    for counts in in_cluster:
        ratio = max(everywhere.total(), 1) / max(counts.total(), 1)
        weights = {word: n * np.log(ratio * n / everywhere[word]) for word, n in counts.items()}
        best = sorted(weights, key=lambda word: (-weights[word], word))
        telling.append([word for word in best[:limit] if weights[word] > 0])
    return telling


def centred(vectors_ND: Vectors) -> Vectors:
    """Without the mean of all, of unit length again; rows that equal the mean become zeros."""
    moved = vectors_ND - vectors_ND.mean(axis=0)
    lengths_N1 = np.linalg.norm(moved, axis=1, keepdims=True)
    unit: Vectors = np.where(lengths_N1 > 1e-6, moved / np.maximum(lengths_N1, 1e-6), 0)
    return unit


def _seeds(vectors_ND: Vectors, count: int, rng: np.random.Generator) -> Vectors:
    """Greedy k-means++: of a few rows drawn by their distance, the one that helps most is next."""
    chosen = [int(rng.integers(len(vectors_ND)))]
    distance_N = _distances(vectors_ND, vectors_ND[chosen])[:, 0]
    trials = 2 + int(np.log(count))
    while len(chosen) < count and distance_N.any():
        drawn = rng.choice(len(vectors_ND), size=trials, p=distance_N / distance_N.sum())
        left_NT = np.minimum(distance_N[:, None], _distances(vectors_ND, vectors_ND[drawn]))
        best = int(left_NT.sum(axis=0).argmin())
        chosen.append(int(drawn[best]))
        distance_N = left_NT[:, best]
    return np.array(vectors_ND[chosen])


def _distances(vectors_ND: Vectors, others_TD: Vectors) -> NDArray[np.float64]:
    distances_NT = 1 - (vectors_ND @ others_TD.T).astype(np.float64)
    distances_NT[distances_NT < 1e-6] = 0  # the same vector but for rounding
    return distances_NT


def _nearest(vectors_ND: Vectors, centres_KD: Vectors) -> tuple[NDArray[np.int64], Vectors]:
    labels, cosines = [], []
    at_once = max(1, _SCORES_AT_ONCE // len(centres_KD))
    for start in range(0, len(vectors_ND), at_once):
        scores = vectors_ND[start : start + at_once] @ centres_KD.T
        best = scores.argmax(axis=1)
        labels.append(best)
        cosines.append(scores[np.arange(len(best)), best])
    return np.concatenate(labels), np.concatenate(cosines)


def _means(vectors_ND: Vectors, labels_N: NDArray[np.int64], centres_KD: Vectors) -> Vectors:
    """The unit mean of each cluster's rows; a cluster without rows keeps its centre."""
    order = np.argsort(labels_N, kind="stable")
    present, starts = np.unique(labels_N[order], return_index=True)
    sums = np.add.reduceat(vectors_ND[order], starts, axis=0, dtype=np.float64)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    means_KD = centres_KD.copy()
    means_KD[present] = sums / np.maximum(lengths, 1e-12)
    return means_KD
