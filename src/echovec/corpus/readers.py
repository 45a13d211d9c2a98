"""The four readers, by kind: each yields the records of a Source, in order and one at a time.

A record is the number of its line (in Parquet, of its row), counted from 1, and either its fields
or the reason why there are none. What is wrong with the file as a whole is an InputError. A reader
knows the names of the wanted fields, of the text, of the ids and of what the Source is to keep: a
line of txt is given the one, the columns of a table are looked for before the first row, and only
these are read of a Parquet file.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from lzma import LZMAError
from pathlib import Path
from typing import IO, Any

from echovec.corpus.inputs import Source, known_names, unreadable
from echovec.errors import InputError
from echovec.files.remote import filesystem, remote_errors

Fields = dict[str, object]
Record = tuple[int, Fields | str]

_UTF8_MARK = b"\xef\xbb\xbf"
_PARQUET_ROWS = 1024


class _RowError(Exception):
    """One row cannot be parsed; the message is the reason."""


def _lines(source: Source) -> Iterator[tuple[int, bytes]]:
    """Lines with their ends, numbered from 1: only a line feed ends a line in a binary stream."""
    try:
        with _open(source) as stream:
            for number, line in enumerate(stream, 1):
                line = line.removeprefix(_UTF8_MARK) if number == 1 else line
                if line:
                    yield number, line
    except (OSError, EOFError, LZMAError, zlib.error) as error:
        reason = error if isinstance(error, OSError) else OSError(f"damaged compression: {error}")
        raise unreadable(source.name, reason) from error


@contextmanager
def _open(source: Source) -> Iterator[Iterable[bytes]]:
    if source.is_stdin:
        if sys.stdin is None:
            raise InputError("standard input is closed; pipe texts into it, or name a file")
        yield sys.stdin.buffer
        return
    opener = _OPENERS.get(Path(source.name).suffix.lower(), nullcontext)
    with _open_bytes(source) as file, opener(file) as stream:
        yield stream


@contextmanager
def _open_bytes(source: Source) -> Iterator[IO[bytes]]:
    """The file as it is, here or at a URL."""
    if source.url is None:
        assert source.path is not None
        with source.path.open("rb") as file:
            yield file
        return
    fs, path = filesystem(source.url)
    with (
        remote_errors(InputError, f"{source.url} cannot be read", "check the URL and your rights"),
        fs.open(path, "rb") as file,
    ):
        yield file


def _open_zst(file: IO[bytes]) -> IO[bytes]:
    import pyarrow as pa

    # Closing the outer one closes those inside.
    return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd"))


_OPENERS: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _open_zst,
}


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


def _read_table(source: Source, text_field: str, id_field: str | None) -> Iterator[Record]:
    kept = {field.name: field.type for field in source.keep or ()}
    with _table(source) as (schema, batches):
        columns = _columns(source, schema.names, text_field, id_field)
        for name in columns:
            if name in (text_field, id_field) or name not in kept:
                _check_type(source, name, schema.field(name).type, numbers=name != text_field)
        number = 0
        for batch in batches(columns):
            cells = [_table_cells(source, name, batch.column(name), kept) for name in columns]
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


def read_schema(source: Source) -> Any:
    """The Arrow schema of a table.

    Raises:
        InputError: it cannot be read.
    """
    with _table(source) as (schema, _):
        return schema


@contextmanager
def _table(source: Source) -> Iterator[Any]:
    """A table's schema, and what gives batches of the columns named."""
    import pyarrow as pa

    called = {"parquet": "a Parquet", "arrow": "an Arrow"}[source.kind]
    try:
        with _OPEN_TABLE[source.kind](source) as opened:
            yield opened
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(
            f"{source.name} is not {called} file, or is damaged: {reason}; check how it was made"
        ) from error


@contextmanager
def _open_parquet(source: Source) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with _open_bytes(source) as raw, pq.ParquetFile(raw) as file:
        yield (
            file.schema_arrow,
            lambda columns: file.iter_batches(_PARQUET_ROWS, columns=columns),
        )


@contextmanager
def _open_arrow(source: Source) -> Iterator[Any]:
    import pyarrow as pa

    # Not a memory map: a file that shrinks meanwhile would kill the process.
    with pa.OSFile(str(source.path)) as file, pa.ipc.open_stream(file) as stream:

        def batches(columns: list[str]) -> Iterator[Any]:
            for batch in stream:
                for start in range(0, len(batch), _PARQUET_ROWS):
                    yield batch.slice(start, _PARQUET_ROWS).select(columns)

        yield stream.schema, batches


_OPEN_TABLE = {"parquet": _open_parquet, "arrow": _open_arrow}


def _check_type(source: Source, name: str, kind: Any, *, numbers: bool) -> None:
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    fits = [pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view]
    fits += [pa.types.is_integer] if numbers else []
    if not any(fit(kind) for fit in fits):
        wanted = "texts or whole numbers (--id-field '' numbers the rows)" if numbers else "texts"
        raise InputError(f'{source.name}: the column "{name}" holds {kind}, and must hold {wanted}')


def _table_cells(source: Source, name: str, column: Any, kept: dict[str, Any]) -> list[Any]:
    """Texts as bytes, and times as the whole numbers that Arrow stores."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = kept.get(name)
    if kind is not None and not pa.types.is_string(kind):
        try:
            column = column.cast(kind)
        except pa.ArrowException as error:  # of a wider type than this file's
            raise InputError(
                f'{source.name}: the column "{name}" is to be kept as {kind} ({error}); make its '
                "type that of the other inputs"
            ) from error
        return to_values(column)
    # Parquet does not check that a text is UTF-8, and neither does its reader: take the bytes.
    numbers = pa.types.is_integer(column.type)
    cells: list[Any] = (column if numbers else column.cast(pa.large_binary())).to_pylist()
    return cells


def from_values(values: Sequence[object], kind: Any) -> Any:
    """The Arrow array of what `to_values` made of one."""
    import pyarrow as pa

    array = pa.array(values, _values_type(kind))
    return array.view(kind) if pa.types.is_temporal(kind) else array.cast(kind)


def to_values(array: Any) -> list[Any]:
    """Python's values, times as the whole numbers that Arrow stores: nanoseconds are not lost."""
    import pyarrow as pa

    kind = _values_type(array.type)
    array = array.view(kind) if pa.types.is_temporal(array.type) else array.cast(kind)
    values: list[Any] = array.to_pylist()
    return values


def _values_type(kind: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_temporal(kind):
        return pa.int32() if kind.bit_width == 32 else pa.int64()
    return pa.float32() if pa.types.is_float16(kind) else kind


def _columns(
    source: Source, names: Sequence[str], text_field: str, id_field: str | None
) -> list[str]:
    """Those of the columns `names` that are wanted: the text's, the ids', and what is kept."""
    if id_field is None and "id" in names:
        id_field = "id"
    wanted = [(text_field, "--text-field")]
    wanted += [(id_field, "--id-field")] if id_field else []
    wanted += [(field.name, "--keep") for field in source.keep or ()]
    for name, option in wanted:
        if name not in names:
            known = known_names(name, names)
            raise InputError(f'{source.name} has no column "{name}"; {known} ({option} names it)')
        if names.count(name) > 1:
            raise InputError(f'{source.name} has two columns "{name}"; rename one of them')
    return list(dict.fromkeys(name for name, _ in wanted))


# By kind; given the input, the field of the text and that of the ids (None: "id", if there).
READERS: dict[str, Callable[[Source, str, str | None], Iterator[Record]]] = {
    "txt": _read_txt,
    "jsonl": _read_jsonl,
    "csv": _read_csv,
    "parquet": _read_table,
    "arrow": _read_table,
}
