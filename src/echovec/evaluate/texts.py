"""Texts: what a loaded task will ask to embed, so that the work is known before it begins.

Listed here by type of task, as mteb's evaluators read the data; a test compares it with what they
ask for. A type that is not listed is counted when it is reached.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from echovec.recipe import Role

Asked = tuple[Role, list[str]]
"""A role, and texts to embed in it."""


def texts_of(task: Any, split: str) -> list[Asked] | None:
    """The texts of a loaded task's split by role, repetitions included; None if not known."""
    reader = _READERS.get(task.metadata.type)
    if reader is None:
        return None
    return [asked for data in split_data(task, split) for asked in reader(task, data, split)]


def split_data(task: Any, split: str) -> Iterator[Any]:
    """What each subset of a loaded task holds for a split."""
    for subset in task.hf_subsets:
        yield task.dataset.get(subset, task.dataset)[split]


def _pairs(task: Any, data: Any, split: str) -> Iterator[Asked]:
    rows = data[0] if len(data) == 1 and isinstance(data[0]["sentence1"], list) else data
    yield "symmetric", [*rows["sentence1"], *rows["sentence2"]]


def _classification(task: Any, data: Any, split: str) -> Iterator[Asked]:
    yield "symmetric", list(data["text"])
    holders = [task.dataset.get(subset, task.dataset) for subset in task.hf_subsets]
    train = next(parts[task.train_split] for parts in holders if parts[split] is data)
    labels = list(train[task.label_column_name])
    texts = list(train["text"])
    yield "symmetric", [texts[row] for row in _few_shot_rows(task, labels)]


def _few_shot_rows(task: Any, labels: list[Any]) -> list[int]:
    """All rows that mteb's draws take, as its `_undersample_data` draws them.

    On a plain list: on a dataset's column a draw takes a second for 10,000 texts. Each draw
    shuffles what the one before left, so all have to be made in order.
    """
    drawn: set[int] = set()
    order = list(range(len(labels)))
    for _ in range(task.n_experiments):
        np.random.RandomState(task.seed).shuffle(order)  # the generator that mteb uses
        taken: Counter[Any] = Counter()
        for row in order:
            if taken[labels[row]] < task.samples_per_label:
                taken[labels[row]] += 1
                drawn.add(row)
    return sorted(drawn)


def _clustering(task: Any, data: Any, split: str) -> Iterator[Asked]:
    for row in data["sentences"]:
        yield "symmetric", [row] if isinstance(row, str) else list(row)


def _summarization(task: Any, data: Any, split: str) -> Iterator[Asked]:
    for column in ("human_summaries", "machine_summaries"):
        yield "symmetric", [text for row in data[column] for text in row]


def _retrieval(task: Any, data: Any, split: str) -> Iterator[Asked]:
    corpus, queries = data["corpus"], data["queries"]
    if isinstance(queries["text"][0], str) and "instruction" not in queries.column_names:
        yield "query", list(queries["text"])
    titles = corpus["title"] if "title" in corpus.column_names else [""] * len(corpus)
    yield (
        "document",
        [
            f"{title} {text}".strip() if title else text.strip()
            for title, text in zip(titles, corpus["text"], strict=True)
        ],
    )


_READERS: Mapping[str, Callable[[Any, Any, str], Iterator[Asked]]] = {
    "STS": _pairs,
    "PairClassification": _pairs,
    "Classification": _classification,
    "Clustering": _clustering,
    "Summarization": _summarization,
    "Retrieval": _retrieval,
    "Reranking": _retrieval,
}
