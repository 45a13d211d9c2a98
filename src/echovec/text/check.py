"""What may be embedded: any text that is not empty and is valid Unicode.

Whitespace, NUL, emoji and half a thousand combining marks are texts. Nothing is stripped or
normalised here: the tokenizer sees what the user typed.
"""

from __future__ import annotations


def text_problem(text: object) -> str | None:
    """Say why `text` cannot be embedded, as half a sentence ("is empty"), or None if it can.

    The half sentence is meant to follow a place: "texts[3] is empty", "notes.txt:12 is empty".
    """
    if not isinstance(text, str):
        return f"is {type(text).__name__} ({_short(text)}), not a text"
    if not text:
        return "is empty"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        lone = ord(text[error.start])
        return f"is not valid Unicode: a lone surrogate U+{lone:04X} at character {error.start}"
    return None


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else shown[:37] + "..."
