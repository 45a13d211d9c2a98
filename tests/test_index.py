"""Indexes: what is nearest is found, in a fixed order; what cannot be compared is refused."""

import errno
import json
import math
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock
from typer.testing import CliRunner

from corpus_stub import Stub, job
from durable import Durable
from echovec import Index
from echovec.cli import app
from echovec.corpus.formats import FORMATS, Chunk, Contents
from echovec.corpus.sink import Sink
from echovec.corpus.source import Row
from echovec.errors import InputError, NonFiniteError, StorageError
from echovec.files import disk
from echovec.presets import preset
from echovec.recipe import ModelIdentity
from echovec.search import query as queries
from search_stub import MADE, RECIPE, TEXTS, Letters, some_vectors, source, write_parquet

DTYPES = {"float32": 1e-6, "float16": 2e-3, "int8": 2e-2}


def naive(vectors, query, k):
    """The k best rows by float64 cosines, equal ones by row."""
    scores = vectors.astype(np.float64) @ query.astype(np.float64)
    return sorted(range(len(vectors)), key=lambda row: (-scores[row], row))[:k], scores


@pytest.fixture
def small(tmp_path):
    """Five texts and an embedder."""
    embedder = Letters()
    vectors = embedder.encode(TEXTS)
    embedder.asked.clear()
    made = source(vectors, texts=TEXTS, topic=["cats", "cats", "money", "money", "trains"])
    return Index.build(made, tmp_path / "small", embedder=embedder)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nearest_are_those_of_a_naive_search(tmp_path, dtype):
    """Ids and scores equal those of a loop over all rows, within what the dtype can say."""
    vectors, asked = some_vectors(500), some_vectors(7, seed=1)
    index = Index.build(source(vectors), tmp_path / "index", dtype=dtype)
    for query, hits in zip(asked, index.search(asked, 10), strict=True):
        _, scores = naive(vectors, query, 10)
        for rank, hit in enumerate(hits, 1):
            assert hit.rank == rank
            assert abs(hit.score - scores[int(hit.id[1:])]) < DTYPES[dtype]
        kth = np.sort(scores)[-10]
        assert all(scores[int(hit.id[1:])] > kth - 2 * DTYPES[dtype] for hit in hits)
        if dtype == "float32":
            assert [hit.id for hit in hits] == [f"r{row}" for row in naive(vectors, query, 10)[0]]


def test_equal_vectors_come_in_the_order_of_rows_alone_and_in_any_batch(tmp_path):
    """Ties are broken by the row, wherever a row stands in a block and whoever asks beside."""
    one = some_vectors(1, 40)[0]
    vectors = some_vectors(9001, 40, seed=2)
    where = [3, 17, 4000, 8191, 8192, 9000]
    vectors[where] = one
    index = Index.build(source(vectors), tmp_path / "index")
    expected = [f"r{row}" for row in where]
    assert [hit.id for hit in index.search(one, 6)] == expected
    assert [hit.id for hit in index.search(one, 3)] == expected[:3]
    assert [hit.id for hit in index.search(np.stack([vectors[5], one, -one]), 6)[1]] == expected


def test_many_queries_at_once_equal_one_after_the_other(tmp_path, monkeypatch):
    """Queries are taken in portions, which nobody notices."""
    from echovec.search import exact

    monkeypatch.setattr(exact, "SCORES_AT_ONCE", 700)
    vectors = some_vectors(300)
    index = Index.build(source(vectors), tmp_path / "index")
    together = index.search(vectors[:11], 4)
    assert together == [index.search(vector, 4) for vector in vectors[:11]]


def test_hits_carry_text_and_fields(small):
    """A hit says what the row holds; a single query gives one list, several give several."""
    hits = small.search("cats and mats", 2)
    assert [(hit.rank, hit.id, hit.text, hit.fields) for hit in hits] == [
        (1, "r0", TEXTS[0], {"topic": "cats"}),
        (2, "r1", TEXTS[1], {"topic": "cats"}),
    ]
    assert [[h.id for h in hits] for hits in small.search(["markets", "Zürich"], 1)] == [
        ["r3"],
        ["r4"],
    ]
    assert len(small.search("x", 99)) == 5, "fewer rows than asked for are no error"
    assert small.search([]) == []


@pytest.mark.parametrize(
    ("rows_role", "asked", "role"),
    [
        (None, None, None),
        ("document", None, "query"),
        ("document", "document", "document"),
        ("query", None, "query"),
        (None, "query", "query"),
    ],
)
def test_queries_are_embedded_on_the_side_that_fits(tmp_path, rows_role, asked, role):
    """Documents are searched by queries; a role that is asked for is used."""
    made = replace(MADE, role=rows_role, instruction="find", truncate_dim=5)
    embedder = Letters()
    vectors = embedder.encode(TEXTS, truncate_dim=5)
    index = Index.build(source(vectors, made=made), tmp_path / "index", embedder=embedder)
    index.search("cat", role=asked)
    instruction = None if role == "query" else "find"
    assert embedder.asked[-1] == (("cat",), role, instruction)


def test_a_role_that_the_recipe_embeds_apart_is_refused(tmp_path):
    """Rows of no side and a query of one do not go together where the recipe tells them apart."""
    recipe = json.dumps({"name": "stub", "views": {"symmetric": [], "query": []}})
    made = replace(MADE, recipe_json=recipe)
    embedder = Letters()
    index = Index.build(
        source(embedder.encode(TEXTS), made=made), tmp_path / "index", embedder=embedder
    )
    assert index.search("cat", role="document"), "the same as symmetric in this recipe"
    with pytest.raises(InputError, match=r"role 'query' .* rows were embedded as symmetric"):
        index.search("cat", role="query")


def test_vectors_of_two_recipes_are_refused_together(tmp_path):
    """The message shows both fingerprints; the same holds for roles and widths."""
    vectors = some_vectors(4)
    first = source(vectors, ids=list("abcd"), name="first")
    for other, said in (
        (replace(MADE, fingerprint="f" * 16), "'0123456789abcdef' and 'ffffffffffffffff'"),
        (replace(MADE, role="query"), "role None and 'query'"),
    ):
        with pytest.raises(InputError, match=said):
            Index.build([first, source(vectors, made=other, name="other")], tmp_path / "index")
    narrow = source(some_vectors(4, 23), name="narrow")
    with pytest.raises(InputError, match="24 and 23 dimensions"):
        Index.build([first, narrow], tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_queries_of_another_recipe_are_refused(small, tmp_path):
    """An embedder of another fingerprint, or vectors of another width: both values are shown."""
    other = Index.open(small.folder, embedder=Letters("f" * 16))
    with pytest.raises(InputError, match="fingerprint 0123456789abcdef and the query with fff"):
        other.search("cat")
    with pytest.raises(InputError, match=r"shape \(1, 25\); the index has 26"):
        small.search(np.ones(25))
    with pytest.raises(InputError, match="query 1 is zero or not finite"):
        small.search(np.stack([np.ones(26), np.full(26, np.nan)]))
    with pytest.raises(InputError, match="query 1 is None, and the first is a text"):
        small.search(["cat", None])
    with pytest.raises(InputError, match="k=0"):
        small.search("cat", 0)
    with pytest.raises(InputError, match="--backend lance"):
        small.search("cat", filter="topic = 'cats'")


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_a_vector_that_is_not_finite_is_named(tmp_path, bad):
    """Nothing is built of it, and the old index stays."""
    vectors = some_vectors(30)
    Index.build(source(vectors), tmp_path / "index")
    spoilt = vectors.copy()
    spoilt[17] = bad
    with pytest.raises(NonFiniteError, match='"r17"') as info:
        Index.build(source(spoilt), tmp_path / "index", overwrite=True)
    assert info.value.row == 17
    assert Index.open(tmp_path / "index", verify=True).search(vectors[17], 1)[0].id == "r17"
    assert not list((tmp_path / "index").glob(".echovec-*"))


def test_an_id_that_is_used_twice_is_named(tmp_path):
    """Within a file and between files; both rows are shown."""
    vectors = some_vectors(3)
    twice = [source(vectors, ids=["a", "b", "c"]), source(vectors, ids=["d", "e", "b"])]
    with pytest.raises(InputError, match=r'id "b" is that of two rows \(1 and 5 '):
        Index.build(twice, tmp_path / "index")


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("keep_text", [True, False])
def test_every_format_of_embed_can_be_indexed(tmp_path, ending, keep_text):
    """What the sink writes comes back: ids, texts, flags, vectors, in order."""
    vectors = some_vectors(5)
    rows = [Row(f"id {n}", text, "here") for n, text in enumerate(TEXTS)]
    contents = Contents(
        recipe_json=RECIPE,
        fingerprint=MADE.fingerprint,
        role="document",
        keep_text=keep_text,
        flag_truncated=True,
    )
    with Sink(tmp_path / f"out{ending}", contents) as sink:
        sink.write(Chunk(rows[:3], vectors[:3], np.array([True, False, False])))
        sink.write(Chunk(rows[3:], vectors[3:], np.array([False, False])))
    index = Index.build(tmp_path / f"out{ending}", tmp_path / "index")
    assert index.facts.made.role == "document"
    for n, vector in enumerate(vectors):
        hit = index.search(vector, 1)[0]
        assert (hit.id, hit.text) == (f"id {n}", TEXTS[n] if keep_text else None)
        assert hit.fields == {"truncated": n == 0}
        assert hit.score == pytest.approx(1, abs=1e-6)


def test_a_corpus_folder_can_be_indexed_and_a_damaged_shard_is_found(tmp_path):
    """Only shards of the manifest count; each is checked by its hash before it is read."""
    texts = [f"text {n}" for n in range(11)]
    (tmp_path / "in.txt").write_text("\n".join(texts))
    contents = Contents(recipe_json=RECIPE, fingerprint=MADE.fingerprint)
    job([tmp_path / "in.txt"], tmp_path / "vectors", Stub(), contents=contents)
    stray = tmp_path / "vectors" / f"rows-{'9' * 12}-{'0' * 12}.parquet"
    write_parquet(stray, some_vectors(3, 8), ids=["x", "y", "z"])
    index = Index.build(tmp_path / "vectors", tmp_path / "index")
    assert len(index) == 11
    for text in texts:
        assert index.search(Stub().encode([text])[0], 1)[0][0].text == text
    shard = sorted((tmp_path / "vectors").glob("rows-*"))[1]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(StorageError, match=f"{shard.name} is damaged .*--repair"):
        Index.build(tmp_path / "vectors", tmp_path / "again")


def test_several_files_with_different_fields_are_one_index(tmp_path):
    """A field that a file lacks is null in its rows; lists and bytes are left behind."""
    vectors = some_vectors(6)
    a = write_parquet(tmp_path / "a.parquet", vectors[:3], ids=list("abc"), year=[1, 2, 3])
    b = write_parquet(
        tmp_path / "b.parquet", vectors[3:], ids=list("def"), tag=["x", "y", "z"], raw=[b""] * 3
    )
    index = Index.build([a, b], tmp_path / "index")
    assert index.search(vectors[1], 1)[0].fields == {"year": 2, "tag": None}
    assert index.search(vectors[5], 1)[0].fields == {"year": None, "tag": "z"}


def test_what_is_no_index_or_no_vectors_says_so(tmp_path):
    """Each mistake is an InputError with the next step."""
    with pytest.raises(InputError, match=r"is no index .* echovec index"):
        Index.open(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(
        InputError, match=r"notes.txt is a file, not an index folder; name the .*echovec index"
    ):
        Index.open(tmp_path / "notes.txt")
    (tmp_path / "bare.npy").write_bytes(b"")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    good = source(some_vectors(3))
    for given, out, said in (
        (tmp_path / "none.parquet", "a", "does not exist"),
        (tmp_path / "notes.txt", "a", "embed the texts first"),
        (tmp_path / "bare.npy", "a", "does not say how"),
        (tmp_path / "full", "a", "holds no finished shard"),
        ([], "a", "no vectors"),
        (source(some_vectors(0)), "a", "holds no vectors"),
        (good, "notes.txt", "is a file"),
        (good, "full", "holds thesis.tex"),
    ):
        with pytest.raises(InputError, match=said):
            Index.build(given, tmp_path / out)
    Index.build(good, tmp_path / "index")
    with pytest.raises(InputError, match="--overwrite"):
        Index.build(good, tmp_path / "index")
    with pytest.raises(InputError, match="is an index; name the vectors"):
        Index.build(tmp_path / "index", tmp_path / "a")
    with pytest.raises(InputError, match="dtype 'int4'"):
        Index.build(good, tmp_path / "other", dtype="int4")


def test_a_flipped_bit_and_a_short_file_are_found(tmp_path):
    """Sizes are looked at always, hashes with verify; the file is named."""
    index = Index.build(source(some_vectors(50)), tmp_path / "index")
    file = next(index.folder.glob("vectors-*.npy"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    Index.open(index.folder)
    with pytest.raises(StorageError, match=f"{file.name} is damaged .*sha256 differs"):
        Index.open(index.folder, verify=True)
    file.write_bytes(data[:-1])
    with pytest.raises(StorageError, match=f"{file.name} is damaged"):
        Index.open(index.folder)


def test_an_index_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    """The disk's own reason, and a next step that fits it; what is no index.json is damaged."""
    index = Index.build(source(some_vectors(5)), tmp_path / "index")

    def refused(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", refused)
        with pytest.raises(StorageError, match=r"index.json cannot be read: Permission denied"):
            Index.open(index.folder)
    for content in ("[]", "7", "{"):
        (index.folder / "index.json").write_text(content)
        with pytest.raises(StorageError, match=r"index.json is damaged .* build the index again"):
            Index.open(index.folder)


class Failing:
    """The os module whose Nth write, flush or rename fails, or from there on nothing happens."""

    def __init__(self, nth, stop):
        self.nth, self.stop, self.calls = nth, stop, 0

    def __getattr__(self, name):
        real = getattr(os, name)
        if name not in ("write", "fsync", "replace"):
            return real

        def call(*arguments):
            self.calls += 1
            if self.calls == self.nth or (self.stop and self.nth and self.calls > self.nth):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments)

        return call


def test_a_build_is_flushed_before_its_index_names_it(tmp_path, monkeypatch):
    """No power loss can leave an index.json whose files are not whole."""
    watched = Durable()
    monkeypatch.setattr(disk, "os", watched)
    Index.build(source(some_vectors(20)), tmp_path / "index", codes="int8")
    watched.settled("the end")
    assert (watched.lost, watched.renames) == ([], 6)


@pytest.mark.parametrize("stop", [False, True], ids=["once", "from-then-on"])
def test_a_build_that_fails_at_any_write_leaves_the_old_index(tmp_path, monkeypatch, stop):
    """For every N: exit code 4, the old index answers, and the next build is whole."""
    old, new = some_vectors(20), some_vectors(20, seed=5)
    counter = Failing(0, False)
    monkeypatch.setattr(disk, "os", counter)
    Index.build(source(old), tmp_path / "index", dtype="int8")
    assert counter.calls > 15
    for nth in range(1, counter.calls + 1):
        monkeypatch.setattr(disk, "os", Failing(nth, stop))
        try:
            Index.build(source(new), tmp_path / "index", overwrite=True, dtype="int8")
            answers, said = new, None
        except StorageError as error:
            answers, said = old, error
        monkeypatch.setattr(disk, "os", os)
        assert said is None or (said.exit_code == 4 and "free some space" in str(said))
        index = Index.open(tmp_path / "index", verify=True)
        if index.search(answers[3], 1)[0].score < 0.99:
            # The rename was done and only its flush failed: the new one counts, whole.
            answers = new
        assert [index.search(vector, 1)[0].id for vector in answers[:5]] == [
            f"r{n}" for n in range(5)
        ]
        Index.build(source(old), tmp_path / "index", overwrite=True, dtype="int8")
        names = {path.name for path in (tmp_path / "index").iterdir()}
        assert len(names) == 6, f"nothing stays behind: {names}"


def test_a_build_that_fails_leaves_the_old_recipe(tmp_path, monkeypatch):
    """For every N: the index that opens has the recipe of its own vectors, arrays included."""
    vectors = some_vectors(5)
    arrays = [tmp_path / "old.safetensors", tmp_path / "new.safetensors"]
    recipes = ['{"name": "old"}', '{"name": "new"}']
    made = []
    for recipe, file, fingerprint in zip(recipes, arrays, ("0" * 16, "f" * 16), strict=True):
        file.write_text(recipe)
        one = replace(MADE, recipe_json=recipe, fingerprint=fingerprint)
        made.append(replace(source(vectors, made=one), arrays=file))
    counter = Failing(0, False)
    monkeypatch.setattr(disk, "os", counter)
    Index.build(made[1], tmp_path / "counted")
    for nth in range(1, counter.calls + 1):
        monkeypatch.setattr(disk, "os", os)
        Index.build(made[0], tmp_path / "index", overwrite=True)
        monkeypatch.setattr(disk, "os", Failing(nth, True))
        with pytest.raises(StorageError):
            Index.build(made[1], tmp_path / "index", overwrite=True)
        index = Index.open(tmp_path / "index", verify=True)
        name = "old" if index.fingerprint == "0" * 16 else "new"
        assert json.loads(index.facts.made.recipe_json)["name"] == name
        kept = index.folder / index.facts.files["arrays"].name
        assert kept.read_text() == f'{{"name": "{name}"}}'


def test_files_of_others_are_neither_deleted_nor_built_beside(tmp_path):
    """Names that are like an index's own: refused, and still there."""
    for name in ("train-features.npy", "rows-2024.arrow", "lance-database", "recipe.json"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text("mine")
        with pytest.raises(InputError, match=f"holds {name}"):
            Index.build(source(some_vectors(3)), folder)
        assert (folder / name).read_text() == "mine"


def test_an_index_of_the_format_before_is_replaced(tmp_path):
    """It is not read, it says so, and a build over it leaves nothing of it behind."""
    Index.build(source(some_vectors(3)), tmp_path / "index")
    facts = json.loads((tmp_path / "index" / "index.json").read_text())
    recipe = tmp_path / "index" / facts["files"].pop("recipe")["name"]
    recipe.rename(tmp_path / "index" / "recipe.json")
    (tmp_path / "index" / "index.json").write_text(json.dumps({**facts, "format": 1}))
    with pytest.raises(InputError, match="another format than 2; build it again"):
        Index.open(tmp_path / "index")
    Index.build(source(some_vectors(3)), tmp_path / "index", overwrite=True)
    assert len(Index.open(tmp_path / "index", verify=True)) == 3
    assert not (tmp_path / "index" / "recipe.json").exists()


def test_two_builds_in_one_folder_are_refused(tmp_path):
    """The second says so and changes nothing."""
    (tmp_path / "index").mkdir()
    with (
        FileLock(tmp_path / "index" / ".lock"),
        pytest.raises(StorageError, match="another build is writing"),
    ):
        Index.build(source(some_vectors(3)), tmp_path / "index")


def test_points_are_the_plane_of_largest_variance(tmp_path):
    """Their spread equals that of a singular value decomposition; a limit spreads evenly."""
    vectors = some_vectors(400)
    index = Index.build(source(vectors, texts=[f"t{n}" for n in range(400)]), tmp_path / "index")
    points = index.points()
    singular = np.linalg.svd(vectors - vectors.mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(np.linalg.norm(points.xy_N2, axis=0), singular[:2], rtol=1e-4)
    few = index.points(limit=5)
    assert few.ids == ["r0", "r100", "r200", "r299", "r399"]
    assert few.texts[1] == "t100"
    assert (few.num_rows, len(few.xy_N2)) == (400, 5)
    one = Index.build(source(vectors[:1]), tmp_path / "one").points()
    assert one.xy_N2.tolist() == [[0.0, 0.0]]


def test_the_command_line_builds_and_answers(tmp_path, monkeypatch):
    """Index and search end to end; the model is loaded by what the index says of its recipe."""
    embedder = Letters()
    vectors = embedder.encode(TEXTS)
    file = write_parquet(tmp_path / "v.parquet", vectors, text=TEXTS, score=[1, 2, 3, 4, 5])
    runner = CliRunner()
    out = str(tmp_path / "index")
    made = runner.invoke(app, ["index", str(file), "-o", out, "--dtype", "float16"])
    assert "5 vectors of 26 numbers" in made.stderr
    assert "fingerprint 0123456789abcdef" in made.stderr
    from echovec.search import index as indexes

    monkeypatch.setattr(indexes, "load_embedder", lambda folder, made: embedder)
    shown = runner.invoke(app, ["search", out, "a mat", "-k", "2"])
    assert shown.stdout.split()[2] == "r0"
    lines = runner.invoke(app, ["search", out, "markets", "-k", "1", "--json"]).stdout.splitlines()
    hit = json.loads(lines[0])
    assert (hit["rank"], hit["id"], hit["text"]) == (1, "r3", "markets rose")
    assert isinstance(hit["score"], float), "a field of the same name does not hide it"
    assert hit["field_score"] == 4, "nor is it hidden"


def test_a_hit_as_json_has_every_field(tmp_path, monkeypatch):
    """Fields called like a hit's own rank and score stand beside them, whatever else is there."""
    from echovec.search import index as indexes

    embedder = Letters()
    named = {"rank": [10, 20], "score": [None, 0.5], "field_rank": ["a", "b"], "year": [1, 2]}
    vectors = embedder.encode(TEXTS[:2])
    file = write_parquet(tmp_path / "v.parquet", vectors, text=TEXTS[:2], **named)
    index = Index.build(file, tmp_path / "index", embedder=embedder)
    monkeypatch.setattr(indexes, "load_embedder", lambda folder, made: embedder)
    asked = ["search", str(tmp_path / "index"), TEXTS[1], "-k", "1", "--json"]
    line = json.loads(CliRunner().invoke(app, asked).stdout)
    (hit,) = index.search(TEXTS[1], 1)
    assert hit.fields == {"rank": 20, "score": 0.5, "field_rank": "b", "year": 2}
    own = {"rank": 1, "score": round(hit.score, 6), "id": hit.id, "text": TEXTS[1]}
    assert line == own | {
        "field_field_rank": 20,
        "field_score": 0.5,
        "field_rank": "b",
        "year": 2,
    }


def test_a_number_that_json_has_none_for_is_null_in_a_hit(tmp_path, monkeypatch):
    """As in a file of lines; a reader of JSON that is not Python's refuses NaN."""
    from echovec.search import index as indexes

    embedder = Letters()
    named = {"price": [math.nan, math.inf], "year": [1.5, 2.5]}
    vectors = embedder.encode(TEXTS[:2])
    file = write_parquet(tmp_path / "v.parquet", vectors, text=TEXTS[:2], **named)
    Index.build(file, tmp_path / "index", embedder=embedder)
    monkeypatch.setattr(indexes, "load_embedder", lambda folder, made: embedder)
    asked = ["search", str(tmp_path / "index"), TEXTS[1], "--json"]
    lines = CliRunner().invoke(app, asked).stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        hit = json.loads(line, parse_constant=pytest.fail)
        assert hit["price"] is None
        assert hit["year"] in (1.5, 2.5)


def test_the_revision_that_the_stored_recipe_names_is_loaded(tmp_path, monkeypatch):
    """Of the model that it names, not of another that the caller gives."""
    model = ModelIdentity(
        name="a/b", hash="", tokenizer_hash="", bos_id=None, eos_id=None, path="a/b", revision="c0"
    )
    bound = replace(preset("echo"), model=model)
    made = replace(MADE, recipe_json=bound.to_json(), fingerprint=bound.fingerprint)
    index = Index.build(source(np.eye(3, 8), made=made, texts=["a", "b", "c"]), tmp_path / "index")
    asked = []

    def load(model, recipe, *, revision):
        asked.append((model, revision))
        return SimpleNamespace(recipe=recipe)

    monkeypatch.setattr("echovec.embedder.Embedder.load", load)
    queries.load_embedder(index.folder, made)
    queries.load_embedder(index.folder, made, "my/own")
    assert asked == [("a/b", "c0"), ("my/own", None)]


def test_the_embedder_is_loaded_by_the_stored_recipe(tmp_path):
    """The recipe that the index keeps, bound to the model it names, embeds queries."""
    from plugins_stub import TEXTS as WORDS
    from plugins_stub import embedder as tiny

    saved = tiny()
    folder = saved.save(tmp_path / "saved")
    from echovec import Embedder

    loaded = Embedder.load(folder)
    vectors = loaded.encode_document(WORDS)
    made = replace(
        MADE,
        recipe_json=loaded.recipe.to_json(),
        fingerprint=loaded.recipe.fingerprint,
        role="document",
    )
    index = Index.build(source(vectors, made=made, texts=WORDS), tmp_path / "index")
    hit = Index.open(index.folder).search(WORDS[1], 1)[0]
    assert hit.text == WORDS[1]
    other = tiny("classical").save(tmp_path / "other")
    with pytest.raises(InputError):
        queries.load_embedder(index.folder, replace(made, fingerprint="0" * 16), other)
