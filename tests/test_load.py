"""Loading: what a damaged or incomplete model folder says, and loads from several threads."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.utils import logging as chatter

import families
from echovec.embedder import Embedder
from echovec.errors import InputError, ModelError, PrecisionWarning
from echovec.model import precision as precisions
from echovec.model.load import load_model, quiet_transformers, read_model
from echovec.model.precision import pick_device

WEIGHT = "model.layers.1.mlp.down_proj.weight"
FILE = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound model folder."""
    families.causal_model("llama").save_pretrained(tmp_path)
    families.family_tokenizer("llama").save_pretrained(tmp_path)
    return tmp_path


def without(tensors: dict[str, Tensor]) -> None:
    """One weight is gone."""
    del tensors[WEIGHT]


def narrower(tensors: dict[str, Tensor]) -> None:
    """One weight has another shape."""
    tensors[WEIGHT] = tensors[WEIGHT][:, :10].contiguous()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without, r"lacks 1 of the model's weights \(layers.1.mlp.down_proj.weight"),
        (narrower, r"down_proj.weight is \(32, 10\) in its files and \(32, 64\) by its config"),
    ],
    ids=["missing", "mismatched"],
)
def test_weights_are_never_made_up(
    folder: Path, change: Callable[[dict[str, Tensor]], None], said: str
) -> None:
    """What a file lacks is an error that names it, for embedding and training, not random."""
    tensors = load_file(folder / FILE)
    change(tensors)
    save_file(tensors, folder / FILE, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=said):
        load_model(folder, device="cpu", dtype="float32")
    with pytest.raises(ModelError, match=said):
        read_model(folder, device="cpu", dtype=torch.float32)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_sound_folders_lack_nothing(family: str, tmp_path: Path) -> None:
    """Models saved with their heads, in every family, load without complaint."""
    families.causal_model(family).save_pretrained(tmp_path)
    families.family_tokenizer(family).save_pretrained(tmp_path)
    read_model(tmp_path, device="cpu", dtype=torch.float32)


def cut_short(folder: Path) -> None:
    """Half of the weights' file, as a broken download leaves it."""
    whole = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(whole[: len(whole) // 2])


def odd_heads(folder: Path) -> None:
    """A width that is no multiple of the heads."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"num_attention_heads": 3}), "utf-8")


@pytest.mark.parametrize(
    ("damage", "why"), [(cut_short, "incomplete"), (odd_heads, "not a multiple")]
)
def test_damaged_folders_are_model_errors(
    folder: Path, damage: Callable[[Path], None], why: str
) -> None:
    """Whatever a library raises for a broken file, the error says where, why and the way out."""
    damage(folder)
    with pytest.raises(ModelError, match=f"{folder.name}.*{why}.*fetch the model again"):
        load_model(folder, device="cpu", dtype="float32")


def test_loads_in_two_threads_leave_no_setting_behind() -> None:
    """A second load waits for the first, and finds transformers' verbosity as it was."""
    before = chatter.get_verbosity()
    inside, leave = Event(), Event()

    def second() -> None:
        with quiet_transformers():
            inside.set()
            leave.wait(10)

    thread = Thread(target=second)
    with quiet_transformers():
        thread.start()
        assert not inside.wait(0.2)
    assert inside.wait(10)
    leave.set()
    thread.join()
    assert chatter.get_verbosity() == before


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_a_cpu_is_a_cpu_by_whatever_number(device: str) -> None:
    """What is asked of "cpu" holds for "cpu:0": its 8 and 16 bits, its memory, its batches."""
    assert pick_device(device) == "cpu"


def test_a_card_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says which there are."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("cuda") == "cuda"
    assert pick_device("cuda:1") == "cuda:1"
    with pytest.raises(InputError, match="'cuda:2': this torch sees cuda:0 to cuda:1 only"):
        pick_device("cuda:2")


@pytest.mark.parametrize(
    ("precision", "device", "native", "dtype"),
    [
        (None, "cpu", True, "float32"),
        (None, "cuda", True, "bfloat16"),
        (None, "cuda", False, "float32"),
        ("exact", "cuda", True, "float32"),
        ("fast", "cpu", True, "bfloat16"),
    ],
)
def test_a_cpu_is_exact_unless_asked(
    precision: Any, device: str, native: bool, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that multiplies 16 bits; a card computes in them where it can."""
    monkeypatch.setattr(precisions, "multiplies_bfloat16", lambda _: native)
    assert precisions.pick_dtype(None, precision, device) == dtype


@pytest.mark.parametrize(
    ("able", "native"),
    [
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"bf16": True, "sve": True}, True),
        ({"avx512_f": True, "avx512_vnni": True, "avx512_bf16": False}, False),
        ({}, False),
    ],
    ids=str,
)
def test_which_processors_multiply_16_bits(
    able: dict[str, bool], native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those with AVX-512's or AMX's instructions for it, and ARM's; 'fast' is float32 elsewhere."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert precisions.multiplies_bfloat16("cpu") is native
    if native:
        assert precisions.pick_dtype(None, "fast", "cpu") == "bfloat16"


def test_fast_where_it_would_be_slower_is_float32_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a warning that says why."""
    monkeypatch.setattr(precisions, "multiplies_bfloat16", lambda _: False)
    with pytest.warns(PrecisionWarning, match="cpu has no native bfloat16"):
        assert precisions.pick_dtype(None, "fast", "cpu") == "float32"


def test_code_of_a_model_runs_only_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that brings Python of its own is refused with what to give, and loaded with that."""
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder, ran = tmp_path / "own", tmp_path / "ran"
    families.causal_model("llama").save_pretrained(folder)
    families.family_tokenizer("llama").save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "architectures": ["Own"]}
    config["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.Own"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(
        "from pathlib import Path\n"
        "from transformers import LlamaConfig, LlamaModel\n"
        f"Path({str(ran)!r}).touch()\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own'\n"
        "class Own(LlamaModel):\n    config_class = OwnConfig\n"
    )
    with pytest.raises(ModelError, match=r"Python code of its own.*trust_remote_code=True"):
        Embedder.load(folder, "echo")
    assert not ran.exists()
    asked = Embedder.load(folder, "echo", trust_remote_code=True)
    assert ran.exists()
    families.causal_model("llama").save_pretrained(tmp_path / "plain")
    families.family_tokenizer("llama").save_pretrained(tmp_path / "plain")
    plain = Embedder.load(tmp_path / "plain", "echo")
    assert np.abs(asked.encode(["a cat"]) - plain.encode(["a cat"])).max() < 1e-5


def test_an_adapter_beside_a_models_files_is_not_lost(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With PEFT installed transformers puts it into the model: repacking would leave it behind.

    Nor can such a model be saved and loaded again; merged it can.
    """
    peft = pytest.importorskip("peft")
    monkeypatch.setattr("echovec.model.load._said", set())
    bare = Embedder.load(folder, "echo").encode(["a cat"])
    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT's, about transformers
        made = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["v_proj"]))
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.3)
    made.save_pretrained(folder)
    want = Embedder.from_model(made, families.family_tokenizer("llama")).encode(["a cat"])
    loaded = Embedder.load(folder, "echo")
    assert np.abs(loaded.encode(["a cat"]) - want).max() < 1e-5
    assert np.abs(bare - want).max() > 1e-2
    assert "an adapter of PEFT is in it" in caplog.text
    assert loaded.recipe.model is not None
    with pytest.raises(ModelError, match="an adapter of PEFT is in it"):
        Embedder.load(folder, "echo", engine="packed")
    for embedder in (loaded, Embedder.from_model(made, families.family_tokenizer("llama"))):
        with pytest.raises(InputError, match=r"merge_and_unload\(\)"):
            embedder.save(tmp_path / "saved", include_model=True)
    assert not (tmp_path / "saved").exists()
    made.merge_and_unload()
    saved = embedder.save(tmp_path / "saved", include_model=True)
    assert np.abs(Embedder.load(saved).encode(["a cat"]) - want).max() < 1e-5
