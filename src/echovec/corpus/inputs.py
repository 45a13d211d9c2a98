"""The inputs, and all that can be known of each without reading it through.

    names, kind --find_sources--> [Source]  or an InputError: missing, empty, UTF-16, unknown, ...

A folder stands for its files of known kinds, sorted, at any depth (links to folders are left out
with a warning); a glob for the files it fits; a data set that Hugging Face `datasets` saved to disk
for its Arrow files. Text files may be compressed (.gz, .bz2, .xz, .zst after the ending). All but
saved data sets may be at a URL.

A pipe is not opened before its turn, as what is taken out of it is gone.
"""

from __future__ import annotations

import glob
import json
import os
import stat
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from echovec.errors import InputError
from echovec.files.remote import filesystem, is_url, remote_errors

ENDINGS = {".txt": "txt", ".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet"}
SAVED = "state.json"  # what marks a folder that Hugging Face datasets has saved
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
STDIN = "-"

TABLES = ("parquet", "arrow")
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Source:
    """One input whose kind is known, at a path or a URL; with neither it is standard input."""

    path: Path | None
    kind: str
    url: str | None = None
    keep: Any = None
    """Arrow schema of what is kept of it beside text and ids (keep.py); None: nothing."""

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.url or ("stdin" if self.path is None else str(self.path))

    @property
    def is_stdin(self) -> bool:
        """Whether it can be read only once."""
        return self.path is None and self.url is None

    def where(self, number: int) -> str:
        """The place of a line or, in Parquet, of a row; both are counted from 1."""
        return f"{self.name} row {number}" if self.kind in TABLES else f"{self.name}:{number}"


def find_sources(names: Sequence[str | Path], kind: str | None) -> list[Source]:
    """All inputs in order, folders and globs opened out.

    Raises:
        InputError: as `find_source`; or a folder or glob holds no input; or a name is empty.
    """
    sources: list[Source] = []
    for name in names:
        if not name:  # a shell's unset variable; as a path it would be this folder
            raise InputError("the name of an input is empty; give a file, a folder, or - for stdin")
        if is_url(name):
            sources += _at_url(str(name), kind)
            continue
        path = Path(name)
        if str(name) != STDIN and path.is_dir():
            sources += _in_folder(path, kind)
        elif str(name) != STDIN and glob.has_magic(str(name)) and not path.exists():
            files = _fitting(str(name))
            if not files:
                raise InputError(f"{name} fits no file; check the path and the pattern")
            sources += [find_source(one, kind) for one in files]
        else:
            sources.append(find_source(name, kind))
    return sources


def files_named(name: str | Path) -> list[Path]:
    """The files here that an input's name stands for, of whatever kind: to compare, not to read."""
    path = Path(name)
    if path.is_dir():
        return [file for file in _below(path, lambda _: None)[0] if file.is_file()]
    return [path] if path.exists() else [Path(one) for one in _fitting(str(name))]


def _fitting(pattern: str) -> list[str]:
    if not glob.has_magic(pattern):
        return []
    fitting = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - may be absolute
    return [one for one in fitting if Path(one).is_file()]


def _at_url(url: str, kind: str | None) -> list[Source]:
    """The file, the files that a pattern fits, or those of known kinds below a folder, sorted."""
    fs, path = filesystem(url)
    with remote_errors(InputError, f"{url} cannot be read", "check the URL and your rights"):
        if fs.isfile(path):
            names = [path]
        elif glob.has_magic(path):
            names = [name for name in fs.glob(path) if fs.isfile(name)]
        else:
            names = [n for n in fs.find(path) if kind or ENDINGS.get(_ending(Path(n)))]
            names = [n for n in names if not _hidden(Path(n.removeprefix(path).lstrip("/")))]
        if not names:
            raise InputError(f"{url} holds no input ({', '.join(ENDINGS)} are known)")
        if empty := [name for name in names if fs.size(name) == 0]:
            raise InputError(f"{empty[0]} is empty; leave it out, or check how it was made")
    kinds = [kind or ENDINGS.get(_ending(Path(name))) for name in names]
    if None in kinds:
        raise InputError(
            f"{names[kinds.index(None)]}: the ending is not known ({', '.join(ENDINGS)} are); "
            "say what the file is with --format"
        )
    both = sorted(zip(names, map(str, kinds), strict=True))
    return [Source(None, one, fs.unstrip_protocol(name)) for name, one in both]


def _in_folder(folder: Path, kind: str | None) -> list[Source]:
    try:
        if (folder / SAVED).is_file():
            return _saved_dataset(folder)
        shown, links = _below(folder, _refuse)
        # A link to nothing is among them, and an error when it is looked at; a pipe is not.
        known = [path for path in shown if _is_known(path, kind)]
    except OSError as error:
        raise unreadable(str(error.filename or folder), error) from error
    if links:
        warnings.warn(
            f"{folder}: {len(links):,} links to folders are left out, {links[0]} the first; name "
            "what they point to as inputs, too",
            stacklevel=2,
        )
    if not known:
        listed = ", ".join(ENDINGS)
        raise InputError(f"the folder {folder} holds no input ({listed} are known); check the path")
    taken = set(known)
    if left := [path for path in shown if path not in taken]:
        warnings.warn(
            f"{folder}: {len(left):,} files of no known kind are left out, {left[0]} the first",
            stacklevel=2,
        )
    return [find_source(path, kind) for path in known]


def _below(folder: Path, onerror: Callable[[OSError], None]) -> tuple[list[Path], list[Path]]:
    """What is no folder, and the links to folders, at any depth; sorted, without hidden ones.

    `onerror` is told of each folder that cannot be read.
    """
    files: list[Path] = []
    links: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=onerror):
        folders[:] = [name for name in folders if not _hidden(Path(name))]
        links += [path for name in folders if (path := Path(place, name)).is_symlink()]
        files += [Path(place, name) for name in names if not _hidden(Path(name))]
    return sorted(files), sorted(links)


def _refuse(error: OSError) -> None:
    raise error


def _is_known(path: Path, kind: str | None) -> bool:
    return bool(kind or ENDINGS.get(_ending(path))) and (path.is_file() or not path.exists())


def _saved_dataset(folder: Path) -> list[Source]:
    try:
        state = json.loads((folder / SAVED).read_bytes())
        names = [entry["filename"] for entry in state["_data_files"]]
        reordered = state.get("_indices_data_files")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / SAVED} is not of a saved data set: {error}") from None
    if reordered:
        raise InputError(f"{folder} is a selection; save it with dataset.flatten_indices() first")
    return [find_source(folder / name, "arrow") for name in names]


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _ending(path: Path) -> str:
    """The ending that tells the kind: of x.jsonl.gz it is .jsonl."""
    inner = Path(path.stem) if path.suffix.lower() in COMPRESSIONS else path
    return inner.suffix.lower()


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
        kind = kind or ENDINGS.get(_ending(path))
        if kind is None:
            raise InputError(
                f'{path}: the ending "{path.suffix}" is not known ({", ".join(ENDINGS)} are); '
                "say what the file is with --format"
            )
        if stat.S_ISREG(mode):
            _check_start(path, kind)
        elif kind in TABLES:
            raise InputError(f"{path} is a pipe, and Parquet needs a file; save it to one first")
    except FileNotFoundError:
        if path.is_symlink():
            raise InputError(
                f"{path} is a link to {path.readlink()}, which does not exist; remove or correct it"
            ) from None
        raise InputError(f"{path} does not exist; {_beside(path)}") from None
    except OSError as error:
        raise unreadable(str(path), error) from error
    return Source(path, kind)


def _check_start(path: Path, kind: str) -> None:
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise InputError(f"{path} is empty; leave it out, or check how it was made")
    if kind not in TABLES and start.startswith(_UTF16_MARKS):
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
