"""An index folder: what lies in it, and the one file that says which of it counts.

    INDEX/index.json             what is here: backend, rows, fingerprint, files with their sha256
    INDEX/recipe-TOKEN.json      how texts became vectors (recipe-TOKEN.safetensors: its arrays)
    INDEX/rows-TOKEN.arrow       id, text and other fields of each row, memory-mapped
    INDEX/vectors-TOKEN.npy      unit vectors, memory-mapped: float32, float16 or int8
    INDEX/lance-TOKEN/           instead of both, the table of a lance index
    INDEX/....-TOKEN.npy         what else a backend keeps

Files have new names in every build and `index.json` is replaced last, by rename: a build that is
stopped at any point leaves the old index, whole. What no index.json names is deleted by the next.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from echovec.errors import InputError, StorageError
from echovec.files.disk import TEMPORARY, file_sha256, write_file
from echovec.files.vectors import Made

INDEX = "index.json"
RECIPE = "recipe"
"""Under which the recipe's file stands among the files of an index."""

FORMAT = 2

_TOKEN = 8 * "[0-9a-f]"
_MADE_HERE = (
    f"rows-{_TOKEN}.arrow",
    *(f"{name}-{_TOKEN}.npy" for name in ("vectors", "scales", "codes", "spread", "reduce")),
    f"recipe-{_TOKEN}.json",
    f"recipe-{_TOKEN}.safetensors",
    f"lance-{_TOKEN}",
    TEMPORARY,
)
"""Globs of what a build writes, and deletes when a later one is whole."""

_OF_FORMAT_1 = ("recipe.json", "recipe.safetensors")


@dataclass(frozen=True)
class Kept:
    """One file of an index."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What index.json says."""

    backend: str
    rows: int

    dimension: int
    """Numbers in a vector as the model gives it; stored ones may be shorter."""

    made: Made

    options: dict[str, Any]
    """The backend's own: dtype, codes, and so on."""

    files: dict[str, Kept] = field(default_factory=dict)
    recall: dict[str, Any] | None = None
    """How it answers, measured at the build against exact search; None where it is exact."""

    versions: dict[str, str] = field(default_factory=dict)


def write_facts(folder: Path, facts: Facts) -> None:
    """Make `facts` what counts in `folder`; the files that they name are written before.

    Raises:
        StorageError: the disk is full, read-only or broken.
    """
    content = {"format": FORMAT, **asdict(facts)}
    del content["made"]["recipe_json"]
    write_file(folder / INDEX, json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")


def read_facts(folder: Path, *, by_hash: bool = False) -> Facts:
    """What is in `folder`, after its files were looked at: their sizes, or their sha256.

    Raises:
        InputError: it is no index, or one of another format.
        StorageError: it is damaged; says which file.
    """
    file = folder / INDEX
    try:
        content = json.loads(file.read_bytes())
        if content.pop("format") != FORMAT:
            raise InputError(f"{file}: another format than {FORMAT}; build it again")
        files = {name: Kept(**kept) for name, kept in content.pop("files").items()}
        recipe_json = (folder / files[RECIPE].name).read_text("utf-8")
        made = Made(recipe_json=recipe_json, **content.pop("made"))
        facts = Facts(made=made, files=files, **content)
    except FileNotFoundError as error:
        raise InputError(
            f"{folder} is no index ({error.filename} is missing); "
            f"make one with: echovec index VECTORS -o {folder}"
        ) from error
    except NotADirectoryError as error:
        raise InputError(
            f"{folder} is a file, not an index folder; "
            "name the folder that `echovec index VECTORS -o FOLDER` made"
        ) from error
    except OSError as error:
        raise StorageError(
            f"{error.filename or file} cannot be read: {error.strerror}; check its rights and disk"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise StorageError(f"{file} is damaged ({error}); build the index again") from error
    for kept in facts.files.values():
        _check(folder / kept.name, kept, by_hash)
    return facts


def _check(path: Path, kept: Kept, by_hash: bool) -> None:
    try:
        size, digest = path.stat().st_size, file_sha256(path) if by_hash else kept.sha256
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}; build the index again") from error
    if size != kept.bytes or digest != kept.sha256:
        raise StorageError(
            f"{path} is damaged ({size:,} of {kept.bytes:,} bytes, sha256 "
            f"{'as written' if digest == kept.sha256 else 'differs'}); build the index again"
        )


def check_out(folder: Path, *, overwrite: bool) -> None:
    """Find what can be wrong with the place of a new index; writes nothing.

    Raises:
        InputError: it is a file, holds something else, or an index and no `overwrite`.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder for the index")
    if (folder / INDEX).exists() and not overwrite:
        raise InputError(f"{folder} holds an index; replace it with --overwrite")
    names = {path.name for path in folder.glob("*")} if folder.exists() else set()
    foreign = sorted(name for name in names if not name.startswith(".") and not _ours(folder, name))
    if foreign:
        raise InputError(f"{folder} holds {foreign[0]}, which is no index; name a new folder")


def _ours(folder: Path, name: str) -> bool:
    if name in _OF_FORMAT_1:
        return (folder / INDEX).exists()
    return name == INDEX or any((folder / name).match(pattern) for pattern in _MADE_HERE)


def clear(folder: Path, facts: Facts) -> None:
    """Delete what builds before this one left."""
    names = {kept.name for kept in facts.files.values()} | {facts.options.get("folder")}
    for pattern in (*_MADE_HERE, *_OF_FORMAT_1):
        for path in folder.glob(pattern):
            if path.name in names:
                continue
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
