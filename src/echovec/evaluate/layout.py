"""Layout: a folder of files that is a task, read line by line.

One folder is one set: `SPLIT.jsonl` or `SPLIT.jsonl.gz` with a JSON object on each line, or for
retrieval `corpus`, `queries[_SPLIT]` and `qrels[_SPLIT].tsv`. The fields of the first line say
which type of task it is; `task.toml` may say it instead. docs/local-data.md is the description for
people. A line that cannot be used is an error that names file and line; nothing is skipped.
"""

from __future__ import annotations

import gzip
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from echovec.errors import InputError
from echovec.text.check import text_problem

Kind = Literal["text", "maybe text", "texts", "number", "numbers", "label", "0 or 1"]
Row = dict[str, Any]

LAYOUTS: Mapping[str, Mapping[str, Kind]] = {
    "Summarization": {
        "human_summaries": "texts",
        "machine_summaries": "texts",
        "relevance": "numbers",
    },
    "Reranking": {"query": "text", "positive": "texts", "negative": "texts"},
    "STS": {"sentence1": "text", "sentence2": "text", "score": "number"},
    "PairClassification": {"sentence1": "text", "sentence2": "text", "label": "0 or 1"},
    "Classification": {"text": "text", "label": "label"},
    "Clustering": {"text": "text", "label": "label"},
}
"""Type of task to the fields of each line; the first whose fields are all there is the one. Texts
with labels are to be classified if there is a `train` file, else clustered."""

CORPUS: Mapping[str, Kind] = {"_id": "text", "text": "maybe text"}
QUERIES: Mapping[str, Kind] = {"_id": "text", "text": "text"}
CATEGORIES = (*LAYOUTS, "Retrieval")
ENDINGS = (".jsonl", ".jsonl.gz")
_OPTIONS = ("category", "name", "mteb", "instruction")


@dataclass(frozen=True)
class LocalSet:
    """A folder that is a task."""

    folder: Path

    name: str
    """The folder's name, or what `task.toml` says."""

    category: str
    """mteb's type of task."""

    splits: tuple[str, ...]
    """Splits that can be evaluated."""

    mteb: str | None = None
    """The mteb task that `task.toml` says it is from."""

    instruction: str | None = None
    """For recipes that take one, if `task.toml` says it."""


def find_sets(data: Path) -> tuple[list[LocalSet], dict[str, str]]:
    """The sets below a folder (or the folder itself, if it is one), by name.

    Returns:
        The sets, and the folders that are none with the reason.

    Raises:
        InputError: there is no such folder, or a `task.toml` or first line cannot be used.
    """
    if not data.is_dir():
        raise InputError(f"{data} is not a folder; give one whose folders are sets of texts")
    found, none = [], {}
    itself = read_set(data)
    if isinstance(itself, LocalSet):
        return [itself], {}
    for folder in sorted(path for path in data.iterdir() if path.is_dir()):
        one = read_set(folder)
        if isinstance(one, LocalSet):
            found.append(one)
        else:
            none[folder.name] = one
    return found, none


def read_set(folder: Path) -> LocalSet | str:
    """The set that a folder is, or why it is none."""
    options = _options(folder)
    name = options.get("name", folder.name)
    extra = {key: options[key] for key in ("mteb", "instruction") if key in options}
    if _file(folder, "corpus") and (qrels := sorted(folder.glob("qrels*.tsv"))):
        splits = tuple(q.stem.removeprefix("qrels").lstrip("_") or "test" for q in qrels)
        return LocalSet(folder, name, options.get("category", "Retrieval"), splits, **extra)
    if folder.name.startswith("train_"):
        return "its name says that it is for training"
    splits = tuple(sorted({s for file in folder.iterdir() if (s := _split(file))}))
    judged = tuple(split for split in splits if split != "train")
    if not judged:
        return "it has no SPLIT.jsonl other than train.jsonl, and no corpus with qrels"
    category = options.get("category") or _category(folder, judged[0], splits)
    return LocalSet(folder, name, category, splits, **extra)


def rows_of(one: LocalSet, split: str) -> list[Row]:
    """All lines of a split of any set but retrieval, checked.

    Raises:
        InputError: there is no such file, or a line cannot be used (file and line).
    """
    return list(_checked(_need(one.folder, split), LAYOUTS[one.category]))


def corpus_of(one: LocalSet) -> list[Row]:
    """All documents of a retrieval set: `_id`, `text` and `title` ("" where there is none)."""
    file = _need(one.folder, "corpus")
    rows = [row | {"title": row.get("title") or ""} for row in _checked(file, CORPUS)]
    for number, row in enumerate(rows, 1):
        if not (row["title"] + row["text"]).strip():
            raise _broken(file, number, "has neither title nor text")
    return rows


def queries_of(one: LocalSet, split: str) -> tuple[list[Row], dict[str, dict[str, int]]]:
    """The queries of a split that have judgements, and query to document to grade."""
    suffix = "" if split == "test" else f"_{split}"
    qrels_file = one.folder / f"qrels{suffix}.tsv"
    queries = list(_checked(_need(one.folder, f"queries{suffix}"), QUERIES))
    qrels: dict[str, dict[str, int]] = {}
    documents = {row["_id"] for row in corpus_of(one)}
    asked = {row["_id"] for row in queries}
    for number, line in _lines(qrels_file):
        if number == 1 and line.lower().startswith("query-id"):
            continue
        parts = line.split("\t")
        try:
            query, document, grade = parts[0], parts[-2], int(parts[-1])
        except (ValueError, IndexError):
            raise _broken(
                qrels_file, number, "needs query-id, corpus-id and a whole number"
            ) from None
        if query not in asked or document not in documents:
            missing = f"query {query!r}" if query not in asked else f"document {document!r}"
            raise _broken(qrels_file, number, f"names the {missing}, which is not there")
        qrels.setdefault(query, {})[document] = grade
    return [row for row in queries if row["_id"] in qrels], qrels


def files_of(one: LocalSet, split: str) -> list[Path]:
    """Every file that a split reads."""
    if _file(one.folder, "corpus"):
        suffix = "" if split == "test" else f"_{split}"
        qrels = one.folder / f"qrels{suffix}.tsv"
        return [_need(one.folder, "corpus"), _need(one.folder, f"queries{suffix}"), qrels]
    train = _file(one.folder, "train") if one.category == "Classification" else None
    return [file for file in (_need(one.folder, split), train) if file is not None]


def _options(folder: Path) -> dict[str, str]:
    file = folder / "task.toml"
    if not file.is_file():
        return {}
    try:
        options = tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: not TOML ({error})") from None
    for key, value in options.items():
        if key not in _OPTIONS or not isinstance(value, str):
            raise InputError(
                f"{file}: {key} = {value!r}; there are the texts {', '.join(_OPTIONS)}"
            )
    if set(options.get("name", "")) & set("/\\\0"):
        raise InputError(f"{file}: name {options['name']!r} is no name for a file")
    if (category := options.get("category", "STS")) not in CATEGORIES:
        raise InputError(f"{file}: category {category!r}; there are {', '.join(CATEGORIES)}")
    return options


def _category(folder: Path, split: str, splits: tuple[str, ...]) -> str:
    file = _need(folder, split)
    row = next(_checked(file, {}), None)
    if row is None:
        raise InputError(f"{file}: it is empty")
    for category, fields in LAYOUTS.items():
        if all(field in row for field in fields):
            if category == "Classification" and "train" not in splits:
                continue
            return category
    known = "; ".join(f"{name}: {', '.join(fields)}" for name, fields in LAYOUTS.items())
    raise InputError(
        f"{file}, line 1: the fields {', '.join(row)} are those of no type of task ({known})"
    )


def _split(file: Path) -> str | None:
    for ending in ENDINGS:
        if file.name.endswith(ending):
            return file.name.removesuffix(ending)
    return None


def _file(folder: Path, stem: str) -> Path | None:
    files = (folder / f"{stem}{ending}" for ending in ENDINGS)
    return next((file for file in files if file.is_file()), None)


def _need(folder: Path, stem: str) -> Path:
    if (file := _file(folder, stem)) is None:
        raise InputError(f"{folder} has no {stem}.jsonl or {stem}.jsonl.gz")
    return file


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not blank."""
    number = 0
    try:
        with _open(file) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except (OSError, EOFError, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise _broken(file, number + 1, f"cannot be read ({error})") from None


def _open(file: Path) -> IO[str]:
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8")
    return file.open(encoding="utf-8")


def _checked(file: Path, fields: Mapping[str, Kind]) -> Iterator[Row]:
    for number, line in _lines(file):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise _broken(file, number, f"is not JSON ({error})") from None
        if not isinstance(row, dict):
            raise _broken(file, number, "is not a JSON object")
        for field, kind in fields.items():
            if field not in row:
                raise _broken(file, number, f"has no {field!r}; it has {', '.join(row)}")
            if problem := _problem(row[field], kind):
                raise _broken(file, number, f"{field!r} {problem}")
        yield row


def _problem(value: Any, kind: Kind) -> str | None:
    if kind == "texts" or kind == "numbers":
        if not isinstance(value, list):
            return f"is {value!r:.40}, not a list"
        one: Kind = "text" if kind == "texts" else "number"
        return next((f"[{i}] {p}" for i, v in enumerate(value) if (p := _problem(v, one))), None)
    if kind in ("text", "maybe text"):
        return text_problem(value or " ") if kind == "maybe text" else text_problem(value)
    if isinstance(value, bool):
        return f"is {value!r}"
    if kind == "label":
        return None if isinstance(value, int | str) else f"is {value!r:.40}, not a label"
    if not isinstance(value, int | float):
        return f"is {value!r:.40}, not a number"
    return f"is {value!r}, not 0 or 1" if kind == "0 or 1" and value not in (0, 1) else None


def _broken(file: Path, number: int, what: str) -> InputError:
    return InputError(f"{file}, line {number}: {what}")
