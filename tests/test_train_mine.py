"""Mining: the nearest texts by a naive twin, and what each guard keeps out."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from echovec.embedder import Embedder
from echovec.errors import InputError
from echovec.search.top import nearest
from echovec.train import mine as mining
from echovec.train.data import Source, read
from echovec.train.mine import Guards, folded, mine
from echovec.train.tiny import tiny_model


@pytest.fixture(scope="module")
def embedder():
    model, tokenizer = tiny_model()
    return Embedder.from_model(model, tokenizer, "echo")


ROWS = [
    {"query": "who sings?", "positive": "the bird sings", "answers": ["bird"], "title": "Birds"},
    {"query": "who swims?", "positive": "the fish swims", "negative": "the fish sinks"},
    {"query": "Who sings", "pos": ["a man sings", "a girl sings"]},
    {"query": "who flies?", "positive": "A bird, high up, flies"},
]


def written(folder: Path, rows=None) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows or ROWS), "utf-8")
    return path


def mined_rows(path: Path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def negatives(row):
    return [value for key, value in row.items() if key.startswith("negative_")]


OPEN = Guards(num_negatives=20, relative_margin=None)
"""Takes whatever is no answer."""


def unit(count, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((count, 8), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_nearest_are_those_of_a_full_sort(monkeypatch):
    """Blocks and candidates give what sorting all scores gives; a shuffled pool another order."""
    queries, texts = unit(1500), unit(70, seed=1)
    exact = queries.astype(np.float64) @ texts.T.astype(np.float64)
    expected = np.argsort(-exact, axis=1, kind="stable")[:, :9]
    for at_once in (1 << 24, 70 * 400):
        monkeypatch.setattr("echovec.search.top.SCORES_AT_ONCE", at_once)
        places, scores = nearest(queries, texts, 9)
        assert np.array_equal(places, expected)
        assert np.allclose(scores, np.take_along_axis(exact, expected, 1), atol=1e-6)
    control, _ = nearest(queries, texts[::-1].copy(), 9)
    assert not np.array_equal(control, expected)


def test_a_row_with_many_answers_looks_far_for_itself(embedder, tmp_path, monkeypatch):
    """Others do not: what is in memory of all rows stays small, and negatives are the same."""
    many = [{"query": "who?", "positive": f"answer {n}"} for n in range(60)]
    rows = [*({"query": f"what {n}?", "positive": f"thing {n}"} for n in range(40)), *many]
    guards = Guards(num_negatives=2, range_max=4, relative_margin=None)
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    mine(written(tmp_path, rows), whole, embedder, guards=guards)
    asked = []

    def watched(queries, texts, k):
        asked.append(len(queries) * k)
        return nearest(queries, texts, k)

    monkeypatch.setattr(mining, "nearest", watched)
    monkeypatch.setattr(mining, "_AT_ONCE", 10)
    mine(written(tmp_path, rows), parts, embedder, guards=guards)
    assert parts.read_text("utf-8") == whole.read_text("utf-8")
    assert all(len(negatives(row)) == 2 for row in mined_rows(parts))
    assert len(asked) == 10
    assert max(asked[:4]) <= 10 * (4 + 2)


def test_equal_texts_come_in_order():
    """Of candidates with the same score the first one is first."""
    texts = np.full((5, 4), 0.5, dtype=np.float32)
    places, _ = nearest(texts[:2], texts, 5)
    assert places.tolist() == [[0, 1, 2, 3, 4]] * 2


def test_the_graph_finds_what_exact_search_finds():
    """LanceDB over a small pool: the same places and scores."""
    pytest.importorskip("lancedb", reason="the extra search")
    queries, texts = unit(20), unit(300, seed=1)
    places, scores = zip(*mining._by_graph(queries, texts, [9] * 20, "f" * 16), strict=True)
    expected, exact = nearest(queries, texts, 9)
    assert np.array_equal(places, expected)
    assert np.allclose(scores, exact, atol=1e-6)


def test_a_row_with_many_answers_looks_far_for_itself_in_the_graph_too(monkeypatch):
    """A search is as deep as the deepest of its own rows needs."""
    pytest.importorskip("lancedb", reason="the extra search")
    asked = []

    def watched(index, queries, k):
        asked.append((len(queries), k))
        return search(index, queries, k)

    search = mining.Index.search
    monkeypatch.setattr(mining.Index, "search", watched)
    monkeypatch.setattr(mining, "_AT_ONCE", 10)
    depths = [3] * 15 + [40] * 5
    found = list(mining._by_graph(unit(20), unit(300, seed=1), depths, "f" * 16))
    assert asked == [(10, 3), (10, 40)]
    assert [len(places) for places, _ in found] == [3] * 10 + [40] * 10


def test_behind_range_max_nothing_is_looked_at():
    """What is counted of a row does not hang on how far the rows beside it look."""
    row = mining._Row("a", ["p"], [], [], {})
    near = [("x", 0.3), ("p", 0.2), ("y", 0.1)]
    for sampling in ("top", "random"):
        mined = mining.Mined()
        guards = Guards(num_negatives=3, range_max=1, relative_margin=None, sampling=sampling)
        assert mining._choose(row, near, 0.9, {"a": {"p"}}, guards, 0, mined) == ["x"]
        assert not mined.turned_away


def test_approximate_mining_writes_the_same_rows(embedder, tmp_path):
    """On a small pool nothing is missed, so the rows are those of exact search."""
    pytest.importorskip("lancedb", reason="the extra search")
    out = [tmp_path / "exact.jsonl", tmp_path / "graph.jsonl"]
    for path, approximate in zip(out, (False, True), strict=True):
        mine(written(tmp_path), path, embedder, OPEN, approximate=approximate)
    assert mined_rows(out[0]) == mined_rows(out[1])


def test_no_answer_is_mined(embedder, tmp_path):
    """Neither the anchor, nor a positive of an anchor that reads the same, nor an answer string."""
    out = tmp_path / "out.jsonl"
    done = mine(written(tmp_path), out, embedder, OPEN)
    first, second, third, _ = mined_rows(out)
    assert set(negatives(first)) == {"the fish swims", "the fish sinks"}
    assert set(negatives(third)) == {
        "the fish swims",
        "the fish sinks",
        "A bird, high up, flies",
    }
    assert negatives(second)[0] == "the fish sinks"  # its own comes first
    assert done.turned_away["holds the answer"] == 1
    assert done.rows == 4
    assert done.short == 4


def test_without_the_answer_guard_it_is_mined(embedder, tmp_path):
    """Control: the same rows without answers let the text with the answer in."""
    rows = [{k: v for k, v in row.items() if k != "answers"} for row in ROWS]
    out = tmp_path / "out.jsonl"
    mine(written(tmp_path, rows), out, embedder, OPEN)
    assert "A bird, high up, flies" in negatives(mined_rows(out)[0])


def test_what_a_row_holds_stays(embedder, tmp_path):
    """Other columns and all positives are written as they were, and `echovec train` reads them."""
    out = tmp_path / "out.jsonl"
    mine(written(tmp_path), out, embedder, Guards(num_negatives=2, relative_margin=None))
    rows = mined_rows(out)
    assert rows[0]["title"] == "Birds"
    assert rows[0]["answers"] == ["bird"]
    assert rows[2]["positive"] == ["a man sings", "a girl sings"]
    examples = read(Source(path=str(out))).examples
    assert [len(e.negatives) for e in examples] == [2, 3, 2, 2]


def test_columns_that_were_not_used_stay_whatever_they_hold(embedder, tmp_path):
    """A second name of an anchor, a text, a date, half a character; and the file can be read."""
    rows = [
        {"anchor": "a b", "query": "q7", "text": "t", "positive": "p p", "note": "\ud800"},
        {"anchor": None, "query": "c d", "positive": "q q", "pos": None},
    ]
    out = tmp_path / "out.jsonl"
    mine(written(tmp_path, rows), out, embedder, OPEN)
    first, second = mined_rows(out)
    assert (first["query"], first["text"], first["note"]) == ("q7", "t", "\ud800")
    assert (second["anchor"], second["pos"]) == ("c d", None)
    assert [e.anchor for e in read(Source(path=str(out))).examples] == ["a b", "c d"]
    dated = [{"anchor": "a b", "positive": "p p", "when": datetime.date(2020, 1, 2)}]
    pq.write_table(pa.Table.from_pylist(dated), tmp_path / "dated.parquet")
    mine(tmp_path / "dated.parquet", out, embedder, OPEN)
    assert mined_rows(out)[0]["when"] == "2020-01-02"


def test_a_number_that_json_has_none_for_is_null_in_what_is_written(embedder, tmp_path):
    """NaN of a column of the input would be refused by readers of JSON that are not Python's."""
    rest = {"price": float("nan"), "of": {"all": [1.5, float("inf")]}, "note": "\ud800"}
    rows = [{"anchor": "a b", "positive": "p p", **rest}]
    out = tmp_path / "out.jsonl"
    mine(written(tmp_path, rows), out, embedder, OPEN)
    line = json.loads(out.read_text(), parse_constant=pytest.fail)
    assert (line["price"], line["of"]) == (None, {"all": [1.5, None]})


@pytest.mark.parametrize(
    "answers", [{"answer": 42}, {"answers": [42]}, {"answers": {"text": ["42"]}}]
)
def test_an_answer_may_be_a_number(embedder, tmp_path, answers):
    """A text that holds it is no negative."""
    rows = [{"query": "how many?", "positive": "two score and two", **answers}]
    pool = ["it is 42 here", "it is 43 here"]
    mine(written(tmp_path, rows), tmp_path / "out.jsonl", embedder, OPEN, pool=pool)
    assert negatives(mined_rows(tmp_path / "out.jsonl")[0]) == ["it is 43 here"]


def test_an_anchor_of_many_rows_has_its_ranks_too(embedder, tmp_path):
    """Its answers stand in other rows; they do not take the places of what can be a negative."""
    rows = [{"query": "same", "positive": f"answer {i}"} for i in range(12)]
    rows += [{"query": f"other {i}", "positive": f"text {i}"} for i in range(12)]
    out = tmp_path / "out.jsonl"
    mine(
        written(tmp_path, rows),
        out,
        embedder,
        Guards(num_negatives=5, range_max=5, relative_margin=None),
    )
    assert {len(negatives(row)) for row in mined_rows(out)} == {5}


def test_a_pool_with_a_text_that_is_none_is_an_error(embedder, tmp_path):
    """It would be mined as a negative; the file's row is named."""
    with pytest.raises(InputError, match=r"pool\[1\] is blank"):
        mine(written(tmp_path), tmp_path / "out.jsonl", embedder, pool=["a", " "])
    pool = tmp_path / "pool.jsonl"
    pool.write_text('{"text": "a"}\n{"text": ""}\n')
    with pytest.raises(InputError, match=r"pool.jsonl:2: text is ''"):
        mining.read_pool(pool)
    with pytest.raises(InputError, match="no training data at"):
        mining.read_pool(tmp_path / "gone.txt")


def test_ranks_and_margins_are_kept(embedder, tmp_path):
    """Each bound holds for what is chosen, measured with the embedder itself."""
    path, out = written(tmp_path), tmp_path / "out.jsonl"
    everything = mine(path, out, embedder, OPEN)
    order = [negatives(row) for row in mined_rows(out)]
    mine(path, out, embedder, Guards(num_negatives=9, range_min=1, relative_margin=None))
    without_first = [negatives(row) for row in mined_rows(out)]
    for place in (0, 2, 3):  # row 1 has a negative of its own
        assert without_first[place] == order[place][1:]
    bound = Guards(num_negatives=9, relative_margin=0.1)
    tight = mine(path, out, embedder, bound)
    for row in mined_rows(out):
        anchor = embedder.encode_query(row["anchor"])
        positive = row["positive"] if isinstance(row["positive"], str) else row["positive"][0]
        score = float(anchor @ embedder.encode_document(positive))
        for text in negatives(row):
            if text != "the fish sinks":
                assert float(anchor @ embedder.encode_document(text)) <= 0.9 * score + 1e-5
    assert tight.negatives < everything.negatives
    capped = mine(path, out, embedder, Guards(num_negatives=9, relative_margin=None, max_score=-2))
    assert capped.negatives == 0
    floored = mine(path, out, embedder, Guards(num_negatives=9, relative_margin=None, min_score=2))
    assert floored.turned_away["is below min_score"] > 0
    assert floored.negatives == 0


def test_random_negatives_hang_on_the_seed_and_the_row_alone(embedder, tmp_path):
    """The same seed gives the same; other rows before a row do not change its draw."""
    pool = [f"text number {i}" for i in range(30)]
    chosen = []
    for seed in (1, 1, 2):
        out = tmp_path / "out.jsonl"
        guards = Guards(num_negatives=3, sampling="random", relative_margin=None, seed=seed)
        mine(written(tmp_path), out, embedder, guards, pool=pool)
        chosen.append(mined_rows(out))
    assert chosen[0] == chosen[1] != chosen[2]


def test_vectors_are_kept(embedder, tmp_path):
    """A second run embeds nothing: what a killed run has done is there."""
    expected: list[int] = []
    for _ in range(2):
        mine(
            written(tmp_path),
            tmp_path / "out.jsonl",
            embedder,
            cache=tmp_path / "kept",
            expect=expected.append,
        )
    assert expected[0] > 0
    assert expected[1] == 0


def test_bad_rows_are_named(embedder, tmp_path):
    """A row without a positive is left out and named; a file of such rows is an error."""
    rows = [*ROWS, {"query": "alone"}]
    done = mine(written(tmp_path, rows), tmp_path / "out.jsonl", embedder)
    assert len(done.skipped) == 1
    assert "rows.jsonl:5" in done.skipped[0]
    with pytest.raises(InputError, match="no usable row"):
        mine(written(tmp_path, [{"query": "x"}]), tmp_path / "out.jsonl", embedder)


@pytest.mark.parametrize(
    "fields",
    [
        {"num_negatives": 0},
        {"range_min": 5, "range_max": 5},
        {"range_min": -1},
        {"sampling": "best"},
    ],
)
def test_guards_that_cannot_be_are_refused(fields):
    """With the value in the message."""
    with pytest.raises(InputError, match=str(next(iter(fields.values())))):
        Guards(**fields)


def test_folding_keeps_texts_apart_that_differ():
    """Case, blanks and punctuation do not count; signs alone stay what they are."""
    assert folded("Who  sings?") == folded("who sings")
    assert folded("?!") != folded("...")


@pytest.mark.parametrize("verb", ["mine", "pairs"])
def test_no_input_is_replaced(tmp_path, monkeypatch, verb):
    """Neither the rows nor the texts, which would be lost: refused before a model is loaded."""
    from echovec.cli import app

    monkeypatch.setattr(Embedder, "load", lambda *_, **__: pytest.fail("loaded"))
    rows = tmp_path / "rows.jsonl"
    pool = tmp_path / "pool.jsonl"
    for file in (rows, pool):
        file.write_text(json.dumps({"anchor": "a", "positive": "b", "text": "c"}) + "\n", "utf-8")
    inputs = {rows: []} if verb == "pairs" else {rows: [], pool: ["--corpus", str(pool)]}
    for out, more in inputs.items():
        before = out.read_bytes()
        done = CliRunner().invoke(app, [verb, str(rows), "-o", str(out), *more])
        assert isinstance(done.exception, InputError), done.output
        assert "is also an input" in str(done.exception)
        assert out.read_bytes() == before


def test_the_command_says_what_it_did(tmp_path, embedder, monkeypatch):
    """`echovec mine` writes the file and tells counts and similarities."""
    from echovec.cli import app

    monkeypatch.setattr(Embedder, "load", lambda *args, **options: embedder)
    pool = tmp_path / "pool.txt"
    pool.write_text("a stone rolls\na stone lies\n", "utf-8")
    out = tmp_path / "out.jsonl"
    told = CliRunner().invoke(
        app,
        [
            *("mine", str(written(tmp_path)), "-o", str(out), "--corpus", str(pool)),
            *("--relative-margin", "-1", "--num-negatives", "9"),
        ],
    )
    assert told.exit_code == 0, told.output
    assert "4 rows ->" in told.stdout
    assert "mean similarity" in told.stdout
    assert "rows have fewer than 9" in told.stdout
    assert (tmp_path / "out.jsonl.vectors").is_dir()
    assert "a stone lies" in negatives(mined_rows(out)[3])
