"""The three output formats, by OUT's ending: how a chunk of vectors becomes bytes.

What is kept of the rows beside id and text stands after these.

    OUT.parquet   id, text, embedding (fixed-size list of float32); recipe and run in the metadata
    OUT.npy       float32 [n, d]; beside it OUT.npy.ids.jsonl (one line a row) and the recipe
    OUT.jsonl     {"id", "text", "embedding"} a line; beside it OUT.jsonl.recipe.json

A format writes to files that are open already; where they are and what becomes of them is the
Sink's. Rows are written as they come: no format holds more than the chunk at hand.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from echovec.corpus.readers import from_values
from echovec.corpus.source import Row
from echovec.files.vectors import IDS_FILE, RECIPE_FILE


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a file of vectors says beside the vectors."""

    recipe_json: str
    fingerprint: str

    role: Literal["query", "document"] | None = None
    """This, `instruction` and `truncate_dim` are what `encode` was given; None: nothing."""

    instruction: str | None = None
    truncate_dim: int | None = None

    keep_text: bool = True
    flag_truncated: bool = False
    """Whether each row says if its text was cut to the token budget: `truncated`."""

    columns: Any = None
    """Arrow schema of what is kept with each row: `Reading.columns`."""

    @property
    def kept(self) -> list[str]:
        """Name and type of each field that is kept, in order."""
        return [f"{field.name}: {field.type}" for field in self.columns or ()]

    @property
    def run(self) -> dict[str, str | int | None]:
        """What decides, beside the fingerprint, whether vectors may be compared."""
        asked = {"role": self.role, "instruction": self.instruction}
        return {**asked, "truncate_dim": self.truncate_dim}


@dataclass(frozen=True)
class Chunk:
    """Rows and their vectors, in one order."""

    rows: Sequence[Row]
    vectors_ND: NDArray[np.float32]
    truncated_N: NDArray[np.bool_]


class Format(Protocol):
    """One kind of file. `files` are the open OUT and those beside it, by what OUT's name gets."""

    beside: ClassVar[tuple[str, ...]]

    def __init__(self, files: dict[str, IO[bytes]], contents: Contents, dimension: int) -> None: ...

    def write(self, chunk: Chunk) -> None:
        """Append the chunk's rows."""

    def close(self) -> None:
        """Write what stands at the end; the files stay open."""


class _Parquet:
    beside: ClassVar[tuple[str, ...]] = ()

    def __init__(self, files: dict[str, IO[bytes]], contents: Contents, dimension: int) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._contents, self._dimension = contents, dimension
        fields = [pa.field("id", pa.string(), nullable=False)]
        if contents.keep_text:
            fields.append(pa.field("text", pa.string(), nullable=False))
        fields += contents.columns or ()
        fields.append(pa.field("embedding", pa.list_(pa.float32(), dimension), nullable=False))
        if contents.flag_truncated:
            fields.append(pa.field("truncated", pa.bool_(), nullable=False))
        metadata = {
            "echovec.recipe": contents.recipe_json,
            "echovec.fingerprint": contents.fingerprint,
            "echovec.run": json.dumps(contents.run, ensure_ascii=False),
        }
        self._schema = pa.schema(fields, metadata=metadata)
        # Numbers that hardly ever repeat: a dictionary only costs. What is kept often does.
        dictionary = contents.columns.names if contents.columns else False
        self._writer = pq.ParquetWriter(
            files[""], self._schema, use_dictionary=dictionary, compression="zstd"
        )

    def write(self, chunk: Chunk) -> None:
        import pyarrow as pa

        flat = pa.array(np.ascontiguousarray(chunk.vectors_ND, dtype=np.float32).ravel())
        columns = {
            "id": pa.array([row.id for row in chunk.rows], pa.string()),
            "embedding": pa.FixedSizeListArray.from_arrays(flat, self._dimension),
        }
        if self._contents.keep_text:
            columns["text"] = pa.array([row.text for row in chunk.rows], pa.string())
        if self._contents.flag_truncated:
            columns["truncated"] = pa.array(chunk.truncated_N)
        columns |= kept_arrays(chunk.rows, self._contents)
        arrays = [columns[name] for name in self._schema.names]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


class _Npy:
    beside: ClassVar[tuple[str, ...]] = (IDS_FILE, RECIPE_FILE)

    def __init__(self, files: dict[str, IO[bytes]], contents: Contents, dimension: int) -> None:
        self._file, self._ids = files[""], files[IDS_FILE]
        self._contents, self._dimension, self._num_rows = contents, dimension, 0
        _write_recipe(files, contents)
        self._start = self._write_header()

    def _write_header(self) -> int:
        # numpy pads the header so that the first axis can grow without moving the data.
        shape = (self._num_rows, self._dimension)
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        self._file.seek(0)
        np.lib.format.write_array_header_1_0(self._file, header)
        return self._file.tell()

    def write(self, chunk: Chunk) -> None:
        self._num_rows += len(chunk.rows)
        self._file.write(np.ascontiguousarray(chunk.vectors_ND, dtype="<f4").data)
        for fields in _row_fields(chunk, self._contents):
            self._ids.write(_json_line(fields))

    def close(self) -> None:
        assert self._write_header() == self._start, "the header has outgrown its place"


class _Jsonl:
    beside: ClassVar[tuple[str, ...]] = (RECIPE_FILE,)

    def __init__(self, files: dict[str, IO[bytes]], contents: Contents, dimension: int) -> None:
        self._file, self._contents = files[""], contents
        _write_recipe(files, contents)

    def write(self, chunk: Chunk) -> None:
        numbers = np.asarray(chunk.vectors_ND, dtype=np.float32).tolist()
        for fields, vector in zip(_row_fields(chunk, self._contents), numbers, strict=True):
            # Nine digits give back every float32; as they are, they would be written as float64s.
            fields["embedding"] = [float(f"{number:.9g}") for number in vector]
            self._file.write(_json_line(fields))

    def close(self) -> None:
        """Nothing stands at the end."""


def kept_arrays(rows: Sequence[Row], contents: Contents) -> dict[str, Any]:
    """Arrow arrays of what is kept with the rows, by name."""
    return {
        field.name: from_values([row.kept[n] for row in rows], field.type)
        for n, field in enumerate(contents.columns or ())
    }


def _kept_fields(rows: Sequence[Row], contents: Contents) -> Iterator[dict[str, Any]]:
    """What is kept with each row, as JSON has it."""
    if not contents.columns:
        yield from ({} for _ in rows)
        return
    values: dict[str, list[Any]] = {
        field.name: _json_values(field.type, [row.kept[n] for row in rows])
        for n, field in enumerate(contents.columns)
    }
    for row in zip(*values.values(), strict=True):
        yield dict(zip(values, row, strict=True))


def _json_values(kind: Any, values: list[Any]) -> list[Any]:
    """Times are texts (ISO 8601), and a number that JSON has none for is null."""
    import pyarrow as pa

    if pa.types.is_temporal(kind) and not pa.types.is_duration(kind):
        times: list[Any] = from_values(values, kind).cast("string").to_pylist()
        return times
    if pa.types.is_floating(kind):
        return [value if value is None or math.isfinite(value) else None for value in values]
    return values


def _row_fields(chunk: Chunk, contents: Contents) -> Iterator[dict[str, Any]]:
    kept = _kept_fields(chunk.rows, contents)
    for row, truncated, more in zip(chunk.rows, chunk.truncated_N.tolist(), kept, strict=True):
        fields: dict[str, Any] = {"id": row.id}
        if contents.keep_text:
            fields["text"] = row.text
        fields |= more
        if contents.flag_truncated:
            fields["truncated"] = truncated
        yield fields


def _json_line(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode() + b"\n"


def _write_recipe(files: dict[str, IO[bytes]], contents: Contents) -> None:
    # Recipe.from_json passes over "run", so that the file stays one that --recipe reads.
    fields = {**json.loads(contents.recipe_json), "run": contents.run}
    files[RECIPE_FILE].write(json.dumps(fields, indent=2, ensure_ascii=False).encode() + b"\n")


FORMATS: dict[str, type[Format]] = {
    ".parquet": _Parquet,
    ".npy": _Npy,
    ".jsonl": _Jsonl,
}
