"""Ask: texts alone become training pairs; the model writes what each of them would answer.

    texts --asked--> a query and a title for each --round trip--> rows of anchor and positive

A language model that is shown some texts with a query below each writes a query below the next
(InPars, Bonifacio et al., arXiv 2202.05144). Small models write many that have little to do with
their text, so only those count that find their text again among all (round-trip consistency:
Alberti et al., arXiv 1906.05416; Promptagator, Dai et al., arXiv 2209.11755).

What is asked of a text depends on the seed, on its number and on the texts of its block.

Shapes: A texts asked for, N texts, D width.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from echovec.calibrate.draw import (
    Drawing,
    as_text,
    go_on,
    line_ends,
    never_drawn,
    start_id,
    with_head,
)
from echovec.calibrate.kept import BLOCK, Block, in_blocks, key_of, texts_hash
from echovec.errors import InputError
from echovec.evaluate.vectors import Vectors, weight_of
from echovec.model import cache
from echovec.search.top import nearest
from echovec.text.check import text_problem
from echovec.text.tokenizer import HFTokenizer
from echovec.train.examples import EXAMPLES, FORMS
from echovec.train.mine import folded

if TYPE_CHECKING:
    from echovec.embedder import Embedder

BATCH = 64
"""Texts asked for at once."""

_METHOD = "asked 1"
"""Counted up whenever the same settings would ask something else."""


@dataclass(frozen=True)
class Asking:
    """How texts are asked for.

    Raises:
        InputError: a value that cannot be.
    """

    forms: tuple[str, ...] = tuple(FORMS)
    """What is written for each text: rows of `echovec.train.examples.FORMS`."""

    num_examples: int = 6
    """Examples that the model sees before the text; each block of texts has its own."""

    longest: int = 14
    """Tokens of what is asked, at most."""

    text_tokens: int = 96
    """The model sees so many tokens of each text; a pair has all of it."""

    within: int = 3
    """What is asked has to find its text among the nearest so many."""

    top_p: float = 0.95
    """Only the most likely tokens that make up this part of the probability are drawn."""

    temperature: float = 0.7
    """Below 1 likely tokens become likelier."""

    seed: int = 0

    def __post_init__(self) -> None:
        if not self.forms or not set(self.forms) <= set(FORMS):
            raise InputError(f"forms={self.forms}; give some of {', '.join(FORMS)}")
        if not 1 <= self.num_examples <= len(EXAMPLES):
            raise InputError(f"num_examples={self.num_examples}; give 1 to {len(EXAMPLES)}")
        for name in ("longest", "text_tokens", "within"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}; give at least 1")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p={self.top_p}; give a number above 0, at most 1")
        if not self.temperature > 0:
            raise InputError(f"temperature={self.temperature}; give a number above 0")


@dataclass(frozen=True)
class Pair:
    """What was asked, and the text that answers it."""

    anchor: str
    positive: str
    form: str


@dataclass(frozen=True)
class Pairs:
    """What asking came to."""

    rows: tuple[Pair, ...]
    left_out: Counter[str]
    """How many were written and are no rows, by reason."""

    texts: int
    """Distinct texts that were asked for."""


def pairs(
    embedder: Embedder,
    texts: Sequence[str],
    asking: Asking | None = None,
    *,
    vectors: Path | None = None,
    trust_remote_code: bool = False,
    expect: Callable[[int, str], object] = lambda total, doing: None,
    advance: Callable[[int], None] = lambda count: None,
) -> Pairs:
    """Training pairs out of texts: what the embedder's model asks, and its vectors find again.

    Whoever is killed loses a block of what is asked (it is in the cache folder) and a part of the
    vectors.

    Args:
        embedder: whose model writes (without its adapter) and whose recipe finds.
        texts: passages or sentences; repeated ones count once.
        asking: how.
        vectors: the folder that vectors are kept in; None keeps them in memory only.
        trust_remote_code: whether Python code that comes with the model may run.
        expect: called at the beginning of each step with how much there is of what.
        advance: called with how much of it is done.

    Raises:
        InputError: fewer than two texts, one that cannot be embedded, or a model that lives in
            memory only.
        ModelError: the model cannot be loaded with its head, or does not know how to begin.
        StorageError: a disk does not take it.
    """
    asking = asking or Asking()
    for place, text in enumerate(texts):
        if problem := text_problem(text):
            raise InputError(f"texts[{place}] {problem}; take it out", index=place)
    texts = list(dict.fromkeys(texts))
    if len(texts) <= asking.within:
        raise InputError(
            f"different texts: {len(texts)}; to find one again among the nearest {asking.within} "
            "tells nothing: give more texts"
        )
    expect(len(texts) * len(asking.forms), "asking")
    told = asked(embedder, texts, asking, trust_remote_code=trust_remote_code, advance=advance)
    left_out: Counter[str] = Counter()
    candidates = list(_candidates(texts, told, left_out))
    kept = Vectors(embedder, vectors, advance=advance)
    anchors = [pair.anchor for pair in candidates]
    missing = [kept.missing(anchors, "query"), kept.missing(texts, "document")]
    expect(sum(weight_of(text) for some in missing for text in some), "embedding")
    rows = _found_again(kept, texts, candidates, asking.within, left_out)
    return Pairs(tuple(rows), left_out, len(texts))


def asked(
    embedder: Embedder,
    texts: Sequence[str],
    asking: Asking,
    *,
    trust_remote_code: bool = False,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[str, list[str]]:
    """For each form what was written for each text, "" where it was nothing; see `pairs`."""
    tokenizer = embedder.tokenizer
    if not isinstance(tokenizer, HFTokenizer):
        raise InputError(f"{type(tokenizer).__name__} belongs to no language model that can write")
    writer = _Writer(embedder, tokenizer, asking, trust_remote_code=trust_remote_code)
    settings = {k: v for k, v in asdict(asking).items() if k not in ("forms", "within")}
    told: dict[str, list[str]] = {}
    for form in asking.forms:
        key = key_of(_METHOD, embedder, tokenizer, settings, form, texts_hash(list(texts)))
        folder = cache.cache_dir() / "texts" / key
        write = partial(writer.block, form, texts, advance)
        blocks = in_blocks(folder, len(texts), write, advance=advance)
        told[form] = [line for (wrote, _), _ in blocks for line in wrote]
    return told


class _Writer:
    """An embedder's model with its head, loaded when something has to be written."""

    def __init__(
        self,
        embedder: Embedder,
        tokenizer: HFTokenizer,
        asking: Asking,
        *,
        trust_remote_code: bool,
    ) -> None:
        self._embedder, self._tokenizer, self._asking = embedder, tokenizer, asking
        self._trusts = trust_remote_code

    @cached_property
    def _model(self) -> Any:
        return with_head(self._embedder, trust_remote_code=self._trusts)

    @cached_property
    def _how(self) -> Drawing:
        size = int(self._model.get_output_embeddings().weight.shape[0])
        never, ends = never_drawn(self._tokenizer, size), line_ends(self._tokenizer, size)
        return Drawing(never, ends, self._asking.top_p, self._asking.temperature)

    def block(
        self, form: str, texts: Sequence[str], advance: Callable[[int], None], numbers: range
    ) -> Block:
        """What is written for the texts of these numbers, in their order."""
        shared = self._beginning(form, numbers.start // BLOCK)
        own = [_shown(self._shortened(texts[number]), form) for number in numbers]
        rows = self._tokenizer.tokenize(own)
        by_length = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        wrote = [""] * len(rows)
        for first in range(0, len(rows), BATCH):
            some = by_length[first : first + BATCH]
            u_ST = np.stack([self._draws(form, numbers[i]) for i in some])
            ids = go_on(self._model, [rows[i] for i in some], u_ST, self._how, shared=shared)
            for i, row in zip(some, ids, strict=True):
                wrote[i] = as_text(self._tokenizer, row, line=True) or ""
            advance(len(some))
        return wrote, 0

    def _beginning(self, form: str, block: int) -> list[int]:
        """The ids of the examples that the texts of a block stand behind."""
        source = random.Random(f"{self._asking.seed} {form} {block}")
        examples = source.sample(EXAMPLES, self._asking.num_examples)
        shown = "".join(_shown(one.text, form, one.asked(form)) for one in examples)
        return [start_id(self._tokenizer), *self._tokenizer.tokenize([shown])[0]]

    def _draws(self, form: str, number: int) -> NDArray[np.float64]:
        source = np.random.default_rng([self._asking.seed, number, list(FORMS).index(form)])
        return source.random(self._asking.longest)

    def _shortened(self, text: str) -> str:
        """A text on one line, its first tokens only where it has many."""
        text = " ".join(text.split())
        ids = self._tokenizer.tokenize([text])[0]
        if len(ids) <= self._asking.text_tokens:
            return text
        return as_text(self._tokenizer, list(ids[: self._asking.text_tokens]), line=True) or text


def _shown(text: str, form: str, written: str | None = None) -> str:
    """A text with what is written for it below; or with the place where it would be."""
    return f"Text: {text}\n{FORMS[form]}:" + ("" if written is None else f" {written}\n\n")


_UNSPACED = re.compile("[々〆〇぀-ヿㇰ-ㇿ㐀-䶿一-鿿豈-﫿ｦ-ﾟ\U00020000-\U0003ffff]+")
"""Runs of Chinese characters and of kana, which are written without blanks."""


def num_words(text: str) -> int:
    """How many words: what blanks divide; of Chinese and Japanese, two characters count as one."""
    runs = _UNSPACED.findall(text)
    return len(_UNSPACED.sub(" ", text).split()) + sum((len(run) + 1) // 2 for run in runs)


def _candidates(
    texts: Sequence[str], told: dict[str, list[str]], left_out: Counter[str]
) -> Iterator[Pair]:
    """What may be a pair before anything is embedded."""
    times = Counter(folded(line) for lines in told.values() for line in lines)
    for form, lines in told.items():
        for text, line in zip(texts, lines, strict=True):
            words = folded(line)
            count = num_words(words)
            if count < 2:
                left_out["has fewer than two words"] += 1
            elif times[words] > 1:
                left_out["was written more than once"] += 1
            elif count > 4 and words in folded(text):
                left_out["is a piece of its text"] += 1
            else:
                yield Pair(line, text, form)


def _found_again(
    vectors: Vectors,
    texts: Sequence[str],
    candidates: Sequence[Pair],
    within: int,
    left_out: Counter[str],
) -> Iterator[Pair]:
    """The pairs whose anchor has its own text among the nearest."""
    texts_ND = vectors.encode(texts, "document")
    anchors_AD = vectors.encode([pair.anchor for pair in candidates], "query")
    place_of = {text: place for place, text in enumerate(texts)}
    places_AK, _ = nearest(anchors_AD, texts_ND, within)
    for pair, places_K in zip(candidates, places_AK, strict=True):
        if place_of[pair.positive] in places_K:
            yield pair
        else:
            left_out[f"does not find its text among the nearest {within}"] += 1
