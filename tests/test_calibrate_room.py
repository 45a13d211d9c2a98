"""The calibrate room: texts that a model writes, kept, and recipes fitted on them."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from echovec import Embedder, InputError, ModelError, TruncationWarning
from echovec.calibrate import Writing, calibrate, self_texts
from echovec.calibrate.draw import as_text, sample, start_id
from echovec.calibrate.fitting import RECORD
from echovec.calibrate.kept import key_of
from echovec.calibrate.kinds import KINDS, OF_ONE_KIND
from echovec.calibrate.write import write_texts
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


def test_texts_are_drawn_as_the_settings_say():
    """A tiny top-p or temperature writes the likeliest tokens, a high temperature others."""
    model, tokenizer = causal_model("llama"), HFTokenizer(family_tokenizer("llama"))
    plain = Writing(count=4, shortest=8, longest=8, kinds=OF_ONE_KIND)
    ids = [start_id(tokenizer)]
    with torch.inference_mode():
        for _ in range(8):
            logits_V = model(input_ids=torch.tensor([ids])).logits[0, -1]
            logits_V[sorted(tokenizer.special_ids)] = -torch.inf
            ids.append(int(logits_V.argmax()))
    likeliest = as_text(tokenizer, ids[1:], line=False)
    for change in ({"top_p": 1e-9}, {"temperature": 1e-9}):
        texts, _ = write_texts(model, tokenizer, replace(plain, **change), range(4))
        assert texts == [likeliest] * 4
    as_usual, _ = write_texts(model, tokenizer, plain, range(4))
    heated, _ = write_texts(model, tokenizer, replace(plain, temperature=9.0), range(4))
    assert likeliest not in as_usual
    assert not set(heated) & set(as_usual)


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
        free = replace(SHORT, kinds=OF_ONE_KIND)
        write_texts(causal_model("llama"), spy, free, range(40))
    finally:
        del spy.inner.decode
    lengths = {len(ids) for ids in seen}
    assert lengths == {5, 6, 7, 8, 9}
    assert not tokenizer.special_ids & {i for ids in seen for i in ids}


def test_texts_take_turns_in_kind_and_none_has_its_opening_in_it():
    """Text n is of the kind n modulo their number; the list it goes on with is no part of it."""
    writing = Writing(count=14, longest=9, shortest=5)
    assert [writing.kind(n) for n in range(14)] == [*KINDS, *KINDS]
    texts, _ = written(writing=writing, numbers=range(14))
    assert len(set(texts)) == 14
    for n, text in enumerate(texts):
        opening = KINDS[writing.kind(n)]
        assert text not in opening
        assert not any(line and line in text for line in opening.splitlines() if len(line) > 2)
    # The same number writes something else where it is another kind's turn: the control.
    captions = written(writing=replace(writing, kinds=("caption",)), numbers=range(14))[0]
    assert captions[1] == texts[1]
    assert captions[2] != texts[2]
    assert captions[0] != texts[0]


def test_a_text_of_a_list_ends_with_its_line():
    """What the model writes behind the end of the line is dropped; a free text keeps its lines."""
    tokenizer = HFTokenizer(family_tokenizer("llama"))
    newline = tokenizer.tokenize(["\n"])[0][-1]
    model = copy.deepcopy(causal_model("llama"))  # other tests have the same one
    plain = model.forward

    def ends_soon(**given):
        out = plain(**given)
        if given["past_key_values"] is not None and out.logits.shape[1] == 1:
            steps = given["past_key_values"].get_seq_length() - opened[0]
            if steps == 4:
                out.logits[:, -1, newline] = 1e4
        else:
            opened[0] = given["input_ids"].shape[1]
        return out

    opened = [0]
    model.forward = ends_soon
    lengths = {}
    for kind in ("free", "caption"):
        writing = Writing(count=8, shortest=12, longest=12, kinds=(kind,))
        texts, _ = write_texts(model, tokenizer, writing, range(8))
        lengths[kind] = [len(row) for row in tokenizer.tokenize(texts)]
        assert any("\n" in text for text in texts) == (kind == "free")
    assert max(lengths["caption"]) < min(lengths["free"])


def test_a_line_keeps_what_its_last_token_has_before_the_end():
    """Some vocabularies have a token for the full stop and the end of the line together."""
    inner = copy.deepcopy(family_tokenizer("llama"))
    inner.add_tokens([".\n"])
    last = inner.convert_tokens_to_ids(".\n")
    model = copy.deepcopy(causal_model("llama"))
    model.resize_token_embeddings(len(inner))
    plain, opened = model.forward, [0]

    def ends_soon(**given):
        out = plain(**given)
        cached = given["past_key_values"]
        length = 0 if cached is None else cached.get_seq_length()
        if length == 0 or given["input_ids"].shape[1] > 1:
            opened[0] = given["input_ids"].shape[1]
        elif length - opened[0] == 3:
            out.logits[:, -1, last] = 1e4
        return out

    model.forward = ends_soon
    writing = Writing(count=8, shortest=12, longest=12, kinds=("caption",))
    texts, _ = write_texts(model, HFTokenizer(inner), writing, range(8))
    assert sum(text.endswith(".") for text in texts) >= 4
    assert not any("\n" in text for text in texts)


def test_unknown_kinds_are_refused():
    """The message has the kinds that there are."""
    for kinds in (("poem",), ()):
        with pytest.raises(InputError, match="caption, question"):
            Writing(kinds=kinds)


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
    monkeypatch.setattr("echovec.calibrate.draw._LIKELY", likely)
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

    unspoiled, _ = written()
    spoiled = iter([True, False, True])
    monkeypatch.setattr(
        write,
        "as_text",
        lambda *given, **how: None if next(spoiled, False) else as_text(*given, **how),
    )
    texts, redrawn = written()
    assert redrawn == 2
    assert all(texts)
    assert sum(a != b for a, b in zip(texts, unspoiled, strict=True)) == 2
    monkeypatch.setattr(write, "as_text", lambda *_, **how: None)
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
    monkeypatch.setattr("echovec.calibrate.kept.with_head", None)
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


def test_texts_are_kept_under_all_that_decides_them(own_cache, folders, monkeypatch):
    """Each setting but the count, and each part of the model, has texts of its own."""
    monkeypatch.setattr("echovec.calibrate.kept.with_head", lambda *_, **__: object())
    monkeypatch.setattr(
        "echovec.calibrate.kept.write_texts",
        lambda model, tokenizer, writing, numbers, **_: ([str(n) for n in numbers], 0),
    )
    embedder = Embedder.load(folders["llama"])
    assert self_texts(embedder, SHORT).new == 6
    other = {
        "count": 7,
        "shortest": 4,
        "longest": 10,
        "kinds": OF_ONE_KIND,
        "top_p": 0.9,
        "temperature": 0.7,
        "seed": 4,
    }
    assert set(other) == {field.name for field in fields(Writing)}
    new = {
        name: self_texts(embedder, replace(SHORT, **{name: value})).new
        for name, value in other.items()
    }
    assert new == dict.fromkeys(other, 6) | {"count": 7}  # of which 6 are of a shorter last block
    assert self_texts(embedder, SHORT).new == 0
    keys = {key_of(1, model, embedder.tokenizer) for model in models_like(embedder)}
    assert len(keys) == 3


def models_like(embedder):
    """The embedder, and two whose weights or tokenizer are others."""
    same = embedder.identity
    for change in ({}, {"hash": "sha256:other"}, {"tokenizer_hash": "sha256:other"}):
        yield SimpleNamespace(identity=replace(same, **change), backbone=embedder.backbone)


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


def test_methods_one_after_the_other_are_fitted_on_what_the_last_one_gave(tiny):
    """Scaled, kinds removed, whitened: as in a loop written apart; another order differs."""
    texts = list(sentences(60))
    kinds = [f"kind {n % 3}" for n in range(60)]
    methods = ["center-scale", "remove-kinds", "whiten"]
    ours = calibrate(tiny, texts, methods, kinds=kinds, count=2, strength=0.5, shrinkage=0.2)
    assert ours.recipe.name == "echo+center-scale+remove-kinds+whiten"
    assert ours.recipe.versions[RECORD].startswith(
        "center-scale, remove-kinds(count=2), whiten(shrinkage=0.2, strength=0.5), fitted on 60"
    )
    (states,) = tiny.states(texts)
    z = states.astype(np.float64).mean(0)
    z = (z - z.mean(0)) / z.std(0)
    means = np.stack([z[np.array(kinds) == kind].mean(0) for kind in sorted(set(kinds))])
    means -= means.mean(0)
    across = np.eye(z.shape[1]) - np.linalg.pinv(means) @ means
    z = z @ across
    covariance = 0.8 * np.cov(z.T, bias=True) + 0.2 * np.eye(len(z.T)) * z.var(0).mean()
    values, axes = np.linalg.eigh(covariance)
    z = z @ (axes * values**-0.25) @ axes.T
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    vectors = ours.encode(texts)
    assert np.abs(vectors - z).max() < 1e-3
    other = calibrate(tiny, texts, methods[::-1], kinds=kinds, count=2, strength=0.5)
    assert np.abs(other.encode(texts) - z).max() > 0.01
    alone = np.stack([ours.encode(text) for text in texts[::7]])
    assert np.abs(vectors[::7] - alone).max() < 1e-5


def test_what_the_model_writes_has_its_kinds(own_cache, folders):
    """No kinds need to be given where the model writes the texts."""
    embedder = Embedder.load(folders["llama"])
    writing = Writing(count=16, shortest=5, longest=9)
    written = self_texts(embedder, writing)
    assert written.kinds == tuple(map(writing.kind, range(16)))
    ours = calibrate(embedder, method=["center-scale", "remove-kinds"], writing=writing)
    given = calibrate(
        embedder, written.texts, ["center-scale", "remove-kinds"], kinds=written.kinds
    )
    assert np.array_equal(ours.encode(["a text"]), given.encode(["a text"]))


def test_bad_calls_are_refused(tiny):
    """Unknown methods and options, too few texts, and settings out of range are InputErrors."""
    texts = list(sentences(20))
    for arguments in (
        {"method": "shrink"},
        {"method": []},
        {"texts": None, "kinds": ["a", "b"]},
        {"method": ["center", "remove-kinds"]},
        {"method": ["center", "whiten"], "dim": 3},
        {"method": "center", "strength": 1.0},
        {"texts": texts[:1]},
        {"texts": "one text and not a list of its characters"},
        {"writing": SHORT},
    ):
        with pytest.raises(InputError):
            calibrate(tiny, **{"texts": texts, **arguments})
    with pytest.raises(InputError, match="strength: no option of center; there is none"):
        calibrate(tiny, texts, "center", strength=1.0)
    with pytest.raises(InputError, match="dim: no option of center or whiten; there are shrink"):
        calibrate(tiny, texts, ["center", "whiten"], dim=3)
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
    other = tmp_path / "other.txt"
    other.write_text("\n".join(f"what is {text}?" for text in sentences(30)), "utf-8")
    model = str(folders["llama"])
    runs = {
        "filed": ["--texts", str(notes), "--method", "whiten", "--strength", "0.5"],
        "written": ["--self", "--count", "8", "--recipe", "classical"],
        "two files": f"--texts {notes} --texts {other} --method center-scale "
        "--method remove-kinds --axes 1".split(),
        "two kinds": ["--count", "8", "--kind", "free", "--kind", "title"],
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


def test_the_command_line_passes_all_on(tmp_path, monkeypatch):
    """Each option reaches what it is for; a file's texts are its own field's, the first of them."""
    from echovec.calibrate import Written
    from echovec.cli import app

    file = tmp_path / "notes.jsonl"
    file.write_text("".join(f'{{"body": "text {n}"}}\n' for n in range(9)), "utf-8")
    calls = []
    recipe = SimpleNamespace(save=lambda out: None, name="a recipe", fingerprint="0")

    def fit(embedder, texts, methods, **options):
        calls.append((texts, methods, options))
        return SimpleNamespace(recipe=recipe)

    def write(embedder, writing, **options):
        calls.append(writing)
        return Written(("a", "b"), ("free", "title"), 0, 2)

    monkeypatch.setattr(Embedder, "load", lambda *given, **how: calls.append((given, how)))
    monkeypatch.setattr("echovec.calibrate.calibrate", fit, raising=False)
    monkeypatch.setattr("echovec.calibrate.self_texts", write, raising=False)
    own = ["--seed", "5", "--count", "6", "--kind", "title", "--kind", "free"]
    given = ["--texts", str(file), "--count", "4", "--text-field", "body", "--name", "mine"]
    given += ["--method", "whiten", "--strength", "0.4", "--shrinkage", "0.3"]
    more = [
        "--method",
        "pca",
        "--method",
        "remove-top",
        "--dim",
        "3",
        "--axes",
        "2",
        "--max-tokens",
        "99",
        "--device",
        "cpu",
    ]
    for options in (own, [*given], [*more, "--model", "m", "--precision", "fast"]):
        command = ["calibrate", "-o", str(tmp_path / "out"), *options]
        assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    assert calls[1] == Writing(count=6, seed=5, kinds=("title", "free"))
    texts, methods, options = calls[4]
    assert (texts, methods) == ([f"text {n}" for n in range(4)], ["whiten"])
    assert options.pop("source").startswith("notes.jsonl (sha256:")
    assert options == {
        "kinds": [str(file)] * 4,
        "name": "mine",
        "strength": 0.4,
        "shrinkage": 0.3,
    }
    loaded, writing, (texts, methods, options) = calls[5:]
    assert loaded == (("m", "echo"), {"device": "cpu", "precision": "fast", "max_tokens": 99})
    assert writing == Writing()
    assert (texts, methods) == (["a", "b"], ["pca", "remove-top"])
    assert options == {
        "kinds": ["free", "title"],
        "name": None,
        "source": "written by the model itself",
        "dim": 3,
        "count": 2,
    }
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is not a folder"):
        CliRunner().invoke(
            app, ["calibrate", "-o", str(tmp_path / "file" / "out")], catch_exceptions=False
        )
    assert len(calls) == 8
    empty = tmp_path / "gap.txt"
    empty.write_text("one\n\ntwo\n", "utf-8")
    with pytest.raises(InputError, match=r"gap\.txt:2: the text is empty; correct it or take"):
        CliRunner().invoke(
            app,
            ["calibrate", "-o", str(tmp_path / "out"), "--texts", str(empty)],
            catch_exceptions=False,
        )


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


def test_texts_that_are_cut_are_told(tiny):
    """How many of the given ones, repeats counted; nothing where all of them fit."""
    texts = ["a rather long text", "short", "b", "a rather long text"]
    calibrate(tiny, texts, "center")
    with pytest.warns(TruncationWarning, match="2 of 4 texts were cut to the budget of 6 tokens"):
        calibrate(tiny.with_recipe("echo", max_tokens=6), texts, "center")
