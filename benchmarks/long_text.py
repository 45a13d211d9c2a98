"""What is best done with long texts: cut, embedded whole, or embedded as windows.

    python -m benchmarks.long_text --out FILE.json [--documents 40] [--lengths 300,1000,3000]

Development data only: claims of SciFact's `queries_train`, each of which shall find the document
with its evidence. A document is one judged abstract among others, joined in random order up to a
length in tokens, so where the evidence stands is chance. FILE.json keeps what is measured, one
length and method after the other: a run that was stopped goes on where it was. Needs the data
folder (`ECHOVEC_DATA`). About half an hour on two quiet cores.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.calibration_texts import table
from benchmarks.workloads import folder, rows
from echovec import Embedder
from echovec.evaluate.interval import replicates
from echovec.presets import as_recipe
from echovec.tune.score import middle, ndcg

WHOLE = 4000
"""Tokens of a copy where nothing is cut: two copies and the prompt fit into 8,192 positions."""

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "classical, first 512 tokens": ("classical", {}),
    "classical, whole": ("classical", {"max_tokens": WHOLE}),
    "classical, windows of 512": ("classical", {"long_text": "windows"}),
    "echo, first 512 tokens": ("echo", {}),
    "echo, whole": ("echo", {"max_tokens": WHOLE}),
    "echo, windows of 512": ("echo", {"long_text": "windows"}),
    "one-pass, first 512 tokens": ("one-pass", {}),
    "one-pass, whole": ("one-pass", {"max_tokens": WHOLE}),
    "one-pass, windows of 512": ("one-pass", {"long_text": "windows"}),
    "one-pass, windows of 128": ("one-pass", {"long_text": "windows", "max_tokens": 128}),
}


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
    name, changes = METHODS[method]
    own = embedder.with_recipe(replace(as_recipe(name), **changes, model=None))
    chunks = own.prepare(found.documents)
    options: dict[str, Any] = {"show_progress_bar": False, "return_truncated": True}
    documents, cut = own.encode(found.documents, role="document", **options)
    claims, _ = own.encode(found.claims, role="query", **options)
    values_Q = ndcg(claims @ documents.T, found.grade_QN)
    low, high = middle(100 * replicates({"kind": "mean", "values": values_Q}, resamples=1000))
    return {
        "ndcg": 100 * float(values_Q.mean()),
        "low": low,
        "high": high,
        "cut": int(cut.sum()),
        "tokens": sum(len(batch.ids_T) for chunk in chunks for batch in chunk),
    }


def main() -> None:
    """Measure what is not yet there, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=40)
    parser.add_argument("--lengths", default="300,1000,3000")
    options = parser.parse_args()
    lengths = [int(one) for one in options.lengths.split(",")]
    result: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    embedder = Embedder.load(recipe="echo", precision="fast")
    told = []
    for length in lengths:
        found = haystacks(embedder, options.documents, length)
        told.append(f"{length}: {len(found.claims)} claims, {found.tokens:,.0f} tokens a document")
        for method in METHODS:
            key = f"{options.documents} documents, {length}, {method}"
            if key not in result:
                result[key] = measured(embedder, found, method)
                options.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    lines = []
    for method in METHODS:
        own = [result[f"{options.documents} documents, {length}, {method}"] for length in lengths]
        cells = [f"{one['ndcg']:.1f} [{one['low']:.1f}, {one['high']:.1f}]" for one in own]
        lines.append([method, *cells, *(f"{one['tokens']:,}" for one in own)])
    heads = ["method", *(f"{n} tokens" for n in lengths), *(f"computed, {n}" for n in lengths)]
    print("\n".join(told))
    print(table(lines, heads))


if __name__ == "__main__":
    main()
