"""The llama.cpp backbone: a GGUF file as it is, near the same file widened."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from echovec import Embedder, InputError, ModelError
from echovec.model import llama_cpp, store
from echovec.model.llama_cpp import load_llama_cpp
from echovec.text.tokenizer import HFTokenizer
from tiny_gguf import write_tiny_gguf

TEXTS = ["a cat sat on the mat", "The bank was steep and muddy.", "x" * 300, "words " * 90]


def test_a_missing_file_is_named(tmp_path):
    """No such file: said before anything is loaded."""
    with pytest.raises(ModelError, match="no such file"):
        load_llama_cpp(tmp_path / "none.gguf")


@pytest.mark.parametrize("amx", [True, False])
def test_on_amx_no_copy_of_the_weights_is_made(monkeypatch, amx):
    """llama.cpp's own default is back afterwards; elsewhere it stays as it is."""
    monkeypatch.setattr(llama_cpp, "_has_amx", lambda: amx)

    def defaults():
        return SimpleNamespace(use_extra_bufts=True)

    inner = SimpleNamespace(llama_model_default_params=defaults)
    library = SimpleNamespace(llama_cpp=inner)
    with llama_cpp._weights_as_they_are(library):
        assert inner.llama_model_default_params().use_extra_bufts is not amx
    assert inner.llama_model_default_params is defaults


def test_it_gives_the_widened_models_vectors(tmp_path, monkeypatch):
    """Vectors of a made-up file are those of its converted (float16) copy, to its rounding."""
    pytest.importorskip("llama_cpp", reason="the extra gguf")
    monkeypatch.setenv("ECHOVEC_CACHE", str(tmp_path / "cache"))
    file = write_tiny_gguf(tmp_path / "tiny.gguf")
    backbone, tokenizer = load_llama_cpp(file, threads=1)
    ours = Embedder("repeat-only", HFTokenizer(tokenizer), backbone)
    widened = Embedder.load(file, "repeat-only")
    texts = ["the cat", "a", "words and words"]
    np.testing.assert_allclose(ours.encode(texts), widened.encode(texts), atol=1e-2)
    alone = np.stack([ours.encode(text) for text in texts])
    np.testing.assert_allclose(alone, ours.encode(texts), atol=1e-5)
    with pytest.raises(InputError, match="last layer only"):
        ours.states(texts, [0])


@pytest.mark.slow
def test_it_is_near_the_widened_model(default_model):
    """Cosines above 0.95 with the float32 engine; alone equals in a batch; last layer only."""
    pytest.importorskip("llama_cpp", reason="the extra gguf")
    file = store._packaged_gguf()
    if file is None:
        pytest.skip("the GGUF file itself is not here")
    backbone, tokenizer = load_llama_cpp(file, threads=1)
    ours = Embedder("echo", HFTokenizer(tokenizer), backbone)
    widened = Embedder.load(default_model)
    a, b = ours.encode(TEXTS), widened.encode(TEXTS)
    assert (a * b).sum(axis=1).min() > 0.95
    alone = np.stack([ours.encode(text) for text in TEXTS])
    np.testing.assert_allclose(alone, a, atol=2e-2)
    with pytest.raises(InputError, match="last layer only"):
        ours.states(TEXTS, [3])
