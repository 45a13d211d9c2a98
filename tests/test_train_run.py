"""Runs as tables: TOML in and out, settings, and what cannot be."""

from __future__ import annotations

import pytest

from echovec.errors import InputError
from echovec.presets import preset
from echovec.train.run import Run, read_run, run_of
from echovec.train.runs import PAPER_SOURCES, RUNS


@pytest.mark.parametrize("name", RUNS)
def test_toml_and_back_is_the_same_run(name):
    """Every run that ships."""
    run = RUNS[name]
    assert run_of(run.to_toml(), name="other") == run


def test_the_papers_runs_are_as_stated():
    """Section 4: 720 steps of 2,048, 8e-4, 1/50, r = alpha = 16, 14 sets."""
    for name in ("paper-mistral-7b", "paper-s-llama-1.3b"):
        run = read_run(name)
        assert (run.steps, run.batch_size, run.learning_rate) == (720, 2048, 8e-4)
        assert (run.temperature, run.rank, run.alpha) == (1 / 50, 16, 16)
        assert len(run.sources) == len(PAPER_SOURCES) == 14
        assert run.recipe.views["query"][0].pooling == "lasttoken"


def test_settings_change_fields():
    """Values are TOML; a bare word is a string."""
    run = Run().changed(["steps=3", "arm=classical", "matryoshka=[8, 16]", "alpha=8"])
    assert (run.steps, run.arm, run.matryoshka, run.alpha) == (3, "classical", (8, 16), 8.0)


@pytest.mark.parametrize(
    "setting",
    [
        *("nonsense=1", "steps", "arm=sideways", "batch_size=0", "learning_rate=-1", "rank=x"),
        *("symmetric_loss=False", "across_devices=no", "name=5", "init=2024", "matryoshka=8"),
        *('matryoshka=["a"]', "matryoshka=[0]", "steps=x", "steps=0", "seed=-1", "batch_size=true"),
        *("learning_rate=inf", "lora_dropout=1", "mask_share=0", "mini_batch_tokens=-1"),
        *("sources=5", "warmup_steps=-1", "held_out=-1", "learning_rate=true"),
    ],
)
def test_a_bad_setting_is_an_error(setting):
    """It names the field."""
    with pytest.raises(InputError, match=setting.split("=")[0]):
        Run().changed([setting])


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ('"x.jsonl"', "give a table"),
        ("{}", "has no path"),
        ("{path = 5}", "path=5; give a text"),
        ('{path = "x", way = "y"}', "unknown setting of a source 'way'"),
        ('{path = "x", symmetric = "no"}', "symmetric='no'; give true or false"),
        ('{path = "x", ratio = "half"}', "ratio='half'; give a number"),
        ('{path = "x", ratio = 2}', "ratio=2.0; give a number above 0, at most 1"),
        ('{path = "x", limit = 0}', "limit=0; give at least 1"),
        ('{path = "x", columns = [1]}', "columns=.* a list: a text"),
    ],
)
def test_a_bad_source_is_an_error(source, said):
    """Rather than a word that counts as true, or a part of the rows that nobody asked for."""
    with pytest.raises(InputError, match=said):
        Run().changed([f"sources=[{source}]"])


def test_an_unknown_run_lists_those_that_ship():
    """And a file that is not there is no run."""
    with pytest.raises(InputError, match="smollm2-echo"):
        read_run("nonsense")
    with pytest.raises(InputError, match="not TOML"):
        run_of("= 1", name="x")


def test_simcse_needs_dropout():
    """Two views of a text would be the same vector."""
    with pytest.raises(InputError, match="input_dropout"):
        Run(objective="simcse")


@pytest.mark.parametrize(
    ("settings", "copies", "mask"),
    [
        ([], 2, "causal"),
        (["arm=classical"], 1, "causal"),
        (["arm=bidirectional"], 1, "bidirectional"),
    ],
)
def test_arms_are_one_switch(settings, copies, mask):
    """The recipe follows."""
    (view,) = Run().changed(settings).recipe.views["symmetric"]
    assert view.template.prompt.count("{text}") == copies
    assert view.mask == mask


def test_a_recipe_can_be_trained_on():
    """Its views and fitted numbers stay, bound to no weights; it brings its own prompt.

    A row of training is one run of the model: where the recipe takes windows, long rows are cut.
    """
    run = Run(name="r", base_recipe="one-pass", max_tokens=64)
    assert run.recipe.views == preset("one-pass").views
    assert (run.recipe.name, run.recipe.model, run.recipe.max_tokens) == ("r", None, 64)
    assert preset("one-pass").long_text == "windows"
    assert run.recipe.long_text == "cut"
    assert run_of(run.to_toml(), name="r") == run
    with pytest.raises(InputError, match="base_recipe"):
        Run(base_recipe="one-pass", arm="classical")


@pytest.mark.parametrize("name", ["columns", "instructions"])
def test_a_word_is_no_list(name):
    """Its letters would be taken for columns one by one."""
    text = f'[[sources]]\npath = "x.jsonl"\n{name} = "body"\n'
    with pytest.raises(InputError, match=rf"{name}='body'; give a list, such as \['body'\]"):
        run_of(text, name="mine")
