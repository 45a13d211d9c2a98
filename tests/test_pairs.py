"""Training pairs out of texts alone: what is drawn, asked, found again, and the command."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from echovec import Embedder, InputError
from echovec.calibrate import draw
from echovec.calibrate.draw import Drawing, go_on
from echovec.calibrate.kinds import KINDS
from echovec.cli import app
from echovec.model.tiny import TinyBackbone
from echovec.text.tokenizer import ByteTokenizer
from echovec.train import ask
from echovec.train.ask import Asking, Pair, asked, pairs
from echovec.train.examples import EXAMPLES, FORMS
from echovec.train.passages import is_sound, own_passages, whole_sentences
from families import FAMILIES, causal_model, family_tokenizer, sentences

SHORT = Asking(num_examples=2, longest=6, text_tokens=20)
LONG = "The river rises in the mountains of the north and flows through three old lakes."
TEXTS = [*[text for text in sentences() if len(text.split()) > 3][:8], LONG]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """A cache folder of each test's own."""
    monkeypatch.setenv("ECHOVEC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model with its head."""
    made = tmp_path_factory.mktemp("llama")
    causal_model("llama").save_pretrained(made)
    family_tokenizer("llama").save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def embedder(folder):
    """An embedder of the tiny model."""
    return Embedder.load(folder, "echo")


def rows_and_draws(model, lengths):
    """Random rows behind a random beginning, and what tokens are drawn with."""
    size = model.get_output_embeddings().weight.shape[0]
    source = np.random.default_rng(0)
    shared = source.integers(3, size, 7).tolist()
    rows = [source.integers(3, size, length).tolist() for length in lengths]
    how = Drawing(torch.zeros(size, dtype=torch.bool), None, 0.95, 1.0)
    return shared, rows, source.random((len(rows), 6)), how


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_go_on_as_if_each_were_alone(family):
    """Padded in front, behind a beginning that is read once: what each gets by itself."""
    model = causal_model(family)
    shared, rows, u, how = rows_and_draws(model, (3, 9, 1, 4))
    alone = [go_on(model, [[*shared, *row]], u[i : i + 1], how)[0] for i, row in enumerate(rows)]
    assert go_on(model, rows, u, how, shared=shared) == alone
    assert go_on(model, [[*shared, *row] for row in rows], u, how) == alone
    assert go_on(model, rows, u[::-1], how, shared=shared) != alone


def test_padding_that_nobody_is_told_of_is_noticed(monkeypatch):
    """Negative control: without a mask and places other tokens are drawn."""
    model = causal_model("llama")
    shared, rows, u, how = rows_and_draws(model, (3, 9, 1, 4))
    right = go_on(model, rows, u, how, shared=shared)
    padded = draw._padded
    monkeypatch.setattr(draw, "_padded", lambda *given: (padded(*given)[0], {}))
    assert go_on(model, rows, u, how, shared=shared) != right


def test_a_family_without_a_cache_reads_all_of_it_again():
    """No cache to share or to go on from: the same tokens."""
    model = causal_model("llama")
    shared, rows, u, how = rows_and_draws(model, (3, 5))

    def forgetful(past_key_values=None, **given):
        assert past_key_values is None
        return SimpleNamespace(logits=model(**given).logits)

    other = SimpleNamespace(device=model.device, config=model.config, forward=model.forward)

    class Forgetful(SimpleNamespace):
        __call__ = staticmethod(forgetful)

    wrapped = Forgetful(**vars(other))
    assert go_on(wrapped, rows, u, how, shared=shared) == go_on(model, rows, u, how, shared=shared)


def test_the_beginning_is_read_once_unless_a_window_would_count_the_padding():
    """A model that sees all shares what it has read; one that sees 16 tokens does not."""
    lengths = {}
    for family in ("llama", "gemma3"):
        model = causal_model(family)
        shared, rows, u, how = rows_and_draws(model, (3, 9))
        seen = []
        handle = model.register_forward_pre_hook(
            lambda _, args, given, seen=seen: seen.append(tuple(given["input_ids"].shape)),
            with_kwargs=True,
        )
        go_on(model, rows, u, how, shared=shared)
        handle.remove()
        lengths[family] = seen[:2]
    assert lengths["llama"] == [(1, 7), (2, 9)]
    assert lengths["gemma3"] == [(2, 16), (2, 1)]


def test_what_is_asked_depends_on_seed_and_number_only(embedder):
    """The same settings ask the same; another seed something else; each form its own."""
    first = asked(embedder, TEXTS, SHORT)
    assert set(first) == set(FORMS)
    assert all(len(lines) == len(TEXTS) for lines in first.values())
    assert asked(embedder, TEXTS, SHORT) == first
    assert first["query"] != first["title"]
    assert asked(embedder, TEXTS, replace(SHORT, seed=1)) != first
    assert not any("\n" in line for lines in first.values() for line in lines)


def test_killed_asking_goes_on_where_it_was(embedder, monkeypatch):
    """A block that was finished is not asked again, and the end is the same."""
    monkeypatch.setattr("echovec.calibrate.kept.BLOCK", 4)
    monkeypatch.setattr(ask, "BLOCK", 4)
    whole = asked(embedder, TEXTS, replace(SHORT, seed=5))
    one = replace(SHORT, seed=6)
    calls = Counter()
    real = ask._Writer.block

    def dies(self, form, texts, advance, numbers):
        calls[form, numbers.start] += 1
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, form, texts, advance, numbers)

    with monkeypatch.context() as patched:
        patched.setattr(ask._Writer, "block", dies)
        with pytest.raises(KeyboardInterrupt):
            asked(embedder, TEXTS, one)
    done = []

    def counts(self, form, texts, advance, numbers):
        done.append((form, numbers.start))
        return real(self, form, texts, advance, numbers)

    with monkeypatch.context() as patched:
        patched.setattr(ask._Writer, "block", counts)
        again = asked(embedder, TEXTS, one)
    assert ("query", 0) not in done
    assert ("query", 8) in done
    assert again != whole
    assert asked(embedder, TEXTS, one) == again


def test_the_prompt_shows_examples_then_the_text(embedder, monkeypatch):
    """Each example has its query below, the text has room for one; long texts are shortened."""
    seen = []

    def spy(model, rows, u_ST, how, *, shared):
        spell = embedder.tokenizer.inner.decode
        seen.append((spell(shared, skip_special_tokens=True), [spell(row) for row in rows]))
        return [[] for _ in rows]

    monkeypatch.setattr(ask, "go_on", spy)
    long = "word " * 300 + "end"
    told = asked(embedder, [*TEXTS, long], replace(SHORT, forms=("title",), num_examples=3))
    assert told == {"title": [""] * (len(TEXTS) + 1)}
    ((shown, rows),) = seen
    assert shown.count("Title:") == shown.count("Text:") == 3
    chosen = [one for one in EXAMPLES if one.title.split()[0] in shown and one.text[:8] in shown]
    assert len(chosen) >= 3
    assert not any(one.query in shown for one in EXAMPLES if one.query not in one.text)
    assert all(row.rstrip().endswith("Title:") for row in rows)
    assert all("end" not in row for row in rows if "word word" in row)


def test_pairs_are_what_finds_its_text_again(embedder, monkeypatch):
    """Each reason to leave something out has a case; what is asked well stays, in order."""
    texts = [*TEXTS, TEXTS[0]]
    wrote = {
        "query": [text.upper() + " again" for text in TEXTS],
        "title": [f"{TEXTS[-1 - place]} title {place}" for place in range(len(TEXTS))],
    }
    wrote["query"][1] = "one"
    wrote["query"][2] = wrote["query"][3] = "The Same, twice"
    wrote["query"][-1] = LONG.rsplit(" ", 2)[0]
    monkeypatch.setattr(ask, "asked", lambda *_, **how: wrote)
    found = pairs(embedder, texts, replace(SHORT, within=3))
    assert found.texts == len(TEXTS)
    assert found.left_out["has fewer than two words"] == 1
    assert found.left_out["was written more than once"] == 2
    assert found.left_out["is a piece of its text"] == 1
    total = sum(found.left_out.values()) + len(found.rows)
    assert total == 2 * len(TEXTS)
    naive = naively_found(embedder, wrote, 3)
    assert list(found.rows) == naive
    assert 0 < len(naive) < total
    everything = pairs(embedder, texts, replace(SHORT, within=len(TEXTS) - 1))
    assert len(everything.rows) > len(naive)


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("量子计算机", True),
        ("東京の天気は", True),
        ("カタカナ", True),
        ("GPT模型", True),
        ("天气", False),
        ("天", False),
        ("weather", False),
        ("날씨", False),
        ("오늘 날씨", True),
    ],
)
def test_scripts_without_blanks_have_words_too(line, kept):
    """Two characters of Chinese or Japanese count as a word; others are divided by blanks."""
    left_out = Counter()
    assert len(list(ask._candidates(["a text"], {"query": [line]}, left_out))) == kept
    assert left_out["has fewer than two words"] == (not kept)


def test_a_piece_of_a_text_without_blanks_is_left_out():
    """From nine characters on, as from five words on; a shorter one may be a title."""
    text = "今日はとても天気がよかったので散歩に行きました。"
    for line, kept in ((text[:12], 0), (text[:6], 1)):
        assert len(list(ask._candidates([text], {"query": [line]}, Counter()))) == kept


def naively_found(embedder, wrote, within):
    """The round trip by its definition, one after the other."""
    z = embedder.encode_document(TEXTS)
    plain = {line: ask.folded(line).split() for lines in wrote.values() for line in lines}
    alike = [ask.folded(line) for lines in wrote.values() for line in lines]
    found = []
    for form, lines in wrote.items():
        for place, line in enumerate(lines):
            piece = len(plain[line]) > 4 and ask.folded(line) in ask.folded(TEXTS[place])
            if len(plain[line]) < 2 or alike.count(ask.folded(line)) > 1 or piece:
                continue
            scores = z @ embedder.encode_query([line])[0]
            if (scores > scores[place]).sum() < within:
                found.append(Pair(line, TEXTS[place], form))
    return found


def test_too_few_texts_are_refused(embedder):
    """Finding one of three texts among the nearest three tells nothing."""
    with pytest.raises(InputError, match="give more texts"):
        pairs(embedder, TEXTS[:3] * 2, SHORT)


def test_a_text_that_cannot_be_embedded_is_named(embedder):
    """Before anything is asked."""
    with pytest.raises(InputError, match=r"texts\[9\] is not valid Unicode"):
        pairs(embedder, [*TEXTS, "\ud800"], SHORT)


def test_a_model_that_writes_nothing_makes_no_pairs(embedder, monkeypatch):
    """All is counted as left out, and nothing is an error."""
    nothing = {form: [""] * len(TEXTS) for form in FORMS}
    monkeypatch.setattr(ask, "asked", lambda *_, **how: nothing)
    found = pairs(embedder, TEXTS, SHORT)
    assert found.rows == ()
    assert found.left_out == {"has fewer than two words": 2 * len(TEXTS)}


def test_a_model_that_cannot_write_is_refused():
    """Made-up backbones have no words."""
    with pytest.raises(InputError, match="no language model"):
        asked(Embedder("echo", ByteTokenizer(), TinyBackbone()), TEXTS, SHORT)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"forms": ("poem",)}, "query, title"),
        ({"forms": ()}, "query, title"),
        ({"num_examples": 99}, "1 to"),
        ({"longest": 0}, "longest=0"),
        ({"within": 0}, "within=0"),
        ({"top_p": 0.0}, "top_p"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_settings_that_cannot_be_are_refused(change, said):
    """The message names the value and what can be given."""
    with pytest.raises(InputError, match=said):
        replace(SHORT, **change)


def test_examples_are_texts_of_their_own():
    """No two alike, each with all forms, none of a kind of calibration text."""
    assert len({one.text for one in EXAMPLES}) == len(EXAMPLES) >= 12
    for one in EXAMPLES:
        assert all(one.asked(form).strip() for form in FORMS)
        assert not any(one.text in opening for opening in KINDS.values())


def test_passages_are_whole_sentences():
    """What stands before the first beginning and after the last end is left out."""
    text = "and so on. It rains in May. Who\n knows why? Nobody has told the"
    assert whole_sentences(text) == "It rains in May. Who knows why?"
    assert whole_sentences("no beginning here, and no end") == ""
    assert whole_sentences("an end. But only a beginning") == ""


@pytest.mark.parametrize(
    ("text", "sound"),
    [
        ("The river rises in the mountains of the north and flows through three old lakes.", True),
        ("Too short to say anything.", False),
        ("1 + 2 = 3, 4 * 5 = 20, f(x) = x^2 + 1; a[3] = {7: 8} and so on 99 times 100.", False),
        ("the same " * 12, False),
    ],
)
def test_prose_is_told_from_tables_and_circles(text, sound):
    """Letters, words, and words that differ."""
    assert is_sound(text) is sound


def test_own_passages_are_distinct_and_sound(embedder, monkeypatch):
    """What the model writes is cut to sentences, and each passage comes once."""
    good = "cut. The river rises in the mountains of the north and flows through three lakes. The"
    written = SimpleNamespace(texts=(good, "nothing", good, "a. Two words."))
    monkeypatch.setattr("echovec.train.passages.self_texts", lambda *_, **how: written)
    assert own_passages(embedder, 4) == [whole_sentences(good)]


def test_the_command_writes_rows_that_train_reads(folder, tmp_path):
    """A file of texts in, rows of anchor and positive out, what was left out on the screen."""
    from echovec.train.data import columns_of

    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS), "utf-8")
    out = tmp_path / "pairs.jsonl"
    command = ["pairs", str(texts), "-o", str(out), "--model", str(folder), "--recipe", "echo"]
    done = CliRunner().invoke(app, [*command, "--within", "8"])
    assert done.exit_code == 0, done.output
    assert f"{len(TEXTS)} texts" in done.output
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert rows
    for row in rows:
        anchor, (positive,), negatives = columns_of(row)
        assert (anchor, positive, negatives) == (row["anchor"], row["positive"], [])
        assert positive in TEXTS
    few = CliRunner().invoke(app, [*command, "--within", "4", "--count", "5"])
    assert "5 texts" in few.output
    assert CliRunner().invoke(app, [*command, "--within", "8"]).exit_code == 0
    before = out.read_bytes()
    assert CliRunner().invoke(app, [*command, "--within", "8"]).exit_code == 0
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.txt"], "missing.txt"),
        (["--forms", "poem"], "query, title"),
        (["-o", "pairs.csv"], "written as .jsonl"),
    ],
)
def test_the_command_names_what_is_wrong(arguments, said, tmp_path, monkeypatch):
    """Before a model is loaded."""
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["pairs", *arguments])
    assert done.exit_code != 0
    assert said in f"{done.output} {done.exception}"
