"""The rows of an index beside their vectors: id, text and other fields, in a memory-mapped file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from echovec.errors import StorageError
from echovec.files.disk import NewFile
from echovec.search.layout import Kept


class RowsWriter:
    """Arrow tables of one schema into `rows-TOKEN.arrow`; a context manager."""

    def __init__(self, folder: Path, token: str, schema: Any) -> None:
        import pyarrow as pa

        self._path = folder / f"rows-{token}.arrow"
        self._file = NewFile(self._path)
        self._writer = pa.ipc.new_file(pa.PythonFile(self._file, mode="w"), schema)

    def __enter__(self) -> RowsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, table: Any) -> None:
        """The next rows."""
        self._writer.write_table(table)

    def keep(self) -> Kept:
        """Flush it and give it its name."""
        self._writer.close()
        self._file.keep()
        return Kept(self._path.name, self._file.bytes, self._file.sha256)


class Rows:
    """An opened rows file; only what is asked for is read."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        try:
            self.table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        except (pa.ArrowException, OSError) as error:
            raise StorageError(f"{path} cannot be read: {error}; build the index again") from error

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def take(self, rows: Iterable[int]) -> Iterator[dict[str, Any]]:
        """The fields of some rows, in the order asked for."""
        import pyarrow as pa

        if found := [self.table.slice(row, 1) for row in rows]:
            yield from rows_of(pa.concat_tables(found))

    def part(self, start: int, stop: int) -> Any:
        """Rows `start` to `stop` as an Arrow table."""
        return self.table.slice(start, stop - start)


def rows_of(table: Any) -> list[dict[str, Any]]:
    """The rows of an Arrow table, values as those of `columns_of`."""
    columns = columns_of(table)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def columns_of(table: Any) -> dict[str, list[Any]]:
    """The columns of an Arrow table as Python's values.

    Python's times end at microseconds and at the year 9999. A column that has others here is one of
    texts, as Arrow writes times; with pandas installed, nanoseconds are its `Timestamp`.
    """
    return {name: _values(table.column(name)) for name in table.column_names}


def _values(column: Any) -> list[Any]:
    import pyarrow as pa

    if not pa.types.is_temporal(column.type):
        values: list[Any] = column.to_pylist()
        return values
    try:
        if not _is_finer(column):
            times: list[Any] = column.to_pylist()
            return times
    except (ValueError, OverflowError):  # what Python's times cannot hold, and unknown time zones
        pass
    return [_text(value) if value.is_valid else None for value in column]


def _is_finer(column: Any) -> bool:
    """Whether a time of day would be cut to microseconds, which pyarrow does without a word."""
    import pyarrow as pa

    return column.type == pa.time64("ns") and any(v.is_valid and v.value % 1000 for v in column)


def _text(time: Any) -> str:
    import pyarrow as pa

    if pa.types.is_duration(time.type):
        return f"{time.value} {time.type.unit}"
    try:
        return str(time.cast(pa.string()).as_py())
    except pa.ArrowInvalid:  # no such time zone here: what is stored is UTC
        return f"{time.cast(pa.timestamp(time.type.unit)).cast(pa.string()).as_py()}Z"
