"""Codes and shorter vectors: what they lose is measured, and vectors decide among candidates."""

import numpy as np
import pytest
from typer.testing import CliRunner

from echovec import Index
from echovec.cli import app
from echovec.errors import InputError
from echovec.search import codes, recall, reduce, stored
from echovec.search.gather import gather
from echovec.search.stored import encode
from search_stub import some_vectors, source, write_parquet


def naive_truth(vectors, row, depth):
    """The rows nearest to a row, without itself."""
    scores = vectors @ vectors[row]
    scores[row] = -np.inf
    return np.argsort(-scores, kind="stable")[:depth]


@pytest.mark.parametrize("name", codes.CODES)
def test_candidates_of_codes_are_rescored_with_the_vectors(tmp_path, name):
    """Scores are the vectors' own cosines, and with every row a candidate nothing is missed."""
    vectors, asked = some_vectors(400, 70), some_vectors(5, 70, seed=3)
    exact = Index.build(source(vectors), tmp_path / "exact")
    coded = Index.build(source(vectors), tmp_path / "coded", codes=name, oversample=400)
    assert coded.search(asked, 10) == exact.search(asked, 10)
    assert coded.facts.recall == {"at": 10, "queries": 100, "recall": 1.0}


def test_binary_scores_count_the_numbers_on_the_same_side_of_the_mean():
    """Equal to a loop over numbers, for widths that fill the last word and that do not."""
    for dimension in (3, 64, 65, 130):
        vectors = some_vectors(50, dimension)
        spread = codes.measure_spread(
            lambda vectors=vectors: [vectors[:20], vectors[20:]], dimension
        )
        packed = codes.CODES["binary"].encode(vectors, spread)
        assert packed.shape == (50, -(-dimension // 64))
        scores = codes.CODES["binary"].scores(vectors[7], spread, packed)
        mean = vectors.mean(axis=0)
        expected = ((vectors > mean) != (vectors[7] > mean)).sum(axis=1)
        assert (-scores).tolist() == expected.tolist()


def test_int8_scores_rank_as_dot_products():
    """Up to what is the same for all rows they are the dot products, to half a step a number."""
    vectors = some_vectors(300, 64)
    spread = codes.measure_spread(lambda: [vectors], 64)
    np.testing.assert_allclose(spread.reach_D, np.abs(vectors - spread.mean_D).max(axis=0))
    code = codes.CODES["int8"]
    scores = code.scores(vectors[0], spread, code.encode(vectors, spread))
    error = np.abs(scores - (vectors - spread.mean_D) @ vectors[0])
    assert error.max() <= (np.abs(vectors[0]) * spread.reach_D).sum() / 254
    assert error.max() < 0.005


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_stored_vectors_are_near_what_came(dtype):
    """Every number is off by half a step at most."""
    vectors = some_vectors(200, 64)
    parts = encode(vectors, dtype)
    back = parts[0].astype(np.float32) * (parts[1][:, None] if len(parts) > 1 else 1)
    step = np.abs(vectors).max() * 2**-11 if dtype == "float16" else parts[1].max() / 2
    assert np.abs(back - vectors).max() <= step * 1.01


def test_every_float16_is_widened_exactly():
    """All finite bit patterns, zeros and subnormal numbers included, equal numpy's conversion."""
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    widened = stored._from_float16(finite) * np.float32(2.0**112)
    expected = finite.astype(np.float32)
    assert widened.tobytes() == expected.tobytes()


def test_principal_directions_lose_least(tmp_path):
    """Pca keeps what the largest singular vectors keep; the first numbers keep less."""
    vectors = some_vectors(500, 32, clusters=3)
    fitted = reduce.fit(gather([source(vectors)]).blocks(), 32, 4, "pca")
    _, _, right = np.linalg.svd(vectors.astype(np.float64), full_matrices=False)
    ours = vectors @ fitted.matrix_DE
    theirs = vectors @ right[:4].T
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, atol=1e-4)
    recalls = {}
    for how in ("first", "pca"):
        index = Index.build(source(vectors), tmp_path / how, dim=8, reduce=how)
        recalls[how] = index.facts.recall["recall"]
        again = Index.open(index.folder, verify=True)
        assert again.search(vectors[5], 1)[0].id == "r5", "queries are shortened alike"
        assert again.search(vectors[5], 1)[0].score == pytest.approx(1, abs=1e-5)
    assert recalls["pca"] > recalls["first"]
    with pytest.raises(InputError, match="the index has 32 numbers"):
        again.search(vectors[5, :8])


def test_recall_is_measured_against_the_vectors_as_they_came(tmp_path, monkeypatch):
    """The truth is that of a naive loop over full vectors; a worthless code scores near nothing."""
    vectors = some_vectors(5000, 40, clusters=300)
    given = source(vectors)
    truth = recall.find_truth(gather([given]))
    assert len(truth.ids) == 100
    for key, nearest in list(zip(truth.ids, truth.nearest, strict=True))[::9]:
        expected = [f"r{row}" for row in naive_truth(vectors, int(key[1:]), 10)]
        assert set(nearest) == set(expected)
    good = Index.build(given, tmp_path / "good", codes="binary", oversample=20)
    assert good.facts.recall["recall"] > 0.8
    noise = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    blind = codes.Code("int8", int, codes._int8, lambda q, m, c: noise, 20)
    monkeypatch.setitem(codes.CODES, "int8", blind)
    bad = Index.build(given, tmp_path / "bad", codes="int8")
    assert bad.facts.recall["recall"] < 0.2


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_small_indexes_measure_what_there_is(tmp_path, rows):
    """One row has no neighbours to find; a few rows have fewer than ten."""
    index = Index.build(source(some_vectors(rows)), tmp_path / "index", dtype="int8")
    expected = None if rows == 1 else {"at": rows - 1, "queries": rows, "recall": 1.0}
    assert index.facts.recall == expected


def test_wrong_options_are_refused_before_any_work(tmp_path):
    """Each with what there is."""
    given = source(some_vectors(9))
    for options, said in (
        ({"codes": "int4"}, "codes 'int4'; there are int8, binary"),
        ({"dim": 25}, "dim=25; the vectors have 24"),
        ({"dim": 4, "reduce": "last"}, "reduce 'last'; there are first, pca"),
        ({"reduce": "pca"}, "needs dim"),
        ({"oversample": 3}, "oversample is for codes"),
    ):
        with pytest.raises(InputError, match=said):
            Index.build(given, tmp_path / "index", **options)
    assert not (tmp_path / "index" / "index.json").exists()


def test_the_command_line_prints_the_recall(tmp_path):
    """What is lost is said when the index is built."""
    file = write_parquet(tmp_path / "v.parquet", some_vectors(300))
    arguments = ["index", str(file), "-o", str(tmp_path / "i"), "--dim", "12", "--reduce", "pca"]
    said = CliRunner().invoke(app, [*arguments, "--codes", "binary"]).stderr
    assert "12 kept (pca), binary codes" in said
    assert "recall@10 0." in said
