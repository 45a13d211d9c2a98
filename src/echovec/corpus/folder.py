"""A corpus folder: shards, their manifest, and what makes it safe to come back to.

    FOLDER/job.json                  what is made here: recipe fingerprint, options, rows a shard
    FOLDER/recipe.json               the recipe, with recipe.safetensors where it holds arrays
    FOLDER/rows-START-HASH.parquet   one shard each
    FOLDER/manifest.jsonl            one line a finished shard
    FOLDER/rejected.jsonl            one line a row that could not be embedded, with the reason
    FOLDER/.lock                     held by the job that is at work

`--overwrite` with the same recipe keeps the old shards as a store of vectors (manifest.old.jsonl)
until the new job is through: equal texts are not embedded twice. With another recipe it deletes
what was made here, and only that.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from io import BufferedWriter
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from echovec.corpus.formats import Contents
from echovec.corpus.inputs import files_named
from echovec.corpus.shard import SHARDS
from echovec.errors import InputError, StorageError
from echovec.files import manifest
from echovec.files.disk import (
    TEMPORARY,
    NewFile,
    append,
    file_sha256,
    storage_errors,
    sync_folder,
    write_file,
)
from echovec.files.manifest import MANIFEST, Entry
from echovec.files.parquet import damaged

if TYPE_CHECKING:
    from types import TracebackType

    from filelock import FileLock

    from echovec.corpus.source import Problem
    from echovec.recipe import Recipe

JOB = "job.json"
RECIPE = "recipe.json"
OLD_MANIFEST = "manifest.old.jsonl"
REJECTED = "rejected.jsonl"
LOCK = ".lock"

_BUFFER_BYTES = 1 << 22


class Folder:
    """An open corpus folder; a context manager that holds its lock.

    Raises:
        InputError: it holds something else, or was made with another recipe or other options.
        StorageError: another job is at work here, the disk fails, or a shard is missing.
    """

    def __init__(
        self,
        path: Path,
        recipe: Recipe,
        contents: Contents,
        *,
        shard_rows: int,
        overwrite: bool = False,
        repair: bool = False,
    ) -> None:
        self.path = path
        self.entries: list[Entry] = []
        """The finished shards, by where they start."""
        self.old: list[Entry] = []
        """Shards of before --overwrite: vectors to take over."""
        self.repairs: list[str] = []
        """What was found damaged and will be done again, in words."""
        self._recipe, self._contents = recipe, contents
        self._job = {
            "format": 1,
            "fingerprint": contents.fingerprint,
            **contents.run,
            "keep_text": contents.keep_text,
            "shard_rows": shard_rows,
            **({"keep": contents.kept} if contents.kept else {}),
        }
        self._overwrite, self._repair = overwrite, repair
        self._old_by_name: dict[str | None, Entry] = {}
        self._lock: FileLock | None = None

    def __enter__(self) -> Folder:
        check_folder(self.path)
        with storage_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        try:
            self._open()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._release()

    def write(self, name: str, put: Callable[[IO[bytes]], object]) -> tuple[int, str]:
        """A shard's file, by what `put` writes into it; its size, and sha256 of what was meant."""
        with NewFile(self.path / name) as file:
            buffered = BufferedWriter(file, _BUFFER_BYTES)
            put(buffered)
            buffered.flush()
            file.keep()
            return file.bytes, file.sha256

    def add(self, entry: Entry, rejected: list[Problem]) -> None:
        """Make a shard final whose file is there: its rejected rows, then its manifest line."""
        if rejected:
            lines = [
                {"slice": entry.start, "where": problem.where, "reason": problem.reason}
                for problem in rejected
            ]
            append(self.path / REJECTED, b"".join(map(_json_line, lines)))
        manifest.add(self.path / MANIFEST, entry)
        self.entries.append(entry)

    def adopt(self, name: str) -> Entry | None:
        """The old entry of a shard by this name, if its file is whole."""
        entry = self._old_by_name.get(name)
        return entry if entry and not self._fault(entry, by_hash=True) else None

    def finish(self) -> None:
        """Delete shards that the manifest does not name: of before --overwrite, or of a crash."""
        kept = {entry.file for entry in self.entries}
        with storage_errors(self.path):
            for file in self.path.glob(SHARDS):
                if file.name not in kept:
                    file.unlink()
        manifest.remove(self.path / OLD_MANIFEST)
        self.old, self._old_by_name = [], {}

    def check(self, entry: Entry) -> None:
        """Raise a StorageError unless the shard is what its line says, by its hash."""
        if fault := self._fault(entry, by_hash=True):
            raise damaged(self.path / str(entry.file), fault)

    # -- opening ------------------------------------------------------------------------------

    def _take_lock(self) -> None:
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / LOCK)
        with storage_errors(self.path):
            try:
                lock.acquire(timeout=0)
            except Timeout:  # which is an OSError too
                raise StorageError(
                    f"another job is writing to {self.path}; wait for it, or choose another folder"
                ) from None
        self._lock = lock

    def _release(self) -> None:
        if self._lock:
            self._lock.release()
            self._lock = None

    def _open(self) -> None:
        for file in self.path.glob(TEMPORARY):
            with suppress(OSError):
                file.unlink()
        there = _read_job(self.path / JOB)
        same = there == self._job
        if there is not None and not same and not self._overwrite:
            raise InputError(_difference(self.path, there, self._job))
        if there is not None and self._overwrite:
            keep = {"fingerprint", "keep_text", *self._contents.run}
            self._set_aside(reuse=all(there.get(key) == self._job[key] for key in keep))
        if not same:
            # The other job's recipe goes before this job comes: a stop between two of these leaves
            # a folder without a recipe, never one with another's.
            with storage_errors(self.path):
                (self.path / RECIPE).unlink(missing_ok=True)
                sync_folder(self.path)
            write_file(self.path / JOB, json.dumps(self._job, indent=2).encode() + b"\n")
        if not (self.path / RECIPE).exists():
            self._recipe.save(self.path)
        self._read_manifest()
        self._read_old()

    def _read_manifest(self) -> None:
        file = self.path / MANIFEST
        entries, self.repairs = manifest.read(file, lenient=self._repair)
        rewrite = bool(self.repairs)  # nothing may be added behind a torn line
        whole = []
        for entry in entries:
            fault = self._fault(entry, by_hash=self._repair)
            if not fault:
                whole.append(entry)
            elif self._repair:
                self.repairs.append(f"{self.path / str(entry.file)}: {fault}")
                rewrite = True
            else:
                raise damaged(self.path / str(entry.file), fault)
        if rewrite:
            manifest.rewrite(file, whole)
        self.entries = sorted(whole, key=lambda entry: entry.start)
        self._trim_rejected()

    def _read_old(self) -> None:
        """The shards of before --overwrite; texts of damaged ones are embedded again."""
        old, _ = manifest.read(self.path / OLD_MANIFEST, lenient=True)
        made_since = {entry.file for entry in self.entries}
        for entry in old:
            if entry.file in made_since:
                continue
            if fault := self._fault(entry, by_hash=self._repair):
                self.repairs.append(f"{self.path / str(entry.file)}: {fault}")
            else:
                self.old.append(entry)
        self._old_by_name = {entry.file: entry for entry in self.old}

    def _fault(self, entry: Entry, *, by_hash: bool) -> str:
        """What is wrong with a shard's file, "" if nothing."""
        if entry.file is None:
            return ""
        path = self.path / entry.file
        try:
            size = path.stat().st_size
            if size != entry.bytes:
                return f"it has {size:,} bytes, and was written with {entry.bytes:,}"
            if by_hash and (found := file_sha256(path)) != entry.sha256:
                return f"its sha256 is {found[:12]}..., and was {entry.sha256[:12]}..."
        except FileNotFoundError:
            return "it is missing"
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
        return ""

    def _trim_rejected(self) -> None:
        """Drop rejected rows of slices that did not come to their end: they will come again."""
        file = self.path / REJECTED
        if not file.exists():
            return
        done = {entry.start for entry in self.entries if entry.rejected}
        with file.open("rb") as lines:
            if all(_slice_of(line) in done for line in lines):
                return
        with file.open("rb") as lines, NewFile(file) as trimmed:
            buffered = BufferedWriter(trimmed, _BUFFER_BYTES)
            buffered.writelines(line for line in lines if _slice_of(line) in done)
            buffered.flush()
            trimmed.keep()

    def _set_aside(self, *, reuse: bool) -> None:
        """Begin anew: the old shards become a store of vectors, or go."""
        old, _ = manifest.read(self.path / OLD_MANIFEST, lenient=True)
        now, _ = manifest.read(self.path / MANIFEST, lenient=True)
        with storage_errors(self.path):
            if reuse:
                by_file = {entry.file: entry for entry in [*old, *now] if entry.file}
                manifest.rewrite(self.path / OLD_MANIFEST, by_file.values())
            for name in (MANIFEST, REJECTED, *(() if reuse else (OLD_MANIFEST,))):
                (self.path / name).unlink(missing_ok=True)
            sync_folder(self.path)


def check_folder(path: Path, inputs: Iterable[str | Path] = ()) -> None:
    """Find what can be wrong with the folder before the work starts; writes nothing.

    Raises:
        InputError: it is a file, it holds something that is no corpus, or lies among the inputs.
        StorageError: it cannot be written to.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; name a folder, or leave out the slash at the end")
    for name in inputs:
        given = Path(name)
        if given.is_dir() and path.resolve().is_relative_to(given.resolve()):
            raise InputError(f"{path} lies in the input {given}; choose a folder elsewhere")
        if not given.exists() and any(_lies_in(path, file) for file in files_named(name)):
            raise InputError(
                f"{name} takes in files of {path} itself; name the inputs more narrowly, or choose "
                "a folder elsewhere"
            )
    if not path.exists():
        return
    names = [name for name in os.listdir(path) if not name.startswith(".")]  # noqa: PTH208
    if names and JOB not in names and set(names) - {RECIPE, "recipe.safetensors"}:
        raise InputError(
            f"{path} holds files and is no corpus folder ({sorted(names)[0]}); "
            "choose an empty or a new one"
        )
    if not os.access(path, os.W_OK | os.X_OK):
        raise StorageError(f"the folder {path} cannot be written to; choose another one")


def _lies_in(folder: Path, file: Path) -> bool:
    return file.resolve().is_relative_to(folder.resolve())


def _read_job(path: Path) -> dict[str, Any] | None:
    try:
        fields = json.loads(path.read_bytes())
        if fields["format"] == 1:
            return dict(fields)
        raise InputError(f"{path}: format {fields['format']!r}, this version reads 1")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read: {error.strerror}; check its rights and the disk"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise StorageError(f"{path} is damaged ({error}); choose a new folder") from error


def _difference(path: Path, there: dict[str, Any], wanted: dict[str, Any]) -> str:
    parts = [
        f"{key} {there.get(key)!r}, now {wanted.get(key)!r}"
        for key in {**wanted, **there}
        if there.get(key) != wanted.get(key)
    ]
    return (
        f"{path} was made with {'; '.join(parts)}; give the same options to go on, "
        "--overwrite to start anew, or another folder"
    )


def _json_line(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _slice_of(line: bytes) -> int | None:
    try:
        return int(json.loads(line)["slice"]) if line.endswith(b"\n") else None
    except (ValueError, KeyError, TypeError):
        return None
