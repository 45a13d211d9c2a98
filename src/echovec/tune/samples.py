"""Samples: how much of each set is taken to choose by, and what task it becomes.

| lines have | becomes | score |
|---|---|---|
| sentence1, sentence2, score | STS | Spearman correlation |
| sentence1, sentence2, label | PairClassification | average precision |
| text, label | Classification: 8 texts a label to learn from, others to ask | accuracy |
| text, label | Clustering: other labels, where there are many | V-measure |
| query, positive, perhaps negative | Retrieval among the positives and negatives | nDCG at 10 |
| query, positive, many to one | Clustering: queries of a positive, or the other way | V-measure |
| queries_SPLIT, qrels_SPLIT, corpus | Retrieval among judged and other documents | nDCG at 10 |

A sample is small on purpose: thousands of recipes are scored on it, and each of its texts runs
through the model once per prompt. Sets of long texts give fewer of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from echovec.errors import InputError
from echovec.evaluate.layout import (
    LAYOUTS,
    Kind,
    LocalSet,
    Row,
    checked_rows,
    corpus_of,
    first_row,
    queries_of,
    split_file,
)
from echovec.text.check import text_problem
from echovec.tune.dev import DEVELOPMENT, DevData, DevTask

SHOTS = 8
"""Texts of each label to learn from, as in mteb."""

_PAIRS, _TWO_CLASS_PAIRS, _ASKED, _CLASSES, _QUERIES, _DOCUMENTS = 500, 250, 200, 24, 80, 240
_CHARACTERS = 70_000
"""Of one set at most: about 16,000 tokens of English. Long texts count up to `_LONGEST`."""
_LONGEST = 800
_SHORTEST = 24
_GROUP, _OF_A_GROUP, _GROUPS, _FEWEST_GROUPS = 5, 8, 40, 4
"""Texts that make a group, texts taken of it; groups of a set, at most and at least."""

Maker = Callable[[DevData, Path, str, list[Row], float, np.random.Generator], None]


def read_dev(data: Path, *, share: float = 1.0, seed: int = 0) -> DevData:
    """A sample of every set of a folder that has development data.

    Args:
        data: a folder of sets.
        share: how much of the usual sample, above 0 and at most 1.
        seed: what is drawn with.

    Raises:
        InputError: there is no such folder, no set with development data, or a line is broken.
    """
    if not data.is_dir():
        raise InputError(f"{data} is not a folder; give one whose folders are sets of texts")
    found = DevData()
    itself = any(split_file(data, stem) for stem in ("corpus", *DEVELOPMENT))
    folders = [data] if itself else sorted(path for path in data.iterdir() if path.is_dir())
    for number, folder in enumerate(folders):
        source = np.random.default_rng([seed, number])
        if split_file(folder, "corpus") is not None:
            _add_search(found, folder, share, source)
            continue
        files = ((split, split_file(folder, split)) for split in DEVELOPMENT)
        split, file = next((one for one in files if one[1] is not None), ("", None))
        if file is None:
            found.left_out[folder.name] = "it has test data only"
            continue
        first = first_row(file)
        kind = next((kind for kind in _MAKERS if set(_FIELDS[kind]) <= set(first)), None)
        if kind is None:
            found.left_out[folder.name] = f"lines of {', '.join(first) or 'nothing'} are no task"
            continue
        rows = checked_rows(file, _FIELDS[kind])
        _MAKERS[kind](found, folder, split, rows, share, source)
    if not found.tasks:
        why = "".join(f"; {name}: {reason}" for name, reason in found.left_out.items())
        raise InputError(
            f"{data} has no development data ({', '.join(DEVELOPMENT)}){why}; without --data the "
            "model makes pairs of its own texts"
        )
    return found


def halves(texts: Sequence[str]) -> DevData:
    """A task without data: the first half of each text shall find its second half.

    Args:
        texts: what the model wrote; those of fewer than 24 characters are passed over.

    Raises:
        InputError: fewer than 10 texts can be halved.
    """
    found = DevData()
    pairs: dict[str, str] = {}
    for text in texts:
        first, second = _halved(" ".join(text.split()))
        if len(first) + len(second) >= _SHORTEST and not text_problem(first):
            pairs.setdefault(first, second)
    found.left_out["texts too short to be halved"] = f"{len(texts) - len(pairs)} of {len(texts)}"
    if len(pairs) < 10:
        raise InputError(f"only {len(pairs)} of {len(texts)} texts can be halved; give --data")
    _search_task(found, "halves of its own texts", "train", list(pairs), list(pairs.values()))
    return found


def _halved(text: str) -> tuple[str, str]:
    """Cut at the space nearest to the middle; in a script without spaces, at the middle."""
    middle = len(text) // 2
    spaces = [i for i, letter in enumerate(text) if letter == " "]
    near = min(spaces, key=lambda i: abs(i - middle), default=middle)
    if abs(near - middle) > len(text) // 4:
        near = middle
    return text[:near].strip(), text[near:].strip()


def _search_task(
    found: DevData,
    name: str,
    split: str,
    queries: Sequence[str],
    answers: Sequence[str],
    others: Sequence[str] = (),
) -> None:
    """Retrieval where the k-th answer, and every other that reads the same, answers query k."""
    documents = list(dict.fromkeys([*answers, *others]))
    place = {document: at for at, document in enumerate(documents)}
    known: dict[str, list[int]] = {}
    for query, answer in zip(queries, answers, strict=True):
        known.setdefault(query, []).append(place[answer])
    unique = list(known)
    grade_QN = np.zeros((len(unique), len(documents)), dtype=np.int64)
    for at, query in enumerate(unique):
        grade_QN[at, known[query]] = 1
    rows = {"queries": found.place(unique), "documents": found.place(documents)}
    found.tasks.append(DevTask(name, "Retrieval", split, rows, {"grade": grade_QN}))


def _add_pairs(category: str, gold: str, most: int) -> Maker:
    def add(
        found: DevData,
        folder: Path,
        split: str,
        rows: list[Row],
        share: float,
        source: np.random.Generator,
    ) -> None:
        rows = _drawn(rows, most * share, share, ("sentence1", "sentence2"), source)
        places = {
            "first": found.place([row["sentence1"] for row in rows]),
            "second": found.place([row["sentence2"] for row in rows]),
        }
        values = np.array([row[gold] for row in rows], dtype=np.float64)
        if len(set(values.tolist())) < 2:
            found.left_out[folder.name] = "all its pairs have one score"
            return
        found.tasks.append(DevTask(folder.name, category, split, places, {"score": values}))

    return add


def _add_labelled(
    found: DevData,
    folder: Path,
    split: str,
    rows: list[Row],
    share: float,
    source: np.random.Generator,
) -> None:
    """Classification, and clustering by labels that it does not use where there are enough."""
    learn = rows
    if split != "train" and (train := split_file(folder, "train")) is not None:
        learn = checked_rows(train, _FIELDS["Labelled"])
    labels = sorted({row["label"] for row in learn} & {row["label"] for row in rows}, key=str)
    order = [labels[i] for i in source.permutation(len(labels))]
    most = max(2, round(_CLASSES * min(1.0, share * 1.5)))
    taken, rest = order[:most], order[most : 2 * most]
    fits = _room(rows, ("text",), share)
    pool = _by_label(learn, source)
    asked = _by_label(rows, source)
    chosen: dict[str, list[Row]] = {"learn": [], "ask": []}
    # Two labels of 8 texts each would be luck; mteb draws ten times, here it is once.
    shots = max(2, min(max(SHOTS, 48 // max(1, len(taken))), fits // (2 * max(1, len(taken)))))
    each = max(2, min(round(_ASKED * share), fits // 2) // max(1, len(taken)))
    for label in taken:
        chosen["learn"] += pool[label][:shots]
        used = {row["text"] for row in chosen["learn"]}
        chosen["ask"] += [row for row in asked[label] if row["text"] not in used][:each]
    if len(taken) < 2 or not chosen["ask"]:
        found.left_out[folder.name] = "too few texts or labels to learn from"
        return
    places = {part: found.place([r["text"] for r in some]) for part, some in chosen.items()}
    gold = {part: np.array([str(r["label"]) for r in some]) for part, some in chosen.items()}
    found.tasks.append(DevTask(folder.name, "Classification", split, places, gold))
    members = [row for label in rest[:16] for row in pool[label][:12]]
    if len(rest) >= 4:
        found.tasks.append(
            DevTask(
                f"{folder.name} clustered",
                "Clustering",
                "train" if learn is not rows else split,
                {"all": found.place([row["text"] for row in members])},
                {"label": np.array([str(row["label"]) for row in members])},
            )
        )


def _add_triplets(
    found: DevData,
    folder: Path,
    split: str,
    rows: list[Row],
    share: float,
    source: np.random.Generator,
) -> None:
    rows = [row for row in rows if isinstance(row["positive"], str)]
    asked = _drawn(rows, _QUERIES * share, share / 2, ("query", "positive", "negative"), source)
    if len(asked) < 4:
        found.left_out[folder.name] = "it has no queries with one positive text each"
        return
    negatives = [row["negative"] for row in asked if not text_problem(row.get("negative"))]
    # Another positive of a query that is asked would count as wrong.
    queries = {row["query"] for row in asked}
    free = [row for row in rows if row["query"] not in queries and row["positive"] not in queries]
    room = _DOCUMENTS * share - len(asked) - len(negatives)
    others = _drawn(free, max(0.0, room), share / 2, ("positive",), source)
    _search_task(
        found,
        folder.name,
        split,
        [row["query"] for row in asked],
        [row["positive"] for row in asked],
        [*negatives, *(row["positive"] for row in others)],
    )
    _add_groups(found, folder, split, rows, share, source)


def _add_groups(
    found: DevData,
    folder: Path,
    split: str,
    rows: list[Row],
    share: float,
    source: np.random.Generator,
) -> None:
    """Clustering by what texts belong to: questions by their passage, passages by their question.

    Labelled sets have clusters of what people want; these are clusters of what a text is about.
    """
    for one, other in (("positive", "query"), ("query", "positive")):
        groups: dict[str, dict[str, None]] = {}
        for row in rows:
            groups.setdefault(row[one], {})[row[other]] = None
        large = [list(texts) for texts in groups.values() if len(texts) >= _GROUP]
        most = max(_FEWEST_GROUPS, round(_GROUPS * share))
        chosen = [large[i] for i in source.permutation(len(large))[:most]]
        shared = Counter(text for texts in chosen for text in texts)
        members = [
            (text, str(label))
            for label, texts in enumerate(chosen)
            for text in [text for text in texts if shared[text] == 1][:_OF_A_GROUP]
        ]
        if len({label for _, label in members}) >= _FEWEST_GROUPS:
            found.tasks.append(
                DevTask(
                    f"{folder.name}, {other} by {one}",
                    "Clustering",
                    split,
                    {"all": found.place([text for text, _ in members])},
                    {"label": np.array([label for _, label in members])},
                )
            )


def _add_search(found: DevData, folder: Path, share: float, source: np.random.Generator) -> None:
    """Retrieval with a corpus: judged documents of some queries, and others at random."""
    split = next((s for s in DEVELOPMENT if split_file(folder, f"queries_{s}") is not None), None)
    if split is None or not (folder / f"qrels_{split}.tsv").is_file():
        found.left_out[folder.name] = "it has test data only"
        return
    one = LocalSet(folder, folder.name, "Retrieval", (split,))
    documents = corpus_of(one)
    queries, judged = queries_of(one, split, documents)
    corpus = {row["_id"]: " ".join(filter(None, (row["title"], row["text"]))) for row in documents}
    known = [row for row in queries if any(grade > 0 for grade in judged[row["_id"]].values())]
    asked = _drawn(known, _QUERIES * share, 1.0, ("text",), source)
    size = min(
        round(_DOCUMENTS * share),
        _room([{"text": text} for text in corpus.values()], ("text",), share),
    )
    pairs = [
        (row["text"], document)
        for row in asked
        for document, grade in sorted(judged[row["_id"]].items())
        if grade > 0
    ][: max(4, size // 2)]
    if len(pairs) < 4:
        found.left_out[folder.name] = "too few judged queries"
        return
    never = {document for grades in judged.values() for document in grades}
    free = [text for document, text in corpus.items() if document not in never]
    others = [free[i] for i in source.permutation(len(free))[: max(0, size - len(pairs))]]
    _search_task(
        found,
        folder.name,
        split,
        [query for query, _ in pairs],
        [corpus[document] for _, document in pairs],
        others,
    )


_FIELDS: Mapping[str, Mapping[str, Kind]] = {
    "STS": LAYOUTS["STS"],
    "PairClassification": LAYOUTS["PairClassification"],
    "Labelled": LAYOUTS["Classification"],
    "Triplets": {"query": "text", "positive": "text or texts"},
}
"""Fields that lines have, by what becomes of them; the first whose fields are all there is it."""

_MAKERS: Mapping[str, Maker] = {
    "STS": _add_pairs("STS", "score", _PAIRS),
    "PairClassification": _add_pairs("PairClassification", "label", _TWO_CLASS_PAIRS),
    "Labelled": _add_labelled,
    "Triplets": _add_triplets,
}


def _by_label(rows: Sequence[Row], source: np.random.Generator) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for i in source.permutation(len(rows)):
        groups.setdefault(rows[i]["label"], []).append(rows[i])
    return groups


def _drawn(
    rows: Sequence[Row],
    most: float,
    share: float,
    fields: Sequence[str],
    source: np.random.Generator,
) -> list[Row]:
    """At most so many rows, fewer where texts are long."""
    count = min(round(most), _room(rows, fields, share), len(rows))
    return [rows[i] for i in source.permutation(len(rows))[:count]]


def _room(rows: Sequence[Row], fields: Sequence[str], share: float) -> int:
    """How many rows of these texts a sample has room for."""
    some = rows[:: max(1, len(rows) // 500)]
    lengths = [sum(min(len(str(row.get(f) or "")), _LONGEST) for f in fields) for row in some]
    return max(8, int(share * _CHARACTERS * len(some) / max(1, sum(lengths))))
