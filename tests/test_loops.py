"""Compiled loops against torch's steps and definitions; without numba a machine has the steps."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import families
from echovec.model import loops
from echovec.model.blocks import Block
from echovec.model.layout import lay_out
from echovec.model.packed import PackedBackbone
from echovec.model.rectangles import Rectangles
from echovec.model.tiles import Tiles
from test_packed import LENGTHS, PACKED_FAMILIES, furthest, made_batch, one_by_one, packed

DTYPES = (torch.float32, torch.bfloat16)
CLOSE: dict[torch.dtype, dict[str, Any]] = {
    torch.float32: {"atol": 1e-5, "rtol": 1e-5},
    torch.bfloat16: {"atol": 1e-6, "rtol": 2**-8},  # half a step: rounded once
}

compiled = pytest.mark.skipif(not loops.ready(), reason="no numba here")


@pytest.fixture
def without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which numba is not installed."""
    monkeypatch.setattr(loops, "_compiled", lambda: None)


def drawn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Random numbers."""
    source = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=source).to(dtype)


@pytest.fixture(autouse=True)
def no_gradient() -> Iterator[None]:
    """Loops are for inference."""
    with torch.no_grad():
        yield


@compiled
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize(("rows", "width"), [(2, 8), (7, 66), (40, 576)])
def test_norms_equal_their_definition(
    rows: int, width: int, size: float, dtype: torch.dtype
) -> None:
    """In float64, rows of zeros among them; the row itself is not written over."""
    x, gain = (size * drawn(rows, width)).to(dtype), drawn(width, seed=1)
    x[rows // 2] = 0
    before = x.clone()
    want = functional.rms_norm(x.double(), (width,), gain.double(), 1e-5)
    torch.testing.assert_close(loops.norm(x, gain, 1e-5).double(), want, **CLOSE[dtype])
    assert torch.equal(x, before)
    wrong = functional.normalize(x.double(), dim=-1) * gain  # a control: the sum for the mean
    with pytest.raises(AssertionError):
        torch.testing.assert_close(wrong, want, **CLOSE[dtype])


@compiled
def test_16_bits_are_rounded_to_the_nearest_even_number() -> None:
    """As torch does it, halfway cases and infinity too; NaN stays NaN."""
    halfway = [1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 3.4e38, 1e-40, 0.0, -0.0, float("inf")]
    numbers = torch.cat([torch.tensor(halfway), drawn(1000)])
    got = loops.dequantize(torch.ones(len(numbers), 1).bfloat16(), numbers)[:, 0]
    assert torch.equal(got, numbers.bfloat16())
    cut_off = (numbers.view(torch.int32) & -65536).view(torch.float32)  # a control
    assert not torch.equal(got.float(), cut_off)
    assert torch.isnan(loops.dequantize(torch.ones(1, 1).bfloat16(), torch.tensor([torch.nan])))


@compiled
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scaled", [False, True])
def test_gates_equal_their_definition(scaled: bool, dtype: torch.dtype) -> None:
    """silu(left) * right, also where the exponential is out of range."""
    x = drawn(9, 2 * 48, dtype=dtype) * torch.tensor([1.0, 30.0, 300.0] * 3)[:, None].to(dtype)
    steps = drawn(9, seed=2).abs() + 0.5 if scaled else None
    wide = x.double() if steps is None else x.double() * steps[:, None].double()
    left, right = wide.chunk(2, dim=1)
    want = functional.silu(left) * right
    close = {"atol": 1e-4, "rtol": 2e-5} if dtype == torch.float32 else CLOSE[dtype]
    torch.testing.assert_close(loops.gate(x, steps).double(), want, **close)


@compiled
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_are_rescaled_and_summed(dtype: torch.dtype) -> None:
    """Written over the first; the other stays."""
    y, other, steps = drawn(5, 70, dtype=dtype), drawn(5, 70, dtype=dtype, seed=1), drawn(5, seed=2)
    kept = other.clone()
    want = y.double() * steps[:, None]
    torch.testing.assert_close(loops.dequantize(y.clone(), steps).double(), want, **CLOSE[dtype])
    both = loops.dequantize(y, steps, other)
    assert both is y
    close = CLOSE[dtype] | {"atol": 1e-5}
    torch.testing.assert_close(both.double(), want + other.double(), **close)
    assert torch.equal(other, kept)


@compiled
@pytest.mark.parametrize("width", [64, 576, 1536])
def test_spreading_keeps_products_and_shares_outliers(width: int) -> None:
    """A rotation times 8: products of rows are 64 times as large, one number becomes 64 alike."""
    turned = loops.spread(torch.eye(width))
    torch.testing.assert_close(turned @ turned.T, 64 * torch.eye(width))
    assert ((turned != 0).sum(1) == 64).all()
    a, b = drawn(5, width), drawn(3, width, seed=1)
    torch.testing.assert_close(
        loops.spread(a) @ loops.spread(b).T, 64 * a @ b.T, atol=0.02, rtol=1e-4
    )


@compiled
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [64, 576])
def test_rows_are_rounded_to_8_bits(width: int, dtype: torch.dtype) -> None:
    """Half a step off at most, both ends of the scale used, rows of zeros too."""
    x, by = drawn(20, width, dtype=dtype), drawn(width, seed=1).abs() + 0.1
    x[3] = 0
    whole, step = loops.quantize(x, by)
    want = loops.spread(x.float() * by)
    off = (whole.float() - 128) * step[:, None] - want
    assert (off.abs() <= 0.5001 * step[:, None]).all()
    assert whole.min() == 1 or whole.max() == 255
    assert (whole[3] == 128).all()


ATTENTION = {torch.float32: {"atol": 3e-6, "rtol": 1e-5}, torch.bfloat16: {"atol": 3e-2, "rtol": 0}}


def projected(block: Block, rows: int, dtype: torch.dtype) -> Tensor:
    """A product of queries, keys and values."""
    width = (block.num_heads + 2 * block.num_kv_heads) * block.head_dim
    return drawn(rows, width, dtype=dtype)


@compiled
@pytest.mark.parametrize("hulls", [False, True], ids=["all rows", "hulls"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("window", [None, 1, 5, 64, 1000])
@pytest.mark.parametrize("lengths", [[1], [5] * 9, [31, 30, 7, 7, 6, 5], [150, 3, 1]], ids=str)
def test_tiles_equal_rectangles(
    lengths: list[int], window: int | None, dtype: torch.dtype, hulls: bool
) -> None:
    """Turning, prefix, padding, windows, grouped heads and norms of heads: torch's, to rounding."""
    for family in ("llama", "qwen3"):
        backbone = packed(family, prepack=True)
        block = replace(backbone._blocks[0], window=window)
        layout = lay_out(made_batch(lengths))
        x = projected(block, len(layout.ids_N), dtype)
        prefix = [drawn(6, block.num_kv_heads, block.head_dim, dtype=dtype, seed=s) for s in (5, 6)]
        groups = layout.hulls if hulls else layout.groups
        table = backbone._table(400, torch.float32)
        tiles = Tiles(groups, 6, block.num_heads, *table)
        # The twin computes in float32 whatever the dtype is.
        turn = backbone._turn(layout.positions_N, torch.float32)
        twin = Rectangles(groups, turn)(block, x.float(), *(p.float() for p in prefix))
        got = tiles(block, x, *prefix)
        torch.testing.assert_close(got.float(), twin, **ATTENTION[dtype])
        if window == 1:  # a query that sees nothing but itself has no use for positions
            continue
        other = backbone._turn(3 * layout.positions_N, torch.float32)  # a control
        wrong = Rectangles(groups, other)(block, x.float(), *(p.float() for p in prefix))
        with pytest.raises(AssertionError):
            torch.testing.assert_close(got.float(), wrong, **ATTENTION[dtype])


@compiled
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("what", [float("nan"), -float("nan"), float("inf")])
def test_what_is_not_finite_is_not_hidden(what: float, dtype: torch.dtype) -> None:
    """A query whose scores are NaN or infinite has no finite output, which would pass for one."""
    backbone = packed("llama", prepack=True)
    block, layout = backbone._blocks[0], lay_out(made_batch([40, 40]))
    x = projected(block, len(layout.ids_N), dtype)
    # The query alone: a value that is not finite would be seen whatever the scores become.
    x[60, : block.num_heads * block.head_dim] = what
    prefix = [drawn(6, block.num_kv_heads, block.head_dim, dtype=dtype, seed=s) for s in (5, 6)]
    table = backbone._table(400, torch.float32)
    out = Tiles(layout.groups, 6, block.num_heads, *table)(block, x, *prefix)
    finite = torch.isfinite(out.float())
    assert not finite[60].any()
    assert finite[torch.arange(len(out)) != 60].all()


@compiled
def test_tiles_cut_what_would_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rectangle whose scores are too many is computed in parts, one sequence each at least."""
    backbone = packed("llama", prepack=True)
    block, layout = backbone._blocks[0], lay_out(made_batch([31, 31, 31, 30]))
    x = projected(block, len(layout.ids_N), torch.float32)
    prefix = [drawn(6, block.num_kv_heads, block.head_dim, seed=s) for s in (5, 6)]
    table = backbone._table(400, torch.float32)
    want = Tiles(layout.groups, 6, block.num_heads, *table)(block, x, *prefix)
    monkeypatch.setattr("echovec.model.tiles.MAX_SCORES", 1)
    parts = Tiles(layout.groups, 6, block.num_heads, *table)
    assert len(parts._parts) == 4
    torch.testing.assert_close(parts(block, x, *prefix), want, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("family", PACKED_FAMILIES)
def test_without_numba_the_states_are_the_same(family: str, without_numba: None) -> None:
    """Torch's steps alone give each sequence's states, as the loops do."""
    model = families.causal_model(family).base_model
    backbone = packed(family, prepack=True)
    for lengths in LENGTHS[1:3]:
        batch = made_batch(lengths)
        (every,) = backbone.forward(batch)
        (some,) = backbone.forward(batch, pooled_only=True)
        want = one_by_one(model, batch, -1)
        assert furthest(every, want) < 3e-5
        assert furthest(some, want[batch.pooled[0]]) < 3e-5


@pytest.mark.parametrize("loops_too", [pytest.param(True, marks=compiled), False])
@pytest.mark.parametrize("family", PACKED_FAMILIES)
def test_bfloat16_is_near_float32(
    family: str, loops_too: bool, request: pytest.FixtureRequest
) -> None:
    """Every family in 16 bits is near float32, or no further from it than transformers is.

    With the loops and without, a shared beginning before each text. On some processors a tiny
    model's state is off by 0.02 however it is computed.
    """
    if not loops_too:
        request.getfixturevalue("without_numba")
    model = families.causal_model(family).base_model
    narrow = copy.deepcopy(families.causal_model(family)).to(torch.bfloat16)
    batch = made_batch(LENGTHS[1])
    want = one_by_one(model, batch, -1)[batch.pooled[0]]
    stock = one_by_one(narrow.base_model, batch, -1)[batch.pooled[0]]
    backbone = PackedBackbone(narrow, prepack=True)
    with torch.inference_mode():
        (got,) = backbone.forward(batch, pooled_only=True)
    allowed = max(0.01, 1.6 * off(stock, want))
    assert off(got, want) < allowed < 0.05
    assert off(got.roll(7, 0), want) > 0.1


def off(states: torch.Tensor, want: torch.Tensor) -> float:
    """One less the cosine, of the row where it is largest."""
    cosines = torch.nn.functional.cosine_similarity(states.float(), want)
    return float((1 - cosines).max())


@compiled
def test_loops_run_where_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with a gradient, in other dtypes, or for many rows where there are many threads."""
    x = torch.ones(300, 8)
    assert loops.usable(x)
    assert loops.usable(x.bfloat16())
    assert not loops.usable(x.half())
    assert not loops.usable(x.double())
    with torch.inference_mode(False), torch.enable_grad():
        assert not loops.usable(x)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    assert not loops.usable(x)
    assert loops.usable(x[:100])


@compiled
def test_a_prepacked_model_takes_the_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are what runs, for norms, attention and gates; nothing falls back in silence."""
    called: list[str] = []
    for name in ("norm", "loop"):
        inner = getattr(loops, name)
        told = lambda *a, name=name, inner=inner: called.append(name) or inner(*a)  # noqa: E731
        monkeypatch.setattr(loops, name, told)
    backbone = packed("llama", prepack=True)
    backbone.forward(made_batch([5, 4]))
    assert called.count("norm") >= 4
    assert "loop" in called


def test_a_numba_that_cannot_compile_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Torch's steps run, and a log line says why; NUMBA_DISABLE_JIT is respected."""
    import builtins

    real = builtins.__import__

    def broken(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "echovec.model" and args[2] and "numba_loops" in args[2]:
            raise RuntimeError("cannot cache function: no locator available\nand more")
        return real(name, *args, **kwargs)

    loops._compiled.cache_clear()
    monkeypatch.setattr(loops, "_INSTALLED", True)
    monkeypatch.setattr(builtins, "__import__", broken)
    with caplog.at_level(logging.WARNING, logger="echovec"):
        assert not loops.ready()
        assert not loops.usable(torch.ones(1, 8))
    (record,) = caplog.records
    assert record.message == (
        "numba cannot compile the loops (cannot cache function: no locator available); "
        "torch's steps run: slower"
    )
    monkeypatch.setattr(builtins, "__import__", real)
    loops._compiled.cache_clear()
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    assert not loops.ready()
    loops._compiled.cache_clear()


def test_attention_of_torch_is_still_the_shared_engines() -> None:
    """A model that keeps its modules has loops for attention, and torch's norms."""
    model = copy.deepcopy(families.causal_model("llama"))
    batch = made_batch([9, 4])
    backbone = PackedBackbone(model, prepack=False)
    assert backbone._blocks[0].norm_mlp.held is None
    (got,) = backbone.forward(batch)
    assert furthest(got, one_by_one(model.base_model, batch, -1)) < 3e-5
