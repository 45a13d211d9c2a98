"""Bytes onto a disk so that they stay: written, flushed, renamed, and the folder flushed too.

    write_file    temporary name -> write -> fsync -> rename -> fsync the folder
    new_file      the same, piece by piece
    append        write at the end -> fsync; what a failed write left is cut off again
    check_out     what can be wrong with the place of a file, before the work for it
    check_folder  the same for a folder

A power loss or a kill at any point leaves a file whole, or as it was before; an append may leave
a torn last line, which whoever reads such a file expects.
"""

from __future__ import annotations

import errno
import io
import os
import secrets
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from echovec.errors import InputError, StorageError

TEMPORARY = ".echovec-*.tmp"

# Where there is O_BINARY (Windows), bytes are written as other bytes without it.
_WRITE = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0)

_FREE_SPACE = "free some space, or choose a folder on another disk"
_NEXT_STEP = {
    errno.ENOSPC: _FREE_SPACE,
    errno.EDQUOT: _FREE_SPACE,
    errno.EFBIG: "raise the limit on file sizes (ulimit -f), or embed the input in parts",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EROFS: "choose a folder that can be written to",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EIO: "check the disk, or choose a folder on another one",
}


def temporary_beside(path: Path) -> Path:
    """A new name in `path`'s folder, for what is not finished."""
    return path.parent / f".echovec-{secrets.token_hex(8)}.tmp"


def write_file(path: Path, data: bytes | memoryview) -> None:
    """Put `data` where `path` is; it is whole there, or what was there before still is.

    Raises:
        StorageError: the disk is full, read-only or broken.
    """
    unfinished = temporary_beside(path)
    with storage_errors(path):
        try:
            descriptor = os.open(unfinished, _WRITE | os.O_EXCL, 0o666)
            try:
                _write_all(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(unfinished, path)  # noqa: PTH105 - one door for every rename
        except BaseException:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


class NewFile(io.RawIOBase):
    """A file under a temporary name, for pieces; `keep` gives it its own name, flushed.

    A context manager: what was not kept is gone when it ends.

    Raises:
        StorageError: the disk is full, read-only or broken.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path, self._unfinished = path, temporary_beside(path)
        self._sha256 = sha256()
        self.bytes = 0
        try:
            with storage_errors(path):
                self._descriptor = os.open(self._unfinished, _WRITE | os.O_EXCL, 0o666)
        except StorageError:
            super().close()  # nothing is open that it could close later
            raise

    def writable(self) -> bool:
        """It takes bytes, from its beginning to its end."""
        return True

    def write(self, data: Any) -> int:
        """All of `data`."""
        view = memoryview(data).cast("B")
        with storage_errors(self._path):
            _write_all(self._descriptor, view)
        self._sha256.update(view)
        self.bytes += len(view)
        return len(view)

    def tell(self) -> int:
        """Bytes so far."""
        return self.bytes

    @property
    def sha256(self) -> str:
        """Of what was written so far, in hex."""
        return self._sha256.hexdigest()

    def keep(self) -> None:
        """Flush it and give it its name; what was there before is replaced."""
        with storage_errors(self._path):
            os.fsync(self._descriptor)
            os.replace(self._unfinished, self._path)  # noqa: PTH105 - one door for every rename
            sync_folder(self._path.parent)

    def close(self) -> None:
        """Close it, and delete it unless it was kept."""
        if not self.closed:
            os.close(self._descriptor)
            with suppress(OSError):
                self._unfinished.unlink(missing_ok=True)
        super().close()


def append(path: Path, data: bytes | memoryview) -> None:
    """Add `data` at the end of `path`, made if need be, and flush it to the disk.

    Raises:
        StorageError: as `write_file`; the file is then as long as before, if the disk allows.
    """
    with storage_errors(path):
        new = not path.exists()
        descriptor = os.open(path, _WRITE | os.O_APPEND, 0o666)
        try:
            length = os.fstat(descriptor).st_size
            try:
                _write_all(descriptor, data)
                os.fsync(descriptor)
            except BaseException:
                with suppress(OSError):
                    os.ftruncate(descriptor, length)
                raise
        finally:
            os.close(descriptor)
        if new:
            sync_folder(path.parent)


def check_out(path: Path) -> None:
    """Find what can be wrong with the place of a file before the work for it; writes nothing.

    Raises:
        InputError: its folder is not there, or it is a folder itself.
        StorageError: its folder cannot be written to.
    """
    with storage_errors(path):
        check_parent(path)
        check_is_file(path)


def check_parent(path: Path) -> None:
    """Refuse a place whose folder is not there, or cannot be written to; see `check_out`."""
    folder = path.parent
    if not folder.exists():
        raise InputError(
            f"the folder {folder} does not exist; make it with: mkdir -p {shlex.quote(str(folder))}"
        )
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; choose another place for the output")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(f"the folder {folder} cannot be written to; choose another one")


def check_is_file(path: Path) -> None:
    """Refuse a place where something is that is no file; see `check_out`."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is there and not a file; choose another name for the output")


def check_folder(path: Path) -> None:
    """Find what can be wrong with the place of a folder before the work for it; writes nothing.

    It need not be there, nor what it will lie in.

    Raises:
        InputError: it, or what it would lie in, is a file.
        StorageError: it, or what it would lie in, cannot be written to.
    """
    with storage_errors(path):
        there = next(one for one in (path, *path.absolute().parents) if one.exists())
        if not there.is_dir():
            raise InputError(f"{there} is not a folder; choose another place for the output")
        if not os.access(there, os.W_OK | os.X_OK):
            raise StorageError(f"the folder {there} cannot be written to; choose another one")


def file_sha256(path: Path) -> str:
    """Of the file as it is on the disk now."""
    with path.open("rb") as file:
        return stream_sha256(file)


def stream_sha256(file: IO[bytes]) -> str:
    """Of what is left to read of it."""
    digest = sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Flush the names in `folder`: without this a power loss can undo a rename."""
    if os.name == "nt":
        return  # a folder cannot be opened there; renames are flushed with the file
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while len(view):
        view = view[os.write(descriptor, view) :]


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError about `path` into a StorageError that says the next step."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise storage_error(path, error) from error


def storage_error(path: Path, error: OSError) -> StorageError:
    """The StorageError for an `error` met while writing `path`."""
    step = _NEXT_STEP.get(error.errno or 0, "check the folder and its disk, then run again")
    return StorageError(f"cannot write {path}: {error.strerror or error}; {step}")
