"""Triton's kernels against their twins, run by Triton's interpreter: no GPU is needed for it.

Triton comes with torch's CUDA builds; elsewhere these are skipped, unless `pip install triton`.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from echovec.model import kernels

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)
H, G, A, N = 4, 2, 5, 11
ROWS = [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 8, 9, 15]
"""Two sequences behind a prefix of five rows."""


@pytest.fixture(autouse=True)
def _interpreted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def forget() -> None:
        kernels._kernels.clear()
        sys.modules.pop("echovec.model.triton_kernels", None)

    forget()
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    yield
    forget()


def product(width: int) -> Tensor:
    """A product of queries, keys and values, as heads."""
    return torch.randn(N, H + 2 * G, width, generator=torch.Generator().manual_seed(0))


def angles(width: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of each row's position."""
    angle = 6 * torch.rand(N, 1, width // 2, generator=torch.Generator().manual_seed(1))
    return angle.cos(), angle.sin()


@pytest.mark.parametrize("shape", [(5, 16), (7, 3072), (3, 200), (2, 28672)])
def test_gate_is_silu_times_the_other_half(shape: tuple[int, int]) -> None:
    """Widths that a block divides and others; the halves exchanged are far off."""
    both = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    left, right = both.chunk(2, dim=1)
    got = kernels.gate(both)
    torch.testing.assert_close(got, torch.nn.functional.silu(left) * right)
    assert (got - torch.nn.functional.silu(right) * left).abs().max() > 0.1


@pytest.mark.parametrize("turns", [True, False])
@pytest.mark.parametrize("prefix", [A, 0])
@pytest.mark.parametrize("width", [64, 80, 128])
def test_place_is_turning_laying_together_and_picking(width: int, prefix: int, turns: bool) -> None:
    """Keys turned, values not, the prefix as it is; rows that are parts of longer ones."""
    x = product(width)
    k, v = x[:, H : H + G], x[:, H + G :]
    begin = torch.randn(2, prefix, G, width, generator=torch.Generator().manual_seed(3))
    rows = torch.tensor(ROWS) if prefix else torch.arange(N)
    turn = angles(width) if turns else None
    want = kernels.place_plain(k, v, *begin, rows, turn)
    for got, wanted in zip(kernels.place(k, v, *begin, rows, turn), want, strict=True):
        torch.testing.assert_close(got, wanted)
    wrong, _ = kernels.place_plain(k, v, *begin, rows.flip(0), turn)
    assert (wrong - want[0]).abs().max() > 0.1


@pytest.mark.parametrize("width", [64, 80, 128])
def test_turn_is_written_over_its_heads_alone(width: int) -> None:
    """Queries are turned where they lie; keys and values beside them stay."""
    x, turn = product(width), angles(width)
    before = x.clone()
    kernels.turn(x[:, :H], *turn)
    torch.testing.assert_close(x[:, :H], kernels.turn_plain(before[:, :H], *turn))
    assert torch.equal(x[:, H:], before[:, H:])


def test_kernels_are_tried_before_they_are_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Sound ones pass in silence; wrong numbers or no compiler: a word, and torch's steps."""
    device = torch.device("cpu")
    kernels.works.cache_clear()
    assert kernels.works(device)
    assert not caplog.text
    kernels.works.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(kernels, "turn", lambda x, cos, sin: kernels.turn_plain(x, sin, cos))
        assert not kernels.works(device)
    assert "wrong numbers from turn" in caplog.text
    kernels.works.cache_clear()

    def no_compiler(name: str) -> None:
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.")

    with monkeypatch.context() as patched:
        patched.setattr(kernels, "_kernel", no_compiler)
        assert not kernels.works(device)
    assert "Failed to find C compiler" in caplog.text
    assert "apt install gcc" in caplog.text
    kernels.works.cache_clear()
