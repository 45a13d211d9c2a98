"""Kinds of linear maps against plain torch's: same numbers, and the weights can be had back."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import families
from echovec.model import linear, weights
from echovec.model.blocks import Norm, scaled
from echovec.model.families import Make, blocks_of
from echovec.model.gate import Gate, Joint, Pair
from echovec.model.linear import (
    ACTIVATIONS,
    HalfStored,
    InPlace,
    Linear,
    OneDNN,
    Stock,
    cpu_kind,
    has_fbgemm,
    has_onednn,
)
from echovec.model.packed import PackedBackbone
from test_packed import furthest, made_batch, one_by_one

KINDS: tuple[type[OneDNN], ...] = (OneDNN, InPlace, HalfStored)
CLOSE: dict[torch.dtype, dict[str, Any]] = {
    torch.float32: {"atol": 1e-4, "rtol": 1e-5},
    torch.bfloat16: {"atol": 0.3, "rtol": 0.02},
}

pytestmark = pytest.mark.skipif(not has_onednn(torch.float32), reason="this torch has no oneDNN")


def drawn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Random numbers that float16 and bfloat16 hold."""
    source = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=source).bfloat16().to(dtype)


def runs_here(kind: type[OneDNN], dtype: torch.dtype = torch.float32) -> None:
    """Skip what this processor or torch cannot do."""
    if kind is HalfStored and (dtype != torch.float32 or not has_fbgemm()):
        pytest.skip("FBGEMM is not in this torch, or not for this dtype")
    if not has_onednn(dtype):
        pytest.skip(f"this CPU or torch has no oneDNN for {dtype}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rows", [1, 7, 50])
def test_products_equal_stock_ones(dtype: torch.dtype, kind: type[OneDNN], rows: int) -> None:
    """Fused sums, activations and gates equal the plain ones; operands are not written over."""
    runs_here(kind, dtype)
    weight, bias = drawn(96, 64, dtype=dtype), drawn(96, dtype=dtype, seed=1)
    x, other = drawn(rows, 64, dtype=dtype, seed=2), drawn(rows, 96, dtype=dtype, seed=3)
    close, before = CLOSE[dtype], (x.clone(), other.clone())
    with torch.inference_mode():
        for b in (None, bias):
            stock, fast = Stock(weight, b), kind(weight, b)
            torch.testing.assert_close(fast(x), stock(x), **close)
            torch.testing.assert_close(fast.plus(x, other), stock.plus(x, other), **close)
            torch.testing.assert_close(fast.times(x, other), stock.times(x, other), **close)
            for name in ACTIVATIONS:
                torch.testing.assert_close(
                    fast.activated(x, name), stock.activated(x, name), **close
                )
            assert torch.equal(fast.weight(), weight)
    assert torch.equal(x, before[0])
    assert torch.equal(other, before[1])


@pytest.mark.parametrize("kind", [Stock, *KINDS])
@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gates_equal_their_definition(kind: Any, joint: bool, name: str) -> None:
    """`activation(x @ gate.T + b) * (x @ up.T + c)`, in one product or two."""
    if kind is not Stock:
        runs_here(kind)
    gate, up, x = drawn(32, 16), drawn(32, 16, seed=1), drawn(9, 16, seed=2)
    for b, c in ((None, None), (drawn(32, seed=3), drawn(32, seed=4))):
        want = ACTIVATIONS[name](Stock(gate, b)(x)) * Stock(up, c)(x)
        both = None if b is None or c is None else torch.cat([b, c])
        made: Gate = Pair(kind(gate, b), kind(up, c))
        if joint:
            made = Joint(kind(torch.cat([gate, up]), both))
        with torch.inference_mode():
            torch.testing.assert_close(made(x, name), want, **CLOSE[torch.float32])
        assert torch.equal(made.weight(), torch.cat([gate, up]))
        assert made.bias is both or torch.equal(made.bias, both)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gates_have_the_gradient_of_their_definition(name: str) -> None:
    """One product or two, in float64 against differences."""
    gate, up = drawn(6, 4, dtype=torch.float64), drawn(6, 4, dtype=torch.float64, seed=1)
    x = drawn(3, 4, dtype=torch.float64, seed=2).requires_grad_()
    for made in (Pair(Stock(gate), Stock(up)), Joint(Stock(torch.cat([gate, up])))):
        torch.testing.assert_close(made(x, name), ACTIVATIONS[name](x @ gate.T) * (x @ up.T))
        assert torch.autograd.gradcheck(lambda x, made=made: made(x, name), x)


def test_16_bits_hold_what_was_published_in_16_bits() -> None:
    """Numbers of float16 and of bfloat16, the smallest too; not float32's own, nor too large."""
    if not has_fbgemm():
        pytest.skip("FBGEMM is not in this torch")
    bfloat16 = drawn(64, 64)
    # Below 2^-14 float16 has fewer bits than bfloat16: what it loses is kept beside.
    tiny = bfloat16.clone()
    tiny[::16] *= 2.0**-19
    assert not torch.equal(tiny.half().float(), tiny)
    for weight in (bfloat16, torch.randn(64, 64).half().float(), tiny, torch.zeros(8, 8)):
        assert HalfStored.holds(weight)
        assert torch.equal(HalfStored(weight).weight(), weight)
    for weight, whole in ((bfloat16, True), (tiny, False)):
        assert (HalfStored(weight)._lost is None) == whole
    large = bfloat16.clone()
    large[3, 4] = 70_000.0
    for weight in (torch.randn(64, 64), 2.0**-16 * bfloat16, large):
        assert not HalfStored.holds(weight)
        with pytest.raises(ValueError, match="float16 cannot hold"):
            HalfStored(weight)


def test_negative_control_rounding_to_16_bits_is_seen() -> None:
    """Weights of float32 rounded to 16 bits would be outside what the other tests allow."""
    weight, x = torch.randn(96, 64), torch.randn(50, 64)
    rounded = Stock(weight.half().float())(x)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(rounded, Stock(weight)(x), **CLOSE[torch.float32])


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_the_norm_in_fewer_steps_equals_torchs(size: float) -> None:
    """Also for heads, for rows of zeros, and where eps is what counts."""
    x, gain = size * drawn(7, 3, 64), drawn(64, seed=1)
    x[2, 1] = 0
    for eps in (1e-5, 1e-6):
        want = functional.rms_norm(x.double(), (64,), gain.double(), eps)
        torch.testing.assert_close(scaled(x, gain, eps).double(), want, atol=1e-5, rtol=1e-5)
        wrong = functional.normalize(x, dim=-1) * gain  # a control: the sum in place of the mean
        with pytest.raises(AssertionError):
            torch.testing.assert_close(wrong.double(), want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_the_norm_of_16_bits_is_rounded_once(offset: float) -> None:
    """Computed in float32, so nearer to the exact one than half a step of bfloat16."""
    module = nn.Module()
    module.weight = nn.Parameter(drawn(64, seed=1, dtype=torch.bfloat16), requires_grad=False)
    x = drawn(50, 64, dtype=torch.bfloat16)
    with torch.inference_mode():
        got = Norm(module, offset, 1e-5)(x)
    gain = module.weight.double() + offset
    want = functional.rms_norm(x.double(), (64,), gain, 1e-5)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.double(), want, atol=1e-6, rtol=2**-8)
    twice = (functional.normalize(x, dim=-1) * 8).double() * gain  # a control
    with pytest.raises(AssertionError):
        torch.testing.assert_close(twice, want, atol=1e-6, rtol=2**-8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma"])
def test_every_kind_gives_the_plain_vectors(
    kind: type[OneDNN], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever this processor is, the other kinds are run too; the hash of the weights stays."""
    runs_here(kind)
    model = copy.deepcopy(families.causal_model(family))
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.half())
    batch = made_batch([40, 12, 60])
    want = one_by_one(model.base_model, batch, -1)
    hashed = PackedBackbone(model, prepack=False).weights_hash()

    monkeypatch.setattr(weights, "cpu_kind", lambda weight: kind)
    backbone = PackedBackbone(model, prepack=True)
    assert type(backbone._blocks[0].down) is kind
    assert type(backbone._blocks[0].gate) is (Joint if kind is HalfStored else Pair)
    # oneDNN makes a program for each number of rows, so there it has few of them.
    assert backbone._row_counts(33) == (33 if kind is HalfStored else 40)
    with torch.inference_mode():
        (got,), (again,) = backbone.forward(batch), backbone.forward(batch)
        (wide,) = backbone.forward(batch, float32=True)
    assert furthest(got, want) < 3e-5
    assert furthest(wide, want) < 3e-5
    assert torch.equal(got, again)
    assert backbone.weights_hash() == hashed


CPUS: dict[str, tuple[bool, bool, bool]] = {
    "x86": (True, True, True),
    "x86 without AVX2": (False, True, True),
    "x86, another engine chosen or built": (True, False, True),
    "ARM": (False, False, True),
    "no oneDNN": (False, False, False),
}
"""Whether a processor has AVX2, and its torch FBGEMM and oneDNN."""


@pytest.mark.parametrize("cpu", CPUS)
def test_a_processor_gets_what_is_fastest_there(cpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch has decides, and whether 16 bits hold the weights; bfloat16 is oneDNN's."""
    able, fbgemm, onednn = CPUS[cpu]
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": able})
    engine = "x86" if fbgemm else "qnnpack"
    monkeypatch.setattr(type(torch.backends.quantized), "engine", engine)
    monkeypatch.setattr(linear, "has_onednn", lambda dtype: onednn)
    published, own = drawn(8, 8), torch.randn(8, 8)
    alone = InPlace if onednn else Stock
    assert cpu_kind(own) is alone
    assert cpu_kind(published) is (HalfStored if able and fbgemm else alone)
    assert cpu_kind(published.bfloat16()) is (OneDNN if onednn else Stock)


def test_a_gate_that_16_bits_hold_by_half_stays_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both halves must fit, since they are one product."""
    if not has_fbgemm():
        pytest.skip("FBGEMM is not in this torch")
    gate, up = nn.Linear(16, 32, bias=False), nn.Linear(16, 32, bias=False)
    x = drawn(5, 16)
    for module, kind in ((gate, Pair), (up, Joint)):
        with torch.no_grad():
            module.weight.copy_(module.weight.half())
        made = weights.prepacked_gate(gate, up)
        assert type(made) is kind
        with torch.inference_mode():
            want = ACTIVATIONS["silu"](gate(x)) * up(x)
            torch.testing.assert_close(made(x, "silu"), want, **CLOSE[torch.float32])


def test_layers_made_at_once_leave_torchs_threads_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two at a time or one, in their order; each thread computes alone, and the setting is back."""
    model = copy.deepcopy(families.causal_model("llama")).base_model
    seen: list[int] = []

    def noted(*modules: nn.Linear) -> Linear:
        seen.append(torch.get_num_threads())
        return weights.prepacked(*modules)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for at_once, threads in ((1, 2), (2, 1)):
            seen.clear()
            blocks = blocks_of(model, Make(noted, weights.prepacked_gate, at_once=at_once))
            assert set(seen) == {threads}
            assert torch.get_num_threads() == 2
            for block, layer in zip(blocks, model.layers, strict=True):
                assert torch.equal(block.out.weight(), layer.self_attn.o_proj.weight)
    finally:
        torch.set_num_threads(before)
