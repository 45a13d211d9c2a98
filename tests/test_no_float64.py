"""Apple's GPUs have no float64: nothing that runs on the device asks for it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from echovec import Embedder, Recipe
from echovec.calibrate.draw import Drawing, go_on
from families import causal_model, family_tokenizer
from host import NoFloat64

TEXTS = ["A small boat.", "the harbour, at night " * 9, "why?"]


def test_float64_is_refused_on_the_device_alone():
    """The stand-in itself: on the host, and on its way to the device as float32, it may be."""
    with NoFloat64():
        host = torch.ones(3).cpu().double()
        assert (host + 1).sum().dtype == torch.float64
        assert torch.from_numpy(np.ones(3)).to("cpu", torch.float32).dtype == torch.float32
        for wrong in (torch.ones(3).double, lambda: host.to("cpu"), lambda: host + torch.ones(3)):
            with pytest.raises(TypeError):
                wrong()


def test_a_model_writes_texts():
    """Nucleus sampling adds up in float64: on the host, with the same tokens."""
    model = causal_model("llama")
    size = model.get_output_embeddings().weight.shape[0]
    how = Drawing(torch.zeros(size, dtype=torch.bool), None, 0.95, 1.0)
    u = np.random.default_rng(0).random((3, 6))
    rows = [[5, 6], [7, 8, 9], [4]]
    expected = go_on(model, rows, u, how)
    with NoFloat64():
        assert go_on(model, rows, u, how) == expected


@pytest.mark.parametrize("engine", ["plain", "packed"])
def test_texts_are_embedded(engine):
    """By a mean, a last token, parts of the attention and every calibration that recipes have."""
    embedder = Embedder.from_model(
        causal_model("llama"), family_tokenizer("llama"), "echo", engine=engine
    )
    for recipe in ("echo", "prompt-eol", "echo-instruct", "echo-windows"):
        named = embedder.with_recipe(recipe)
        expected = named.encode(TEXTS)
        with NoFloat64():
            assert np.array_equal(named.encode(TEXTS), expected)


def test_fitted_transforms_are_float32_there():
    """The transforms of the recipes that ship, applied to states of their width."""
    folder = Path(__file__).parents[1] / "src/echovec/recipes"
    recipes = [Recipe.load(file.parent) for file in sorted(folder.glob("*/recipe.json"))]
    assert len(recipes) >= 3
    with NoFloat64():
        for recipe in recipes:
            for view in recipe.views["symmetric"]:
                z_SD = torch.randn(2, 576)
                for transform in view.transforms:
                    z_SD = transform(z_SD)
                assert z_SD.dtype == torch.float32


def test_gradients_are_compared_on_the_host():
    """`echovec train --check` takes them off the device first; as they are there it could not."""
    pytest.importorskip("peft")
    pytest.importorskip("sentence_transformers")
    from echovec.train.check import _collected, relative_error

    model = torch.nn.Linear(3, 2)
    model(torch.ones(1, 3)).sum().backward()
    there = {name: p.grad for name, p in model.named_parameters()}
    with NoFloat64():
        with pytest.raises(TypeError, match="float64"):
            relative_error(there, there)
        here = _collected(SimpleNamespace(peft_model=model))
        assert relative_error(here, here) == 0
