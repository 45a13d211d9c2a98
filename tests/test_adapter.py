"""Adapters read and merged without PEFT."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from echovec import Embedder
from echovec.errors import ModelError
from echovec.model.adapter import adapter_hash, merge, stack
from echovec.train.tiny import tiny_model
from families import causal_model, family_tokenizer

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT's, about transformers


@pytest.fixture
def adapter(tmp_path):
    """A folder with an adapter of random numbers, and the model that PEFT merges it into."""

    def make(**options):
        torch.manual_seed(3)
        model = peft.get_peft_model(
            tiny_model()[0],
            peft.LoraConfig(r=4, lora_alpha=6, target_modules="all-linear", **options),
        )
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.copy_(torch.randn_like(parameter))
        model.save_pretrained(tmp_path)
        return tmp_path, model.merge_and_unload()

    return make


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"trainable_token_indices": {"embed_tokens": [1, 5]}},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "orthogonal"},
    ],
)
def test_merging_equals_peft(adapter, options):
    """Every weight of the merged model."""
    folder, expected = adapter(**options)
    model, _ = tiny_model()
    before = {name: p.clone() for name, p in model.named_parameters()}
    merge(model, folder)
    for name, parameter in expected.named_parameters():
        ours = model.get_parameter(name.replace(".token_adapter", "").replace(".base_layer", ""))
        assert torch.allclose(ours, parameter, atol=1e-6), name
    assert any(not torch.equal(p, before[n]) for n, p in model.named_parameters()), "the control"


def saved(folder, seed, **options):
    """A folder with an adapter of random numbers."""
    torch.manual_seed(seed)
    config = peft.LoraConfig(lora_alpha=6, target_modules="all-linear", **options)
    model = peft.get_peft_model(tiny_model()[0], config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"r": 4}, {"r": 2, "use_rslora": True}),
        ({"r": 4, "trainable_token_indices": {"embed_tokens": [1, 5]}}, {"r": 4}),
        ({"r": 4}, {"r": 4, "trainable_token_indices": {"embed_tokens": [1]}}),
    ],
)
def test_stacked_equals_one_merged_after_the_other(tmp_path, one, other):
    """Every weight; the second alone gives others."""
    first, second = saved(tmp_path / "a", 3, **one), saved(tmp_path / "b", 4, **other)
    expected, alone, ours = (tiny_model()[0] for _ in range(3))
    merge(expected, first)
    merge(expected, second)
    merge(alone, second)
    stack(first, second)
    merge(ours, second)
    wanted = dict(expected.named_parameters())
    for name, parameter in ours.named_parameters():
        assert torch.allclose(parameter, wanted[name], atol=1e-5), name
    assert any(not torch.allclose(p, wanted[n], atol=1e-2) for n, p in alone.named_parameters())
    # PEFT reads what was written.
    peft.PeftModel.from_pretrained(tiny_model()[0], second)


def test_adapters_of_different_tokens_are_not_stacked(tmp_path):
    """Which rows would be meant is not known."""
    first, second = (
        saved(tmp_path / str(token), token, r=4, trainable_token_indices={"embed_tokens": [token]})
        for token in (1, 2)
    )
    with pytest.raises(ModelError, match="train the same"):
        stack(first, second)


def test_another_model_is_refused(adapter):
    """A width that does not fit is named."""
    folder, _ = adapter()
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        vocab_size=9,
        hidden_size=16,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    with pytest.raises(ModelError, match="was made for"):
        merge(LlamaModel(config), folder)


def test_other_kinds_are_refused(adapter):
    """Not merged wrongly."""
    folder, _ = adapter(use_dora=True)
    with pytest.raises(ModelError, match="use_dora"):
        merge(tiny_model()[0], folder)


def test_the_hash_is_of_the_numbers(adapter):
    """Another number or another scale is another adapter."""
    folder, _ = adapter()
    first = adapter_hash(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 7}))
    assert adapter_hash(folder) != first


def test_the_hash_is_of_the_tokens_that_are_trained_too(adapter):
    """The same rows for other tokens are another adapter; without such rows nothing is added."""
    folder, _ = adapter(trainable_token_indices={"embed_tokens": [1, 5]})
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text())
    hashes = set()
    for tokens in ({"embed_tokens": [1, 5]}, {"embed_tokens": [1, 6]}, None, {}):
        file.write_text(json.dumps(config | {"trainable_token_indices": tokens}))
        hashes.add(adapter_hash(folder))
    assert len(hashes) == 3


def test_no_adapter_is_an_error(tmp_path):
    """The folder is named."""
    with pytest.raises(ModelError, match="cannot read"):
        merge(tiny_model()[0], tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
        ({"init_lora_weights": "olora"}, "init_lora_weights='olora'"),
        ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
    ],
)
def test_what_is_no_sum_with_the_published_weights_is_refused(adapter, change, said):
    """PiSSA and OLoRA changed the model's own weights; others apply to some tokens or layers."""
    folder, _ = adapter()
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | change), "utf-8")
    model, _ = tiny_model()
    with pytest.raises(ModelError, match=said):
        merge(model, folder)


TEXTS = ["a cat", "the dog sleeps", "a"]


@pytest.fixture
def lora(tmp_path):
    """A model's folder, an adapter's that names it, and what PEFT computes with both."""
    base, folder = tmp_path / "base", tmp_path / "lora"
    causal_model("llama").save_pretrained(base)
    tokenizer = family_tokenizer("llama")
    tokenizer.save_pretrained(base)
    from transformers import AutoModelForCausalLM

    torch.manual_seed(5)
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "up_proj", "lm_head"])
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder, save_embedding_layers=False)
    tokenizer.save_pretrained(folder)  # as trainers do
    merged = Embedder.from_model(model.merge_and_unload(), tokenizer, "echo")
    return base, folder, merged.encode(TEXTS)


def test_a_folder_of_an_adapter_is_loaded_with_the_model_that_it_names(lora, tmp_path):
    """As PEFT merges it; its head has no say. Saved and loaded, it is the same."""
    base, folder, expected = lora
    embedder = Embedder.load(folder)
    np.testing.assert_allclose(embedder.encode(TEXTS), expected, atol=1e-5)
    plain = Embedder.load(base)
    assert np.abs(plain.encode(TEXTS) - expected).max() > 0.01, "the control"
    assert embedder.identity.hash != plain.identity.hash
    again = Embedder.load(embedder.save(tmp_path / "saved"))
    assert again.recipe.fingerprint == embedder.recipe.fingerprint
    np.testing.assert_array_equal(again.encode(TEXTS), embedder.encode(TEXTS))


def test_an_adapter_whose_model_is_not_known_says_what_to_write(lora):
    """No name at all, or that of a folder that is gone."""
    _, folder, _ = lora
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text())
    for base, said in (("", "does not say"), ("/nowhere/model", "/nowhere/model, which is not")):
        file.write_text(json.dumps(config | {"base_model_name_or_path": base}))
        with pytest.raises(ModelError, match=rf"{said}.*base_model_name_or_path into .*config"):
            Embedder.load(folder)
    file.write_text("[]")
    with pytest.raises(ModelError, match="no adapter's settings"):
        Embedder.load(folder)


def test_an_adapter_in_pickled_weights_is_refused(lora):
    """They could run code."""
    _, folder, _ = lora
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ModelError, match="only safetensors are read"):
        Embedder.load(folder)


def test_a_model_and_an_adapter_in_one_folder_are_not_guessed_between(lora):
    """One of them would be left out without a word."""
    base, folder, _ = lora
    for file in base.iterdir():
        file.rename(folder / file.name)
    with pytest.raises(ModelError, match="either could be meant"):
        Embedder.load(folder)


def test_an_adapter_beside_its_own_model_is_not_left_out(lora, monkeypatch):
    """Without PEFT transformers would read the model alone, and say nothing."""
    base, folder, _ = lora
    for file in folder.glob("adapter_*"):
        file.rename(base / file.name)
    monkeypatch.setattr("echovec.model.adapter.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"with PEFT alone: pip install peft; or move"):
        Embedder.load(base)
