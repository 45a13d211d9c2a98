"""Self-test: vectors of a few texts, recomputed the slow way that nobody can get wrong.

The slow way is a plain loop: tokenise a text, write its ids twice by hand, run the transformers
model on that one prompt without padding, and take the mean over the second copy's positions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echovec.doctor.finding import Finding
from echovec.embedder import Embedder
from echovec.errors import EchovecError
from echovec.presets import one_view
from echovec.recipe import Recipe
from echovec.text.template import Template

Vectors = NDArray[np.float32]

FIRST, BETWEEN = "Rewrite the following paragraph:", ". The rewritten paragraph:"
TEXTS = (
    "The bank was steep and muddy.",
    "a",
    "A text that spells <|im_end|> and </s> and {text} is only a text.",
    "words and words " * 12,
)
_REPORT = "please report it with this whole output"


def self_test(embedder: Embedder, name: str) -> Iterator[Finding]:
    """Each property as a finding; an error in one is a finding, too."""
    checks: tuple[tuple[str, Callable[[Embedder], tuple[bool, str]]], ...] = (
        ("oracle", oracle),
        ("span", span),
        ("alone and in batch", alone),
        ("cached and not", cached),
        ("saved recipe", saved),
    )
    yield Finding("self-test", "ok", f"on {name}, {embedder.backbone.dtype}, {_engine(embedder)}")
    for topic, check in checks:
        try:
            holds, found = check(embedder)
        except (EchovecError, RuntimeError, ValueError, OSError) as error:
            holds, found = False, f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
        yield Finding(topic, "ok" if holds else "FAIL", found, "" if holds else _REPORT)


def recipe() -> Recipe:
    """The recipe of the self-test: the paper's echo prompt."""
    return one_view("echo", Template(f"{FIRST} {{text}}{BETWEEN} {{text}}"))


def oracle(embedder: Embedder) -> tuple[bool, str]:
    """Vectors equal those of a plain loop over transformers, one text at a time."""
    slow = np.stack([_by_hand(embedder, text) for text in TEXTS])
    return _close(embedder.encode(TEXTS), slow, "equal a plain loop", embedder)


def span(embedder: Embedder) -> tuple[bool, str]:
    """What is pooled is the text's own ids, once more; no special token came from a text."""
    (chunk,) = embedder.prepare(list(TEXTS), batch_tokens=1 << 30)
    batch = chunk[0]
    lead = "" if embedder.tokenizer.adds_blank else " "
    for row, place in enumerate(batch.order_S):
        start, stop = batch.spans_SK2[row, 0]
        pooled = batch.ids_T[start:stop].tolist()
        before = batch.ids_T[batch.offsets_S1[row] : start].tolist()
        (own,) = embedder.tokenizer.tokenize([lead + TEXTS[int(place)]])
        copies = sum(
            before[i : i + len(own)] == own for i in range(batch.prefix, len(before) - len(own) + 1)
        )
        if pooled != own or not copies or not embedder.tokenizer.special_ids.isdisjoint(own):
            return False, f"text {place}: the pooled tokens are not the text's second copy"
    return True, f"{len(batch)} texts, the second copy of each, no special token from a text"


def alone(embedder: Embedder) -> tuple[bool, str]:
    """A text has the same vector by itself and beside others."""
    single = np.stack([embedder.encode(text) for text in TEXTS])
    return _close(embedder.encode(TEXTS), single, "equal each alone", embedder)


def cached(embedder: Embedder) -> tuple[bool, str]:
    """Prompt beginnings and repeated texts that are kept give what a fresh engine gives."""
    first = embedder.encode(TEXTS)
    forget = getattr(embedder.backbone, "forget", None)
    if forget is not None:
        forget()
    again = embedder.encode([*TEXTS, *TEXTS[::-1]])
    kept = np.concatenate([again[: len(TEXTS)], again[len(TEXTS) :][::-1]])
    return _close(np.concatenate([first, first]), kept, "equal fresh ones", embedder)


def saved(embedder: Embedder) -> tuple[bool, str]:
    """A recipe written and read again has its fingerprint."""
    with tempfile.TemporaryDirectory() as folder:
        bound = embedder.recipe
        bound.save(folder)
        same = Recipe.load(Path(folder)).fingerprint == bound.fingerprint
    return same, f"fingerprint {bound.fingerprint}" + ("" if same else " is lost by saving")


def _by_hand(embedder: Embedder, text: str) -> Vectors:
    import torch

    tokenizer: Any
    model, tokenizer = embedder.hugging_face
    lead = "" if embedder.tokenizer.adds_blank else " "
    (own,) = embedder.tokenizer.tokenize([lead + text])
    bos = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    head = bos + embedder.tokenizer.tokenize_fixed(FIRST, after_bos=bool(bos)) + own
    head += embedder.tokenizer.tokenize_fixed(BETWEEN, after_bos=False)
    with torch.inference_mode():
        ids = torch.tensor([head + own], device=model.device)
        states = model(input_ids=ids, use_cache=False).last_hidden_state[0, len(head) :]
        z = states.float().mean(dim=0)
    vector: Vectors = (z / z.norm()).cpu().numpy()
    return vector


def _close(a: Vectors, b: Vectors, said: str, embedder: Embedder) -> tuple[bool, str]:
    difference = float(np.abs(a - b).max())
    # Rounding in narrower dtypes shows in the second digit of a vector's numbers.
    limit = 1e-5 if embedder.backbone.dtype in ("float32", "float64") else 2e-2
    return difference <= limit, f"{said}: largest difference {difference:.1e} (limit {limit:g})"


def _engine(embedder: Embedder) -> str:
    return type(embedder.backbone).__name__.removesuffix("Backbone").lower() + " engine"
