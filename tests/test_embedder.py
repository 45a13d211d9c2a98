"""The Embedder: the public door, on the tiny backbone that ships and on tiny real models."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from echovec import (
    Embedder,
    InputError,
    ModelError,
    NonFiniteError,
    PrecisionWarning,
    Recipe,
    RecipeError,
    Template,
    TruncationWarning,
    View,
)
from echovec.model.precision import pick_device, pick_dtype
from echovec.model.tiny import TinyBackbone
from echovec.presets import PRESETS
from echovec.recipe import ROLES
from echovec.text.tokenizer import ByteTokenizer
from echovec.vector.transform import Truncate
from families import causal_model, family_tokenizer, sentences


def tiny(recipe="echo", backbone=None):
    return Embedder(recipe, ByteTokenizer(), backbone or TinyBackbone())


class Wrapped(TinyBackbone):
    """A tiny backbone whose forward a test can bend."""

    def __init__(self, bend):
        super().__init__()
        self.bend = bend
        self.sizes = []

    def forward(self, batch, layers=(-1,), *, pooled_only=False, float32=False):
        self.sizes.append(len(batch))
        states = super().forward(batch, layers, pooled_only=pooled_only, float32=float32)
        return self.bend(batch, states, float32)


def test_a_list_gives_rows_and_a_text_gives_one():
    """float32 [n, d] for a list, [d] for a single text, [0, d] for an empty list; all unit."""
    vectors = tiny().encode(["one", "two", "three"])
    assert vectors.shape == (3, 32)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert np.array_equal(tiny().encode("two"), tiny().encode(["two"])[0])
    assert tiny().encode([]).shape == (0, 32)


def test_a_vector_is_the_same_alone_in_any_batch_and_any_order():
    """Batching, order and repetition change nothing beyond rounding."""
    embedder, texts = tiny(), list(sentences()[::4])
    alone = np.stack([embedder.encode(t) for t in texts])
    for options in ({}, {"batch_size": 1}, {"batch_size": 3}, {"batch_tokens": 100}):
        assert np.abs(embedder.encode(texts, **options) - alone).max() < 1e-6
    shuffled = texts[::-1] + texts[:5]
    expected = np.concatenate([alone[::-1], alone[:5]])
    assert np.abs(embedder.encode(shuffled) - expected).max() < 1e-6


def test_identical_texts_are_computed_once():
    """A text that occurs a hundred times costs one sequence."""
    backbone = Wrapped(lambda batch, states, float32: states)
    vectors = tiny(backbone=backbone).encode(["a", "b"] * 100)
    assert sum(backbone.sizes) == 2
    assert (vectors[::2] == vectors[0]).all()


def test_normalising_and_truncating_are_options():
    """Raw vectors on request; the first numbers on request, then unit length again."""
    embedder = tiny()
    raw = embedder.encode("text", normalize_embeddings=False)
    assert abs(np.linalg.norm(raw) - 1) > 0.01
    short = embedder.encode("text", truncate_dim=8)
    assert short.shape == (8,)
    assert np.allclose(short, raw[:8] / np.linalg.norm(raw[:8]), atol=1e-6)
    with pytest.raises(InputError, match="vectors of 32 numbers to 33"):
        embedder.encode("text", truncate_dim=33)


def test_roles_use_their_own_templates():
    """Queries and documents differ where the recipe says so, and the instruction matters."""
    embedder = tiny("echo-instruct")
    query, document = embedder.encode_query("a"), embedder.encode_document("a")
    assert not np.allclose(query, document)
    assert not np.allclose(query, embedder.encode_query("a", instruction="Other"))
    assert np.array_equal(query, embedder.encode("a", role="query"))
    assert np.array_equal(document, embedder.encode("a", role="document"))
    assert not np.allclose(document, embedder.encode("a"))
    assert not np.allclose(query, embedder.encode("a"))
    with pytest.raises(InputError, match="role='passage'"):
        embedder.encode("a", role="passage")
    with pytest.raises(InputError, match="takes no instruction"):
        tiny().encode_query("a", instruction="find")


def test_a_misspelt_option_is_refused():
    """No option is swallowed."""
    with pytest.raises(TypeError, match="normalise"):
        tiny().encode_query("a", normalise=True)


@pytest.mark.parametrize(
    ("texts", "place", "message"),
    [
        (["a", "", "b"], 1, "texts[1] is empty"),
        (["a", "a", "b\udfff"], 2, "texts[2] is not valid Unicode"),
        (["a", None], 1, "texts[1] is NoneType"),
        ("", 0, "texts[0] is empty"),
    ],
)
def test_a_bad_text_is_named_before_any_work(texts, place, message):
    """Nothing is embedded when a text cannot be; the error names its place."""
    backbone = Wrapped(lambda batch, states, float32: states)
    with pytest.raises(InputError) as caught:
        tiny(backbone=backbone).encode(texts)
    assert message in str(caught.value)
    assert caught.value.index == place
    assert backbone.sizes == []


@pytest.mark.parametrize(
    "options",
    [{"batch_size": 0}, {"batch_size": -1}, {"batch_tokens": 0}, {"batch_tokens": -5}],
)
def test_a_batch_of_nothing_is_refused(options):
    """A limit below 1 is neither the default nor a crash: the message has the option's name."""
    embedder = tiny()
    ((name, value),) = options.items()
    for verb in (embedder.encode, embedder.prepare, embedder.states):
        with pytest.raises(InputError, match=f"{name}={value}; give 1 or more"):
            verb(["a", "bb"], **options)


def test_one_text_is_no_list_of_its_characters():
    """`encode` takes a single text; what gives a row for each text refuses one."""
    for verb in (tiny().prepare, tiny().states):
        with pytest.raises(InputError, match="texts='abc' is one text; give a list"):
            verb("abc")


def test_too_wide_a_cut_is_refused_before_any_work():
    """`truncate_dim` beyond the vector's width costs no run of the model."""
    backbone = Wrapped(lambda batch, states, float32: states)
    with pytest.raises(InputError, match="vectors of 32 numbers to 33"):
        tiny(backbone=backbone).encode(["a"], truncate_dim=33)
    assert backbone.sizes == []


def test_a_text_without_tokens_is_named_in_the_caller_s_list():
    """Places are counted in the list that was given, repeated texts included."""

    class Dropping(ByteTokenizer):
        def tokenize(self, texts):
            return [[] if "drop" in t else list(t.encode()) for t in texts]

    embedder = Embedder("echo", Dropping(), TinyBackbone())
    with pytest.raises(InputError, match=r"texts\[3\] has no tokens") as caught:
        embedder.encode(["a", "a", "a", "drop"])
    assert caught.value.index == 3


def test_cut_texts_are_counted_or_flagged():
    """A warning with the count by default; flags per row, and no warning, on request."""
    embedder = tiny().with_recipe("echo", max_tokens=4)
    texts = ["long text", "ok", "long text"]
    with pytest.warns(TruncationWarning, match="2 of 3 texts were cut to the budget of 4 tokens"):
        vectors = embedder.encode(texts)
    flagged, cut = embedder.encode(texts, return_truncated=True)
    assert cut.tolist() == [True, False, True]
    assert np.array_equal(vectors, flagged)
    _, one = embedder.encode("ok", return_truncated=True)
    assert not one
    assert np.array_equal(vectors[0], embedder.encode("lon"))


def test_a_model_without_a_limit_has_none_in_the_warning():
    """A cut is told by the budget alone where the model takes prompts of any length."""
    endless = Embedder("echo", ByteTokenizer(), TinyBackbone(max_positions=None))
    with pytest.warns(TruncationWarning) as told:
        endless.with_recipe("echo", max_tokens=3).encode("abcdef")
    assert "budget of 3 tokens per copy; raise max_tokens" in str(told[0].message)


def test_long_texts_become_windows_where_that_is_asked_for(folder):
    """`long_text` beside the budget, when loaded or later: the mean of windows, nothing cut."""
    text = "a text of many more words than that"
    loaded = Embedder.load(folder, "echo", max_tokens=6, long_text="windows")
    later = Embedder.load(folder, "echo").with_recipe("echo", max_tokens=6, long_text="windows")
    vector, cut = loaded.encode(text, return_truncated=True)
    assert not cut
    assert np.array_equal(vector, later.encode(text))
    with pytest.warns(TruncationWarning, match="long_text='windows'"):
        other = Embedder.load(folder, "echo", max_tokens=6).encode(text)
    assert np.abs(vector - other).max() > 1e-3  # what is cut is another vector


def test_out_of_memory_halves_the_batch_and_goes_on():
    """Batches of more than two texts fail; all texts are embedded all the same."""

    def bend(batch, states, float32):
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        return states

    backbone = Wrapped(bend)
    texts = list(sentences()[:11])
    vectors = tiny(backbone=backbone).encode(texts, batch_tokens=10**6)
    assert np.abs(vectors - tiny().encode(texts)).max() < 1e-6
    assert backbone.sizes[0] == 11
    assert max(size for size in backbone.sizes if size <= 2) <= 2


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        MemoryError(),
    ],
    ids=lambda e: type(e).__name__,
)
def test_memory_errors_of_every_device_are_known_and_others_are_not_retried(error):
    """One text that does not fit is the error itself; another error is raised at once."""

    def fail(batch, states, float32):
        raise error

    backbone = Wrapped(fail)
    with pytest.raises(type(error)):
        tiny(backbone=backbone).encode(["a", "b", "c", "d"], batch_tokens=10**6)
    assert backbone.sizes == [4, 2, 1]

    def bug(batch, states, float32):
        raise RuntimeError("shape mismatch")

    other = Wrapped(bug)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        tiny(backbone=other).encode(["a", "b"])
    assert other.sizes == [2]


def test_a_non_finite_vector_is_computed_again_in_float32():
    """NaN in the model's dtype: those rows only are repeated in float32, with a warning."""

    def bend(batch, states, float32):
        if not float32:
            states[0] = states[0].clone()
            states[0][batch.pooled[1][0, 0, 0]] = float("nan")
        return states

    backbone = Wrapped(bend)
    texts = ["one", "three", "five!!"]
    with pytest.warns(PrecisionWarning, match="1 vectors were not finite"):
        vectors = tiny(backbone=backbone).encode(texts)
    assert np.isfinite(vectors).all()
    assert np.abs(vectors - tiny().encode(texts)).max() < 1e-6
    assert backbone.sizes == [3, 1]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_vector_that_stays_non_finite_is_an_error_that_names_the_row(value):
    """Never a NaN vector: NonFiniteError with the row's place in the caller's list."""

    def bend(batch, states, float32):
        return [torch.full_like(states[0], value) if len(batch.ids_T) else states[0]]

    with pytest.raises(NonFiniteError, match=r"texts\[1\]") as caught:
        tiny(backbone=Wrapped(bend)).encode(["short", "the longest text of all", "short"])
    assert caught.value.row == 1


def test_prepare_and_forward_are_the_seam_of_encode():
    """`encode` is prepare, forward and the order restored; forward has gradients."""
    embedder, texts = tiny(), list(sentences()[:9])
    by_hand = np.zeros((9, 32), dtype=np.float32)
    for chunk in embedder.prepare(texts, batch_size=2):
        by_hand[chunk[0].order_S] = embedder.forward(chunk).numpy()
    expected = embedder.encode(texts, normalize_embeddings=False)
    assert np.abs(by_hand - expected).max() < 1e-6
    model = causal_model("llama")
    real = Embedder.from_model(model, family_tokenizer("llama"))
    loss = real.forward(real.prepare(texts[:2])[0]).pow(2).sum()
    (gradient,) = torch.autograd.grad(loss, [model.base_model.embed_tokens.weight])
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("long_text", ["cut", "windows"])
def test_vectors_take_all_chunks_of_a_plan_once(long_text):
    """In any order; one left out, or given twice, is an error, and no row of zeros."""
    embedder = tiny().with_recipe("echo", max_tokens=4, long_text=long_text)
    texts = [sentence * (1 + place % 2) for place, sentence in enumerate(sentences()[:5])]
    chunks = embedder.prepare(texts, batch_size=2)
    expected = embedder.encode(texts, normalize_embeddings=False, return_truncated=True)
    for got, wanted in zip(embedder.vectors(chunks[::-1]), expected, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-6)
    last = next(n for n, chunk in enumerate(chunks) if len(texts) - 1 in chunk[0].order_S)
    one = (last + 1) % len(chunks)
    with pytest.raises(
        InputError, match=r"not one whole plan: .* texts\[\d\] 0.* times; give all"
    ) as got:
        embedder.vectors([*chunks[:one], *chunks[one + 1 :]])
    assert got.value.index in chunks[one][0].order_S
    with pytest.raises(InputError, match=r"texts\[\d\] [12].* times"):
        embedder.vectors([*chunks, chunks[0]])


def test_another_recipe_shares_the_model():
    """`with_recipe` loads and copies nothing, and differs where it should."""
    echo = tiny()
    classical = echo.with_recipe("classical")
    assert classical.backbone is echo.backbone
    assert not np.allclose(echo.encode("some text"), classical.encode("some text"))
    assert classical.recipe.fingerprint != echo.recipe.fingerprint
    one_line = echo.with_recipe(Template("Repeat: {text} Again: {text}"))
    assert one_line.recipe.name == "custom"
    assert one_line.encode("a").shape == (32,)


def test_a_recipe_s_transforms_shape_the_vectors():
    """A recipe that truncates gives narrow vectors and says so in `dimension`."""
    recipe = replace(PRESETS["echo"], transforms=(Truncate(5),))
    assert tiny(recipe).dimension == 5
    assert tiny(recipe).encode(["a", "b"]).shape == (2, 5)


def test_a_layer_that_does_not_exist_is_refused():
    """The message names the layers there are."""
    recipe = Recipe(name="x", views=dict.fromkeys(ROLES, View(Template("{text}"), layer=3)))
    with pytest.raises(InputError, match="layer 3 does not exist: this model has 2 blocks"):
        tiny(recipe).encode("a")


def test_the_recipe_names_the_model_and_its_hash():
    """Bound to a model, the recipe has hashes, ids, dtype and versions; another model another."""
    recipe = tiny().recipe
    assert recipe.model is not None
    assert recipe.model.hash.startswith("sha256:")
    assert recipe.model.bos_id == 256
    assert recipe.dtype == "float32"
    assert {"echovec", "torch", "transformers"} <= set(recipe.versions)
    other = tiny(backbone=TinyBackbone(seed=1)).recipe
    assert other.fingerprint != recipe.fingerprint
    assert "echo" in repr(tiny())


# -- models in memory and on disk -------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """A tiny Llama saved as transformers saves it."""
    causal_model("llama").save_pretrained(tmp_path / "m")
    family_tokenizer("llama").save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def test_a_folder_and_the_model_in_memory_give_one_hash_and_one_vector(folder):
    """The hash is over the weights, wherever they come from."""
    loaded = Embedder.load(folder)
    shared = Embedder.from_model(causal_model("llama"), family_tokenizer("llama"))
    assert loaded.recipe.fingerprint == shared.recipe.fingerprint
    assert np.abs(loaded.encode("text") - shared.encode("text")).max() < 1e-6
    assert loaded.model_path == folder


def test_generation_is_untouched_by_embedding():
    """Embedding with a model in memory changes neither its output, mode nor configuration."""
    model, tokenizer = causal_model("llama"), family_tokenizer("llama")
    prompt = torch.tensor([[5, 6, 7]])
    before = model.generate(prompt, max_new_tokens=8, do_sample=False, pad_token_id=0)
    config = model.config.to_json_string()
    weights = model.base_model.embed_tokens.weight
    model.train()
    try:
        embedder = Embedder.from_model(model, tokenizer)
        assert embedder.backbone.model.embed_tokens.weight is weights
        embedder.encode(["a text", "another text"])
        assert model.training
        assert model.base_model.training
    finally:
        model.eval()
    after = model.generate(prompt, max_new_tokens=8, do_sample=False, pad_token_id=0)
    assert torch.equal(before, after)
    assert model.config.to_json_string() == config


def test_padding_side_of_the_tokenizer_does_not_matter():
    """A tokenizer set to pad left, as for generation, gives the same vectors and stays so."""
    model, tokenizer = causal_model("llama"), family_tokenizer("llama")
    right = Embedder.from_model(model, tokenizer).encode(sentences()[::20])
    tokenizer.padding_side = "left"
    try:
        left = Embedder.from_model(model, tokenizer).encode(sentences()[::20])
        assert tokenizer.padding_side == "left"
    finally:
        tokenizer.padding_side = "right"
    assert np.array_equal(left, right)


def test_save_and_load_by_reference(folder, tmp_path):
    """A saved recipe finds its model again, and refuses another model, naming both hashes."""
    embedder = Embedder.load(folder, "echo-sentence", max_tokens=77)
    saved = embedder.save(tmp_path / "saved")
    assert not (saved / "model").exists()
    again = Embedder.load(saved)
    assert again.recipe.fingerprint == embedder.recipe.fingerprint
    assert np.array_equal(again.encode("text"), embedder.encode("text"))
    family_tokenizer("mistral").save_pretrained(folder)
    with pytest.raises(RecipeError, match=r"made for m with tokenizer sha256:"):
        Embedder.load(saved)
    family_tokenizer("llama").save_pretrained(folder)
    causal_model("mistral").save_pretrained(folder)
    with pytest.raises(RecipeError, match=r"made for m with weights sha256:"):
        Embedder.load(saved)


def test_a_saved_folder_finds_its_model_from_any_other_folder(folder, tmp_path, monkeypatch):
    """A model given by a relative path is named by its absolute one."""
    monkeypatch.chdir(folder.parent)
    saved = Embedder.load(folder.name).save(tmp_path / "saved")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert Embedder.load(saved).model_path == folder


def test_a_recipe_may_lie_in_its_model_s_own_folder(folder):
    """Saved beside the weights, it is loaded with them."""
    embedder = Embedder.load(folder, "classical")
    again = Embedder.load(embedder.save(folder))
    assert again.recipe.fingerprint == embedder.recipe.fingerprint


def test_a_folder_that_holds_another_embedder_s_model_is_refused(folder, tmp_path):
    """Saved by name over weights or an adapter, a recipe would be loaded with those."""
    in_memory = Embedder.from_model(causal_model("gpt2"), family_tokenizer("gpt2"))
    with_weights = in_memory.save(tmp_path / "weights")
    Embedder.load(with_weights).save(with_weights)  # its own are no others
    (tmp_path / "link").symlink_to(with_weights)
    Embedder.load(tmp_path / "link").save(with_weights)  # nor by another path
    by_name = Embedder.load(folder)
    with pytest.raises(InputError, match="model/ of an embedder that was saved there before"):
        by_name.save(with_weights)
    (tmp_path / "adapted" / "adapter").mkdir(parents=True)
    for include_model in (True, False):
        with pytest.raises(InputError, match="has adapter/ of an embedder"):
            by_name.save(tmp_path / "adapted", include_model=include_model)
    assert Embedder.load(with_weights).recipe.fingerprint == in_memory.recipe.fingerprint


def test_a_record_stays_in_the_recipe(tmp_path):
    """What a fitted recipe says of its fitting is not lost when it is loaded and saved again."""
    recipe = replace(PRESETS["echo"], versions={"calibration": "on ten texts", "torch": "0"})
    bound = tiny(recipe).recipe
    assert bound.versions["calibration"] == "on ten texts"
    assert bound.versions["torch"] == torch.__version__


def test_save_and_load_a_model_from_memory(tmp_path, capfd):
    """A model that lives in memory is saved with its weights, and loads to the same vectors.

    In silence: transformers draws a bar for the files that it writes, into pipes too.
    """
    embedder = Embedder.from_model(causal_model("gpt2"), family_tokenizer("gpt2"), "classical")
    saved = embedder.save(tmp_path / "saved")
    assert capfd.readouterr() == ("", "")
    assert (saved / "model" / "model.safetensors").exists()
    again = Embedder.load(saved)
    assert again.recipe.fingerprint == embedder.recipe.fingerprint
    assert np.abs(again.encode("text") - embedder.encode("text")).max() < 1e-6
    other = Embedder.load(saved, "echo")
    assert other.recipe.name == "echo"
    assert other.with_recipe(embedder.recipe).recipe.fingerprint == embedder.recipe.fingerprint
    with pytest.raises(RecipeError, match="made for"):
        tiny(embedder.recipe)


def test_float16_weights_are_computed_in_float32_on_cpu(folder, tmp_path):
    """The file's dtype is not the computing dtype: float32 on CPU unless asked otherwise."""
    import copy

    half = copy.deepcopy(causal_model("llama")).half()
    half.save_pretrained(folder)
    exact = Embedder.load(folder, device="cpu")
    assert exact.backbone.dtype == "float32"
    low = Embedder.load(folder, dtype=torch.bfloat16, device="cpu")
    assert low.backbone.dtype == "bfloat16"
    assert low.encode("text").dtype == np.float32
    assert low.recipe.fingerprint != exact.recipe.fingerprint
    again = Embedder.load(low.save(tmp_path / "low"), device="cpu")  # as it was saved
    assert (again.backbone.dtype, again.recipe) == ("bfloat16", low.recipe)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "absent", "no such model folder"),
        (lambda p: p / "absent.gguf", "no such file"),
        (lambda p: "./absent", "no such model folder"),
        (lambda p: "absent/", "no such model folder"),
        (lambda p: "absent\\model", "no such model folder"),
        (lambda p: "a/b/absent", "no such model folder"),
        (lambda p: "absent", r"cannot load the model 'absent': .*\w; ECHOVEC_OFFLINE"),
        (lambda p: p, "has no config.json"),
    ],
)
def test_a_model_that_is_not_there_is_a_clear_error(tmp_path, make, message):
    """Exit code 3, and the message says what was looked for."""
    with pytest.raises(ModelError, match=message) as caught:
        Embedder.load(make(tmp_path))
    assert caught.value.exit_code == 3


def test_pickled_weights_are_not_read(folder):
    """A folder with pytorch_model.bin only is refused, with the reason."""
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="only safetensors and GGUF are read"):
        Embedder.load(folder)


def test_code_of_a_model_is_never_run(folder, tmp_path):
    """A planted configuration that points at Python code loads nothing and runs nothing."""
    import json

    marker = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "evil"
    config["auto_map"] = {"AutoConfig": "evil.EvilConfig", "AutoModel": "evil.EvilModel"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError):
        Embedder.load(folder)
    assert not marker.exists()


def test_a_hub_name_offline_says_what_to_do(monkeypatch):
    """Offline, a model of the hub that is not cached is exit code 3 with the next step."""
    monkeypatch.setenv("ECHOVEC_OFFLINE", "1")
    with pytest.raises(ModelError, match="ECHOVEC_OFFLINE or HF_HUB_OFFLINE is set"):
        Embedder.load("nobody/no-such-model")


def test_encoder_decoders_are_refused():
    """A model that is not a causal language model is named."""
    import transformers

    config = transformers.T5Config(
        vocab_size=300, d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8
    )
    model = transformers.T5ForConditionalGeneration(config)
    with pytest.raises(ModelError, match="encoder-decoder"):
        Embedder.from_model(model, family_tokenizer("llama"))


def test_devices_and_dtypes_are_checked():
    """Unknown or absent devices, dtypes and precisions are refused with what there is."""
    assert pick_device("cpu") == "cpu"
    with pytest.raises(InputError, match="is no device"):
        pick_device("toaster")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="sees no CUDA"):
            pick_device("cuda")
    assert pick_dtype(None, None, "cpu") == "float32"
    assert pick_dtype(None, "exact", "cpu") == "float32"
    assert pick_dtype(torch.float16, None, "cpu") == "float16"
    with pytest.raises(InputError, match="say the same thing twice"):
        pick_dtype("float32", "exact", "cpu")
    with pytest.raises(InputError, match="there are float32"):
        pick_dtype("int7", None, "cpu")
    with pytest.raises(InputError, match="there are exact, fast, int8"):
        pick_dtype(None, "quick", "cpu")


def test_fast_is_bfloat16_only_where_the_cpu_multiplies_it(monkeypatch):
    """Without native bfloat16, fast falls back to float32 and says so."""
    from echovec.model import precision

    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda device: True)
    assert pick_dtype(None, "fast", "cpu") == "bfloat16"
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda device: False)
    with pytest.warns(PrecisionWarning, match="no native bfloat16"):
        assert pick_dtype(None, "fast", "cpu") == "float32"


@pytest.mark.parametrize(
    ("cuda", "mps", "device"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_the_device_and_its_dtype_are_chosen_by_what_is_there(cuda, mps, device, monkeypatch):
    """First CUDA, then MPS; bfloat16 there if it multiplies it, as cards of capability 8 do."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device(None) == device
    for capability, dtype in (((8, 0), "bfloat16"), ((7, 5), "float32")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, found=capability: found)
        assert pick_dtype(None, None, "cuda:1") == dtype
    assert pick_dtype(None, None, "mps") == "bfloat16"
    assert pick_dtype(None, None, "cpu") == pick_dtype(None, "exact", "cuda") == "float32"


def test_nothing_is_printed_without_a_terminal(capfd):
    """No progress bar and no advice reaches a pipe."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny().encode(list(sentences()))
    out, err = capfd.readouterr()
    assert out == ""
    assert err == ""
    tiny().encode(["a"], show_progress_bar=True)
    assert "texts" in capfd.readouterr().err
