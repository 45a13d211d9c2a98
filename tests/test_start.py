"""Starts: copies in the cache are read without transformers the second time, and are the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import families
from echovec import Embedder, reader
from echovec.calibrate.draw import device_of
from echovec.errors import ModelError
from echovec.model import cache, start
from echovec.model.load import load_model
from echovec.model.packed import PackedBackbone
from echovec.model.plain import PlainBackbone
from echovec.text.kept_tokenizer import KeptTokenizer

TEXTS = ["A cat sat.", "On the </s> mat <|im_end|>, the whole night.", "日本語 \U0001f600"]
ROPE = {
    "plain": {"rope_type": "default", "rope_theta": 10_000.0},
    "linear": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "yarn": {
        "rope_type": "yarn",
        "rope_theta": 10_000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 16,
    },
}


def copy_in(folder: Path, family: str = "llama", **changes: Any) -> Path:
    """A finished copy of a tiny model in a cache of its own."""
    made = folder / "models" / "tiny-0123456789ab"
    if changes:
        import transformers

        name, told, _ = families.FAMILIES[family]
        torch.manual_seed(0)
        config = getattr(transformers, name)(**told | changes)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(made)
    else:
        families.causal_model(family).save_pretrained(made)
    families.family_tokenizer(family).save_pretrained(made)
    cache.seal(made, {"source": {"sha256": "0" * 64}})
    return made


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that has not been loaded yet."""
    monkeypatch.setenv("ECHOVEC_CACHE", str(tmp_path))
    return copy_in(tmp_path)


def is_quick(found: Embedder) -> bool:
    """Whether it was loaded without transformers."""
    return isinstance(found.tokenizer, KeptTokenizer)


@pytest.mark.parametrize(
    "changes",
    [
        *({"rope_parameters": rope} for rope in ROPE.values()),
        {"attention_bias": True},
        {"mlp_bias": True},
    ],
    ids=[*ROPE, "attention_bias", "mlp_bias"],
)
def test_the_second_start_gives_the_same_embedder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """Bit by bit the same vectors, and the same fingerprint, whatever a Llama's configuration."""
    monkeypatch.setenv("ECHOVEC_CACHE", str(tmp_path))
    made = copy_in(tmp_path, **changes)
    first, second = (Embedder.load(made, "echo", max_tokens=600) for _ in range(2))
    assert (is_quick(first), is_quick(second)) == (False, True)
    assert isinstance(second.backbone, PackedBackbone)
    texts = [*TEXTS, "long " * 90]
    assert np.array_equal(first.encode(texts), second.encode(texts))
    assert first.recipe.to_json() == second.recipe.to_json()
    assert first.tokenizer.size == second.tokenizer.size
    ids = first.tokenizer.tokenize(TEXTS)
    assert list(map(first.tokenizer.detokenize, ids)) == list(map(second.tokenizer.detokenize, ids))


def test_another_weight_is_another_model(copy: Path) -> None:
    """Weights are read and hashed each time; only what is around them is kept."""
    first = Embedder.load(copy, "echo")
    tensors = load_file(copy / "model.safetensors")
    tensors["model.norm.weight"] *= 2
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    second = Embedder.load(copy, "echo")
    assert is_quick(second)
    assert first.recipe.fingerprint != second.recipe.fingerprint


def test_a_process_that_finds_a_start_imports_no_transformers(copy: Path) -> None:
    """Nor torch's compiler; the control: without the start it imports both."""
    load_model(copy, device="cpu", dtype="float32")
    code = """if True:
        import sys
        from pathlib import Path
        from echovec import Embedder
        for _ in range(2):
            m = Embedder.load(sys.argv[1], "echo")
            m.encode(["a"]), m.recipe.fingerprint
            print(*({"transformers", "torch._dynamo"} & set(sys.modules)))
            (Path(sys.argv[1]) / ".start.json").unlink()
        """
    done = subprocess.run(
        [sys.executable, "-c", code, str(copy)], capture_output=True, text=True, check=True
    )
    first, second = done.stdout.split("\n")[:2]
    assert (first, set(second.split())) == ("", {"transformers", "torch._dynamo"})


def test_a_model_says_where_it_is(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started or not: batches are of its device's size, and texts are written on that device."""
    monkeypatch.setitem(reader._BATCH_TOKENS, "meta", 77)
    for quick, engine in ((False, "auto"), (True, "auto"), (False, "plain")):
        found = Embedder.load(copy, "echo", device="cpu", engine=engine)
        assert is_quick(found) == quick
        assert (device_of(found), found.batch_tokens) == ("cpu", reader._BATCH_TOKENS["cpu"])
        found.backbone.model.to("meta")  # as far from here as a card
        assert (device_of(found), found.batch_tokens) == ("meta", 77)
    own = shutil.copytree(copy, copy.parents[1] / "own")
    loaded, _, _ = load_model(own, device="meta", dtype="float32", engine="plain")
    assert loaded.model.device.type == "meta"


def test_transformers_is_there_for_who_asks(copy: Path, tmp_path: Path) -> None:
    """The model and the tokenizer of transformers, and an embedder saved with its weights."""
    Embedder.load(copy, "echo")
    found = Embedder.load(copy, "echo")
    assert is_quick(found)
    model, tokenizer = found.hugging_face
    assert tokenizer("a cat").input_ids
    assert model.config.model_type == "llama"
    found.save(tmp_path / "saved", include_model=True)
    again = Embedder.load(tmp_path / "saved")
    assert np.array_equal(again.encode(TEXTS), found.encode(TEXTS))


def test_recipes_that_need_the_plain_engine_get_it(copy: Path) -> None:
    """Attention both ways runs on transformers' model, read when it is needed."""
    usual = Embedder.load(copy, "classical-both-ways", engine="plain")
    found = Embedder.load(copy, "classical-both-ways")
    assert is_quick(found)
    assert np.abs(found.encode(TEXTS) - usual.encode(TEXTS)).max() <= 1e-5


def test_an_adapter_is_merged_alike(copy: Path, tmp_path: Path) -> None:
    """Into the skeleton's weights as into the model's: same hash, same bits; other ones bare."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    told = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(told), "utf-8")
    place = "base_model.model.layers.0.mlp.down_proj"
    torch.manual_seed(0)
    tensors = {
        f"{place}.lora_A.weight": torch.randn(2, 64),
        f"{place}.lora_B.weight": torch.randn(32, 2),
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    found = [
        load_model(copy, device="cpu", dtype="float32", adapter=adapter)
        for adapter in (folder, folder, None)
    ]
    usual, quick, bare = (Embedder("echo", one[1], one[0]) for one in found)
    assert (is_quick(usual), is_quick(quick)) == (False, True)
    assert usual.recipe.fingerprint == quick.recipe.fingerprint != bare.recipe.fingerprint
    vectors = usual.encode(TEXTS)
    assert np.array_equal(vectors, quick.encode(TEXTS))
    assert not np.array_equal(vectors, bare.encode(TEXTS))


@pytest.mark.parametrize(
    "how",
    [{"engine": "plain"}, {"trust_remote_code": True}, {"tokenizer_at": True}],
    ids=["plain", "code", "tokenizer"],
)
def test_what_a_start_does_not_hold_is_read_by_transformers(
    copy: Path, how: dict[str, Any]
) -> None:
    """The plain engine, a model with code of its own, another tokenizer."""
    load_model(copy, device="cpu", dtype="float32")
    if "tokenizer_at" in how:
        how = {"tokenizer_at": copy}
    found, tokenizer, _ = load_model(copy, device="cpu", dtype="float32", **how)
    assert not isinstance(tokenizer, KeptTokenizer)
    assert isinstance(found, PlainBackbone) == ("engine" in how)


def other_limit(copy: Path) -> None:
    """The configuration says something else."""
    config = json.loads((copy / "config.json").read_text("utf-8"))
    (copy / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.1}), "utf-8")


def another_file(copy: Path) -> None:
    """A file that transformers might read."""
    (copy / "added_tokens.json").write_text("{}", "utf-8")


def half(copy: Path) -> None:
    """A start that was cut off."""
    text = (copy / start.FILE).read_text("utf-8")
    (copy / start.FILE).write_text(text[: len(text) // 2], "utf-8")


def flipped(copy: Path) -> None:
    """A start that is still one, but whose special tokens are others."""
    text = (copy / start.FILE).read_text("utf-8")
    assert text.count('"special_ids": [') == 1
    (copy / start.FILE).write_text(text.replace('"special_ids": [', '"special_ids": [7, '), "utf-8")


@pytest.mark.parametrize("change", [other_limit, another_file, half, flipped])
def test_a_start_of_anything_else_is_not_used_and_written_anew(
    copy: Path, change: Callable[[Path], None]
) -> None:
    """After any change transformers reads the copy once more, and what it says is kept."""
    Embedder.load(copy, "echo")
    change(copy)
    changed, kept = (Embedder.load(copy, "echo") for _ in range(2))
    assert (is_quick(changed), is_quick(kept)) == (False, True)
    assert np.array_equal(changed.encode(TEXTS), kept.encode(TEXTS))


@pytest.mark.parametrize("library", ["transformers", "tokenizers", "torch"])
def test_a_start_of_another_version_is_not_used(
    copy: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    """Of each library that had a part in it."""
    Embedder.load(copy, "echo")
    found = start.version
    monkeypatch.setattr(start, "version", lambda name: f"{found(name)}{'.1' * (name == library)}")
    assert not is_quick(Embedder.load(copy, "echo"))


def test_a_copy_that_lacks_a_weight_says_what_it_always_said(copy: Path) -> None:
    """What is wrong with a file, transformers' way says."""
    Embedder.load(copy, "echo")
    tensors = load_file(copy / "model.safetensors")
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ModelError, match=r"lacks 1 of the model's weights \(layers.1.mlp.down_proj"
    ):
        Embedder.load(copy, "echo")


def test_no_start_is_kept_that_would_give_another_model(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: positions that turn otherwise are seen before anything is written."""
    turned = start._skeleton

    def otherwise(told: dict[str, Any]) -> Any:
        return turned({**told, "turned": 1.001})

    monkeypatch.setattr(start, "_skeleton", otherwise)
    Embedder.load(copy, "echo")
    assert not (copy / start.FILE).exists()


@pytest.mark.parametrize("family", ["qwen2", "gemma", "gpt2"])
def test_other_families_are_read_by_transformers_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """Nothing is kept for them."""
    monkeypatch.setenv("ECHOVEC_CACHE", str(tmp_path))
    made = copy_in(tmp_path, family)
    assert not any(is_quick(Embedder.load(made, "echo")) for _ in range(2))
    assert not (made / start.FILE).exists()


def test_folders_of_users_are_left_alone(tmp_path: Path) -> None:
    """Nothing is written beside a model that is not the cache's."""
    made = copy_in(tmp_path)
    before = sorted(made.iterdir())
    assert not any(is_quick(Embedder.load(made, "echo")) for _ in range(2))
    assert sorted(made.iterdir()) == before


def test_a_cache_that_cannot_be_written_is_no_error(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every start is then as slow as the first one."""
    from echovec.errors import StorageError

    def refused(*_: Any) -> None:
        raise StorageError("no")

    monkeypatch.setattr(start, "write_file", refused)
    assert not any(is_quick(Embedder.load(copy, "echo")) for _ in range(2))


def test_a_copy_with_a_start_is_still_as_its_manifest_says(copy: Path) -> None:
    """The copy is not thought damaged, and goes with its start."""
    Embedder.load(copy, "echo")
    assert (copy / start.FILE).is_file()
    assert cache.verify(copy) == []
    cache.discard(copy)
    assert not copy.exists()


def test_the_default_model_starts_the_same_both_ways(
    default_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`best`, whose recipe is bound to the model's hash, on everybody's first model."""
    quick = Embedder.load()
    quick = quick if is_quick(quick) else Embedder.load()
    assert is_quick(quick)
    monkeypatch.setattr(start, "read", lambda *_: None)
    usual = Embedder.load()
    assert not is_quick(usual)
    assert quick.recipe.fingerprint == usual.recipe.fingerprint
    assert np.array_equal(quick.encode(TEXTS), usual.encode(TEXTS))
