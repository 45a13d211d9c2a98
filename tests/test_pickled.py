"""Pickled: an embedder in another process has the same fingerprint and vectors, or says why not."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from operator import attrgetter

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from echovec import Embedder, InputError, ModelError, RecipeError, Template, pickled
from echovec.model.adapter import adapted_hash, adapter_hash
from echovec.model.tiny import TinyBackbone
from echovec.presets import preset
from echovec.text.tokenizer import ByteTokenizer
from echovec.vector.transform import Center
from families import causal_model, family_tokenizer

TEXTS = ["The river rose after the rain.", "The bakery opens at six.", "one"]


@pytest.fixture(autouse=True)
def _nothing_kept():
    pickled._kept.clear()
    yield
    pickled._kept.clear()


@pytest.fixture
def folder(tmp_path):
    """A model's folder."""
    for part in (causal_model("llama"), family_tokenizer("llama")):
        part.save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


@pytest.fixture
def adapted(folder, tmp_path):
    """A saved embedder with an adapter."""
    saved = tmp_path / "adapted"
    (saved / "adapter").mkdir(parents=True)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}
    (saved / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    place = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    tensors = {f"{place}A.weight": torch.ones(2, 32) / 9, f"{place}B.weight": torch.ones(32, 2)}
    save_file(tensors, saved / "adapter" / "adapter_model.safetensors")
    recipe = Embedder.load(folder).recipe
    weights = adapted_hash(recipe.model.hash, adapter_hash(saved / "adapter"))
    replace(recipe, model=replace(recipe.model, hash=weights)).save(saved)
    return saved


def there_and_back(embedder):
    return pickle.loads(pickle.dumps(embedder))


def fitted(embedder):
    """A recipe with an array."""
    mean_D = np.arange(embedder.dimension, dtype=np.float32) / 100
    return replace(preset("echo"), transforms=(Center(mean_D),))


def test_a_spawned_process_has_the_same_fingerprint_and_vectors(folder, adapted):
    """Packed and plain, in bfloat16, with another recipe, arrays, limits or an adapter."""
    packed = Embedder.load(folder)
    sent = {
        "packed": packed,
        "plain": Embedder.load(folder, engine="plain"),
        "bfloat16": Embedder.load(folder, dtype="bfloat16"),
        "template": packed.with_recipe(Template("Again: {text} {text}")),
        "arrays": packed.with_recipe(fitted(packed)),
        "limits": Embedder.load(folder, "classical", max_tokens=3, long_text="windows"),
        "parts": packed.with_recipe("echo-attended"),
        "adapter": Embedder.load(adapted),
        "adapter, plain": Embedder.load(adapted, engine="plain"),
    }
    assert len({embedder.recipe.fingerprint for embedder in sent.values()}) == 7
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
        for name, embedder in sent.items():
            vectors = other.submit(embedder.encode, TEXTS)
            fingerprint = other.submit(attrgetter("recipe.fingerprint"), embedder)
            assert np.array_equal(vectors.result(), embedder.encode(TEXTS)), name
            assert fingerprint.result() == embedder.recipe.fingerprint, name
        assert isinstance(other.submit(packed.encode, [""]).exception(), InputError)
        (folder / "config.json").unlink()  # what goes wrong there arrives, and the process goes on
        missing = other.submit(sent["bfloat16"].encode, TEXTS).exception()
        assert isinstance(missing, ModelError)
        assert "has no config.json" in str(missing)


def test_what_is_pickled_is_small_and_equal_in_every_process(folder):
    """No weights; the same bytes before and after use, in another process, and when sent on."""
    embedder = Embedder.load(folder, "classical")
    written = pickle.dumps(embedder.encode)
    assert len(written) < 4000
    embedder.encode(TEXTS)
    assert pickle.dumps(embedder.encode) == written
    arrived = there_and_back(embedder)
    assert pickle.dumps(arrived.encode) == written
    arrived.encode(TEXTS)
    assert pickle.dumps(arrived.encode) == written
    code = (
        "import hashlib, pickle; from echovec import Embedder\n"
        f"e = Embedder.load({str(folder)!r}, 'classical')\n"
        "print(hashlib.sha256(pickle.dumps(e.encode)).hexdigest())"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert told.stdout.strip() == hashlib.sha256(written).hexdigest()
    for other in (Embedder.load(folder, "echo"), Embedder.load(folder, "classical", max_tokens=9)):
        assert pickle.dumps(other.encode) != written


def test_the_hash_of_datasets_is_stable(folder):
    """`map` finds what it made before: its hash is the same for an embedder loaded again."""
    Hasher = pytest.importorskip("datasets.fingerprint").Hasher
    first, second = (Embedder.load(folder, recipe) for recipe in ("classical", "echo"))
    known = Hasher.hash(first.encode)
    first.encode(TEXTS)
    assert Hasher.hash(first.encode) == known == Hasher.hash(second.with_recipe("classical").encode)
    assert Hasher.hash(second.encode) != known


def test_data_sets_are_embedded_in_several_processes(folder):
    """`Dataset.map(..., num_proc=2)` gives the vectors of one process."""
    datasets = pytest.importorskip("datasets")
    embedder = Embedder.load(folder)
    rows = datasets.Dataset.from_dict({"text": TEXTS * 2})
    function = embedder.encode
    with_vectors = rows.map(
        lambda batch: {"vector": function(batch["text"])}, batched=True, batch_size=2, num_proc=2
    )
    vectors = np.array(with_vectors["vector"], dtype=np.float32)
    assert np.abs(vectors - embedder.encode(rows["text"])).max() < 1e-6


def test_a_model_is_loaded_at_first_use_and_kept_for_the_next(folder, monkeypatch):
    """A pool pickles what it calls with each task: its processes load one model once."""
    opened = []
    real = pickled.open_model
    monkeypatch.setattr(pickled, "open_model", lambda **how: opened.append(how) or real(**how))
    embedder = Embedder.load(folder)
    tasks = [pickle.dumps(embedder.encode) for _ in range(3)]
    methods = [pickle.loads(task) for task in tasks]
    there_and_back(there_and_back(embedder))
    assert not opened
    for method in methods:
        method(TEXTS)
    there_and_back(embedder.with_recipe("classical")).encode(TEXTS)
    assert len(opened) == 1
    there_and_back(Embedder.load(folder, dtype="bfloat16")).encode(TEXTS)
    assert len(opened) == 2


def test_threads_that_use_it_first_load_it_once(folder, monkeypatch):
    """What arrived is whole for every thread, whoever asks while it is loaded."""
    opened = []
    real = pickled.open_model
    monkeypatch.setattr(pickled, "open_model", lambda **how: opened.append(how) or real(**how))
    embedder = Embedder.load(folder)
    arrived = there_and_back(embedder)
    with ThreadPoolExecutor(4) as pool:
        vectors = list(pool.map(arrived.encode, [TEXTS] * 4))
    assert all(np.array_equal(one, embedder.encode(TEXTS)) for one in vectors)
    assert len(opened) == 1


def test_options_go_along(folder, monkeypatch):
    """Device, engine, dtype, and the trust in a model's code are those that `load` was given."""
    how = {"device": "cpu", "engine": "packed", "trust_remote_code": True}
    embedder = Embedder.load(folder, "classical", precision="exact", max_tokens=7, **how)
    asked = json.loads(embedder.__getstate__()[0])
    assert asked["asked"] == {"model": str(folder), "revision": None, **how}
    assert asked["dtype"] == "float32"
    arrived = there_and_back(embedder)
    assert arrived.definition == embedder.definition
    assert arrived.identity == embedder.identity
    assert arrived.backbone.prepacked
    assert arrived.model_path == embedder.model_path


def test_a_relative_path_is_found_from_another_folder(folder, tmp_path, monkeypatch):
    """Processes may have another working directory."""
    monkeypatch.chdir(folder.parent)
    embedder = Embedder.load("llama")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert np.array_equal(there_and_back(embedder).encode("one"), embedder.encode("one"))


@pytest.mark.parametrize("engine", ["plain", "packed"])
def test_a_model_in_memory_is_refused(engine):
    """Nobody else can load it, and the message says what to do."""
    parts = (causal_model("llama"), family_tokenizer("llama"))
    for embedder in (
        Embedder.from_model(*parts, engine=engine),
        Embedder("echo", ByteTokenizer(), TinyBackbone()),
    ):
        with pytest.raises(InputError, match=r"embedder\.save\(folder\) and pickle"):
            pickle.dumps(embedder)


@pytest.mark.parametrize("saved", ["folder", "adapted"])
@pytest.mark.parametrize("through", ["data", "training"])
@pytest.mark.parametrize("known", [True, False])
def test_weights_that_changed_are_refused(saved, through, known, request, tmp_path):
    """Trained in memory, a model is not what its files say; saved with its weights it goes."""
    embedder = Embedder.load(request.getfixturevalue(saved), engine="plain")
    if known:
        pickle.dumps(embedder)
    weight = embedder.backbone.model.layers[0].mlp.up_proj.weight
    if through == "data":
        weight.data.add_(0.01)
    else:
        embedder.forward(embedder.prepare(TEXTS)[0]).sum().backward()
        torch.optim.SGD([weight], lr=0.1).step()
    with pytest.raises(InputError, match="its weights have changed since they were loaded"):
        pickle.dumps(embedder)
    with pytest.raises(InputError, match="its weights have changed"):
        pickle.dumps(embedder.with_recipe("classical"))
    vectors = embedder.encode(TEXTS)
    again = Embedder.load(embedder.save(tmp_path / "kept", include_model=True), engine="plain")
    assert np.array_equal(there_and_back(again).encode(TEXTS), vectors)


def test_a_kept_model_that_was_trained_is_not_given_to_the_next(folder):
    """Of a plain model that arrived, the weights may be changed too; the next has those sent."""
    embedder = Embedder.load(folder, engine="plain")
    arrived = there_and_back(embedder)
    arrived.backbone.model.norm.weight.data.mul_(-1)
    assert not np.allclose(arrived.encode(TEXTS), embedder.encode(TEXTS))
    assert np.array_equal(there_and_back(embedder).encode(TEXTS), embedder.encode(TEXTS))


def test_the_second_model_of_the_packed_engine_may_change_too(folder):
    """Views with parts read a plain model beside the packed one: changed, it is refused."""
    embedder = Embedder.load(folder, "echo-attended")
    embedder.encode(TEXTS)
    pickle.dumps(embedder)
    embedder.backbone.plain.model.norm.weight.data.mul_(2)
    with pytest.raises(InputError, match="its weights have changed"):
        pickle.dumps(embedder)


def test_a_folder_that_changed_or_is_gone_is_an_error(folder):
    """Both are said when a vector is asked for, and again the next time."""
    sent = pickle.dumps(Embedder.load(folder))
    other = copy.deepcopy(causal_model("llama"))
    other.model.norm.weight.data.mul_(2)
    other.save_pretrained(folder)
    arrived = pickle.loads(sent)
    for _ in range(2):
        with pytest.raises(ModelError, match=r"weights sha256:\w+ there, sha256:\w+ here"):
            arrived.encode(TEXTS)
    folder.rename(folder.parent / "gone")
    with pytest.raises(ModelError, match="no such model folder"):
        pickle.loads(sent).encode(TEXTS)


def test_another_tokenizer_is_an_error(folder):
    """The same weights with other ids are another model."""
    sent = pickle.dumps(Embedder.load(folder))
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["fuse_unk"] = not content["model"]["fuse_unk"]
    file.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"tokenizer sha256:\w+ there"):
        pickle.loads(sent).encode(TEXTS)


def test_another_fingerprint_is_an_error(folder):
    """What only the other side's code decides, such as a marker's id, is compared as well."""
    text, arrays = Embedder.load(folder).__getstate__()
    arrived = object.__new__(Embedder)
    arrived.__setstate__((json.dumps(json.loads(text) | {"fingerprint": "0" * 16}), arrays))
    with pytest.raises(RecipeError, match="was pickled with the fingerprint 0000"):
        arrived.encode(TEXTS)


def test_what_is_not_there_is_no_attribute(folder):
    """Neither before loading nor after; names of Python's own load nothing."""
    arrived = there_and_back(Embedder.load(folder))
    assert not hasattr(arrived, "__array__")
    assert "backbone" not in arrived.__dict__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        arrived.nothing  # noqa: B018
    assert "backbone" in arrived.__dict__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        Embedder.load(folder).nothing  # noqa: B018


def test_copies_in_memory_share_the_model(folder):
    """A deep one too where nobody can change the weights; else it is refused."""
    packed, plain = Embedder.load(folder), Embedder.load(folder, engine="plain")
    for made in (copy.copy(packed), copy.deepcopy(packed), copy.deepcopy([packed])[0]):
        assert made is not packed
        assert made.backbone is packed.backbone
        assert np.array_equal(made.encode(TEXTS), packed.encode(TEXTS))
    shared = Embedder.from_model(causal_model("llama"), family_tokenizer("llama"))
    for embedder in (plain, shared):
        assert copy.copy(embedder).backbone is embedder.backbone
        with pytest.raises(InputError, match=r"copy the model and give that to"):
            copy.deepcopy(embedder)
    arrived = there_and_back(packed)
    assert copy.copy(arrived).recipe.fingerprint == packed.recipe.fingerprint
