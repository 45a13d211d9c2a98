"""The corpus job: shards, manifest, going on, changed input, equal texts, rejected rows."""

import bz2
import errno
import gzip
import json
import lzma
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from corpus_stub import Stub, job, shards, table, vector_of
from echovec.cli import app
from echovec.cli import embed as embed_verb
from echovec.corpus import slices
from echovec.corpus.count import count_rows
from echovec.corpus.slices import cut
from echovec.corpus.source import Problem, Row, read_rows
from echovec.errors import InputError, StorageError
from echovec.files import manifest, parquet
from echovec.files.known import Known, hash_texts


@pytest.fixture
def texts(tmp_path):
    """A writer of text files: lines in, path out."""

    def write(lines, name="in.txt"):
        path = tmp_path / name
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    return write


def numbered(count, start=0):
    return [f"text {n}" for n in range(start, start + count)]


def entries(folder):
    return manifest.read(folder / "manifest.jsonl")[0]


def test_every_row_is_there_once_in_order_with_its_own_vector(texts, tmp_path):
    """What the shards hold is the input, and each vector is that of its text alone."""
    lines = numbered(11)
    done = job([texts(lines)], tmp_path / "out")
    found = table(tmp_path / "out")
    assert [text for _, text, _ in found] == lines
    assert [key for key, _, _ in found] == [str(n) for n in range(11)]
    for _, text, vector in found:
        assert np.array_equal(np.float32(vector), vector_of(text))
    assert (done.rows, done.shards, done.resumed) == (11, 3, 0)
    assert [(e.start, e.stop) for e in entries(tmp_path / "out")] == [(0, 4), (4, 8), (8, 11)]


def test_a_second_run_embeds_nothing_and_changes_no_byte(texts, tmp_path):
    """A finished job is finished."""
    path, out = texts(numbered(10)), tmp_path / "out"
    job([path], out)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    stub = Stub()
    done = job([path], out, stub)
    assert stub.seen == []
    assert (done.rows, done.resumed) == (10, 10)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_what_the_manifest_lacks_is_what_is_done_again(texts, tmp_path, missing):
    """Without one line of the manifest only that slice is embedded, into equal bytes."""
    path, out = texts(numbered(11)), tmp_path / "out"
    job([path], out)
    before = shards(out)
    kept = [entry for n, entry in enumerate(entries(out)) if n != missing]
    manifest.rewrite(out / "manifest.jsonl", kept)
    stub = Stub()
    job([path], out, stub)
    assert stub.seen == numbered(11)[4 * missing : 4 * missing + 4]
    assert shards(out) == before


def test_rows_added_at_the_end_cost_only_themselves(texts, tmp_path):
    """Tomorrow's longer file goes on where today's ended, also from a shard that was not full."""
    out = tmp_path / "out"
    job([texts(numbered(6))], out)
    stub = Stub()
    done = job([texts(numbered(9))], out, stub)
    assert stub.seen == numbered(3, 6)
    assert [text for _, text, _ in table(out)] == numbered(9)
    assert (done.rows, done.resumed) == (9, 6)


def test_another_recipe_is_refused_with_both_fingerprints(texts, tmp_path):
    """Vectors of two recipes never share a folder."""
    path, out = texts(numbered(5)), tmp_path / "out"
    job([path], out)
    with pytest.raises(InputError, match=r"0123456789abcdef.*fedcba9876543210.*--overwrite"):
        job([path], out, Stub("fedcba9876543210"))
    stub = Stub("fedcba9876543210")
    job([path], out, stub, overwrite=True)
    assert len(stub.seen) == 5
    assert {entry.fingerprint for entry in entries(out)} == {"fedcba9876543210"}


def test_other_options_are_refused_too(texts, tmp_path):
    """The number of rows a shard decides the slices: it stays."""
    path, out = texts(numbered(5)), tmp_path / "out"
    job([path], out)
    with pytest.raises(InputError, match="shard_rows 4, now 3"):
        job([path], out, shard_rows=3)


def test_changed_input_is_refused_with_both_hashes_and_overwrite_keeps_vectors(texts, tmp_path):
    """One changed text: the job stops; begun anew, only that text is embedded."""
    out, lines = tmp_path / "out", numbered(9)
    job([texts(lines)], out)
    lines[5] = "changed"
    path = texts(lines)
    with pytest.raises(InputError, match=r"rows 4 to 8 had the hash [0-9a-f]{16} when .* have"):
        job([path], out)
    stub = Stub()
    job([path], out, stub, overwrite=True)
    assert stub.seen == ["changed"]
    assert [text for _, text, _ in table(out)] == lines
    assert set(shards(out)) == {entry.file for entry in entries(out)}, "old shards are gone"
    assert not (out / "manifest.old.jsonl").exists()


def test_shorter_input_is_refused(texts, tmp_path):
    """Rows that are gone are not passed over in silence."""
    out = tmp_path / "out"
    job([texts(numbered(8))], out)
    with pytest.raises(InputError, match=r"has 4 rows, and .* was made of 8"):
        job([texts(numbered(4))], out)


def test_equal_texts_are_embedded_once_across_shards(texts, tmp_path):
    """The model sees each text once; every row has its vector all the same."""
    lines = [f"text {n % 5}" for n in range(23)]
    stub = Stub()
    done = job([texts(lines)], tmp_path / "out", stub)
    assert sorted(stub.seen) == sorted(["text 0", "text 1", "text 2", "text 3", "text 4"])
    for (_, text, vector), line in zip(table(tmp_path / "out"), lines, strict=True):
        assert text == line
        assert np.array_equal(np.float32(vector), vector_of(line))
    assert done.reused == 23 - 5


def test_broken_rows_are_named_counted_and_cost_nobody_else(tmp_path):
    """A broken row, an id used twice and a text without tokens go to rejected.jsonl."""
    path, out = tmp_path / "in.jsonl", tmp_path / "out"
    rows = [{"id": f"r{n}", "text": f"text {n}"} for n in range(10)]
    rows[2]["text"] = "!"
    rows[7]["id"] = "r0"
    lines = [json.dumps(row) for row in rows]
    lines[5] = "{broken"
    path.write_text("\n".join(lines) + "\n")
    done = job([path], out)
    assert (done.rows, done.rejected) == (7, 3)
    rejected = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert [row["where"] for row in rejected] == [f"{path}:{n}" for n in (3, 6, 8)]
    reasons = " ".join(row["reason"] for row in rejected)
    assert "not valid JSON" in reasons
    assert "used before, at row 0" in reasons
    assert "no tokens" in reasons
    again = job([path], out)
    assert (again.rows, again.rejected) == (7, 3)
    with pytest.raises(InputError, match="no tokens"):
        job([path], tmp_path / "strict", on_error="fail")


def test_a_broken_row_ends_a_job_that_is_to_stop_there(tmp_path):
    """Also one that reading finds, in a later slice; what was done before stays done."""
    path, out = tmp_path / "in.jsonl", tmp_path / "out"
    lines = [json.dumps({"id": f"r{n}", "text": f"text {n}"}) for n in range(7)]
    path.write_text("\n".join([*lines[:5], "{broken", *lines[5:]]) + "\n")
    with pytest.raises(InputError, match=r"in\.jsonl:6: .*not valid JSON.*--on-error skip"):
        job([path], out, on_error="fail")
    assert [(entry.start, entry.stop) for entry in entries(out)] == [(0, 4)]
    assert job([path], out).rejected == 1


def test_a_shard_that_is_still_right_is_taken_over_with_its_rejected_rows(texts, tmp_path):
    """Begun anew with the same input nothing is embedded, written again or forgotten."""
    path, out = texts(["a", "!", "b", "c", "d"]), tmp_path / "out"
    job([path], out)
    rejected = (out / "rejected.jsonl").read_text()
    places = {name: (out / name).stat().st_ino for name in shards(out)}
    stub = Stub()
    done = job([path], out, stub, overwrite=True)
    assert (stub.seen, done.rows, done.rejected) == ([], 4, 1)
    assert (out / "rejected.jsonl").read_text() == rejected
    assert {name: (out / name).stat().st_ino for name in shards(out)} == places
    assert [entry.versions for entry in entries(out)] == [{"stub": "1"}] * 2


def test_progress_tells_this_runs_rate(texts, tmp_path):
    """Rows that were there do not count as fast ones; characters are those of embedded texts."""
    out, told = tmp_path / "out", []
    job([texts(numbered(4))], out)
    job([texts([*numbered(8), "text 0"])], out, on_progress=told.append)
    assert [one.rows for one in told] == [8, 9]
    assert [one.characters for one in told] == [4 * len("text 0")] * 2
    for one in told:
        assert one.rows_per_second == pytest.approx((one.rows - 4) / one.seconds)


def test_the_command_line_makes_a_folder_and_tells_machines_how_far_it_is(
    texts, tmp_path, monkeypatch
):
    """A line of JSON for each shard; bad rows are left out, and options reach the job."""
    monkeypatch.setattr(embed_verb, "_load", lambda *_: Stub())
    minded = []
    monkeypatch.setattr(parquet, "give_memory_back", lambda: minded.append(1))
    path, out = texts(["a", "!", "b", "c", "d"]), tmp_path / "out"
    words = ["embed", str(path), "-o", f"{out}/", "--shard-rows", "2", "--no-text"]

    def run(*more):
        done = CliRunner().invoke(app, [*words, *more])
        return done, [json.loads(line) for line in done.stdout.splitlines()]

    done, told = run("--json-progress")
    assert done.exit_code == 0, done.output
    assert minded, "Arrow gives back what it frees"
    assert [one["rows"] for one in told] == [1, 3, 4]
    assert [one["rejected"] for one in told] == [1, 1, 1]
    assert {one["rows_total"] for one in told} == {5}
    for one in told:
        left = (5 - one["rows"] - 1) / one["rows_per_second"]
        assert one["remaining_seconds"] == pytest.approx(left, rel=0.01, abs=0.06)
    assert "text" not in pq.read_schema(min(out.glob("rows-*"))).names
    assert f"1 rejected, see {out}/rejected.jsonl" in done.stderr
    assert run("--json-progress")[1] == []
    shard = max(out.glob("rows-*"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    done, told = run("--repair", "--json-progress")
    assert "to be done again" in done.stderr
    assert [(one["rows"], one["resumed"]) for one in told] == [(4, 3)]
    texts(["a", "!", "x", "c", "d"])
    assert "has changed" in str(run()[0].exception)
    assert run("--overwrite")[0].exit_code == 0
    refused, _ = run("--overwrite", "--on-error", "fail", "--truncate-dim", "3")
    assert "no tokens" in str(refused.exception)


def test_a_slice_of_which_nothing_is_left_has_no_file(texts, tmp_path):
    """All rows of a shard rejected: its line says so, and a second run does not try again."""
    path, out = texts(["!", "!", "!!", "!", "good"]), tmp_path / "out"
    done = job([path], out)
    assert (done.rows, done.rejected, done.shards) == (1, 4, 1)
    assert entries(out)[0].file is None
    assert job([path], out).rejected == 4


def test_long_texts_end_a_slice_early_and_always_in_the_same_place(monkeypatch):
    """Cuts depend on rows and characters alone, whatever is done already."""
    monkeypatch.setattr(slices, "SLICE_CHARACTERS", 30)
    rows = [Row(str(n), "x" * (40 if n == 3 else 3), "f") for n in range(12)]
    whole = list(cut(rows, 5))
    assert [(s.start, s.stop) for s in whole] == [(0, 4), (4, 9), (9, 12)]
    for k in range(8):
        done = [(s.start, s.stop) for n, s in enumerate(whole) if k >> n & 1]
        assert [(s.start, s.hash) for s in cut(rows, 5, done)] == [(s.start, s.hash) for s in whole]


def test_the_hash_of_a_slice_knows_ids_texts_and_their_borders():
    """Negative control: moving a character between id and text, or between rows, changes it."""

    def hash_of(*pairs):
        rows = [Row(key, text, "f") if key else Problem("f", text) for key, text in pairs]
        return next(cut(rows, 9)).hash

    same = hash_of(("a", "bc"), ("d", "e"))
    assert same == hash_of(("a", "bc"), ("d", "e"))
    others = [
        hash_of(("ab", "c"), ("d", "e")),
        hash_of(("a", "bcd"), ("", "e")),
        hash_of(("a", "bc")),
        hash_of(("d", "e"), ("a", "bc")),
    ]
    assert same not in others
    assert len(set(others)) == 4


@pytest.mark.parametrize("in_memory", [1 << 16, 150, 40], ids=["memory", "disk", "merged"])
def test_known_equals_a_dict(tmp_path, in_memory):
    """In memory and on the disk: what a dict finds, first number kept, in any order of adding."""
    random = np.random.default_rng(0)
    twin = {}
    with Known(tmp_path, in_memory) as known:
        for step in range(60):
            texts = [str(n) for n in random.integers(0, 6000, random.integers(1, 90))]
            places = np.arange(len(texts)) + 1000 * step
            for text, place in zip(texts, places.tolist(), strict=True):
                twin.setdefault(text, place)
            kept = known.add(hash_texts(texts), places)
            assert kept.tolist() == [twin[text] for text in texts]
        asked = [str(n) for n in range(7000)]
        assert known.find(hash_texts(asked)).tolist() == [twin.get(text, -1) for text in asked]
        assert len(known) == len(twin)
        assert bool(known._stored) == (in_memory < len(twin))
        assert in_memory > 40 or max(run.level for run in known._stored) >= 2
    assert not list(tmp_path.iterdir()), "its files have no names"


def traced(make):
    """Bytes that are held at the end of `make`, and the most meanwhile."""
    tracemalloc.start()
    try:
        kept = make()
        return tracemalloc.get_traced_memory(), kept
    finally:
        tracemalloc.stop()


def test_a_row_costs_few_bytes_of_memory(tmp_path):
    """400,000 hashes: under 4 bytes a row more than 100,000; a control in memory needs 24."""

    def grown(folder, rows):
        known = Known(folder, 1 << 14)
        for start in range(0, rows, 8192):
            places = np.arange(start, min(start + 8192, rows))
            raw = np.random.default_rng(start).bytes(16 * len(places))
            known.add(np.frombuffer(raw, "S16"), places)
        return known

    def cost(folder):
        few, many = (traced(lambda rows=rows: grown(folder, rows)) for rows in (100_000, 400_000))
        for _, known in (few, many):
            known.__exit__(None, None, None)
        return [(many[0][n] - few[0][n]) / 300_000 for n in (0, 1)]

    held, most = cost(tmp_path)
    assert held < 4
    assert most < 8
    assert min(cost(None)) > 20, "the control: all in memory"


# --- faults in the folder ---


def flip(path, at=100):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("harm", ["flip", "truncate", "delete"])
def test_a_harmed_shard_is_named_and_repair_does_it_again(texts, tmp_path, harm):
    """--repair finds the shard by its hash, embeds that slice only, and the bytes are back."""
    path, out = texts(numbered(11)), tmp_path / "out"
    job([path], out)
    before = shards(out)
    victim = out / entries(out)[1].file
    if harm == "flip":
        flip(victim)
    elif harm == "truncate":
        victim.write_bytes(victim.read_bytes()[:-7])
    else:
        victim.unlink()
    if harm != "flip":
        with pytest.raises(StorageError, match=f"{victim.name} is damaged .*--repair"):
            job([path], out)
    stub, told = Stub(), []
    job([path], out, stub, repair=True, on_start=lambda folder: told.extend(folder.repairs))
    assert stub.seen == numbered(4, 4)
    assert shards(out) == before
    assert len(told) == 1
    assert victim.name in told[0]


def test_a_damaged_vector_does_not_spread_to_equal_texts(texts, tmp_path):
    """A shard is checked by its hash before a vector is taken from it."""
    out = tmp_path / "out"
    job([texts(numbered(4))], out)
    flip(out / entries(out)[0].file)
    with pytest.raises(StorageError, match="sha256"):
        job([texts([*numbered(4), "text 1"])], out)


def test_a_torn_last_line_is_done_again_and_a_damaged_one_is_an_error(texts, tmp_path):
    """A crash tears only the end of the manifest; anything else needs --repair."""
    path, out = texts(numbered(11)), tmp_path / "out"
    job([path], out)
    file = out / "manifest.jsonl"
    whole, before = file.read_bytes(), shards(out)
    file.write_bytes(whole[:-20])
    stub = Stub()
    job([path], out, stub)
    assert stub.seen == numbered(3, 8)
    flip(file, whole.index(b'"rows": 4') + 8)
    with pytest.raises(StorageError, match=r"manifest.jsonl:1 is damaged; --repair"):
        job([path], out)
    job([path], out, repair=True)
    assert shards(out) == before
    assert len(entries(out)) == 3


def test_a_folder_of_something_else_is_left_alone(texts, tmp_path):
    """A typo in -o must not mix shards with a person's files."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="no corpus folder"):
        job([texts(["a"])], other)
    with pytest.raises(InputError, match="is a file"):
        job([texts(["a"])], texts(["b"], "b.txt"))


# --- inputs ---


def rows_in(*inputs, **options):
    return [row.text for row in read_rows([str(name) for name in inputs], **options)]


def test_folders_globs_and_compressed_files_are_inputs(tmp_path):
    """All ways to name the same files give the same rows, in the order of names."""
    lines = b"one\ntwo\n"
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_bytes(lines)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "c.txt.bz2").write_bytes(bz2.compress(lines))
    (tmp_path / "d.txt.xz").write_bytes(lzma.compress(lines))
    (tmp_path / "e.txt.zst").write_bytes(pa.compress(lines, "zstd", asbytes=True))
    (tmp_path / "sub" / "f.txt").write_bytes(lines)
    (tmp_path / ".hidden.txt").write_bytes(lines)
    assert rows_in(tmp_path) == ["one", "two"] * 6
    assert rows_in(tmp_path / "*.txt*") == ["one", "two"] * 5
    assert rows_in(tmp_path / "**" / "*.txt") == ["one", "two"] * 2
    assert count_rows([tmp_path / "**" / "*.txt"]) == 4
    assert count_rows([tmp_path]) is None
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(lines)[:-9])
    with pytest.raises(InputError, match=r"b.txt.gz cannot be read"):
        rows_in(tmp_path / "b.txt.gz")
    with pytest.raises(InputError, match="fits no file"):
        rows_in(tmp_path / "*.csv")


def test_files_of_no_known_kind_in_a_folder_are_spoken_of(tmp_path):
    """Nothing is left out in silence."""
    (tmp_path / "a.txt").write_text("one\n")
    (tmp_path / "notes.odt").write_text("x")
    with pytest.warns(UserWarning, match=r"1 files of no known kind are left out, .*notes.odt"):
        assert rows_in(tmp_path) == ["one"]


def test_links_and_locked_folders_in_a_folder_are_spoken_of(tmp_path, monkeypatch):
    """Links to files are read, those to folders left out aloud; what cannot be read is an error."""
    folder, other = tmp_path / "in", tmp_path / "other"
    (folder / "deep").mkdir(parents=True)
    other.mkdir()
    (other / "b.txt").write_text("two\n")
    (folder / "deep" / "a.txt").write_text("one\n")
    (folder / "z.txt").symlink_to(other / "b.txt")
    assert rows_in(folder) == ["one", "two"]
    (folder / "more").symlink_to(other)
    (folder / "deep" / "loop").symlink_to(folder)
    (folder / "_hidden").symlink_to(other)
    with pytest.warns(UserWarning, match=r"2 links to folders are left out, .*loop the first; nam"):
        assert rows_in(folder) == ["one", "two"]
    for link in (folder / "more", folder / "deep" / "loop"):
        link.unlink()
    (folder / "gone.txt").symlink_to(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"gone.txt is a link to .*nothing, which does not"):
        rows_in(folder)
    (folder / "gone.txt").unlink()
    scan = os.scandir

    def locked(path):
        if Path(path).name == "deep":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(InputError, match=r"deep cannot be read: Permission denied; check"):
        rows_in(folder)


def test_parquet_folders_and_saved_data_sets_are_inputs(tmp_path):
    """A folder of Parquet files, and what Hugging Face datasets writes with save_to_disk."""
    whole = pa.table({"id": ["a", "b", "c"], "text": ["one", "two", "three"]})
    parquet, saved = tmp_path / "parquet", tmp_path / "saved"
    parquet.mkdir()
    saved.mkdir()
    pq.write_table(whole.slice(0, 2), parquet / "0.parquet")
    pq.write_table(whole.slice(2), parquet / "1.parquet")
    with pa.OSFile(str(saved / "data.arrow"), "wb") as f, pa.ipc.new_stream(f, whole.schema) as s:
        s.write_table(whole)
    state = {"_data_files": [{"filename": "data.arrow"}], "_indices_data_files": None}
    (saved / "state.json").write_text(json.dumps(state))
    (saved / "dataset_info.json").write_text("{}")
    assert rows_in(parquet) == rows_in(saved) == ["one", "two", "three"]
    assert [row.id for row in read_rows([saved])] == ["a", "b", "c"]
    assert count_rows([parquet]) == 3
    (parquet / "1.parquet").write_bytes(b"PAR1 is not all of it")
    assert count_rows([parquet]) is None, "its reader says what is wrong with it"
    (saved / "state.json").write_text(json.dumps({**state, "_indices_data_files": [1]}))
    with pytest.raises(InputError, match="flatten_indices"):
        rows_in(saved)
