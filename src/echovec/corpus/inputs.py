"""One input, and all that can be known of it without reading it through.

    name, kind --find_source--> Source      or an InputError: missing, a folder, empty, UTF-16, ...

A pipe is not opened before its turn, as what is taken out of it is gone.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from echovec.errors import InputError

ENDINGS = {".txt": "txt", ".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet"}
STDIN = "-"

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


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


def find_source(name: str | Path, kind: str | None) -> Source:
    """The input of this name; its kind is `kind`, or what its ending says.

    Raises:
        InputError: it is not there, is no file, is empty, cannot be read, or is of no known kind.
    """
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
        raise unreadable(str(path), error) from error
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


def unreadable(name: str, error: OSError) -> InputError:
    """The error for an input whose file or disk fails, at the start or in the middle."""
    reason = error.strerror or str(error)
    return InputError(f"{name} cannot be read: {reason}; check the file, its rights and its disk")


def known_names(wanted: str, names: Sequence[str]) -> str:
    """What there is instead of the field `wanted`, for a message: the first twelve of `names`."""
    near = near_name(wanted, names)
    listed = ", ".join(f'"{name}"' for name in names[:12]) or "none"
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"there are: {listed}{more}" + (f'; did you mean "{near}"?' if near else "")


def near_name(wanted: str, names: Sequence[str]) -> str | None:
    """The name most like `wanted`, whatever its case, or None if none is near."""
    folded = {name.casefold(): name for name in names}
    near = get_close_matches(wanted.casefold(), folded, n=1)
    return folded[near[0]] if near else None
