"""The fields of rows that go along beside id and text: `--keep year,lang`, or `--keep all`.

    inputs --look--> kinds of their fields --Keeping--> Arrow schema of the output
    record --pick--> its values in the order of that schema, or the reason why one does not fit

All inputs give one schema: what is alike widens, what is not is refused. More rows at the end of an
input move no type, as its first rows have decided. Times travel as the whole numbers that Arrow
stores, so that nothing of them is lost.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

from echovec.corpus.inputs import TABLES, Source, known_names
from echovec.corpus.look import HEAD_ROWS, Look, fit_of, look, read, unified
from echovec.corpus.readers import Fields, Record
from echovec.errors import InputError

Keep = Sequence[str] | Literal["all"]
Value = str | int | float | bool | None
Pick = Callable[[Fields], tuple[Value, ...] | str]

TAKEN = ("id", "text", "embedding", "truncated", "text_hash")
"""Columns that an output has of its own."""

_LOOKED_AT = f"the first {HEAD_ROWS:,} rows of an input"
_CAN_KEEP = "--keep takes texts, numbers, truth values and times"


class Keeping:
    """What is kept of all inputs.

    Raises:
        InputError: an input that was looked at has no fields, lacks one that was named, or has one
            that cannot be kept; two have one of unlike kinds; the output has a column of the name.
    """

    def __init__(
        self, sources: Sequence[Source], keep: Keep, text_field: str, id_field: str | None
    ) -> None:
        self._sources, self._text_field = sources, text_field
        self._names = None if keep == "all" else _checked(keep)
        if lines := [source for source in sources if source.kind == "txt"]:
            raise InputError(
                f"--keep: {lines[0].name} is read as txt, where each line is a text and there are "
                "no other fields; leave the option out, or say what the input is with --format"
            )
        self._own = {text_field, "id" if id_field is None else id_field}
        self._left: set[str] = set()
        self._warned = False
        # But for the first, pipes and text files at URLs are looked at when their turn comes.
        self._looks = {
            n: look(source, text_field, id_field)
            for n, source in enumerate(sources)
            if n == 0 or source.kind in TABLES or (source.path and source.path.is_file())
        }
        self.columns = self._find()
        """Arrow schema of what is kept."""

    def begin(self, index: int, id_field: str | None) -> tuple[Iterator[Record], Pick]:
        """The records of an input, and what takes the values of `columns` out of each.

        Raises:
            InputError: it was not looked at before, and lacks a field that was named or has one of
                another kind.
        """
        source = self._sources[index]
        seen = self._looks.pop(index, None)
        if seen is None:
            seen = look(source, self._text_field, id_field)
            if self._names is None:
                self._tell_of_more(source, seen.kinds.keys() - set(self.columns.names))
        source = self._fitted(source, seen)
        records = seen.begun or read(source, self._text_field, id_field)
        if source.kind in TABLES:
            return records, _pick_of_table(self.columns)
        return records, self._pick(source, seen)

    def _find(self) -> Any:
        import pyarrow as pa

        left: dict[str, str] = {}
        names = self._names
        if names is None:
            every = dict.fromkeys(name for seen in self._looks.values() for name in seen.kinds)
            left = {name: "the output has its own" for name in every if name in TAKEN}
            names = [name for name in every if name not in (*TAKEN, *self._own)]
        found: dict[str, tuple[Any, Source]] = {}
        for n, seen in self._looks.items():
            for name in names:
                kind = self._kind(self._sources[n], seen, name)
                if isinstance(kind, str):
                    left[name] = kind
                elif kind is not None:
                    found[name] = _together(name, found.get(name), kind, self._sources[n])
        nothing = [name for name, (kind, _) in found.items() if pa.types.is_null(kind)]
        if nothing and self._names is not None:
            raise InputError(
                f'{found[nothing[0]][1].name}: the field "{nothing[0]}" is null wherever it was '
                f"looked at ({_LOOKED_AT}), so its kind is not known; leave it out of --keep"
            )
        left |= dict.fromkeys(nothing, "null wherever it was looked at")
        if left := {name: what for name, what in left.items() if name not in self._own}:
            self._left |= left.keys()
            listed = ", ".join(f'"{name}" ({what})' for name, what in list(left.items())[:12])
            warnings.warn(f"--keep all leaves out {listed}; {_CAN_KEEP}", stacklevel=4)
        # A name that was not found: no row that could be used was seen, and each says why.
        kinds = {name: found[name][0] if name in found else pa.null() for name in names}
        return pa.schema([(name, kind) for name, kind in kinds.items() if name not in left])

    def _kind(self, source: Source, seen: Look, name: str) -> Any:
        """What an input's field holds; None if it has none, or no row that could be used."""
        kind = seen.kinds.get(name)
        if self._names is None or not seen.kinds:
            return kind
        if kind is None:
            lacks = f'has no column "{name}"'
            if source.kind == "jsonl":
                lacks = f'has no row with the field "{name}" in {_LOOKED_AT}'
            known = known_names(name, list(seen.kinds))
            raise InputError(f"{source.name} {lacks}; {known} (--keep names it)")
        if isinstance(kind, str):
            raise InputError(f'{source.name}: the field "{name}" holds {kind}; {_CAN_KEEP}')
        return kind

    def _fitted(self, source: Source, seen: Look) -> Source:
        """The input with those of the columns that it has."""
        import pyarrow as pa

        fields = []
        for field in self.columns:
            kind = self._kind(source, seen, field.name)
            if kind is None:
                continue
            both = None if isinstance(kind, str) else unified(field.type, kind)
            # Whole numbers of JSON are looked at one by one, whatever the column's width.
            whole = both is not None and pa.types.is_integer(both) and source.kind not in TABLES
            if both != field.type and not whole:
                raise InputError(
                    f'{source.name}: the field "{field.name}" holds {kind}, and {field.type} in '
                    "inputs before; make them alike, or leave it out of --keep"
                )
            fields.append(field)
        return replace(source, keep=pa.schema(fields))

    def _pick(self, source: Source, seen: Look) -> Pick:
        names, fits = self.columns.names, [fit_of(field.type) for field in self.columns]
        every = self._names is None

        def pick(fields: Fields) -> tuple[Value, ...] | str:
            if every and not self._warned and (more := fields.keys() - seen.kinds.keys()):
                self._tell_of_more(source, more)
            values: list[Any] = [fields.get(name) for name in names]
            for name, value, fit in zip(names, values, fits, strict=True):
                if value is not None and not fit(value):
                    shown = json.dumps(value, default=str)
                    shown = shown if len(shown) <= 40 else shown[:37] + "..."
                    kind = self.columns.field(name).type
                    return f'the field "{name}" is {shown}, and is kept as {kind}'
            return tuple(values)

        return pick

    def _tell_of_more(self, source: Source, names: Collection[str]) -> None:
        """Warn of fields that come too late, the first time only: names may be data."""
        new = sorted(set(names) - self._left - self._own - set(TAKEN))
        if new and not self._warned:
            self._warned = True
            warnings.warn(
                f'{source.name}: the field "{new[0]}" comes after what --keep all looks at '
                f"({_LOOKED_AT}), and is left out, as are others like it; name the fields to keep",
                stacklevel=4,
            )


def _pick_of_table(columns: Any) -> Pick:
    names = list(columns.names)

    def pick(fields: Fields) -> Any:
        return tuple(fields.get(name) for name in names)

    return pick


def _checked(keep: Sequence[str]) -> list[str]:
    names = [keep] if isinstance(keep, str) else list(dict.fromkeys(keep))
    if taken := [name for name in names if name in TAKEN]:
        raise InputError(
            f'--keep "{taken[0]}": the output has a column of this name itself '
            f"({', '.join(TAKEN)}); leave it out, or rename it in the input"
        )
    if not all(names):
        raise InputError("--keep has an empty name; name fields, with commas between, or all")
    return names


def _together(name: str, before: tuple[Any, Source] | None, kind: Any, source: Source) -> Any:
    if before is None:
        return kind, source
    if (both := unified(before[0], kind)) is None:
        raise InputError(
            f'{source.name}: the field "{name}" holds {kind}, and {before[0]} in {before[1].name}; '
            "make them alike, or leave it out of --keep"
        )
    return both, before[1]
