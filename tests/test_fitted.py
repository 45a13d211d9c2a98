"""The recipes that ship fitted to the default model."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.fit_recipes import CHOSEN

import families
from echovec import Embedder, InputError
from echovec.presets import FITTED, as_recipe, fitted_names, preset


@pytest.mark.parametrize("name", FITTED)
def test_a_fitted_recipe_is_whole(name: str) -> None:
    """It loads by name, names its model by hash and no place, and says what it was fitted on."""
    recipe = preset(name)
    assert as_recipe(name) is recipe
    assert recipe.name == name
    assert recipe.model is not None
    assert recipe.model.path is None
    assert recipe.dtype == "float32"
    assert "development data" in recipe.versions["calibration"]


def test_how_often_the_model_runs() -> None:
    """Once for two of them, twice for two; for `static` no layer runs."""
    prompts = {
        name: {v.template.prompt for v in preset(name).views["symmetric"] if v.layer != 0}
        for name in FITTED
    }
    assert {name: len(found) for name, found in prompts.items()} == {
        "best": 2,
        "one-pass": 1,
        "fast": 1,
        "similarity": 2,
        "static": 0,
    }
    assert [v.layer for v in preset("static").views["symmetric"]] == [0]
    assert fitted_names() == FITTED


@pytest.mark.parametrize("name", FITTED)
def test_what_ships_is_what_is_fitted(name: str) -> None:
    """The views of the shipped file are those of the script that fits it, in their order."""
    told = [(v.template, v.pooling, v.layer, weight) for v, weight, _ in CHOSEN[name]]
    views = preset(name).views["symmetric"]
    assert [(v.template, v.pooling, v.layer, v.weight) for v in views] == told


def test_long_texts_are_taken_whole_and_then_as_windows() -> None:
    """What ships fitted cuts nothing; the paper's recipes are the paper's."""
    for name in FITTED:
        assert (preset(name).max_tokens, preset(name).long_text) == (1024, "windows")
    for name in ("echo", "classical", "prompt-eol", "echo-instruct"):
        assert (preset(name).max_tokens, preset(name).long_text) == (512, "cut")


def test_another_model_is_refused() -> None:
    """A recipe fitted to one model says so on another, and how to fit one."""
    model, tokenizer = families.causal_model("llama"), families.family_tokenizer("llama")
    with pytest.raises(InputError, match="echovec calibrate"):
        Embedder.from_model(model, tokenizer, "best")


@pytest.mark.parametrize("name", FITTED)
def test_a_vector_does_not_depend_on_its_batch(name: str, default_embedder: Embedder) -> None:
    """On the default model, in float32: alone and among others the same to 1e-5."""
    embedder = default_embedder.with_recipe(name)
    texts = list(families.sentences()[::25])
    together = embedder.encode(texts)
    alone = np.stack([embedder.encode(text) for text in texts])
    assert np.abs(together - alone).max() <= 1e-5
    assert np.abs(together - together[::-1]).max() > 1e-2  # other texts, other vectors
