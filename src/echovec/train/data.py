"""Data: training sets in the layouts that people have, as rows of anchor, positive, negatives.

| layout | columns |
|---|---|
| sentence-transformers | `anchor`, `positive`, `negative`, `negative_1`, ... |
| the authors' released sets (LLM2Vec's "echo-data") | `query`, `positive`, `negative` |
| FlagEmbedding, GritLM | `query`, `pos` (list), `neg` (list), `prompt` |
| tevatron | `query`, `positive_passages`, `negative_passages` (lists of {title, text}) |
| SimCSE | `sent0`, `sent1`, `hard_neg` (CSV) |
| classes | `text` and a label: see `Source.label` |
| BEIR, as `echovec eval` reads it | a folder of `corpus`, `queries_train`, `qrels_train.tsv` |
| unlabelled | `text`, or a .txt file of one text a line; in pairs with `Source.cloze` |
| any other | the columns that `Source.columns` names |

Of several positives the first is trained on. Which files and folders rows come from is in rows.py.
A row that has no positive or is empty is counted and named, never dropped in silence.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from echovec.errors import InputError
from echovec.text.check import text_problem
from echovec.train.cloze import cloze
from echovec.train.rows import Row, rows_of, whole

ANCHORS = ("anchor", "query", "sent0", "query_text")
POSITIVES = ("positive", "pos", "sent1", "positive_passages")


@dataclass(frozen=True)
class Example:
    """One row: a text, one that means the same or answers it, and any number that do not."""

    anchor: str
    positive: str
    negatives: tuple[str, ...] = ()

    label: str = ""
    """What all texts of a class share; rows of one class are no negatives of each other."""

    others: tuple[str, ...] = ()
    """Its other positives: not trained on, but no negatives of it either."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One training set and how it takes part in a run.

    Attributes:
        path: a file or a folder.
        name: what reports call it; by default the file's.
        ratio: which part of its rows an epoch shows (the paper, section 5.2: ELI5 0.1).
        instructions: for the anchor; of several each batch has one (NLI and Quora in the paper),
            which hangs on its first row.
        symmetric: both sides are alike (sentence pairs), so the positive gets the instruction too.
        label: a column that says which texts belong together, such as the class of a text or the
            passage of a question: each text's positive is another text with the same value.
        columns: what the columns of an anchor and its positive are called, or that of a text, where
            the layout is none of the known ones; no other but the label is read.
        cloze: texts alone become pairs: a sentence of each, and what is left of it (cloze.py).
        limit: at most so many rows, the first ones.
        licence: of the texts, for the model card.
    """

    path: str
    name: str = ""
    ratio: float = 1.0
    instructions: tuple[str, ...] = ()
    symmetric: bool = False
    label: str = ""
    columns: tuple[str, ...] = ()
    cloze: bool = False
    limit: int | None = None
    licence: str = "not stated"

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise InputError(f"ratio={self.ratio}; give a number above 0, at most 1")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"limit={self.limit}; give at least 1, or leave it out")
        if len(self.columns) > 2:
            raise InputError(
                f"columns={list(self.columns)}; give one, or an anchor's and a positive's"
            )
        if (self.cloze and self.label) or ((self.cloze or self.label) and len(self.columns) == 2):
            raise InputError(
                "cloze and label each make pairs of texts; choose one of them, and one column"
            )


@dataclass(frozen=True)
class TrainingSet:
    """The rows of a source, read."""

    source: Source
    name: str
    examples: tuple[Example, ...]
    skipped: tuple[str, ...] = field(default=(), repr=False)
    """Rows that could not be used, each with its place and the reason."""

    held: tuple[Example, ...] = field(default=(), repr=False)
    """Rows kept out of training, to watch the run by."""

    left_out: int = 0
    """How many rows of the source are neither trained on nor held."""

    def __len__(self) -> int:
        return len(self.examples)


def hold_out(one: TrainingSet, rows: int) -> TrainingSet:
    """The set without its last rows, which are kept to watch the run by; at most a tenth.

    Of a label at most one row is kept, since two would be each other's right answers. Rows that
    share a text with a kept one are taken out too, and counted.

    Raises:
        InputError: all do.
    """
    rows = min(rows, len(one) // 10)
    if rows == 0:
        return one
    labels: set[str] = set()
    held: list[Example] = []
    for example in reversed(one.examples):
        if len(held) < rows and not (example.label and example.label in labels):
            held.append(example)
            labels.add(example.label)
    held.reverse()
    kept = set(held)
    seen = {text for example in held for text in (example.anchor, example.positive)}
    rest = tuple(
        e for e in one.examples if e not in kept and e.anchor not in seen and e.positive not in seen
    )
    if not rest:
        raise InputError(
            f"{one.name}: all rows share a text with one of the {len(held)} that are held out; set "
            "held_out=0, or give the column that they share as label"
        )
    return _without(one, rest, "rows that share a text with a held one", held=tuple(held))


def read(source: Source, folder: Path | None = None) -> TrainingSet:
    """Read a source.

    Args:
        source: what to read.
        folder: what a relative path is relative to; by default the current one.

    Raises:
        InputError: no such file, an unknown layout, or no usable row.
    """
    path = (folder or Path()) / Path(source.path).expanduser()
    examples: list[Example] = []
    skipped: list[str] = []
    for place, found in enumerate(rows_of(path), start=1):
        if source.limit is not None and len(examples) >= source.limit:
            break
        try:
            row = whole(found)
            chosen = named(row, source.columns) if source.columns else row
            examples.append(
                labelled({**row, **chosen}, source.label) if source.label else example_of(chosen)
            )
        except InputError as error:
            skipped.append(f"{path.name}:{place}: {error}")
    rows = len(examples)
    left_out = len(skipped)
    if source.label:
        examples, alone = paired(examples)
        if again := rows - len(examples) - len(alone):
            skipped.append(f"{path.name}: texts that came again with the same label: {again:,}")
        skipped += [f"{path.name}: no other text of {label!r}" for label in alone]
    if source.cloze:
        pairs, passed = cloze(example.anchor for example in examples)
        examples = [Example(anchor, positive) for anchor, positive in pairs]
        if passed:
            skipped.append(f"{path.name}: texts with no sentence to take out: {passed:,}")
    examples, wrong = _without_answers(examples, source.symmetric)
    if wrong:
        skipped.append(
            f"{path.name}: negatives that are their anchor or an answer to it: {wrong:,}"
        )
    if not examples:
        first = f"; the first: {skipped[0]}" if skipped else ""
        raise InputError(f"{path} has no usable row{first}")
    name = source.name or path.name.split(".")[0]
    left_out += rows - len(examples)
    return TrainingSet(source, name, tuple(examples), tuple(skipped), left_out=left_out)


def answers_of(examples: Iterable[Example], *, symmetric: bool) -> Mapping[str, set[str]]:
    """The answers to each anchor, by all rows that have it.

    Args:
        examples: the rows of a set.
        symmetric: both sides are alike, so an anchor is an answer to its positive too.
    """
    answers: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        answers[example.anchor].update((example.positive, *example.others))
        if symmetric:
            for positive in (example.positive, *example.others):
                answers[positive].add(example.anchor)
    return answers


def _without_answers(examples: list[Example], symmetric: bool) -> tuple[list[Example], int]:
    """Rows without negatives that some row says are an answer, and how many those were."""
    if not any(example.negatives for example in examples):
        return examples, 0
    answers = answers_of(examples, symmetric=symmetric)
    kept, wrong = [], 0
    for example in examples:
        right = {example.anchor, *answers[example.anchor]}
        negatives = tuple(text for text in example.negatives if text not in right)
        wrong += len(example.negatives) - len(negatives)
        kept.append(replace(example, negatives=negatives))
    return kept, wrong


def against_themselves(one: TrainingSet) -> TrainingSet:
    """The set's distinct anchors, each its own positive, both sides alike: SimCSE's pairs."""
    texts = dict.fromkeys(example.anchor for example in one.examples)
    examples = tuple(Example(text, text) for text in texts)
    source = replace(one.source, symmetric=True)
    return _without(one, examples, "texts that came again", source=source)


def _without(
    one: TrainingSet, examples: tuple[Example, ...], what: str, **changes: Any
) -> TrainingSet:
    """The set with fewer rows; what is neither there nor held any more is counted and named."""
    made = replace(one, examples=examples, **changes)
    if count := len(one) - len(made) - len(made.held):
        line = f"{one.name}: {what}: {count:,}"
        return replace(made, skipped=(*one.skipped, line), left_out=one.left_out + count)
    return made


def example_of(row: Row) -> Example:
    """One row of any of the layouts: its first positive, the others, and all its negatives.

    Raises:
        InputError: the columns are of none of them, or a text is missing or empty.
    """
    anchor, positives, negatives = columns_of(row)
    return Example(anchor, positives[0], tuple(negatives), others=tuple(positives[1:]))


def named(row: Row, columns: Sequence[str]) -> Row:
    """A row with the columns that it is to be read by, under the usual names.

    Raises:
        InputError: one of them is not there.
    """
    if missing := [column for column in columns if column not in row]:
        raise InputError(f"columns {', '.join(map(str, row))}: there is no {missing[0]!r}")
    names = ("text",) if len(columns) == 1 else ("anchor", "positive")
    return {name: row[column] for name, column in zip(names, columns, strict=True)}


def labelled(row: Row, column: str) -> Example:
    """One row of texts with labels; its own positive until it is `paired`.

    Raises:
        InputError: no such column, or the text or the label is missing or empty.
    """
    if column not in row:
        raise InputError(f"columns {', '.join(map(str, row))}: there is no {column!r}")
    label = row[column]
    if label is None or not str(label).strip():
        raise InputError(f"{column} is {label!r}; a label is needed")
    of_text = _first(row, ("text", *ANCHORS))
    if of_text is None:
        raise InputError(f"columns {', '.join(map(str, row))}: there is no text")
    text = _text(row[of_text], of_text)
    return Example(text, text, label=str(label))


def paired(examples: Iterable[Example]) -> tuple[list[Example], list[str]]:
    """Each text with another one of its label, and the labels that have one text only.

    The texts of a label stand in a ring, in an order drawn once: each is an anchor once and a
    positive once.
    """
    texts: dict[str, dict[str, None]] = {}  # of each label; a text that comes twice counts once
    for example in examples:
        texts.setdefault(example.label, {})[example.anchor] = None
    drawn = random.Random(0)
    pairs = []
    for label, own in texts.items():
        ring = list(own)
        drawn.shuffle(ring)
        ends = ring[1:] + ring[:1]
        pairs += [Example(a, b, label=label) for a, b in zip(ring, ends, strict=True) if a != b]
    drawn.shuffle(pairs)
    return pairs, [label for label, own in texts.items() if len(own) == 1]


def columns_of(row: Row) -> tuple[str, list[str], list[str]]:
    """Anchor, positives (at least one) and negatives of a row of any of the layouts.

    Raises:
        InputError: the columns are of none of them, or a text is missing or empty.
    """
    of_anchor, of_positive = pair_columns(row)
    anchor, positive = row[of_anchor], row[of_positive]
    if of_anchor == of_positive:
        return _text(anchor, of_anchor), [anchor], []
    positives = _texts(positive, "positive")
    if not positives:
        raise InputError("no positive")
    negatives = [
        text for name, value in row.items() if is_negative(name) for text in _texts(value, name)
    ]
    return _text(anchor, "anchor"), positives, negatives


def pair_columns(row: Row) -> tuple[str, str]:
    """The columns that hold the anchor and the positive; twice `text` where it stands alone.

    Raises:
        InputError: there are none.
    """
    if "text" in row and not any(name in row for name in POSITIVES):
        return "text", "text"
    anchor, positive = _first(row, ANCHORS), _first(row, POSITIVES)
    if anchor is None or positive is None:
        raise InputError(
            f"columns {', '.join(map(str, row))}: there is no anchor (query) or no positive (pos)"
        )
    return anchor, positive


def is_negative(column: str) -> bool:
    """Whether a column of this name holds texts that do not match the anchor."""
    numbered = column.startswith("negative_") and column[9:].isdigit()
    return numbered or column in ("negative", "neg", "hard_neg", "negative_passages")


def _first(row: Row, names: tuple[str, ...]) -> str | None:
    """The first of these columns that the row has something in."""
    return next((name for name in names if row.get(name) is not None), None)


def _texts(value: Any, name: str) -> list[str]:
    """The texts of a cell, one or a list; what is empty is none."""
    texts = []
    for one in value if isinstance(value, list | tuple) else [value]:
        if isinstance(one, Mapping):  # tevatron: a title belongs to its text
            one = " ".join(str(part) for part in (one.get("title"), one.get("text")) if part)
        if one is not None and one != "" and not (isinstance(one, str) and one.isspace()):
            texts.append(_text(one, name))
    return texts


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{name} is {value!r}; a text is needed")
    if problem := text_problem(value):
        raise InputError(f"{name} {problem}")
    return value
