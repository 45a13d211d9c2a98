"""Pairs: two sentences and people's score, from the STS sets of a data folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from echovec.errors import InputError
from echovec.evaluate.interval import RESAMPLES, SEED, replicates, score_of
from echovec.evaluate.layout import LocalSet, find_sets, rows_of
from echovec.evaluate.reproduce.comparison import Comparison, Scored, Task
from echovec.evaluate.reproduce.verdict import Floats
from echovec.evaluate.sample import chosen_rows
from echovec.vector.similarity import cosine_pairwise

if TYPE_CHECKING:
    from echovec.embedder import Embedder


@dataclass(frozen=True, eq=False)
class Pairs:
    """The pairs of one set."""

    name: str
    first: Sequence[str]
    second: Sequence[str]
    gold: Floats
    """People's scores, [N]; higher is nearer."""


def sts_pairs(
    data: Path | None, names: Sequence[str], size: int | None, seed: int, *, split: str = "test"
) -> list[Pairs]:
    """The named STS sets that the folder has, at most `size` pairs of each, drawn with `seed`.

    Raises:
        InputError: there is no folder, none of the sets is in it, or a line cannot be read.
    """
    if data is None:
        raise InputError("this experiment reads STS pairs; give their folder with --data DIR")
    sets = {one.folder.name: one for one in find_sets(data)[0] if one.category == "STS"}
    found = [sets[name] for name in names if name in sets and split in sets[name].splits]
    if not found:
        raise InputError(
            f"{data} has none of {', '.join(names)}; it needs NAME/{split}.jsonl.gz with "
            "sentence1, sentence2 and score on each line"
        )
    return [_read(one, split, size, seed) for one in found]


def _read(one: LocalSet, split: str, size: int | None, seed: int) -> Pairs:
    rows = rows_of(one, split)
    if size is not None:
        chosen = chosen_rows(len(rows), size, np.random.default_rng(seed))
        rows = [rows[row] for row in chosen]
    first, second, gold = ([row[f] for row in rows] for f in ("sentence1", "sentence2", "score"))
    return Pairs(one.folder.name, first, second, np.array(gold, dtype=np.float64))


def dev_pairs(data: Path | None, size: int | None, seed: int) -> Pairs:
    """STSBenchmark's development pairs: what experiments may choose anything on."""
    (pairs,) = sts_pairs(data, ("STSBenchmark",), size, seed, split="dev")
    return pairs


def scored_pairs(cosines_N: NDArray[Any], gold_N: Floats) -> Scored:
    """Spearman's correlation of cosine and people's scores, times 100, whole and resampled."""
    items = {"kind": "spearman", "predicted": cosines_N, "gold": gold_N}
    return Scored(100 * score_of(items), 100 * replicates(items, resamples=RESAMPLES, seed=SEED))


def cosines_of(embedder: Embedder, pairs: Pairs) -> Floats:
    """Cosine of each pair, [N]."""
    vectors = embedder.encode([*pairs.first, *pairs.second], show_progress_bar=False)
    middle = len(pairs.gold)
    return np.asarray(cosine_pairwise(vectors[:middle], vectors[middle:]), dtype=np.float64)


def compare_on_pairs(
    cosines: Mapping[str, Sequence[NDArray[Any]]], sets: Sequence[Pairs], *, split: str = "test"
) -> Comparison:
    """Methods side by side on STS sets.

    Args:
        cosines: for each method the cosines of each set's pairs.
        sets: the sets.
        split: what to call the split.
    """
    tasks = tuple(Task(one.name, "STS", split, len(one.gold)) for one in sets)
    scores = {
        method: {
            one.name: scored_pairs(of_set, one.gold)
            for one, of_set in zip(sets, of_method, strict=True)
        }
        for method, of_method in cosines.items()
    }
    return Comparison(tasks, scores)
