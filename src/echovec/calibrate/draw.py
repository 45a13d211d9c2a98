"""Draw: a language model with its head, and tokens drawn from what it says comes next.

Nucleus sampling (Holtzman et al., arXiv 1904.09751): each token is drawn from the most likely ones
that make up `top_p` of the probability. Shapes: S texts written at once, T tokens that each gets,
L tokens read so far, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from echovec.errors import InputError, ModelError
from echovec.text.check import text_problem
from echovec.text.tokenizer import HFTokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from echovec.embedder import Embedder

_LIKELY = 2_048
"""Tokens that are sorted first; the whole vocabulary only where these are not probable enough."""

_BETWEEN_DOCUMENTS = "<|endoftext|>"

_OVER = -1
"""In place of a token, once a text is over."""


@dataclass(frozen=True, eq=False)
class Drawing:
    """How tokens are drawn."""

    never: Tensor
    """Which tokens are not: bool [V]."""

    ends: Tensor | None
    """Which tokens end a text: bool [V]; None: only its length does."""

    top_p: float
    temperature: float


def with_head(embedder: Embedder, *, trust_remote_code: bool = False) -> Any:
    """An embedder's model, loaded a second time with its head, on its device; without an adapter.

    Raises:
        InputError: the model lives in memory only.
        ModelError: it cannot be loaded with its head.
    """
    path = embedder.model_path
    if path is None:
        raise InputError(
            "this model lives in memory only, so it cannot be loaded with its head to write texts; "
            "give texts of your own"
        )
    import torch
    from transformers import AutoModelForCausalLM

    from echovec.model.load import quiet_transformers
    from echovec.model.store import is_offline

    try:
        with quiet_transformers():
            model = AutoModelForCausalLM.from_pretrained(
                str(path),
                dtype=getattr(torch, dtype_of(embedder)),
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                revision=embedder.identity_without_weights.revision,
                local_files_only=is_offline(),
                adapter_kwargs={"local_files_only": is_offline()},
            )
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise ModelError(
            f"cannot load {str(path)!r} with its head: {str(error).strip().splitlines()[0]}; give "
            "texts of your own"
        ) from error
    return model.to(device_of(embedder)).eval()


def device_of(embedder: Embedder) -> str:
    """Where an embedder's model is."""
    return str(getattr(getattr(embedder.backbone, "model", None), "device", "cpu"))


def dtype_of(embedder: Embedder) -> str:
    """What a model writes in: bfloat16 where its device multiplies that natively."""
    from echovec.model.precision import multiplies_bfloat16

    return "bfloat16" if multiplies_bfloat16(device_of(embedder)) else "float32"


def start_id(tokenizer: HFTokenizer) -> int:
    """The token to start from: what stood between documents in training.

    `<|endoftext|>` where the vocabulary has it (chat models name other tokens as BOS and EOS, but
    their documents were apart by this), else BOS, else EOS.
    """
    known = tokenizer.inner.get_vocab().get(_BETWEEN_DOCUMENTS)
    for candidate in (known, tokenizer.bos_id, tokenizer.eos_id):
        if candidate is not None:
            return int(candidate)
    raise ModelError("this tokenizer has no BOS and no EOS to start from; give texts of your own")


def go_on(
    model: Any,
    rows: Sequence[Sequence[int]],
    u_ST: NDArray[np.float64],
    how: Drawing,
    *,
    shared: Sequence[int] = (),
) -> list[list[int]]:
    """What a model writes after each of some rows, S at once.

    Args:
        model: with its head.
        rows: ids that each goes on from, one at least; those that are shorter are padded in front.
        u_ST: the numbers from 0 to 1 that each token is drawn with.
        how: what may be drawn.
        shared: ids that stand before every row; the model reads them once, if it keeps a cache.

    Returns:
        The ids of each, T or fewer, with the one that ends it.
    """
    import torch

    device, (S, T) = model.device, u_ST.shape
    never, ends = how.never.to(device), None if how.ends is None else how.ends.to(device)
    with torch.inference_mode():
        past = None
        if shared and len(shared) + max(map(len, rows)) + T <= _window(model):
            past = _read(model, shared, S)
        if past is None:
            rows = [[*shared, *row] for row in rows]
        ids_SL, told = _padded(model, rows, 0 if past is None else len(shared))
        given, over_S = ids_SL, torch.zeros(S, dtype=torch.bool, device=device)
        wrote: list[Tensor] = []
        for step in range(T):
            out = model(input_ids=given, past_key_values=past, use_cache=True, **told)
            past = getattr(out, "past_key_values", None)
            logits_SV = out.logits[:, -1].float().masked_fill(never, -torch.inf)
            u_S = torch.from_numpy(u_ST[:, step].copy())
            next_S = sample(logits_SV, u_S, top_p=how.top_p, temperature=how.temperature)
            wrote.append(next_S.masked_fill(over_S, _OVER))
            if ends is not None:
                over_S |= ends[next_S]
            if bool(over_S.all()):
                break
            # A family that keeps no cache gets all of it again.
            ids_SL = torch.cat([ids_SL, next_S[:, None]], dim=1)
            given = ids_SL if past is None else ids_SL[:, -1:]
            told = {name: _longer(name, x, given.shape[1]) for name, x in told.items()}
    drawn: list[list[int]] = torch.stack(wrote, dim=1).tolist()
    return [[i for i in row if i != _OVER] for row in drawn]


_PLACES = "position_ids"


def _window(model: Any) -> float:
    """How far the model's shortest-sighted layers see, to which padding in between would count."""
    return getattr(model.config.get_text_config(), "sliding_window", None) or float("inf")


def _read(model: Any, shared: Sequence[int], times: int) -> Any:
    """A model's cache after what all rows begin with, for so many rows; None: it keeps none."""
    import torch

    ids_1L = torch.tensor([list(shared)], device=model.device)
    past: Any = getattr(model(input_ids=ids_1L, use_cache=True), "past_key_values", None)
    if not hasattr(past, "batch_repeat_interleave"):
        return None
    past.batch_repeat_interleave(times)
    return past


def _padded(
    model: Any, rows: Sequence[Sequence[int]], before: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Rows as one array, and what the model has to be told of it: nothing if there is no padding.

    Args:
        model: whose device and arguments count.
        rows: ids.
        before: tokens that it has read.
    """
    import torch

    longest = max(map(len, rows))
    short_S1 = torch.tensor([[longest - len(row)] for row in rows])
    ids_SL = torch.tensor([[row[0]] * (longest - len(row)) + list(row) for row in rows])
    if not before and not short_S1.any():
        return ids_SL.to(model.device), {}
    there_SL = torch.arange(longest) >= short_S1
    told = {
        "attention_mask": torch.cat([there_SL.new_ones(len(rows), before), there_SL], 1).long(),
        _PLACES: before + (torch.arange(longest) - short_S1).clamp(min=0),
    }
    takes = inspect.signature(model.forward).parameters
    told = {name: x.to(model.device) for name, x in told.items() if name in takes}
    return ids_SL.to(model.device), told


def _longer(name: str, x: Tensor, given: int) -> Tensor:
    """The mask or the places once there is one token more, of which so many are given anew."""
    import torch

    last = x[:, -1:]
    if name != _PLACES:
        return torch.cat([x, last], dim=1)
    return torch.cat([x, last + 1], dim=1)[:, -given:]


def sample(logits_SV: Tensor, u_S: Tensor, *, top_p: float, temperature: float) -> Tensor:
    """One token for each row, by nucleus sampling: ids_S.

    Tokens are laid on a line from the likeliest on, each as long as its probability, until `top_p`
    is reached or passed; `u` says, from 0 to 1, where on that line the token is.

    Args:
        logits_SV: float32 logits; minus infinity for a token that may not be drawn.
        u_S: float64 numbers from 0 (included) to 1 (excluded), one for each row, on the CPU.
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
        chosen_S[short] = _on_line(all_SV, ids_SV, u_S[short.cpu()], top_p)
    return chosen_S


def _on_line(p_SK: Tensor, ids_SK: Tensor, u_S: Tensor, top_p: float) -> Tensor:
    """The id at the place `u` of each row's line; probabilities in descending order.

    On the CPU: Apple's GPUs have no float64, and rounded sums would draw other tokens there.
    """
    import torch

    p_SK = p_SK.cpu().double()
    until_SK = p_SK.cumsum(dim=1)
    inside_SK = until_SK - p_SK < top_p
    reach_S1 = torch.where(inside_SK, until_SK, 0.0).amax(dim=1, keepdim=True)
    place_S1 = torch.searchsorted(until_SK, u_S[:, None].double() * reach_S1, right=True)
    last_S1 = inside_SK.sum(dim=1, keepdim=True) - 1  # rounding may point behind the line's end
    return ids_SK.gather(1, torch.minimum(place_S1, last_S1).to(ids_SK.device))[:, 0]


def line_ends(tokenizer: HFTokenizer, size: int) -> Tensor:
    """Which tokens have the end of a line in them."""
    import torch

    known = range(min(size, len(tokenizer.inner)))
    pieces = tokenizer.inner.batch_decode([[i] for i in known], skip_special_tokens=False)
    ends = torch.zeros(size, dtype=torch.bool)
    ends[: len(known)] = torch.tensor(["\n" in piece for piece in pieces])
    return ends


def never_drawn(tokenizer: HFTokenizer, size: int) -> Tensor:
    """Markers, which would end a text or turn into a chat, and ids that stand for nothing."""
    import torch

    never = torch.zeros(size, dtype=torch.bool)
    never[[i for i in tokenizer.special_ids if i < size]] = True
    unknown = tokenizer.inner.unk_token_id
    if unknown is not None and unknown < size:
        never[unknown] = True
    never[len(tokenizer.inner) :] = True
    return never


def as_text(tokenizer: HFTokenizer, ids: list[int], *, line: bool) -> str | None:
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
