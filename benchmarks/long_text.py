"""What is best done with long texts: cut, embedded whole, or embedded as windows.

    python -m benchmarks.long_text --out FILE.json [--lengths 500:40,2000:40,8000:40] [--only WORDS]

Lengths are in tokens, each with a number of documents. `--only` measures methods that have one of
these words in their names, separated by semicolons; the table has what was ever measured.

Development data only, of two sorts. Haystacks: claims of SciFact's `queries_train`, each of which
shall find the document with its evidence; a document is one judged abstract among others, joined in
random order up to a length in tokens, so where the evidence stands is chance. Reviews: those of
Imdb's training file that are longer than `LONG_REVIEW` tokens, each told to be good or bad by the
nearest mean of all others. FILE.json keeps what is measured, one length and method after the other:
a run that was stopped goes on where it was. Needs the data folder (`ECHOVEC_DATA`). Hours of one
core with AMX, most of them for the longest documents.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.calibration_texts import table
from benchmarks.workloads import folder, rows
from echovec import Embedder
from echovec.evaluate.interval import replicates
from echovec.presets import as_recipe
from echovec.tune.score import middle, ndcg

WHOLE = 8192
"""More tokens than a copy can have: what the model's 8,192 positions hold is read, so about 4,000
tokens of a text that stands twice."""

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    f"{name}, {told}": (name, changes)
    for name in ("classical", "echo", "fast", "best")
    for told, changes in {
        "first 512 tokens": {"long_text": "cut", "max_tokens": 512},
        "whole": {"long_text": "cut", "max_tokens": WHOLE},
        "windows of 512": {"long_text": "windows", "max_tokens": 512},
        "windows of 1,024": {"long_text": "windows", "max_tokens": 1024},
    }.items()
}
"""Windows' vectors are averaged."""

LONG_REVIEW = 768
"""Tokens of the shortest review that counts as long."""

REVIEWS = f"reviews of over {LONG_REVIEW}"


@dataclass(frozen=True)
class Haystacks:
    """Claims, documents, and which document has the evidence of which claim."""

    claims: list[str]
    documents: list[str]
    grade_QN: Any
    tokens: float


def haystacks(embedder: Embedder, count: int, length: int) -> Haystacks:
    """So many documents of about this length, and the claims that one of them answers."""
    draw = np.random.default_rng(0)
    corpus = {
        row["_id"]: f"{row['title']} {row['text']}" for row in rows("SciFact/corpus.jsonl.gz")
    }
    asked = {row["_id"]: row["text"] for row in rows("SciFact/queries_train.jsonl.gz")}
    lines = (folder() / "SciFact" / "qrels_train.tsv").read_text("utf-8").splitlines()[1:]
    judged = [tuple(line.split("\t")[:2]) for line in lines]
    wanted = [name for name in dict.fromkeys(d for _, d in judged) if name in corpus]
    wanted = [wanted[i] for i in draw.permutation(len(wanted))[:count]]
    free = sorted(set(corpus) - {document for _, document in judged})
    others = iter(draw.permutation(len(free)).tolist() * 100)
    documents, tokens = [], []
    for name in wanted:
        parts = [corpus[name]]
        size = _length(embedder, parts[0])
        while size < length:
            parts.append(corpus[free[next(others)]])
            size += _length(embedder, parts[-1])
        documents.append(" ".join(parts[i] for i in draw.permutation(len(parts))))
        tokens.append(size)
    place = {name: number for number, name in enumerate(wanted)}
    pairs = [(asked[q], place[d]) for q, d in judged if d in place and q in asked]
    claims = list(dict.fromkeys(claim for claim, _ in pairs))
    grade_QN = np.zeros((len(claims), len(documents)), dtype=np.int64)
    for claim, number in pairs:
        grade_QN[claims.index(claim), number] = 1
    return Haystacks(claims, documents, grade_QN, float(np.mean(tokens)))


def _length(embedder: Embedder, text: str) -> int:
    return len(embedder.tokenizer.tokenize([text])[0])


def measured(embedder: Embedder, found: Haystacks, method: str) -> dict[str, Any]:
    """nDCG@10 x 100 of a method, its interval, and the tokens that went through the model."""
    own = _with(embedder, method)
    documents, told = _embedded(own, found.documents)
    claims = own.encode(found.claims, role="query", show_progress_bar=False)
    values_Q = ndcg(claims @ documents.T, found.grade_QN)
    return _mean(values_Q) | told


def reviews(embedder: Embedder) -> tuple[list[str], NDArray[np.bool_]]:
    """Long reviews, and which of them are good."""
    every = rows("Imdb-sub/train.jsonl.gz")
    own = [row for row in every if _length(embedder, row["text"]) > LONG_REVIEW]
    return [row["text"] for row in own], np.array([row["label"] == 1 for row in own])


def told_apart(
    embedder: Embedder, texts: list[str], good_N: NDArray[np.bool_], method: str
) -> dict[str, Any]:
    """Accuracy x 100 of the nearest mean of all other reviews, its interval, tokens computed."""
    z_ND, told = _embedded(_with(embedder, method), texts)
    return _mean(nearest_mean_without_itself(z_ND, good_N)) | told


def nearest_mean_without_itself(
    z_ND: NDArray[np.floating[Any]], good_N: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Of each vector, 1.0 where it is nearer to the mean of the others of its own class."""
    z_ND = z_ND.astype(np.float64)
    distance = {}
    for label in (True, False):
        inside_N = good_N == label
        count_N1 = (inside_N.sum() - inside_N)[:, None]
        mean_ND = (z_ND[inside_N].sum(axis=0) - z_ND * inside_N[:, None]) / count_N1
        distance[label] = ((z_ND - mean_ND) ** 2).sum(axis=1)
    right_N = (distance[True] < distance[False]) == good_N
    return np.asarray(right_N, dtype=np.float64)


def _with(embedder: Embedder, method: str) -> Embedder:
    name, changes = METHODS[method]
    return embedder.with_recipe(replace(as_recipe(name), **changes))


def _embedded(embedder: Embedder, texts: list[str]) -> tuple[NDArray[Any], dict[str, int]]:
    chunks = embedder.prepare(texts)
    z_ND, cut_N = embedder.encode(
        texts, role="document", show_progress_bar=False, return_truncated=True
    )
    tokens = sum(len(batch.ids_T) for chunk in chunks for batch in chunk)
    return z_ND, {"cut": int(cut_N.sum()), "tokens": tokens}


def _mean(values: NDArray[np.float64]) -> dict[str, float]:
    low, high = middle(100 * replicates({"kind": "mean", "values": values}, resamples=1000))
    return {"score": 100 * float(values.mean()), "low": low, "high": high}


def main() -> None:
    """Measure what is not yet there, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--lengths", default="500:40,2000:40,8000:40")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    out: Path = options.out
    words = options.only.split(";")
    chosen = [method for method in METHODS if any(word in method for word in words)]
    embedder = Embedder.load(recipe="echo", precision="fast")

    def kept() -> dict[str, Any]:
        return json.loads(out.read_text("utf-8")) if out.exists() else {}

    def keep(place: str, measure: Callable[[str], dict[str, Any]]) -> None:
        for method in chosen:
            if (key := f"{place}, {method}") not in kept():
                found = measure(method)
                out.write_text(json.dumps(kept() | {key: found}, indent=1) + "\n", "utf-8")
                print(f"{key}: {found['score']:.1f}", flush=True)

    told, places = [], {}
    for part in options.lengths.split(","):
        length, count = map(int, part.split(":"))
        found = haystacks(embedder, count, length)
        told.append(
            f"{length}: {count} documents of {found.tokens:,.0f} tokens, {len(found.claims)} claims"
        )
        place = f"{count} documents, {length}"
        places[f"{length:,} tokens"] = place
        keep(place, partial(measured, embedder, found))
    texts, good_N = reviews(embedder)
    told.append(f"{REVIEWS}: {len(texts)}, {good_N.sum()} of them good")
    places[REVIEWS] = f"{len(texts)} {REVIEWS}"
    keep(places[REVIEWS], partial(told_apart, embedder, texts, good_N))
    result = kept()
    lines = []
    for method in METHODS:
        own = [result.get(f"{place}, {method}") for place in places.values()]
        if any(own):
            lines.append(
                [method, *map(_score, own), *(f"{x['tokens']:,}" if x else "" for x in own)]
            )
    print("\n".join(told))
    print(table(lines, ["method", *places, *(f"computed, {name}" for name in places)]))


def _score(one: dict[str, Any] | None) -> str:
    return f"{one['score']:.1f} [{one['low']:.1f}, {one['high']:.1f}]" if one else ""


if __name__ == "__main__":
    main()
