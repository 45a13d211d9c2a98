"""What fields an input has, and of what kinds: looked up in a table's schema, or in first rows.

Kinds are Arrow types of texts, numbers, truth values and times, as an index takes them along. A
table says what its columns hold, cells of CSV are texts, and of JSON the first 10,000 rows decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from echovec.corpus.inputs import TABLES, Source
from echovec.corpus.readers import READERS, Record, read_schema
from echovec.files.vectors import plain_type

HEAD_ROWS = 10_000
HEAD_CHARACTERS = 16_000_000

_EXACT = 2**53  # up to here a float64 holds every whole number
_CALLED: dict[type, str] = {
    str: "a text",
    bool: "a truth value",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


@dataclass(frozen=True)
class Look:
    """What fields an input has."""

    kinds: dict[str, Any]
    """Name -> Arrow type of its values, or a str that says what cannot be kept of it."""

    begun: Iterator[Record] | None = None
    """All records of an input that can be read only once."""


def look(source: Source, text_field: str, id_field: str | None) -> Look:
    """Look at an input: the schema of a table, or its first rows.

    Raises:
        InputError: it cannot be read.
    """
    if source.kind in TABLES:
        return Look({field.name: _table_kind(field.type) for field in read_schema(source)})
    records = read(source, text_field, id_field)
    if source.is_stdin or (source.path and not source.path.is_file()):
        head = list(_head(records))
        return Look(_record_kinds(source, head), chain(head, records))
    return Look(_record_kinds(source, _head(records)))


def read(source: Source, text_field: str, id_field: str | None) -> Iterator[Record]:
    """The records of an input."""
    return READERS[source.kind](source, text_field, id_field)


def _head(records: Iterable[Record]) -> Iterator[Record]:
    characters = 0
    for count, one in enumerate(records, 1):
        yield one
        if not isinstance(one[1], str):
            values = one[1].values()
            characters += sum(len(v) for v in values if isinstance(v, str | list | dict))
        if count >= HEAD_ROWS or characters >= HEAD_CHARACTERS:
            return


def _table_kind(kind: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_null(kind):
        return kind
    plain = None if pa.types.is_interval(kind) else plain_type(kind)
    return str(kind) if plain is None else plain


def _record_kinds(source: Source, records: Iterable[Record]) -> dict[str, Any]:
    """Of each field; whole numbers beside others are float64, as in files of vectors."""
    import pyarrow as pa

    places: dict[str, dict[type, int]] = {}
    for number, record in records:
        if not isinstance(record, str):
            for name, value in record.items():
                places.setdefault(name, {}).setdefault(type(value), number)
    known = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    kinds: dict[str, Any] = {}
    for name, found in places.items():
        found.pop(type(None), None)
        if set(found) == {int, float}:
            del found[int]
        if len(found) == 1 and (kind := known.get(next(iter(found)))):
            kinds[name] = kind
        elif found:
            kinds[name] = " and ".join(
                f"{_CALLED.get(one, one.__name__)} at {source.where(number)}"
                for one, number in list(found.items())[:2]
            )
        else:
            kinds[name] = pa.null()
    return kinds


def unified(one: Any, other: Any) -> Any:
    """The type that holds the values of both; None if none does."""
    import pyarrow as pa

    schemas = [pa.schema([("", one)]), pa.schema([("", other)])]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None


def fit_of(kind: Any) -> Callable[[Any], bool]:
    """Whether a column of this type holds a value that is not null."""
    import pyarrow as pa

    if pa.types.is_string(kind):
        return _is_text
    if pa.types.is_boolean(kind):
        return lambda value: isinstance(value, bool)
    if pa.types.is_integer(kind):
        signed = pa.types.is_signed_integer(kind)
        low, high = (-1, 1) if signed else (0, 2)
        half = 1 << (kind.bit_width - 1)
        return lambda value: type(value) is int and low * half <= value < high * half
    if pa.types.is_floating(kind):
        return lambda value: (
            isinstance(value, float) or (type(value) is int and abs(value) <= _EXACT)
        )
    return lambda value: False


def _is_text(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON may hold
        return False
    return True
