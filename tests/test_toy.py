"""The toy triplets: halves where the structures say, wording as promised, and the experiment."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from functools import cache

import numpy as np
import pytest

from echovec import Embedder
from echovec.evaluate.reproduce.findings import Options
from echovec.evaluate.reproduce.halved import Reading, first_half_tokens, part_of, read_all
from echovec.evaluate.reproduce.toy import CHANCE, CONTROL, HALF, PASSES, WHOLE, toy
from echovec.evaluate.reproduce.triplets import STRUCTURES, WORDINGS, Halves, situations, triplets
from echovec.model.tiny import TinyBackbone
from echovec.presets import preset
from echovec.text.tokenizer import ByteTokenizer

EVERY = [(s, w) for s in STRUCTURES for w in WORDINGS]


def words(text):
    return text.lower().replace(",", " ").replace(".", " ").split()


def shared(a, b):
    """Share of the distinct words of two texts that both have."""
    a, b = set(words(a)), set(words(b))
    return len(a & b) / len(a | b)


@cache
def embedder():
    return Embedder("echo", ByteTokenizer(), TinyBackbone())


@pytest.mark.parametrize(("structure", "wording"), EVERY)
def test_there_are_at_least_sixty(structure, wording):
    """Every structure and wording has at least 60 triplets, no two with the same texts."""
    found = triplets(structure, wording)
    assert len(found) >= 60
    texts = [(t.query.text, t.positive.text, t.negative.text) for t in found]
    assert len(set(texts)) == len(found)
    for side in zip(*texts, strict=True):
        assert len(set(side)) == len(found)


@pytest.mark.parametrize(("structure", "wording"), EVERY)
def test_halves_meet_near_the_middle(structure, wording):
    """In every text the first half has 36 to 64 percent of the words: early and late are real."""
    for t in triplets(structure, wording):
        for half in (t.query, t.positive, t.negative):
            first, second = len(words(half.first)), len(words(half.second))
            assert 0.36 <= first / (first + second) <= 0.64, half.text


@pytest.mark.parametrize(("structure", "wording"), EVERY)
def test_the_negative_shares_exactly_one_half(structure, wording):
    """The negative has the query's second half (S1) or first half (S2, prefix), and not both."""
    for t in triplets(structure, wording):
        same_first = t.negative.first == t.query.first
        same_second = t.negative.second == t.query.second
        assert (same_first, same_second) == (structure != "S1", structure == "S1"), t.topic


@pytest.mark.parametrize(("structure", "wording"), EVERY)
def test_the_positive_shares_what_the_structure_says(structure, wording):
    """The positive shares the first half with an identical prefix, and no half otherwise."""
    for t in triplets(structure, wording):
        assert (t.positive.first == t.query.first) == (structure == "prefix"), t.topic
        assert t.positive.second != t.query.second, t.topic


def test_no_part_is_used_twice():
    """No half of any situation is the same as another half, and no topic comes twice."""
    parts = Counter(
        value
        for situation in situations()
        for name, value in asdict(situation).items()
        if name != "join"
    )
    assert [part for part, times in parts.items() if times > 1] == []


def test_parts_are_clean():
    """Parts have no blanks around them, no final period, and a capital after a period only."""
    for s in situations():
        for name, part in asdict(s).items():
            if name in ("join", "topic"):
                continue
            assert part == part.strip()
            assert part[-1].isalnum(), part
            assert "  " not in part
            if name.startswith("a"):
                assert part[0].isupper(), part
            elif not part.startswith("I "):
                assert part[0].isupper() == (s.join == ". "), part


def test_lengths_vary():
    """The texts run from under 10 words to over 50, a fifth of them of 30 and more."""
    lengths = np.array([len(words(t.query.text)) for t in triplets("S1")])
    assert lengths.min() < 10
    assert lengths.max() > 50
    assert 0.15 < (lengths >= 30).mean() < 0.5
    assert 0.1 < (lengths <= 12).mean() < 0.5


def test_wordings_differ_as_promised():
    """Near positives share half of the query's words on average, far ones one in nine."""
    near, far = (
        np.mean([shared(t.query.text, t.positive.text) for t in triplets("S2", wording)])
        for wording in ("near", "far")
    )
    assert 0.45 < near < 0.65
    assert 0.08 < far < 0.14


def test_words_alone_do_not_decide():
    """Near positives and negatives share about as many words with the query: neither always wins.

    Otherwise counting words would solve the triplets.
    """
    for structure in ("S1", "S2"):
        wins = [
            shared(t.query.text, t.positive.text) > shared(t.query.text, t.negative.text)
            for t in triplets(structure)
        ]
        assert 0.2 < np.mean(wins) < 0.9, structure


def test_borders_are_exact_with_one_token_a_byte():
    """With a byte tokenizer the first half has as many tokens as it has bytes, blank included."""
    halves = [Halves("Äpfel are", " ", "red"), Halves("a", ", ", "b")]
    recipe = preset("echo-sentence")
    assert first_half_tokens(embedder(), recipe, halves).tolist() == [11, 2]


def test_parts_make_up_the_span():
    """The first and second part of a span are its two sides: nothing lost, nothing twice."""
    spans, first = np.array([[3, 10], [0, 4]]), np.array([2, 3])
    assert part_of(spans, first, "first").tolist() == [[3, 5], [0, 3]]
    assert part_of(spans, first, "second").tolist() == [[5, 10], [3, 4]]
    assert part_of(spans, first, "all").tolist() == spans.tolist()


def test_readings_equal_plain_encoding():
    """Reading the whole last copy is `encode`; the first copy of an echo is another vector."""
    halves = [t.query for t in triplets("S1")[:5]]
    texts = [half.text for half in halves]
    last, first = read_all(embedder(), "echo-sentence", [Reading(), Reading(copy=0)], halves)
    plain = embedder().with_recipe("echo-sentence").encode(texts, normalize_embeddings=False)
    np.testing.assert_allclose(last, plain, atol=1e-5)
    assert np.abs(first - plain).max() > 1e-2


def test_halves_of_a_single_copy_know_only_the_past():
    """The first half of a single copy is the same vector whatever follows; the second is not."""
    pair = [Halves("The dog barked", " ", "at night"), Halves("The dog barked", " ", "by day")]
    first, second = read_all(
        embedder(), "classical-sentence", [Reading(part="first"), Reading(part="second")], pair
    )
    np.testing.assert_allclose(first[0], first[1], atol=1e-6)
    assert np.abs(second[0] - second[1]).max() > 1e-3


def test_halves_of_a_second_copy_know_the_whole_text():
    """The first half of an echo's second copy differs when only the end of the text differs."""
    pair = [Halves("The dog barked", " ", "at night"), Halves("The dog barked", " ", "by day")]
    (first,) = read_all(embedder(), "echo-sentence", [Reading(part="first")], pair)
    assert np.abs(first[0] - first[1]).max() > 1e-3


def test_the_experiment_reports_and_its_controls_hold():
    """On the tiny backbone: every claim has a verdict, and both controls come out as they must."""
    findings = toy(embedder(), None, Options())
    assert findings.experiment == "toy"
    assert {c.verdict for c in findings.claims} <= {
        "holds",
        "does not hold",
        "cannot be told at this size",
    }
    for table in findings.tables:
        rows = {row[0]: row[1:] for row in table.rows}
        assert rows["classical, first half"][1].value == 0.0
        assert rows["classical, first half"][2].value == 0.0
        assert all(0 <= cell.low <= cell.value <= cell.high <= 100 for cell in rows["echo, mean"])
    assert CHANCE == 50


def test_readings_are_what_their_names_say():
    """Pooling, half and copy of every reading of the experiment, by its name alone."""
    for readings in PASSES.values():
        for name, reading in readings.items():
            part = next((half for half in ("first", "second") if f"{half} half" in name), "all")
            pooling = "lasttoken" if "last token" in name else "mean"
            assert reading == Reading(pooling, part, 0 if "first copy" in name else -1), name


RIGHT_AS_PAPER = {
    ("echo, mean", "S1"),
    ("echo, mean", "S2"),
    ("classical, mean", "S1"),
    ("echo, first half", "S2"),
    ("echo, first half", "prefix"),
}


@pytest.mark.parametrize("as_paper", [True, False])
def test_claims_say_what_triplets_say(as_paper, monkeypatch):
    """Of triplets that are right just where the paper has them so, or just not, all claims follow.

    All others are wrong in the one case and right in the other, those in quite other words too.
    """
    right = {
        (name, wording, structure): as_paper == (wording == "near" and (name, structure) in chosen)
        for chosen in [RIGHT_AS_PAPER if as_paper else RIGHT_AS_PAPER - {("classical, mean", "S1")}]
        for name in (*WHOLE, *HALF, CONTROL)
        for wording in WORDINGS
        for structure in STRUCTURES
    }
    gaps = {key: np.full(60, 0.1 if value else -0.1) for key, value in right.items()}

    def made_up(_, recipe, readings):
        return {key: value for key, value in gaps.items() if key[0] in readings}

    monkeypatch.setitem(toy.__globals__, "_gaps", made_up)
    findings = toy(embedder(), None, Options())
    expected = "holds" if as_paper else "does not hold"
    assert {c.statement: c.verdict for c in findings.claims if c.verdict != expected} == {}
    assert len(findings.claims) == 6
    assert {name for readings in PASSES.values() for name in readings} == {k[0] for k in right}
