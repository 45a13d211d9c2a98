"""The calibrate room: texts that a model writes, kept, and recipes fitted on them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from echovec import Embedder, InputError, ModelError
from echovec.calibrate import Writing, calibrate, self_texts
from echovec.calibrate.fitting import RECORD
from echovec.calibrate.write import sample, start_id, write_texts
from echovec.model.tiny import TinyBackbone
from echovec.text.tokenizer import ByteTokenizer, HFTokenizer
from families import causal_model, family_tokenizer, sentences

SHORT = Writing(count=6, shortest=5, longest=9, seed=3)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache folder of this test's own."""
    monkeypatch.setenv("ECHOVEC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two families' tiny models with heads, saved as folders."""
    made = {}
    for family in ("llama", "gpt2"):
        folder = tmp_path_factory.mktemp(family)
        causal_model(family).save_pretrained(folder)
        family_tokenizer(family).save_pretrained(folder)
        made[family] = folder
    return made


@pytest.fixture(scope="module")
def tiny():
    """An embedder without weights."""
    return Embedder("echo", ByteTokenizer(), TinyBackbone())


def written(family="llama", writing=SHORT, numbers=range(6)):
    return write_texts(
        causal_model(family), HFTokenizer(family_tokenizer(family)), writing, numbers
    )


def test_a_seed_writes_the_same_texts_and_another_seed_others():
    """Texts are decided by the seed; lengths differ from text to text."""
    texts, redrawn = written()
    assert written() == (texts, redrawn)
    assert len(set(texts)) == len(texts) == 6
    assert not set(written(writing=Writing(shortest=5, longest=9, seed=4))[0]) & set(texts)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_text_depends_on_its_number_only(family):
    """The fourth text is the same alone and among others, whatever the batch."""
    texts, _ = written(family)
    assert written(family, numbers=[3])[0] == [texts[3]]
    assert written(family, numbers=[5, 0, 3])[0] == [texts[5], texts[0], texts[3]]
    assert written(family, numbers=[2])[0] != [texts[3]]


def test_lengths_are_within_their_limits_and_no_marker_is_written():
    """Every text has 5 to 9 tokens when it is drawn, and spells no marker."""
    tokenizer = HFTokenizer(family_tokenizer("llama"))
    seen = []

    class Spy(HFTokenizer):
        @property
        def special_ids(self):
            return tokenizer.special_ids

    spy = Spy(family_tokenizer("llama"))
    decode = spy.inner.decode

    def decoding(ids, **options):
        seen.append(ids)
        return decode(ids, **options)

    spy.inner.decode = decoding
    try:
        write_texts(causal_model("llama"), spy, SHORT, range(40))
    finally:
        del spy.inner.decode
    lengths = {len(ids) for ids in seen}
    assert lengths == {5, 6, 7, 8, 9}
    assert not tokenizer.special_ids & {i for ids in seen for i in ids}


def naive_sample(logits, u, top_p, temperature):
    """Nucleus sampling by its definition, in Python's own numbers."""
    weights = [math.exp(x / temperature) for x in logits]
    p = [w / sum(weights) for w in weights]
    order = sorted(range(len(p)), key=lambda i: -p[i])
    kept, reached = [], 0.0
    for i in order:
        if reached >= top_p:
            break
        kept.append(i)
        reached += p[i]
    target, run = u * reached, 0.0
    for i in kept:
        run += p[i]
        if run > target:
            return i
    return kept[-1]


@pytest.mark.parametrize("top_p", [0.3, 0.9, 1.0])
@pytest.mark.parametrize("likely", [4, 2_048])
def test_sampling_equals_its_definition(monkeypatch, top_p, likely):
    """It equals a loop over sorted probabilities, also where few tokens are sorted first."""
    monkeypatch.setattr("echovec.calibrate.write._LIKELY", likely)
    source = torch.Generator().manual_seed(1)
    logits = torch.randn(50, 30, generator=source) * 2
    u = torch.rand(50, generator=source, dtype=torch.float64)
    ours = sample(logits, u, top_p=top_p, temperature=1.3).tolist()
    rows = zip(logits.double().tolist(), u.tolist(), strict=True)
    assert ours == [naive_sample(row, at, top_p, 1.3) for row, at in rows]
    assert ours != sample(logits, 1 - u, top_p=top_p, temperature=1.3).tolist()


def test_unlikely_and_forbidden_tokens_are_never_drawn():
    """Behind the nucleus, or at minus infinity, nothing is drawn, even at the end of the line."""
    logits = torch.tensor([[5.0, 4.0, -torch.inf, 0.0]]).repeat(3, 1)
    u = torch.tensor([0.0, 0.5, 1 - 1e-12])
    assert sample(logits, u, top_p=0.9, temperature=1.0).tolist() == [0, 0, 1]
    assert 2 not in sample(logits, u, top_p=1.0, temperature=9.0).tolist()


def test_texts_start_from_what_stood_between_documents():
    """`<|endoftext|>` where there is one, else BOS; a tokenizer without any is refused."""
    assert start_id(HFTokenizer(family_tokenizer("qwen2"))) == 0
    llama = HFTokenizer(family_tokenizer("llama"))
    assert start_id(llama) == llama.bos_id

    class Without(HFTokenizer):
        bos_id = eos_id = None

    with pytest.raises(ModelError, match="no BOS and no EOS"):
        start_id(Without(family_tokenizer("llama")))


def test_a_blank_text_is_drawn_again_and_counted(monkeypatch):
    """What cannot be embedded is replaced by another draw; a model that writes nothing is named."""
    from echovec.calibrate import write

    as_text = write._as_text
    spoiled = iter([True, False, True])
    monkeypatch.setattr(
        write, "_as_text", lambda *given: None if next(spoiled, False) else as_text(*given)
    )
    texts, redrawn = written()
    assert redrawn == 2
    assert all(texts)
    monkeypatch.setattr(write, "_as_text", lambda *_: None)
    monkeypatch.setattr(write, "MOST_DRAWS", 2)
    with pytest.raises(ModelError, match="writes nothing"):
        written()


def test_kept_texts_are_read_and_nothing_is_written(own_cache, folders, monkeypatch):
    """A second call loads no model and leaves every file as it was."""
    embedder = Embedder.load(folders["llama"])
    first = self_texts(embedder, SHORT)
    assert (first.new, len(first.texts)) == (6, 6)
    (file,) = own_cache.rglob("*.json")
    stamp = file.stat().st_mtime_ns
    monkeypatch.setattr("echovec.calibrate.kept._with_head", None)
    again = self_texts(embedder, SHORT)
    assert (again.texts, again.new) == (first.texts, 0)
    assert [f.stat().st_mtime_ns for f in own_cache.rglob("*") if f.is_file()] == [stamp]


def test_a_damaged_block_is_written_again(own_cache, folders, monkeypatch, caplog):
    """Edited or cut short, a block is noticed by its hash; whole blocks stay as they are."""
    monkeypatch.setattr("echovec.calibrate.kept.BLOCK", 3)
    embedder = Embedder.load(folders["llama"])
    first = self_texts(embedder, SHORT)
    edited, whole = sorted(own_cache.rglob("*.json"))
    content = json.loads(edited.read_text("utf-8"))
    content["texts"][0] += "!"
    for broken in (json.dumps(content), edited.read_text("utf-8")[:40], ""):
        edited.write_text(broken, "utf-8")
        stamp = whole.stat().st_mtime_ns
        again = self_texts(embedder, SHORT)
        assert (again.texts, again.new) == (first.texts, 3)
        assert whole.stat().st_mtime_ns == stamp
    assert "damaged" in caplog.text


def test_other_settings_have_other_texts_and_more_texts_take_over_blocks(
    own_cache, folders, monkeypatch
):
    """The seed is part of the key, the count is not: finished blocks serve a longer run."""
    monkeypatch.setattr("echovec.calibrate.kept.BLOCK", 3)
    embedder = Embedder.load(folders["llama"])
    first = self_texts(embedder, SHORT)
    longer = self_texts(embedder, Writing(count=9, shortest=5, longest=9, seed=3))
    assert (longer.texts[:6], longer.new) == (first.texts, 3)
    other = self_texts(embedder, Writing(count=6, shortest=5, longest=9, seed=4))
    assert other.new == 6
    assert other.sha256 != first.sha256


def test_a_model_in_memory_is_asked_for_texts(own_cache, tiny):
    """Without a place to load the head from, the message says to give texts."""
    in_memory = Embedder.from_model(causal_model("llama"), family_tokenizer("llama"))
    for embedder in (in_memory, tiny):
        with pytest.raises(InputError, match="give texts"):
            self_texts(embedder, SHORT)


@pytest.mark.parametrize("name", ["echo-eol", "echo-instruct", "meta-eol"])
def test_each_view_is_calibrated_normalised_and_weighted(tiny, name):
    """Vectors equal a loop over views written apart, for every role; the plain recipe's do not."""
    texts = list(sentences(60))
    embedder = tiny.with_recipe(name)
    ours = calibrate(embedder, texts)
    for role in ("symmetric", "query", "document"):
        total = 0
        views = embedder.recipe.views[role]
        states = embedder.states(texts, role=role)
        for view, z_LND in zip(views, states, strict=True):
            z = z_LND.astype(np.float64).mean(0)
            z = (z - z.mean(0)) / z.std(0)
            total = total + view.weight * z / np.linalg.norm(z, axis=1, keepdims=True)
        total /= np.linalg.norm(total, axis=1, keepdims=True)
        vectors = ours.encode(texts, role=role)
        assert np.abs(vectors - total).max() < 1e-4
        assert np.abs(embedder.encode(texts, role=role) - total).max() > 0.01


@pytest.mark.parametrize(
    ("method", "options"),
    [("center", {}), ("whiten", {"strength": 0.5}), ("remove-top", {"count": 2})],
)
def test_a_vector_is_the_same_alone_and_in_any_batch(tiny, method, options):
    """Nothing of a fitted recipe depends on the batch."""
    texts = list(sentences(60))
    ours = calibrate(tiny.with_recipe("echo-eol"), texts, method, **options)
    together = ours.encode(texts[::3])
    alone = np.stack([ours.encode(text) for text in texts[::3]])
    assert np.abs(together - alone).max() < 1e-5


def test_the_recipe_says_what_it_was_fitted_on_and_survives_its_folder(tiny, tmp_path):
    """Method, number, source and hash stand in the saved recipe, which gives the same vectors."""
    texts = list(sentences(40))
    ours = calibrate(tiny, texts, "whiten", source="notes.txt", strength=0.5)
    assert ours.recipe.name == "echo+whiten"
    ours.recipe.save(tmp_path)
    record = json.loads((tmp_path / "recipe.json").read_text("utf-8"))["versions"][RECORD]
    assert record.startswith("whiten(strength=0.5), fitted on 40 texts, notes.txt, sha256:")
    loaded = tiny.with_recipe(tmp_path)
    assert loaded.recipe.fingerprint == ours.recipe.fingerprint
    assert np.array_equal(loaded.encode(texts), ours.encode(texts))


def test_a_fitted_recipe_can_be_calibrated_again(tiny):
    """What a view did already stays in front; unit length comes once, at the end."""
    texts = list(sentences(60))
    once = calibrate(tiny, texts, "center")
    twice = calibrate(once, texts, "whiten", name="twice", strength=0.5)
    (view,) = twice.recipe.views["symmetric"]
    assert [type(t).__name__ for t in view.transforms] == ["Center", "Linear", "Normalize"]
    assert twice.recipe.name == "twice"


def test_bad_calls_are_refused(tiny):
    """Unknown methods and options, too few texts, and settings out of range are InputErrors."""
    texts = list(sentences(20))
    for arguments in (
        {"method": "shrink"},
        {"method": "center", "strength": 1.0},
        {"texts": texts[:1]},
        {"writing": SHORT},
    ):
        with pytest.raises(InputError):
            calibrate(tiny, **{"texts": texts, **arguments})
    for numbers in ({"count": 1}, {"shortest": 9, "longest": 8}, {"top_p": 0}, {"seed": -1}):
        with pytest.raises(InputError):
            Writing(**numbers)
    with pytest.raises(InputError):
        Writing(temperature=0)


def test_the_command_line_ends_with_a_recipe_that_loads(own_cache, folders, tmp_path):
    """`echovec calibrate` fits on a file and on the model's own texts; both folders are recipes."""
    from echovec.cli import app

    notes = tmp_path / "notes.txt"
    notes.write_text("\n".join(sentences(40)), "utf-8")
    model = str(folders["llama"])
    runs = {
        "filed": ["--texts", str(notes), "--method", "whiten", "--strength", "0.5"],
        "written": ["--self", "--count", "8", "--recipe", "classical"],
    }
    for name, options in runs.items():
        out = tmp_path / name
        arguments = ["calibrate", "--model", model, "-o", str(out), *options]
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        assert Embedder.load(model, recipe=out).encode("a text").shape == (32,)
        with pytest.raises(InputError, match="holds a recipe already"):
            CliRunner().invoke(app, arguments, catch_exceptions=False)
    record = json.loads((tmp_path / "filed" / "recipe.json").read_text("utf-8"))["versions"][RECORD]
    assert "fitted on 40 texts, notes.txt (sha256:" in record
    assert Embedder.load(tmp_path / "written").recipe.name == "classical+center-scale"


def test_the_command_fits_the_papers_prompt_unless_told_otherwise(tmp_path, monkeypatch):
    """Not the default model's own recipe, which is calibrated already."""
    from typer.testing import CliRunner

    from echovec.cli import app
    from echovec.errors import ModelError

    asked = []

    def load(model, recipe, **options):
        asked.append(recipe)
        raise ModelError("no model here")

    monkeypatch.setattr(Embedder, "load", load)
    for more in ([], ["--recipe", "classical"]):
        CliRunner().invoke(app, ["calibrate", "-o", str(tmp_path / "out"), *more])
    assert asked == ["echo", "classical"]
