"""Rows: files and folders of training data, one row after the other as a mapping by column.

.jsonl, .csv, .tsv, .parquet or .txt (a text a line), plain or .gz; a folder written by
`datasets.save_to_disk`, one with `train.*` files, or a retrieval set with a training split.

A row that cannot be parsed is a string in its place: why, as half a sentence. What is wrong with a
file as a whole is an InputError.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from echovec.errors import InputError
from echovec.evaluate.layout import LocalSet, corpus_of, queries_of, read_set

Row = Mapping[str, Any]


def rows_of(path: Path) -> Iterator[Row | str]:
    """The rows of a file or folder, one after the other.

    Raises:
        InputError: no such file or folder, of no known kind, or damaged.
    """
    if not path.exists():
        raise InputError(f"no training data at {path}; give a file or folder that is there")
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
    name = path.name.lower()
    kind = name.removesuffix(".gz").rsplit(".", 1)[-1]
    if kind not in (*_READERS, "parquet"):
        raise InputError(f"{path.name}: there are readers for {', '.join((*_READERS, 'parquet'))}")
    opened = gzip.open if name.endswith(".gz") else open
    with _damage(path):
        if kind == "parquet":
            import pyarrow.parquet as pq

            with opened(path, "rb") as raw, pq.ParquetFile(raw) as file:
                for batch in file.iter_batches():
                    yield from batch.to_pylist()
            return
        # Bytes that are not UTF-8 pass as surrogates, so that they cost their own row only.
        with opened(
            path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline=""
        ) as lines:
            yield from _READERS[kind](lines)


def whole(row: Row | str) -> Row:
    """A row that was parsed.

    Raises:
        InputError: it was not; says why.
    """
    if isinstance(row, str):
        raise InputError(row)
    return row


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn what damaged files raise into an InputError that names the file."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    # Arrow's own errors are ValueErrors and OSErrors.
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}; check how it was made") from error


def _judged(folder: Path) -> Iterator[Row]:
    """A row for each query of a retrieval set's training split and each of its documents."""
    one = read_set(folder)
    if not isinstance(one, LocalSet) or "train" not in one.splits:
        raise InputError(
            f"{folder} has a corpus but no qrels_train.tsv: its other splits are for evaluation"
        )
    documents = {row["_id"]: row for row in corpus_of(one)}
    queries, qrels = queries_of(one, "train", documents.values())
    for query in queries:
        for document, grade in qrels[query["_id"]].items():
            if grade > 0:
                yield {"query": query["text"], "positive_passages": [documents[document]]}


def _json_lines(file: Iterable[str]) -> Iterator[Row | str]:
    for line in file:
        if not line.strip():
            continue
        if problem := _not_utf8(line):
            yield problem
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield f"is not valid JSON: {error}"
            continue
        yield row if isinstance(row, dict) else 'is not a JSON object such as {"text": "a text"}'


def _tsv(file: Iterable[str]) -> Iterator[Row | str]:
    """A row a line, cells between tabs; quotes are part of a cell that is not whole in them.

    The field's sets have quotes as they come. Other programs put them around some cells, and may
    have line ends within: such a cell shows by the row that is short for it.
    """
    header: list[str] = []
    opened = 0
    for number, line in enumerate(file, 1):
        if not (line := line.rstrip("\r\n")):
            continue
        cells = line.split("\t")
        unclosed = _opens(cells[-1])
        if len(cells) < len(header) and (opened or unclosed):
            raise InputError(
                f"line {opened or number} begins a quoted cell that goes on in the next line; a "
                "row of .tsv is one line: write texts with line ends as .csv or .jsonl"
            )
        opened = number if unclosed else 0
        yield from _row([_unquoted(cell) for cell in cells], header)


def _unquoted(cell: str) -> str:
    if _QUOTED.fullmatch(cell):
        return cell[1:-1].replace('""', '"')
    return cell


def _opens(cell: str) -> bool:
    """Whether a cell begins with a quote that is not closed in it."""
    return cell.startswith('"') and cell.count('"') % 2 == 1


_QUOTED = re.compile(r'"[^"]*(?:""[^"]*)*"')


def _csv(file: Iterable[str]) -> Iterator[Row | str]:
    # The limit (128 KiB a cell) is the module's; a text may be longer, and a C long holds this.
    csv.field_size_limit(2**31 - 1)
    # Strict: without it a quote that is never closed swallows the rest of the file in silence.
    rows = csv.reader(file, strict=True)
    header: list[str] = []
    while True:
        line = rows.line_num + 1  # where the row begins: a quoted cell may hold more
        try:
            cells = next(rows, None)
        except csv.Error as error:
            if not header or str(error) == "unexpected end of data":
                raise InputError(
                    f"line {line} is no row ({error}); is there a quote that is never closed?"
                ) from None
            yield f"is not valid CSV: {error}"
            continue
        if cells is None:
            return
        yield from _row(cells, header)


def _row(cells: list[str], header: list[str]) -> Iterator[Row | str]:
    """The row of these cells; the first ones are the header, and put into it."""
    if not header:
        header.extend(cells)
    elif len(cells) > len(header):
        yield f"has {len(cells)} cells, and the header has {len(header)}"
    elif cells:  # fewer: the last columns are empty
        yield _not_utf8("".join(cells)) or dict(zip(header, cells, strict=False))


def _lines(file: Iterable[str]) -> Iterator[Row | str]:
    for line in file:
        if line.strip():
            yield _not_utf8(line) or {"text": line.strip()}


def _not_utf8(text: str) -> str | None:
    """Say which byte could not be decoded, or None."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        byte = ord(text[error.start]) & 0xFF
        return f"is not valid UTF-8: it holds the byte 0x{byte:02X}"
    return None


_READERS = {"jsonl": _json_lines, "json": _json_lines, "csv": _csv, "tsv": _tsv, "txt": _lines}
