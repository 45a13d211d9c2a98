"""The door to LanceDB: its table in an index folder, made to last and opened whole.

LanceDB flushes nothing to the disk: a power loss can leave its newest version empty, and the table
cannot be opened then. So what is new is flushed before it is acknowledged, and a newest version
that cannot be read is put aside when the table is opened, which is said.
"""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from echovec.errors import DependencyError, StorageError
from echovec.files.disk import storage_error, storage_errors, sync_folder

TABLE = "rows"


def check_installed() -> None:
    """Raise a DependencyError that names the extra, unless lancedb is there."""
    if find_spec("lancedb") is None:
        raise DependencyError(
            'a lance index needs lancedb: pip install "echovec[search]", or use --backend exact'
        )


def connect(folder: Path) -> Any:
    """The database in a folder.

    Raises:
        DependencyError: lancedb is not installed.
    """
    check_installed()
    import lancedb

    return lancedb.connect(str(folder))


def open_table(folder: Path) -> Any:
    """The table in a folder; a newest version that is empty or unreadable is put aside first.

    Raises:
        DependencyError: lancedb is not installed.
        StorageError: no version of it can be read, or the disk does not let us read the newest.
    """
    database = connect(folder)
    versions = folder / f"{TABLE}.lance" / "_versions"
    while True:
        head = _newest(versions)
        # What may not be read is not damaged: it stays where it is.
        content = b"" if head is None else _content(head)
        try:
            if head is not None and not content:
                raise OSError(errno.EIO, "its newest version is empty")
            return database.open_table(TABLE)
        except (OSError, RuntimeError, ValueError) as error:
            if head is None or len(list(versions.glob("*.manifest"))) < 2:
                raise StorageError(
                    f"{folder} cannot be opened ({_line(error)}); build the index again"
                ) from error
            with storage_errors(head):
                head.replace(head.with_suffix(".damaged"))
                (versions / "latest_version_hint.json").unlink(missing_ok=True)
            warnings.warn(
                f"the newest version of {folder} was damaged ({_line(error)}) and is now "
                f"{head.stem}.damaged; the one before it is used",
                stacklevel=2,
            )


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise StorageError(
            f"{file} cannot be read: {error.strerror}; check its rights and the disk"
        ) from error


def _newest(versions: Path) -> Path | None:
    # Names count downwards from 2 ** 64 - 1, so that the newest sorts first.
    return min(versions.glob("*.manifest"), default=None)


def files_of(folder: Path) -> set[Path]:
    """All files of the table now."""
    return {path for path in folder.rglob("*") if path.is_file()}


def flush(folder: Path, before: set[Path] | None = None) -> None:
    """Flush every file that is not among `before`, and every folder.

    Raises:
        StorageError: the disk fails.
    """
    with storage_errors(folder):
        for path in sorted(files_of(folder) - (before or set())):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        for path in sorted(path for path in folder.rglob("*") if path.is_dir()):
            sync_folder(path)
        sync_folder(folder)
        sync_folder(folder.parent)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what LanceDB raises when it writes into a StorageError."""
    try:
        yield
    except StorageError:
        raise
    except (OSError, RuntimeError) as error:
        if "No space left" in str(error):
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if isinstance(error, OSError):
            raise storage_error(folder, error) from error
        raise StorageError(f"cannot write {folder}: {_line(error)}; build it again") from error


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
