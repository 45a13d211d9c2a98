"""Layout: a folder of files that is a task, read line by line.

One folder is one set: `SPLIT.jsonl` or `SPLIT.jsonl.gz` with a JSON object on each line, or for
retrieval `corpus`, `queries[_SPLIT]` and `qrels[_SPLIT].tsv`. The fields of the first line say
which type of task it is; `task.toml` may say it instead. docs/local-data.md is the description for
people. A line that cannot be used is an error that names file and line; nothing is skipped.
"""

from __future__ import annotations

import gzip
import json
import math
import tomllib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from echovec.errors import InputError
from echovec.text.check import text_problem

Kind = Literal[
    "text", "maybe text", "texts", "text or texts", "number", "numbers", "label", "0 or 1"
]
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
    if split_file(folder, "corpus"):
        stems = sorted(
            file.stem for file in (*folder.glob("qrels.tsv"), *folder.glob("qrels_*.tsv"))
        )
        if not stems:
            return "it has a corpus, but no qrels.tsv or qrels_SPLIT.tsv"
        splits = tuple(dict.fromkeys(stem.removeprefix("qrels")[1:] or "test" for stem in stems))
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
        InputError: there is no such file, it is empty, or a line cannot be used (file and line).
    """
    file = _need(one.folder, split)
    problem_of = _ROW_PROBLEMS.get(one.category)
    rows = []
    for number, row in _numbered(file, LAYOUTS[one.category]):
        if problem_of is not None and (problem := problem_of(row)):
            raise _broken(file, number, problem)
        rows.append(row)
    if not rows:
        raise InputError(f"{file}: it is empty")
    return rows


def checked_rows(file: Path, fields: Mapping[str, Kind]) -> list[Row]:
    """All lines of a file that have these fields, in order; other fields stay as they are.

    Raises:
        InputError: the file cannot be read, or a line cannot be used (file and line).
    """
    return [row for _, row in _numbered(file, fields)]


def first_row(file: Path) -> Row:
    """The first line of a file that is not blank; of an empty file an empty row.

    Raises:
        InputError: the file or that line cannot be read.
    """
    return next((row for _, row in _numbered(file, {})), {})


def split_file(folder: Path, stem: str) -> Path | None:
    """`STEM.jsonl` or `STEM.jsonl.gz` of a folder, or None."""
    files = (folder / f"{stem}{ending}" for ending in ENDINGS)
    return next((file for file in files if file.is_file()), None)


def corpus_of(one: LocalSet) -> list[Row]:
    """All documents of a retrieval set: `_id`, `text` and `title` ("" where there is none).

    Raises:
        InputError: there is no such file, or a line cannot be used (file and line).
    """
    file = _need(one.folder, "corpus")
    rows: dict[str, Row] = {}
    for number, row in _numbered(file, CORPUS):
        if problem := _problem(row.get("title"), "maybe text"):
            raise _broken(file, number, f"'title' {problem}")
        title, text = row.get("title") or "", row["text"] or ""
        if not (title + text).strip():
            raise _broken(file, number, "has neither title nor text")
        _add(rows, row | {"title": title, "text": text}, file, number)
    return list(rows.values())


def queries_of(
    one: LocalSet, split: str, corpus: Iterable[Row] | None = None
) -> tuple[list[Row], dict[str, dict[str, int]]]:
    """The queries of a split that have judgements, and query to document to grade.

    Args:
        one: a retrieval set.
        split: of it.
        corpus: its documents, where they have been read; else they are.

    Raises:
        InputError: a file is missing, nothing is judged, or a line cannot be used (file and line).
    """
    queries_file, qrels_file = _search_files(one.folder, split)
    queries: dict[str, Row] = {}
    for number, row in _numbered(queries_file, QUERIES):
        _add(queries, row, queries_file, number)
    qrels: dict[str, dict[str, int]] = {}
    documents = {row["_id"] for row in (corpus_of(one) if corpus is None else corpus)}
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
        if query not in queries or document not in documents:
            missing = f"query {query!r}" if query not in queries else f"document {document!r}"
            raise _broken(qrels_file, number, f"names the {missing}, which is not there")
        qrels.setdefault(query, {})[document] = grade
    if not qrels:
        raise InputError(f"{qrels_file}: it has no judgements")
    return [row for query, row in queries.items() if query in qrels], qrels


def files_of(one: LocalSet, split: str) -> list[Path]:
    """Every file that a split reads."""
    if split_file(one.folder, "corpus"):
        return [_need(one.folder, "corpus"), *_search_files(one.folder, split)]
    train = split_file(one.folder, "train") if one.category == "Classification" else None
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
    _, row = next(_numbered(file, {}), (0, None))
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


def _need(folder: Path, stem: str) -> Path:
    if (file := split_file(folder, stem)) is None:
        raise InputError(f"{folder} has no {stem}.jsonl or {stem}.jsonl.gz")
    return file


def _search_files(folder: Path, split: str) -> tuple[Path, Path]:
    """Queries and judgements of a split; those of "test" need no ending."""
    endings = ("", "_test") if split == "test" else (f"_{split}",)
    found = (split_file(folder, f"queries{ending}") for ending in endings)
    queries = next(filter(None, found), None) or _need(folder, f"queries{endings[0]}")
    qrels = [folder / f"qrels{ending}.tsv" for ending in endings]
    return queries, next((file for file in qrels if file.is_file()), qrels[0])


def _add(rows: dict[str, Row], row: Row, file: Path, number: int) -> None:
    """Keep a row by its id, which no other may have."""
    if row["_id"] in rows:
        raise _broken(file, number, f"'_id' {row['_id']!r} is that of an earlier line")
    rows[row["_id"]] = row


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not blank."""
    number = 0
    try:
        with _open(file) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise _broken(file, number + 1, f"cannot be read ({error})") from None


def _open(file: Path) -> IO[str]:
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8")
    return file.open(encoding="utf-8")


def _numbered(file: Path, fields: Mapping[str, Kind]) -> Iterator[tuple[int, Row]]:
    """Every line's number and row, checked."""
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
        yield number, row


def _problem(value: Any, kind: Kind) -> str | None:
    if kind == "text or texts":
        kind = "texts" if isinstance(value, list) else "text"
    if kind == "texts" or kind == "numbers":
        if not isinstance(value, list):
            return f"is {value!r:.40}, not a list"
        one: Kind = "text" if kind == "texts" else "number"
        return next((f"[{i}] {p}" for i, v in enumerate(value) if (p := _problem(v, one))), None)
    if kind == "maybe text" and (value is None or value == ""):
        return None
    if kind in ("text", "maybe text"):
        return text_problem(value)
    if isinstance(value, bool):
        return f"is {value!r}"
    if kind == "label":
        return None if isinstance(value, int | str) else f"is {value!r:.40}, not a label"
    if not isinstance(value, int | float):
        return f"is {value!r:.40}, not a number"
    if isinstance(value, float) and not math.isfinite(value):
        return f"is {value!r}"
    return f"is {value!r}, not 0 or 1" if kind == "0 or 1" and value not in (0, 1) else None


def _reranking_problem(row: Row) -> str | None:
    if row["positive"] and row["negative"]:
        return None
    return "a query needs texts in both 'positive' and 'negative'"


def _summarization_problem(row: Row) -> str | None:
    scores, summaries = len(row["relevance"]), len(row["machine_summaries"])
    if scores == summaries:
        return None
    return f"{scores} scores in 'relevance' for {summaries} machine summaries"


_ROW_PROBLEMS: Mapping[str, Callable[[Row], str | None]] = {
    "Reranking": _reranking_problem,
    "Summarization": _summarization_problem,
}
"""What of a row no single field shows."""


def _broken(file: Path, number: int, what: str) -> InputError:
    return InputError(f"{file}, line {number}: {what}")
