"""Workloads: real texts from ECHOVEC_DATA, and the recipes they are embedded with."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echovec.text.tokenizer import Tokenizer

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"


@dataclass(frozen=True)
class Workload:
    """Texts, and how they are embedded."""

    name: str
    recipe: str
    texts: tuple[str, ...]
    instruction: str | None = None


def folder() -> Path:
    """Where the data lies."""
    return Path(os.environ.get("ECHOVEC_DATA", "../shared/data"))


def rows(file: str) -> Iterator[dict[str, Any]]:
    """The rows of one of its files."""
    with gzip.open(folder() / file, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def sentences(count: int) -> tuple[str, ...]:
    """Sentences of STSBenchmark test, spread over the file, no text twice."""
    found = dict.fromkeys(
        row[side]
        for row in rows("STSBenchmark/test.jsonl.gz")
        for side in ("sentence1", "sentence2")
    )
    every = list(found)
    return tuple(every[i * len(every) // count] for i in range(min(count, len(every))))


def pieces(tokenizer: Tokenizer, count: int, low: int, high: int) -> tuple[str, ...]:
    """Abstracts of SciFact of `low` to `high` tokens."""
    found = []
    for row in rows("SciFact/corpus.jsonl.gz"):
        if low <= len(tokenizer.tokenize([row["text"]])[0]) <= high:
            found.append(row["text"])
        if len(found) == count:
            break
    return tuple(found)


def documents(tokenizer: Tokenizer, count: int, length: int) -> tuple[str, ...]:
    """Abstracts joined, of at least `length` tokens; the recipe's budget cuts them to it."""
    found, text = [], ""
    for row in rows("SciFact/corpus.jsonl.gz"):
        text = f"{text} {row['text']}".strip()
        if len(tokenizer.tokenize([text])[0]) > length:
            found.append(text)
            text = ""
        if len(found) == count:
            break
    return tuple(found)


def workloads(tokenizer: Tokenizer, scale: float = 1.0) -> list[Workload]:
    """All workloads; at `scale` 1 a slow peer takes about ten seconds each on two cores."""

    def some(count: int) -> int:
        return max(4, int(count * scale))

    short, middle = sentences(some(120)), pieces(tokenizer, some(14), 120, 180)
    long = documents(tokenizer, some(5), 512)
    mix = (*sentences(some(50)), *pieces(tokenizer, some(6), 120, 180), *long[: some(2)])
    return [
        Workload("sentences", "echo-sentence", short),
        Workload("sentences, instruct", "echo-instruct", short, INSTRUCTION),
        Workload("passages of 150 tokens", "echo", middle),
        Workload("documents of 512 tokens", "echo", long),
        Workload("a mix", "echo", mix),
    ]
