"""The packed backbone against the plain one: same vectors, less work."""

from __future__ import annotations

import copy
import logging
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import families
from echovec import Embedder
from echovec.errors import InputError, ModelError
from echovec.model.attend import attend, hidden
from echovec.model.backbone import Backbone
from echovec.model.families import why_not
from echovec.model.layout import lay_out, rounded_rows
from echovec.model.load import load_model
from echovec.model.packed import PackedBackbone
from echovec.model.plain import PlainBackbone
from echovec.model.tiles import _hidden
from echovec.presets import preset
from echovec.text.batch import Batch
from echovec.text.tokenizer import HFTokenizer

PACKED_FAMILIES = (
    *("llama", "mistral", "ministral", "ministral3", "qwen2", "qwen3"),
    *("gemma", "gemma2", "gemma3", "granite", "phi3", "seed_oss", "olmo2", "olmo3", "exaone4"),
)
OTHER_FAMILIES = tuple(sorted(set(families.FAMILIES) - set(PACKED_FAMILIES)))
LENGTHS = ([1], [5] * 9, [200, 31, 30, 7, 7, 6, 5, 5, 3, 1], [3, 90, 1, 4, 90, 17])


def made_batch(
    lengths: list[int], *, prefix: int = 6, between: int = 4, tail: int = 3, seed: int = 0
) -> Batch:
    """Echo prompts of random ids; two spans: the second copy, and the last token of all."""
    source = np.random.default_rng(seed)
    begin, middle, end = (source.integers(1, families.VOCAB, n) for n in (prefix, between, tail))
    ids, offsets, spans = [], [0], []
    for length in lengths:
        text = source.integers(1, families.VOCAB, length)
        ids.append(np.concatenate([begin, text, middle, text, end]))
        first = offsets[-1] + prefix + length + between
        offsets.append(offsets[-1] + len(ids[-1]))
        spans.append([[first, first + length], [offsets[-1] - 1, offsets[-1]]])
    return Batch(
        ids_T=np.concatenate(ids),
        offsets_S1=np.array(offsets),
        spans_SK2=np.array(spans),
        prefix=prefix,
        order_S=np.arange(len(lengths)),
        share_S=np.ones(len(lengths)),
        truncated_S=np.zeros(len(lengths), dtype=np.bool_),
    )


def every_layer(model: Any, batch: Batch) -> list[torch.Tensor]:
    """The naive twin: each sequence alone through the whole model; the states of all its layers."""
    states = []
    for start, stop in zip(batch.offsets_S1[:-1], batch.offsets_S1[1:], strict=True):
        ids = torch.from_numpy(batch.ids_T[start:stop])[None]
        with torch.no_grad():
            output = model(input_ids=ids, use_cache=False, output_hidden_states=True)
        states.append([*output.hidden_states[:-1], output.last_hidden_state])
    return [torch.cat([h[0] for h in of_layer]) for of_layer in zip(*states, strict=True)]


def one_by_one(model: Any, batch: Batch, layer: int) -> torch.Tensor:
    """One layer of the naive twin."""
    return every_layer(model, batch)[layer]


def packed(family: str, *, prepack: bool) -> PackedBackbone:
    """A packed backbone of a tiny model, which it may use up."""
    return PackedBackbone(copy.deepcopy(families.causal_model(family)), prepack=prepack)


def furthest(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference, relative to the largest number."""
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("prepack", [True, False], ids=["prepacked", "shared"])
@pytest.mark.parametrize("family", PACKED_FAMILIES)
def test_states_equal_each_sequence_alone(family: str, prepack: bool) -> None:
    """Every layer, all rows or pooled rows, any mix of lengths: as if computed one by one."""
    model = families.causal_model(family).base_model
    backbone = packed(family, prepack=prepack)
    for lengths in LENGTHS:
        batch = made_batch(lengths)
        rows = batch.pooled[0]
        twin = every_layer(model, batch)
        with torch.inference_mode():
            for layers in ([0, 1, 2], [-1], [1], [0]):
                every = backbone.forward(batch, layers)
                pooled = backbone.forward(batch, layers, pooled_only=True)
                for layer, all_rows, some_rows in zip(layers, every, pooled, strict=True):
                    want = twin[layer]
                    assert furthest(all_rows, want) < 3e-5
                    assert furthest(some_rows, want[rows]) < 3e-5


@pytest.mark.parametrize("prefix", [0, 1, 6])
def test_any_prefix_length_gives_the_same_states(prefix: int) -> None:
    """Sharing the prompt's beginning changes nothing, however much of it is declared shared."""
    batch = made_batch([9, 4, 4], prefix=6)
    batch = replace(batch, prefix=prefix)
    want = one_by_one(families.causal_model("llama").base_model, batch, -1)
    with torch.inference_mode():
        (got,) = packed("llama", prepack=True).forward(batch)
    assert furthest(got, want) < 3e-5


def test_a_pooled_prefix_is_computed() -> None:
    """A span that begins inside the shared beginning still gets its states."""
    batch = made_batch([9, 4])
    spans = batch.spans_SK2.copy()
    spans[:, 0, 0] = batch.offsets_S1[:-1] + 2
    batch = replace(batch, spans_SK2=spans)
    want = one_by_one(families.causal_model("llama").base_model, batch, -1)
    with torch.inference_mode():
        (got,) = packed("llama", prepack=True).forward(batch, pooled_only=True)
    assert furthest(got, want[batch.pooled[0]]) < 3e-5


def test_negative_control_a_wrong_prefix_is_seen() -> None:
    """The comparison can fail: declaring tokens shared that are not moves the states far."""
    batch = made_batch([9, 4, 5])
    wrong = replace(batch, prefix=8)
    want = one_by_one(families.causal_model("llama").base_model, batch, -1)
    with torch.inference_mode():
        (got,) = packed("llama", prepack=True).forward(wrong)
    assert furthest(got, want) > 1e-2


ATTENTION = {torch.float32: {"atol": 2e-6, "rtol": 1e-5}, torch.bfloat16: {"atol": 2e-2, "rtol": 0}}


@pytest.mark.parametrize("grad", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("window", [None, 1, 5, 64, 1000])
@pytest.mark.parametrize("dtype", ATTENTION, ids=str)
@pytest.mark.parametrize(
    ("count", "queries", "keys"),
    [(3, 1, 1), (3, 1, 9), (3, 7, 7), (1, 64, 70), (3, 64, 70), (1, 65, 70), (3, 140, 160)],
)
def test_attention_equals_its_definition(
    count: int, queries: int, keys: int, dtype: torch.dtype, window: int | None, grad: bool
) -> None:
    """Few queries or blocks of them, grouped heads and windows: softmax of all scores, hidden."""
    source = torch.Generator().manual_seed(1)
    q = torch.randn(count, queries, 6, 8, generator=source).to(dtype)
    k, v = (torch.randn(count, keys, 2, 8, generator=source).to(dtype) for _ in range(2))
    back = torch.arange(queries)[:, None] + (keys - queries) - torch.arange(keys)
    hidden = (back < 0) | (back >= (window or keys))
    k_BMHD, v_BMHD = (x.repeat_interleave(3, dim=2).double() for x in (k, v))
    scores_BHLM = 0.3 * torch.einsum("blhd,bmhd->bhlm", q.double(), k_BMHD)
    weights_BHLM = scores_BHLM.masked_fill(hidden, float("-inf")).softmax(-1)
    want = torch.einsum("bhlm,bmhd->blhd", weights_BHLM, v_BMHD).flatten(2)
    with torch.inference_mode(not grad):
        got = attend(q, k, v, scale=0.3, window=window)
    torch.testing.assert_close(got.double(), want, **ATTENTION[dtype])


def test_masks_that_are_kept_are_small() -> None:
    """Masks of long prompts are made again each time, the same: memory does not grow with them."""
    cpu = torch.device("cpu")
    for of in (
        lambda keys: hidden(60, keys, 9, torch.float32, cpu),
        lambda keys: _hidden(20, 3, keys, 9, torch.float32),
    ):
        assert of(90) is of(90)
        assert of(4000) is not of(4000)
        assert torch.equal(of(4000)[:, -90:], of(90))
        assert (of(4000)[:, :-90] == float("-inf")).all()


@pytest.mark.parametrize("family", ["mistral", "phi3"])
def test_a_sliding_window_is_kept(family: str) -> None:
    """With a window shorter than the text the states are the plain backbone's, and others."""
    import transformers

    name, arguments, _ = families.FAMILIES[family]
    config = getattr(transformers, name)(**(arguments | {"sliding_window": 16}))
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    model.load_state_dict(families.causal_model(family).state_dict())
    batch = made_batch([40, 12, 60])
    with torch.inference_mode():
        (want,) = PlainBackbone(copy.deepcopy(model)).forward(batch)
        (got,) = PackedBackbone(model, prepack=True).forward(batch)
        (without,) = packed(family, prepack=True).forward(batch)
    assert furthest(got, want) < 3e-5
    assert furthest(without, want) > 1e-2


@pytest.mark.parametrize("family", PACKED_FAMILIES)
def test_the_hash_is_the_plain_one(family: str) -> None:
    """Both engines name the same model by the same hash, prepacked or not."""
    want = PlainBackbone(families.causal_model(family)).weights_hash()
    assert packed(family, prepack=True).weights_hash() == want
    assert packed(family, prepack=False).weights_hash() == want


@pytest.mark.parametrize("prepack", [True, False], ids=["prepacked", "shared"])
@pytest.mark.parametrize("family", PACKED_FAMILIES)
def test_float32_retry_from_bfloat16(family: str, prepack: bool) -> None:
    """The second try of a bfloat16 model computes its weights in float32, nothing in 16 bits."""
    model = copy.deepcopy(families.causal_model(family)).to(torch.bfloat16)
    batch = made_batch([9, 4])
    want = one_by_one(copy.deepcopy(model).float().base_model, batch, -1)
    with torch.inference_mode():
        backbone = PackedBackbone(model, prepack=prepack)
        (got,) = backbone.forward(batch, float32=True)
        (rough,) = backbone.forward(batch)
    assert got.dtype == torch.float32
    assert furthest(got, want) < 3e-5
    assert 1e-4 < furthest(rough.float(), want) < 0.2


def test_the_prefix_runs_once() -> None:
    """The second batch of a recipe computes no token of the shared beginning."""
    backbone = packed("llama", prepack=True)
    rows: list[int] = []
    inner = backbone._embed
    backbone._embed = lambda ids, wide: rows.append(len(ids)) or inner(ids, wide=wide)  # type: ignore
    with torch.inference_mode():
        backbone.forward(made_batch([5, 4]))
        backbone.forward(made_batch([7]))
    assert rows == [6, (5 + 4) * 2 + 2 * 7, rounded_rows(7 * 2 + 7)]


class Counted:
    """A linear map or gate that notes how many rows it is given."""

    def __init__(self, inner: Any, rows: list[int]) -> None:
        self.inner, self.rows = inner, rows

    def __call__(self, x: torch.Tensor, *rest: Any) -> torch.Tensor:
        self.rows.append(len(x))
        result: torch.Tensor = self.inner(x, *rest)
        return result

    def plus(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(x))
        result: torch.Tensor = self.inner.plus(x, other)
        return result


@pytest.mark.parametrize(
    ("layer", "pooled_only", "wanted"),
    [
        (-1, True, ["NNNN", "NQQQ"]),
        (1, True, ["NQQQ", ""]),
        (0, True, ["", ""]),
        (-1, False, ["NNNN", "NNNN"]),
        (1, False, ["NNNN", ""]),
    ],
)
def test_what_nobody_reads_is_not_computed(
    layer: int, pooled_only: bool, wanted: list[str]
) -> None:
    """Blocks above the layer do not run; in its own only keys and values are for all rows."""
    backbone = packed("llama", prepack=True)
    layout = lay_out(batch := made_batch([30, 9, 4]), round_up=backbone._row_counts)
    names = {len(layout.ids_N): "N", len(layout.hull_rows_Q): "Q"}
    assert len(names) == 2
    with torch.inference_mode():
        backbone.forward(batch, [layer], pooled_only=pooled_only)  # the prompt's beginning too
        rows: list[list[int]] = []
        for place, block in enumerate(backbone._blocks):
            rows.append([])
            parts = {name: getattr(block, name) for name in ("qkv", "out", "gate", "down")}
            counted: Any = {name: Counted(part, rows[-1]) for name, part in parts.items()}
            backbone._blocks[place] = replace(block, **counted)
        backbone.forward(batch, [layer], pooled_only=pooled_only)
    assert ["".join(names[n] for n in of_block) for of_block in rows] == wanted


def test_beginnings_that_are_kept_are_few() -> None:
    """A server's instructions are each a prompt: the oldest go, and come back the same."""
    backbone = packed("llama", prepack=True)
    batches = [made_batch([5, 3], seed=seed) for seed in range(12)]
    with torch.inference_mode():
        first = [backbone.forward(batch)[0] for batch in batches]
        assert len(backbone._prefixes) == 8
        for batch, want in zip(batches, first, strict=True):
            assert torch.equal(backbone.forward(batch)[0], want)
        backbone.forget()
    assert not backbone._prefixes


def test_no_padding_outside_attention() -> None:
    """The flat rows are the batch's tokens without the prefix, each once."""
    batch = made_batch([200, 31, 30, 7, 7, 6, 5])
    layout = lay_out(batch)
    assert len(layout.ids_N) == len(batch.ids_T) - len(batch) * batch.prefix
    rows = layout.flat_rows_T[layout.flat_rows_T >= 0]
    assert sorted(rows) == list(range(len(layout.ids_N)))
    assert sum(group.stop - group.start for group in layout.groups) == len(layout.ids_N)


@pytest.mark.parametrize("family", PACKED_FAMILIES)
def test_gradients_equal_the_plain_ones(family: str) -> None:
    """Training through the packed path moves every weight as the plain path would."""
    models = [copy.deepcopy(families.causal_model(family)) for _ in range(2)]
    batch = made_batch([9, 4, 4, 30])
    backbones: list[Backbone] = [
        PlainBackbone(models[0]),
        PackedBackbone(models[1], prepack=False),
    ]
    for model, backbone in zip(models, backbones, strict=True):
        (h_PD,) = backbone.forward(batch, pooled_only=True)
        weights = torch.linspace(0, 1, h_PD.numel()).view_as(h_PD)
        model.zero_grad()
        (h_PD * weights).sum().backward()  # type: ignore[no-untyped-call]
    plain_weights = dict(models[0].base_model.named_parameters())
    for name, parameter in models[1].base_model.named_parameters():
        want = plain_weights[name].grad
        assert want is not None
        assert parameter.grad is not None, name
        assert furthest(parameter.grad, want) < 1e-4, name


def test_shared_weights_follow_the_model() -> None:
    """Without prepacking a changed weight changes the vectors at the next call; nothing is kept."""
    model = copy.deepcopy(families.causal_model("llama"))
    backbone = PackedBackbone(model, prepack=False)
    batch = made_batch([5])
    with torch.no_grad():
        (before,) = backbone.forward(batch)
        model.base_model.layers[0].self_attn.k_proj.weight.mul_(2)
        (after,) = backbone.forward(batch)
    assert furthest(after, before) > 1e-3
    assert furthest(after, one_by_one(model.base_model, batch, -1)) < 3e-5


def test_from_model_shares_storage_and_still_generates(caplog: pytest.LogCaptureFixture) -> None:
    """An embedder on the packed engine leaves the model able to generate, byte for byte."""
    model = copy.deepcopy(families.causal_model("llama"))
    tokenizer = families.family_tokenizer("llama")
    texts = list(families.sentences()[::20])
    ids = torch.arange(1, 9)[None]
    with torch.no_grad():
        logits = model(ids).logits
        fast = Embedder.from_model(model, tokenizer, engine="packed").encode(texts)
        assert torch.equal(model(ids).logits, logits)
    plain = Embedder.from_model(model, tokenizer).encode(texts)
    np.testing.assert_allclose(fast, plain, atol=1e-5)


@pytest.mark.parametrize("family", OTHER_FAMILIES)
def test_other_families_are_refused_with_a_reason(family: str) -> None:
    """What the packed engine does not know it says, and names the way out."""
    model = families.causal_model(family)
    reason = why_not(model.base_model)
    assert reason is not None
    with pytest.raises(ModelError, match="use the plain one"):
        PackedBackbone(model, prepack=False)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_act": "relu"}, "activation"),
        ({"use_bidirectional_attention": True}, "looks both ways"),
        (
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            "dynamic",
        ),
    ],
)
def test_unusual_settings_are_refused(change: dict[str, Any], said: str) -> None:
    """A known family with an unknown setting runs on the plain engine."""
    model = copy.deepcopy(families.causal_model("llama")).base_model
    for name, value in change.items():
        setattr(model.config, name, value)
    assert said in str(why_not(model))


_FULL, _NEAR = "full_attention", "sliding_attention"
_LINEAR = {"rope_type": "linear", "rope_theta": 50.0, "factor": 3.0}
_STRAY = {
    "attn_logit_softcapping": 0.5,
    "final_logit_softcapping": 0.5,
    "hidden_activation": "relu",
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.5,
    "attention_multiplier": 0.1,
    "query_pre_attn_scalar": 3,
    "use_rope": False,
    "no_rope_layers": [0, 0],
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 50.0,
        "factor": 4.0,
        "llama_4_scaling_beta": 0.5,
        "original_max_position_embeddings": 16,
    },
}
"""Keys that mean nothing to most classes, which keep them all the same."""


@pytest.mark.parametrize(
    ("family", "change", "refused"),
    [
        *((family, _STRAY, False) for family in ("llama", "mistral", "qwen3", "gemma", "olmo2")),
        ("gemma3", {"attn_logit_softcapping": 0.5, "hidden_act": "relu"}, False),
        ("gemma3", {"rope_parameters": _LINEAR}, False),
        ("olmo3", {"rope_parameters": {**_LINEAR, _FULL: _LINEAR}}, False),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}, False),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 0}, False),
        ("gemma2", {"layer_types": [_FULL, _NEAR], "attention_bias": True}, False),
        ("granite", {"attention_multiplier": 1.0, "mlp_bias": True, "head_dim": 12}, False),
        ("exaone4", {"layer_types": [_FULL] * 2}, False),
        ("smollm3", {"no_rope_layers": [1, 0], "attention_bias": True}, False),
        ("smollm3", {"sliding_window": 5, "layer_types": [_NEAR, _FULL]}, True),
        ("mistral", {"sliding_window": 0}, True),
    ],
)  # fmt: skip
def test_a_setting_is_followed_or_refused(
    family: str, change: dict[str, Any], refused: bool
) -> None:
    """Whatever keys a configuration has, states are what transformers makes of them."""
    import transformers

    name, arguments = "SmolLM3Config", families._GROUPED
    if family != "smollm3":
        name, arguments, _ = families.FAMILIES[family]
    config = getattr(transformers, name)(**copy.deepcopy(arguments | change))
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = transformers.AutoModel.from_config(config).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    assert (why_not(model) is not None) is refused
    if not refused:
        batch = made_batch([20, 3])
        want = every_layer(model, batch)
        with torch.inference_mode():
            found = PackedBackbone(model, prepack=False).forward(batch, [1, 2])
        assert max(map(furthest, found, want[1:])) < 3e-5


def test_loading_chooses_and_says_so_once(
    tmp_path: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself it packs what it can; else it says once that the plain engine runs."""
    from echovec.model import load

    monkeypatch.setattr(load, "_said", set())
    for family in ("llama", "gpt2"):
        families.causal_model(family).save_pretrained(tmp_path / family)
        families.family_tokenizer(family).save_pretrained(tmp_path / family)

    def kind(family: str, engine: Any = "auto") -> type:
        found, _, _ = load_model(tmp_path / family, device="cpu", dtype="float32", engine=engine)
        return type(found)

    with caplog.at_level(logging.WARNING, logger="echovec"):
        assert kind("llama") is PackedBackbone
        assert not caplog.records
        assert kind("gpt2") is kind("gpt2") is PlainBackbone
    assert [record.getMessage().count("GPT2Model") for record in caplog.records] == [1]
    assert kind("llama", "plain") is PlainBackbone
    with pytest.raises(ModelError, match="GPT2Model"):
        kind("gpt2", "packed")
    with pytest.raises(InputError, match="engine"):
        kind("llama", "turbo")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_hash_that_will_be_asked_for_is_taken_before_weights_are_repacked(
    tmp_path: Any, dtype: str
) -> None:
    """It is the hash that the repacked weights give, of this model and of no other one."""
    families.causal_model("llama").save_pretrained(tmp_path / "a")
    families.causal_model("qwen2").save_pretrained(tmp_path / "b")
    hashes = []
    for name, family in (("a", "llama"), ("b", "qwen2")):
        families.family_tokenizer(family).save_pretrained(tmp_path / name)
        for hashed in (True, False):
            found, _, _ = load_model(tmp_path / name, device="cpu", dtype=dtype, hashed=hashed)
            assert (found._known_hash is not None) == hashed
            hashes.append(found.weights_hash())
    assert hashes[0] == hashes[1] != hashes[2] == hashes[3]


def test_parts_fall_back_to_a_plain_backbone(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A recipe with a part that only the plain engine can do still runs, and says what it costs."""
    families.causal_model("llama").save_pretrained(tmp_path)
    families.family_tokenizer("llama").save_pretrained(tmp_path)
    found, _, _ = load_model(tmp_path, device="cpu", dtype="float32")
    assert isinstance(found, PackedBackbone)
    with caplog.at_level(logging.WARNING, logger="echovec"):
        plain = found.plain
        assert plain is not None
        assert plain is found.plain
    assert len(caplog.records) == 1
    batch = made_batch([5, 9])
    with torch.inference_mode():
        (want,) = plain.forward(batch)
        (got,) = found.forward(batch)
    assert furthest(got, want) < 3e-5


def test_many_workers_give_the_same_vectors(tmp_path: Any) -> None:
    """Chunks that run at once, in threads, give what they give one after the other."""
    families.causal_model("llama").save_pretrained(tmp_path)
    families.family_tokenizer("llama").save_pretrained(tmp_path)
    model = Embedder.load(tmp_path, engine="packed")
    texts = list(families.sentences())
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = model.encode(texts, batch_tokens=300)
        torch.set_num_threads(3)
        together = Embedder.load(tmp_path, engine="packed").encode(texts, batch_tokens=300)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize(
    ("texts", "words", "cores", "each"),
    [
        (1, 2, 6, [6]),
        (2, 2, 6, [3, 3]),
        (4, 2, 6, [1] * 4),
        (6, 2, 6, [1] * 6),
        (9, 2, 6, [1] * 6),
        (5, 250, 2, [1, 1, 1, 1, 2]),
        (6, 250, 4, [1, 1, 1, 1, 2, 2]),
        (7, 250, 4, [1] * 7),
        (9, 250, 2, [1] * 9),
    ],
    ids=str,
)
def test_few_texts_have_all_cores_together(
    texts: int, words: int, cores: int, each: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts that run at once share the cores, so that two are no slower than one.

    So do the last ones of a few that are long, where each other core has had its own.
    """
    model, tokenizer = families.causal_model("llama"), families.family_tokenizer("llama")
    model = copy.deepcopy(model)
    backbone = PackedBackbone(model, prepack=True)
    found: list[int] = []
    forward = backbone.forward

    def noted(*args: Any, **options: Any) -> list[torch.Tensor]:
        found.append(torch.get_num_threads())
        return forward(*args, **options)

    monkeypatch.setattr(backbone, "forward", noted)
    threads = torch.get_num_threads()
    torch.set_num_threads(cores)
    try:
        recipe = replace(preset("echo"), max_tokens=900)
        embedder = Embedder(recipe, HFTokenizer(tokenizer), backbone)
        embedder.encode([f"{n} " * words for n in range(texts)], batch_tokens=700)
        assert torch.get_num_threads() == cores
    finally:
        torch.set_num_threads(threads)
    assert found == each


@pytest.mark.parametrize("step", [1, 8, 32])
def test_rows_behind_the_longest_sequence_are_seen_by_nobody(step: int) -> None:
    """The batch's tokens keep one row each; what is more repeats the longest sequence's last."""
    batch = made_batch([9, 4, 4, 30, 30, 7])
    plain = lay_out(batch)
    layout = lay_out(batch, round_up=lambda rows: -(-rows // step) * step)
    assert len(layout.ids_N) % step == len(layout.hull_rows_Q) % step == 0
    assert len(layout.ids_N) - len(plain.ids_N) < step
    rows_T = layout.flat_rows_T[layout.flat_rows_T >= 0]
    assert len(set(rows_T)) == len(rows_T) == len(plain.ids_N)
    own_T = np.flatnonzero(layout.flat_rows_T >= 0)
    assert np.array_equal(layout.ids_N[rows_T], batch.ids_T[own_T])
    assert np.array_equal(layout.positions_N[rows_T], batch.positions_T[own_T])
    more = np.setdiff1d(np.arange(len(layout.ids_N)), rows_T)
    longest = layout.rows_S2[0]
    assert all(longest[1] - len(more) <= row < longest[1] for row in more)
    assert np.array_equal(
        layout.hull_rows_Q[layout.pooled_in_hull_P], rows_T[np.searchsorted(own_T, batch.pooled[0])]
    )


def test_sizes_are_few() -> None:
    """A thousand sizes become five dozen, and none grows by much."""
    assert len({rounded_rows(n) for n in range(1, 1001)}) < 60
    assert all(n <= rounded_rows(n) < n + (8 if n <= 256 else 32) for n in range(1, 5000))


def adapted_later(model: Any, config: Any) -> Any:
    """The model with an adapter of PEFT put into it, whose numbers matter."""
    peft = pytest.importorskip("peft")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's, about transformers
        adapted = peft.get_peft_model(model, config(peft)).eval()
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn(parameter.shape, generator=source)
    return adapted


def test_adapters_that_come_and_go_are_followed() -> None:
    """A shared model that is adapted after its embedder was made is embedded with as it is."""
    model = copy.deepcopy(families.causal_model("llama"))
    backbone, batch = PackedBackbone(model, prepack=False), made_batch([9, 4])

    def states() -> list[torch.Tensor]:
        with torch.inference_mode():
            return backbone.forward(batch)

    (before,) = states()
    targets = ["q_proj", "v_proj", "down_proj"]
    adapted = adapted_later(
        model,
        lambda peft: peft.LoraConfig(r=4, target_modules=targets, modules_to_save=["norm"]),
    )
    (got,) = states()
    assert furthest(got, one_by_one(model.base_model, batch, -1)) < 3e-5
    assert furthest(got, before) > 1e-2
    adapted.unload()
    (after,) = states()
    assert furthest(after, one_by_one(model.base_model, batch, -1)) < 3e-5
    assert furthest(after, got) > 1e-2


@pytest.mark.parametrize(
    "config",
    [
        lambda peft: peft.IA3Config(
            target_modules=["k_proj", "down_proj"],
            feedforward_modules=["down_proj"],
            init_ia3_weights=False,
        ),
        lambda peft: peft.LoHaConfig(r=4, target_modules=["q_proj", "up_proj"], init_weights=False),
        lambda peft: peft.VeraConfig(r=4, target_modules=["q_proj"]),
        lambda peft: peft.LoraConfig(r=4, target_modules=["q_proj"], use_dora=True),
    ],
    ids=["ia3", "loha", "vera", "dora"],
)
def test_adapters_of_other_kinds_run_as_peft_has_them(config: Any) -> None:
    """What is no plain LoRA is called module by module, and gives the plain engine's states."""
    model = copy.deepcopy(families.causal_model("llama"))
    adapted = adapted_later(model, config)
    batch = made_batch([9, 4])
    with torch.inference_mode():
        (want,) = PlainBackbone(adapted).forward(batch)
        (got,) = PackedBackbone(adapted, prepack=False).forward(batch)
    assert furthest(got, want) < 3e-5
    assert furthest(got, one_by_one(families.causal_model("llama").base_model, batch, -1)) > 1e-3


@pytest.mark.parametrize(
    "config",
    [
        lambda peft: peft.LNTuningConfig(target_modules=["input_layernorm"]),
        lambda peft: peft.LoraConfig(target_modules=["q_proj"], modules_to_save=["mlp"]),
    ],
    ids=["norms", "whole"],
)
def test_adapters_around_what_is_not_called_are_refused(config: Any) -> None:
    """Before an embedder is made and after; a model that is to be repacked may have none."""
    model = copy.deepcopy(families.causal_model("llama"))
    backbone = PackedBackbone(model, prepack=False)
    adapted = adapted_later(model, config)
    with pytest.raises(ModelError, match="adapter of PEFT stands for whole blocks or norms"):
        backbone.forward(made_batch([4]))
    for prepack, said in ((False, "adapter of PEFT stands for"), (True, "PEFT is in it")):
        with pytest.raises(ModelError, match=said):
            PackedBackbone(adapted, prepack=prepack)


def test_a_shared_model_may_be_cast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that is for 16 bits alone is not asked once the model computes in float32."""
    from echovec.model import packed as module

    monkeypatch.setattr(module, "can_attend", lambda _, dtype, __: dtype == torch.bfloat16)
    model = copy.deepcopy(families.causal_model("llama")).bfloat16()
    backbone = PackedBackbone(model, prepack=False)
    assert backbone._ragged
    batch = made_batch([9, 4])
    model.float()
    with torch.inference_mode():
        (got,) = backbone.forward(batch)
    assert furthest(got, one_by_one(model.base_model, batch, -1)) < 3e-5


def check_second_try(adapted: Any) -> None:
    """In float32 both engines give the adapted model's states, which are not the base model's."""
    batch = made_batch([9, 4])
    with torch.inference_mode():
        (want,) = PlainBackbone(adapted).forward(batch, float32=True)
        (got,) = PackedBackbone(adapted, prepack=False).forward(batch, float32=True)
        with adapted.disable_adapter():
            (without,) = PlainBackbone(adapted).forward(batch, float32=True)
    assert furthest(got, want) < 3e-5
    assert furthest(without, want) > 1e-2


def test_the_second_try_keeps_adapters() -> None:
    """In float32 a model with LoRA is that model, not the one below its adapters."""
    peft = pytest.importorskip("peft")
    model = copy.deepcopy(families.causal_model("llama")).bfloat16()
    targets = ["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT's, about transformers
        adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=targets)).eval()
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=source))
    check_second_try(adapted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_repacked_weights_keep_no_gradient(dtype: torch.dtype) -> None:
    """A gradient that the products would leave out is refused, not wrong; states are the same."""
    model = copy.deepcopy(families.causal_model("llama")).to(dtype)
    backbone, batch = PackedBackbone(model, prepack=True), made_batch([9, 4])
    (states,) = backbone.forward(batch)
    assert not states.requires_grad
    with torch.inference_mode():
        (want,) = backbone.forward(batch)
    torch.testing.assert_close(states, want)


def test_a_shared_model_may_be_moved() -> None:
    """Tables of positions follow a model to another device."""
    model = copy.deepcopy(families.causal_model("llama"))
    backbone, batch = PackedBackbone(model, prepack=False), made_batch([9, 4])
    with torch.inference_mode():
        backbone.forward(batch)
        cos, _ = backbone._table(4, torch.float32)
        model.to("meta")
        moved, _ = backbone._table(4, torch.float32)
    assert cos.device.type == "cpu"
    assert moved.device.type == "meta"


@pytest.mark.parametrize("family", ["llama", "gemma3"])
@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["embed_tokens"]},
        {"trainable_token_indices": {"embed_tokens": [*range(60)]}},
    ],
    ids=["low rank", "rows"],
)
def test_the_second_try_keeps_what_was_trained_of_embeddings(
    family: str, options: dict[str, Any]
) -> None:
    """In float32 token embeddings have their adapter, whatever the family scales them with."""
    peft = pytest.importorskip("peft")
    model = copy.deepcopy(families.causal_model(family)).bfloat16()
    options = {"target_modules": ["q_proj"]} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's, about transformers and tied weights
        adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, **options)).eval()
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn(parameter.shape, generator=source)
    check_second_try(adapted)
