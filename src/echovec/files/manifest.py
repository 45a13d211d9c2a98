"""The manifest of a corpus folder: one line of JSON for each shard that is safely on the disk.

A line is added only after its shard is written, flushed and renamed, so what the manifest lacks is
what remains to be done. Each line carries a checksum of itself: a line that was torn by a crash at
the very end is dropped, a damaged one elsewhere is an error that names it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from zlib import crc32

from echovec.errors import StorageError
from echovec.files.disk import append, storage_errors, write_file

MANIFEST = "manifest.jsonl"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One shard."""

    file: str | None
    """Its name in the folder; None if every row of the slice was rejected."""

    start: int
    stop: int
    """The slice of the input: rows `start` to `stop`, counted from 0, unusable ones counted."""

    slice: str
    """The slice's hash, see slices.py."""

    rows: int
    rejected: int
    truncated: int
    """Rows in the file, rows in rejected.jsonl, rows cut to the token budget."""

    reused: int
    """Rows whose vectors were there already, of an equal text in an earlier shard."""

    bytes: int
    sha256: str
    """Of the file; 0 and "" without one."""

    fingerprint: str
    """The recipe's."""

    versions: dict[str, str] = field(default_factory=dict)
    """Software that made it."""


def read(path: Path, *, lenient: bool = False) -> tuple[list[Entry], list[str]]:
    """The entries in the file's order, and what is wrong with lines that were left out.

    A torn last line is always left out, even if only its end is missing: the next line would be
    written behind it. `lenient` leaves out damaged ones anywhere.

    Raises:
        StorageError: a damaged line, or the file cannot be read.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}; check the disk") from error
    entries, problems = [], []
    *finished, torn = lines
    for number, line in enumerate(finished, 1):
        if entry := _parse(line):
            entries.append(entry)
        elif lenient:
            problems.append(f"{path}:{number} is damaged and left out")
        else:
            raise StorageError(f"{path}:{number} is damaged; --repair does its shard again")
    if torn:
        problems.append(f"{path}: the last line was never finished and is left out")
    return entries, problems


def add(path: Path, entry: Entry) -> None:
    """Append one line and flush it to the disk."""
    append(path, _line(entry))


def rewrite(path: Path, entries: Iterable[Entry]) -> None:
    """Replace the whole file, in one step."""
    write_file(path, as_bytes(entries))


def as_bytes(entries: Iterable[Entry]) -> bytes:
    """A manifest of these."""
    return b"".join(map(_line, entries))


def parse(data: bytes) -> list[Entry]:
    """The entries of a manifest, without its damaged lines."""
    return [entry for line in data.split(b"\n") if (entry := _parse(line))]


def remove(path: Path) -> None:
    """Delete it, if it is there."""
    with storage_errors(path):
        path.unlink(missing_ok=True)


def _line(entry: Entry) -> bytes:
    content = json.dumps(asdict(entry), sort_keys=True)
    return json.dumps({"check": crc32(content.encode()), "shard": asdict(entry)}).encode() + b"\n"


def _parse(line: bytes) -> Entry | None:
    try:
        fields = json.loads(line)
        content = json.dumps(fields["shard"], sort_keys=True)
        return Entry(**fields["shard"]) if fields["check"] == crc32(content.encode()) else None
    except (ValueError, TypeError, KeyError):
        return None
