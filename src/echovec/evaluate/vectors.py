"""Vectors: what a recipe makes of texts, from the cache where they are there, else from the model.

A vector is kept under the recipe's fingerprint and under what of the role and the instruction can
change it: a recipe that treats both sides alike embeds a text once for both, and one that takes no
instruction once for all tasks. Texts go through the model longest first, in parts that are on disk
before the next begins; whoever is killed loses one part.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from echovec.errors import InputError, NonFiniteError
from echovec.evaluate.shards import Record, Shards, records_of, text_key
from echovec.recipe import Recipe, Role

if TYPE_CHECKING:
    import torch

    from echovec.embedder import Embedder
    from echovec.text.batch import Chunk

PART_TEXTS = 512
PART_CHARACTERS = 60_000
"""A part ends with whichever comes first: at most a minute of a small model on a slow machine."""


@dataclass
class Cost:
    """What was asked for and what it took; adds up over calls."""

    texts: int = 0
    tokens: int = 0
    truncated: int = 0
    blank: int = 0
    forward_passes: int = 0
    computed_tokens: int = 0
    seconds: float = 0.0


class Vectors:
    """The vectors of one embedder.

    Args:
        embedder: what makes them.
        cache: folder for all recipes, or None to keep them in memory only.
        batch_tokens: tokens per batch, padding included; by default the embedder's own choice.
        opened: shards that are open already, to share with others of the same cache: what one
            of them adds, all of them find.
        advance: called with the weights (`weight_of`) of texts when their vectors are made.
    """

    def __init__(
        self,
        embedder: Embedder,
        cache: Path | None = None,
        *,
        batch_tokens: int | None = None,
        opened: dict[tuple[str, str], Shards] | None = None,
        advance: Callable[[int], object] = lambda weight: None,
    ) -> None:
        self.embedder = embedder
        self.batch_tokens = batch_tokens
        self.advance = advance
        self._cache = cache
        self._views = json.loads(self.recipe.to_json())["views"]
        self._shards = {} if opened is None else opened
        self.cost = Cost()
        self._asked: set[tuple[str, bytes]] = set()

    @property
    def recipe(self) -> Recipe:
        """The embedder's, bound to its model as that is now."""
        return self.embedder.recipe

    @property
    def fingerprint(self) -> str:
        """What vectors are kept under."""
        return self.recipe.fingerprint

    def takes_instruction(self, role: Role) -> bool:
        """Whether an instruction changes the vectors of this role."""
        return any(view.template.takes_instruction for view in self.embedder.definition.views[role])

    def encode(
        self, texts: Sequence[str], role: Role, instruction: str | None = None
    ) -> NDArray[np.float32]:
        """Unit vectors z_ND of texts, in order; a blank text has a vector of zeros.

        Raises:
            InputError: a text cannot be embedded.
            NonFiniteError: the model gave NaN or infinity.
            StorageError: the cache's disk does not take it.
        """
        missing = self.missing(texts, role, instruction)
        shards = self._of(role, instruction)
        for part in _parts(missing):
            shards.add(self._embed(part, role, self._taken(role, instruction)))
            self.advance(sum(map(weight_of, part)))
        found = np.zeros((len(texts), self.embedder.dimension), dtype=np.float32)
        rows = [row for row, text in enumerate(texts) if not is_blank(text)]
        keys = [text_key(texts[row]) for row in rows]
        if rows:
            records = shards.get(keys)
            self._count(keys, records, role, instruction)
            vectors_ND = records["vector"]
            lengths_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
            found[rows] = vectors_ND / np.maximum(lengths_N1, np.finfo(np.float32).tiny)
        self.cost.blank += len(texts) - len(rows)
        return found

    def missing(
        self, texts: Sequence[str], role: Role, instruction: str | None = None
    ) -> list[str]:
        """The distinct texts that are not in the cache and not blank, longest first."""
        shards = self._of(role, instruction)
        distinct = dict.fromkeys(text for text in texts if not is_blank(text))
        missing = [text for text in distinct if text_key(text) not in shards]
        return sorted(missing, key=len, reverse=True)

    def variant(self, role: Role, instruction: str | None = None) -> str:
        """Names what of the role and the instruction changes vectors of this recipe."""
        views = self._views.get(role, self._views["symmetric"])
        content = json.dumps([views, self._taken(role, instruction)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def start(self) -> None:
        """Begin to count `cost` anew: for each task."""
        self.cost = Cost()
        self._asked = set()

    def chunks(self, texts: Sequence[str], role: Role, instruction: str | None) -> list[Chunk]:
        """Texts as the embedder would run them; for counting tokens without running."""
        return self.embedder.prepare(
            texts,
            role=None if role == "symmetric" else role,
            instruction=self._taken(role, instruction),
            batch_tokens=self.batch_tokens,
        )

    def _taken(self, role: Role, instruction: str | None) -> str | None:
        return instruction if self.takes_instruction(role) else None

    def _of(self, role: Role, instruction: str | None) -> Shards:
        variant = self.variant(role, instruction)
        fingerprint = self.fingerprint  # by each call: the model may have been trained since
        key = (fingerprint, variant)
        if key not in self._shards:
            folder = None if self._cache is None else self._cache / fingerprint / variant
            self._shards[key] = Shards(folder, self.embedder.dimension)
        return self._shards[key]

    def _embed(self, texts: Sequence[str], role: Role, instruction: str | None) -> Record:
        from echovec.compute import compute

        begun = time.perf_counter()
        named = None if role == "symmetric" else role

        def forward(chunk: Chunk, *, float32: bool = False) -> torch.Tensor:
            self.cost.forward_passes += len(chunk)
            self.cost.computed_tokens += sum(len(batch.ids_T) for batch in chunk)
            return self.embedder.forward(chunk, role=named, float32=float32)

        try:
            chunks = self.chunks(texts, role, instruction)
            vectors, truncated = compute(forward, chunks, show_progress_bar=False)
        except InputError as error:
            if error.index is None:
                raise
            raise InputError(f"{error}; the text is {texts[error.index][:80]!r}") from None
        except NonFiniteError as error:
            shown = texts[error.row][:80]
            raise NonFiniteError(f"{error}; the text is {shown!r}", row=error.row) from None
        tokens = count_tokens(chunks, len(texts))
        self.cost.seconds += time.perf_counter() - begun
        return records_of(texts, vectors.numpy(), tokens, truncated)

    def _count(
        self, keys: Sequence[bytes], records: Record, role: Role, instruction: str | None
    ) -> None:
        variant = self.variant(role, instruction)
        for key, tokens, cut in zip(
            keys, records["tokens"].tolist(), records["cut"].tolist(), strict=True
        ):
            if (variant, key) not in self._asked:
                self._asked.add((variant, key))
                self.cost.texts += 1
                self.cost.tokens += tokens
                self.cost.truncated += cut


def is_blank(text: str) -> bool:
    """Whether there is nothing to embed: benchmarks have such texts; they get a zero vector."""
    return not text.strip()


def weight_of(text: str) -> int:
    """A text's share of the work, in characters: what the prompt around it costs is added."""
    return len(text) + 40


def count_tokens(chunks: Sequence[Chunk], num_texts: int) -> NDArray[np.int64]:
    """Tokens of each text's whole prompts, [N], over all passes and windows."""
    tokens_N = np.zeros(num_texts, dtype=np.int64)
    for chunk in chunks:
        for batch in chunk:
            np.add.at(tokens_N, batch.order_S, batch.lengths_S)
    return tokens_N


def _parts(texts: Sequence[str]) -> list[list[str]]:
    parts: list[list[str]] = []
    room = 0
    for text in texts:
        if not parts or len(parts[-1]) == PART_TEXTS or weight_of(text) > room:
            parts.append([])
            room = PART_CHARACTERS
        parts[-1].append(text)
        room -= weight_of(text)
    return parts
