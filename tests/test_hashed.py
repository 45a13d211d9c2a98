"""Hashed: a fingerprint is that of the weights as they are, whatever has changed them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from echovec import Embedder, InputError, RecipeError
from echovec.model import hashed
from families import causal_model, family_tokenizer

TEXTS = ["The river rose after the rain.", "The bakery opens at six.", "one"]
GIVEN = ["given, plain", "given, packed"]
LOADED = ["loaded", "loaded, bound"]


@pytest.fixture
def folder(tmp_path):
    """A model's folder."""
    for part in (causal_model("llama"), family_tokenizer("llama")):
        part.save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


def embedder_of(kind, folder):
    """An embedder whose weights are the model's own."""
    if kind in GIVEN:
        parts = copy.deepcopy(causal_model("llama")), family_tokenizer("llama")
        return Embedder.from_model(*parts, engine=kind.removeprefix("given, "))
    if kind == "loaded":
        return Embedder.load(folder, engine="plain")
    return Embedder.load(folder, Embedder.load(folder, "echo").recipe, engine="plain")


def fingerprint(embedder):
    return embedder.recipe.fingerprint


def weight_of(embedder):
    return embedder.backbone.model.layers[1].mlp.up_proj.weight


def trained(optimizer, **options):
    def train(embedder):
        weight = weight_of(embedder)
        embedder.forward(embedder.prepare(TEXTS)[0]).sum().backward()
        optimizer([weight], lr=0.1, **options).step()
        weight.grad = None

    return train


def one_number(embedder):
    with torch.no_grad():
        weight_of(embedder)[0, 0] += 1


def another(embedder):
    weight = weight_of(embedder)
    weight.data = weight.data * 2


def in_inference_mode(embedder):
    with torch.inference_mode():
        weight_of(embedder)[3, 5] += 1


def a_token(embedder):
    embedder.backbone.model.embed_tokens.weight.data[7] += 0.1


def configured(embedder):
    embedder.backbone.model.config.rms_norm_eps = 0.1


CHANGES = {
    "SGD": trained(torch.optim.SGD),
    "fused AdamW": trained(torch.optim.AdamW, fused=True),
    "one number": one_number,
    "data": lambda embedder: weight_of(embedder).data.mul_(1.5),
    "norm": lambda embedder: embedder.backbone.model.norm.weight.data.__setitem__(0, 9.0),
    "another tensor": another,
    "in inference mode": in_inference_mode,
    "a token": a_token,
    "configuration": configured,
    "bfloat16": lambda embedder: embedder.backbone.model.bfloat16(),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", [*GIVEN, *LOADED])
def test_changed_weights_have_another_fingerprint(kind, change, folder):
    """That of an embedder made anew around them; recipes of the same model see it as well."""
    embedder = embedder_of(kind, folder)
    other = embedder.with_recipe("classical")
    before = fingerprint(embedder), fingerprint(other)
    CHANGES[change](embedder)
    after = fingerprint(embedder), fingerprint(other)
    assert not set(before) & set(after)
    model = embedder.backbone.model
    anew = Embedder.from_model(model, embedder.tokenizer.inner)
    assert after[0] == fingerprint(anew) == fingerprint(other.with_recipe("echo"))


@pytest.mark.parametrize("kind", [*GIVEN, *LOADED])
def test_weights_that_are_as_before_have_the_fingerprint_of_before(kind, folder):
    """Trained and put back, or moved in memory, they are the same model."""
    embedder = embedder_of(kind, folder)
    before = fingerprint(embedder)
    kept = copy.deepcopy(embedder.backbone.model.state_dict())
    CHANGES["SGD"](embedder)
    assert fingerprint(embedder) != before
    embedder.backbone.model.load_state_dict(kept)
    assert fingerprint(embedder) == before
    weight_of(embedder).data = weight_of(embedder).data.clone()
    assert fingerprint(embedder) == before


def test_weights_are_hashed_once_for_as_long_as_they_are_the_same(folder, monkeypatch):
    """Neither encoding nor another recipe, nor asking again, hashes them anew."""
    hashes = []
    real = hashed.hash_of
    monkeypatch.setattr(hashed, "hash_of", lambda model: hashes.append(1) or real(model))
    for kind in ("given, plain", "given, packed", "loaded"):
        embedder = embedder_of(kind, folder)
        for _ in range(2):
            fingerprint(embedder)
            embedder.encode(TEXTS)
            fingerprint(embedder.with_recipe("classical"))
        assert len(hashes) == 1
        hashes.clear()
    recipe = embedder.recipe
    assert embedder.recipe is recipe


def test_a_bound_recipe_is_refused_by_what_was_trained(folder):
    """The same weights are no others because they lie in the same place."""
    embedder = embedder_of("loaded", folder)
    bound = embedder.recipe
    embedder.with_recipe(bound)
    CHANGES["SGD"](embedder)
    with pytest.raises(RecipeError, match="was made for llama with weights"):
        embedder.with_recipe(bound)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT's, about transformers
@pytest.mark.parametrize("engine", ["plain", "packed"])
def test_adapters_in_memory_are_in_the_fingerprint(engine):
    """Switched off, scaled or merged, they give other vectors; trained, another adapter."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj"], init_lora_weights=False)
    model = peft.get_peft_model(copy.deepcopy(causal_model("llama")), config)
    embedder = Embedder.from_model(model, family_tokenizer("llama"), engine=engine)
    on, vectors = fingerprint(embedder), embedder.encode(TEXTS)
    assert fingerprint(embedder) == on
    with model.disable_adapter():
        off = fingerprint(embedder)
        assert not np.allclose(embedder.encode(TEXTS), vectors)
    assert fingerprint(embedder) == on
    layers = [m for m in model.modules() if isinstance(m, peft.tuners.lora.Linear)]
    for layer in layers:
        layer.scale_layer(3)
    scaled = fingerprint(embedder)
    assert not np.allclose(embedder.encode(TEXTS), vectors)
    for layer in layers:
        layer.unscale_layer(3)
    assert fingerprint(embedder) == on
    layers[0].lora_B["default"].weight.data.mul_(2)
    changed = fingerprint(embedder)
    model.merge_adapter()
    assert len({on, off, scaled, changed, fingerprint(embedder)}) == 5
    model.train()
    assert fingerprint(embedder) == fingerprint(embedder.with_recipe("echo"))


@pytest.mark.parametrize("known", [True, False])
def test_what_was_trained_in_memory_is_saved_with_its_weights(known, folder, tmp_path):
    """By default; not to write them is refused, since no place has them."""
    embedder = embedder_of("loaded, bound" if known else "loaded", folder)
    assert not (embedder.save(tmp_path / "by name") / "model").exists()
    CHANGES["fused AdamW"](embedder)
    with pytest.raises(InputError, match=r"changed in memory.*include_model=True"):
        embedder.save(tmp_path / "refused", include_model=False)
    assert not (tmp_path / "refused").exists()
    again = Embedder.load(embedder.save(tmp_path / "saved"), engine="plain")
    assert fingerprint(again) == fingerprint(embedder)
    assert np.array_equal(again.encode(TEXTS), embedder.encode(TEXTS))


def test_a_model_that_is_given_is_saved_with_its_weights(folder, tmp_path):
    """It may have been trained before it was given: its folder need not be what it is."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    model.model.norm.weight.data.mul_(-1)
    embedder = Embedder.from_model(model, AutoTokenizer.from_pretrained(folder))
    assert embedder.model_path == folder
    again = Embedder.load(embedder.save(tmp_path / "saved"), engine="plain")
    assert np.array_equal(again.encode(TEXTS), embedder.encode(TEXTS))
    named = Embedder.load(folder).save(tmp_path / "named")
    assert not (named / "model").exists()


def test_the_plain_model_beside_a_packed_one_is_in_the_fingerprint(folder):
    """Views with parts read it, and it may be trained."""
    embedder = Embedder.load(folder, "echo-attended")
    before = fingerprint(embedder)
    vectors = embedder.encode(TEXTS)
    assert fingerprint(embedder) == before
    embedder.backbone.plain.model.layers[0].mlp.up_proj.weight.data.mul_(2)
    assert not np.allclose(embedder.encode(TEXTS), vectors)
    assert fingerprint(embedder) != before
