"""Search a handful of notes by meaning, and look at the margin of the first answer.

python examples/search_notes.py "when do trains leave"
"""

from __future__ import annotations

import sys

from echovec import Embedder

NOTES = (
    "Departures from platform 3: 7:45, 8:15 and 8:45 on weekdays.",
    "Sourdough: feed the starter the evening before, bake at 240 degrees.",
    "The landlord's number is on the fridge; the boiler is his to repair.",
    "Passwords are in the manager, never in this file.",
)


def main(model: Embedder, question: str) -> str:
    """The note that answers best."""
    scores = model.similarity(model.encode_query(question), model.encode_document(NOTES))
    order = scores.ravel().argsort()[::-1]
    for place in order:
        print(f"{scores.ravel()[place]:.3f}  {NOTES[place]}")
    return NOTES[order[0]]


if __name__ == "__main__":
    asked = " ".join(sys.argv[1:]) or "when do trains leave"
    main(Embedder.load(recipe="best"), asked)
