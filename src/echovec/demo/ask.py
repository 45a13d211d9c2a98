"""Embed the docstrings with each recipe, ask each question, keep the best answers side by side.

docstrings --recipe--> Index (kept, opened next time)
question   --recipe--> vector --Index.search--> best names
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from echovec.demo import share, store
from echovec.demo.docstrings import Docstring, collect
from echovec.demo.questions import Question
from echovec.errors import InputError

if TYPE_CHECKING:
    from echovec.embedder import Embedder
    from echovec.search.index import Index

FOUND_DEPTH = 10
"""A question counts as found if a right answer is among this many best ones."""


@dataclass(frozen=True)
class Hit:
    """One docstring as an answer."""

    name: str
    text: str
    score: float
    """The cosine with the question."""
    right: bool
    """Whether it was named beforehand as a right answer."""


@dataclass(frozen=True)
class Answer:
    """The best hits to one question, by recipe."""

    question: Question
    hits: Mapping[str, tuple[Hit, ...]]
    """Recipe name -> hits, best first; equal scores in the order of names."""


@dataclass(frozen=True)
class Saved:
    """One index on the disk; its vectors were finite and of unit length."""

    path: Path
    num_vectors: int
    dimension: int


@dataclass(frozen=True)
class Voice:
    """How the demo tells what it does, so that only the command line prints."""

    say: Callable[[str], object]
    """One line of news."""
    phase: Callable[[str], AbstractContextManager[object]]
    """Around work that takes a while: names it and reports its time."""


def run(
    embedder: Embedder,
    questions: Sequence[Question],
    *,
    recipes: Sequence[str],
    folder: Path,
    depth: int,
    voice: Voice,
    every: int | None = None,
) -> tuple[list[Answer], list[Saved]]:
    """Answer the questions with every recipe, `depth` hits each, in the order given.

    Every recipe runs on the one model that `embedder` holds. Its index is kept in `folder`.
    `every` takes one docstring of so many; None takes as many as an index in `folder` holds, and
    where there is none, as many as six minutes allow.

    Raises:
        InputError: Two recipes have one name, or `folder` is not a folder.
        NonFiniteError: A recipe gave a vector that is zero or not finite.
        StorageError: An index cannot be written.
    """
    embedders = {(one := embedder.with_recipe(name)).recipe.name: one for name in recipes}
    if len(embedders) < len(recipes):
        raise InputError(f"recipes {', '.join(recipes)}: a name occurs twice; name each once")
    store.make_folder(folder)
    with voice.phase("reading the docstrings of Python's standard library"):
        docs = collect()
    voice.say(_census(docs))
    docs = _share(docs, embedders, folder, every, voice)
    hits: dict[str, list[tuple[Hit, ...]]] = {}
    saved = []
    for name, one in embedders.items():
        path = store.index_path(folder, name)
        index = _index(one, docs, path, voice)
        saved.append(Saved(path, len(index), index.dimension))
        found_Q = index.search(one.encode_query([q.text for q in questions]), depth)
        hits[name] = [
            tuple(Hit(h.id, str(h.text), h.score, h.id in question.expected) for h in found)
            for question, found in zip(questions, found_Q, strict=True)
        ]
    answers = [
        Answer(question, {name: rows[i] for name, rows in hits.items()})
        for i, question in enumerate(questions)
    ]
    return answers, saved


def found(answers: Sequence[Answer], recipe: str) -> int:
    """How many questions have a right answer among the first `FOUND_DEPTH` hits of a recipe."""
    return sum(any(hit.right for hit in a.hits[recipe][:FOUND_DEPTH]) for a in answers)


def _census(docs: Sequence[Docstring]) -> str:
    kinds = Counter(doc.kind for doc in docs)
    plural = {"class": "classes"}
    parts = [f"{count:,} {plural.get(kind, kind + 's')}" for kind, count in kinds.most_common()]
    return f"{len(docs):,} docstrings: {', '.join(parts)}"


def _share(
    docs: list[Docstring],
    embedders: Mapping[str, Embedder],
    folder: Path,
    every: int | None,
    voice: Voice,
) -> list[Docstring]:
    """The docstrings to embed; where they are not all, that is said."""
    if every is None:
        counts = {store.num_rows(store.index_path(folder, name)) for name in embedders}
        every = next((n for n in share.STEPS if len(share.thinned(docs, n)) in counts), None)
    if every is None and len(docs) > share.PROBE:
        with voice.phase("measuring how fast this machine is"):
            seconds = share.seconds_a_text(embedders.values(), docs)
        every = share.affordable(seconds, len(docs))
        if every > 1:
            minutes = seconds * len(docs) / 60
            voice.say(f"all of them would take about {minutes:.0f} minutes here")
    taken = share.thinned(docs, every or 1)
    if len(taken) < len(docs):
        voice.say(
            f"taking one of {every}, and every right answer: {len(taken):,} "
            "(all of them: --every 1)"
        )
    return taken


def _index(embedder: Embedder, docs: Sequence[Docstring], path: Path, voice: Voice) -> Index:
    recipe = embedder.recipe
    index, reason = store.open_fitting(path, docs, recipe.fingerprint)
    if index is not None:
        voice.say(f"reusing {len(index):,} vectors of {recipe.name} from {path}")
        return index
    if reason:
        voice.say(f"{path} {reason}; embedding again")
    with voice.phase(f"embedding {len(docs):,} docstrings with {recipe.name}"):
        vectors = embedder.encode_document([doc.text for doc in docs])
    return store.build(path, docs, vectors, recipe)
