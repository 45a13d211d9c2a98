"""Rows of text out of files: .txt, .jsonl, .csv, .parquet and standard input, one row at a time.

Two kinds of trouble, told apart by whether the rest can still be read:

    the file     InputError at once         missing, a folder, unreadable, no rows, no such column
    one row      a Problem in its place     broken, without a text or an id, or an id used before

    name --inputs.find_sources--> Source --readers.READERS--> Record --here--> Row or Problem

What differs by kind is in readers.py, what makes a row of fields is here, for all four alike; which
other fields go along with a row, and as what, is in keep.py.
Nothing is read twice and only the row at hand is kept. Ids that come from a field are remembered
as 16-byte hashes to find duplicates: about 120 bytes of memory a row.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from echovec.corpus.inputs import ENDINGS, STDIN, Source, find_sources, known_names, near_name
from echovec.corpus.keep import Keep, Keeping, Pick, Value
from echovec.corpus.look import read
from echovec.corpus.readers import Fields, Record
from echovec.errors import InputError
from echovec.text.check import text_problem

__all__ = [
    "ENDINGS",
    "STDIN",
    "Fields",
    "Problem",
    "Reading",
    "Record",
    "Row",
    "Source",
    "near_name",
    "read_rows",
]


@dataclass(frozen=True)
class Row:
    """One text to embed."""

    id: str
    text: str
    where: str
    """Where it stands, for messages: "notes.txt:12" (a line) or "notes.parquet row 12"."""

    kept: tuple[Value, ...] = ()
    """Values of the fields that go along, in the order of `Reading.columns`."""

    @property
    def characters(self) -> int:
        """How much it holds: the text, and texts that are kept."""
        return len(self.text) + sum(len(value) for value in self.kept if isinstance(value, str))


@dataclass(frozen=True)
class Problem:
    """A row that cannot be used."""

    where: str
    reason: str
    """What follows the place and a colon: 'notes.txt:12: the text is empty'."""


class Reading(Iterator[Row | Problem]):
    """Rows and problems in the order of the inputs, and what is kept with each row."""

    def __init__(self, rows: Generator[Row | Problem], columns: Any = None) -> None:
        self._rows = rows
        self.columns = columns
        """Arrow schema of the fields that are kept; None: nothing is."""

    def __iter__(self) -> Iterator[Row | Problem]:
        return self._rows

    def __next__(self) -> Row | Problem:
        return next(self._rows)

    def close(self) -> None:
        """Close the input at hand."""
        self._rows.close()


def read_rows(
    inputs: Sequence[str | Path],
    *,
    kind: str | None = None,
    text_field: str = "text",
    id_field: str | None = None,
    unique_ids: bool = True,
    keep: Keep = (),
) -> Reading:
    """The rows of all `inputs` in order, and a Problem in the place of each that cannot be used.

    `kind` ("txt", "jsonl", "csv", "parquet") overrides the endings; "-" is standard input, a text a
    line unless `kind` says otherwise. `id_field=None` takes the field "id" if the first readable
    row has one, for all inputs; else, and for "", ids are the running numbers of the rows from 0,
    unusable rows counted too. `unique_ids=False` leaves it to the caller to find ids that are used
    twice, and saves the memory. `keep` names fields that go along with each row, or is "all" (see
    keep.py). What is wrong with a file as a whole is an InputError: what can be seen without
    reading it through at this call, the rest when its turn comes.
    """
    sources = find_sources(inputs, kind)
    if not sources:
        raise InputError('no input; give files, or "-" for standard input')
    if sum(source.is_stdin for source in sources) > 1:
        raise InputError('"-" (standard input) is given twice, and can be read only once')
    if text_field != "text" and all(source.kind == "txt" for source in sources):
        raise InputError(
            f'--text-field "{text_field}": a txt input has no fields, each line is a text; '
            "leave the option out, or say what the input is with --format"
        )
    _check_id_field(sources, id_field)
    keeping = Keeping(sources, keep, text_field, id_field) if keep else None
    rows = _rows(sources, text_field, id_field, unique_ids, keeping)
    return Reading(rows, keeping.columns if keeping else None)


def _rows(
    sources: Sequence[Source],
    text_field: str,
    id_field: str | None,
    unique_ids: bool,
    keeping: Keeping | None,
) -> Generator[Row | Problem]:
    seen: dict[bytes, int] = {}
    running = -1
    for index, source in enumerate(sources):
        before = running
        pick: Pick | None = None
        if keeping is None:
            records = read(source, text_field, id_field)
        else:
            records, pick = keeping.begin(index, id_field)
        for number, record in records:
            running += 1
            where = source.where(number)
            if isinstance(record, str):
                yield Problem(where, record)
                continue
            if id_field is None:
                id_field = "id" if "id" in record and source.kind != "txt" else ""
                _check_id_field(sources, id_field)
            row = _row(record, running, where, text_field, id_field, pick)
            if unique_ids and id_field and isinstance(row, Row):
                digest = blake2b(row.id.encode(), digest_size=16).digest()
                # Both halves of the earlier place in one small integer: this table is all we keep.
                place = seen.setdefault(digest, number * len(sources) + index)
                if place != number * len(sources) + index:
                    earlier = sources[place % len(sources)].where(place // len(sources))
                    row = Problem(where, f'the id "{row.id}" is used before, at {earlier}')
            yield row
        if running == before:
            raise InputError(f"{source.name} holds no rows; leave it out, or check how it was made")


def _row(
    fields: Fields, running: int, where: str, text_field: str, id_field: str, pick: Pick | None
) -> Row | Problem:
    for field in (text_field, id_field) if id_field else (text_field,):
        if field not in fields:
            return Problem(where, f'has no field "{field}"; {known_names(field, list(fields))}')
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
    kept = pick(fields) if pick else ()
    if isinstance(kept, str):
        return Problem(where, kept)
    return Row(str(key), str(text), where, kept)


def _called(field: str) -> str:
    return field if field in ("text", "id") else f'field "{field}"'


def _check_id_field(sources: Sequence[Source], id_field: str | None) -> None:
    for source in sources:
        if id_field and source.kind == "txt":
            raise InputError(
                f'{source.name} is read as txt and has no field "{id_field}" for ids; '
                "--id-field '' numbers the rows of all inputs instead"
            )
