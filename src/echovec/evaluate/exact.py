"""Exact: whether a set's test file is exactly the test split of an mteb task.

mteb ships statistics of its tasks: how many examples, how many characters, which mean score. They
are compared with those of the file; where all agree, the score is one of mteb's task.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from echovec.evaluate.layout import LocalSet, Row, corpus_of, queries_of, rows_of

Facts = dict[tuple[str, ...], float]
"""Where a number stands in mteb's statistics, and the number."""


@functools.cache
def metadata_of(name: str) -> Any:
    """The metadata of mteb's task of this name, or None if it has none."""
    import mteb

    try:
        with warnings.catch_warnings(action="ignore"):  # that a name is an old one
            return mteb.get_task(name).metadata
    except KeyError:
        return None


def subset_of(metadata: Any) -> str:
    """The one subset that local files hold: English where a task has several languages."""
    subsets: list[str] = list(metadata.hf_subsets)
    return next((s for s in subsets if s in ("en", "en-en", "default")), subsets[0])


def is_exact(one: LocalSet, metadata: Any) -> bool:
    """Whether the statistics of the set's test file are those of the task's test split.

    Of a classification those of the train file have to agree too: it is what is learnt from.
    """
    if metadata.type != one.category:
        return False
    splits = ("train", "test") if one.category == "Classification" else ("test",)
    return all(
        _agrees(_stats_of(metadata, split), facts_of(one, split))
        for split in splits
        if split == "test" or _stats_of(metadata, split)
    )


def _stats_of(metadata: Any, split: str) -> Mapping[str, Any]:
    """The statistics that mteb ships of a split; empty if it ships none."""
    stats: Mapping[str, Any] = (metadata.descriptive_stats or {}).get(split) or {}
    by_subset = stats.get("hf_subset_descriptive_stats")
    return by_subset.get(subset_of(metadata), {}) if by_subset else stats


def facts_of(one: LocalSet, split: str = "test") -> Facts:
    """The numbers to compare, of the file of a split."""
    if one.category != "Retrieval":
        rows = rows_of(one, split)
        return {("num_samples",): len(rows), **_FACTS[one.category](rows)}
    corpus = corpus_of(one)
    queries, qrels = queries_of(one, split, corpus)
    texts = [row["text"] for row in queries] + [_document(row) for row in corpus]
    return {
        ("num_documents",): len(corpus),
        ("num_queries",): len(queries),
        ("number_of_characters",): sum(map(len, texts)),
        ("relevant_docs_statistics", "num_relevant_docs"): sum(map(len, qrels.values())),
    }


def _document(row: Row) -> str:
    """A document as mteb reads it."""
    title, text = str(row["title"]), str(row["text"])
    return f"{title} {text}".strip() if title else text.strip()


def _pair_facts(rows: Sequence[Row]) -> Facts:
    characters = sum(len(row["sentence1"]) + len(row["sentence2"]) for row in rows)
    facts: Facts = {("number_of_characters",): characters}
    if "score" in rows[0]:
        mean = math.fsum(row["score"] for row in rows) / len(rows)
        facts["label_statistics", "avg_score"] = mean
    return facts


def _text_facts(rows: Sequence[Row]) -> Facts:
    return {
        ("text_statistics", "total_text_length"): sum(len(row["text"]) for row in rows),
        ("label_statistics", "unique_labels"): len({row["label"] for row in rows}),
    }


def _reranking_facts(rows: Sequence[Row]) -> Facts:
    texts = [text for row in rows for text in (row["query"], *row["positive"], *row["negative"])]
    return {
        ("num_samples",): len(texts),
        ("num_queries",): len(rows),
        ("number_of_characters",): sum(map(len, texts)),
        ("relevant_docs_statistics", "num_relevant_docs"): sum(len(r["positive"]) for r in rows),
    }


def _summary_facts(rows: Sequence[Row]) -> Facts:
    fields = ("human_summaries", "machine_summaries")
    return {
        (f"{field}_statistics", "total_text_length"): sum(len(t) for r in rows for t in r[field])
        for field in fields
    }


_FACTS: Mapping[str, Callable[[Sequence[Row]], Facts]] = {
    "STS": _pair_facts,
    "PairClassification": _pair_facts,
    "Classification": _text_facts,
    "Clustering": _text_facts,
    "Summarization": _summary_facts,
    "Reranking": _reranking_facts,
}


def _agrees(stats: Mapping[str, Any], facts: Facts) -> bool:
    for path, expected in facts.items():
        value: Any = stats
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is None or not math.isclose(value, expected, rel_tol=1e-9):
            return False
    return True
