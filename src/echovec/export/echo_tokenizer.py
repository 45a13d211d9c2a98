r"""Echo tokenizer: a tokenizer whose own file writes the prompt, every copy of the text included.

A post-processor (`TemplateProcessing` of the tokenizers library) may name the text's ids twice and
put any ids around them:

    <bos> Rewrite the following paragraph: $A . The rewritten paragraph: $A

Texts are cut before it runs, so all copies are cut alike and the suffix stays; they are tokenised
alone, so no token grows across a copy's edge; and `split_special_tokens` keeps a text a text. What
comes out are the very ids of `Renderer`, without any code: whatever reads tokenizer.json and pools
the last token (sentence-transformers, text servers, other languages) computes the echo.

It is not for generating: every text that it is given comes back in its prompt.
"""

from __future__ import annotations

import json
from typing import Any

from echovec.embedder import Embedder
from echovec.export.program import PassProgram, Piece, Program
from echovec.recipe import ROLES
from echovec.text.wording import AS_GIVEN


def why_no_echo_tokenizer(embedder: Embedder, program: Program) -> str | None:
    """Why plain modules cannot hold this recipe; None if they can."""
    passes = [one for role in ROLES for one in program.roles[role]]
    if any(
        len(program.roles[role]) != 1 or len(program.roles[role][0].views) != 1 for role in ROLES
    ):
        return "it has several views"
    if any(one.pieces != passes[0].pieces for one in passes):
        return "queries and documents have different prompts, and one tokenizer writes one"
    if any(piece.kind == "instruction" and piece.default is None for piece in passes[0].pieces):
        return "its prompt needs an instruction at each call"
    if any(piece.wording != AS_GIVEN for piece in passes[0].pieces):
        return "a copy of the text is in another wording, and a tokenizer's template repeats one"
    (view,) = passes[0].views
    if view.pooling != "lasttoken" or view.span[1] != len(passes[0].pieces):
        return "it pools something else than the prompt's last token"
    if view.layers != (program.num_layers,):
        return "it reads other layers than the last"
    if view.steps:
        return "its roles have transforms of their own"
    if program.text_share != 1:
        return "it keeps a share of each text only"
    inner = getattr(embedder.tokenizer, "inner", None)
    if getattr(inner, "backend_tokenizer", None) is None:
        return "its tokenizer has no tokenizer.json"
    return None


def budget(embedder: Embedder, program: Program) -> int:
    """The `max_seq_length` at which each copy is cut to the recipe's budget.

    Tokenizers take the prompt's own tokens off it and cut the text, once, to what is left.
    """
    (one,) = program.roles["symmetric"]
    around = sum(map(len, _fixed(one, embedder)))
    copy = program.max_tokens
    if program.max_positions is not None:
        copy = min(copy, (program.max_positions - around) // one.copies)
    return around + copy


def echo_tokenizer(embedder: Embedder, program: Program) -> Any:
    """The embedder's tokenizer with the prompt in its post-processor; a new object."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    inner: Any = embedder.tokenizer.inner  # type: ignore[attr-defined]
    (one,) = program.roles["symmetric"]
    state = json.loads(inner.backend_tokenizer.to_str())
    state["truncation"] = state["padding"] = None
    single: list[dict[str, Any]] = []
    special: dict[str, Any] = {}
    for piece, ids in zip(one.pieces, _fixed(one, embedder), strict=True):
        if piece.kind == "text":
            single.append({"Sequence": {"id": "A", "type_id": 0}})
        elif ids:
            name = f"prompt {len(special)}"
            tokens = [str(inner.convert_ids_to_tokens(i)) for i in ids]
            special[name] = {"id": name, "ids": list(ids), "tokens": tokens}
            single.append({"SpecialToken": {"id": name, "type_id": 0}})
    state["post_processor"] = {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": special,
    }
    lead = next(piece.lead for piece in one.pieces if piece.kind == "text")
    if lead:
        first = {"type": "Prepend", "prepend": lead}
        rest = [state["normalizer"]] if state["normalizer"] else []
        state["normalizer"] = {"type": "Sequence", "normalizers": [first, *rest]}
    named = {name: getattr(inner, name) for name in ("bos_token", "eos_token", "unk_token")}
    padding = inner.pad_token or inner.eos_token or inner.bos_token or inner.unk_token
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        **{name: token for name, token in named.items() if token is not None},
        pad_token=padding or inner.convert_ids_to_tokens(0),
        padding_side="right",
        truncation_side="right",
        split_special_tokens=True,
        clean_up_tokenization_spaces=False,
        model_max_length=budget(embedder, program),
    )


def _fixed(one: PassProgram, embedder: Embedder) -> list[tuple[int, ...]]:
    """The ids of each piece, none for the text; an instruction is its default."""
    return [_ids(piece, embedder) for piece in one.pieces]


def _ids(piece: Piece, embedder: Embedder) -> tuple[int, ...]:
    if piece.kind != "instruction":
        return piece.ids
    said = piece.lead + (piece.default or "") + piece.tail
    return tuple(embedder.tokenizer.tokenize([said])[0])
