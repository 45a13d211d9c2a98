"""Embed the docstrings with each recipe, ask each question, keep the best answers side by side.

docstrings --recipe--> vectors (saved, read back next time)
question   --recipe--> vector  --cosine--> best names
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from echovec.demo import store
from echovec.demo.docstrings import Docstring, collect
from echovec.demo.questions import Question
from echovec.errors import EchovecError, InputError

if TYPE_CHECKING:
    import numpy as np

    from echovec.embedder import Embedder

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
    """One Parquet file, checked: all its vectors are finite and of unit length."""

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
) -> tuple[list[Answer], list[Saved]]:
    """Answer the questions with every recipe, `depth` hits each, in the order given.

    Every recipe runs on the one model that `embedder` holds. Vectors are saved in `folder`.

    Raises:
        InputError: Two recipes have one name, or `folder` is not a folder.
        StorageError: The vectors cannot be written.
    """
    embedders = {(one := embedder.with_recipe(name)).recipe.name: one for name in recipes}
    if len(embedders) < len(recipes):
        raise InputError(f"recipes {', '.join(recipes)}: a name occurs twice; name each once")
    store.make_folder(folder)
    with voice.phase("reading the docstrings of Python's standard library"):
        docs = collect()
    voice.say(_census(docs))
    hits: dict[str, list[tuple[Hit, ...]]] = {}
    saved = []
    for name, one in embedders.items():
        path = store.vectors_path(folder, name)
        vectors = _vectors(one, docs, path, voice)
        saved.append(Saved(path, *vectors.shape))
        scores_QN = one.similarity(one.encode_query([q.text for q in questions]), vectors)
        hits[name] = [
            _best(docs, scores_N, question, depth)
            for question, scores_N in zip(questions, scores_QN, strict=True)
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


def _vectors(embedder: Embedder, docs: Sequence[Docstring], path: Path, voice: Voice) -> np.ndarray:
    recipe = embedder.recipe
    vectors, reason = store.read_back(path, docs, recipe.fingerprint)
    if vectors is not None:
        voice.say(f"reusing {len(vectors):,} vectors of {recipe.name} from {path}")
        return vectors
    if reason:
        voice.say(f"{path} {reason}; embedding again")
    with voice.phase(f"embedding {len(docs):,} docstrings with {recipe.name}"):
        made: np.ndarray = embedder.encode_document([doc.text for doc in docs])
    problem = store.vectors_problem(made, len(docs))
    if problem:
        raise EchovecError(f"what {recipe.name} gave {problem}; try --precision exact")
    store.save(path, docs, made, recipe)
    return made


def _best(
    docs: Sequence[Docstring], scores_N: np.ndarray, question: Question, depth: int
) -> tuple[Hit, ...]:
    import numpy as np

    best = np.argsort(-scores_N, kind="stable")[:depth]
    return tuple(
        Hit(docs[i].name, docs[i].text, float(scores_N[i]), docs[i].name in question.expected)
        for i in best
    )
