"""The authors' parser, by its described semantics, written for the tests.

Braces are pooled, `{!...}` is in braces but not pooled, `%%name%%` is replaced by a value; every
piece is tokenised by itself without BOS or EOS added, and cut to `max_length`; all is joined.
"""

from __future__ import annotations


def pieces(template):
    """(text, in_braces) pairs in order; empty ones are dropped."""
    found, inside, current = [], False, ""
    for character in template:
        if character == "{" and not inside:
            found.append((current, False))
            current, inside = "", True
        elif character == "}" and inside:
            found.append((current, True))
            current, inside = "", False
        else:
            current += character
    found.append((current, False))
    return [(text, braces) for text, braces in found if text]


def parse(tokenizer, template, values, max_length=None):
    """Ids and the mask of pooled tokens."""
    ids, mask = [], []
    for text, braces in pieces(template):
        pooled = braces and not text.startswith("!")
        if braces:
            text = text.removeprefix("!")
            for name, value in values.items():
                text = text.replace(f"%%{name}%%", value)
        row = tokenizer(text, add_special_tokens=False)["input_ids"][:max_length]
        ids += row
        mask += [int(pooled)] * len(row)
    return ids, mask
