"""Pooling against a naive loop, with gradients; transforms and similarity beside it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from echovec import InputError, RecipeError, Template, View
from echovec.vector.pooling import POOLINGS
from echovec.vector.similarity import cosine, cosine_pairwise
from echovec.vector.transform import TRANSFORMS, Normalize, Truncate

SPANS = torch.tensor([[0, 3], [5, 6], [6, 13], [2, 9]])


def naive(name, h_TD, spans_S2):
    rows = []
    for start, stop in spans_S2.tolist():
        span = h_TD[start:stop].double()
        if name == "mean":
            rows.append(span.sum(0) / (stop - start))
        elif name == "lasttoken":
            rows.append(span[-1])
        else:
            weights = torch.arange(1, stop - start + 1).double()
            rows.append((span * weights[:, None]).sum(0) / weights.sum())
    return torch.stack(rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", POOLINGS)
def test_pooling_equals_a_loop_and_comes_out_in_float32_or_wider(name, dtype):
    """Sums are taken in float32 whatever the states are in; only rounding differs from a loop."""
    h_TD = torch.randn(13, 8, generator=torch.Generator().manual_seed(1)).to(dtype)
    z_SD = POOLINGS[name](h_TD, SPANS)
    assert z_SD.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.allclose(z_SD.double(), naive(name, h_TD, SPANS), atol=1e-6)


@pytest.mark.parametrize("name", POOLINGS)
def test_pooling_has_exact_gradients(name):
    """Gradients equal finite differences, so the same function serves training."""
    h_TD = torch.randn(13, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda h: POOLINGS[name](h, SPANS), (h_TD,))


def test_a_long_span_loses_nothing_to_its_neighbours():
    """A span of small values after huge ones keeps its digits (a running sum would not)."""
    h_TD = torch.cat([torch.full((500, 1), 1e6), torch.full((10, 1), 1e-3)])
    z_SD = POOLINGS["mean"](h_TD, torch.tensor([[500, 510]]))
    assert z_SD.item() == pytest.approx(1e-3, rel=1e-6)


def test_an_unknown_pooling_is_refused_by_name():
    """A View names the poolings there are."""
    with pytest.raises(RecipeError, match="unknown pooling 'max'; there are mean, lasttoken"):
        View(Template("{text}"), pooling="max")


def test_transforms_equal_numpy():
    """Truncate and Normalize do what their names say; a zero vector stays zero."""
    z_SD = torch.tensor([[3.0, 4.0, 1.0], [0.0, 0.0, 0.0]])
    assert Truncate(2)(z_SD).tolist() == [[3.0, 4.0], [0.0, 0.0]]
    assert torch.allclose(Normalize()(Truncate(2)(z_SD)), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    assert set(TRANSFORMS.values()) == {Truncate, Normalize}
    with pytest.raises(InputError, match="vectors of 3 numbers to 4"):
        Truncate(4)(z_SD)


def test_cosine_equals_its_definition():
    """`similarity` is the cosine for vectors of any length; a zero vector has cosine 0."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 5)), rng.normal(size=(4, 5))
    by_hand = [[x @ y / np.linalg.norm(x) / np.linalg.norm(y) for y in b] for x in a]
    assert np.allclose(cosine(a, b), by_hand, atol=1e-6)
    assert np.allclose(cosine_pairwise(a, b[:3]), np.diag(np.array(by_hand)[:, :3]), atol=1e-6)
    assert cosine(np.zeros(5), a).tolist() == [[0.0, 0.0, 0.0]]
    with pytest.raises(InputError, match="5 and 4 numbers"):
        cosine(a, b[:, :4])
    with pytest.raises(InputError, match="pairs need equal ones"):
        cosine_pairwise(a, b)
