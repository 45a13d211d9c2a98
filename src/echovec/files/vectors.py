"""What `echovec embed` wrote, read again: Parquet, .npy and .jsonl files, and folders of shards.

    path --open_vectors--> VectorFile --blocks--> Block, Block, ...

Each says how its vectors were made (`Made`): files that were made in different ways are refused
together. Memory holds one block. Of a folder only the shards that its manifest names are read,
each after its sha256 is checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from echovec.errors import InputError, StorageError
from echovec.files import manifest
from echovec.files.disk import file_sha256
from echovec.files.parquet import Vectors, damaged, opened, to_numpy

IDS_FILE = ".ids.jsonl"
RECIPE_FILE = ".recipe.json"
BLOCK_ROWS = 4096

_OURS = ("id", "embedding", "text_hash")


@dataclass(frozen=True)
class Made:
    """How vectors were made: vectors may be compared where this is alike."""

    recipe_json: str = field(compare=False)
    fingerprint: str
    role: str | None = None
    instruction: str | None = None
    truncate_dim: int | None = None

    def differs(self, other: Made) -> str:
        """What differs, both values shown; "" if nothing does."""
        names = ("fingerprint", "role", "instruction", "truncate_dim")
        pairs = [(name, getattr(self, name), getattr(other, name)) for name in names]
        return "; ".join(f"{name} {a!r} and {b!r}" for name, a, b in pairs if a != b)


@dataclass(frozen=True)
class Block:
    """Some rows: their vectors, and an Arrow table of `id`, maybe `text`, and other fields."""

    rows: Any
    vectors_ND: Vectors

    @property
    def ids(self) -> list[str]:
        """The ids, in order."""
        ids: list[str] = self.rows.column("id").to_pylist()
        return ids


@dataclass(frozen=True)
class VectorFile:
    """One output of `echovec embed`, opened; `blocks()` may be asked for again and again."""

    path: Path
    made: Made
    num_rows: int
    dimension: int
    schema: Any
    """The Arrow schema of the blocks' rows."""
    blocks: Callable[[], Iterator[Block]]
    arrays: Path | None = None
    """The file of the recipe's arrays, where it is there."""


def open_vectors(paths: Sequence[str | Path | VectorFile]) -> list[VectorFile]:
    """Open outputs of `echovec embed` that were all made in one way; open ones stay as they are.

    Raises:
        InputError: a path is missing, of another kind, without its recipe, or made differently.
        StorageError: a file is damaged.
    """
    if not paths:
        raise InputError("no vectors; name a file or folder that `echovec embed` wrote")
    files = [path if isinstance(path, VectorFile) else _open(Path(path)) for path in paths]
    first = files[0]
    for other in files[1:]:
        difference = first.made.differs(other.made)
        if first.dimension != other.dimension:
            difference = f"{first.dimension} and {other.dimension} dimensions"
        if difference:
            raise InputError(
                f"{first.path} and {other.path} were made differently and cannot be compared: "
                f"{difference}; embed both with one recipe"
            )
    return files


def in_memory(rows: Any, vectors_ND: Vectors, made: Made, *, name: str) -> VectorFile:
    """Vectors in memory as if they were a file.

    Args:
        rows: an Arrow table with `id`, maybe `text`, and other fields.
        vectors_ND: float32 [n, d], a row for each.
        made: how they were made.
        name: what messages call them.

    Raises:
        InputError: rows and vectors differ in number, or `id` is missing.
    """
    if vectors_ND.ndim != 2 or rows.num_rows != len(vectors_ND):
        raise InputError(f"{name}: {rows.num_rows:,} rows and vectors of {vectors_ND.shape}")
    schema = _kept(Path(name), rows.schema)
    block = Block(rows.select(schema.names).cast(schema), vectors_ND)
    rows_and_width = vectors_ND.shape[0], vectors_ND.shape[1]
    return VectorFile(Path(name), made, *rows_and_width, schema, lambda: iter([block]))


def _open(path: Path) -> VectorFile:
    if path.is_dir():
        return _open_folder(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; name what `echovec embed` wrote")
    kinds = {".parquet": _open_parquet, ".npy": _open_npy, ".jsonl": _open_jsonl}
    if path.suffix.lower() not in kinds:
        raise InputError(
            f'{path}: the ending "{path.suffix}" is none of {", ".join(kinds)}; '
            "embed the texts first: echovec embed INPUT -o vectors.parquet"
        )
    return kinds[path.suffix.lower()](path)


# -- Parquet, alone or in a folder of shards --------------------------------------------------


def _open_parquet(path: Path) -> VectorFile:
    import pyarrow as pa

    with opened(path) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
    kind = schema.field("embedding").type if "embedding" in schema.names else None
    if kind is None or not pa.types.is_fixed_size_list(kind):
        raise InputError(
            f'{path} has no column "embedding" of vectors ({kind}); name what `embed` wrote'
        )
    made = _made_of_metadata(path, schema.metadata or {})
    kept = _kept(path, schema)
    return VectorFile(path, made, rows, kind.list_size, kept, lambda: _parquet_blocks(path, kept))


def _open_folder(path: Path) -> VectorFile:
    entries, _ = manifest.read(path / manifest.MANIFEST)
    entries = sorted((entry for entry in entries if entry.file), key=lambda entry: entry.start)
    if not entries:
        raise InputError(
            f"{path} holds no finished shard; make some with: echovec embed INPUT -o {path}/"
        )
    shards = [path / str(entry.file) for entry in entries]
    if missing := [shard for shard in shards if not shard.exists()]:
        raise damaged(missing[0], "it is missing")
    first = _open_parquet(shards[0])

    def blocks() -> Iterator[Block]:
        for shard, entry in zip(shards, entries, strict=True):
            if (found := file_sha256(shard)) != entry.sha256:
                raise damaged(shard, f"its sha256 is {found[:12]}..., was {entry.sha256[:12]}...")
            yield from _parquet_blocks(shard, first.schema)

    rows = sum(entry.rows for entry in entries)
    arrays = path / "recipe.safetensors"
    return VectorFile(
        path,
        first.made,
        rows,
        first.dimension,
        first.schema,
        blocks,
        arrays if arrays.exists() else None,
    )


def _parquet_blocks(path: Path, kept: Any) -> Iterator[Block]:
    import pyarrow as pa

    with opened(path) as file:
        for batch in file.iter_batches(BLOCK_ROWS, columns=[*kept.names, "embedding"]):
            vectors = to_numpy(batch.column("embedding"))
            rows = pa.Table.from_batches([batch.drop_columns(["embedding"])])
            yield Block(rows.select(kept.names).cast(kept), vectors)


def _kept(path: Path, schema: Any) -> Any:
    """The columns that go along: id as a string, text, and every field of plain values."""
    import pyarrow as pa

    if "id" not in schema.names:
        raise InputError(f'{path} has no column "id"; name what `echovec embed` wrote')
    fields = {field.name: plain_type(field.type) for field in schema if field.name not in _OURS}
    return pa.schema([("id", pa.string()), *((n, kind) for n, kind in fields.items() if kind)])


def plain_type(kind: Any) -> Any:
    """The type that values of a column are kept in; None for lists, bytes and the like."""
    import pyarrow as pa

    t = pa.types
    if t.is_dictionary(kind):
        return plain_type(kind.value_type)
    if t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind):
        return pa.string()
    plain = t.is_integer(kind) or t.is_floating(kind) or t.is_boolean(kind) or t.is_temporal(kind)
    return kind if plain else None


def _made_of_metadata(path: Path, metadata: dict[bytes, bytes]) -> Made:
    try:
        recipe = metadata[b"echovec.recipe"].decode()
        run = json.loads(metadata.get(b"echovec.run", b"{}"))
        return Made(recipe, metadata[b"echovec.fingerprint"].decode(), **run)
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} does not say how its vectors were made ({type(error).__name__}: {error}); "
            "make it with `echovec embed`"
        ) from error


# -- .npy and .jsonl, with their recipe beside them -------------------------------------------


def _open_npy(path: Path) -> VectorFile:
    made = _made_beside(path)
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise StorageError(f"{path} is no .npy file of numbers: {error}; embed again") from error
    if vectors.ndim != 2:
        raise InputError(f"{path} has the shape {vectors.shape}; vectors are [rows, dimensions]")
    beside = Path(f"{path}{IDS_FILE}")
    schema, num_ids = _schema_of(beside)
    if num_ids != len(vectors):
        raise StorageError(
            f"{path} has {len(vectors):,} rows and {beside} {num_ids:,}; embed again"
        )

    def blocks() -> Iterator[Block]:
        start = 0
        for piece in _pieces(_json_rows(beside)):
            part = np.asarray(vectors[start : start + len(piece)], dtype=np.float32)
            start += len(piece)
            yield Block(_table(beside, piece, schema), part)

    return VectorFile(path, made, vectors.shape[0], vectors.shape[1], schema, blocks)


def _open_jsonl(path: Path) -> VectorFile:
    made = _made_beside(path)
    first = next(_json_rows(path), None)
    if first is None or not isinstance(first.get("embedding"), list):
        raise InputError(f'{path}: its first line has no "embedding"; name what `embed` wrote')
    dimension = len(first["embedding"])
    schema, num_rows = _schema_of(path)

    def blocks() -> Iterator[Block]:
        for piece in _pieces(_json_rows(path)):
            try:
                vectors = np.array([row["embedding"] for row in piece], dtype=np.float32)
                vectors = vectors.reshape(len(piece), dimension)
            except (KeyError, ValueError, TypeError) as error:
                raise StorageError(
                    f"{path}: a vector is not {dimension} numbers; embed again"
                ) from error
            yield Block(_table(path, piece, schema), vectors)

    return VectorFile(path, made, num_rows, dimension, schema, blocks)


def _made_beside(path: Path) -> Made:
    beside = Path(f"{path}{RECIPE_FILE}")
    try:
        text = beside.read_text("utf-8")
        fields = json.loads(text)
        return Made(text, fields["fingerprint"], **fields["run"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{beside} does not say how {path.name} was made ({type(error).__name__}: {error}); "
            "keep both files together, or embed again"
        ) from error


def _json_rows(path: Path, *, vectors: bool = True) -> Iterator[dict[str, Any]]:
    """The rows of a file, or all of them but the vectors' numbers, which take the most time."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    row = dict(json.loads(line if vectors else _NUMBERS.sub(rb"\1]", line)))
                except (ValueError, TypeError) as error:
                    raise StorageError(f"{path}:{number} is damaged; embed again") from error
                yield row
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; it belongs beside the vectors") from error


# In a text the quotes of this key would have backslashes before them.
_NUMBERS = re.compile(rb'(?<!\\)("embedding": ?\[)[-+0-9.eE, ]*\]')


def _pieces(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    piece: list[dict[str, Any]] = []
    for row in rows:
        piece.append(row)
        if len(piece) == BLOCK_ROWS:
            yield piece
            piece = []
    if piece:
        yield piece


def _schema_of(path: Path) -> tuple[Any, int]:
    """The schema that all rows of a file fit, and how many there are.

    A field is as wide as its values ask for, null and missing ones aside: whole numbers beside
    others are float64. A field with a list or an object in any row stays behind.

    Raises:
        InputError: a row has no id, or two have values of a field that no column holds together.
    """
    import pyarrow as pa

    kinds: dict[str, set[type]] = {}
    number = 0
    for number, row in enumerate(_json_rows(path, vectors=False), 1):
        if not isinstance(row.get("id"), str):
            raise InputError(f'{path}:{number} has no "id"; name what `echovec embed` wrote')
        for name, value in row.items():
            kinds.setdefault(name, set()).add(type(value))
    columns = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    fields = [("id", pa.string())]
    for name, found in kinds.items():
        found -= {type(None)}
        if found == {int, float}:
            found = {float}
        if name == "id" or not found or not found <= set(columns):
            continue
        if len(found) > 1:
            raise InputError(
                f'{path}: "{name}" is {" and ".join(sorted(kind.__name__ for kind in found))} in '
                "different rows; make it one kind of value"
            )
        fields.append((name, columns[found.pop()]))
    return pa.schema(fields), number


def _table(path: Path, rows: list[dict[str, Any]], schema: Any) -> Any:
    import pyarrow as pa

    columns = [[row.get(name) for row in rows] for name in schema.names]
    try:
        arrays = [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
    except (pa.ArrowException, TypeError, OverflowError) as error:
        raise InputError(f"{path}: a value fits no column of its kind ({error})") from error
    return pa.Table.from_arrays(arrays, schema=schema)
