"""Rows of text out of files: .txt, .jsonl, .csv, .parquet and standard input, one row at a time.

Two kinds of trouble, told apart by whether the rest can still be read:

    the file     InputError at once         missing, a folder, unreadable, no rows, no such column
    one row      a Problem in its place     broken, without a text or an id, or an id used before

A reader yields (number of the line or row, its fields or the reason why there are none); all else
is common to the four kinds. Nothing is read twice and only the row at hand is kept. Ids that come
from a field are remembered as 16-byte hashes to find duplicates: about 120 bytes of memory a row.
"""

from __future__ import annotations

import csv
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import blake2b
from pathlib import Path
from typing import Any

from echovec.errors import InputError
from echovec.text.check import text_problem

ENDINGS = {".txt": "txt", ".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet"}
STDIN = "-"

_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_PARQUET_ROWS = 1024

Fields = dict[str, object]
Record = tuple[int, Fields | str]


@dataclass(frozen=True)
class Row:
    """One text to embed."""

    id: str
    text: str
    where: str
    """Where it stands, for messages: "notes.txt:12" (a line) or "notes.parquet row 12"."""


@dataclass(frozen=True)
class Problem:
    """A row that cannot be used."""

    where: str
    reason: str
    """What follows the place and a colon: 'notes.txt:12: the text is empty'."""


@dataclass(frozen=True)
class Source:
    """One input whose kind is known; `path` is None for standard input."""

    path: Path | None
    kind: str

    @property
    def name(self) -> str:
        """What messages call it."""
        return "stdin" if self.path is None else str(self.path)

    def where(self, number: int) -> str:
        """The place of a line or, in Parquet, of a row; both are counted from 1."""
        return f"{self.name} row {number}" if self.kind == "parquet" else f"{self.name}:{number}"


def read_rows(
    inputs: Sequence[str | Path],
    *,
    kind: str | None = None,
    text_field: str = "text",
    id_field: str | None = None,
) -> Iterator[Row | Problem]:
    """The rows of all `inputs` in order, and a Problem in the place of each that cannot be used.

    `kind` ("txt", "jsonl", "csv", "parquet") overrides the endings; "-" is standard input, a text a
    line unless `kind` says otherwise. `id_field=None` takes the field "id" if the first readable
    row has one, for all inputs; else, and for "", ids are the running numbers of the rows from 0,
    unusable rows counted too. What is wrong with a file as a whole is an InputError: what can be
    seen without reading it through at this call, the rest when its turn comes.
    """
    sources = [_find(name, kind) for name in inputs]
    if not sources:
        raise InputError('no input; give files, or "-" for standard input')
    if sum(source.path is None for source in sources) > 1:
        raise InputError('"-" (standard input) is given twice, and can be read only once')
    if text_field != "text" and all(source.kind == "txt" for source in sources):
        raise InputError(
            f'--text-field "{text_field}": a txt input has no fields, each line is a text; '
            "leave the option out, or say what the input is with --format"
        )
    _check_id_field(sources, id_field)
    return _rows(sources, text_field, id_field)


def _rows(
    sources: Sequence[Source], text_field: str, id_field: str | None
) -> Iterator[Row | Problem]:
    seen: dict[bytes, int] = {}
    running = -1
    for index, source in enumerate(sources):
        before = running
        for number, record in _READERS[source.kind](source, text_field, id_field):
            running += 1
            where = source.where(number)
            if isinstance(record, str):
                yield Problem(where, record)
                continue
            if id_field is None:
                id_field = "id" if "id" in record and source.kind != "txt" else ""
                _check_id_field(sources, id_field)
            row = _row(record, running, where, text_field, id_field)
            if id_field and isinstance(row, Row):
                digest = blake2b(row.id.encode(), digest_size=16).digest()
                # Both halves of the earlier place in one small integer: this table is all we keep.
                place = seen.setdefault(digest, number * len(sources) + index)
                if place != number * len(sources) + index:
                    earlier = sources[place % len(sources)].where(place // len(sources))
                    row = Problem(where, f'the id "{row.id}" is used before, at {earlier}')
            yield row
        if running == before:
            raise InputError(f"{source.name} holds no rows; leave it out, or check how it was made")


def _row(fields: Fields, running: int, where: str, text_field: str, id_field: str) -> Row | Problem:
    for field in (text_field, id_field) if id_field else (text_field,):
        if field not in fields:
            return Problem(where, f'has no field "{field}"; {_known(field, list(fields))}')
        if fields[field] is None:
            return Problem(where, f'the field "{field}" is null')
    text, key = fields[text_field], fields[id_field] if id_field else running
    reason = text_problem(text)
    if reason:
        return Problem(where, f"the {_called(text_field)} {reason}")
    if isinstance(key, int) and not isinstance(key, bool):
        key = str(key)
    reason = text_problem(key)
    if reason:
        reason = reason.replace("not a text", "neither a text nor a whole number")
        return Problem(where, f"the {_called(id_field)} {reason}")
    return Row(str(key), str(text), where)


def _called(field: str) -> str:
    return field if field in ("text", "id") else f'field "{field}"'


def _known(wanted: str, names: Sequence[str]) -> str:
    near = near_name(wanted, names)
    listed = ", ".join(f'"{name}"' for name in names[:12]) or "none"
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"there are: {listed}{more}" + (f'; did you mean "{near}"?' if near else "")


def near_name(wanted: str, names: Sequence[str]) -> str | None:
    """The name most like `wanted`, whatever its case, or None if none is near."""
    folded = {name.casefold(): name for name in names}
    near = get_close_matches(wanted.casefold(), folded, n=1)
    return folded[near[0]] if near else None


# --- finding an input: everything that can be known without reading it through ---


def _find(name: str | Path, kind: str | None) -> Source:
    if str(name) == STDIN:
        if kind == "parquet":
            raise InputError("a Parquet file cannot be read from standard input; give its path")
        return Source(None, kind or "txt")
    path = Path(name)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"{path} is a folder; give the files in it, such as {path}/*.txt")
        kind = kind or ENDINGS.get(path.suffix.lower())
        if kind is None:
            raise InputError(
                f'{path}: the ending "{path.suffix}" is not known ({", ".join(ENDINGS)} are); '
                "say what the file is with --format"
            )
        if stat.S_ISREG(mode):
            _check_start(path, kind)
        elif kind == "parquet":
            raise InputError(f"{path} is a pipe, and Parquet needs a file; save it to one first")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; {_beside(path)}") from None
    except OSError as error:
        raise _unreadable(str(path), error) from error
    return Source(path, kind)


def _check_start(path: Path, kind: str) -> None:
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise InputError(f"{path} is empty; leave it out, or check how it was made")
    if kind != "parquet" and start.startswith(_UTF16_MARKS):
        raise InputError(f"{path} is UTF-16; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)")


def _beside(path: Path) -> str:
    try:
        near = near_name(path.name, os.listdir(path.parent))  # noqa: PTH208 - names are enough
    except OSError:
        return f"nor does the folder {path.parent}"
    return f"did you mean {path.parent / near}?" if near else "check the path"


def _unreadable(name: str, error: OSError) -> InputError:
    reason = error.strerror or str(error)
    return InputError(f"{name} cannot be read: {reason}; check the file, its rights and its disk")


def _check_id_field(sources: Sequence[Source], id_field: str | None) -> None:
    for source in sources:
        if id_field and source.kind == "txt":
            raise InputError(
                f'{source.name} is read as txt and has no field "{id_field}" for ids; '
                "--id-field '' numbers the rows of all inputs instead"
            )


def _columns(
    source: Source, names: Sequence[str], text_field: str, id_field: str | None
) -> list[str]:
    """The one or two of the columns `names` that are wanted: the text's, then the ids'."""
    if id_field is None and "id" in names:
        id_field = "id"
    wanted = [text_field, id_field] if id_field else [text_field]
    for name, option in zip(wanted, ("--text-field", "--id-field"), strict=False):
        if name not in names:
            raise InputError(
                f'{source.name} has no column "{name}"; {_known(name, names)} ({option} names it)'
            )
        if names.count(name) > 1:
            raise InputError(f'{source.name} has two columns "{name}"; rename one of them')
    return wanted


# --- the four readers ---


class _RowError(Exception):
    """One row cannot be parsed; the message is the reason."""


def _lines(source: Source) -> Iterator[tuple[int, bytes]]:
    """Lines with their ends, numbered from 1: only a line feed ends a line in a binary stream."""
    try:
        opened = nullcontext(sys.stdin.buffer) if source.path is None else source.path.open("rb")
        with opened as stream:
            for number, line in enumerate(stream, 1):
                line = line.removeprefix(_UTF8_MARK) if number == 1 else line
                if line:
                    yield number, line
    except OSError as error:
        raise _unreadable(source.name, error) from error


def _read_txt(source: Source, text_field: str, _: str | None) -> Iterator[Record]:
    return _read_lines(source, lambda line: {text_field: line})


def _read_jsonl(source: Source, *_: str | None) -> Iterator[Record]:
    return _read_lines(source, _json_object)


def _read_lines(source: Source, parse: Callable[[str], Fields]) -> Iterator[Record]:
    for number, line in _lines(source):
        record: Fields | str
        try:
            record = parse(_decode(line[:-2] if line.endswith(b"\r\n") else line.rstrip(b"\n")))
        except _RowError as error:
            record = str(error)
        yield number, record


def _decode(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = raw[error.start]
        raise _RowError(f"is not valid UTF-8: it holds the byte 0x{byte:02X}") from None


def _json_object(line: str) -> Fields:
    if not line.strip():
        raise _RowError("is an empty line, not a JSON object")
    try:
        value = json.loads(line, object_pairs_hook=_json_fields, parse_constant=_json_constant)
    except json.JSONDecodeError as error:
        raise _RowError(f"is not valid JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise _RowError("is JSON that is nested too deeply") from None
    except ValueError as error:  # a number of more digits than Python reads
        raise _RowError(f"is JSON that cannot be read: {error}") from None
    if not isinstance(value, dict):
        shown = line if len(line) <= 40 else line[:37] + "..."
        raise _RowError(f'is not a JSON object such as {{"text": "a text"}} but {shown!r}')
    return value


def _json_fields(pairs: list[tuple[str, Any]]) -> Fields:
    fields = dict(pairs)
    if len(fields) < len(pairs):  # json keeps the last one and says nothing
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _RowError(f'is a JSON object with the field "{twice}" twice')
    return fields


def _json_constant(name: str) -> object:
    raise _RowError(f"is not valid JSON: {name} is not a JSON value")


def _read_csv(source: Source, text_field: str, id_field: str | None) -> Iterator[Record]:
    # The limit (128 KiB a cell) is the module's; a text may be longer, and a C long holds this.
    csv.field_size_limit(2**31 - 1)
    # Bytes that are not UTF-8 pass as surrogates, so that they cost their own row only; strict,
    # because without it a quote that is never closed swallows the rest of the file in silence.
    lines = (line.decode("utf-8", "surrogateescape") for _, line in _lines(source))
    reader = csv.reader(lines, strict=True)
    header: list[str] = []
    while True:
        number = reader.line_num + 1  # the line where the row starts: a quoted cell may hold more
        record: Fields | str
        try:
            cells = next(reader)
            _decode(",".join(cells).encode("utf-8", "surrogateescape"))
            record = _csv_fields(header, cells) if header else {}
        except StopIteration:
            return
        except csv.Error as error:
            record = f"is not valid CSV: {error}"
        except _RowError as error:
            record = str(error)
        if header:
            yield number, record
        elif isinstance(record, str):
            raise InputError(f"{source.where(number)}: the header {record}; correct it")
        else:
            header = cells
            _columns(source, header, text_field, id_field)


def _csv_fields(header: list[str], cells: list[str]) -> Fields:
    if len(cells) != len(header):
        raise _RowError(f"has {len(cells)} cells, and the header has {len(header)}")
    return dict(zip(header, cells, strict=True))


def _read_parquet(source: Source, text_field: str, id_field: str | None) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(source.path) as file:
            schema = file.schema_arrow
            columns = _columns(source, schema.names, text_field, id_field)
            for name in columns:
                _check_type(source, name, schema.field(name).type, numbers=name != text_field)
            number = 0
            for batch in file.iter_batches(_PARQUET_ROWS, columns=columns):
                cells = [_parquet_cells(batch.column(name)) for name in columns]
                for values in zip(*cells, strict=True):
                    number += 1
                    record: Fields | str
                    try:
                        record = {
                            name: _decode(value) if isinstance(value, bytes) else value
                            for name, value in zip(columns, values, strict=True)
                        }
                    except _RowError as error:
                        record = str(error)
                    yield number, record
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(
            f"{source.name} is not a Parquet file, or is damaged: {reason}; check how it was made"
        ) from error


def _check_type(source: Source, name: str, kind: Any, *, numbers: bool) -> None:
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    fits = [pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view]
    fits += [pa.types.is_integer] if numbers else []
    if not any(fit(kind) for fit in fits):
        wanted = "texts or whole numbers (--id-field '' numbers the rows)" if numbers else "texts"
        raise InputError(f'{source.name}: the column "{name}" holds {kind}, and must hold {wanted}')


def _parquet_cells(column: Any) -> list[Any]:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    # Parquet does not check that a text is UTF-8, and neither does its reader: take the bytes.
    numbers = pa.types.is_integer(column.type)
    cells: list[Any] = (column if numbers else column.cast(pa.large_binary())).to_pylist()
    return cells


_READERS: dict[str, Callable[[Source, str, str | None], Iterator[Record]]] = {
    "txt": _read_txt,
    "jsonl": _read_jsonl,
    "csv": _read_csv,
    "parquet": _read_parquet,
}
