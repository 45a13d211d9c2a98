"""Kinds: how a model is brought to write texts of several kinds, for calibration.

Texts of one kind differ in what they say. Texts of several kinds differ in form too: a caption, a
question, a headline. What differs by form only is what two texts that say the same may differ by,
so a calibration that has seen several kinds counts it less, or takes it out (`remove_kinds` of
`echovec.vector.calibrate`). On the default model that is worth 3 points of sentence similarity on
development data (docs/calibrate.md).

An opening is the beginning of a list; the model writes the next line of it. The examples in it are
made up here, so no data is behind any text. Lists suit a model that was only ever trained to go on
with a text as well as one that chats.
"""

from __future__ import annotations

from collections.abc import Mapping

KINDS: Mapping[str, str] = {
    "free": "",
    "caption": (
        "Short descriptions of photographs, one on each line:\n"
        "- A man in a red shirt rides a bicycle down a hill.\n"
        "- Two children are playing in the snow.\n-"
    ),
    "question": (
        "Questions that people asked, one on each line:\n"
        "- What is the capital of Peru?\n"
        "- Who wrote the first book about the history of the railway?\n-"
    ),
    "headline": (
        "Headlines from newspapers of all times, one on each line:\n"
        "- Storm leaves thousands without power\n"
        "- Parliament votes against the new tax\n-"
    ),
    "title": (
        "Titles of messages in forums about all kinds of subjects, one on each line:\n"
        "- Sorting a list of dates in a spreadsheet\n"
        "- Best lens for portraits?\n-"
    ),
    "message": (
        "Messages that people wrote, one on each line:\n"
        "- i lost my card yesterday, what should I do now\n"
        "- so happy to see everybody again!\n-"
    ),
    "fact": (
        "Sentences from an encyclopedia, one on each line:\n"
        "- The river rises in the mountains in the north of the country and flows through three "
        "lakes.\n"
        "- She was elected to the academy in 1912 for her work on the structure of crystals.\n-"
    ),
}
"""What each kind of text begins after; "free" begins after nothing and ends at its length. To add a
kind, add a row."""

OF_ONE_KIND = ("free",)
"""Texts as the model writes them from nothing."""
