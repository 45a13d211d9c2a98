"""Rows: files and folders of training data, one row after the other as a mapping by column.

.jsonl, .csv, .tsv, .parquet or .txt (a text a line), plain or .gz; a folder written by
`datasets.save_to_disk`, one with `train.*` files, or a retrieval set with a training split.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from echovec.errors import InputError
from echovec.evaluate.layout import LocalSet, corpus_of, queries_of, read_set


def rows_of(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a file or folder, one after the other."""
    if path.is_dir():
        if (path / "dataset_info.json").is_file():
            import datasets

            yield from datasets.load_from_disk(str(path))
            return
        if any(path.glob("corpus.*")):
            yield from _judged(path)
            return
        files = sorted(p for p in path.iterdir() if p.name.startswith("train."))
        if not files:
            raise InputError(f"{path} holds no train.* file, no saved data set and no corpus")
        for file in files:
            yield from rows_of(file)
        return
    kind = path.name.lower().removesuffix(".gz").rsplit(".", 1)[-1]
    if kind == "parquet":
        import pyarrow.parquet as pq

        for batch in pq.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
        return
    readers = {"jsonl": _json_lines, "json": _json_lines, "csv": _csv, "tsv": _tsv, "txt": _lines}
    if kind not in readers:
        raise InputError(f"{path.name}: there are readers for {', '.join((*readers, 'parquet'))}")
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="") as lines:
        yield from readers[kind](lines)


def _judged(folder: Path) -> Iterator[Mapping[str, Any]]:
    """A row for each query of a retrieval set's training split and each of its documents."""
    one = read_set(folder)
    if not isinstance(one, LocalSet) or "train" not in one.splits:
        raise InputError(
            f"{folder} has a corpus but no qrels_train.tsv: its other splits are for evaluation"
        )
    documents = {row["_id"]: row for row in corpus_of(one)}
    queries, qrels = queries_of(one, "train")
    for query in queries:
        for document, grade in qrels[query["_id"]].items():
            if grade > 0:
                yield {"query": query["text"], "positive_passages": [documents[document]]}


def _json_lines(file: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    for line in file:
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            row = {"broken": str(error)}
        yield row if isinstance(row, dict) else {"broken": "not an object"}


def _csv(file: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    yield from csv.DictReader(file)


def _tsv(file: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    yield from csv.DictReader(file, delimiter="\t")


def _lines(file: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    for line in file:
        if line.strip():
            yield {"text": line.strip()}
