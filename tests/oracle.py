"""The oracle: an embedder written apart from the package, as naively as can be.

One text at a time, the plain model in float32, no padding, no batching, ids joined by hand. It
knows the prompts as strings only and shares no code with `echovec`.
"""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import torch


def ids_and_copies(tokenizer, prompt, text, *, eos=False, instruction=None, budget=512):
    """Ids of the whole prompt, the half-open positions of each copy, and those of the end."""

    def plain(piece):
        return tokenizer.encode(piece, add_special_tokens=False, split_special_tokens=True)

    def own(piece, first):
        if blank_added:
            piece = piece.removeprefix(" ")
        if not piece:
            return []
        if first and bos is not None:
            return tokenizer.encode(bos + piece, add_special_tokens=False)[1:]
        return tokenizer.encode(piece, add_special_tokens=False)

    bos = tokenizer.bos_token
    blank_added = tokenizer.tokenize("x")[0][0] in "▁Ġ"
    *parts, tail = re.split(r"\{text(:bare)?\}", prompt)
    before, wordings = parts[::2], parts[1::2]
    blank = any(part.endswith(" ") for part in before) and not blank_added
    forms = [bare(text) if wording else text for wording in wordings]
    bodies = [plain(" " + form if blank else form)[:budget] for form in forms]
    ids = [] if bos is None else [tokenizer.bos_token_id]
    copies = []
    for number, (part, body) in enumerate(zip(before, bodies, strict=True)):
        head, mark, rest = part.removesuffix(" ").partition("{instruction,}")
        ids += own(head, number == 0)
        ids += plain(instruction + ",")[:budget] + own(rest, False) if mark else []
        copies.append((len(ids), len(ids) + len(body)))
        ids += body
    ids += own(tail, False)
    end = (copies[-1][1], len(ids))
    if eos:
        ids.append(tokenizer.eos_token_id)
        copies[-1] = (copies[-1][0], len(ids))
    return ids, copies, end


def bare(text):
    """The words of a text in lower case, one blank between, marks around them gone one by one."""
    words = []
    for word in text.lower().split():
        while word and unicodedata.category(word[0])[0] == "P":
            word = word[1:]
        while word and unicodedata.category(word[-1])[0] == "P":
            word = word[:-1]
        words += [word] if word else []
    return " ".join(words) or text


def vectors(model, tokenizer, prompt, text, *, copy=-1, pool_end=False, layer=None, **options):
    """The unit vector of one text under each pooling; float64 sums over the float32 states."""
    ids, copies, end = ids_and_copies(tokenizer, prompt, text, **options)
    start, stop = end if pool_end else copies[copy]
    with torch.no_grad():
        output = model(torch.tensor([ids]), use_cache=False, output_hidden_states=layer is not None)
    states = output.last_hidden_state if layer is None else output.hidden_states[layer]
    rows = states[0, start:stop].double().numpy()
    weights = range(1, len(rows) + 1)
    rare = [1e-4 / (1e-4 + 0.1 / (place + 1)) for place in ids[start:stop]]  # Zipf's law
    pooled = {
        "mean": sum(rows) / len(rows),
        "lasttoken": rows[-1],
        "weightedmean": sum(w * row for w, row in zip(weights, rows, strict=True)) / sum(weights),
        "sif": sum(w * row for w, row in zip(rare, rows, strict=True)) / sum(rare),
    }
    return {k: (z / np.sqrt((z * z).sum())).astype(np.float32) for k, z in pooled.items()}
