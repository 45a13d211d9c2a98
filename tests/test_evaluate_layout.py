"""Local folders: what a folder is follows from its files; whatever is broken is named with line."""

from __future__ import annotations

import json
import shutil

import pytest

from echovec.errors import InputError
from echovec.evaluate.layout import (
    LocalSet,
    corpus_of,
    files_of,
    find_sets,
    queries_of,
    read_set,
    rows_of,
)
from evaluate_data import TYPES, make_sets, write


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return make_sets(tmp_path_factory.mktemp("sets"))


def test_every_type_is_inferred(sets):
    """Each folder is of the type that its fields say, with all its splits; training is none."""
    found, none = find_sets(sets)
    assert {one.name: one.category for one in found} == TYPES
    assert {one.name: one.splits for one in found if one.splits != ("test",)} == {
        "Alike": ("dev", "test"),
        "Topics": ("test", "train", "validation"),
    }
    assert list(none) == ["train_more"]


def test_a_single_folder_is_a_set(sets):
    """The folder that is given may be a set itself."""
    (found,), _ = find_sets(sets / "Alike")
    assert found.name == "Alike"
    assert len(rows_of(found, "test")) == 40


def test_task_toml_overrides_what_is_inferred(tmp_path):
    """Type, name, origin and instruction come from task.toml where it says them."""
    write(tmp_path / "x/test.jsonl", [{"text": "a b", "label": 1}])
    write(tmp_path / "x/train.jsonl", [{"text": "a b", "label": 1}])
    (tmp_path / "x/task.toml").write_text(
        'category = "Clustering"\nname = "Mine"\nmteb = "STS12"\ninstruction = "Group"\n'
    )
    one = read_set(tmp_path / "x")
    assert isinstance(one, LocalSet)
    assert (one.category, one.name, one.mteb, one.instruction) == (
        "Clustering",
        "Mine",
        "STS12",
        "Group",
    )


@pytest.mark.parametrize(
    "toml",
    ['category = "Sorting"', "metric = 'x'", "name = 3", "name =", 'name = "../x"'],
    ids=["unknown-category", "unknown-key", "not-text", "not-toml", "a-path"],
)
def test_a_wrong_task_toml_is_refused(tmp_path, toml):
    """What task.toml may say is a closed list."""
    write(tmp_path / "x/test.jsonl", [{"text": "a", "label": 1}])
    (tmp_path / "x/task.toml").write_text(toml)
    with pytest.raises(InputError, match=r"task\.toml"):
        find_sets(tmp_path)


GOOD = {"sentence1": "a", "sentence2": "b", "score": 1}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("{", "is not JSON"),
        ("[1]", "is not a JSON object"),
        ({"sentence1": "a", "score": 1}, "has no 'sentence2'; it has sentence1, score"),
        (GOOD | {"score": "high"}, "'score' is 'high', not a number"),
        (GOOD | {"score": True}, "'score' is True"),
        (GOOD | {"score": float("nan")}, "'score' is nan"),
        (GOOD | {"sentence2": ""}, "'sentence2' is empty"),
        (GOOD | {"sentence2": 7}, "'sentence2' is int"),
    ],
    ids=["no-json", "no-object", "no-field", "no-number", "bool", "nan", "empty", "no-text"],
)
def test_a_broken_line_is_named(tmp_path, row, why):
    """File, line and reason are in the message; blank lines count but do not matter."""
    file = tmp_path / "x/test.jsonl"
    write(file, [GOOD])
    with file.open("a") as more:
        more.write("\n" + (row if isinstance(row, str) else json.dumps(row)) + "\n")
    (one,), _ = find_sets(tmp_path)
    with pytest.raises(InputError, match=r"test\.jsonl, line 3: ") as caught:
        rows_of(one, "test")
    assert why in str(caught.value)


def test_a_cut_gzip_is_named(tmp_path):
    """A compressed file that ends early names the line after the last that could be read."""
    rows = [GOOD | {"sentence1": f"{i * 7919}"} for i in range(3000)]
    file = tmp_path / "x/test.jsonl.gz"
    write(file, rows)
    file.write_bytes(file.read_bytes()[:-2000])
    (one,), _ = find_sets(tmp_path)
    with pytest.raises(InputError, match=r"test\.jsonl\.gz, line \d+: cannot be read"):
        rows_of(one, "test")


def test_a_damaged_gzip_is_named(tmp_path):
    """A compressed file with wrong bytes inside is an error that names it, not zlib's own."""
    file = tmp_path / "x/test.jsonl.gz"
    write(file, [GOOD | {"sentence1": f"{i * 7919}"} for i in range(3000)])
    content = bytearray(file.read_bytes())
    content[2000:2100] = bytes(255 - byte for byte in content[2000:2100])
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"test\.jsonl\.gz, line \d+: cannot be read"):
        rows_of(LocalSet(tmp_path / "x", "x", "STS", ("test",)), "test")


def test_an_empty_file_is_named(tmp_path):
    """A split without a line is an error, also beside one with lines."""
    write(tmp_path / "x/dev.jsonl", [GOOD])
    write(tmp_path / "x/test.jsonl", [])
    (one,), _ = find_sets(tmp_path)
    with pytest.raises(InputError, match=r"test\.jsonl: it is empty"):
        rows_of(one, "test")


@pytest.mark.parametrize(
    ("good", "wrong", "why"),
    [
        (
            {"query": "a", "positive": ["b"], "negative": ["c"]},
            {"negative": []},
            "in both 'positive' and 'negative'",
        ),
        (
            {"human_summaries": ["a"], "machine_summaries": ["b"], "relevance": [1]},
            {"relevance": [1, 2]},
            "2 scores in 'relevance' for 1 machine summaries",
        ),
    ],
    ids=["reranking", "summarization"],
)
def test_what_no_single_field_shows_is_named_with_its_line(tmp_path, good, wrong, why):
    """Blank lines count for rows whose fields do not fit together, too."""
    file = tmp_path / "x/test.jsonl"
    write(file, [good])
    with file.open("a") as more:
        more.write("\n" + json.dumps(good | wrong) + "\n")
    (one,), _ = find_sets(tmp_path)
    with pytest.raises(InputError, match=r"test\.jsonl, line 3: ") as caught:
        rows_of(one, "test")
    assert why in str(caught.value)


def test_labels_of_two_types_are_refused(tmp_path):
    """Whole numbers to learn from and texts to be tested on would never agree."""
    write(tmp_path / "x/train.jsonl", [{"text": f"t {i}", "label": i % 2} for i in range(20)])
    write(tmp_path / "x/test.jsonl", [{"text": f"t {i}", "label": str(i % 2)} for i in range(9)])
    (one,), _ = find_sets(tmp_path)
    pytest.importorskip("mteb")
    from echovec.evaluate.local import LocalTask

    with pytest.raises(InputError, match=r"some labels of train and test are texts and some whole"):
        LocalTask(one).make("test")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"_id": "d0", "text": "again"}, "'_id' 'd0' is that of an earlier line"),
        ({"_id": "n", "title": 7, "text": "a"}, "'title' is int"),
        ({"_id": "n", "title": "", "text": 0}, "'text' is int"),
        ({"_id": "n", "title": " ", "text": None}, "has neither title nor text"),
    ],
    ids=["twice", "title", "number", "nothing"],
)
def test_a_broken_document_is_named(tmp_path, row, why):
    """A document that would take another's place or has no text names its line, blank ones too."""
    file = tmp_path / "Search/corpus.jsonl"
    write(file, [{"_id": "d0", "text": "a"}, {"_id": "d1", "title": "A title", "text": None}])
    with file.open("a") as more:
        more.write("\n" + json.dumps(row) + "\n")
    one = LocalSet(tmp_path / "Search", "Search", "Retrieval", ("test",))
    with pytest.raises(InputError, match=r"corpus\.jsonl, line 4: ") as caught:
        corpus_of(one)
    assert why in str(caught.value)


def test_a_query_id_that_stands_twice_is_named(sets, tmp_path):
    """Judgements could not say which of the two they are of."""
    shutil.copytree(sets / "Search", tmp_path / "Search")
    with (tmp_path / "Search/queries.jsonl").open("a") as more:
        more.write(json.dumps({"_id": "q3", "text": "another"}) + "\n")
    with pytest.raises(InputError, match=r"queries\.jsonl, line 16: '_id' 'q3' is that of"):
        queries_of(read_set(tmp_path / "Search"), "test")


def test_judgements_of_test_may_have_an_ending(sets, tmp_path):
    """qrels_test.tsv is qrels.tsv; other names that begin so are no split."""
    shutil.copytree(sets / "Search", tmp_path / "Search")
    (tmp_path / "Search/qrels.tsv").rename(tmp_path / "Search/qrels_test.tsv")
    (tmp_path / "Search/qrels-old.tsv").write_text("")
    one = read_set(tmp_path / "Search")
    assert one.splits == ("test",)
    assert queries_of(one, "test") == queries_of(read_set(sets / "Search"), "test")
    assert all(file.is_file() for file in files_of(one, "test"))


def test_a_corpus_without_judgements_is_no_set(sets, tmp_path):
    """The reason says what is missing; the other folders are sets all the same."""
    shutil.copytree(sets / "Search", tmp_path / "Search")
    shutil.copytree(sets / "Alike", tmp_path / "Alike")
    (tmp_path / "Search/qrels.tsv").write_text("query-id\tcorpus-id\tscore\n")
    with pytest.raises(InputError, match=r"qrels\.tsv: it has no judgements"):
        queries_of(read_set(tmp_path / "Search"), "test")
    (tmp_path / "Search/qrels.tsv").unlink()
    found, none = find_sets(tmp_path)
    assert [one.name for one in found] == ["Alike"]
    assert none == {"Search": "it has a corpus, but no qrels.tsv or qrels_SPLIT.tsv"}


def test_fields_of_no_type_are_refused(tmp_path):
    """Unknown fields list what is known."""
    write(tmp_path / "x/test.jsonl", [{"left": "a", "right": "b"}])
    with pytest.raises(InputError, match=r"fields left, right are those of no type.*STS: sent"):
        find_sets(tmp_path)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("q0\td0\tgood", "needs query-id, corpus-id and a whole number"),
        ("q99\td0\t1", "names the query 'q99'"),
        ("q0\td99\t1", "names the document 'd99'"),
    ],
)
def test_a_broken_judgement_is_named(tmp_path, line, why):
    """A judgement that is no number, or of something that is not there, names its line."""
    make_sets(tmp_path)
    with (tmp_path / "Search/qrels.tsv").open("a") as more:
        more.write(line + "\n")
    one = read_set(tmp_path / "Search")
    assert isinstance(one, LocalSet)
    with pytest.raises(InputError, match=r"qrels\.tsv, line 30: ") as caught:
        queries_of(one, "test")
    assert why in str(caught.value)


def test_queries_without_judgements_are_left_out(sets):
    """Mteb scores only queries that someone judged."""
    queries, qrels = queries_of(read_set(sets / "Search"), "test")
    assert len(queries) == len(qrels) == 14


def test_no_folder_is_refused(tmp_path):
    """A path that is no folder is an error."""
    with pytest.raises(InputError, match="is not a folder"):
        find_sets(tmp_path / "no")
