"""Embedders for the tests of plugins: one in memory, and a folder of a saved one."""

from __future__ import annotations

from pathlib import Path

from echovec.embedder import Embedder
from families import causal_model, family_tokenizer

TEXTS = ["a cat sat on the mat", "the bank was steep", "an open window"]


def embedder(recipe: str = "echo") -> Embedder:
    """A tiny random model of the Llama family."""
    return Embedder.from_model(causal_model("llama"), family_tokenizer("llama"), recipe)


def saved(folder: Path, recipe: str = "echo") -> str:
    """The folder of a saved embedder, weights included."""
    return str(embedder(recipe).save(folder / recipe))


def norms(vectors) -> set[float]:
    """The lengths of vectors, rounded."""
    return {round(sum(x * x for x in vector) ** 0.5, 4) for vector in vectors}
