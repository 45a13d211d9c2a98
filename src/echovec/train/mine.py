"""Mine: hard negatives for training rows, found among all texts by an embedder.

    rows --anchors, pool--> Vectors (kept on disk) --nearest--> ranked candidates --guards--> rows

A hard negative is near the anchor and yet no answer. What is nearest is often an answer that nobody
marked, so candidates pass guards: ranks to leave out, a margin below the positive's similarity,
texts that equal the anchor or one of its positives, texts that hold the answer string.

The margin relative to the positive is NV-Retriever's (arXiv 2407.15831); leaving out first ranks is
older (the authors' sets have negatives of such kind).

Shapes: Q anchors, N texts of the pool, D width, K candidates.
"""

from __future__ import annotations

import random
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from echovec.errors import InputError
from echovec.evaluate.vectors import Vectors, is_blank, weight_of
from echovec.files.disk import write_file
from echovec.files.lines import json_line
from echovec.files.vectors import Made, in_memory
from echovec.recipe import Role
from echovec.search.index import Index
from echovec.search.top import Places, Scores, nearest
from echovec.text.check import text_problem
from echovec.train.data import columns_of, is_negative, pair_columns
from echovec.train.rows import Row, rows_of, whole

if TYPE_CHECKING:
    from echovec.embedder import Embedder

Sampling = Literal["top", "random"]

_AT_ONCE = 256
"""Rows whose nearest texts are in memory."""


@dataclass(frozen=True, kw_only=True)
class Guards:
    """Which of the nearest texts may be a negative; names as sentence-transformers has them.

    Raises:
        InputError: a value that cannot be.
    """

    num_negatives: int = 1
    range_min: int = 0
    """So many of the nearest are left out: they may be answers that nobody marked."""

    range_max: int = 100
    """Only the nearest so many are looked at."""

    relative_margin: float | None = 0.05
    """A negative's similarity is at most (1 - this) times the positive's."""

    max_score: float | None = None
    min_score: float | None = None
    sampling: Sampling = "top"
    """"top" takes the nearest that pass, "random" any that pass."""

    seed: int = 42

    def __post_init__(self) -> None:
        if self.num_negatives < 1:
            raise InputError(f"num_negatives={self.num_negatives}; give at least 1")
        if not 0 <= self.range_min < self.range_max:
            raise InputError(
                f"range_min={self.range_min}, range_max={self.range_max}; give 0 or more, and a "
                "range_max above range_min"
            )
        if self.sampling not in get_args(Sampling):
            raise InputError(
                f"sampling={self.sampling!r}; there are {', '.join(get_args(Sampling))}"
            )


@dataclass
class Mined:
    """What mining came to."""

    rows: int = 0
    negatives: int = 0
    short: int = 0
    """Rows with fewer negatives than were asked for."""

    skipped: list[str] = field(default_factory=list)
    """Rows that could not be used, each with its place and the reason; not written."""

    turned_away: Counter[str] = field(default_factory=Counter)
    """Candidates that a guard kept out, by guard."""

    positive_score: float = 0.0
    """Mean cosine of anchors with their positives."""

    negative_score: float = 0.0
    """Mean cosine of anchors with their mined negatives."""


@dataclass(frozen=True)
class _Row:
    anchor: str
    positives: list[str]
    negatives: list[str]
    answers: list[str]
    rest: dict[str, Any]


def mine(
    data: str | Path,
    out: str | Path,
    embedder: Embedder,
    guards: Guards | None = None,
    *,
    pool: Iterable[str] = (),
    instruction: str | None = None,
    symmetric: bool = False,
    approximate: bool = False,
    cache: Path | None = None,
    expect: Callable[[int], object] = lambda weight: None,
    advance: Callable[[int], object] = lambda weight: None,
) -> Mined:
    """Write the rows of `data` to `out` (.jsonl) with `negative_1`, `negative_2`, ... added.

    Negatives that a row has already come first and stay. The candidates are all positives and
    negatives of the file, and the texts of `pool`. Whoever is killed loses no vector: they are in
    `cache`, under the embedder's fingerprint, role and instruction.

    Args:
        data: rows in any layout that `echovec train` reads.
        out: where they go; replaced when all is done.
        embedder: what finds candidates.
        guards: which of them may be negatives.
        pool: more texts to choose from.
        instruction: for the anchors.
        symmetric: anchors and candidates are alike (sentence pairs): one role, one instruction.
        approximate: look for candidates in LanceDB's graph, for pools of a million texts and more;
            a few of the nearest may be missed.
        cache: folder of vectors; None keeps them in memory only.
        expect: called once with the weight of the texts to embed.
        advance: called with the weight of each part that has been embedded.

    Raises:
        DependencyError: `approximate` without LanceDB.
        InputError: no usable row, or `out` has another ending.
        StorageError: the disk does not take it.
    """
    guards = guards or Guards()
    out = Path(out)
    if out.suffix != ".jsonl":
        raise InputError(f"{out.name}: mined rows are written as .jsonl")
    mined = Mined()
    rows = _rows(Path(data), mined)
    more = _checked(pool)
    texts = list(dict.fromkeys([t for r in rows for t in (*r.positives, *r.negatives)] + more))
    vectors = Vectors(embedder, cache, advance=advance)
    anchor_role: Role = "symmetric" if symmetric else "query"
    text_role: Role = "symmetric" if symmetric else "document"
    text_instruction = instruction if symmetric else None
    anchors = [row.anchor for row in rows]
    missing = [
        *vectors.missing(anchors, anchor_role, instruction),
        *vectors.missing(texts, text_role, text_instruction),
    ]
    expect(sum(map(weight_of, missing)))
    anchors_QD = vectors.encode(anchors, anchor_role, instruction)
    texts_ND = vectors.encode(texts, text_role, text_instruction)
    known = _known_positives(rows)
    # More than asked for: texts that are answers have no rank, and may all be among the nearest.
    spelled = Counter(map(folded, texts))
    answers = [sum(spelled[text] for text in _own(row, known)) for row in rows]
    depths = [min(len(texts), guards.range_max + count) for count in answers]
    found = (
        _by_graph(anchors_QD, texts_ND, depths, embedder.recipe.fingerprint)
        if approximate
        else _by_product(anchors_QD, texts_ND, depths)
    )
    place_of = {text: place for place, text in enumerate(texts)}
    lines = []
    for number, (row, (places, scores)) in enumerate(zip(rows, found, strict=True)):
        first = texts_ND[place_of[row.positives[0]]]
        positive_score = float(anchors_QD[number] @ first)
        candidates = [
            (texts[place], float(score)) for place, score in zip(places, scores, strict=True)
        ]
        chosen = _choose(row, candidates, positive_score, known, guards, number, mined)
        mined.rows += 1
        mined.positive_score += positive_score
        lines.append(_line(_written(row, chosen)))
    write_file(out, b"".join(lines))
    mined.positive_score /= mined.rows
    mined.negative_score /= max(1, mined.negatives)
    return mined


def _by_product(
    queries_QD: NDArray[np.float32], texts_ND: NDArray[np.float32], depths: Sequence[int]
) -> Iterator[tuple[Places, Scores]]:
    """The nearest of each row, some rows at a time: one that looks far does not do so for all."""
    for some, deepest in _parts(depths):
        yield from zip(*nearest(queries_QD[some], texts_ND, deepest), strict=True)


def _by_graph(
    queries_QD: NDArray[np.float32],
    texts_ND: NDArray[np.float32],
    depths: Sequence[int],
    fingerprint: str,
) -> Iterator[tuple[Places, Scores]]:
    """As `_by_product`, by a LanceDB index, whose build measures its recall."""
    import pyarrow as pa

    ids = pa.table({"id": [str(place) for place in range(len(texts_ND))]})
    made = Made(recipe_json="{}", fingerprint=fingerprint)
    with tempfile.TemporaryDirectory() as folder:
        pool = in_memory(ids, texts_ND, made, name="the pool")
        index = Index.build(pool, Path(folder) / "index", backend="lance")
        for some, deepest in _parts(depths):
            for hits in index.search(queries_QD[some], deepest):
                places = np.array([int(hit.id) for hit in hits], np.int64)
                yield places, np.array([hit.score for hit in hits])


def _parts(depths: Sequence[int]) -> Iterator[tuple[slice, int]]:
    """Rows that are looked for together, and how far the deepest of them looks."""
    for start in range(0, len(depths), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        yield some, max(depths[some])


def _choose(
    row: _Row,
    candidates: Sequence[tuple[str, float]],
    positive_score: float,
    known: Mapping[str, set[str]],
    guards: Guards,
    number: int,
    mined: Mined,
) -> list[str]:
    """The negatives of one row."""
    own = _own(row, known)
    taken = {folded(text) for text in row.negatives}
    passed: list[tuple[str, float]] = []
    rank = 0  # among texts that are no answers
    for text, score in candidates:
        if rank == guards.range_max:
            break
        if folded(text) in own:
            mined.turned_away["equals the anchor or a positive"] += 1
            continue
        rank += 1
        if rank <= guards.range_min:
            continue
        reason = _refused(text, score, positive_score, row, taken, guards)
        if reason:
            mined.turned_away[reason] += 1
            continue
        taken.add(folded(text))
        passed.append((text, score))
        if guards.sampling == "top" and len(passed) == guards.num_negatives:
            break
    if guards.sampling == "random" and len(passed) > guards.num_negatives:
        # A row's own generator: its negatives do not hang on the rows before it.
        passed = random.Random(f"{guards.seed} {number}").sample(passed, guards.num_negatives)
    mined.negatives += len(passed)
    mined.negative_score += sum(score for _, score in passed)
    mined.short += len(passed) < guards.num_negatives
    return [text for text, _ in passed]


def _own(row: _Row, known: Mapping[str, set[str]]) -> set[str]:
    """What is no negative of a row, folded: its anchor, and all positives of an anchor like it."""
    return {folded(row.anchor)} | known[folded(row.anchor)]


def _refused(
    text: str, score: float, positive_score: float, row: _Row, taken: set[str], guards: Guards
) -> str:
    if folded(text) in taken:
        return "is a negative already"
    # Of the size of the positive's score, so that a score below zero has a margin as well.
    margin = (guards.relative_margin or 0.0) * abs(positive_score)
    if guards.relative_margin is not None and score > positive_score - margin:
        return "is as near as the positive"
    if guards.max_score is not None and score > guards.max_score:
        return "is above max_score"
    if guards.min_score is not None and score < guards.min_score:
        return "is below min_score"
    if any(f" {answer} " in f" {folded(text)} " for answer in row.answers):
        return "holds the answer"
    return ""


def folded(text: str) -> str:
    """A text without case, punctuation and double blanks: what counts as the same text."""
    return " ".join(re.findall(r"\w+", text.casefold())) or text.strip()


def read_pool(path: Path) -> list[str]:
    """The texts of a file: one a line, or the anchors of rows.

    Raises:
        InputError: the file cannot be read, or one of its rows has no text.
    """
    texts = []
    for place, row in enumerate(rows_of(path), start=1):
        try:
            texts.append(columns_of(whole(row))[0])
        except InputError as error:
            raise InputError(
                f"{path.name}:{place}: {error}; correct it or take the row out"
            ) from None
    return texts


def _checked(pool: Iterable[str]) -> list[str]:
    texts = list(pool)
    for place, text in enumerate(texts):
        if problem := text_problem(text) or ("is blank" if is_blank(text) else None):
            raise InputError(f"pool[{place}] {problem}; take it out")
    return texts


def _rows(path: Path, mined: Mined) -> list[_Row]:
    rows = []
    for place, found in enumerate(rows_of(path), start=1):
        try:
            row = whole(found)
            anchor, positives, negatives = columns_of(row)
        except InputError as error:
            mined.skipped.append(f"{path.name}:{place}: {error}")
            continue
        used = {"anchor", "positive", *pair_columns(row)}
        rest = {k: v for k, v in row.items() if k not in used and not is_negative(k)}
        rows.append(_Row(anchor, positives, negatives, _answers(row), rest))
    if not rows:
        first = f"; the first: {mined.skipped[0]}" if mined.skipped else ""
        raise InputError(f"{path} has no usable row{first}")
    return rows


def _answers(row: Row) -> list[str]:
    """Answers, texts or numbers: of `answer`, `answers`, or SQuAD's `answers.text`; folded."""
    found = row.get("answer") if row.get("answers") is None else row["answers"]
    if isinstance(found, Mapping):
        found = found.get("text")
    answers = found if isinstance(found, list | tuple) else [found]
    texts = [
        str(answer)
        for answer in answers
        if isinstance(answer, str | int | float) and not isinstance(answer, bool)
    ]
    return [folded(text) for text in texts if text.strip()]


def _known_positives(rows: Sequence[_Row]) -> Mapping[str, set[str]]:
    """All positives of an anchor, over all rows it stands in, folded."""
    known: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        known[folded(row.anchor)] |= {folded(text) for text in row.positives}
    return known


def _written(row: _Row, chosen: Sequence[str]) -> dict[str, Any]:
    negatives = [*row.negatives, *chosen]
    return {
        "anchor": row.anchor,
        "positive": row.positives[0] if len(row.positives) == 1 else row.positives,
        **{f"negative_{place}": text for place, text in enumerate(negatives, start=1)},
        **row.rest,
    }


def _line(row: Row) -> bytes:
    """A row of JSON."""
    try:
        return json_line(row).encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate in a column of the row's own
        return json_line(row, ensure_ascii=True).encode() + b"\n"
