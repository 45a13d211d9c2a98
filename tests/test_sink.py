"""corpus/sink.py: files of vectors, whole or not at all."""

import errno
import gc
import json
import os
import stat
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from echovec.corpus import sink as sinks
from echovec.corpus.sink import Chunk, Contents, Sink, check_out
from echovec.corpus.source import Row
from echovec.errors import InputError, StorageError
from echovec.files.disk import check_folder
from echovec.presets import preset
from echovec.recipe import Recipe

NO_RUN = {"role": None, "instruction": None, "truncate_dim": None}
CONTENTS = Contents(recipe_json='{"name": "echo"}', fingerprint="0123456789abcdef")
ENDINGS = ["parquet", "npy", "jsonl"]
TEXTS = ["plain", "line\nend \u2028 \x00 \x85", "Ünïcödé 🙂"]


def chunk(count, start=0, dimension=5):
    """`count` rows with unit-sized random vectors; every third is marked as cut."""
    numbers = range(start, start + count)
    rows = [Row(f"id{n}", TEXTS[n % 3] + str(n), f"f:{n}") for n in numbers]
    vectors = np.random.default_rng(start).standard_normal((count, dimension), dtype=np.float32)
    return Chunk(rows, vectors, np.array([n % 3 == 0 for n in numbers], dtype=bool))


def read(path):
    """What any of the three files holds: ids, texts, vectors, flags (None where left out)."""
    if path.suffix == ".parquet":
        table = pq.read_table(path).to_pydict()
        table["embedding"] = np.array(table["embedding"], dtype=np.float32)
        return [table.get(name) for name in ("id", "text", "embedding", "truncated")]
    lines = path.with_name(path.name + ".ids.jsonl") if path.suffix == ".npy" else path
    rows = [json.loads(line) for line in lines.read_bytes().splitlines()]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    vectors = np.load(path) if path.suffix == ".npy" else np.array(columns["embedding"], "<f4")
    return [columns["id"], columns.get("text"), vectors, columns.get("truncated")]


def names(folder):
    """Everything in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def run(sink, *parts, last=None):
    """Write the parts, do what is to be done last, and leave the sink."""
    with sink:
        for part in parts:
            sink.write(part)
        if last:
            last()


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_goes_in_comes_out_to_the_bit(tmp_path, ending):
    """Ids, texts, flags and every bit of every float32 survive, over several chunks."""
    out = tmp_path / f"out.{ending}"
    parts = [chunk(3), chunk(4, 3), chunk(1, 7)]
    extremes = np.array([1e-45, 3.4028235e38, -0.0, 1 / 3, 1e-7], dtype=np.float32)
    parts[1].vectors_ND[2] = extremes
    contents = Contents(recipe_json="{}", fingerprint="f", flag_truncated=True)
    with Sink(out, contents) as sink:
        for part in parts:
            sink.write(part)
    ids, texts, vectors, flags = read(out)
    assert ids == [row.id for part in parts for row in part.rows]
    assert texts == [row.text for part in parts for row in part.rows]
    assert flags == [flag for part in parts for flag in part.truncated_N.tolist()]
    expected = np.concatenate([part.vectors_ND for part in parts])
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("ending", ENDINGS)
def test_texts_and_flags_are_left_out_on_request(tmp_path, ending):
    """Without texts and flags a file holds ids and vectors alone."""
    out = tmp_path / f"out.{ending}"
    with Sink(out, Contents(recipe_json="{}", fingerprint="f", keep_text=False)) as sink:
        sink.write(chunk(2))
    ids, texts, _, flags = read(out)
    assert (ids, texts, flags) == (["id0", "id1"], None, None)


def test_parquet_has_the_columns_and_the_recipe_it_promises(tmp_path):
    """Column types are fixed, and recipe and fingerprint stand in the file's own metadata."""
    out = tmp_path / "out.parquet"
    with Sink(out, CONTENTS) as sink:
        sink.write(chunk(3))
    schema = pq.read_schema(out)
    assert schema.names == ["id", "text", "embedding"]
    assert schema.types == [pa.string(), pa.string(), pa.list_(pa.float32(), 5)]
    metadata = pq.read_metadata(out).metadata
    assert metadata[b"echovec.recipe"] == b'{"name": "echo"}'
    assert metadata[b"echovec.fingerprint"] == b"0123456789abcdef"


def run_of(path):
    """What a file, or the recipe beside it, says of how `encode` was called."""
    if path.suffix == ".parquet":
        return json.loads(pq.read_metadata(path).metadata[b"echovec.run"])
    return json.loads(path.with_name(path.name + ".recipe.json").read_text("utf-8"))["run"]


RUNS = {
    "nothing": {},
    "role": {"role": "query"},
    "all": {"role": "document", "instruction": 'Gib "Text"\n\u2028 🙂 zurück', "truncate_dim": 3},
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("given", RUNS.values(), ids=RUNS)
def test_a_file_says_how_its_vectors_were_asked_for(tmp_path, ending, given):
    """Role, instruction and dimensions are always there, null where `encode` was given none."""
    out = tmp_path / f"out.{ending}"
    with Sink(out, Contents(recipe_json="{}", fingerprint="f", **given)) as sink:
        sink.write(chunk(2))
    assert run_of(out) == {**NO_RUN, **given}


@pytest.mark.parametrize("name", ["echo", "echo-instruct"])
@pytest.mark.parametrize("ending", ["npy", "jsonl"])
def test_the_recipe_beside_a_file_is_read_as_a_recipe(tmp_path, ending, name):
    """What it says of the run does not keep `Recipe.from_json` from reading it."""
    recipe = preset(name)
    contents = Contents(recipe_json=recipe.to_json(), fingerprint=recipe.fingerprint, **RUNS["all"])
    with Sink(tmp_path / f"out.{ending}", contents) as sink:
        sink.write(chunk(2))
    text = (tmp_path / f"out.{ending}.recipe.json").read_text("utf-8")
    assert Recipe.from_json(text) == recipe


def test_npy_is_plain_and_can_be_mapped(tmp_path):
    """The .npy file is C-ordered little-endian float32 [n, d] that numpy maps without reading."""
    out = tmp_path / "out.npy"
    with Sink(out, CONTENTS) as sink:
        for start in range(0, 12_000, 1000):
            sink.write(chunk(1000, start))
    vectors = np.load(out, mmap_mode="r")
    assert (vectors.shape, vectors.dtype.str, vectors.flags.c_contiguous) == (
        (12_000, 5),
        "<f4",
        True,
    )
    recipe = json.loads((tmp_path / "out.npy.recipe.json").read_text())
    assert recipe == {"name": "echo", "run": NO_RUN}


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_else_is_left_in_the_folder(tmp_path, ending):
    """After a good run there are OUT and what belongs to it, readable as any new file is."""
    out = tmp_path / f"out.{ending}"
    for overwrite in (False, True):
        with Sink(out, CONTENTS, overwrite=overwrite) as sink:
            assert not out.exists() or overwrite
            sink.write(chunk(2))
    kinds = {"parquet": [], "npy": [".ids.jsonl", ".recipe.json"], "jsonl": [".recipe.json"]}
    assert names(tmp_path) == sorted(f"out.{ending}{s}" for s in ["", *kinds[ending]])
    (tmp_path / "plain").touch()
    assert stat.S_IMODE(out.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, MemoryError])
@pytest.mark.parametrize("chunks", [0, 2])
def test_an_interrupted_run_leaves_nothing(tmp_path, ending, error, chunks):
    """Ctrl-C or any exception before the end leaves no OUT and no temporary file."""

    def fail():
        raise error

    parts = [chunk(2, 2 * n) for n in range(chunks)]
    with pytest.raises(error):
        run(Sink(tmp_path / f"out.{ending}", CONTENTS), *parts, last=fail)
    assert names(tmp_path) == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_rows_is_an_input_error(tmp_path, ending):
    """A file of no vectors is not written."""
    with pytest.raises(InputError, match="there are no rows to write"):
        run(Sink(tmp_path / f"out.{ending}", CONTENTS))
    assert names(tmp_path) == []


def failing_open(sink, code):
    """Let the sink's own files fail with `code` once they are to hold more than 100 bytes."""
    real = sink._open

    class Full:
        def __init__(self, file):
            self.file, self.size = file, 0

        def write(self, data):
            self.size += memoryview(data).nbytes
            if self.size > 100:
                raise OSError(code, os.strerror(code))
            return self.file.write(data)

        def __getattr__(self, name):
            return getattr(self.file, name)

    sink._open = lambda suffix: Full(real(suffix))


CODES = {
    errno.ENOSPC: "No space left on device; free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "ulimit -f",
    errno.EROFS: "choose a folder that can be written to",
    errno.EACCES: "choose a folder that you may write to",
    errno.EIO: "check the disk",
    errno.ENXIO: "check the folder and its disk",
}


@pytest.fixture
def collected():
    """Free what an error's traceback still holds now.

    pyarrow formats the error again, with `ast`, wherever its writer is freed; up to Python 3.11.7
    that breaks an `ast.parse` which is just running (python/cpython#106905), such as the next
    test's `np.load`. What was there before the test is not gone through: that takes a while.
    """
    gc.freeze()
    yield
    gc.collect()
    gc.unfreeze()


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_folder_is_flushed_after_the_last_rename(tmp_path, monkeypatch, ending):
    """Without it a power loss could undo a rename of a run that said it was through."""
    synced, out = [], tmp_path / f"out.{ending}"
    monkeypatch.setattr(sinks, "sync_folder", lambda at: synced.append((at, out.exists())))
    with Sink(out, CONTENTS) as sink:
        sink.write(chunk(2))
        assert not synced
    assert synced == [(tmp_path.resolve(), True)]


@pytest.mark.usefixtures("collected")
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("code", CODES, ids=errno.errorcode.get)
@pytest.mark.parametrize("step", ["write", "fsync", "rename"])
def test_a_failing_disk_is_a_storage_error_and_loses_nothing(
    tmp_path, monkeypatch, ending, code, step
):
    """At each step: the file, the reason and the next step are named; the old OUT is untouched."""
    out = tmp_path / f"out.{ending}"
    with Sink(out, CONTENTS) as sink:
        sink.write(chunk(2))
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}

    def fail(*_):
        raise OSError(code, os.strerror(code))

    sink = Sink(out, CONTENTS, overwrite=True)
    if step == "write":
        failing_open(sink, code)
    elif step == "fsync":
        monkeypatch.setattr("os.fsync", fail)
    before_renaming = None
    if step == "rename":

        def before_renaming():
            monkeypatch.setattr("pathlib.Path.replace", fail)

    with pytest.raises(StorageError) as caught:
        run(sink, *(chunk(50, 50 * n) for n in range(3)), last=before_renaming)
    assert f"cannot write {out}: " in str(caught.value)
    assert CODES[code] in str(caught.value)
    assert caught.value.exit_code == 4
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before


@pytest.mark.parametrize("ending", ["npy", "jsonl"])
@pytest.mark.parametrize("which", range(6))
def test_every_rename_may_fail(tmp_path, monkeypatch, ending, which):
    """Whichever of the renames fails, OUT and the files beside it stay those of one run."""
    out = tmp_path / f"out.{ending}"
    with Sink(out, CONTENTS) as sink:
        sink.write(chunk(2))
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    renames = 2 * len(before)
    real, calls = type(tmp_path).replace, []

    def fail_once(path, target):
        calls.append(target)
        if len(calls) == which + 1:
            raise OSError(errno.EIO, "Input/output error")
        return real(path, target)

    monkeypatch.setattr("pathlib.Path.replace", fail_once)
    sink = Sink(out, Contents(recipe_json="{}", fingerprint="new"), overwrite=True)
    if which < renames:
        with pytest.raises(StorageError):
            run(sink, chunk(3, 5))
        assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before
    else:
        run(sink, chunk(3, 5))
        assert len(read(out)[0]) == 3
        assert len(calls) == renames


def test_a_folder_that_cannot_be_made_a_file_in_is_a_storage_error(tmp_path, monkeypatch):
    """Opening the temporary files may fail too, and leaves nothing: the first was made."""
    real, calls = os.open, []

    def second_fails(path, flags, mode):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, flags, mode)

    monkeypatch.setattr(sinks.os, "open", second_fails)
    with pytest.raises(StorageError, match="No space left"), Sink(tmp_path / "out.npy", CONTENTS):
        pass
    assert names(tmp_path) == []


def test_a_link_stays_a_link(tmp_path):
    """OUT that is a link: the file it points to is replaced."""
    (tmp_path / "real.parquet").write_bytes(b"old")
    out = tmp_path / "out.parquet"
    out.symlink_to("real.parquet")
    with Sink(out, CONTENTS, overwrite=True) as sink:
        sink.write(chunk(2))
    assert out.is_symlink()
    assert read(tmp_path / "real.parquet")[0] == ["id0", "id1"]


# --- what can be wrong with OUT before the work starts ---


def test_an_unknown_ending_lists_the_known_ones(tmp_path):
    """Only three endings are written."""
    with pytest.raises(InputError, match=r"\.csv.*\.parquet, \.npy, \.jsonl"):
        check_out(tmp_path / "out.csv")
    with pytest.raises(InputError, match='the ending "" is not known'):
        check_out("-")


def test_a_missing_folder_gives_the_command_that_makes_it(tmp_path):
    """The folder is not made unasked, as it may be a slip."""
    with pytest.raises(InputError) as caught:
        check_out(tmp_path / "new folder" / "out.npy")
    assert str(caught.value).endswith(f"make it with: mkdir -p '{tmp_path / 'new folder'}'")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is not a folder"):
        check_out(tmp_path / "file" / "out.npy")


@pytest.mark.parametrize("there", ["out.npy", "out.npy.ids.jsonl", "out.npy.recipe.json"])
def test_no_file_is_replaced_unasked(tmp_path, there):
    """Nor is one that only stands beside OUT."""
    (tmp_path / there).touch()
    with pytest.raises(InputError, match=f"{there} exists; replace it with --overwrite"):
        check_out(tmp_path / "out.npy")
    check_out(tmp_path / "out.npy", overwrite=True)


def test_an_input_is_never_replaced(tmp_path):
    """Not under another name of it either."""
    path = tmp_path / "a.jsonl"
    path.touch()
    (tmp_path / "b.jsonl").symlink_to(path)
    with pytest.raises(InputError, match="is also an input"):
        check_out(tmp_path / "b.jsonl", overwrite=True, inputs=[path])


def test_a_folder_in_the_place_of_out_is_refused(tmp_path):
    """Not even --overwrite replaces a folder."""
    (tmp_path / "out.npy").mkdir()
    with pytest.raises(InputError, match="is there and not a file"):
        check_out(tmp_path / "out.npy", overwrite=True)


def test_a_folder_without_write_rights_and_a_name_too_long_are_storage_errors(
    tmp_path, monkeypatch
):
    """Both are known before the model is loaded."""
    with pytest.raises(StorageError, match="choose a shorter name"):
        check_out(tmp_path / ("x" * 300 + ".npy"))
    monkeypatch.setattr(sinks.os, "access", lambda *_: False)
    with pytest.raises(StorageError, match="cannot be written to; choose another one"):
        check_out(tmp_path / "out.npy")


def test_a_folder_to_be_may_not_be_there_but_what_it_lies_in_takes_it(tmp_path, monkeypatch):
    """A file in its place or above it is no folder; nothing is made by asking."""
    for place in (tmp_path, tmp_path / "new" / "er"):
        check_folder(place)
    assert not list(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    check_folder(Path("new"))
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "out", Path("file")):
        with pytest.raises(InputError, match="file is not a folder"):
            check_folder(place)
    with pytest.raises(StorageError, match="choose a shorter name"):
        check_folder(tmp_path / ("x" * 300))
    monkeypatch.setattr(sinks.os, "access", lambda *_: False)
    with pytest.raises(StorageError, match="cannot be written to; choose another one"):
        check_folder(tmp_path / "new")
