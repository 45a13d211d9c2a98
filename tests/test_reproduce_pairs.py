"""Experiments on STS pairs: halves, layers, prompts; the data they read, and their arithmetic."""

from __future__ import annotations

import gzip
import json
import shutil
from functools import cache

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from echovec import Embedder
from echovec.errors import InputError
from echovec.evaluate.report_page import html_table
from echovec.evaluate.reproduce.findings import Options
from echovec.evaluate.reproduce.halves import (
    Errors,
    halves,
    likeness,
    rank_errors,
    split_words,
)
from echovec.evaluate.reproduce.layers import all_layers, best_layer, layers
from echovec.evaluate.reproduce.pairs import (
    Pairs,
    compare_on_pairs,
    dev_pairs,
    scored_pairs,
    sts_pairs,
)
from echovec.evaluate.reproduce.prompts import prompts
from echovec.evaluate.reproduce.triplets import triplets
from echovec.evaluate.reproduce.verdict import resampled_rows
from echovec.model.tiny import TinyBackbone
from echovec.text.tokenizer import ByteTokenizer

pytest.importorskip("sklearn")


@cache
def embedder():
    return Embedder("echo", ByteTokenizer(), TinyBackbone())


def rows():
    """Pairs that mean the same (5), half the same (2) and nothing alike (0)."""
    found = triplets("S1")[:24]
    for place, t in enumerate(found):
        yield t.query.text, t.positive.text, 5.0
        yield t.query.text, t.negative.text, 2.0
        yield t.query.text, found[place - 1].query.text, 0.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """STS13, STS16 and STSBenchmark in the layout of the data folder."""
    base = tmp_path_factory.mktemp("data")
    lines = [json.dumps({"sentence1": a, "sentence2": b, "score": s}) for a, b, s in rows()]
    for name in ("STS13", "STS16", "STSBenchmark"):
        (base / name).mkdir()
        with gzip.open(base / name / "test.jsonl.gz", "wt", encoding="utf-8") as out:
            out.write("\n".join(lines))
    (base / "STSBenchmark" / "dev.jsonl").write_text("\n".join(lines[::-1]), "utf-8")
    return base


def made_up(num=60, seed=0):
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, 6, num).astype(float)
    return rng.random(num) + gold / 5, gold


def test_resampled_correlations_equal_scipy_one_by_one():
    """Each resample's correlation is what scipy gives for those rows, ties included."""
    predicted, gold = made_up()
    scored = scored_pairs(predicted, gold)
    assert scored.value == pytest.approx(100 * spearmanr(predicted, gold).statistic)
    for resample in (0, 7, 999):
        chosen = resampled_rows(len(gold))[resample]
        naive = spearmanr(predicted[chosen], gold[chosen]).statistic
        assert scored.resampled_R[resample] == pytest.approx(100 * naive)


def test_a_difference_of_a_method_with_itself_is_nothing():
    """Paired resampling leaves no width where both sides are the same numbers."""
    predicted, gold = made_up()
    pairs = Pairs("made", ["a"] * 60, ["b"] * 60, gold)
    found = compare_on_pairs({"x": [predicted], "y": [predicted], "z": [-predicted]}, [pairs])
    same, other = found.difference("x", "y"), found.difference("x", "z")
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert other.low > 50


def test_a_mean_counts_each_set_once():
    """Two sets of unlike size weigh the same in a mean."""
    (p1, g1), (p2, g2) = made_up(60, 0), made_up(20, 1)
    sets = [Pairs("a", ["x"] * 60, ["y"] * 60, g1), Pairs("b", ["x"] * 20, ["y"] * 20, g2)]
    found = compare_on_pairs({"m": [p1, p2]}, sets)
    one, two = found.mean("m", ["a"]).value, found.mean("m", ["b"]).value
    assert found.mean("m").value == pytest.approx((one + two) / 2)


def test_rank_errors_equal_a_naive_count():
    """The rank error is the difference of two tied ranks in percent of the pairs."""
    predicted, gold = made_up(30)
    naive = 100 * (rankdata(predicted) - rankdata(gold)) / 30
    np.testing.assert_allclose(rank_errors(predicted, gold), naive)
    np.testing.assert_allclose(rank_errors(gold * 3, gold), 0)


def test_words_are_split_in_the_middle():
    """Halves by word count, the first the shorter; nothing is lost."""
    assert split_words("a b c d e") == ("a b", "c d e")
    assert split_words("one") == ("", "one")


def test_likeness_is_of_the_right_half():
    """Pairs that open alike are alike in their first halves, and the other way round."""
    pairs = Pairs("x", ["the cat sat down", "a b"], ["the cat ran off", "c d"], np.zeros(2))
    assert likeness(pairs, 0)[0] == pytest.approx(1)
    assert likeness(pairs, 1)[0] == pytest.approx(0)


def test_a_method_that_reads_only_beginnings_is_found_out():
    """Negative control of the measure: cosines made of first halves alone show the asymmetry."""
    from echovec.evaluate.reproduce.halves import _asymmetry, _top

    rng = np.random.default_rng(0)
    first, second, noise = rng.random((3, 400))
    gold = first + second
    errors = {"begins": rank_errors(first, gold), "fair": rank_errors(gold + noise / 9, gold)}
    found = Errors(errors, _top(first), _top(second), (0, 400))
    assert _asymmetry(found, errors["begins"]).low > 20
    fair = _asymmetry(found, errors["fair"])
    assert fair.low < 0 < fair.high


def test_halves_reports(folder):
    """On the tiny backbone: three claims, a row per recipe, a difference per set."""
    findings = halves(embedder(), folder, Options())
    assert len(findings.claims) == 3
    assert [row[0] for row in findings.tables[0].rows] == ["classical", "echo"]
    assert [row[0] for row in findings.tables[1].rows] == ["STS13", "STS16", "STSBenchmark"]
    html_table(findings.tables[0])


@pytest.mark.parametrize("better", [True, False])
def test_claims_say_what_rank_errors_say(better, folder, monkeypatch):
    """A single copy that overrates beginnings and an echo that does not, and both turned round."""
    first, second = np.arange(400) < 40, np.arange(400) >= 360
    overrated, fair = np.where(first, 20.0, 0.0), np.zeros(400)
    found = Errors(
        {"classical": overrated if better else fair, "echo": fair if better else overrated},
        first,
        second,
        (0, 400),
    )
    monkeypatch.setitem(halves.__globals__, "_errors", lambda *_: found)
    monkeypatch.setitem(halves.__globals__, "SETS", ("STS13",))
    findings = halves(embedder(), folder, Options())
    expected = "holds" if better else "does not hold"
    assert [claim.verdict for claim in findings.claims] == [expected] * 3


def test_layers_are_chosen_on_development_pairs(folder, tmp_path):
    """The layer is the best one of the development pairs, here the worst of the test pairs.

    What the choice is worth is the difference on the test pairs.
    """
    shutil.copytree(folder, tmp_path / "data")
    dev = tmp_path / "data" / "STSBenchmark" / "dev.jsonl"
    turned = [json.loads(line) for line in dev.read_text("utf-8").splitlines()]
    lines = [json.dumps(row | {"score": 5 - row["score"]}) for row in turned]
    dev.write_text("\n".join(lines), "utf-8")
    findings = layers(embedder(), tmp_path / "data", Options(sample=0))
    assert "dev" in findings.settings["data"]
    rows = findings.tables[0].rows
    last, best = len(rows) - 1, {}
    for place, name in enumerate(("classical", "echo"), start=1):
        on_dev, on_test = ([row[place + side].value for row in rows] for side in (0, 2))
        chosen = max(range(len(rows)), key=lambda layer: (on_dev[layer], layer))
        assert chosen != max(range(len(rows)), key=on_test.__getitem__), "the control"
        claim = findings.claims[name == "classical"]
        assert f"({chosen} of {last})" in claim.statement
        assert claim.difference.value == pytest.approx(on_test[chosen] - on_test[last])
        best[name] = on_test[chosen]
    apart = findings.claims[2].difference.value
    assert apart == pytest.approx(best["echo"] - best["classical"])


def test_all_layers_in_one_vector_are_the_layers(folder):
    """Reading every layer at once gives each layer's own vector, one after the other."""
    from dataclasses import replace

    texts = ["a text", "another"]
    count = embedder().backbone.num_layers + 1
    joined = (
        embedder().with_recipe(all_layers("echo", count)).encode(texts, normalize_embeddings=False)
    )
    one = all_layers("echo", count)
    for layer, part in enumerate(np.split(joined, count, axis=1)):
        view = replace(one.views["symmetric"][0], layer=layer)
        alone = replace(one, views=dict.fromkeys(one.views, view), combine="sum")
        vectors = embedder().with_recipe(alone).encode(texts, normalize_embeddings=False)
        np.testing.assert_allclose(part, vectors, atol=1e-6)


def test_the_best_layer_wins_and_ties_go_to_the_later():
    """The highest score, and of equals the later layer."""
    predicted, gold = made_up()
    pairs = [Pairs("x", ["a"] * 60, ["b"] * 60, gold)]
    low, high = (compare_on_pairs({"layer": [p]}, pairs) for p in (-predicted, predicted))
    assert best_layer([low, high, low]) == 1
    assert best_layer([high, low, high]) == 2


def test_prompts_reports_every_prompt(folder):
    """36 prompts, a spread per method that is best less worst, and three verdicts."""
    findings = prompts(embedder(), folder, Options(sample=12))
    summary, every = findings.tables
    assert len(every.rows) == 36
    assert len(findings.claims) == 3
    for method, worst, mean, best, spread in summary.rows:
        values = [row[1].value for row in every.rows if row[0].startswith(f"paper-{method}-")]
        assert len(values) == 12
        assert worst.value == pytest.approx(min(values))
        assert best.value == pytest.approx(max(values))
        assert mean.value == pytest.approx(np.mean(values))
        assert spread.value == pytest.approx(max(values) - min(values))
    shown = {row[0]: [cell.value for cell in row[1:]] for row in summary.rows}
    classical, echo, eol = (shown[name] for name in ("classical", "echo", "prompt-eol"))
    assert [claim.difference.value for claim in findings.claims] == pytest.approx(
        [echo[0] - classical[2], eol[3] - echo[3], echo[1] - classical[1]]
    )


def test_samples_are_drawn_once_for_all(folder):
    """A sample is the same pairs for the same seed, in their order; another seed takes others."""

    def sample(seed):
        (one,) = sts_pairs(folder, ("STS13",), 10, seed)
        return list(zip(one.first, one.second, strict=True))

    (every,) = sts_pairs(folder, ("STS13",), None, 42)
    whole = list(zip(every.first, every.second, strict=True))
    assert len(sample(42)) == 10
    assert sample(42) == sample(42) == [pair for pair in whole if pair in sample(42)]
    assert sample(42) != sample(43)


def test_development_pairs_are_not_the_test_pairs(folder):
    """What is chosen on is read from dev, never from test."""
    dev = dev_pairs(folder, None, 42)
    (test,) = sts_pairs(folder, ("STSBenchmark",), None, 42)
    assert list(dev.first) == list(test.first)[::-1]


def test_a_folder_without_the_sets_says_what_it_needs(tmp_path):
    """No folder, or one without any of the sets: an error that names the layout."""
    with pytest.raises(InputError, match="--data DIR"):
        sts_pairs(None, ("STS13",), None, 0)
    with pytest.raises(InputError, match=r"NAME/test\.jsonl\.gz with sentence1"):
        sts_pairs(tmp_path, ("STS13",), None, 0)


@pytest.mark.parametrize(
    "line", ["not json", '{"sentence1": "a", "score": 1}', '{"sentence1": "a", "sentence2": "b"}']
)
def test_a_broken_line_is_named(tmp_path, line):
    """A broken file is an error with file and line."""
    (tmp_path / "STS13").mkdir()
    good = '{"sentence1": "a", "sentence2": "b", "score": 1}'
    (tmp_path / "STS13" / "test.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(InputError, match=r"test\.jsonl, line 2: "):
        sts_pairs(tmp_path, ("STS13",), None, 0)
