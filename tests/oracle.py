"""The oracle: an embedder written apart from the package, as naively as can be.

One text at a time, the plain model in float32, no padding, no batching, ids joined by hand. It
knows the prompts as strings only and shares no code with `echovec`.
"""

from __future__ import annotations

import numpy as np
import torch


def ids_and_copies(
    tokenizer, prompt, text, *, eos=False, instruction=None, budget=512, blank_added=None
):
    """Ids of the whole prompt, and the half-open positions of each copy."""

    def plain(piece):
        return tokenizer.encode(piece, add_special_tokens=False, split_special_tokens=True)

    def own(piece):
        return tokenizer.encode(piece, add_special_tokens=False, split_special_tokens=False)

    if blank_added is None:
        blank_added = tokenizer.tokenize("x")[0][0] in "▁Ġ"
    around = prompt.split("{text}")
    blank = any(part.endswith(" ") for part in around[:-1])
    body = plain((" " if blank and not blank_added else "") + text)[:budget]
    ids, copies = [], []
    bos = tokenizer.bos_token
    if bos is not None:
        ids.append(tokenizer.bos_token_id)
    for number, part in enumerate(around):
        if number < len(around) - 1 and part.endswith(" "):
            part = part[:-1]
        before, mark, after = part.partition("{instruction,}")
        fixed = [before, after] if mark else [part]
        for place, piece in enumerate(fixed):
            if place == 1:
                ids += plain(instruction + ",")[:budget]
            if blank_added and piece.startswith(" "):
                piece = piece[1:]
            if not piece:
                continue
            if number == 0 and place == 0 and bos is not None:
                ids += own(bos + piece)[1:]
            else:
                ids += own(piece)
        if number < len(around) - 1:
            copies.append((len(ids), len(ids) + len(body)))
            ids = ids + body
    end = (copies[-1][1], len(ids))
    if eos:
        ids = [*ids, tokenizer.eos_token_id]
        if copies[-1][1] == end[1]:
            copies[-1] = (copies[-1][0], len(ids))
    return ids, copies, end


def vectors(model, tokenizer, prompt, text, *, copy=-1, pool_end=False, layer=None, **options):
    """The unit vector of one text under each pooling; float64 sums over the float32 states."""
    ids, copies, end = ids_and_copies(tokenizer, prompt, text, **options)
    start, stop = end if pool_end else copies[copy]
    with torch.no_grad():
        output = model(torch.tensor([ids]), use_cache=False, output_hidden_states=layer is not None)
    states = output.last_hidden_state if layer is None else output.hidden_states[layer]
    rows = states[0, start:stop].double().numpy()
    weights = range(1, len(rows) + 1)
    pooled = {
        "mean": sum(rows) / len(rows),
        "lasttoken": rows[-1],
        "weightedmean": sum(w * row for w, row in zip(weights, rows, strict=True)) / sum(weights),
    }
    return {k: (z / np.sqrt((z * z).sum())).astype(np.float32) for k, z in pooled.items()}
