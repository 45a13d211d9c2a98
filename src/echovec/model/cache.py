"""The cache on disk: a copy of a model is in it whole, or not at all.

    <cache>/models/NAME/     a finished copy: config, weights, tokenizer, and manifest.json
    <cache>/gguf/FILE        a GGUF file fetched from a package index
    <cache>/*/.part-NAME-1   work in progress, or what a killed process left behind
    <cache>/lock             held by the one process that writes

Whatever is new is built in a `.part-` folder, brought to the disk (fsync) and then renamed, so a
NAME that exists is complete. The manifest holds the sha256 of every file: neither GGUF nor
safetensors has a checksum of its own, and a flipped bit would load silently. Reading needs no
lock and no right to write.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from echovec.errors import StorageError

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
PART = ".part-"


def cache_dir() -> Path:
    """$ECHOVEC_CACHE, else $XDG_CACHE_HOME/echovec, else ~/.cache/echovec; asking creates nothing.

    A relative $XDG_CACHE_HOME is ignored, as its specification asks.
    """
    if chosen := os.environ.get("ECHOVEC_CACHE"):
        return Path(chosen).expanduser().absolute()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        try:
            base = Path.home() / ".cache"
        except RuntimeError as error:
            raise StorageError(
                "no folder for the cache: there is no home folder. Set ECHOVEC_CACHE to a folder."
            ) from error
    return base / "echovec"


def copies_dir() -> Path:
    """Where finished copies stand, a folder each."""
    return cache_dir() / "models"


def gguf_dir() -> Path:
    """Where fetched GGUF files stand."""
    return cache_dir() / "gguf"


def sha256_of(path: Path) -> str:
    """The sha256 of a file in hex; about 0.6 s per GB once the file is in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a copy, or None where it is missing or is not one."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        whole = isinstance(manifest["source"]["sha256"], str) and all(
            isinstance(file["sha256"], str) and isinstance(file["bytes"], int)
            for file in manifest["files"].values()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if whole else None


def verify(folder: Path) -> list[str]:
    """The names of the files in `folder` that are not as its manifest says; empty if all are.

    A file that is missing or cannot be read is named, and so is one that the manifest does not
    know, because transformers would read it (an `adapter_config.json`, say); names that begin
    with a dot are passed over.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return [MANIFEST]
    listed = manifest["files"]
    failing = [name for name, file in listed.items() if not _is_as_written(folder / name, file)]
    found = {
        path.relative_to(folder).as_posix() for path in folder.rglob("[!.]*") if path.is_file()
    }
    return failing + sorted(found - set(listed) - {MANIFEST})


def ready(folder: Path) -> bool:
    """Whether `folder` is a finished copy with every file as written.

    A damaged copy is removed, and a warning is logged that says so.
    """
    if not folder.exists():
        return False
    if not verify(folder):
        return True
    with locked():  # Another process may have put a good copy here while this one waited.
        failing = verify(folder)
        if failing and folder.exists():
            log.warning("the cached copy %s is damaged (%s): removed", folder, ", ".join(failing))
            discard(folder)
        return not failing


def seal(folder: Path, about: dict[str, Any]) -> None:
    """Bring every file of `folder` to the disk; write the manifest, `about` and hashes, last.

    Files get the mode that the umask gives (safetensors are written for the owner alone).
    """
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        path.chmod(folder.stat().st_mode & 0o666)
        _fsync(path)
        name = path.relative_to(folder).as_posix()
        files[name] = {"sha256": sha256_of(path), "bytes": path.stat().st_size}
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    manifest = folder / MANIFEST
    manifest.write_text(
        json.dumps({**about, "files": files, "finished": finished}, indent=2) + "\n",
        encoding="utf-8",
    )
    _fsync(manifest)
    _fsync(folder)


def publish(part: Path, target: Path) -> None:
    """Give a finished file or folder its name, in one step that a crash cannot halve."""
    _fsync(part)
    target.parent.mkdir(parents=True, exist_ok=True)
    part.replace(target)
    _fsync(target.parent)


def discard(path: Path) -> None:
    """Remove a copy; killed half way, it leaves work for `locked` and no half copy."""
    if path.is_dir():
        gone = path.with_name(f"{PART}{path.name}-{os.getpid()}-gone")
        path.replace(gone)
        shutil.rmtree(gone)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def workspace(parent: Path, name: str) -> Iterator[Path]:
    """A new, empty folder beside the result to come, gone afterwards. Hold the lock."""
    part = parent / f"{PART}{name}-{os.getpid()}"
    part.mkdir(parents=True)
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def locked() -> Iterator[None]:
    """Be the one writer of this cache; waits for another process, and logs that it waits.

    The system frees the lock of a killed process; what that process left behind is removed here.
    """
    from filelock import FileLock, Timeout

    with disk_errors():
        cache_dir().mkdir(parents=True, exist_ok=True)
        lock = FileLock(cache_dir() / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("another process is writing to %s: waiting for it", cache_dir())
            lock.acquire()
        try:
            for parent in (copies_dir(), gguf_dir()):
                for leftover in parent.glob(f"{PART}*"):
                    log.info("removing %s, left behind by a process that was killed", leftover)
                    discard(leftover)
            yield
        finally:
            lock.release()


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turn any OSError into a StorageError that names the cache and the way out."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        what = error.strerror or str(error)
        where = f" ({error.filename})" if error.filename else ""
        raise StorageError(
            f"cannot write to the cache {cache_dir()}: {what}{where}. Make room or allow writing "
            f"there, or set ECHOVEC_CACHE to a folder on another disk."
        ) from error


def _is_as_written(path: Path, file: dict[str, Any]) -> bool:
    # The size first: a file cut short is found without reading it.
    try:
        return bool(path.stat().st_size == file["bytes"] and sha256_of(path) == file["sha256"])
    except OSError:
        return False


def _fsync(path: Path) -> None:
    if path.is_dir() and os.name != "posix":
        return  # Only POSIX systems can open a folder to flush it.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
