"""Vectors on disk: each text is embedded once, whatever is killed, damaged or asked again."""

from __future__ import annotations

import numpy as np
import pytest

from echovec import Recipe, Template, View
from echovec.errors import InputError
from echovec.evaluate import vectors as vectors_module
from echovec.evaluate.shards import Shards, records_of, text_key
from echovec.evaluate.vectors import Vectors
from echovec.recipe import ROLES
from evaluate_data import Counting, embedder

TEXTS = ["one text", "another, longer text", "one text", "a third"]


class Live(Counting):
    """Its weights may be others at any time."""

    def has_changed(self):
        return True


@pytest.fixture
def backbone():
    return Counting(dim=12)


def test_vectors_are_those_of_the_embedder_in_order(backbone, tmp_path):
    """Through the cache, from the cache and straight from the embedder: the same unit vectors."""
    plain = embedder("echo", backbone)
    expected = plain.encode(TEXTS)
    for _ in range(2):
        found = Vectors(plain, tmp_path).encode(TEXTS, "symmetric")
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == np.float32


def test_each_distinct_text_goes_through_the_model_once(backbone, tmp_path):
    """Repetitions, a second call and a second process of the same recipe cost no forward pass."""
    first = Vectors(embedder("echo", backbone), tmp_path)
    first.encode(TEXTS, "symmetric")
    assert backbone.texts == 3
    assert first.cost.forward_passes == backbone.passes
    before = backbone.passes
    again = Vectors(embedder("echo", backbone), tmp_path)
    again.encode([*reversed(TEXTS)], "symmetric")
    assert backbone.passes == before
    assert again.cost.forward_passes == again.cost.computed_tokens == 0
    assert (again.cost.texts, again.cost.tokens) == (first.cost.texts, first.cost.tokens)
    assert first.cost.tokens == first.cost.computed_tokens
    again.encode(["a new one"], "symmetric")
    assert backbone.passes == before + 1, "the control: a new text costs a pass"


def test_another_recipe_finds_nothing(backbone, tmp_path):
    """Vectors are kept by fingerprint: another prompt or another budget embeds anew."""
    for recipe, limit in (("echo", None), ("classical", None), ("echo", 4)):
        model = embedder("echo", backbone).with_recipe(recipe, max_tokens=limit)
        before = backbone.texts
        Vectors(model, tmp_path).encode(TEXTS, "symmetric")
        assert backbone.texts == before + 3


def test_a_model_that_was_trained_since_is_embedded_anew(tmp_path):
    """The vectors of before are another fingerprint's, also for who asked for them before."""
    model = embedder("echo", Live(dim=12))
    for cache in (None, tmp_path):
        vectors = Vectors(model, cache)
        before = vectors.encode(TEXTS, "symmetric")
        model.backbone._mix_LDD.mul_(-1)
        after = vectors.encode(TEXTS, "symmetric")
        assert not np.allclose(after, before)
        np.testing.assert_allclose(after, model.encode(TEXTS), atol=1e-6)
        assert vectors.fingerprint == model.recipe.fingerprint


def test_role_and_instruction_matter_only_where_they_change_the_vector(backbone):
    """A symmetric recipe shares vectors between roles; one with instructions keeps them apart."""
    echo = Vectors(embedder("echo", backbone))
    assert len({echo.variant(role, text) for role in ("query", "document") for text in "ab"}) == 1
    instruct = Vectors(embedder("echo-instruct", backbone))
    assert instruct.variant("query", "a") != instruct.variant("query", "b")
    assert instruct.variant("query", "a") != instruct.variant("document", "a")
    assert instruct.variant("document", "a") == instruct.variant("document", "b")
    first, second = (instruct.encode(["text"], "query", text) for text in ("Sort", "Find"))
    assert np.abs(first - second).max() > 1e-3


def test_each_role_has_its_own_vectors_in_one_cache(backbone, tmp_path):
    """Where prompts and poolings differ by role alone, no role finds vectors of another."""
    views = {
        role: View(Template(role + " {text}"), pooling)
        for role, pooling in zip(ROLES, ("mean", "lasttoken", "mean"), strict=True)
    }
    model = embedder(Recipe(name="roles", views=views), backbone)
    for _ in range(2):
        kept = Vectors(model, tmp_path)
        for role in ROLES:
            expected = model.encode(TEXTS, role=None if role == "symmetric" else role)
            np.testing.assert_allclose(kept.encode(TEXTS, role), expected, atol=1e-6)


def test_a_blank_text_is_a_vector_of_zeros_and_counted(backbone):
    """Benchmarks have empty texts; they cost nothing and are counted."""
    found = Vectors(embedder("echo", backbone))
    vectors = found.encode(["", "full", " \n"], "symmetric")
    assert not vectors[[0, 2]].any()
    assert np.linalg.norm(vectors[1]) == pytest.approx(1)
    assert (found.cost.blank, found.cost.texts) == (2, 1)


def test_cut_texts_are_counted_from_the_cache_too(backbone, tmp_path):
    """How many texts were cut is known in the second run as in the first."""
    model = embedder("echo", backbone).with_recipe("echo", max_tokens=10)
    for _ in range(2):
        found = Vectors(model, tmp_path)
        found.encode(["short", "rather long for ten tokens"], "symmetric")
        assert found.cost.truncated == 1


def test_parts_that_were_finished_survive(backbone, tmp_path, monkeypatch):
    """If the model dies in the third part, the first two are on disk for the next run."""
    monkeypatch.setattr(vectors_module, "PART_TEXTS", 2)
    texts = [f"text number {i}" for i in range(10)]
    model = embedder("echo", backbone)
    done = backbone.forward

    def dying(*args, **options):
        if backbone.texts >= 4:
            raise KeyboardInterrupt
        return done(*args, **options)

    monkeypatch.setattr(backbone, "forward", dying)
    with pytest.raises(KeyboardInterrupt):
        Vectors(model, tmp_path).encode(texts, "symmetric")
    monkeypatch.setattr(backbone, "forward", done)
    backbone.texts = 0
    found = Vectors(model, tmp_path).encode(texts, "symmetric")
    assert backbone.texts == 6
    np.testing.assert_allclose(found, model.encode(texts), atol=1e-6)


def test_a_damaged_shard_is_set_aside_and_made_again(backbone, tmp_path):
    """One flipped byte is noticed; the texts are embedded again and the vectors are right."""
    model = embedder("echo", backbone)
    expected = Vectors(model, tmp_path).encode(TEXTS, "symmetric")
    (file,) = tmp_path.rglob("*.npy")
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    (tmp_path / "x.npy.1.unfinished").write_bytes(b"half")
    with pytest.warns(UserWarning, match="was damaged"):
        found = Vectors(model, tmp_path).encode(TEXTS, "symmetric")
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert backbone.texts == 6


def test_shards_give_records_in_the_order_asked(tmp_path):
    """Records of several files come back by key, repeated where the key is repeated."""
    shards = Shards(tmp_path, 2)
    for start in (0, 3):
        texts = [str(start + i) for i in range(3)]
        values = np.arange(6, dtype=np.float32).reshape(3, 2) + 10 * start
        shards.add(records_of(texts, values, np.array([1, 2, 3]), np.array([False, True, False])))
    for one in (shards, Shards(tmp_path, 2)):
        found = one.get([text_key(text) for text in ("4", "0", "4")])
        np.testing.assert_array_equal(found["vector"], [[32, 33], [0, 1], [32, 33]])
        assert found["tokens"].tolist() == [2, 1, 2]
        assert len(one) == 6
        assert text_key("9") not in one


def test_an_invalid_text_is_shown(backbone):
    """A text that is not valid Unicode names itself."""
    with pytest.raises(InputError, match=r"not valid Unicode.*the text is"):
        Vectors(embedder("echo", backbone)).encode(["fine", "bad \ud800"], "symmetric")
