"""Cloze: pairs out of unlabelled documents, a sentence and the text that it was taken from.

The inverse cloze task (Lee et al., Latent Retrieval for Weakly Supervised Open Domain Question
Answering, arXiv 1906.00300, section 4): which text does this sentence belong to? Simplified: one
sentence of each document, drawn once from the seed, in place of another one in each epoch.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable

KEPT = 0.1
"""How often the sentence stays in its text, so that words in common count too (the paper's)."""

_WORDS, _LETTERS = 4, 12
"""A shorter sentence is a heading, a name, or what an abbreviation has cut off; letters count in
scripts without spaces."""

_OPEN, _SHUT = r"\"'(\[{“‘„‚«»‹›¿¡", r"\"')\]}”’“‘»«›‹"
"""What may stand before a sentence's first word and after its end; languages differ in which quote
opens. French has a blank inside its guillemets."""

_END = re.compile(
    rf"(?:(?<=[.!?])|(?<=[.!?][{_SHUT}])|(?<=[.!?][{_SHUT}]{{2}})|(?<=[.!?]\s»))"
    rf"\s+(?=(?:«\s|[{_OPEN}]){{0,3}}(?P<next>\w))"
    r"|(?<=[。！？])(?![。！？」』”’）》])"
)
"""Where a sentence may end, and the character that the next one would begin with."""


def sentences(text: str) -> list[str]:
    """The sentences of a text, cut where one ends and a capital or digit of any script comes."""
    pieces, start = [], 0
    for end in _END.finditer(text):
        first = end["next"]
        if first is None or first.isupper() or first.istitle() or first.isdecimal():
            pieces.append(text[start : end.start()].strip())
            start = end.end()
    return [piece for piece in [*pieces, text[start:].strip()] if piece]


def cloze(texts: Iterable[str], *, seed: int = 0) -> tuple[list[tuple[str, str]], int]:
    """A sentence of each text, and the text without it (one time in ten with it).

    Args:
        texts: documents; one that comes again counts once.
        seed: what is drawn with.

    Returns:
        The pairs in the order of the texts, and how many texts have no sentence to take out.
    """
    drawn = random.Random(seed)
    pairs: list[tuple[str, str]] = []
    passed = 0
    for text in dict.fromkeys(texts):
        pieces = sentences(text)
        long = [i for i, piece in enumerate(pieces) if _long(piece)]
        if not long or len(pieces) < 2:
            passed += 1
            continue
        place = drawn.choice(long)
        rest = pieces if drawn.random() < KEPT else pieces[:place] + pieces[place + 1 :]
        pairs.append((pieces[place], " ".join(rest)))
    return pairs, passed


def _long(piece: str) -> bool:
    words = len(piece.split())
    return words >= _WORDS or (words == 1 and len(piece) >= _LETTERS)
