"""`python -m benchmarks.adapter_data DATA OUT`: what the adapter that ships is trained on.

    python -m benchmarks.adapter_data DATA OUT
    echovec train smollm2-sentences -o RUN --data OUT
    python -m benchmarks.ship_adapter RUN

Only sets whose licence lets a derived adapter be published; four files in OUT:

- nli.jsonl: SNLI as it is, premise, entailed and contradicted sentence;
- squad.jsonl: a question of SQuAD, and the sentence of its passage that shares most words with it
  (rare words count more), in half of the rows with the sentence after it. A passage is four times
  as long and costs as much more, and most of it answers other questions. The negative is the
  likeliest sentence of the set's own negative passage, which does not hold the answer;
- neighbours.jsonl: a sentence and the one after it in a passage, without any label: what stands
  together is about the same;
- fever.jsonl: claims with a sentence that supports and one that refutes them.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

Rows = Iterable[Mapping[str, str]]
_SHORTEST = 25
"""Characters; what is shorter is joined to the sentence before it ("Dr.", "No.")."""


def main() -> None:
    """Write the files and say how many rows each has."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    squad = list(_read(options.data, "train_squad"))
    for name, rows in {
        "nli": _read(options.data, "train_nli_snli_dev"),
        "squad": answers(squad),
        "neighbours": neighbours(squad),
        "fever": _read(options.data, "train_fever_symmetric"),
    }.items():
        lines = [json.dumps({_COLUMNS[k]: row[k] for k in _COLUMNS if k in row}) for row in rows]
        (options.out / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
        print(f"{name}.jsonl: {len(lines):,} rows")


_COLUMNS = {"query": "anchor", "positive": "positive", "negative": "negative"}


def answers(rows: Rows) -> Iterator[dict[str, str]]:
    """Questions with the sentence that is likeliest to answer them."""
    rows = [row for row in rows if "negative" in row]
    rarity = _rarity({row["positive"] for row in rows})
    drawn = random.Random(0)
    for row in rows:
        found = sentences(row["positive"])
        best = _likeliest(row["query"], found, rarity)
        length = drawn.choice((1, 2))
        against = sentences(row["negative"])
        worst = _likeliest(row["query"], against, rarity)
        yield {
            "query": row["query"],
            "positive": " ".join(found[best : best + length]),
            "negative": " ".join(against[worst : worst + length]),
        }


def neighbours(rows: Rows) -> Iterator[dict[str, str]]:
    """One pair of following sentences of every passage that has two."""
    drawn = random.Random(1)
    for passage in dict.fromkeys(row["positive"] for row in rows):
        found = sentences(passage)
        if len(found) > 1:
            first = drawn.randrange(len(found) - 1)
            yield {"query": found[first], "positive": found[first + 1]}


def sentences(passage: str) -> list[str]:
    """A passage cut at its sentences' ends, as well as that goes without a grammar."""
    found: list[str] = []
    for part in re.split(r"(?<=[.!?])\s+(?=[\"'(]?[A-Z0-9])", passage.strip()):
        if found and (len(part) < _SHORTEST or len(found[-1]) < _SHORTEST):
            found[-1] += f" {part}"
        else:
            found.append(part)
    return found


def _likeliest(question: str, found: list[str], rarity: Mapping[str, float]) -> int:
    asked = _words(question)
    scores = [
        sum(rarity.get(word, 0.0) for word in asked & _words(one)) / math.log(30 + len(one))
        for one in found
    ]
    return scores.index(max(scores))


def _rarity(passages: set[str]) -> dict[str, float]:
    counts = Counter(word for passage in passages for word in _words(passage))
    return {word: math.log(len(passages) / count) for word, count in counts.items()}


def _words(text: str) -> set[str]:
    # Five letters: "founded" and "foundation" are the same word here.
    return {word[:5] for word in re.findall(r"\w+", text.lower())}


def _read(data: Path, name: str) -> Iterator[dict[str, str]]:
    (path,) = (data / name).glob("*.jsonl.gz")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


if __name__ == "__main__":
    main()
