"""A mirror: a corpus folder's finished shards, copied to a URL while the job goes on.

    shard --copied, size compared--> URL/rows-START-HASH.parquet
    once a minute, and at the end:   URL/manifest.jsonl, which names only shards that are there

The work is done on a disk, whose renames and locks make it safe; an object store has neither. So
the mirror is a copy, and its manifest the truth about it: at any moment all shards that it names
are there, whole. A copy that was broken off is not named by it, and is made again.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from echovec.corpus.folder import JOB, REJECTED
from echovec.corpus.shard import SHARDS
from echovec.errors import InputError, StorageError
from echovec.files import manifest
from echovec.files.disk import stream_sha256
from echovec.files.manifest import MANIFEST, Entry
from echovec.files.remote import filesystem, remote_errors

if TYPE_CHECKING:
    from echovec.corpus.folder import Folder

MANIFEST_SECONDS = 60
"""The manifest is copied no more often: it grows, and all of it has to be sent."""

_BESIDE = ("recipe.json", "recipe.safetensors", REJECTED)


class Mirror:
    """A copy of a folder at `url`; a context manager. One shard is copied while the next is made.

    Raises:
        InputError: a URL that cannot be used, or other things are there.
        StorageError: it cannot be reached or written to.
        DependencyError: the URL's protocol needs a package that is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._fs, self._root = filesystem(self.url)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="echovec-mirror")
        self._running: Future[None] | None = None
        self._sizes: dict[str, int] = {}
        self._whole: dict[str, str] = {}
        self._sent: list[Entry] = []
        self._told = float("-inf")

    def __enter__(self) -> Mirror:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def begin(self, folder: Folder, *, overwrite: bool = False, verify: bool = False) -> None:
        """Copy what is finished and not there; `verify` compares every copy by its sha256."""
        with self._errors():
            self._sizes = self._listed()
            self._check_job(folder.path / JOB, overwrite=overwrite)
            theirs = self._manifest()
            for entry in theirs:
                if entry.file and self._sizes.get(entry.file) == entry.bytes:
                    self._whole[entry.file] = entry.sha256
            if verify:
                self._forget_damaged()
            ours = {(entry.start, entry.sha256) for entry in folder.entries}
            if any((entry.start, entry.sha256) not in ours for entry in theirs):
                self._fs.rm_file(self._at(MANIFEST))  # it is about to be no longer so
            self._put(JOB, (folder.path / JOB).read_bytes())
        self._send(folder.path, list(folder.entries))

    def push(self, folder: Folder) -> None:
        """Begin to copy what was finished since; waits for the copy before."""
        self._wait()
        self._running = self._pool.submit(self._send, folder.path, self._new(folder))

    def finish(self, folder: Folder) -> None:
        """Copy what is left and the manifest, then remove what a job before has left there."""
        self._wait()
        self._send(folder.path, self._new(folder), last=True)
        with self._errors():
            kept = {entry.file for entry in folder.entries}
            for name in list(self._sizes):
                stale = Path(name).match(SHARDS) and name not in kept
                if stale or (name in _BESIDE and not (folder.path / name).exists()):
                    self._fs.rm_file(self._at(name))

    def _new(self, folder: Folder) -> list[Entry]:
        return folder.entries[len(self._sent) :]  # they are only ever added to

    def _wait(self) -> None:
        if self._running:
            running, self._running = self._running, None
            running.result()

    def _send(self, folder: Path, entries: list[Entry], *, last: bool = False) -> None:
        with self._errors():
            for entry in entries:
                if entry.file and self._whole.get(entry.file) != entry.sha256:
                    self._fs.put_file(str(folder / entry.file), self._at(entry.file))
                    self._compare(entry.file, entry.bytes)
                self._sent.append(entry)
            if last or (self._sent and time.monotonic() - self._told > MANIFEST_SECONDS):
                for name in _BESIDE:
                    if (folder / name).exists():
                        self._put(name, (folder / name).read_bytes())
                self._put(MANIFEST, manifest.as_bytes(self._sent))
                self._told = time.monotonic()

    # -- what is there ------------------------------------------------------------------------

    def _listed(self) -> dict[str, int]:
        self._fs.invalidate_cache()
        try:
            found = self._fs.ls(self._root, detail=True)
        except FileNotFoundError:
            self._fs.makedirs(self._root, exist_ok=True)
            return {}
        files = [one for one in found if one["type"] == "file"]
        return {_name(one["name"]): int(one["size"] or 0) for one in files}

    def _manifest(self) -> list[Entry]:
        if MANIFEST not in self._sizes:
            return []
        return manifest.parse(self._fs.cat_file(self._at(MANIFEST)))

    def _check_job(self, ours: Path, *, overwrite: bool) -> None:
        """It is the mirror of this job, of none, or with `overwrite` of another."""
        if JOB in self._sizes:
            try:
                theirs = json.loads(self._fs.cat_file(self._at(JOB)))
            except ValueError:
                return  # a copy of it that was broken off
            if theirs != json.loads(ours.read_bytes()) and not overwrite:
                raise InputError(
                    f"{self.url} holds the shards of another job (fingerprint "
                    f"{theirs['fingerprint']}); --overwrite replaces them, or choose another URL"
                )
        elif self._sizes:
            raise InputError(
                f"{self.url} holds files and is no mirror ({min(self._sizes)}); choose an empty or "
                "a new place"
            )

    def _forget_damaged(self) -> None:
        for name, digest in list(self._whole.items()):
            with self._fs.open(self._at(name), "rb") as file:
                if stream_sha256(file) != digest:
                    del self._whole[name]

    # -- writing ------------------------------------------------------------------------------

    def _put(self, name: str, data: bytes) -> None:
        self._fs.pipe_file(self._at(name), data)
        self._compare(name, len(data))

    def _compare(self, name: str, size: int) -> None:
        self._fs.invalidate_cache()
        there = self._fs.info(self._at(name))["size"]
        if there != size:
            raise StorageError(
                f"{self.url}/{name} has {there:,} bytes after copying {size:,}; check the store "
                "and run the same command again"
            )
        self._sizes[name] = size

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _errors(self) -> AbstractContextManager[None]:
        return remote_errors(
            StorageError,
            f"cannot copy to {self.url}",
            "what is done lies in the folder, and the same command goes on",
        )


def _name(path: str) -> str:
    return path.rpartition("/")[2]
