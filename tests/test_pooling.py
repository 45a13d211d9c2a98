"""Pooling against a naive loop, with gradients; similarity beside it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from echovec import InputError, RecipeError, Template, View
from echovec.vector.pooling import ATTENTION_POOLINGS, CHUNK, POOLINGS, TOKEN_POOLINGS
from echovec.vector.similarity import cosine, cosine_pairwise
from echovec.vector.view import ATTENTION_POOLING_NAMES

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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_sif_counts_a_token_by_how_rare_it_is(dtype):
    """Its weight is a / (a + p), with Zipf's p of its place in the vocabulary; gradients too."""
    pool, ids_T = TOKEN_POOLINGS["sif"], torch.tensor([0, 9, 99, 999, 9_999, 99_999] * 2 + [7])
    h_TD = torch.randn(13, 8, generator=torch.Generator().manual_seed(1)).to(dtype)
    z_SD = pool(h_TD, SPANS, ids_T)
    assert z_SD.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    for s, (start, stop) in enumerate(SPANS.tolist()):
        weights = [1e-4 / (1e-4 + 0.1 / (i + 1)) for i in ids_T[start:stop].tolist()]
        rows = zip(weights, h_TD[start:stop].double(), strict=True)
        by_hand = sum(w * row for w, row in rows) / sum(weights)
        assert torch.allclose(z_SD[s].double(), by_hand, atol=1e-6)
    assert not torch.allclose(z_SD, POOLINGS["mean"](h_TD, SPANS), atol=1e-2), "control: a mean"
    h_TD = torch.randn(13, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda h: pool(h, SPANS, ids_T), (h_TD,), atol=1e-4)


def weights_of(spans_S2):
    count = int((spans_S2[:, 1] - spans_S2[:, 0]).sum())
    return torch.rand(count, generator=torch.Generator().manual_seed(2)) / 3


def test_names_of_poolings_by_attention_are_one_table():
    """The names known without torch are the rows of the table of functions."""
    assert tuple(ATTENTION_POOLINGS) == ATTENTION_POOLING_NAMES


def test_attended_is_the_weighted_mean():
    """Each token counts by its weight; equal weights give the plain mean."""
    h_TD = torch.randn(13, 8, generator=torch.Generator().manual_seed(1))
    w_R = weights_of(SPANS)
    z_SD = ATTENTION_POOLINGS["attended"](h_TD, SPANS, w_R, 1.5)
    at = 0
    for s, (start, stop) in enumerate(SPANS.tolist()):
        w = w_R[at : at + stop - start].double()
        at += stop - start
        by_hand = (h_TD[start:stop].double() * w[:, None]).sum(0) / w.sum()
        assert torch.allclose(z_SD[s].double(), by_hand, atol=1e-6)
    even = ATTENTION_POOLINGS["attended"](h_TD, SPANS, torch.ones_like(w_R), 1.5)
    assert torch.allclose(even, POOLINGS["mean"](h_TD, SPANS), atol=1e-6)
    assert not torch.allclose(z_SD, even, atol=1e-2)


@pytest.mark.parametrize("threshold", [0.5, 1.5, 100.0])
def test_selected_keeps_what_is_above_the_threshold_and_one_token_at_least(threshold):
    """Tokens of threshold times the mean share are averaged; of a flat text, the top token is."""
    spans_S2 = torch.tensor([[0, 3], [5, 6], [6, 6 + CHUNK + 44]])
    h_TD = torch.randn(400, 8, generator=torch.Generator().manual_seed(1))
    w_R = weights_of(spans_S2)
    z_SD = ATTENTION_POOLINGS["selected"](h_TD, spans_S2, w_R, threshold)
    at = 0
    for s, (start, stop) in enumerate(spans_S2.tolist()):
        length = stop - start
        w = w_R[at : at + length].tolist()
        at += length
        runs = 1 if length <= CHUNK else 2
        kept = [j for j in range(length) if w[j] > threshold * runs / length] or [w.index(max(w))]
        by_hand = h_TD[[start + j for j in kept]].double().mean(0)
        assert torch.allclose(z_SD[s].double(), by_hand, atol=1e-6)


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
