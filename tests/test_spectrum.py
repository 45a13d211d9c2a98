"""EmbedFilter against an SVD, and the unembedding matrix wherever it lies."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from echovec import InputError, ModelError
from echovec.model.head import unembedding
from echovec.vector.spectrum import embed_filter, kept
from families import causal_model

RNG = np.random.default_rng(5)
W = (RNG.normal(size=(50, 8)) * [9, 7, 5, 4, 3, 2, 1, 0.5]) @ np.linalg.qr(RNG.normal(size=(8, 8)))[
    0
]
Z = RNG.normal(size=(6, 8)).astype(np.float32)


@pytest.mark.parametrize(
    ("keep", "window", "rows"),
    [
        (0.5, "middle", slice(2, 6)),
        (0.5, "top", slice(0, 4)),
        (0.25, "middle", slice(3, 5)),
        (1.0, "middle", slice(0, 8)),
    ],
)
def test_the_filter_is_a_window_of_the_right_singular_vectors(keep, window, rows):
    """Narrow: the rows of an SVD's Vh up to sign; wide: the projection onto them."""
    _, _, vh = np.linalg.svd(W, full_matrices=False)
    z = torch.from_numpy(Z)
    narrow = embed_filter(W, keep=keep, window=window, narrow=True)(z).numpy()
    assert np.allclose(np.abs(narrow), np.abs(Z @ vh[rows].T), atol=1e-5)
    wide = embed_filter(W, keep=keep, window=window)(z).numpy()
    assert np.allclose(wide, Z @ vh[rows].T @ vh[rows], atol=1e-5)
    assert np.allclose(wide @ wide.T, narrow @ narrow.T, atol=1e-4)
    if keep < 1:
        other = Z @ np.delete(vh, np.r_[rows], axis=0).T @ np.delete(vh, np.r_[rows], axis=0)
        assert not np.allclose(wide, other, atol=0.1), "control: the axes that are dropped"
    else:
        assert np.allclose(wide, Z, atol=1e-5)


def test_options_out_of_range_are_refused():
    """A window has to keep something, at one of two places."""
    for options in ({"keep": 0.0}, {"keep": 1.5}, {"window": "bottom"}):
        with pytest.raises(InputError, match="; "):
            embed_filter(W, **options)
    assert kept(576, 0.5, "middle") == (144, 432)


def test_a_loaded_head_a_tied_one_and_one_in_the_files_are_found(tmp_path):
    """The head is the model's own, or its embeddings where tied, or read from its folder."""
    model = copy.deepcopy(causal_model("llama"))
    model.config.tie_word_embeddings = False
    head = model.lm_head.weight.detach().numpy()
    assert np.array_equal(unembedding(model, None), head)
    model.save_pretrained(tmp_path)
    assert np.array_equal(unembedding(model.base_model, tmp_path), head)
    assert not np.array_equal(head, model.base_model.embed_tokens.weight.detach().numpy())
    with pytest.raises(ModelError, match="is not loaded, not tied to its embeddings"):
        unembedding(model.base_model, None)
    tied = copy.deepcopy(causal_model("gpt2")).base_model
    assert np.array_equal(unembedding(tied, tmp_path / "no"), tied.wte.weight.detach().numpy())
