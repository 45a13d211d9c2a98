"""Wordings: what a bare text is, and prompts whose copies differ in form."""

from __future__ import annotations

import json
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from echovec import Embedder, Template
from echovec.errors import InputError, TemplateError
from echovec.presets import recipe_of
from echovec.recipe import Recipe
from echovec.text.drafts import render
from echovec.text.render import Renderer
from echovec.text.tokenizer import ByteTokenizer, HFTokenizer
from echovec.text.wording import WORDINGS, bare
from echovec.vector.view import View
from families import TOKENIZERS, causal_model, family_tokenizer, tokenizer

PROMPT = "A: {text}\nB: {text:bare}\nC"
TEXTS = ("Hello, World!", "It costs $3.50 (or so)...", "...", "«Ça va?» — Oui", "ÉCOLE  d'été", "x")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, World!", "hello world"),
        ("It costs $3.50 (or so)...", "it costs $3.50 or so"),
        ("Don't e-mail me\tat 10:30.\n", "don't e-mail me at 10:30"),
        ("«Ça va?» — Oui", "ça va oui"),
        ("你好，世界。", "你好，世界"),
        ("...", "..."),
        (" ?! ", " ?! "),
    ],
)
def test_bare_is_words_in_lower_case_without_marks_around_them(text, words):
    """Marks inside words and symbols stay; a text of marks alone stays as it was."""
    assert bare(text) == words


def test_sorted_is_the_bare_words_in_order():
    """Each as often as it was there; two orders of the same words become one text."""
    worded = WORDINGS["sorted"]
    assert worded("The dog bit the man.") == "bit dog man the the"
    assert worded("The man bit the dog!") == worded("The dog bit the man.")
    assert worded("...") == "..."


def test_reversed_is_the_bare_words_from_the_last_to_the_first():
    """Each as often as it was there; a text of marks alone stays as it was."""
    worded = WORDINGS["reversed"]
    assert worded("The dog bit the man.") == "man the bit dog the"
    assert worded("...") == "..."


@given(st.text(min_size=1))
def test_no_wording_empties_a_text(text):
    """Whatever a text is, something of it is left to embed."""
    assert all(wording(text) for wording in WORDINGS.values())


@given(st.text(min_size=1))
def test_an_export_words_texts_alike(text):
    """The module that exports take with them has the same wordings under the same names."""
    module = pytest.importorskip("echovec.export.echo_module", reason="the extra train")
    assert {name: one(text) for name, one in module.WORDINGS.items()} == {
        name: one(text) for name, one in WORDINGS.items()
    }


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_each_copy_has_the_ids_of_its_wording(kind):
    """Every tokenizer: the prompt is its pieces, the text's ids and those of the bare text."""
    own = HFTokenizer(tokenizer(kind))
    bound = Renderer([Template(PROMPT), Template(PROMPT, pooled=0)], own)
    lead = "" if own.adds_blank else " "
    for text, rendered in zip(TEXTS, render(bound, TEXTS), strict=True):
        given, worded = own.tokenize([lead + text, lead + bare(text)])
        first, second, third = (piece for piece in bound.fixed if piece)
        begin = [] if bound.bos_id is None else [bound.bos_id]
        whole = [begin, first, given, second, worded, third]
        ends = np.cumsum([len(part) for part in whole])
        assert rendered.ids.tolist() == list(chain.from_iterable(whole))
        assert rendered.spans == ((ends[3], ends[4]), (ends[1], ends[2]))
        assert rendered.prefix == ends[1]


def test_copies_are_cut_and_windowed_each_by_its_own_length():
    """Budget and windows count the tokens of each copy; a text is cut if one of its copies is."""
    bound = Renderer(Template("{text}|{text:bare}"), ByteTokenizer(), max_tokens=8)
    short, longer = "a. b. c.", "a. b. c. d. e."
    assert len(bare(longer)) == 9
    for text, cut in ((short, False), (longer, True)):
        (one,) = render(bound, [text])
        assert bytes(one.ids[1:].tolist()).decode() == f"{text[:8]}|{bare(text)[:8]}"
        assert one.truncated is cut
    windows = render(bound, [longer], long_text="windows")
    shown = [bytes(one.ids[1:].tolist()).decode().split("|") for one in windows]
    assert [part for part, _ in shown] == [longer[:8], longer[6:]]
    assert [part for _, part in shown] == [bare(longer)[:8], bare(longer)[1:]]
    assert [one.share for one in windows] == [0.5, 0.5]


def test_half_a_text_is_half_of_each_copy():
    """`text_share` counts the tokens of each wording, rounded up."""
    bound = Renderer(Template("{text}|{text:bare}"), ByteTokenizer(), text_share=0.5)
    assert bytes(render(bound, ["Ab! Cd!"])[0].ids[1:].tolist()).decode() == "Ab! |ab "


def test_vectors_are_those_of_the_prompt_by_hand():
    """The mean over the bare copy, by transformers' own model, alone and in a batch of any mix."""
    model, inner = causal_model("llama"), family_tokenizer("llama")
    recipe = recipe_of("worded", View(Template(PROMPT)))
    for engine in ("plain", "packed"):
        embedder = Embedder.from_model(model, inner, recipe, engine=engine)
        together = embedder.encode(list(TEXTS))
        for text, vector in zip(TEXTS, together, strict=True):
            (one,) = render(embedder.planner().renderers[0], [text])
            (start, stop), worded = one.spans[0], embedder.tokenizer.tokenize([bare(text)])[0]
            assert stop - start in (len(worded), len(worded) + 1)
            with torch.no_grad():
                h_LD = model.model(torch.tensor([one.ids.tolist()])).last_hidden_state[0]
            z_D = h_LD[start:stop].double().mean(dim=0).numpy()
            np.testing.assert_allclose(vector, z_D / np.linalg.norm(z_D), atol=2e-6)
            np.testing.assert_allclose(vector, embedder.encode(text), atol=1e-6)


def test_form_counts_less_where_the_pooled_copy_is_bare():
    """Two spellings of a sentence are nearer by a bare copy; by bare copies alone they are one."""
    pair = ["The cat sat, on the mat!", "the cat sat on the mat"]
    near = {}
    for prompt in ("A {text} B {text}", "A {text} B {text:bare}", "A {text:bare} B {text:bare}"):
        made = Embedder.from_model(
            causal_model("llama"), family_tokenizer("llama"), Template(prompt)
        )
        first, second = made.encode(pair)
        near[prompt] = float(first @ second)
    given, worded, twice = near.values()
    assert given < worded < twice
    assert twice == pytest.approx(1, abs=1e-6)


def test_a_wording_is_part_of_the_recipe(tmp_path):
    """Another wording is another fingerprint, and a saved recipe comes back with it."""
    worded, given = (
        recipe_of("r", View(Template(f"A {{text}} B {slot}"))) for slot in ("{text:bare}", "{text}")
    )
    assert worded.fingerprint != given.fingerprint
    back = Recipe.load(worded.save(tmp_path))
    assert back.views == worded.views
    assert back.views["symmetric"][0].template.wordings == ("", "bare")
    assert (
        "{text:bare}"
        in json.loads((tmp_path / "recipe.json").read_text())["views"]["symmetric"][0]["template"][
            "prompt"
        ]
    )


@pytest.mark.parametrize("slot", ["{text:loud}", "{text:}", "{text: bare}", "{text:bare }"])
def test_an_unknown_wording_is_refused_with_those_there_are(slot):
    """The message shows the slot, its place and what may stand there."""
    with pytest.raises(TemplateError, match=r"unknown wording .* there are .*\{text:bare\}"):
        Template(f"A {{text}} B {slot}")


def test_a_place_that_an_error_names_is_that_of_the_text():
    """An empty text is found before it is worded."""
    bound = Renderer(Template("{text:bare}"), ByteTokenizer())
    with pytest.raises(InputError, match=r"texts\[1\] is empty") as caught:
        render(bound, ["a", ""])
    assert caught.value.index == 1
