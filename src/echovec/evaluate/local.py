"""Local: mteb's tasks over a folder's files: its classes and metrics, with only loading replaced.

A set that belongs to an mteb task runs in that task's own class, with its number of examples, its
main score and so on. Whether the test file *is* mteb's test split is not taken on trust: counts,
characters and mean score or labels are compared with the statistics that mteb ships. If they agree
the task keeps mteb's name; else its name is one that no mteb task has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from echovec.errors import InputError
from echovec.evaluate.exact import is_exact, metadata_of, subset_of
from echovec.evaluate.instructions import instruction_of
from echovec.evaluate.layout import LocalSet, Row, corpus_of, files_of, queries_of, rows_of

MTEB_OF: Mapping[str, str] = {
    "Banking77": "Banking77Classification",
    "Emotion": "EmotionClassification",
    "Imdb-sub": "ImdbClassification",
    "MSMARCO-DL19-pool": "MSMARCO",
    "SummEval-12systems": "SummEvalSummarization.v2",
    "TwentyNewsgroups-subjects": "TwentyNewsgroupsClustering",
}
"""Folders that are, or are part of, an mteb task of another name. A folder with the name of an mteb
task belongs to that task anyway, and `task.toml` can say it of any folder."""

_SCORED_BY = {"SummEval": "SummEvalSummarization.v2"}
"""SummEval's own class keeps a bug of its first version: it averages correlations with p-values
(mteb issue 1156). Its second version scores the same data rightly, so that is the task they are."""


@dataclass(frozen=True)
class LocalTask:
    """A set as a task of mteb."""

    set: LocalSet

    @property
    def category(self) -> str:
        """The type of task, as mteb calls it."""
        return self.set.category

    @cached_property
    def published_name(self) -> str | None:
        """The mteb task that it is from, if any."""
        name = self.set.mteb or MTEB_OF.get(self.set.folder.name, self.set.name)
        name = _SCORED_BY.get(name, name)
        if metadata_of(name) is not None:
            return name
        if self.set.mteb is not None:
            raise InputError(f"{self.set.folder / 'task.toml'}: mteb has no task {name!r}")
        return None

    @cached_property
    def exact(self) -> bool:
        """Whether its test file is exactly the test split of the mteb task it is from."""
        if self.published_name is None or "test" not in self.set.splits:
            return False
        return is_exact(self.set, metadata_of(self.published_name))

    @cached_property
    def name(self) -> str:
        """Its name at mteb if exact; else the folder's, with "-local" if mteb has one so called."""
        if self.exact:
            assert self.published_name is not None
            return self.published_name
        return self.set.name if metadata_of(self.set.name) is None else f"{self.set.name}-local"

    @cached_property
    def revision(self) -> str:
        """What mteb pins if the data are exactly its own, else a hash of the files."""
        if self.exact:
            return str(metadata_of(self.published_name or "").revision)
        # Of all splits together: mteb keeps splits in one file only if they are of one revision.
        return self._hash

    def revision_of(self, split: str) -> str:
        """The same for one split: only the test split of exact data is mteb's own."""
        return self.revision if split == "test" else self._hash

    @cached_property
    def _hash(self) -> str:
        found = hashlib.sha256()
        for file in sorted({f for split in self.set.splits for f in files_of(self.set, split)}):
            content = file.read_bytes()
            found.update(f"{file.name}\0{len(content)}\0".encode())
            found.update(content)
        return found.hexdigest()[:16]

    def is_reported(self, split: str) -> bool:
        """Whether scores of this split are what is reported: nothing may be chosen by them."""
        return split == "test"

    def make(self, split: str) -> Any:
        """The task, loaded: an instance of mteb's class with the split's data in it.

        Raises:
            InputError: a file of it is broken.
        """
        base = self._base()
        metadata = self.metadata(split)
        dataset = _DATASETS[self.category](self.set, split)
        subset = subset_of(metadata)

        def load_data(task: Any, *_: Any, **__: Any) -> None:
            task.dataset = {subset: dataset}
            task.data_loaded = True

        made = type(self.name, (base,), {"metadata": metadata, "load_data": load_data})
        task: Any = made(seed=SEED)
        task.hf_subsets = [subset]
        task.load_data()
        return task

    def _base(self) -> type:
        import mteb
        from mteb.abstasks import (
            AbsTaskClassification,
            AbsTaskClusteringLegacy,
            AbsTaskPairClassification,
            AbsTaskRetrieval,
            AbsTaskSTS,
            AbsTaskSummarization,
        )

        if self.published_name is not None:
            own = mteb.get_task(self.published_name)
            if own.metadata.type == self.category:
                return type(own)
        base: type = {
            "STS": AbsTaskSTS,
            "PairClassification": AbsTaskPairClassification,
            "Classification": AbsTaskClassification,
            "Clustering": AbsTaskClusteringLegacy,
            "Retrieval": AbsTaskRetrieval,
            "Reranking": AbsTaskRetrieval,
            "Summarization": AbsTaskSummarization,
        }[self.category]
        scores = {"min_score": 0, "max_score": 5}  # a linear scaling, which no correlation sees
        return type("Own", (base,), scores) if self.category == "Summarization" else base

    def metadata(self, split: str) -> Any:
        """The task on this split as mteb describes it, with the set's own instruction."""
        from mteb.abstasks.task_metadata import TaskMetadata

        prompt = instruction_of(
            self.published_name or self.set.name, self.category, self.set.instruction
        )
        asked = {"query": prompt} if self.category == "Retrieval" else prompt
        if self.exact:
            own = metadata_of(self.published_name or "")
            return own.model_copy(update={"eval_splits": [split], "prompt": asked})
        return TaskMetadata(
            name=self.name,
            description=f"{self.category} on the files of the folder {self.set.folder.name}.",
            dataset={"path": f"local/{self.set.folder.name}", "revision": self.revision},
            type=self.category,
            category="t2t",
            eval_splits=[split],
            eval_langs=["eng-Latn"],
            main_score=MAIN_SCORES[self.category],
            prompt=asked,
        )


SEED = 42
"""mteb's own seed, which its published scores have: it draws the few-shot examples."""

MAIN_SCORES: Mapping[str, str] = {
    "STS": "cosine_spearman",
    "PairClassification": "max_ap",
    "Classification": "accuracy",
    "Clustering": "v_measure",
    "Retrieval": "ndcg_at_10",
    "Reranking": "map_at_1000",
    "Summarization": "cosine_spearman",
}
"""What mteb's own tasks of each type report."""


def _columns(rows: Sequence[Row], **fields: str) -> Any:
    from datasets import Dataset

    return Dataset.from_dict({name: [r[field] for r in rows] for name, field in fields.items()})


def _sts(one: LocalSet, split: str) -> Any:
    fields = {"sentence1": "sentence1", "sentence2": "sentence2", "score": "score"}
    return {split: _columns(rows_of(one, split), **fields)}


def _pair_classification(one: LocalSet, split: str) -> Any:
    fields = {"sentence1": "sentence1", "sentence2": "sentence2", "labels": "label"}
    return {split: _columns(rows_of(one, split), **fields)}


def _classification(one: LocalSet, split: str) -> Any:
    from datasets import DatasetDict

    if split == "train":
        raise InputError(f"{one.name}: the train split is what the classifier learns from")
    parts = {name: rows_of(one, name) for name in ("train", split)}
    if len({type(row["label"]) for rows in parts.values() for row in rows}) > 1:
        raise InputError(
            f"{one.folder}: some labels of train and {split} are texts and some whole numbers; "
            "write all of them as one of the two"
        )
    return DatasetDict({n: _columns(rows, text="text", label="label") for n, rows in parts.items()})


def _clustering(one: LocalSet, split: str) -> Any:
    from datasets import Dataset

    rows = rows_of(one, split)
    number = {label: i for i, label in enumerate(sorted({row["label"] for row in rows}, key=str))}
    texts, labels = [r["text"] for r in rows], [number[r["label"]] for r in rows]
    return {split: Dataset.from_dict({"sentences": [texts], "labels": [labels]})}


def _summarization(one: LocalSet, split: str) -> Any:
    names = ("human_summaries", "machine_summaries", "relevance")
    rows = [{"text": "", **row} for row in rows_of(one, split)]
    return {split: _columns(rows, text="text", **{name: name for name in names})}


def _retrieval(one: LocalSet, split: str) -> Any:
    corpus = corpus_of(one)
    queries, qrels = queries_of(one, split, corpus)
    return {
        split: {
            "corpus": _columns(corpus, id="_id", title="title", text="text"),
            "queries": _columns(queries, id="_id", text="text"),
            "relevant_docs": qrels,
            "top_ranked": None,
        }
    }


def _reranking(one: LocalSet, split: str) -> Any:
    # Equal scores rank by id, descending: negatives come first, so ties never help.
    corpus: list[Row] = []
    queries: list[Row] = []
    relevant: dict[str, dict[str, int]] = {}
    ranked: dict[str, list[str]] = {}
    for number, row in enumerate(rows_of(one, split)):
        query = f"q{number:06}"
        queries.append({"id": query, "text": row["query"]})
        texts = [(t, 1) for t in row["positive"]] + [(t, 0) for t in row["negative"]]
        grades = {f"{query}-d{i:06}": grade for i, (_, grade) in enumerate(texts)}
        documents = [
            {"id": i, "title": "", "text": t} for i, (t, _) in zip(grades, texts, strict=True)
        ]
        corpus += documents
        relevant[query], ranked[query] = grades, list(grades)
    return {
        split: {
            "corpus": _columns(corpus, id="id", title="title", text="text"),
            "queries": _columns(queries, id="id", text="text"),
            "relevant_docs": relevant,
            "top_ranked": ranked,
        }
    }


_DATASETS: Mapping[str, Callable[[LocalSet, str], Any]] = {
    "STS": _sts,
    "PairClassification": _pair_classification,
    "Classification": _classification,
    "Clustering": _clustering,
    "Summarization": _summarization,
    "Retrieval": _retrieval,
    "Reranking": _reranking,
}
