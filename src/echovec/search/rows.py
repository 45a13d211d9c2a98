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
        for row in rows:
            yield self.table.slice(row, 1).to_pylist()[0]

    def part(self, start: int, stop: int) -> Any:
        """Rows `start` to `stop` as an Arrow table."""
        return self.table.slice(start, stop - start)
