"""Kept tokenizer: the ids of a Hugging Face tokenizer from the `tokenizers` library alone.

transformers' fast tokenizers hand texts to that library and take their ids from it. What they put
around it (which ids are special, which is BOS) is written down once (`told_of`), so importing
transformers, which takes seconds, can wait until somebody asks for its tokenizer (`inner`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from threading import Lock
from typing import Any

from tokenizers import Tokenizer as Rules

from echovec.text.tokenizer import HFTokenizer, optional_int

_SAMPLES = (
    "a",
    "",
    " Two  blanks, a tab\tand a line\nfeed ",
    "It's 1,234.5 % of \u00c5ngstr\u00f6m; na\u00efve \u65e5\u672c\u8a9e \U0001f600!",
    "def f(x):\n    return x ** 2  # <s></s><|im_end|><|endoftext|>[SEP]",
)


class KeptTokenizer(HFTokenizer):
    """A Hugging Face tokenizer whose transformers object is read when it is asked for.

    Args:
        told: what `told_of` wrote down.
        read: reads the tokenizer by transformers.
    """

    def __init__(self, told: Mapping[str, Any], read: Callable[[], Any]) -> None:
        self._told = told
        self._read = read
        self._rules = Rules.from_str(told["rules"])
        self._rules.no_truncation()
        self._rules.no_padding()
        self._alone = Lock()

    @cached_property
    def inner(self) -> Any:
        """The tokenizer of transformers."""
        return self._read()

    @property
    def bos_id(self) -> int | None:
        """The tokenizer's begin-of-text id."""
        return optional_int(self._told["bos_id"])

    @property
    def eos_id(self) -> int | None:
        """The tokenizer's end-of-text id."""
        return optional_int(self._told["eos_id"])

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids that no user's text may become."""
        return frozenset(self._told["special_ids"])

    @property
    def fingerprint(self) -> str:
        """The hash that it has by transformers."""
        return str(self._told["fingerprint"])

    @property
    def size(self) -> int:
        """The vocabulary, added tokens included."""
        return self._rules.get_vocab_size(with_added_tokens=True)

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens spelled out, blanks as they are."""
        return self._rules.decode(list(ids), skip_special_tokens=False)

    def _encode(self, texts: list[str], *, split: bool) -> list[list[int]]:
        with self._alone:  # whether special tokens are split is set for each call
            self._rules.encode_special_tokens = split
            found = self._rules.encode_batch_fast(texts, add_special_tokens=False)
        return [one.ids for one in found]

    def _spelled(self, token: int) -> str:
        return str(self._rules.id_to_token(token))

    @property
    def _bos(self) -> str:
        return str(self._told["bos"])


def told_of(tokenizer: HFTokenizer) -> dict[str, Any] | None:
    """What a kept tokenizer needs to be told, as JSON; None where it would be another one."""
    rules = getattr(tokenizer.inner, "backend_tokenizer", None)
    if rules is None:
        return None
    told = {
        "rules": rules.to_str(),
        "bos_id": tokenizer.bos_id,
        "bos": tokenizer.inner.bos_token,
        "eos_id": tokenizer.eos_id,
        "special_ids": sorted(tokenizer.special_ids),
        "fingerprint": tokenizer.fingerprint,
    }
    kept = KeptTokenizer(told, lambda: tokenizer.inner)
    same = kept.size == tokenizer.size and kept.adds_blank == tokenizer.adds_blank
    for text in (*_SAMPLES, f"x{tokenizer.spelling(told['special_ids'])} y"):
        ids = tokenizer.tokenize([text])[0]
        same = same and kept.tokenize([text])[0] == ids
        same = same and kept.detokenize(ids) == tokenizer.detokenize(ids)
        for after_bos in (False, True):
            own = kept.tokenize_fixed(text, after_bos=after_bos)
            same = same and own == tokenizer.tokenize_fixed(text, after_bos=after_bos)
    return told if same else None
