"""A folder of small local sets, one of each type, and embedders that need no model."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

from echovec.embedder import Embedder
from echovec.model.tiny import TinyBackbone
from echovec.text.tokenizer import ByteTokenizer

WORDS = (
    "river",
    "stone",
    "cloud",
    "paper",
    "engine",
    "garden",
    "winter",
    "signal",
    "bread",
    "mirror",
)
CLASSES = ("weather", "food", "tools")
TYPES = {
    "Alike": "STS",
    "Same": "PairClassification",
    "Topics": "Classification",
    "Groups": "Clustering",
    "Search": "Retrieval",
    "Ranks": "Reranking",
    "Digests": "Summarization",
}


class Counting(TinyBackbone):
    """A tiny backbone that counts what goes through it."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.passes = 0
        self.texts = 0

    def forward(self, batch, layers=(-1,), **options):
        self.passes += 1
        self.texts += len(batch)
        return super().forward(batch, layers, **options)


def embedder(recipe="echo", backbone=None) -> Embedder:
    """An embedder of bytes."""
    return Embedder(recipe, ByteTokenizer(), backbone or Counting(dim=12))


def text(source: random.Random, *, length: int = 5) -> str:
    return " ".join(source.choice(WORDS) for _ in range(length)) + f" {source.randrange(10**6)}"


def write(file: Path, rows) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".gz":
        file.write_bytes(gzip.compress(lines.encode()))
    else:
        file.write_text(lines, "utf-8")


def make_sets(folder: Path) -> Path:
    """Sets of every type, with a dev split for two of them and one for training."""
    source = random.Random(3)

    def pairs(number, **last):
        (field, values) = next(iter(last.items()))
        return [
            {"sentence1": text(source), "sentence2": text(source), field: values[i % len(values)]}
            for i in range(number)
        ]

    def labelled(number):
        return [
            {"text": f"{text(source)} {CLASSES[i % 3]}", "label": CLASSES[i % 3]}
            for i in range(number)
        ]

    write(folder / "Alike/test.jsonl.gz", pairs(40, score=[0.0, 1.5, 2.0, 3.4, 5.0]))
    write(folder / "Alike/dev.jsonl", pairs(20, score=[0.0, 2.5, 4.0]))
    write(folder / "Same/test.jsonl", pairs(30, label=[0, 1]))
    write(folder / "Topics/test.jsonl", labelled(30))
    write(folder / "Topics/train.jsonl", labelled(60))
    write(folder / "Topics/validation.jsonl", labelled(12))
    write(folder / "Groups/test.jsonl", labelled(45))
    write(folder / "train_more/train.jsonl", [{"query": "a", "positive": "b"}])
    documents = [{"_id": f"d{i}", "title": "", "text": text(source)} for i in range(60)]
    documents[3]["title"] = "A title"
    queries = [{"_id": f"q{i}", "text": text(source, length=3)} for i in range(15)]
    write(folder / "Search/corpus.jsonl.gz", documents)
    write(folder / "Search/queries.jsonl", queries)
    judged = "".join(f"q{i}\td{2 * i}\t2\nq{i}\td{2 * i + 1}\t1\n" for i in range(14))
    (folder / "Search/qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    write(
        folder / "Ranks/test.jsonl",
        [
            {
                "query": text(source),
                "positive": [text(source) for _ in range(2)],
                "negative": [text(source) for _ in range(6)],
            }
            for _ in range(12)
        ],
    )
    write(
        folder / "Digests/test.jsonl",
        [
            {
                "text": text(source, length=30),
                "human_summaries": [text(source) for _ in range(2)],
                "machine_summaries": [text(source) for _ in range(4)],
                "relevance": [1.0, 2.0, 3.5, 5.0],
            }
            for _ in range(8)
        ],
    )
    return folder
