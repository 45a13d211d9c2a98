"""Examples: texts with a query and a title each, for a model that shall write them for others.

All are made up here, so no data is behind what a model writes after them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FORMS: Mapping[str, str] = {"query": "Search query", "title": "Title"}
"""What can be written for a text, and how the prompt calls it. To add a form, add a row here and a
field of its name to `Example`."""


@dataclass(frozen=True)
class Example:
    """A text, and what others would ask for it."""

    text: str
    query: str
    title: str

    def asked(self, form: str) -> str:
        """What is written for it in a form."""
        return str(getattr(self, form))


EXAMPLES = (
    Example(
        "Standard tuning from the lowest string to the highest is E, A, D, G, B, E. Pluck one "
        "string at a time, watch the tuner and turn the peg slowly until the needle is in the "
        "middle.",
        "how to tune a guitar",
        "Tuning your guitar",
    ),
    Example(
        "Adult blue whales are usually 24 to 27 meters long and weigh between 100 and 150 "
        "tonnes; females are a little larger than males.",
        "average size of a blue whale",
        "How large blue whales are",
    ),
    Example(
        "The Treaty of Tordesillas, signed in 1494, divided the newly discovered lands outside "
        "Europe between Portugal and Castile along a meridian west of the Cape Verde islands.",
        "what did the treaty of tordesillas do",
        "How Spain and Portugal split the New World",
    ),
    Example(
        "Iron is needed to make hemoglobin. People who lack it are often tired and pale, short "
        "of breath, and may notice brittle nails or a sore tongue.",
        "low iron symptoms",
        "Signs that you lack iron",
    ),
    Example(
        "A mutual fund pools money from many investors and buys stocks, bonds or other "
        "securities. Each share of the fund is a part of all of its holdings.",
        "mutual fund definition",
        "Mutual funds explained",
    ),
    Example(
        "To undo the last commit but keep your changes, run git reset --soft HEAD~1. The files "
        "stay as they are and can be committed again.",
        "undo last commit git",
        "Taking back a commit without losing work",
    ),
    Example(
        "Bread rises because yeast eats the sugars in the flour and gives off carbon dioxide, "
        "which is caught in the stretchy dough as small bubbles.",
        "why does bread rise",
        "What yeast does in dough",
    ),
    Example(
        "The capital moved from Kyoto to Tokyo in 1868, when the emperor Meiji took up "
        "residence in what had been the castle of the shoguns in Edo.",
        "when did tokyo become capital of japan",
        "Tokyo becomes the capital",
    ),
    Example(
        "Plant bulbs in autumn, about three times as deep as they are tall, with the pointed "
        "end up. Water them once and cover the bed with leaves before the first hard frost.",
        "how deep to plant tulip bulbs",
        "Planting bulbs for spring",
    ),
    Example(
        "A tenant who moves out early usually owes rent until a new tenant is found, but the "
        "landlord has to make a reasonable effort to let the apartment again.",
        "breaking a lease early",
        "Leaving before the lease ends",
    ),
    Example(
        "In SQL an index is kept beside the table, sorted by one of its columns, so that a row "
        "can be found without reading all the others. It makes reading faster and writing "
        "slower.",
        "what is an index in sql",
        "Why queries need indexes",
    ),
    Example(
        "Noise from the front wheels that grows louder in turns often comes from a worn wheel "
        "bearing. Have it replaced soon; a bearing that fails can lock the wheel.",
        "car humming noise when turning",
        "Worn wheel bearings",
    ),
)
