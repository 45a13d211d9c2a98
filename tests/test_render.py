"""Rendering: the span is exact, copies are equal, texts stay texts, cuts are alike."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from functools import cache
from threading import Event, Thread

import numpy as np
import pytest
from hypothesis import example, given, note, settings
from hypothesis import strategies as st
from tokenizers import normalizers, pre_tokenizers

import authors
from echovec import InputError, Template, TemplateError
from echovec.presets import PRESETS
from echovec.text.drafts import render, render_passes
from echovec.text.kept_tokenizer import KeptTokenizer, told_of
from echovec.text.presets import TEMPLATES, demonstrated
from echovec.text.render import Renderer
from echovec.text.rows import tokenized
from echovec.text.template import Slot
from echovec.text.tokenizer import ByteTokenizer, HFTokenizer
from echovec.text.windows import num_windows, window_starts
from echovec.text.wording import WORDINGS
from families import TOKENIZERS, sentences, tokenizer

ECHO = TEMPLATES["echo"]
SPECIALS = ("<s>", "</s>", "<unk>", "<|endoftext|>", "<|im_start|>", "<|im_end|>")
BREAKERS = (
    "{", "}", "{{", "}}", "{text}", "{instruction}", "%%text%%", "{!%%text%%}", "%s", "\\n",
    "The rewritten paragraph:", "Rewrite the following paragraph:", "Query again:", "[INST]",
    "<0x0A>", "▁", "Ġ", "\ufeff", "\u202e", "e\u0301", "👩‍👩‍👧", "\x00", "\t\n\r", "   ",
)  # fmt: skip

# What UTF-8 can say, which is `st.text`'s own choice too, but takes three seconds to find out.
ANY = st.characters(exclude_categories=["Cs"])
hostile = st.lists(
    st.one_of(
        st.text(ANY, min_size=1, max_size=12),
        st.sampled_from(SPECIALS),
        st.sampled_from(BREAKERS),
        st.sampled_from(["a", " b", "word", "Ending.", "数", "ß"]),
    ),
    min_size=1,
    max_size=8,
).map("".join)


ODD = {
    "blank": " ",
    "newline": "\n",
    "nul": "\x00",
    "bom": "\ufeff",
    "zero-width": "\u200b",
    "500-marks": "Z" + "\u0301" * 500,
    "family-emoji": "👩\u200d👩\u200d👧\u200d👦",
    "right-to-left": "\u202eabc",
    "replacement": "\ufffd",
}


def renderer(kind, template=ECHO, **limits):
    return Renderer(template, HFTokenizer(tokenizer(kind)), **limits)


@pytest.fixture(scope="session")
def every_renderer():
    """A renderer of the echo prompt for each kind of tokenizer."""
    return {kind: renderer(kind) for kind in TOKENIZERS}


@pytest.fixture(scope="session")
def every_kept_tokenizer():
    """The same tokenizers without transformers."""
    told = {kind: told_of(HFTokenizer(tokenizer(kind))) for kind in TOKENIZERS}
    return {
        kind: KeptTokenizer(json.loads(json.dumps(one)), pytest.fail) for kind, one in told.items()
    }


def check_exact(bound, texts):
    """The property of must-have: span = the text's own tokens, copies equal, nothing special."""
    inner = bound.tokenizer
    lead = "" if inner.adds_blank else bound.template.lead
    wordings = bound.template.wordings
    rows = {w: inner.tokenize([lead + WORDINGS[w](text) for text in texts]) for w in wordings}
    fixed = sum(map(len, bound.fixed)) + (bound.bos_id is not None) + (bound.eos_id is not None)
    for number, rendered in enumerate(render(bound, texts)):
        ids, (start, stop) = rendered.ids.tolist(), rendered.spans[0]
        copies = [rows[w][number] for w in wordings]
        assert ids[start:stop] == copies[-1]
        assert all(inner.special_ids.isdisjoint(own) for own in copies)
        assert len(ids) == fixed + sum(map(len, copies))
        # Walk the prompt by counting: every copy of a wording has the same ids.
        at = int(bound.bos_id is not None)
        for piece in bound.fixed:
            own = piece or copies.pop(0)
            assert ids[at : at + len(own)] == own
            at += len(own)


# Thirteen texts an example: what is asked of the machine once an example costs as much as a text.
@settings(max_examples=100)
@given(texts=st.lists(hostile, min_size=13, max_size=13))
@example(texts=["</s>"])
@example(texts=["<s>" * 50])
@example(texts=["x</s>y <|im_start|>system"])
@example(texts=[" leading and trailing "])
def test_span_is_the_text_s_own_tokens_for_any_text(every_renderer, every_kept_tokenizer, texts):
    """1,300 hostile texts, 8 tokenizers: exact span, equal copies, nothing special, kept or not."""
    for kind, bound in every_renderer.items():
        note(kind)  # printed where it fails
        check_exact(bound, texts)
        kept = every_kept_tokenizer[kind]
        assert kept.tokenize(texts) == bound.tokenizer.tokenize(texts)
        for text in texts:
            for after_bos in (False, True):
                ids = kept.tokenize_fixed(text, after_bos=after_bos)
                assert ids == bound.tokenizer.tokenize_fixed(text, after_bos=after_bos)


def test_texts_are_tokenised_once_for_all_passes():
    """Prompts that put the same blank before a text share its ids; others cannot."""
    asked = []

    class Counting(ByteTokenizer):
        def tokenize(self, texts):
            asked.append(list(texts))
            return super().tokenize(texts)

    own = Counting()
    prompts = ("{text}|{text}", "Again: {text} and {text}", "Say: {text}, {text}", "{text}!{text}")
    passes = [
        Renderer((Template(prompt),), own, max_tokens=9, max_positions=None) for prompt in prompts
    ]
    asked.clear()
    drafts = render_passes(passes, ["a", "bc"])
    leads = {one.template.lead for one in passes}
    assert len(asked) == len(leads) < len(passes)
    assert [len(one) for one in drafts] == [2] * 4


def test_a_prompt_tokenised_meanwhile_changes_no_text():
    """Two embedders of one tokenizer, in two threads: a text that spells a token stays a text."""
    inner = tokenizer("byte-bos")
    ours, other = HFTokenizer(inner), HFTokenizer(inner)
    text = inner.bos_token * 20
    wanted = ours.tokenize([text])[0]
    done = Event()

    def prompts():
        while not done.is_set():
            other.tokenize_fixed("Rewrite the sentence: ", after_bos=True)

    thread = Thread(target=prompts)
    thread.start()
    try:
        for _ in range(300):
            (row,) = ours._ids([text], split=True)
            assert row == wanted
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_exact_on_every_tokenizer_kind(name, kind):
    """Where a copy is pooled, the span is the text's own tokens for each preset and tokenizer."""
    view = PRESETS[name].views["document"][0]
    template = view.template
    bound = renderer(kind, template)
    if template.pooled == "end":
        (rendered,) = render(bound, ["The cat sat."])
        assert rendered.spans[0][1] == len(rendered.ids)
        assert rendered.ids[rendered.spans[0][0] :].tolist() == bound.fixed[-1]
    elif template.eos == "absent":
        check_exact(bound, ["The cat sat."])
    else:
        (rendered,) = render(bound, ["The cat sat."])
        assert rendered.ids[-1] == bound.eos_id
        assert rendered.spans[0][1] == len(rendered.ids)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_pieces_join_to_the_tokens_of_the_whole_prompt(kind):
    """For ordinary words, pieces tokenised apart are the tokens of the prompt as one string."""
    if kind.startswith("sentencepiece-legacy") or kind in ("sentencepiece-first", "unigram"):
        pytest.skip("puts a blank of its own before every piece, as in the authors' parser")
    if kind == "byte-prefix-blank":
        pytest.skip("adds a blank before every piece")
    inner = tokenizer(kind)
    template = Template("Repeat the sentence: {text}\nAgain: {text}", bos="absent")
    (rendered,) = render(renderer(kind, template), ["the cat sat"])
    joined = inner.encode(
        "Repeat the sentence: the cat sat\nAgain: the cat sat", add_special_tokens=False
    )
    assert rendered.ids.tolist() == joined


AUTHORS = {
    "query": "{bos}Instruct:{{!%%prompt%%,}}\nQuery:{{!%%text%%}}\n"
    "Query again:{{%%text%%}}{{{eos}}}",
    "document": "{bos}Document:{{!%%text%%}}\nDocument again:{{%%text%%}}{{{eos}}}",
}


@pytest.mark.parametrize("max_tokens", [300, 7])
@pytest.mark.parametrize("role", AUTHORS)
@pytest.mark.parametrize("kind", [k for k in TOKENIZERS if k != "byte-no-bos"])
def test_released_templates_give_the_authors_ids_and_mask(kind, role, max_tokens):
    """echo-instruct equals the authors' parser id by id, mask by mask, cut texts included."""
    inner = tokenizer(kind)
    theirs = AUTHORS[role].format(bos=inner.bos_token, eos=inner.eos_token)
    instruction = "Retrieve passages that answer the question"
    bound = renderer(kind, TEMPLATES[f"echo-instruct-{role}"], max_tokens=max_tokens)
    given_ = instruction if role == "query" else None
    for text, rendered in zip(
        sentences()[::10], render(bound, sentences()[::10], given_), strict=True
    ):
        ids, mask = authors.parse(
            inner, theirs, {"prompt": instruction, "text": text}, max_length=max_tokens
        )
        if role == "document" and max_tokens == 7:
            # Their max_length cuts the template's own words too; ours cuts texts only.
            fixed = inner("\nDocument again:", add_special_tokens=False)["input_ids"]
            if len(fixed) > max_tokens:
                continue
        if max_tokens == 7 and any(
            len(inner(piece, add_special_tokens=False)["input_ids"]) > max_tokens
            for piece, braces in authors.pieces(theirs)
            if not braces
        ):
            continue
        assert rendered.ids.tolist() == ids
        start, stop = rendered.spans[0]
        assert mask == [int(start <= i < stop) for i in range(len(ids))]


def test_the_authors_parser_lets_texts_become_special_and_ours_does_not():
    """Negative control: on a text that spells EOS the two differ, and ours has no special id."""
    inner = tokenizer("sentencepiece-legacy")
    theirs = AUTHORS["document"].format(bos="<s>", eos="</s>")
    ids, _ = authors.parse(inner, theirs, {"text": "a </s> b"})
    (ours,) = render(
        renderer("sentencepiece-legacy", TEMPLATES["echo-instruct-document"]), ["a </s> b"]
    )
    assert ids.count(inner.eos_token_id) == 3
    assert ours.ids.tolist().count(inner.eos_token_id) == 1


def test_a_long_text_is_cut_alike_in_every_copy_and_the_suffix_stays():
    """With a budget of 5 tokens both copies hold the same first 5 tokens, and EOS is last."""
    template = Template("A:{text}|B:{text}", eos="pooled")
    bound = Renderer(template, ByteTokenizer(), max_tokens=5)
    (rendered,) = render(bound, ["0123456789"])
    assert bytes(i for i in rendered.ids if i < 256) == b"A:01234|B:01234"
    assert rendered.ids[-1] == ByteTokenizer.eos_id
    assert rendered.truncated
    assert rendered.spans == ((len(rendered.ids) - 6, len(rendered.ids)),)


def test_the_model_s_own_limit_cuts_before_the_budget():
    """The whole prompt never exceeds the model's positions, and copies stay equal."""
    template = Template("A:{text}|B:{text}.")
    for limit in range(9, 40):
        bound = Renderer(template, ByteTokenizer(), max_tokens=512, max_positions=limit)
        (rendered,) = render(bound, ["0123456789" * 3])
        assert len(rendered.ids) <= limit
        text = bytes(i for i in rendered.ids if i < 256).decode()
        first, second = text.removeprefix("A:").removesuffix(".").split("|B:")
        assert first == second
        assert first


def test_a_text_of_exactly_the_budget_is_not_cut():
    """The budget is inclusive: 5 tokens fit into 5, 6 do not."""
    bound = Renderer(Template("{text}"), ByteTokenizer(), max_tokens=5)
    assert [r.truncated for r in render(bound, ["01234", "012345"])] == [False, True]


def test_a_prompt_that_leaves_no_room_is_an_error_with_both_numbers():
    """A template longer than the model's limit raises TemplateError."""
    bound = Renderer(Template("x" * 30 + "{text}"), ByteTokenizer(), max_positions=20)
    with pytest.raises(TemplateError, match=r"31 tokens and the model takes 20"):
        render(bound, ["a"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "texts[1] is empty"),
        (None, "texts[1] is NoneType"),
        (3, "texts[1] is int (3), not a text"),
        (b"x", "texts[1] is bytes"),
        ("a\ud800", "texts[1] is not valid Unicode: a lone surrogate U+D800 at character 1"),
    ],
)
def test_a_bad_text_is_named_by_its_place(text, message):
    """Every text that cannot be embedded raises InputError with its index."""
    bound = Renderer(Template("{text}"), ByteTokenizer())
    with pytest.raises(InputError) as caught:
        render(bound, ["fine", text])
    assert message in str(caught.value)
    assert caught.value.index == 1


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("name", ODD)
def test_odd_texts_have_tokens_or_are_named(kind, name):
    """Whitespace, NUL, BOM, marks and emoji are rendered, or refused by name; never dropped."""
    bound = renderer(kind, max_tokens=2048)
    if bound.tokenizer.tokenize([bound.template.lead + ODD[name]])[0]:
        check_exact(bound, [ODD[name]])
    else:
        with pytest.raises(InputError, match=r"texts\[0\] has no tokens"):
            render(bound, [ODD[name]])


def test_an_instruction_must_fit_the_template():
    """An instruction that no slot takes, and a slot without an instruction, are errors."""
    with pytest.raises(InputError, match="takes no instruction"):
        render(Renderer(ECHO, ByteTokenizer()), ["a"], "find")
    with pytest.raises(InputError, match="needs an instruction"):
        render(Renderer(Template("{instruction}: {text}"), ByteTokenizer()), ["a"])
    with pytest.raises(InputError, match="lone surrogate"):
        render(Renderer(Template("{instruction}: {text}"), ByteTokenizer()), ["a"], "\ud800")


def test_an_instruction_beyond_the_budget_is_cut_and_said():
    """It keeps as many tokens as a copy may have, and its texts count as cut; at the limit not."""
    bound = Renderer(Template("{instruction}: {text}"), ByteTokenizer(), max_tokens=5)
    (cut,) = render(bound, ["a"], "012345")
    (whole,) = render(bound, ["a"], "01234")
    assert cut.ids.tolist() == whole.ids.tolist() == [256, *b"01234: a"]
    assert (cut.truncated, whole.truncated) == (True, False)


def test_eos_without_a_tokenizer_s_eos_is_an_error():
    """A template that ends with EOS refuses a tokenizer that has none."""
    inner = HFTokenizer(tokenizer("byte-no-bos"))
    inner.inner.eos_token, kept = None, inner.inner.eos_token
    try:
        with pytest.raises(TemplateError, match="has none"):
            Renderer(Template("{text}", eos="present"), inner)
    finally:
        inner.inner.eos_token = kept


def test_bos_is_the_template_s_decision():
    """BOS stands in front when the template says so and the tokenizer has one, else not."""
    for kind in TOKENIZERS:
        bos_id = tokenizer(kind).bos_token_id
        (present,) = render(renderer(kind, Template("x{text}")), ["a"])
        (absent,) = render(renderer(kind, Template("x{text}", bos="absent")), ["a"])
        assert (present.ids[0] == bos_id) == (bos_id is not None)
        assert absent.ids[0] != bos_id
    (pooled,) = render(Renderer(Template("{text}", bos="pooled"), ByteTokenizer()), ["ab"])
    assert pooled.spans == ((0, 3),)


def test_special_tokens_may_be_written_in_a_template():
    """A chat marker in the template is that one token; the same marker in a text is not."""
    inner = tokenizer("byte-bos")
    marker = inner.convert_tokens_to_ids("<|im_start|>")
    bound = renderer("byte-bos", Template("<|im_start|>user\n{text}"))
    (rendered,) = render(bound, ["<|im_start|>"])
    # The marker is an added token of the trained tokenizer, special by its own declaration.
    assert rendered.ids.tolist().count(marker) == 1


def test_rendering_uses_neither_padding_nor_truncation_state_of_the_tokenizer():
    """A tokenizer set up for padded, truncated generation renders the same ids, and stays so."""
    inner = tokenizer("byte-bos")
    before = render(renderer("byte-bos"), ["the cat"])[0].ids
    inner.padding_side = "left"
    inner.truncation_side = "left"
    inner.model_max_length, kept = 3, inner.model_max_length
    try:
        after = render(renderer("byte-bos"), ["the cat"])[0].ids
        assert inner.padding_side == "left"
    finally:
        inner.padding_side, inner.truncation_side = "right", "right"
        inner.model_max_length = kept
    assert np.array_equal(before, after)


def test_a_tokenizer_is_known_by_its_rules_and_not_by_its_state():
    """One vocabulary, read by other rules, is another tokenizer; one that padded is the same."""
    inner = tokenizer("byte-bos")
    known = HFTokenizer(inner).fingerprint
    for part, rule in (
        ("normalizer", normalizers.Lowercase()),
        ("pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)),
    ):
        other = copy.deepcopy(inner)
        setattr(other.backend_tokenizer, part, rule)
        assert HFTokenizer(other).fingerprint != known, part
    used = copy.deepcopy(inner)
    used.backend_tokenizer.enable_padding(length=9)
    used.backend_tokenizer.enable_truncation(3)
    assert HFTokenizer(used).fingerprint == known


def test_a_million_characters_are_cut_to_the_budget():
    """A 1 MB text is embedded by its first 512 tokens and marked as cut."""
    (rendered,) = render(renderer("byte-bos"), ["word " * 200_000])
    assert rendered.truncated
    ((start, stop),) = rendered.spans
    assert stop - start == 512


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_the_prefix_is_what_all_texts_share(name, kind):
    """The tokens before the first copy are the same for every text, and the copy comes next."""
    bound = renderer(kind, TEMPLATES[name], max_tokens=30)
    texts = ["The cat sat.", "x", "Über \n </s>", *sentences()[::40]]
    rendered = render(bound, texts)
    prefix = rendered[0].prefix
    rows = tokenized(bound.tokenizer, texts, lead=bound.template.lead)
    for one, row in zip(rendered, rows, strict=True):
        assert one.prefix == prefix
        assert np.array_equal(one.ids[:prefix], rendered[0].ids[:prefix])
        own = row[:30]
        assert np.array_equal(one.ids[prefix : prefix + len(own)], own)


def test_one_pass_has_a_span_for_each_template():
    """Templates that differ in what they pool share ids; each has the span it has alone."""
    both = Template("A:{text}|B:{text}:C")
    templates = [both, both.pooling_copy(0), replace(both, pooled="end")]
    (together,) = render(Renderer(templates, ByteTokenizer()), ["the text"])
    for template, span in zip(templates, together.spans, strict=True):
        (alone,) = render(Renderer(template, ByteTokenizer()), ["the text"])
        assert np.array_equal(alone.ids, together.ids)
        assert alone.spans == (span,)
    assert len(set(together.spans)) == 3


def test_markers_that_are_pooled_or_not_share_a_pass():
    """EOS inside one span and outside another is one prompt."""
    templates = [Template("A:{text}", eos="pooled"), Template("A:{text}", eos="present")]
    (rendered,) = render(Renderer(templates, ByteTokenizer()), ["ab"])
    assert rendered.spans == ((3, 6), (3, 5))


def test_a_placeholder_is_one_token_of_the_prefix():
    """It stands where the template has it, counts for the limit, and takes no blank with it."""
    template = Template('This : {placeholder} "{text}"')
    (rendered,) = render(Renderer(template, ByteTokenizer()), ["ab"])
    place = rendered.placeholder
    assert bytes(i for i in rendered.ids if i < 256) == b'This : "ab"'.replace(b": ", b": ")
    assert rendered.ids[place] == ByteTokenizer.bos_id
    assert 0 < place < rendered.prefix
    limited = Renderer(template, ByteTokenizer(), max_positions=len(rendered.ids))
    assert not render(limited, ["ab"])[0].truncated
    assert render(limited, ["abc"])[0].truncated
    for wrong in (
        "{text} {placeholder}",
        "{placeholder}{placeholder}{text}",
        "{placeholder,}{text}",
    ):
        with pytest.raises(TemplateError, match="placeholder"):
            Template(wrong)


@given(length=st.integers(1, 400), size=st.integers(1, 60))
def test_windows_cover_a_text_evenly_and_overlap(length, size):
    """Every token is in a window, all are of one size, neighbours have an eighth in common."""
    count = int(num_windows(np.array([length]), size)[0])
    starts = window_starts(np.array([length]), size, np.array([count]))
    assert (count == 1) == (length <= size)
    assert starts[0] == 0
    assert starts[-1] == max(0, length - size)
    steps = np.diff(starts)
    assert (steps <= max(1, size - -(-size // 8))).all()
    assert count == 1 or steps.max() - steps.min() <= 1


def test_a_demonstration_stands_before_the_prompt():
    """The template filled with a text and an answer, braces escaped, stands before itself."""
    shown = demonstrated(Template('S : "{text}" is "', pooled="end"), "a {b}", 'word".')
    (rendered,) = render(Renderer(shown, ByteTokenizer()), ["text"])
    assert bytes(i for i in rendered.ids if i < 256) == b'S : "a {b}" is "word".\nS : "text" is "'
    assert rendered.prefix == 1 + len(b'S : "a {b}" is "word".\nS : "')


def joined(bound, rows, instruction_ids):
    """The twin of `Drafts.lay`: one prompt, put together piece by piece as lists.

    `rows` are the ids of the text in each wording.
    """
    template = bound.template
    ids = [] if bound.bos_id is None else [bound.bos_id]
    copies = []
    placeholder = None
    slots = iter(piece for piece in template.pieces if isinstance(piece, Slot))
    for fixed in bound.fixed:
        slot = None if fixed else next(slots, None)
        if slot is None:
            ids += fixed
        elif slot.name == "text":
            copies.append((len(ids), len(ids) + len(rows[slot.wording])))
            ids += rows[slot.wording]
        elif slot.name == "instruction":
            ids += instruction_ids
        else:
            placeholder = len(ids)
            ids.append(bound.placeholder_id)
    ends = (copies[-1][1], len(ids))
    if bound.eos_id is not None:
        ids.append(bound.eos_id)
    spans = []
    for one in bound.templates:
        start, stop = ends if one.pooled == "end" else copies[one.pooled]
        start = 0 if one.bos == "pooled" and bound.bos_id is not None else start
        spans.append((start, len(ids) if one.eos == "pooled" and bound.eos_id else stop))
    return ids, spans, copies[0][0], placeholder


PLACED = Template('This : {placeholder} "{text}" or {text}', eos="present")


@given(
    texts=st.lists(st.text("aB. c", min_size=1, max_size=40), min_size=1, max_size=6),
    order=st.lists(st.integers(0, 99), min_size=1, max_size=8),
)
def test_prompts_laid_together_are_those_put_together_one_by_one(texts, order):
    """Ids, spans, prefix, placeholder, share and cut of any sequences in any order."""
    for name, template in {**TEMPLATES, "placed": PLACED}.items():
        for long_text in ("cut", "windows"):
            note(f"{name}, {long_text}")  # printed where it fails
            check_laid(of_few_tokens(template), long_text, texts, order)


@cache
def of_few_tokens(template):
    """A renderer that cuts or parts at nine tokens, with two spans where there are two copies."""
    templates = [template]
    if template.num_copies > 1 and template.eos != "pooled":
        templates.append(template.pooling_copy(0))
    return Renderer(templates, ByteTokenizer(), max_tokens=9)


def check_laid(bound, long_text, texts, order):
    """The drafts of the texts, laid in that order, beside what `joined` makes of them."""
    instruction = "Find it" if bound.template.takes_instruction else None
    (drafts,) = render_passes([bound], texts, instruction, long_text=long_text)
    own_ids, _ = bound.instruction_ids(instruction)
    pieces, longest = [], []
    for place, text in enumerate(texts):
        forms = {w: bound.template.lead + WORDINGS[w](text) for w in bound.template.wordings}
        whole = {w: list(form.encode()) for w, form in forms.items()}
        sizes = {w: np.array([len(row)]) for w, row in whole.items()}
        counts = [int(num_windows(size, 9)[0]) for size in sizes.values()]
        count = max(counts) if long_text == "windows" else 1
        starts = {w: window_starts(size, 9, np.array([count])) for w, size in sizes.items()}
        longest.append(max(map(len, whole.values())))
        for n in range(count):
            cut = {w: row[starts[w][n] : starts[w][n] + 9] for w, row in whole.items()}
            pieces.append((place, cut, 1 / count))
    assert len(drafts) == len(pieces)
    chosen = [number % len(pieces) for number in order]
    batch = drafts.lay(chosen)
    for s, index in enumerate(chosen):
        place, rows, share = pieces[index]
        ids, spans, prefix, placeholder = joined(bound, rows, own_ids)
        start, stop = batch.offsets_S1[s : s + 2]
        assert batch.ids_T[start:stop].tolist() == ids
        assert (batch.spans_SK2[s] - start).tolist() == [list(span) for span in spans]
        assert (batch.prefix, batch.placeholder) == (prefix, placeholder)
        assert (batch.order_S[s], batch.share_S[s]) == (place, share)
        assert batch.truncated_S[s] == (long_text == "cut" and longest[place] > 9)
        longer = {w: [*row, 7] for w, row in rows.items()}
        other, _, _, _ = joined(bound, longer, own_ids)  # the comparison can fail
        assert batch.ids_T[start:stop].tolist() != other
        alone = drafts[index]
        assert (alone.ids.tolist(), list(alone.spans)) == (ids, spans)
