"""The corpus job against kills, failing disks and other jobs; the table of docs/reliability.md."""

import errno
import json
import os
import random
import resource
import signal
import sys
import time
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from corpus_stub import Stub, job, shards, table
from durable import Durable
from echovec.errors import InputError, StorageError
from echovec.files import disk, manifest
from forked import Forked

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="POSIX signals and limits")


def write(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def same_as_unbroken(path, out, tmp_path):
    """Resume `out` and compare it with a run that nothing disturbed."""
    job([path], out)
    job([path], tmp_path / "unbroken")
    assert shards(out) == shards(tmp_path / "unbroken")
    assert table(out) == table(tmp_path / "unbroken")
    rejected = [folder / "rejected.jsonl" for folder in (out, tmp_path / "unbroken")]
    lines = [sorted(f.read_text().splitlines()) if f.exists() else [] for f in rejected]
    assert lines[0] == lines[1]
    assert not list(out.glob(".echovec-*")), "nothing temporary stays"


class Failing:
    """The os module with one call, counted over all its kinds, that fails."""

    def __init__(self, nth, code, *, torn=False):
        self.left, self.code, self.torn, self.calls = nth, code, torn, 0

    def __getattr__(self, name):
        real = getattr(os, name)
        if name not in ("write", "fsync", "replace"):
            return real

        def call(*arguments):
            self.calls += 1
            self.left -= 1
            if self.left == 0:
                if name == "write" and self.torn:  # half of it reaches the disk
                    real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                raise OSError(self.code, os.strerror(self.code))
            return real(*arguments)

        return call


@pytest.mark.parametrize("torn", [False, True], ids=["clean", "torn"])
def test_every_write_flush_and_rename_may_fail_once(tmp_path, monkeypatch, torn):
    """For every N: the Nth call fails, the job says so with exit code 4, and goes on whole."""
    path = write(tmp_path / "in.txt", ["a", "b", "!", "c", "d", "a", "e", "f", "g"])
    counter = Failing(0, errno.EIO)
    monkeypatch.setattr(disk, "os", counter)
    job([path], tmp_path / "unbroken")
    assert counter.calls > 25
    for nth in range(1, counter.calls + 1):
        out = tmp_path / f"out{nth}"
        monkeypatch.setattr(disk, "os", Failing(nth, errno.ENOSPC, torn=torn))
        with pytest.raises(StorageError, match=r"No space left on device; free some space") as info:
            job([path], out)
        assert info.value.exit_code == 4
        monkeypatch.setattr(disk, "os", os)
        same_as_unbroken(path, out, tmp_path)


def test_everything_is_flushed_before_what_follows_from_it(tmp_path, monkeypatch):
    """No power loss can leave a manifest line without its shard, or a name without its bytes."""
    path, out = write(tmp_path / "in.txt", ["a", "b", "!", "c", "d", "a"]), tmp_path / "out"
    watched = Durable()
    monkeypatch.setattr(disk, "os", watched)
    job([path], out)
    write(path, ["X", "a", "b", "!", "c", "d"])
    job([path], out, overwrite=True)
    watched.settled("the end")
    assert watched.lost == []
    # job.json, two shards, the manifest of before, two shards; two lines and a rejected row, twice.
    assert (watched.renames, watched.appends) == (6, 6)


def test_a_manifest_line_without_its_end_is_not_written_on(tmp_path):
    """Only the line feed of the last line was torn off: its shard is done again, none is lost."""
    path, out = write(tmp_path / "in.txt", list("abcdefghijkl")), tmp_path / "out"
    job([path], out)
    lines = (out / "manifest.jsonl").read_bytes().splitlines(keepends=True)
    (out / "manifest.jsonl").write_bytes(b"".join(lines[:2]).removesuffix(b"\n"))
    stub = Stub()
    job([path], out, stub)
    assert stub.seen == list("efghijkl")
    assert len(manifest.read(out / "manifest.jsonl")[0]) == 3
    same_as_unbroken(path, out, tmp_path)


@pytest.mark.parametrize("stop", range(1, 6))
def test_the_recipe_in_a_folder_is_that_of_its_vectors(tmp_path, monkeypatch, stop):
    """`--overwrite` with another recipe stops anywhere: whichever goes on has its own recipe."""
    path, out = write(tmp_path / "in.txt", list("abcdef")), tmp_path / "out"
    ours, other = Stub("a" * 16), Stub("b" * 16)
    ours.recipe.to_json = lambda: "ours"
    other.recipe.to_json = lambda: "other"
    job([path], out, ours)
    monkeypatch.setattr(disk, "os", Failing(stop, errno.ENOSPC))
    with pytest.raises(StorageError):
        job([path], out, other, overwrite=True)
    monkeypatch.setattr(disk, "os", os)
    fingerprint = json.loads((out / "job.json").read_text())["fingerprint"]
    job([path], out, ours if fingerprint == "a" * 16 else other)
    assert (out / "recipe.json").read_text() == ("ours" if fingerprint == "a" * 16 else "other")


@pytest.mark.parametrize("cut", [False, True], ids=["flipped", "short"])
def test_a_damaged_shard_of_before_does_not_bar_the_way(tmp_path, cut):
    """After --overwrite nothing is taken from it; --repair, which the error names, goes on."""
    path, out = write(tmp_path / "in.txt", list("abcdefgh")), tmp_path / "out"
    job([path], out)
    shard = min(out.glob("rows-*"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data[: -5 if cut else None])
    write(path, list("Xabcdefgh"))
    if not cut:  # a size is looked at always
        with pytest.raises(StorageError, match=r"is damaged .*--repair"):
            job([path], out, overwrite=True)
    stub = Stub()
    job([path], out, stub, overwrite=True, repair=not cut)
    assert stub.seen == list("Xabcd")
    same_as_unbroken(path, out, tmp_path)


class Killed(BaseException):
    """What no handler expects."""


def test_a_stop_between_any_two_calls_leaves_a_folder_that_goes_on(tmp_path, monkeypatch):
    """As if the power went: nothing after the Nth call happens, not even cleaning up."""
    path = write(tmp_path / "in.txt", ["a", "b", "!", "c", "d", "a", "e"])

    class Stopping(Failing):
        def __getattr__(self, name):
            real = getattr(os, name)
            if name not in ("write", "fsync", "replace", "ftruncate"):
                return real

            def call(*arguments):
                self.calls += 1
                if self.left and self.calls >= self.left:
                    if name == "write" and self.calls == self.left:
                        real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                    raise Killed
                return real(*arguments)

            return call

    counter = Stopping(0, 0)
    monkeypatch.setattr(disk, "os", counter)
    job([path], tmp_path / "unbroken")
    for nth in range(1, counter.calls + 1):
        out = tmp_path / f"out{nth}"
        monkeypatch.setattr(disk, "os", Stopping(nth, 0))
        with pytest.raises(Killed):
            job([path], out)
        monkeypatch.setattr(disk, "os", os)
        same_as_unbroken(path, out, tmp_path)


def kill_at_random(tmp_path, kills, seed=0):
    """Kill a process of 200 rows that takes a second, again and again; what it had to redo."""
    moments = random.Random(seed)
    path = write(tmp_path / "in.txt", [f"text {n}" for n in range(200)])
    reworked = []
    out, count = tmp_path / "out0", 0
    for kill in range(kills):
        with Forked(partial(job, [path], out, Stub(seconds_a_row=0.004))) as process:
            time.sleep(moments.uniform(0, 0.5))
            process.send(signal.SIGKILL)
            process.ended()
        done = sum(e.stop - e.start for e in manifest.read(out / "manifest.jsonl")[0])
        named = {e.file for e in manifest.read(out / "manifest.jsonl")[0]}
        reworked.append(len(set(shards(out)) - named) if out.exists() else 0)
        if done == 200 or kill == kills - 1:
            stub = Stub()
            job([path], out, stub)
            assert len(stub.seen) == 200 - done, "what the manifest has is not embedded again"
            assert [text for _, text, _ in table(out)] == [f"text {n}" for n in range(200)]
            job([path], tmp_path / "unbroken")
            assert shards(out) == shards(tmp_path / "unbroken")
            count += 1
            out = tmp_path / f"out{count}"
    assert max(reworked) <= 1, "at most one shard is done twice"


@LINUX
def test_kill_9_at_a_few_random_moments_loses_and_repeats_nothing(tmp_path):
    """After each kill the manifest is whole; in the end the files equal an unbroken run's."""
    kill_at_random(tmp_path, 3)


@LINUX
@pytest.mark.slow
def test_kill_9_at_fifty_random_moments_loses_and_repeats_nothing(tmp_path):
    """The same fifty times, over several jobs."""
    kill_at_random(tmp_path, 50, seed=1)


@LINUX
def test_a_full_disk_is_exit_4_and_goes_on_when_there_is_space(tmp_path):
    """A limit on file sizes stands for the disk: the real system call fails, part is written."""
    path = write(tmp_path / "in.txt", ["x" * 5_000 + str(n) for n in range(12)])

    def run():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, resource.RLIM_INFINITY))
        try:
            job([path], tmp_path / "out")
        except StorageError as error:
            print(error.exit_code, error)

    with Forked(run) as process:
        said = process.stdout.read()
        assert process.ended() == 0, process.stderr.read()
    assert said.startswith("4 cannot write")
    assert "ulimit -f" in said
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    same_as_unbroken(path, tmp_path / "out", tmp_path)


def test_a_second_job_on_a_folder_is_refused_while_the_first_is_at_work(tmp_path):
    """Two writers never share a folder; a lock whose owner is gone does not stay."""
    path, out = write(tmp_path / "in.txt", ["a"]), tmp_path / "out"
    out.mkdir()
    with (
        FileLock(out / ".lock"),
        pytest.raises(StorageError, match=r"another job is writing to .*; wait for it"),
    ):
        job([path], out)
    assert job([path], out).rows == 1


def test_no_row_one_row_and_a_row_of_a_megabyte(tmp_path):
    """The smallest and the longest input: refused with a reason, or done."""
    with pytest.raises(InputError, match="is empty"):
        job([write(tmp_path / "none.txt", [])], tmp_path / "none")
    assert job([write(tmp_path / "one.txt", ["one"])], tmp_path / "one").rows == 1
    long = "word " * 200_000 + "end"
    done = job([write(tmp_path / "long.txt", ["a", long, "b"])], tmp_path / "long")
    assert (done.rows, done.truncated) == (3, 1)
    assert table(tmp_path / "long")[1][1] == long


@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_one_broken_row_among_many_is_named_and_costs_only_itself(tmp_path, count):
    """One row of so many is not JSON: it is counted with its line, the others are there."""
    path, out = tmp_path / "in.jsonl", tmp_path / "out"
    with path.open("w") as file:
        for n in range(count):
            file.write('{"text": \n' if n == 12_345 else f'{{"text": "text {n}"}}\n')
    done = job([path], out, shard_rows=4096)
    assert (done.rows, done.rejected, done.shards) == (count - 1, 1, -(-count // 4096))
    said = json.loads((out / "rejected.jsonl").read_text())
    assert said["where"].endswith("in.jsonl:12346")
    ids = [pq.read_table(shard, columns=["id"]).column("id") for shard in out.glob("rows-*")]
    found = np.sort(np.concatenate([column.to_numpy() for column in ids]).astype(np.int64))
    assert np.array_equal(found, np.delete(np.arange(count), 12_345))


@pytest.mark.parametrize("nth", range(1, 12))
def test_overwrite_may_stop_anywhere_and_goes_on(tmp_path, monkeypatch, nth):
    """A job that begins anew, stopped at any write, still ends as the changed input says."""
    out = tmp_path / "out"
    job([write(tmp_path / "in.txt", ["a", "b", "c", "d", "e"])], out)
    path = write(tmp_path / "in.txt", ["a", "b", "x", "d", "e"])
    monkeypatch.setattr(disk, "os", Failing(nth, errno.EIO))
    try:
        job([path], out, overwrite=True)
    except StorageError:
        monkeypatch.setattr(disk, "os", os)
        job([path], out, overwrite=True)
    monkeypatch.setattr(disk, "os", os)
    job([path], tmp_path / "unbroken")
    assert table(out) == table(tmp_path / "unbroken")
    assert set(shards(out)) == set(shards(tmp_path / "unbroken"))
