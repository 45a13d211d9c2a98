"""Suites: names for groups of tasks, and how a name becomes tasks.

A name is looked up in this order: a suite, a category, a task of the data folder (by its name or
its folder's), a task of mteb. A suite's or category's task whose exact split is in the data folder
comes from there; the others come from the hub.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from echovec.errors import InputError
from echovec.evaluate.exact import metadata_of
from echovec.evaluate.hub import BENCHMARK, HubTask, own_split
from echovec.evaluate.layout import find_sets
from echovec.evaluate.local import LocalTask
from echovec.evaluate.results import TEST

Source = LocalTask | HubTask

MTEB_MINI = (
    "FiQA2018",
    "SCIDOCS",
    "SciFact",
    "NFCorpus",
    "TwitterSemEval2015",
    "TwitterURLCorpus",
    "ImdbClassification",
    "AmazonReviewsClassification",
    "TweetSentimentExtractionClassification",
    "MTOPDomainClassification",
    "TwentyNewsgroupsClustering",
    "BiorxivClusteringS2S",
    "MedrxivClusteringS2S",
    "StackOverflowDupQuestions",
    "AskUbuntuDupQuestions",
    "SciDocsRR",
    "BIOSSES",
    "STS12",
    "STS13",
    "STS14",
    "STS15",
    "STS16",
    "STS17",
    "STS22",
    "STSBenchmark",
    "SICK-R",
)
"""The 26 names in appendix D of the echo paper. The paper says that MTEB-MINI has 28 datasets; the
other two are named nowhere."""

CATEGORIES: Mapping[str, str] = {
    "sts": "STS",
    "pair-classification": "PairClassification",
    "classification": "Classification",
    "clustering": "Clustering",
    "retrieval": "Retrieval",
    "reranking": "Reranking",
    "summarization": "Summarization",
}
"""What the command line calls mteb's types of tasks."""

SUITES = ("local", "mteb-eng-56", "mteb-mini")


@dataclass(frozen=True)
class Found:
    """Tasks with the name of the split in each, and what was left out with the reason."""

    tasks: list[tuple[Source, str]]
    left_out: Mapping[str, str]


def find_tasks(names: Sequence[str], data: Path | None, split: str = TEST) -> Found:
    """Tasks of these names, each once, in order.

    Args:
        names: suites, categories or single tasks.
        data: the folder of local sets, if any.
        split: "test", a development split, or another that some sets have.

    Raises:
        InputError: a name is unknown (the nearest are offered), or no task has the split.
    """
    sets, none = ([], {}) if data is None else find_sets(data)
    local = [LocalTask(one) for one in sets]
    left_out = none if "local" in names else {}
    chosen: dict[str, tuple[Source, str]] = {}
    for name in names:
        several, sources = _resolve(name, local, data)
        for source in sources:
            found = _split_in(source, split)
            if found is None and not several:
                raise InputError(f"{source.name} has no split {split!r} to evaluate")
            if found is None:
                left_out[source.name] = f"it has no split {split!r}"
                continue
            first, _ = chosen.setdefault(source.name, (source, found))
            if first != source and isinstance(source, LocalTask):
                left_out[source.set.folder.name] = f"an earlier set is called {source.name}, too"
    if not chosen:
        raise InputError(
            f"none of {', '.join(names)} has a split {split!r}"
            if left_out
            else f"there is no task of {', '.join(names)}" + (f" in {data}" if data else "")
        )
    return Found(list(chosen.values()), left_out)


def _split_in(source: Source, split: str) -> str | None:
    if isinstance(source, HubTask):
        return source.split_of(split)
    found = own_split(split, source.set.splits)
    return None if source.category == "Classification" and found == "train" else found


def _resolve(
    name: str, local: Sequence[LocalTask], data: Path | None
) -> tuple[bool, Sequence[Source]]:
    """Whether a name is one of several tasks, and its tasks."""
    if name == "local":
        if data is None:
            raise InputError("the suite 'local' needs the folder of data sets: --data DIR")
        return True, local
    if name in ("mteb-eng-56", "mteb-mini"):
        return True, _from_here(_benchmark() if name == "mteb-eng-56" else MTEB_MINI, local)
    if name in CATEGORIES:
        if data is not None:
            return True, [one for one in local if one.category == CATEGORIES[name]]
        of_type = (n for n in _benchmark() if metadata_of(n).type == CATEGORIES[name])
        return True, [HubTask(one) for one in of_type]
    for one in local:
        if name in (one.name, one.set.name, one.set.folder.name):
            return False, [one]
    if metadata_of(name) is not None:
        return False, [HubTask(name)]
    raise _unknown(name, local)


def _from_here(names: Sequence[str], local: Sequence[LocalTask]) -> list[Source]:
    here = {one.name: one for one in local if one.exact}
    return [here.get(name) or HubTask(name) for name in names]


def _benchmark() -> list[str]:
    import mteb

    return [task.metadata.name for task in mteb.get_benchmark(BENCHMARK).tasks]


def _unknown(name: str, local: Sequence[LocalTask]) -> InputError:
    import mteb
    from mteb.get_tasks import TASK_LIST

    names = [*SUITES, *CATEGORIES, *(one.name for one in local), *(o.set.name for o in local)]
    # The classes: to make all tasks of `get_tasks()` takes a second or more.
    of_mteb = mteb.filter_tasks(
        TASK_LIST,
        modalities=["text"],
        exclude_superseded=True,
        exclude_private=True,
        exclude_beta=True,
    )
    names += [task.metadata.name for task in of_mteb]
    lower = {one.lower(): one for one in names}
    near = [lower[one] for one in difflib.get_close_matches(name.lower(), lower, n=3)]
    hint = f"did you mean {' or '.join(near)}?" if near else "nothing has a name like it."
    return InputError(
        f"unknown task {name!r}; {hint} There are the suites {', '.join(SUITES)}, the categories "
        f"{', '.join(CATEGORIES)}, the tasks of --data DIR, and those of mteb"
    )
