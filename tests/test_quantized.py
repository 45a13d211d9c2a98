"""8 bits: products near those of float32, vectors near the exact ones, and what cannot be had."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import families
from echovec import Embedder
from echovec.errors import InputError, ModelError, PrecisionWarning
from echovec.model import loops, quantized
from echovec.model.linear import Stock
from echovec.model.packed import PackedBackbone
from echovec.model.precision import pick_dtype
from echovec.model.quantized import Quantized, QuantizedGate, largest_inputs, why_not_int8
from test_packed import OTHER_FAMILIES

here = pytest.mark.skipif(why_not_int8() is not None, reason=str(why_not_int8()))
NEAR = 0.02
"""Relative error of a product of random numbers."""


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Random numbers that bfloat16 holds, one input thirty times as large as the others."""
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=source)
    x[:, 7] *= 30
    return x.bfloat16().float()


def off(got: Tensor, want: Tensor) -> float:
    """How far, relative to all of it."""
    return float((got.double() - want.double()).norm() / want.double().norm())


@here
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rows", [1, 7, 50])
def test_products_are_near_the_exact_ones(rows: int, dtype: torch.dtype) -> None:
    """Alone, summed, gated and through an activation; the weights come back as near."""
    weight, x, other = drawn(96, 128) / 30, drawn(rows, 128, seed=1), drawn(rows, 96, seed=2)
    with torch.inference_mode():
        exact, fast = Stock(weight), Quantized(weight.to(dtype), x.abs().amax(0))
        x, other = x.to(dtype), other.to(dtype)
        wide, more = x.float(), other.float()
        assert off(fast(x), exact(wide)) < NEAR
        assert off(fast.plus(x, other), exact.plus(wide, more)) < NEAR
        assert off(fast.times(x, other), exact.times(wide, more)) < NEAR
        assert off(fast.activated(x, "gelu"), exact.activated(wide, "gelu")) < NEAR
        assert off(fast.weight(), weight) < NEAR
        assert fast(x).dtype == dtype


@here
def test_negative_control_without_spreading_outliers_cost_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The bound can be missed: one scale a row, and nothing done about the large input."""
    weight, x = drawn(96, 128), drawn(50, 128, seed=1)
    with torch.inference_mode():
        want = Stock(weight)(x)
        near = off(Quantized(weight, x.abs().amax(0))(x), want)
        step = x.abs().amax(1, keepdim=True) / 127
        steps = weight.abs().amax(1, keepdim=True) / 127
        plainly = (x / step).round() * step @ ((weight / steps).round() * steps).T
        small = x.clone()
        small[:, 7] = 0
        without = off(plainly - x[:, 7:8] * weight[:, 7], Stock(weight)(small))
    assert near < NEAR < without


@here
def test_gates_are_near_the_exact_ones() -> None:
    """One product twice as wide, its rows' scales applied before the activation."""
    both, x = drawn(2 * 64, 128) / 30, drawn(9, 128, seed=1)
    with torch.inference_mode():
        made = QuantizedGate(Quantized(both, x.abs().amax(0)))
        for name in ("silu", "gelu"):
            left, right = (x @ both.T).chunk(2, dim=1)
            want = getattr(nn.functional, name)(left) * right
            assert off(made(x, name), want) < NEAR


def test_a_tokens_massive_inputs_are_not_rounded() -> None:
    """Where one token's inputs are far larger than all others', the module stays as it was."""
    model = copy.deepcopy(families.causal_model("llama")).base_model
    rows = [[1, 5, 9, 13], [1, 4, 8]]
    found = largest_inputs(model, rows)
    names = {module: name for name, module in model.named_modules()}
    assert len(found) == 4 * len(model.layers)
    assert {names[module].rpartition(".")[2] for module in found} == {
        "q_proj",
        "gate_proj",
        "o_proj",
        "down_proj",
    }
    gate = model.layers[1].mlp.gate_proj
    hook = model.layers[1].mlp.register_forward_pre_hook(
        lambda module, inputs: (torch.cat([1000 * inputs[0][:, :1], inputs[0][:, 1:]], 1),)
    )
    assert gate in found
    again = largest_inputs(model, rows)
    hook.remove()
    assert gate not in again
    assert len(again) < len(found)


@here
def test_a_model_in_8_bits_is_near_the_exact_one(tmp_path: Path) -> None:
    """Every block's products are rounded; prefix, layers and float32 retry work as ever."""
    model = wide_llama()
    model.save_pretrained(tmp_path)
    families.family_tokenizer("llama").save_pretrained(tmp_path)
    texts = list(families.sentences()[:12])
    exact = Embedder.load(tmp_path, "echo", dtype="float32")
    fast = Embedder.load(tmp_path, "echo", dtype="int8")
    assert isinstance(fast.backbone, PackedBackbone)
    assert all(isinstance(b.down, Quantized) for b in fast.backbone._blocks)
    want, got = exact.encode(texts), fast.encode(texts)
    cosines = (want * got).sum(1)
    assert 0.998 < cosines.min() < 0.9999999
    assert fast.backbone.dtype == fast.recipe.dtype == "int8"
    assert fast.recipe.precision == "int8"
    assert fast.recipe.fingerprint != exact.recipe.fingerprint
    half = Embedder.load(tmp_path, "echo", dtype="bfloat16")  # how the rest of it is read
    assert fast.identity.hash in (half.identity.hash, exact.identity.hash)
    for text, one in zip(texts, got, strict=True):
        assert abs(fast.encode([text])[0] - one).max() < 2e-2
    fast.save(tmp_path / "saved")
    assert Embedder.load(tmp_path / "saved").backbone.dtype == "int8"


def wide_llama() -> Any:
    """A tiny Llama whose widths are multiples of 64."""
    return llama(hidden_size=128, intermediate_size=192, head_dim=32)


def odd_llama() -> Any:
    """A tiny Llama of which no width is a multiple of 64."""
    return llama(intermediate_size=80)


def llama(**sizes: int) -> Any:
    """A tiny Llama of these sizes."""
    import transformers

    name, arguments, _ = families.FAMILIES["llama"]
    config = getattr(transformers, name)(**(arguments | sizes))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return transformers.AutoModelForCausalLM.from_config(config).eval()


@here
def test_widths_that_cannot_be_spread_stay_as_they_were() -> None:
    """A module whose inputs are no multiple of 64, or that has a bias, is not rounded."""
    with_bias, odd, fine = nn.Linear(64, 8), nn.Linear(66, 8, bias=False), nn.Linear(64, 8, False)
    largest = {m: torch.ones(m.in_features) for m in (with_bias, odd, fine)}
    assert [quantized.quantizes([m], largest) for m in largest] == [False, False, True]
    assert not quantized.quantizes([nn.Linear(64, 8, bias=False)], largest)


@here
def test_a_model_of_which_nothing_is_rounded_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its dtype is what it computes in, and a log line gives the reason; others have none."""
    odd_llama().save_pretrained(tmp_path)
    families.family_tokenizer("llama").save_pretrained(tmp_path)
    with caplog.at_level("WARNING", logger="echovec"):
        narrow = Embedder.load(tmp_path, "echo", dtype="int8")
    assert narrow.backbone.dtype != "int8"
    assert "nothing of this model can be rounded to 8 bits" in caplog.text
    caplog.clear()
    wide_llama().save_pretrained(tmp_path)
    assert Embedder.load(tmp_path, "echo", dtype="int8").backbone.dtype == "int8"
    assert not caplog.text


def test_what_cannot_be_had_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other devices, processors without VNNI, no numba, the plain engine: each with a way out."""
    with pytest.raises(InputError, match=r"cuda is no CPU; or use precision='fast'"):
        pick_dtype("int8", None, "cuda")
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    with pytest.raises(InputError, match="no products of 8 bits"):
        pick_dtype("int8", None, "cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_vnni": True})
    monkeypatch.setattr(loops, "_compiled", lambda: None)
    with pytest.raises(InputError, match=r"pip install 'echovec\[fast\]'"):
        pick_dtype("int8", None, "cpu")
    with pytest.warns(PrecisionWarning, match="so 'int8' cannot be had: computing as with 'fast'"):
        assert pick_dtype(None, "int8", "cuda" if torch.cuda.is_available() else "mps") != "int8"


@here
def test_precision_says_it_too() -> None:
    """`precision="int8"` is the dtype where it can be had."""
    assert pick_dtype(None, "int8", "cpu") == "int8"


@here
def test_a_model_of_another_family_is_computed_as_with_fast(tmp_path: Path) -> None:
    """Asked for as a precision 8 bits may be missing, with a warning; as a dtype they may not."""
    name = OTHER_FAMILIES[0]
    families.causal_model(name).save_pretrained(tmp_path)
    families.family_tokenizer(name).save_pretrained(tmp_path)
    with pytest.warns(PrecisionWarning, match="the plain engine has no 8 bits"):
        other = Embedder.load(tmp_path, "echo", precision="int8")
    assert other.backbone.dtype == Embedder.load(tmp_path, "echo", precision="fast").backbone.dtype
    with pytest.warns(PrecisionWarning, match="the plain engine has no 8 bits"):
        Embedder.load(tmp_path, "echo", precision="int8", engine="plain")
    with pytest.raises(ModelError, match=r"cannot be had in 8 bits.*'fast'"):
        Embedder.load(tmp_path, "echo", dtype="int8")


@here
def test_the_plain_engine_has_no_8_bits(tmp_path: Path) -> None:
    """Asking for both is an error that says which to leave out."""
    with pytest.raises(InputError, match="leave out engine='plain'"):
        Embedder.load(tmp_path, dtype="int8", engine="plain")


@pytest.mark.skipif(not loops.ready(), reason="no numba here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("bad", [torch.nan, -torch.nan, torch.inf, -torch.inf])
def test_rows_that_are_not_finite_stay_so(bad: float, dtype: torch.dtype) -> None:
    """8 bits cannot say NaN: the row's scale does, and rows beside it are what they were."""
    x = drawn(5, 128).to(dtype)
    broken = x.clone()
    broken[2, 9] = bad
    whole, step = loops.quantize(x, torch.ones(128))
    again, spoilt = loops.quantize(broken, torch.ones(128))
    assert torch.isnan(spoilt[2])
    assert torch.isnan(loops.dequantize(again.to(dtype), spoilt)[2]).all()
    rest = [0, 1, 3, 4]
    assert torch.equal(again[rest], whole[rest])
    assert torch.equal(spoilt[rest], step[rest])


@pytest.mark.skipif(not loops.ready(), reason="no numba here")
def test_torchs_default_dtype_changes_no_room() -> None:
    """A loop gets as much memory as it writes while another thread reads a model in 16 bits."""
    x = drawn(3, 128)
    whole, step = loops.quantize(x, torch.ones(128))
    torch.set_default_dtype(torch.float64)  # a smaller one would be written beyond
    try:
        again, twice = loops.quantize(x, torch.ones(128, dtype=torch.float32))
        turned = loops.spread(torch.eye(64, dtype=torch.float32))
    finally:
        torch.set_default_dtype(torch.float32)
    assert twice.dtype == turned.dtype == torch.float32
    assert torch.equal(again, whole)
    assert torch.equal(twice, step)
