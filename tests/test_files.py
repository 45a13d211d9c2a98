"""The files room: vectors read again, a manifest that was cut off, a disk that refuses."""

from __future__ import annotations

import json
import os
import resource
import signal
from dataclasses import replace

import numpy as np
import pytest

from echovec.errors import InputError, StorageError
from echovec.files import disk, manifest, vectors
from echovec.files.known import Known, hash_texts
from echovec.files.vectors import open_vectors

MADE = {"fingerprint": "0123456789abcdef", "run": {}}
ENTRY = manifest.Entry(
    file="rows.parquet",
    start=0,
    stop=2,
    slice="s",
    rows=2,
    rejected=0,
    truncated=0,
    reused=0,
    bytes=9,
    sha256="f",
    fingerprint="0123456789abcdef",
)


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def jsonl(tmp_path):
    """Opens rows as a .jsonl of vectors of two numbers; gives what is read of each."""

    def read(*rows):
        path = tmp_path / "v.jsonl"
        path.write_text(lines({"embedding": [0.5, 1], **row} for row in rows), "utf-8")
        (tmp_path / "v.jsonl.recipe.json").write_text(json.dumps(MADE), "utf-8")
        (file,) = open_vectors([path])
        found = [row for block in file.blocks() for row in block.rows.to_pylist()]
        assert file.num_rows == len(found) == len(rows)
        return found

    return read


def test_whole_numbers_beside_others_keep_their_fractions(jsonl):
    """A field that is 1 in the first row and 1.5 in the next is not cut to 1."""
    read = jsonl({"id": "a", "price": 1}, {"id": "b", "price": 1.5}, {"id": "c", "price": None})
    assert [row["price"] for row in read] == [1.0, 1.5, None]


def test_numbers_of_vectors_are_read_once(jsonl, monkeypatch):
    """For the fields alone they are left out, and only they: not in texts, keys or objects."""
    rows = [
        {"id": "a", "text": 'so: "embedding": [1, 2]', "n": 1},
        {"id": "b", "\\": ", ", 'x"embedding": [3]': True, "n": 2.5},
        {"id": "c", "o": {"embedding": [1, 2]}, "embedding": [0.25, -1e-05]},
    ]
    parsed = []

    def spied(line):
        parsed.append(loaded(line))
        return parsed[-1]

    loaded = json.loads
    monkeypatch.setattr(vectors.json, "loads", spied)
    assert jsonl(*rows) == [
        {**rows[0], "n": 1.0, 'x"embedding": [3]': None, "\\": None},
        {"text": None, **rows[1]},
        {"id": "c", "text": None, "n": None, 'x"embedding": [3]': None, "\\": None},
    ]
    assert sum(bool(row.get("embedding")) for row in parsed) == 1 + len(rows)


@pytest.mark.parametrize("size", [1, 2, 4096])
def test_a_field_that_the_first_row_lacks_comes_along(jsonl, monkeypatch, size):
    """Null or missing at first, whatever the block, a field's values are read."""
    monkeypatch.setattr(vectors, "BLOCK_ROWS", size)
    read = jsonl({"id": "a", "tag": None}, {"id": "b", "year": 1999}, {"id": "c", "tag": "x"})
    assert read == [
        {"id": "a", "tag": None, "year": None},
        {"id": "b", "tag": None, "year": 1999},
        {"id": "c", "tag": "x", "year": None},
    ]


def test_lists_and_objects_stay_behind(jsonl):
    """A field with one of them in any row is no column."""
    rows = {"id": "a", "tags": "x", "more": {}}, {"id": "b", "tags": ["x"], "more": None}
    assert jsonl(*rows) == [{"id": "a"}, {"id": "b"}]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (({"id": "a", "n": "1"}, {"id": "b", "n": 2}), 'v.jsonl: "n" is int and str'),
        (({"id": "a", "n": True}, {"id": "b", "n": 2}), 'v.jsonl: "n" is bool and int'),
        (({"id": "a", "n": 2**70},), "v.jsonl: a value fits no column"),
        (({"id": "a"}, {"n": 2}), 'v.jsonl:2 has no "id"'),
        (({"id": None},), 'v.jsonl:1 has no "id"'),
    ],
)
def test_what_no_column_holds_is_refused(jsonl, rows, message):
    """Two kinds of value, a number beyond 64 bits, a row without an id: the file is named."""
    with pytest.raises(InputError, match=message):
        jsonl(*rows)


@pytest.mark.parametrize("embedding", [[1], {}, None, "far", [1, {}]])
def test_a_vector_that_is_none_is_a_storage_error(jsonl, embedding):
    """Whatever stands in its place."""
    with pytest.raises(StorageError, match=r"v\.jsonl: a vector is not 2 numbers; embed again"):
        jsonl({"id": "a"}, {"id": "b", "embedding": embedding})


@pytest.mark.parametrize(("rows", "ids"), [(2, 3), (3, 2), (4, 5), (0, 1), (1, 0)])
def test_npy_and_its_ids_have_equal_rows(tmp_path, monkeypatch, rows, ids):
    """More of either is found, also where the vectors end with a block."""
    monkeypatch.setattr(vectors, "BLOCK_ROWS", 2)
    np.save(tmp_path / "v.npy", np.ones((rows, 3), np.float32))
    (tmp_path / "v.npy.ids.jsonl").write_text(lines({"id": f"r{n}"} for n in range(ids)))
    (tmp_path / "v.npy.recipe.json").write_text(json.dumps(MADE))
    with pytest.raises(StorageError, match=rf"v\.npy has {rows} rows and .*ids\.jsonl {ids};"):
        open_vectors([tmp_path / "v.npy"])
    np.save(tmp_path / "v.npy", np.ones((ids, 3), np.float32))
    (file,) = open_vectors([tmp_path / "v.npy"])
    assert [i for block in file.blocks() for i in block.ids] == [f"r{n}" for n in range(ids)]


def test_a_line_without_its_end_is_left_out_of_a_manifest(tmp_path):
    """All but the newline was written: read as whole, the next line would be added to it."""
    path = tmp_path / manifest.MANIFEST
    manifest.add(path, ENTRY)
    manifest.add(path, replace(ENTRY, start=2))
    path.write_bytes(path.read_bytes()[:-1])
    entries, problems = manifest.read(path)
    assert entries == [ENTRY]
    assert "the last line was never finished" in problems[0]


def test_bytes_are_written_as_they_are_on_windows_too(tmp_path, monkeypatch):
    """Every file that is written is opened with the flags of one place, which have O_BINARY."""
    flags = []
    opened = os.open

    def watching(path, how, *more):
        flags.append(how)
        return opened(path, how, *more)

    monkeypatch.setattr(disk, "_WRITE", disk._WRITE | os.O_CLOEXEC)  # stands for O_BINARY
    monkeypatch.setattr(disk.os, "open", watching)
    disk.write_file(tmp_path / "a", b"x\n")
    disk.append(tmp_path / "a", b"y\n")
    with disk.NewFile(tmp_path / "b") as file:
        file.write(b"z\n")
        file.keep()
    written = [how for how in flags if how & os.O_WRONLY]
    assert len(written) == 3
    assert all(how & os.O_CLOEXEC for how in written)


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_file_that_cannot_be_opened_is_closed(tmp_path):
    """A folder that is not there is a StorageError and nothing else, then or later."""
    made = []

    class Watched(disk.NewFile):
        def __init__(self, path):
            made.append(self)
            super().__init__(path)

    with pytest.raises(StorageError, match="cannot write"):
        Watched(tmp_path / "none" / "a")
    assert made[0].closed


def test_a_disk_that_is_full_at_the_last_bytes_is_a_storage_error(tmp_path):
    """Rows that fit no more are told when they are put there, not when they are looked for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with Known(tmp_path, in_memory=10) as known:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
            with pytest.raises(StorageError, match="raise the limit on file sizes"):
                known.add(hash_texts(map(str, range(20))), np.arange(20))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, handler)
