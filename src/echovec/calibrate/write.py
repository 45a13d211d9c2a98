"""Write: a language model writes short texts by itself, to be calibrated on.

Nobody who wants vectors has a calibration corpus at hand, but the model can write one: it starts
from the marker that stood between the documents it was trained on, goes on from the opening of a
kind of text (kinds.py), and each token is drawn from the most likely ones that make up `top_p` of
the probability (nucleus sampling, Holtzman et al., arXiv 1904.09751).

The draws of a text depend on the seed and on its number only, never on the batch: the first hundred
of a thousand texts are the hundred texts of a shorter run (up to rounding of the logits, so on one
machine, in one dtype and with as many threads). Shapes: S texts written at once, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from echovec.calibrate.kinds import KINDS
from echovec.errors import InputError, ModelError
from echovec.text.check import text_problem
from echovec.text.tokenizer import HFTokenizer

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 64
"""Texts written at once: more are hardly faster on a CPU, and their caches need memory."""

MOST_DRAWS = 50
"""How often one text is drawn again before it is the model's fault."""

_LIKELY = 2_048
"""Tokens that are sorted first; the whole vocabulary only where these are not probable enough."""

_BETWEEN_DOCUMENTS = "<|endoftext|>"

_OVER = -1
"""In place of a token, once a text is over."""


@dataclass(frozen=True)
class Writing:
    """How texts are written; the defaults are those that docs/calibrate.md has figures for.

    Raises:
        InputError: a number is out of its range.
    """

    count: int = 1_024
    """How many texts."""

    shortest: int = 12
    """Tokens of the shortest text; lengths are drawn evenly."""

    longest: int = 40
    """Tokens of the longest text; a line of a list may be shorter than `shortest`."""

    kinds: tuple[str, ...] = tuple(KINDS)
    """Rows of `echovec.calibrate.kinds.KINDS`, which take turns: text n is of kind n modulo their
    number."""

    top_p: float = 0.95
    """Only the most likely tokens that make up this part of the probability are drawn."""

    temperature: float = 1.0
    """Below 1 likely tokens become likelier, above 1 unlikely ones."""

    seed: int = 0
    """What everything is drawn with."""

    def __post_init__(self) -> None:
        if self.count < 2:
            raise InputError(f"count={self.count}; calibration needs 2 texts at least")
        if not 1 <= self.shortest <= self.longest:
            raise InputError(
                f"texts of {self.shortest} to {self.longest} tokens; give 1 or more, the longest "
                "not below the shortest"
            )
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p={self.top_p}; give a number above 0, at most 1")
        if not self.temperature > 0:
            raise InputError(f"temperature={self.temperature}; give a number above 0")
        if self.seed < 0:
            raise InputError(f"seed={self.seed}; give 0 or more")
        if not self.kinds or not set(self.kinds) <= set(KINDS):
            raise InputError(f"kinds={self.kinds}; give some of {', '.join(KINDS)}")

    def kind(self, number: int) -> str:
        """The kind of the text of this number."""
        return self.kinds[number % len(self.kinds)]


def write_texts(
    model: Any,
    tokenizer: HFTokenizer,
    writing: Writing,
    numbers: Sequence[int],
    *,
    advance: Callable[[int], None] = lambda count: None,
) -> tuple[list[str], int]:
    """Write the texts of these numbers.

    A text that cannot be embedded (blank, or broken Unicode) is drawn again.

    Args:
        model: a Hugging Face causal language model with its head.
        tokenizer: its tokenizer.
        writing: how; its `count` plays no part here.
        numbers: which texts, 0 and up.
        advance: called with the number of texts that have just been finished.

    Returns:
        The texts in the order of `numbers`, and how many were drawn again.

    Raises:
        ModelError: there is no marker to start from, or what the model writes cannot be embedded.
    """
    start = start_id(tokenizer)
    never = _never_drawn(tokenizer, int(model.get_output_embeddings().weight.shape[0]))
    openings = _openings(tokenizer, writing, start)
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    room = writing.longest + max(map(len, openings.values())) - 1
    if limit and room >= limit:
        raise InputError(
            f"longest={writing.longest} after the longest opening takes {room} tokens; this model "
            f"takes {limit}"
        )
    ends = _line_ends(tokenizer, len(never)) if any(map(_listed, writing.kinds)) else None
    texts: dict[int, str] = {}
    waiting = [_Draw(writing, number, 0) for number in numbers]
    redrawn = 0
    while waiting:
        # Alike lengths together: nobody waits for the longest text of all.
        waiting.sort(key=lambda draw: draw.length)
        again = []
        for draws in _alike(waiting):
            opening = openings[draws[0].kind]
            end = ends if _listed(draws[0].kind) else None
            wrote = _write(model, opening, never, writing, draws, end)
            done = 0
            for draw, ids in zip(draws, wrote, strict=True):
                text = _as_text(tokenizer, ids, line=end is not None)
                if text is not None:
                    texts[draw.number] = text
                    done += 1
                elif draw.attempt == MOST_DRAWS:
                    raise ModelError(
                        f"text {draw.number} was blank {MOST_DRAWS} times: this model writes "
                        "nothing that can be embedded; calibrate on texts of your own"
                    )
                else:
                    again.append(_Draw(writing, draw.number, draw.attempt + 1))
            advance(done)
        redrawn += len(again)
        waiting = again
    return [texts[number] for number in numbers], redrawn


def start_id(tokenizer: HFTokenizer) -> int:
    """The token to start from: what stood between documents in training.

    `<|endoftext|>` where the vocabulary has it (chat models name other tokens as BOS and EOS, but
    their documents were apart by this), else BOS, else EOS.
    """
    known = tokenizer.inner.get_vocab().get(_BETWEEN_DOCUMENTS)
    for candidate in (known, tokenizer.bos_id, tokenizer.eos_id):
        if candidate is not None:
            return int(candidate)
    raise ModelError(
        "this tokenizer has no BOS and no EOS to start from; calibrate on texts of your own"
    )


def sample(logits_SV: Tensor, u_S: Tensor, *, top_p: float, temperature: float) -> Tensor:
    """One token for each row, by nucleus sampling: ids_S.

    Tokens are laid on a line from the likeliest on, each as long as its probability, until `top_p`
    is reached or passed; `u` says, from 0 to 1, where on that line the token is.

    Args:
        logits_SV: float32 logits; minus infinity for a token that may not be drawn.
        u_S: a number from 0 (included) to 1 (excluded) for each row.
        top_p: above 0, at most 1.
        temperature: what logits are divided by.
    """
    import torch

    p_SV = torch.softmax(logits_SV.float() / temperature, dim=1)
    likely_SK, ids_SK = torch.topk(p_SV, min(_LIKELY, p_SV.shape[1]), dim=1)
    chosen_S = _on_line(likely_SK, ids_SK, u_S, top_p)
    short = (likely_SK.sum(dim=1) < top_p).nonzero()[:, 0]
    if len(short):  # sorting a whole vocabulary takes longer than running a small model
        all_SV, ids_SV = torch.sort(p_SV[short], dim=1, descending=True)
        chosen_S[short] = _on_line(all_SV, ids_SV, u_S[short], top_p)
    return chosen_S


def _on_line(p_SK: Tensor, ids_SK: Tensor, u_S: Tensor, top_p: float) -> Tensor:
    """The id at the place `u` of each row's line; probabilities in descending order."""
    import torch

    until_SK = p_SK.double().cumsum(dim=1)
    inside_SK = until_SK - p_SK.double() < top_p
    reach_S1 = torch.where(inside_SK, until_SK, 0.0).amax(dim=1, keepdim=True)
    place_S1 = torch.searchsorted(until_SK, u_S[:, None].double() * reach_S1, right=True)
    last_S1 = inside_SK.sum(dim=1, keepdim=True) - 1  # rounding may point behind the line's end
    return ids_SK.gather(1, torch.minimum(place_S1, last_S1))[:, 0]


class _Draw:
    """One attempt at one text: its length and the numbers that its tokens are drawn with."""

    def __init__(self, writing: Writing, number: int, attempt: int) -> None:
        source = np.random.default_rng([writing.seed, number, attempt])
        self.number = number
        self.kind = writing.kind(number)
        self.attempt = attempt
        length = int(source.integers(writing.shortest, writing.longest + 1))
        # A line of a list ends where the model ends it.
        self.length = writing.longest if _listed(self.kind) else length
        self.u: NDArray[np.float64] = source.random(writing.longest)


def _listed(kind: str) -> bool:
    """Whether texts of a kind are lines of a list."""
    return bool(KINDS[kind])


def _alike(draws: Sequence[_Draw]) -> Iterator[list[_Draw]]:
    """Batches of one kind each, in the order given."""
    by_kind: dict[str, list[_Draw]] = {}
    for draw in draws:
        by_kind.setdefault(draw.kind, []).append(draw)
    for own in by_kind.values():
        for first in range(0, len(own), BATCH):
            yield own[first : first + BATCH]


def _write(
    model: Any,
    opening: Sequence[int],
    never: Tensor,
    writing: Writing,
    draws: Sequence[_Draw],
    ends: Tensor | None,
) -> list[list[int]]:
    """What each draw writes after the opening: up to its length or the token that ends its line."""
    import torch

    device = model.device
    never = never.to(device)
    ids_SL = torch.tensor([list(opening)] * len(draws), device=device)
    wrote: list[Tensor] = []
    over_S = torch.zeros(len(draws), dtype=torch.bool, device=device)
    past = None
    with torch.inference_mode():
        for step in range(max(draw.length for draw in draws)):
            # A family that keeps no cache gets all of it again.
            given = ids_SL if past is None else ids_SL[:, -1:]
            out = model(input_ids=given, past_key_values=past, use_cache=True)
            past = getattr(out, "past_key_values", None)
            logits_SV = out.logits[:, -1].float().masked_fill(never, -torch.inf)
            u_S = torch.tensor([draw.u[step] for draw in draws], device=device)
            next_S = sample(logits_SV, u_S, top_p=writing.top_p, temperature=writing.temperature)
            ids_SL = torch.cat([ids_SL, next_S[:, None]], dim=1)
            wrote.append(next_S.masked_fill(over_S, _OVER))
            if ends is not None:
                over_S |= ends.to(device)[next_S]
            if bool(over_S.all()):
                break
    rows: list[list[int]] = torch.stack(wrote, dim=1).tolist()
    return [
        [i for i in row[: draw.length] if i != _OVER] for row, draw in zip(rows, draws, strict=True)
    ]


def _openings(tokenizer: HFTokenizer, writing: Writing, start: int) -> dict[str, list[int]]:
    """The ids that texts of each kind begin after, the marker before them included."""
    kinds = list(dict.fromkeys(writing.kinds))
    given = [kind for kind in kinds if KINDS[kind]]
    ids = dict(zip(given, tokenizer.tokenize([KINDS[kind] for kind in given]), strict=True))
    return {kind: [start, *map(int, ids.get(kind, ()))] for kind in kinds}


def _line_ends(tokenizer: HFTokenizer, size: int) -> Tensor:
    """Which tokens have the end of a line in them."""
    import torch

    known = range(min(size, len(tokenizer.inner)))
    pieces = tokenizer.inner.batch_decode([[i] for i in known], skip_special_tokens=False)
    ends = torch.zeros(size, dtype=torch.bool)
    ends[: len(known)] = torch.tensor(["\n" in piece for piece in pieces])
    return ends


def _never_drawn(tokenizer: HFTokenizer, size: int) -> Tensor:
    """Markers, which would end a text or turn into a chat, and ids that stand for nothing."""
    import torch

    never = torch.zeros(size, dtype=torch.bool)
    never[[i for i in tokenizer.special_ids if i < size]] = True
    unknown = tokenizer.inner.unk_token_id
    if unknown is not None and unknown < size:
        never[unknown] = True
    never[len(tokenizer.inner) :] = True
    return never


def _as_text(tokenizer: HFTokenizer, ids: list[int], *, line: bool) -> str | None:
    """The text, or its first line, or None where it cannot be embedded."""
    decoded = tokenizer.inner.decode(
        ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    # The token that ends a line may have the line's last characters in it.
    text = str(decoded).partition("\n")[0] if line else str(decoded)
    # The last character may have been cut in two.
    text = text.strip("\ufffd").strip()
    if text_problem(text) or not tokenizer.tokenize([text])[0]:
        return None
    return text
