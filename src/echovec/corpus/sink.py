"""Vectors into a file, by its ending: .parquet, .npy or .jsonl; whole, or not at all.

Everything goes into temporary files in OUT's folder (.echovec-*.tmp), which are flushed to the
disk and then renamed, OUT last, and their folder is flushed: where OUT is, it is complete and the
files beside it are its own. What stands in them is in formats.py.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from echovec.corpus.formats import FORMATS, Chunk, Contents, Format
from echovec.corpus.inputs import files_named
from echovec.errors import InputError, StorageError
from echovec.files.disk import (
    check_is_file,
    check_parent,
    storage_error,
    storage_errors,
    sync_folder,
    temporary_beside,
)

__all__ = [
    "FORMATS",
    "Chunk",
    "Contents",
    "Format",
    "Sink",
    "check_is_no_input",
    "check_out",
]


class Sink:
    """Write chunks to `out`; a context manager that renames when left well, and else cleans up.

    Raises:
        InputError: see `check_out`; or no row was ever written.
        StorageError: the disk is full, read-only or broken; nothing is left behind.
    """

    def __init__(self, out: str | Path, contents: Contents, *, overwrite: bool = False) -> None:
        check_out(out, overwrite=overwrite)
        self.out = Path(out)
        self._contents = contents
        self._kind = FORMATS[self.out.suffix.lower()]
        self._format: Format | None = None
        self._files: dict[str, IO[bytes]] = {}
        self._temporary: dict[str, Path] = {}

    def __enter__(self) -> Sink:
        try:
            with storage_errors(self.out):
                # OUT is the last in this order, and so the last to be renamed.
                for suffix in (*self._kind.beside, ""):
                    self._files[suffix] = self._open(suffix)
        except BaseException:
            self._discard()
            raise
        return self

    def write(self, chunk: Chunk) -> None:
        """Append `chunk`; the first one decides the dimension."""
        with storage_errors(self.out):
            if self._format is None:
                self._format = self._kind(self._files, self._contents, chunk.vectors_ND.shape[1])
            self._format.write(chunk)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._discard()

    def _open(self, suffix: str) -> IO[bytes]:
        # Not tempfile: its files are for the owner's eyes only, and stay so after the rename.
        path = temporary_beside(self._target(suffix))
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, flags, 0o666)
        self._temporary[suffix] = path
        return os.fdopen(descriptor, "wb")

    def _target(self, suffix: str) -> Path:
        # The file that a link points to is written, and the link stays.
        return Path(os.path.realpath(f"{self.out}{suffix}"))

    def _finish(self) -> None:
        if self._format is None:
            raise InputError(f"{self.out} is not written: there are no rows to write to it")
        with storage_errors(self.out):
            self._format.close()
            for file in self._files.values():
                file.flush()
                os.fsync(file.fileno())
                file.close()
            self._rename()

    def _rename(self) -> None:
        with ExitStack() as undo:
            if self._kind.beside:
                # Old files step aside first, OUT before those beside it: at no moment does an
                # OUT stand beside files of another run.
                for suffix in ("", *self._kind.beside):
                    if self._target(suffix).exists():
                        aside = self._temporary[suffix].with_suffix(".old.tmp")
                        self._target(suffix).replace(aside)
                        undo.callback(_put_back, aside, self._target(suffix))
            for suffix in (*self._kind.beside, ""):
                self._temporary[suffix].replace(self._target(suffix))
                if self._kind.beside:
                    undo.callback(_remove, self._target(suffix))
            undo.pop_all()
        for path in self._temporary.values():
            _remove(path.with_suffix(".old.tmp"))
        sync_folder(self._target("").parent)

    def _discard(self) -> None:
        """Close and remove what is temporary; after `_finish` there is nothing left to remove."""
        if self._format is not None:
            with suppress(OSError, ValueError):  # a disk that is full, a file that is closed
                self._format.close()
            self._format = None  # pyarrow's writer closes once more as it goes: now, not later
        for file in self._files.values():
            with suppress(OSError):
                file.close()
        for path in self._temporary.values():
            _remove(path)


def _put_back(aside: Path, target: Path) -> None:
    with suppress(OSError):
        aside.replace(target)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def check_out(
    out: str | Path, *, overwrite: bool = False, inputs: Sequence[str | Path] = ()
) -> None:
    """Find what can be wrong with OUT before the work starts; writes nothing.

    Raises:
        InputError: an unknown ending, a folder that is not there, an existing file without
            `overwrite`, or a file that is also among `inputs`, their folders and globs.
        StorageError: the folder cannot be written to.
    """
    out = Path(out)
    kind = FORMATS.get(out.suffix.lower())
    if kind is None:
        raise InputError(
            f'{out}: the ending "{out.suffix}" is not known; '
            f"name the output with one of {', '.join(FORMATS)}"
        )
    try:
        check_parent(out)
        for suffix in ("", *kind.beside):
            _check_target(Path(f"{out}{suffix}"), overwrite, inputs)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise storage_error(out, error) from error


def _check_target(path: Path, overwrite: bool, inputs: Sequence[str | Path]) -> None:
    check_is_file(path)
    if not path.exists():
        return
    check_is_no_input(path, inputs)
    if not overwrite:
        raise InputError(f"{path} exists; replace it with --overwrite, or choose another name")


def check_is_no_input(path: Path, inputs: Sequence[str | Path]) -> None:
    """Refuse an output that is among `inputs`, their folders and globs.

    Raises:
        InputError: it is; says of which input.
    """
    if not path.exists():
        return
    for name in inputs:
        if any(path.samefile(file) for file in files_named(name)):
            within = "" if Path(name) == path else f" ({name})"
            raise InputError(f"{path} is also an input{within}; choose another name for the output")
