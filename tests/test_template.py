"""Template: the one-line language, what is pooled, and what is refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from echovec import Template, TemplateError, View
from echovec.presets import preset, preset_names
from echovec.text import presets
from echovec.text.drafts import render
from echovec.text.render import Renderer
from echovec.text.template import Fixed, Slot
from echovec.text.tokenizer import ByteTokenizer


def test_pieces_are_fixed_texts_and_slots_in_order():
    """A prompt is taken apart into fixed texts and slots, nothing lost."""
    template = Template("Say: {text}. Again: {text}!")
    assert template.pieces == (
        Fixed("Say:"),
        Slot("text", lead=" "),
        Fixed(". Again:"),
        Slot("text", lead=" "),
        Fixed("!"),
    )
    assert template.num_copies == 2


def test_only_one_blank_belongs_to_the_slot():
    """Of several blanks before a slot the last one is the slot's."""
    assert Template("a)   {text}").pieces == (Fixed("a)  "), Slot("text", lead=" "))


def test_a_newline_before_a_slot_stays_outside():
    """Only a blank is moved into a slot."""
    assert Template("a:\n{text}").pieces == (Fixed("a:\n"), Slot("text"))


def test_one_blank_serves_every_copy():
    """Copies share their ids, so one copy that follows a blank gives the blank to all."""
    template = Template("{text} {text}")
    assert template.pieces == (Slot("text", lead=" "), Slot("text", lead=" "))
    assert template.lead == " "


def test_an_instruction_takes_what_stands_in_its_braces_with_it():
    """`{instruction,}` is the instruction and a comma as one piece."""
    template = Template("Instruct:{instruction,}\n{text}")
    assert template.pieces[1] == Slot("instruction", tail=",")
    assert template.takes_instruction
    assert not Template("{text}").takes_instruction


def test_one_blank_serves_every_instruction():
    """An instruction that stands twice shares its ids, and no blank of the prompt is lost."""
    template = Template("{instruction} and {instruction}:{text}")
    (rendered,) = render(Renderer(template, ByteTokenizer()), ["text"], "Find")
    assert bytes(i for i in rendered.ids if i < 256) == b" Find and Find:text"


def test_doubled_braces_are_braces():
    """`{{` and `}}` stand for themselves."""
    assert Template('{{"a": "{text}"}}').pieces == (
        Fixed('{"a": "'),
        Slot("text"),
        Fixed('"}'),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": "no slot"}, "has no {text} slot"),
        ({"prompt": "{instruction} only"}, "has no {text} slot"),
        ({"prompt": "{text} {name}"}, "unknown slot {name} at character 7"),
        ({"prompt": "{textual}"}, "unknown slot {textual}"),
        ({"prompt": "{text.__class__}"}, "nothing may be added to {text}"),
        ({"prompt": "{text!r}"}, "nothing may be added to {text}"),
        ({"prompt": "{text} {"}, "a lone '{' at character 7"),
        ({"prompt": "} {text}"}, "a lone '}' at character 0"),
        ({"prompt": "{text}", "pooled": 1}, "names no copy"),
        ({"prompt": "{text}", "pooled": -2}, "names no copy"),
        ({"prompt": "{text}", "pooled": "first"}, "names no copy"),
        ({"prompt": "x {text}", "pooled": "end"}, "needs fixed text after the last {text}"),
        ({"prompt": "{text}{instruction}", "pooled": "end"}, "cannot pool an {instruction}"),
        ({"prompt": "{instruction,} {text} {instruction}"}, "write both alike"),
        ({"prompt": "{text}", "bos": "yes"}, "bos='yes' is not one of"),
        ({"prompt": "{text}", "eos": True}, "eos=True is not one of"),
        ({"prompt": "{text} x", "eos": "pooled"}, "at the very end"),
        ({"prompt": "{text}{text}", "eos": "pooled", "pooled": 0}, "at the very end"),
        ({"prompt": "x {text}", "bos": "pooled"}, "at the very start"),
    ],
)
def test_a_template_that_cannot_work_is_refused_with_its_reason(arguments, message):
    """Every bad template raises TemplateError that says what is wrong and where."""
    with pytest.raises(TemplateError) as caught:
        Template(**arguments)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_pooling_another_copy_changes_nothing_else():
    """`pooling_copy` is the same template with another copy pooled."""
    template = Template("{text} {text} {text}")
    assert template.pooling_copy(0) == Template("{text} {text} {text}", pooled=0)


def test_the_paper_s_prompts_are_all_there():
    """Twelve sampled prompts of each kind, echo with two copies and the others with one."""
    kinds = (
        (presets.SAMPLED_CLASSICAL, 1),
        (presets.SAMPLED_ECHO, 2),
        (presets.SAMPLED_PROMPT_EOL, 1),
    )
    for prompts, copies in kinds:
        assert len(set(prompts)) == 12
        assert {Template(p).num_copies for p in prompts} == {copies}
    canonical = presets.TEMPLATES["prompt-eol"]
    assert canonical.prompt.replace("{text}", "S") == 'This sentence : "S" means in one word:"'


KNOWLEDGE = (
    "The essence of a sentence is often captured by its main subjects and actions, while "
    "descriptive terms provide additional but less central details. With this in mind , this "
    'sentence : "{text}" means in one word:"'
)
INSTRUCT = "Instruct:{instruction,}\nQuery:{text}"


@pytest.mark.parametrize(
    ("name", "role", "prompt", "pooling"),
    [
        (
            "echo",
            "symmetric",
            "Rewrite the following paragraph: {text}. The rewritten paragraph: {text}",
            "mean",
        ),
        ("classical", "symmetric", "Write a paragraph: {text}", "mean"),
        (
            "echo-sentence",
            "symmetric",
            "Rewrite the following sentence: {text}\nThe rewritten sentence: {text}",
            "mean",
        ),
        ("classical-sentence", "symmetric", "Write a sentence: {text}", "mean"),
        ("prompt-eol", "symmetric", 'This sentence : "{text}" means in one word:"', "lasttoken"),
        (
            "pretended-cot",
            "symmetric",
            'After thinking step by step , this sentence : "{text}" means in one word:"',
            "lasttoken",
        ),
        ("knowledge", "symmetric", KNOWLEDGE, "lasttoken"),
        ("echo-instruct", "query", INSTRUCT + "\nQuery again:{text}", "lasttoken"),
        ("echo-instruct", "document", "Document:{text}\nDocument again:{text}", "lasttoken"),
        ("classical-instruct", "query", INSTRUCT, "lasttoken"),
        ("classical-instruct", "document", "Document:{text}", "lasttoken"),
    ],
)
def test_papers_recipes_are_word_for_word_theirs(name, role, prompt, pooling):
    """Prompt, what is pooled and from where, as the papers and the authors' code have it."""
    (view,) = preset(name).views[role]
    end = {"prompt-eol": "end", "pretended-cot": "end", "knowledge": "end"}
    assert view == View(
        Template(
            prompt,
            pooled=end.get(name, -1),
            eos="pooled" if "instruct" in name else "absent",
            instruction=presets.QUERY_INSTRUCTION if "{instruction" in prompt else None,
        ),
        pooling,
    )


def test_recipes_that_ship_do_not_move_unnoticed():
    """A blank more in a prompt moves every vector: a change here is told in CHANGELOG.md."""
    fingerprints = {name: preset(name).fingerprint for name in preset_names()}
    content = json.dumps(fingerprints, sort_keys=True).encode()
    assert len(fingerprints) == 61
    assert hashlib.sha256(content).hexdigest()[:16] == "c070ca872691f206"


def test_a_prompt_ends_with_a_copy():
    """Up to any copy, in its wording; braces that are no slot count for nothing."""
    whole = Template("{{text}} {instruction}: {text} b {text:bare} {{c}} {text}!", pooled="end")
    cuts = ["{{text}} {instruction}: {text}", " b {text:bare}", " {{c}} {text}"]
    middle = replace(whole, pooled=-2)
    for copy in range(3):
        prompt = "".join(cuts[: copy + 1])
        if copy >= 1:
            cut = middle.up_to_copy(copy)
            assert (cut.prompt, cut.pooled % cut.num_copies) == (prompt, 1)
    assert replace(whole, pooled=0).up_to_copy(0).prompt == cuts[0]
    assert replace(whole, pooled=-1).up_to_copy(2).pooled == -1
    blank = Template('"{text}" and {text}', pooled=0)
    assert blank.up_to_copy(0) == blank, "both copies have the blank of the second"
