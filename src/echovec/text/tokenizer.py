"""Tokenizer: the little that a template needs of one, and the two that ship.

`HFTokenizer` wraps any Hugging Face tokenizer; `ByteTokenizer` has a token per byte and needs
nothing, which is what the tiny backbone and tests use.

Three traps are closed here and nowhere else (all measured):

- A text that spells a special token ("<|im_end|>") becomes that token by default. Users' texts
  are tokenised with `split_special_tokens`, and what still slips through (Unigram vocabularies
  hold "</s>" as an ordinary piece) is cut apart.
- Post-processors add BOS or EOS, or stopped doing so (transformers 5). Nothing is asked of them.
- SentencePiece tokenizers put a blank in front of every piece, so a slot's own blank would be the
  second one; `adds_blank` says so and render.py leaves the slot's blank out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from threading import Lock
from typing import Any, Protocol
from weakref import WeakKeyDictionary


class Tokenizer(Protocol):
    """Text -> ids. Everything that templates need of a tokenizer."""

    @property
    def bos_id(self) -> int | None:
        """The begin-of-text id, or None."""

    @property
    def eos_id(self) -> int | None:
        """The end-of-text id, or None."""

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids that no user's text may become (the unknown token is not one of them)."""

    @property
    def adds_blank(self) -> bool:
        """Whether the tokenizer puts a blank of its own in front of a text."""

    @property
    def fingerprint(self) -> str:
        """Hash ("sha256:...") of everything that decides which ids a text becomes."""

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of users' texts, as plain text: no special token is read or added."""

    def tokenize_fixed(self, text: str, *, after_bos: bool) -> list[int]:
        """Ids of a template's own text: special tokens written in it are read, none is added."""

    @property
    def size(self) -> int:
        """How many ids there are: 0 to `size - 1`."""

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of ids; U+FFFD stands for pieces of a character."""


class ByteTokenizer:
    """A token per UTF-8 byte (ids 0-255), BOS 256 and EOS 257: exact, offline, instant."""

    bos_id: int | None = 256
    eos_id: int | None = 257
    special_ids = frozenset({256, 257})
    size = 258
    adds_blank = False
    fingerprint = "bytes"

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """One id per UTF-8 byte."""
        return [list(text.encode("utf-8")) for text in texts]

    def tokenize_fixed(self, text: str, *, after_bos: bool) -> list[int]:
        """One id per UTF-8 byte; there is nothing special to read."""
        return list(text.encode("utf-8"))

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of bytes; BOS and EOS are none of it."""
        return bytes(i for i in ids if i < 256).decode("utf-8", errors="replace")


class HFTokenizer:
    """Any Hugging Face tokenizer, never changed: it may be in use for generation."""

    def __init__(self, tokenizer: Any) -> None:
        self.inner = tokenizer

    @property
    def bos_id(self) -> int | None:
        """The tokenizer's begin-of-text id."""
        return optional_int(self.inner.bos_token_id)

    @property
    def eos_id(self) -> int | None:
        """The tokenizer's end-of-text id."""
        return optional_int(self.inner.eos_token_id)

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Named special tokens and all added tokens that are marked special."""
        added = getattr(self.inner, "added_tokens_decoder", {})
        marked = {int(i) for i, token in added.items() if token.special}
        named = {int(i) for i in self.inner.all_special_ids}
        # An unknown character is the user's text, not a command; but where the unknown token
        # doubles as BOS or EOS (GPT-2) it stays special: byte-level vocabularies never need it.
        unknown = {self.inner.unk_token_id} - {self.inner.bos_token_id, self.inner.eos_token_id}
        return frozenset((marked | named) - unknown)

    @cached_property
    def adds_blank(self) -> bool:
        """Seen in the first token of "a": a blank is U+2581 in SentencePiece, U+0120 in bytes."""
        first = self._spelled(self._ids(["a"], split=True)[0][0])
        return bool(first[:1] in ("\u2581", "\u0120"))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the fast tokenizer's own JSON without its run-time state and post-processor."""
        backend = getattr(self.inner, "backend_tokenizer", None)
        if backend is not None:
            state = json.loads(backend.to_str())
            for unused in ("truncation", "padding", "post_processor", "decoder"):
                state.pop(unused, None)
        else:
            state = {"class": type(self.inner).__name__, "vocab": self.inner.get_vocab()}
        text = json.dumps(state, sort_keys=True, ensure_ascii=True)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    @property
    def max_length(self) -> int | None:
        """The longest prompt that its configuration allows, in tokens; None: it names none."""
        limit = int(self.inner.model_max_length)
        return limit if limit < 1 << 30 else None

    @property
    def surrounding(self) -> tuple[list[int], list[int]]:
        """The ids that the tokenizer's own post-processor puts before and after a text."""
        bare = self._ids(["a"], split=True)[0]
        whole = list(self.inner("a", add_special_tokens=True, verbose=False)["input_ids"])
        starts = range(len(whole) - len(bare) + 1)
        start = next((i for i in starts if whole[i : i + len(bare)] == bare), 0)
        return whole[:start], whole[start + len(bare) :]

    def spelling(self, ids: Sequence[int]) -> str:
        """How a template spells these (special) tokens."""
        return "".join(self._spelled(int(i)) for i in ids)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of users' texts; none of them is in `special_ids`."""
        rows = self._ids(texts, split=True)
        for index, row in enumerate(rows):
            if not self.special_ids.isdisjoint(row):
                rows[index] = self._without_special(texts[index])
        return rows

    def tokenize_fixed(self, text: str, *, after_bos: bool) -> list[int]:
        """Ids of a template's text. After BOS it is read as the tokenizer reads it there.

        Some SentencePiece tokenizers put their blank in front of every piece, some only at the
        very start; the authors write "<s>Instruct:" as one piece, so it is tokenised as one.
        """
        if after_bos and self.bos_id is not None:
            ids = self._ids([self._bos + text], split=False)[0]
            if ids[:1] == [self.bos_id]:
                return ids[1:]
        return self._ids([text], split=False)[0]

    @property
    def size(self) -> int:
        """The vocabulary, added tokens included."""
        return len(self.inner)

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens spelled out, blanks as they are."""
        return str(
            self.inner.decode(
                list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )

    def _ids(self, texts: Sequence[str], *, split: bool) -> list[list[int]]:
        # A slice at a time: the tokenizer's own account of a text is many times its ids.
        rows: list[list[int]] = []
        for start in range(0, len(texts), 1024):
            rows += self._encode(list(texts[start : start + 1024]), split=split)
        return rows

    def _encode(self, texts: list[str], *, split: bool) -> list[list[int]]:
        with _one_at_a_time(self.inner):
            found: list[list[int]] = self.inner(
                texts,
                add_special_tokens=False,
                split_special_tokens=split,
                padding=False,
                truncation=False,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,
            )["input_ids"]
        return found

    def _spelled(self, token: int) -> str:
        return str(self.inner.convert_ids_to_tokens(token))

    @property
    def _bos(self) -> str:
        return str(self.inner.bos_token)

    def _without_special(self, text: str) -> list[int]:
        """Tokenise the text in parts that break every spelling of a special token in two."""
        spellings = [self._spelled(i) for i in self.special_ids]
        parts = [text]
        for spelling in spellings:
            if len(spelling) > 1:
                parts = [bit for part in parts for bit in _break(part, spelling)]
        ids = [i for row in self._ids([p for p in parts if p], split=True) for i in row]
        return [i for i in ids if i not in self.special_ids]


_locks: WeakKeyDictionary[Any, Lock] = WeakKeyDictionary()


def _one_at_a_time(inner: Any) -> Lock:
    """The lock of a tokenizer, in which each call sets whether special tokens are split.

    Without it a text tokenised while another thread tokenises a prompt is tokenised like a prompt.
    """
    return _locks.setdefault(inner, Lock())


def _break(text: str, spelling: str) -> list[str]:
    """Cut the text after the first character of each occurrence of the spelling."""
    first, rest = spelling[0], spelling[1:]
    bits = text.split(spelling)
    out = [bits[0]]
    for bit in bits[1:]:
        out[-1] += first
        out.append(rest + bit)
    return out


def optional_int(value: Any) -> int | None:
    """An id as an int; some tokenizers have none."""
    return None if value is None else int(value)
