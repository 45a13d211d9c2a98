"""Mirrors: finished shards at a URL, whole and named by a manifest; and inputs at URLs."""

import gzip
import json
from contextlib import suppress
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from corpus_stub import Stub, StubRecipe, job, shards, table
from echovec.cli import app
from echovec.corpus import mirror as module
from echovec.corpus.mirror import Mirror
from echovec.corpus.source import read_rows
from echovec.errors import DependencyError, InputError, StorageError
from echovec.files import manifest


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path):
    """An empty place in memory, and one on the disk."""
    if request.param == "file":
        return (tmp_path / "there").as_uri()
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    return "memory://bucket/vectors"


def write(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def there(url):
    """Name -> bytes of all that is at the URL."""
    fs, root = fsspec.core.url_to_fs(url)
    if not fs.exists(root):
        return {}
    return {name.rpartition("/")[2]: fs.cat_file(name) for name in fs.find(root)}


def whole(url, folder):
    """The mirror holds what the folder holds, but for its lock."""
    found = there(url)
    for entry in manifest.parse(found["manifest.jsonl"]):
        assert entry.file is None or entry.file in found
    mine = {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}
    assert found == mine


def test_a_mirror_equals_its_folder_and_grows_with_it(tmp_path, url):
    """Shards, manifest, recipe and rejected rows; tomorrow's rows too."""
    out = tmp_path / "out"
    path = write(tmp_path / "in.txt", [*"abcde", "!", *"fgh"])
    job([path], out, mirror=Mirror(url))
    whole(url, out)
    path = write(tmp_path / "in.txt", [*"abcde", "!", *"fghijklm"])
    job([path], out, mirror=Mirror(url))
    whole(url, out)
    assert len(table(out)) == 13


def test_a_mirror_may_be_asked_for_later_and_copies_nothing_twice(tmp_path, url, monkeypatch):
    """What is there already is copied; a second run copies only names that are small."""
    out, path = tmp_path / "out", write(tmp_path / "in.txt", "abcdefgh")
    job([path], out)
    job([path], out, mirror=Mirror(url))
    whole(url, out)
    mirror = Mirror(url)
    monkeypatch.setattr(mirror._fs, "put_file", None)
    job([path], out, mirror=mirror)
    whole(url, out)


def test_the_manifest_there_never_names_what_is_not_there(tmp_path, url, monkeypatch):
    """At every copy that may fail, for every N: what the manifest names is whole; it goes on."""
    monkeypatch.setattr(module, "MANIFEST_SECONDS", -1)
    path = write(tmp_path / "in.txt", [*"abcde", "!", *"fgh"])
    for nth in range(40):
        out, place = tmp_path / f"out{nth}", f"{url}{nth}"
        mirror = Mirror(place)
        calls = failing(mirror, nth, monkeypatch)
        with suppress(StorageError):
            job([path], out, mirror=mirror)
            assert len(calls) <= nth, "a copy that fails is an error"
        monkeypatch.undo()
        monkeypatch.setattr(module, "MANIFEST_SECONDS", -1)
        found = there(place)
        for entry in manifest.parse(found.get("manifest.jsonl", b"")):
            if entry.file:
                assert len(found[entry.file]) == entry.bytes
                assert found[entry.file] == (out / entry.file).read_bytes()
        job([path], out, mirror=Mirror(place))
        whole(place, out)
        if len(calls) <= nth:
            return
    raise AssertionError("it never came through")


def failing(mirror, nth, monkeypatch):
    """The nth copy leaves half of it there, and fails."""
    calls, fs = [], mirror._fs
    put, pipe = fs.put_file, fs.pipe_file

    def fails(name, data):
        calls.append(name)
        if len(calls) == nth + 1:
            pipe(name, data[: len(data) // 2])
            raise OSError("the line is down")

    def put_file(source, name):
        fails(name, Path(source).read_bytes())
        put(source, name)

    def pipe_file(name, data):
        fails(name, data)
        pipe(name, data)

    monkeypatch.setattr(fs, "put_file", put_file)
    monkeypatch.setattr(fs, "pipe_file", pipe_file)
    return calls


def test_another_recipe_replaces_the_mirror_only_when_asked(tmp_path, url):
    """Shards of equal names and sizes, other vectors: refused, then copied anew."""
    out, path = tmp_path / "out", write(tmp_path / "in.txt", "abcdefgh")
    job([path], out, mirror=Mirror(url))
    first = there(url)
    other = Stub("fedcba9876543210")
    with pytest.raises(InputError, match=r"another job .fingerprint 0123456789abcdef"):
        job([path], tmp_path / "other", other, mirror=Mirror(url))
    other.encode = lambda texts, **_: (-Stub().encode(texts)[0], [False] * len(texts))
    job([path], out, other, overwrite=True, mirror=Mirror(url))
    whole(url, out)
    assert {*first} == {*there(url)}
    assert all(there(url)[name] != data for name, data in first.items() if "rows-" in name)


def test_a_damaged_copy_is_found_by_repair(tmp_path, url):
    """One bit at the URL: --repair reads every copy and makes it again."""
    out, path = tmp_path / "out", write(tmp_path / "in.txt", "abcdefgh")
    job([path], out, mirror=Mirror(url))
    fs, root = fsspec.core.url_to_fs(url)
    name = next(iter(shards(out)))
    data = bytearray(there(url)[name])
    data[50] ^= 1
    fs.pipe_file(f"{root}/{name}", bytes(data))
    job([path], out, mirror=Mirror(url))
    with pytest.raises(AssertionError):
        whole(url, out)
    job([path], out, mirror=Mirror(url), repair=True)
    whole(url, out)


def test_a_place_of_something_else_is_left_alone(tmp_path, url):
    """Other files there; an unknown protocol; a protocol whose package is missing."""
    fs, root = fsspec.core.url_to_fs(url)
    fs.makedirs(root, exist_ok=True)
    fs.pipe_file(f"{root}/thesis.tex", b"x")
    with pytest.raises(InputError, match=r"is no mirror .thesis.tex"):
        job([write(tmp_path / "in.txt", "ab")], tmp_path / "out", mirror=Mirror(url))
    with pytest.raises(InputError, match="nosuch://a cannot be opened"):
        Mirror("nosuch://a")


def test_a_store_that_fails_is_said_with_exit_code_4(tmp_path, monkeypatch):
    """What it says, and the next step."""
    mirror = Mirror("memory://failing")
    failing(mirror, 0, monkeypatch)
    with pytest.raises(
        StorageError, match=r"cannot copy to memory://failing: the line is down; .* on"
    ):
        job([write(tmp_path / "in.txt", "ab")], tmp_path / "out", mirror=mirror)
    assert StorageError.exit_code == 4


def test_a_missing_package_is_named(monkeypatch):
    """As fsspec says it."""

    def missing(url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(DependencyError, match="Install s3fs"):
        Mirror("s3://bucket/x")


def test_the_command_line_takes_urls_on_both_sides(tmp_path, url, monkeypatch):
    """Inputs at a URL, a mirror at another; a mirror of a single file is refused."""
    from echovec.cli import embed

    stub = Stub()
    stub.recipe = StubRecipe()
    monkeypatch.setattr(embed, "_load", lambda *_: stub)
    put_inputs(url)
    arguments = ["embed", f"{url}/in/*.jsonl*", "-o"]
    done = CliRunner().invoke(
        app, [*arguments, f"{tmp_path}/out/", "--mirror", f"{url}/out", "--shard-rows", "2"]
    )
    assert done.exit_code == 0, done.output
    assert f"copied to {url}/out" in done.stderr
    whole(f"{url}/out", tmp_path / "out")
    assert [text for _, text, _ in table(tmp_path / "out")] == ["one", "two", "three", "four"]
    refused = CliRunner().invoke(app, [*arguments, str(tmp_path / "out.npy"), "--mirror", url])
    assert "--mirror is for a folder" in str(refused.exception)


def put_inputs(url):
    fs, root = fsspec.core.url_to_fs(url)
    fs.makedirs(f"{root}/in", exist_ok=True)
    lines = [
        json.dumps({"text": text}).encode() + b"\n" for text in ("one", "two", "three", "four")
    ]
    fs.pipe_file(f"{root}/in/a.jsonl", b"".join(lines[:2]))
    fs.pipe_file(f"{root}/in/b.jsonl.gz", gzip.compress(b"".join(lines[2:])))
    fs.pipe_file(f"{root}/in/c.txt.zst", pa.compress(b"five\n", "zstd", asbytes=True))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": ["six"]}), sink)
    fs.pipe_file(f"{root}/in/d.parquet", sink.getvalue().to_pybytes())
    fs.pipe_file(f"{root}/in/_hidden.txt", b"no\n")


def test_inputs_at_a_url_are_read_as_files_are(url):
    """A folder, a pattern and a file, of every kind; what is not there or empty says so."""
    put_inputs(url)
    texts = [row.text for row in read_rows([f"{url}/in"])]
    assert texts == ["one", "two", "three", "four", "five", "six"]
    assert [row.text for row in read_rows([f"{url}/in/c.txt.zst"])] == ["five"]
    row = next(iter(read_rows([f"{url}/in/d.parquet"])))
    assert (
        row.where.endswith("vectors/in/d.parquet row 1") or "there/in/d.parquet row 1" in row.where
    )
    with pytest.raises(InputError, match="holds no input"):
        read_rows([f"{url}/none"])
    fs, root = fsspec.core.url_to_fs(url)
    fs.pipe_file(f"{root}/in/e.txt", b"")
    with pytest.raises(InputError, match=r"e\.txt is empty"):
        read_rows([f"{url}/in"])
    fs.pipe_file(f"{root}/in/b.jsonl.gz", b"no gzip")
    with pytest.raises(InputError, match=r"b\.jsonl\.gz cannot be read"):
        list(read_rows([f"{url}/in/b.jsonl.gz"]))
