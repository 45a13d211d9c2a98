"""Sample: a quick look at a task: at most N items, drawn with a seed, the same for every recipe.

What an item is, and what else is cut, by type:

| type | items | cut beside them |
|---|---|---|
| STS, pair classification | N pairs | |
| classification | N test texts, labels as in the whole | one few-shot draw instead of ten |
| clustering | N texts of N / 10 classes at most, their labels as in the whole | |
| retrieval | N queries | to 2 judged documents of each query, the highest grades, and the unjudged ones nearest in words to the queries, 3 N documents in all |
| reranking | N queries | to 3 positives and 5 negatives of each query |
| summarization | N / 10 articles, at least 5, with all their summaries | |

A sampled score is another task's score: smaller corpora are easier, and few texts in many classes
cluster differently. It ranks recipes; it is not comparable with whole tasks or published numbers.
"""  # noqa: E501 (a table is one line a row)

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from echovec.errors import InputError

POSITIVES, NEGATIVES = 3, 5
JUDGED = 2
DOCUMENTS = 3
CLASS_SIZE = 10
SUMMARIES_SHARE, FEWEST_ARTICLES = 10, 5


def sample_task(task: Any, split: str, size: int, seed: int) -> None:
    """Cut a loaded task to a sample, in place.

    Raises:
        InputError: the size is too small, or the task's type cannot be sampled.
    """
    if size < 2:
        raise InputError(f"a sample of {size} items; give 2 or more")
    sampler = _SAMPLERS.get(task.metadata.type)
    if sampler is None:
        raise InputError(
            f"{task.metadata.name}: tasks of the type {task.metadata.type} cannot be sampled; run "
            "it without --sample"
        )
    dataset = {}
    for subset in task.hf_subsets:
        parts = dict(task.dataset.get(subset, task.dataset))
        parts[split] = sampler(task, parts[split], size, np.random.default_rng(seed))
        dataset[subset] = _like(task.dataset.get(subset, task.dataset), parts)
    task.dataset = dataset


def _like(original: Any, parts: dict[str, Any]) -> Any:
    from datasets import DatasetDict

    return DatasetDict(parts) if isinstance(original, DatasetDict) else parts


def chosen_rows(number: int, size: int, source: np.random.Generator) -> list[int]:
    """Which of `number` rows a sample takes, ascending; all of them if there are not more."""
    if number <= size:
        return list(range(number))
    return sorted(source.choice(number, size, replace=False).tolist())


def stratified_rows(labels: Sequence[Any], size: int, source: np.random.Generator) -> list[int]:
    """Rows with the labels' shares as near to the whole's as whole numbers allow, ascending."""
    number = len(labels)
    if number <= size:
        return list(range(number))
    # Shuffled, then sorted by label: every (number / size)-th row has each label in its share.
    order = source.permutation(number)
    ranks = {label: rank for rank, label in enumerate(sorted(set(labels), key=str))}
    order = order[np.argsort([ranks[labels[row]] for row in order], kind="stable")]
    places = (np.arange(size) + source.random()) * number / size
    return sorted(order[places.astype(int)].tolist())


def _pairs(task: Any, data: Any, size: int, source: np.random.Generator) -> Any:
    if len(data) == 1 and isinstance(data[0]["sentence1"], list):  # all pairs in one row
        from datasets import Dataset

        data = Dataset.from_dict(data[0])
    return data.select(chosen_rows(len(data), size, source))


def _classification(task: Any, data: Any, size: int, source: np.random.Generator) -> Any:
    task.n_experiments = 1
    return data.select(stratified_rows(list(data[task.label_column_name]), size, source))


def _clustering(task: Any, data: Any, size: int, source: np.random.Generator) -> Any:
    from datasets import Dataset

    texts, labels = task.input_column_name, task.label_column_name
    if isinstance(data[texts][0], str):
        task.max_fraction_of_documents_to_embed = None
        first = [one[0] if isinstance(one, list) else one for one in data[labels]]
        return data.select(_of_few_classes(first, size, source))
    sets: list[dict[str, Any]] = []
    share = max(2, size // len(data))
    for row in data:
        rows = _of_few_classes(row[labels], share, source)
        sets.append({name: [row[name][i] for i in rows] for name in (texts, labels)})
    return Dataset.from_list(sets)


def _of_few_classes(labels: Sequence[Any], size: int, source: np.random.Generator) -> list[int]:
    """Rows of so many classes that each has ten or more texts: two texts are no cluster."""
    classes = sorted(set(labels), key=str)
    most = max(2, size // CLASS_SIZE)
    kept = {classes[i] for i in chosen_rows(len(classes), most, source)}
    rows = [row for row, label in enumerate(labels) if label in kept]
    return [rows[i] for i in stratified_rows([labels[row] for row in rows], size, source)]


def _summarization(task: Any, data: Any, size: int, source: np.random.Generator) -> Any:
    articles = max(FEWEST_ARTICLES, size // SUMMARIES_SHARE)
    return data.select(chosen_rows(len(data), articles, source))


def _retrieval(task: Any, data: Any, size: int, source: np.random.Generator) -> dict[str, Any]:
    if data["top_ranked"] is not None:
        return _reranking(task, data, size, source)
    queries, judged = _queries(data, size, source)
    kept: dict[str, dict[str, int]] = {}
    for query in queries["id"]:
        grades = judged[query]
        best = sorted(grades, key=lambda document: (-grades[document], document))[:JUDGED]
        kept[query] = {document: grades[document] for document in best}
    wanted = {document for grades in kept.values() for document in grades}
    never = {document for grades in judged.values() for document in grades} - wanted
    corpus = data["corpus"]
    ids = corpus["id"]
    room = DOCUMENTS * size - len(wanted)
    if room > 0:
        wanted |= _nearest(corpus, queries, never | wanted, room)
    rows = [row for row, document in enumerate(ids) if document in wanted]
    return {**data, "queries": queries, "corpus": corpus.select(rows), "relevant_docs": kept}


def _reranking(task: Any, data: Any, size: int, source: np.random.Generator) -> dict[str, Any]:
    queries, judged = _queries(data, size, source)
    ranked, relevant = {}, {}
    for query in queries["id"]:
        grades = judged[query]
        sides = ([], [])  # type: tuple[list[str], list[str]]
        for document in data["top_ranked"][query]:
            sides[grades.get(document, 0) > 0].append(document)
        negatives, positives = (
            [side[i] for i in chosen_rows(len(side), most, source)]
            for side, most in zip(sides, (NEGATIVES, POSITIVES), strict=True)
        )
        ranked[query] = positives + negatives
        relevant[query] = {document: grades.get(document, 0) for document in ranked[query]}
    wanted = {document for documents in ranked.values() for document in documents}
    rows = [row for row, document in enumerate(data["corpus"]["id"]) if document in wanted]
    return {
        "queries": queries,
        "corpus": data["corpus"].select(rows),
        "relevant_docs": relevant,
        "top_ranked": ranked,
    }


def _queries(
    data: Any, size: int, source: np.random.Generator
) -> tuple[Any, Mapping[str, Mapping[str, int]]]:
    """The queries of the sample, of those that have a relevant document; and all judgements."""
    judged = data["relevant_docs"]
    found = [
        row
        for row, query in enumerate(data["queries"]["id"])
        if any(grade > 0 for grade in judged.get(query, {}).values())
    ]
    rows = [found[i] for i in chosen_rows(len(found), size, source)]
    return data["queries"].select(rows), judged


def _nearest(corpus: Any, queries: Any, left_out: set[str], room: int) -> set[str]:
    """The documents most like the queries in their words, each query's nearest in turn."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    titles = corpus["title"] if "title" in corpus.column_names else [""] * len(corpus)
    texts = [f"{title} {text}" for title, text in zip(titles, corpus["text"], strict=True)]
    words = TfidfVectorizer(sublinear_tf=True, stop_words="english", dtype=np.float32)
    documents_NW = words.fit_transform(texts)
    likeness_QN = (words.transform(queries["text"]) @ documents_NW.T).toarray()
    ids = corpus["id"]
    allowed_N = np.array([document not in left_out for document in ids])
    likeness_QN[:, ~allowed_N] = -1
    depth = min(len(ids), 1 + 2 * room // max(1, len(likeness_QN)) + 10)
    nearest_QK = np.argsort(-likeness_QN, axis=1, kind="stable")[:, :depth]
    turns = Counter[int]()  # counts nothing: keeps the order of first appearance
    for row in nearest_QK.T.ravel():
        if allowed_N[row]:
            turns[int(row)] += 1
        if len(turns) == room:
            break
    return {ids[row] for row in turns}


_SAMPLERS: Mapping[str, Callable[[Any, Any, int, np.random.Generator], Any]] = {
    "STS": _pairs,
    "PairClassification": _pairs,
    "Classification": _classification,
    "Clustering": _clustering,
    "Summarization": _summarization,
    "Retrieval": _retrieval,
    "Reranking": _retrieval,
}
