"""Ragged attention and fused kernels: on a CPU with a naive kernel, on a GPU with the real ones."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import varlen as varlen_module

import families
from echovec.model import kernels
from echovec.model import packed as packed_module
from echovec.model import ragged as ragged_module
from echovec.model.feed import Fed, Feed
from echovec.model.layout import lay_out
from echovec.model.packed import PackedBackbone
from echovec.model.plain import PlainBackbone
from echovec.model.ragged import Ragged
from test_packed import (
    LENGTHS,
    PACKED_FAMILIES,
    every_layer,
    furthest,
    made_batch,
    one_by_one,
    packed,
)

CUDA = torch.device("cuda")


def naive(
    q_QHE: Tensor, k_KGE: Tensor, v_KGE: Tensor, how: Ragged, scale: float, window: int | None
) -> Tensor:
    """The kernel's twin: one sequence, one head, one query at a time."""
    output = torch.full_like(q_QHE, float("nan"))  # of rows that no sequence holds
    repeats = q_QHE.shape[1] // k_KGE.shape[1]
    edges = zip(
        how.edges.query_edges_S1.tolist(),
        how.edges.query_edges_S1.tolist()[1:],
        how.edges.key_edges_S1.tolist(),
        how.edges.key_edges_S1.tolist()[1:],
        strict=False,
    )
    for first, last, key, stop in edges:
        for row in range(first, last):
            end = stop - (last - row) + 1
            begin = key if window is None else max(key, end - window)
            for head in range(q_QHE.shape[1]):
                k, v = k_KGE[begin:end, head // repeats], v_KGE[begin:end, head // repeats]
                output[row, head] = torch.softmax(k @ q_QHE[row, head] * scale, dim=0) @ v
    return output


def shifted(*args: Any) -> Tensor:
    """A wrong kernel: queries are counted from the front, so the prefix hides the last keys."""
    q, k, v, how, scale, _ = args
    return naive(q, k, v, how, scale, 2)


def ragged_states(family: str, monkeypatch: pytest.MonkeyPatch, kernel: Any) -> list[float]:
    """How far states with this kernel are from each sequence alone, at worst."""
    monkeypatch.setattr(packed_module, "can_attend", lambda *_: True)
    monkeypatch.setattr(ragged_module, "varlen", kernel)
    model = families.causal_model(family).base_model
    backbone = packed(family, prepack=True)
    assert backbone._ragged
    found = []
    for lengths in LENGTHS[1::2]:
        batch = made_batch(lengths)
        twin = every_layer(model, batch)
        with torch.inference_mode():
            every = backbone.forward(batch, [1, -1])
            pooled = backbone.forward(batch, [1, -1], pooled_only=True)
        for layer, all_rows, some_rows in zip([1, -1], every, pooled, strict=True):
            found.append(furthest(all_rows, twin[layer]))
            found.append(furthest(some_rows, twin[layer][batch.pooled[0]]))
    return found


@pytest.mark.parametrize("family", [f for f in PACKED_FAMILIES if f != "gemma2"])
def test_ragged_attention_equals_each_sequence_alone(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offsets, shared prefix, pooled rows of the last layer: as if computed one by one."""
    assert max(ragged_states(family, monkeypatch, naive)) < 3e-5


def test_a_wrong_kernel_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: a kernel that hides keys is far off."""
    assert max(ragged_states("llama", monkeypatch, shifted)) > 1e-2


def test_a_cpu_has_rectangles() -> None:
    """Ragged attention is for CUDA in 16 bits; elsewhere nothing changes."""
    blocks = packed("llama", prepack=True)._blocks
    assert not ragged_module.can_attend(torch.device("cpu"), torch.bfloat16, blocks)
    layout = lay_out(made_batch([3, 2]))
    turn = (torch.ones(0), torch.ones(0))
    feed = Feed(layout, 6)
    fed = Fed.of(torch.from_numpy(feed.numbers(feed.sizes)), feed.sizes)
    built = ragged_module.ragged(fed, turn, hulls=True)
    assert built.query_rows_Q is not None
    assert built.edges.query_edges_S1.tolist()[-1] == len(layout.hull_rows_Q)
    assert built.most_keys == 6 + 3 + 4 + 3 + 3  # as far as the last pooled token of the longest


def test_capped_attention_has_rectangles() -> None:
    """Torch's kernel for unlike lengths knows of no cap; that of others it can do."""
    assert not any(map(ragged_module._suits, packed("gemma2", prepack=True)._blocks))
    assert all(map(ragged_module._suits, packed("llama", prepack=True)._blocks))


def test_what_the_kernel_may_be_told() -> None:
    """This torch's kernel takes a causal mask, by whichever name."""
    options = ragged_module._options(False)
    assert options is None or options & {"window_size", "is_causal"}


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(5, 16), (300, 3072)])
def test_gate_equals_its_twin(shape: tuple[int, int]) -> None:
    """silu(left) * right, within bfloat16's rounding."""
    both = torch.randn(shape, device=CUDA, dtype=torch.bfloat16)
    left, right = both.float().chunk(2, dim=1)
    assert furthest(kernels.gate(both).float(), torch.nn.functional.silu(left) * right) < 8e-3


@pytest.mark.gpu
def test_place_equals_its_twin() -> None:
    """Keys and values behind a shared prefix, within bfloat16's rounding."""
    x = torch.randn(37, 15, 64, device=CUDA, dtype=torch.bfloat16)
    k, v = x[:, 9:12], x[:, 12:]
    begin = torch.randn(2, 5, 3, 64, device=CUDA, dtype=torch.bfloat16)
    angle = torch.rand(37, 1, 32, device=CUDA) * 6
    turn = angle.cos().bfloat16(), angle.sin().bfloat16()
    rows = torch.tensor([*range(9), *range(5), *range(9, 42)], device=CUDA)
    want = kernels.place_plain(
        k.float(), v.float(), *begin.float(), rows, (turn[0].float(), turn[1].float())
    )
    for got, wanted in zip(kernels.place(k, v, *begin, rows, turn), want, strict=True):
        assert furthest(got.float(), wanted) < 8e-3


@pytest.mark.gpu
@pytest.mark.parametrize("width", [64, 128, 80])
def test_turn_equals_its_twin(width: int) -> None:
    """Rotary positions in place, on rows that are parts of longer ones; the rest is untouched."""
    whole = torch.randn(37, 15, width, device=CUDA, dtype=torch.bfloat16)
    before = whole.clone()
    angle = torch.rand(37, 1, width // 2, device=CUDA) * 6
    cos, sin = angle.cos().bfloat16(), angle.sin().bfloat16()
    want = kernels.turn_plain(before[:, :12].float(), cos.float(), sin.float())
    kernels.turn(whole[:, :12], cos, sin)
    assert furthest(whole[:, :12].float(), want) < 8e-3
    assert torch.equal(whole[:, 12:], before[:, 12:])


@pytest.mark.gpu
@pytest.mark.parametrize("family", PACKED_FAMILIES)
def test_cuda_states_equal_float32(family: str) -> None:
    """bfloat16 on CUDA, ragged and fused, against float32 one by one: rounding apart the same."""
    model = families.causal_model(family).base_model
    other = families.causal_model(family).to(torch.bfloat16)
    backbone = PackedBackbone(copy.deepcopy(other).to(CUDA), prepack=True)
    for lengths in LENGTHS:
        batch = made_batch(lengths)
        with torch.inference_mode():
            (got,) = backbone.forward(batch, pooled_only=True)
        want = one_by_one(model, batch, -1)[batch.pooled[0]]
        cosines = torch.nn.functional.cosine_similarity(got.float().cpu(), want)
        assert cosines.min() > 0.995


@pytest.mark.gpu
def test_gradients_flow_on_cuda() -> None:
    """The packed path trains on CUDA: gradients equal those of the plain path."""
    batch = made_batch([9, 4, 30])
    grads = []
    for engine in ("packed", "plain"):
        model = copy.deepcopy(families.causal_model("llama")).to(CUDA).bfloat16()
        backbone: Any = (
            PackedBackbone(model, prepack=False) if engine == "packed" else PlainBackbone(model)
        )
        (states,) = backbone.forward(batch, pooled_only=True)
        # A norm comes last, so a sum of squares would be constant: its gradient is rounding only.
        towards_PD = torch.randn(states.shape, generator=torch.Generator().manual_seed(1))
        (states.float() * towards_PD.to(CUDA)).sum().backward()
        grads.append(model.base_model.layers[0].self_attn.q_proj.weight.grad.float())
    assert furthest(grads[0], grads[1]) < 0.05


def test_kernels_are_launched_where_their_tensors_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton asks the thread for its device, which is the first card where nothing was said."""
    inside: list[Tensor] = []
    launched: list[Tensor] = []

    @contextmanager
    def noted(x: Tensor) -> Iterator[None]:
        inside.append(x)
        yield
        inside.remove(x)

    class Kernel:
        def __getitem__(self, grid: Any) -> Any:
            return lambda x, *args, **options: launched.extend(y for y in inside if y is x)

    monkeypatch.setattr(torch.cuda, "device_of", noted)
    monkeypatch.setattr(kernels, "_kernel", lambda name: Kernel())
    x = torch.zeros(3, 2, 8)
    turn = torch.ones(3, 1, 4), torch.zeros(3, 1, 4)
    kernels.gate(x.flatten(1))
    kernels.turn(x, *turn)
    kernels.place(x, x, x[:1], x[:1], torch.arange(4), turn)
    assert [tuple(y.shape) for y in launched] == [(3, 16), (3, 2, 8), (3, 2, 8)]


def test_kernels_that_cannot_be_used_are_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not at each of a thousand calls; and where gradients are kept nobody asks."""

    def broken(device: torch.device) -> None:
        raise RuntimeError("Failed to find C compiler.")

    monkeypatch.setattr(kernels, "_trial", broken)
    monkeypatch.setattr(kernels, "_INSTALLED", True)
    kernels.works.cache_clear()
    try:
        assert [kernels.ready(torch.device("cpu")) for _ in range(3)] == [False] * 3
    finally:
        kernels.works.cache_clear()
    assert len(caplog.records) == 1
    on_a_card: Any = SimpleNamespace(is_cuda=True, device=torch.device("cpu"))
    monkeypatch.setattr(kernels, "ready", lambda _: True)
    assert not kernels.usable(on_a_card)
    with torch.no_grad():
        assert kernels.usable(on_a_card)


def of_torch(told: dict[str, Any]) -> Any:
    """A stand-in for torch's kernel with the meaning of its options, as its page has them."""

    def varlen_attn(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cu_seq_q: Tensor,
        cu_seq_k: Tensor,
        max_q: int,
        max_k: int,
        *,
        scale: float | None = None,
        window_size: tuple[int, int] = (-1, -1),
        enable_gqa: bool = False,
    ) -> Tensor:
        told.update(scale=scale, window_size=window_size)
        assert enable_gqa == (query.shape[1] != key.shape[1])
        assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
        for edges, most in ((cu_seq_q, max_q), (cu_seq_k, max_k)):
            assert int(edges.diff().max()) <= most
        back, ahead = window_size
        assert ahead == 0, "a query would see what stands behind it"
        how: Any = SimpleNamespace(
            edges=SimpleNamespace(query_edges_S1=cu_seq_q, key_edges_S1=cu_seq_k)
        )
        window = None if back == -1 else back + 1  # so many before it, and itself
        return naive(query, key, value, how, scale or query.shape[-1] ** -0.5, window)

    return varlen_attn


def of_an_older_torch(told: dict[str, Any]) -> Any:
    """One that knows neither windows nor scales."""
    inner = of_torch(told)

    def varlen_attn(*args: Any, is_causal: bool = False) -> Tensor:
        query, key = args[:2]
        grouped = query.shape[1] != key.shape[1]
        window: Any = (-1, 0 if is_causal else -1)
        output: Tensor = inner(*args, window_size=window, enable_gqa=grouped)
        return output

    return varlen_attn


@pytest.fixture
def _other_kernels() -> Iterator[None]:
    ragged_module._options.cache_clear()
    yield
    ragged_module._options.cache_clear()


@pytest.mark.usefixtures("_other_kernels")
@pytest.mark.parametrize(
    ("family", "kernel", "known"),
    [
        ("llama", of_torch, {"window_size": (-1, 0)}),
        ("granite", of_torch, {"scale": 0.25}),
        ("gemma3", of_torch, {}),  # near and far layers
        ("granite", of_an_older_torch, {"scale": None}),
    ],
)
def test_torchs_kernel_is_told_what_it_needs(
    family: str, kernel: Any, known: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scale, window, shared heads and edges, by whatever names a release has for them."""
    told: dict[str, Any] = {}
    monkeypatch.setattr(varlen_module, "varlen_attn", kernel(told))
    monkeypatch.setattr(packed_module, "can_attend", lambda *_: True)
    batch = made_batch([25, 3])
    want = one_by_one(families.causal_model(family).base_model, batch, -1)
    with torch.inference_mode():
        (found,) = packed(family, prepack=True).forward(batch, pooled_only=True)
    assert furthest(found, want[batch.pooled[0]]) < 3e-5
    assert told | known == told


@pytest.mark.usefixtures("_other_kernels")
def test_an_older_kernel_has_no_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model with near layers has rectangles there."""
    monkeypatch.setattr(varlen_module, "varlen_attn", of_an_older_torch({}))
    assert ragged_module._options(False) == {"args", "is_causal"}
    assert ragged_module._options(True) is None


def test_wide_and_odd_heads_have_rectangles() -> None:
    """Flash attention takes heads of up to 256 numbers, in eights."""
    (block, *_) = packed("llama", prepack=True)._blocks
    for width, suits in ((8, True), (256, True), (264, False), (12, False)):
        assert ragged_module._suits(replace(block, head_dim=width)) is suits
