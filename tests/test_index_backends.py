"""One suite over every backend of an index, and what only LanceDB's can do."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from echovec import Index
from echovec.cli import app
from echovec.errors import DependencyError, InputError, NonFiniteError, StorageError
from echovec.search import build, lance, lance_table
from echovec.search.backend import BACKENDS, Hit
from search_stub import MADE, TEXTS, Letters, some_vectors, source, write_parquet

LANCE = pytest.mark.skipif(find_spec("lancedb") is None, reason="the extra search")
EVERY = [pytest.param(name, marks=[LANCE] if name == "lance" else []) for name in BACKENDS]


@pytest.fixture(params=EVERY)
def backend(request):
    """The name of each backend in turn."""
    return request.param


@pytest.fixture
def words(tmp_path):
    """A small lance index of texts with fields."""
    pytest.importorskip("lancedb", reason="the extra search")
    embedder = Letters()
    made = source(
        embedder.encode(TEXTS), texts=TEXTS, year=[1990, 2000, 2008, 2009, 1847], it_s=["'"] * 5
    )
    return Index.build(made, tmp_path / "words", backend="lance", embedder=embedder)


def test_answers_are_those_of_a_naive_search(tmp_path, backend):
    """Ids, order and scores; also after the index is opened again."""
    vectors, asked = some_vectors(300), some_vectors(4, seed=9)
    vectors[[40, 41]] = vectors[7]
    Index.build(source(vectors), tmp_path / "index", backend=backend)
    index = Index.open(tmp_path / "index", verify=True)
    assert (len(index), index.facts.backend) == (300, backend)
    for query, hits in zip(
        [*asked, vectors[7]], index.search([*asked, vectors[7]], 8), strict=True
    ):
        scores = vectors.astype(np.float64) @ query
        expected = sorted(range(300), key=lambda row: (-scores[row], row))[:8]
        assert [hit.id for hit in hits] == [f"r{row}" for row in expected]
        assert [hit.score for hit in hits] == pytest.approx(scores[expected], abs=1e-5)
        assert [hit.rank for hit in hits] == list(range(1, 9))


def test_rows_come_back_whole(tmp_path, backend):
    """Texts of any script, fields and missing values; all rows in blocks, and as points."""
    vectors = some_vectors(5)
    made = source(vectors, texts=TEXTS, year=[1, None, 3, 4, 5], ok=[True, False, None, True, True])
    index = Index.build(made, tmp_path / "index", backend=backend)
    for n, vector in enumerate(vectors):
        (hit,) = index.search(vector, 1)
        assert (hit.id, hit.text) == (f"r{n}", TEXTS[n])
        assert hit.fields["year"] == [1, None, 3, 4, 5][n]
    blocks = list(index.blocks())
    np.testing.assert_allclose(np.concatenate([b.vectors_ND for b in blocks]), vectors, atol=1e-6)
    points = index.points()
    assert (points.ids, points.texts) == ([f"r{n}" for n in range(5)], TEXTS)
    assert points.fields["ok"] == [True, False, None, True, True]


def test_shorter_vectors_and_their_recall(tmp_path, backend):
    """Queries are shortened as the rows were, whatever the backend."""
    vectors = some_vectors(200)
    index = Index.build(source(vectors), tmp_path / "i", backend=backend, dim=12, reduce="pca")
    assert 0.2 < index.facts.recall["recall"] < 1
    assert index.search(vectors[3], 1)[0].id == "r3"


def test_rebuilding_leaves_only_the_new_index(tmp_path, backend):
    """--overwrite replaces an index by one of any backend, and nothing stays behind."""
    Index.build(source(some_vectors(20)), tmp_path / "i", backend=backend)
    Index.build(source(some_vectors(9)), tmp_path / "i", backend=backend, overwrite=True)
    assert len(Index.open(tmp_path / "i")) == 9
    assert len([*(tmp_path / "i").glob("vectors-*"), *(tmp_path / "i").glob("lance-*")]) == 1


def test_a_bad_input_leaves_the_old_index(tmp_path, backend):
    """An id twice: refused before the old index is touched."""
    Index.build(source(some_vectors(20)), tmp_path / "i", backend=backend)
    twice = source(some_vectors(3), ids=["a", "b", "a"])
    with pytest.raises(InputError, match='id "a"'):
        Index.build(twice, tmp_path / "i", backend=backend, overwrite=True)
    assert len(Index.open(tmp_path / "i")) == 20


def test_the_backend_is_chosen_by_rows(monkeypatch, tmp_path):
    """Above the limit lance, where it is installed; an option of exact indexes asks for exact."""
    monkeypatch.setattr(build, "EXACT_ROWS", 10)
    plain = {"dtype": "float32", "codes": None}
    assert build.choose_backend(None, 10, plain) == "exact"
    assert build.choose_backend("exact", 11, plain) == "exact"
    assert build.choose_backend(None, 11, {"dtype": "int8", "codes": None}) == "exact"
    assert build.choose_backend(None, 11, {"dtype": "float32", "codes": "binary"}) == "exact"
    monkeypatch.setattr(build, "find_spec", lambda name: name)
    assert build.choose_backend(None, 11, plain) == "lance"
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    with pytest.warns(UserWarning, match=r"11 rows are many .*echovec\[search\]"):
        assert build.choose_backend(None, 11, plain) == "exact"


@LANCE
@pytest.mark.parametrize("name", ["a.b", "echovec_row", "_score", "_distance", "_rowid"])
def test_a_field_whose_name_lance_does_not_take_is_named(tmp_path, name):
    """An input to correct, and no fault of the disk; an exact index takes it."""
    made = source(some_vectors(3), **{name: [1, 2, 3]})
    with pytest.raises(InputError, match=f'LanceDB takes no field of the name "{name}"'):
        Index.build(made, tmp_path / "lance", backend="lance")
    exact = Index.build(made, tmp_path / "exact", backend="exact")
    assert exact.search(some_vectors(3)[1], 1)[0].fields == {name: 2}


def times(numbers, kind):
    return pa.array(numbers, pa.int64()).view(kind)


@pytest.mark.parametrize(
    ("column", "found"),
    [
        (times([3, None, 2], pa.timestamp("us")), datetime(1970, 1, 1, microsecond=3)),
        (times([5_000, None, 2_000], pa.time64("ns")), time(microsecond=5)),
        (times([123456789, None, 2000], pa.time64("ns")), "00:00:00.123456789"),
        (times([2**62, None, 0], pa.timestamp("us")), f"<value out of range: {2**62}>"),
        (times([2**62, None, 0], pa.duration("s")), f"{2**62} s"),
        (times([3, None, 0], pa.timestamp("us", "No/Where")), "1970-01-01 00:00:00.000003Z"),
    ],
)
def test_times_that_python_cannot_hold_are_texts(backend, column, found, tmp_path):
    """In hits, on a map and in its table: finer than a microsecond, or too far away; never cut."""
    vectors = np.eye(3, 8, dtype=np.float32)
    index = Index.build(source(vectors, at=column), tmp_path / "index", backend=backend)
    (hit,) = index.search(vectors[0], 1)
    assert hit.fields == {"at": found}
    values = index.points().fields["at"]
    assert values[:2] == [found, None]
    assert type(values[2]) is type(found), "one kind of value in a column"
    assert pa.array(values).null_count == 1


def test_nanoseconds_do_not_need_pandas():
    """Where it is not installed they are texts, and whole microseconds are times."""
    code = """
import sys

class NoPandas:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pandas":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NoPandas())
import pyarrow as pa
from echovec.search.rows import rows_of

def times(numbers, kind):
    return pa.array(numbers, pa.int64()).view(kind)

print(rows_of(pa.table({
    "fine": times([1717243200_123456789, None], pa.timestamp("ns", "UTC")),
    "whole": times([1717243200_123456000, None], pa.timestamp("ns")),
    "span": times([1, 1000], pa.duration("ns")),
})))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert eval(done.stdout, {"datetime": sys.modules["datetime"]}) == [
        {
            "fine": "2024-06-01 12:00:00.123456789Z",
            "whole": datetime(2024, 6, 1, 12, 0, 0, 123456),
            "span": "1 ns",
        },
        {"fine": None, "whole": None, "span": "1000 ns"},
    ]


def test_without_lancedb_the_extra_is_named(tmp_path, monkeypatch):
    """Building and opening say what to install."""
    monkeypatch.setattr(lance_table, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"echovec\[search\]"):
        Index.build(source(some_vectors(3)), tmp_path / "i", backend="lance")
    with pytest.raises(DependencyError, match="--backend exact"):
        lance_table.connect(tmp_path)


def test_an_exact_index_says_what_it_cannot(tmp_path):
    """Filters, words and updates: each names the backend that can."""
    index = Index.build(source(some_vectors(3, 26)), tmp_path / "i", embedder=Letters())
    for ask in (
        lambda: index.search("a", filter="x = 1"),
        lambda: index.search("a", by="words"),
        lambda: index.search("a", by="both"),
        lambda: index.update(source(some_vectors(3, 26))),
        lambda: index.remove(["r1"]),
    ):
        with pytest.raises(InputError, match="--backend lance"):
            ask()
    with pytest.raises(InputError, match="needs words"):
        index.search(np.ones(26), by="words")
    with pytest.raises(InputError, match="by='sound'"):
        index.search("a", by="sound")


def test_filters_choose_rows_before_they_are_ranked(words):
    """The best of those that meet the condition, as many as there are; mistakes say the fields."""
    hits = words.search("a cat on a mat", 5, filter="year >= 2000 AND year < 2009")
    assert [hit.id for hit in hits] == ["r1", "r2"]
    assert [hit.id for hit in words.search("x", filter="id = 'r4'")] == ["r4"]
    assert words.search("x", filter="year = 1") == []
    for bad in ("yaer > 3", "year >", "year > 'x y"):
        with pytest.raises(
            InputError, match=r"the filter .* fields are id, it_s, text, year"
        ) as caught:
            words.search("x", filter=bad)
        assert "echovec_" not in str(caught.value), "columns of ours are no fields"


def test_words_find_texts_without_a_model(words):
    """Full text needs no embedder; both lists are merged by rank."""
    words.embedder.asked.clear()
    hits = words.search("MARKETS rose", 5, by="words")
    assert [hit.id for hit in hits] == ["r3", "r2"]
    assert hits[0].score > hits[1].score
    assert words.search("zurich", by="words")[0].id == "r4", "case and accents do not count"
    assert words.embedder.asked == []
    assert words.search("markets", by="words", filter="year > 2008")[0].id == "r3"
    both = words.search("markets fell on a mat", 3, by="both")
    assert len(both) == 3
    assert both[0].score == pytest.approx(1 / 61 + 1 / 61, abs=1e-3)


def test_lists_are_merged_by_reciprocal_ranks():
    """By hand: what is in both lists beats what is first in one."""
    near = [Hit(1, 0.9, "a", None), Hit(2, 0.8, "b", None)]
    held = [Hit(1, 7.0, "c", None), Hit(2, 5.0, "b", None)]
    merged = lance._merged([near, held], 3)
    assert [(hit.rank, hit.id) for hit in merged] == [(1, "b"), (2, "a"), (3, "c")]
    assert merged[0].score == pytest.approx(2 / 62)


@LANCE
def test_words_are_found_in_texts_without_blanks(tmp_path, monkeypatch):
    """Chinese, Japanese and Thai by their words, the rest as ever; an old LanceDB warns."""
    texts = [
        "我今天在北京大学学习",
        "東京都に住んでいる猫",
        "สวัสดีชาวโลกภาษาไทย",
        "foo.bar(a_b) e-mail",
    ]
    made = source(some_vectors(4), texts=texts)
    index = Index.build(made, tmp_path / "index", backend="lance")
    words = ["北京", "猫", "ภาษา", "b", "bar"]
    found = [[hit.id for hit in index.search(word, by="words")] for word in words]
    assert found == [["r0"], ["r1"], ["r2"], ["r3"], ["r3"]]
    table = type(index._backend._table)
    create = table.create_index

    def old(self, column, *, config):
        if config.base_tokenizer == "icu/split":
            raise ValueError("unknown base tokenizer icu/split")
        create(self, column, config=config)

    monkeypatch.setattr(table, "create_index", old)
    with pytest.warns(
        UserWarning, match=r"unknown base .* update lancedb and build the index again"
    ):
        index = Index.build(made, tmp_path / "old", backend="lance")
    assert index.search("bar", by="words")[0].id == "r3"
    assert index.search("北京", by="words") == []


def test_updates_replace_by_id_and_are_flushed(words, monkeypatch):
    """New rows are added, rows of known ids replaced, others stay; files are flushed before."""
    flushed = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: flushed.append(fd) or real(fd))
    embedder = Letters()
    texts = ["a dog on a log", "zzz"]
    more = source(
        embedder.encode(texts), texts=texts, ids=["r0", "new"], year=[1, 2], it_s=["", ""]
    )
    words.update(more)
    assert len(flushed) > 4
    assert (len(words), words.facts.rows) == (6, 6)
    assert words.search("a dog on a log", 1)[0].id == "r0"
    assert words.search("zzz", 1)[0].text == "zzz"
    assert words.search("dog", by="words")[0].id == "r0"
    words.update(more)
    assert len(Index.open(words.folder)) == 6, "the same again changes nothing"
    assert words.remove(["new", "r1", "it's not there"]) == 2
    assert sorted(i for block in Index.open(words.folder).blocks() for i in block.ids) == [
        "r0",
        "r2",
        "r3",
        "r4",
    ]
    with pytest.raises(InputError, match="fingerprint '0123456789abcdef' and 'ffff"):
        words.update(source(some_vectors(2, 26), made=replace(MADE, fingerprint="f" * 16)))


def test_every_new_file_of_lance_is_flushed_before_a_call_returns(tmp_path, monkeypatch):
    """LanceDB flushes nothing: after a build, an update and a removal it is done for it."""
    pytest.importorskip("lancedb", reason="the extra search")
    flushed, real = set(), os.fsync

    def noted(descriptor):
        flushed.add(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    folder = tmp_path / "index"
    known = set()

    def check():
        new = {path for path in folder.glob("lance-*/**/*") if path.is_file()} - known
        assert new, "LanceDB writes new files, and changes none"
        places = new | {path.parent for path in new}
        assert not [str(path) for path in places if path.stat().st_ino not in flushed]
        known.update(new)
        flushed.clear()

    index = Index.build(source(some_vectors(3)), folder, backend="lance")
    check()
    index.update(source(some_vectors(2, seed=1), ids=["r0", "new"]))
    check()
    assert index.remove("new") == 1
    check()


def test_an_update_that_cannot_be_used_changes_nothing(words, monkeypatch):
    """A vector that is not finite, a field of another kind or name: before the first row is in."""
    monkeypatch.setattr(lance, "_MERGED_AT_ONCE", 1)
    bad = some_vectors(2, 26)
    bad[1] = np.nan
    two = {"ids": ["n1", "n2"], "texts": ["x", "y"]}
    good = source(some_vectors(1, 26), ids=["n3"], texts=["z"])
    for update, error, said in (
        ([good, source(bad, **two)], NonFiniteError, 'the vector of "n2" is not finite'),
        (source(bad, **two), NonFiniteError, 'the vector of "n2" is not finite'),
        (source(some_vectors(2, 26), **two, year=["1", "x"]), InputError, "of another kind"),
        (source(some_vectors(2, 26), **two, author=["1", "x"]), InputError, '"author" is not in'),
    ):
        with pytest.raises(error, match=said):
            words.update(update)
        assert len(Index.open(words.folder)) == 5


def test_a_field_that_an_update_lacks_is_null(words):
    """A row is replaced as a whole: nothing of the old one stays beside the new vector."""
    embedder = Letters()
    words.update(source(embedder.encode(["zzz"]), ids=["r0"], year=[1]))
    (hit,) = words.search("zzz", 1)
    assert (hit.id, hit.text, hit.fields) == ("r0", None, {"year": 1, "it_s": None})


def test_two_that_have_an_index_open_may_update_it_in_turn(words):
    """The second knows what the first has added: no id and no place in the order is there twice."""
    embedder = Letters()
    first, second = Index.open(words.folder), Index.open(words.folder)
    for index, ids in ((first, ["new", "r0"]), (second, ["new", "r1"])):
        texts = [f"{key} zzz" for key in ids]
        fields = {"year": [1, 2], "it_s": ["", ""]}
        index.update(source(embedder.encode(texts), ids=ids, texts=texts, **fields))
    rows = lance_table.open_table(next(words.folder.glob("lance-*"))).search()
    found = rows.select(["id", lance.ROW]).to_arrow().to_pydict()
    assert sorted(found["id"]) == ["new", "r0", "r1", "r2", "r3", "r4"]
    assert len(set(found[lance.ROW])) == 6
    assert Index.open(words.folder).facts.rows == 6


def test_an_index_that_was_built_again_is_not_written_to(words):
    """Who opened it before is told, and the new one stays as it is."""
    Index.build(source(some_vectors(9)), words.folder, backend="exact", overwrite=True)
    more = source(some_vectors(1, 26), ids=["n"], texts=["x"], year=[1], it_s=[""])
    for write in (lambda: words.remove(["r0"]), lambda: words.update(more)):
        with pytest.raises(StorageError, match="built again since it was opened; open it again"):
            write()
    assert len(Index.open(words.folder, verify=True)) == 9


def test_an_index_without_rows_answers_nothing_and_shows_nothing(words):
    """All rows were removed: a search finds none, a picture of none is refused."""
    assert words.remove([f"r{n}" for n in range(5)]) == 5
    assert words.search("cat") == []
    assert words.search("cat", by="both") == []
    for verb in ("map", "cluster", "dedup"):
        said = CliRunner().invoke(app, [verb, str(words.folder)])
        assert "holds no rows" in str(said.exception)


def test_ids_to_remove_may_be_one_or_none(words):
    """A text is one id, not its letters; of no ids there is nothing to do."""
    assert words.remove([]) == 0
    assert words.remove("r0") == 1
    assert len(words) == 4


@LANCE
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX errors")
def test_a_newest_version_that_may_not_be_read_stays(words, monkeypatch):
    """The disk refuses it for now: an error, and nothing is put aside that may be whole."""
    words.remove(["r0"])
    real = Path.read_bytes

    def refused(path):
        if path.suffix == ".manifest":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(StorageError, match="manifest cannot be read: Permission denied"):
        Index.open(words.folder)
    monkeypatch.setattr(Path, "read_bytes", real)
    assert len(Index.open(words.folder)) == 4
    assert not list(words.folder.rglob("*.damaged"))


@LANCE
def test_a_graph_finds_what_exact_search_finds(tmp_path, monkeypatch):
    """With a graph the recall is measured and kept; a filter that leaves little is still met."""
    monkeypatch.setattr(lance, "LEAST_ROWS", 500)
    vectors = some_vectors(3000, 32, clusters=40)
    made = source(vectors, n=list(range(3000)))
    index = Index.build(made, tmp_path / "i", backend="lance")
    assert index.facts.options["look"] == 200
    assert index.facts.recall["recall"] >= 0.95
    few = index.search(vectors[5], 10, filter="n > 2990")
    scores = vectors[2991:] @ vectors[5]
    assert [hit.id for hit in few] == [f"r{2991 + n}" for n in np.argsort(-scores)]


@LANCE
def test_where_the_graph_gives_too_few_every_row_is_compared(words, monkeypatch):
    """As it does where a filter leaves few of its rows."""
    opened = words._backend
    search, looks = opened._search, []

    def thin(query_D, k, where, look):
        looks.append(look)
        rows = search(query_D, k, where, None)
        return rows if look is None else rows.slice(0, 1)

    monkeypatch.setattr(opened, "_search", thin)
    opened._look = 200
    assert len(words.search("a cat", 3)) == 3
    assert len(words.search("a cat", 9)) == 5
    assert len(words.search("a cat", 1)) == 1
    assert looks == [200, None, 200, None, 200]


def test_a_poor_recall_makes_the_search_look_further(tmp_path, monkeypatch):
    """Each further look is tried in turn, the last compares every row; the result is kept."""
    monkeypatch.setattr(lance, "LEAST_ROWS", 500)
    looked = []

    def measured(opened, queries, truth):
        looked.append(opened._look)
        return {"at": 10, "queries": 100, "recall": 0.9 if opened._look is not None else 1.0}

    monkeypatch.setattr(build, "measure", measured)
    index = Index.build(source(some_vectors(600)), tmp_path / "i", backend="lance")
    assert looked == [200, 400, 800, None]
    assert index.facts.options["look"] is None
    assert index.facts.recall["recall"] == 1.0


@LANCE
@pytest.mark.parametrize("damage", [b"", b"not a manifest"], ids=["empty", "torn"])
def test_a_damaged_newest_version_is_put_aside(words, damage):
    """As after a power loss: the version before it answers, and it is said."""
    embedder = Letters()
    words.update(source(embedder.encode(["new"]), ids=["new"], texts=["new"], year=[1], it_s=[""]))
    versions = next(words.folder.glob("lance-*/rows.lance/_versions"))
    head = min(versions.glob("*.manifest"))
    head.write_bytes(damage)
    with pytest.warns(UserWarning, match="the one before it is used"):
        index = Index.open(words.folder, embedder=embedder)
    assert len(index) >= 5
    assert {"r0", "r4"} <= {i for block in index.blocks() for i in block.ids}
    for manifest in versions.glob("*.manifest"):
        manifest.write_bytes(damage)
    with (
        pytest.warns(UserWarning, match="is used"),
        pytest.raises(StorageError, match=r"cannot be opened .*; build the index again"),
    ):
        Index.open(words.folder)


def test_the_command_line_updates_and_filters(words, tmp_path, monkeypatch):
    """Index --update, search --by and --filter."""
    from echovec.search import index as indexes
    from echovec.search import query

    embedder = Letters()
    monkeypatch.setattr(indexes, "load_embedder", lambda folder, made: embedder)
    file = write_parquet(
        tmp_path / "more.parquet", embedder.encode(["oak"]), ids=["oak"], text=["oak"], year=[3]
    )
    runner, folder = CliRunner(), str(words.folder)
    said = runner.invoke(app, ["index", str(file), "-o", folder, "--update"])
    assert "5 rows and now 6" in said.stderr, said
    for option in (["--dtype", "int8"], ["--backend", "lance"], ["--overwrite"], ["--dim", "2"]):
        said = runner.invoke(app, ["index", str(file), "-o", folder, "--update", *option])
        assert f"{option[0]} is for a new index" in str(said.exception)
    arguments = ["search", folder, "oak", "--by", "words", "--filter", "year = 3", "--json"]
    (line,) = runner.invoke(app, arguments).stdout.splitlines()
    assert json.loads(line)["id"] == "oak"
    monkeypatch.setattr(query, "load_embedder", lambda *_: pytest.fail("loaded"))
    (line,) = runner.invoke(app, [*arguments, "--model", "none"]).stdout.splitlines()
    assert json.loads(line)["id"] == "oak"


WRITER = """
import sys
sys.path.insert(0, {tests!r})
from echovec import Index
from search_stub import source, some_vectors
index = Index.open({folder!r})
for n in range(1000):
    ids = [f"{{n}}-{{row}}" for row in range(7)]
    index.update(source(some_vectors(7, 26, seed=n), ids=ids, texts=ids, year=[n] * 7, it_s=ids))
    print(n, flush=True)
"""


@LANCE
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_kill_9_during_updates_loses_no_acknowledged_row(words):
    """After each of 8 kills every row that was acknowledged is there, and the index opens."""
    code = WRITER.format(tests=str(Path(__file__).parent), folder=str(words.folder))
    for kill in range(8):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        acknowledged = [process.stdout.readline() for _ in range(2 + kill % 3)]
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        done = [int(line) for line in [*acknowledged, *rest.splitlines()] if line.strip()]
        index = Index.open(words.folder)
        there = {i for block in index.blocks() for i in block.ids}
        assert {f"{n}-{row}" for n in done for row in range(7)} <= there
        assert len(there) == len(index), "no id is there twice"
