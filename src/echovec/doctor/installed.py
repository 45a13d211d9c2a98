"""Installed: this package's dependencies, in which versions, and its extras."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from echovec.doctor.finding import Finding
from echovec.version import __version__

_FOR_DEVELOPERS = ("all", "bench", "dev", "dev-plugins", "dev-serve", "docs")


def installed() -> Iterator[Finding]:
    """Python, this package, its dependencies against the ranges it names, its extras."""
    from packaging.requirements import Requirement  # comes with transformers

    yield Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    yield Finding("echovec", "ok", __version__)
    try:
        wanted = [Requirement(line) for line in requires("echovec") or ()]
    except PackageNotFoundError:
        yield Finding(
            "dependencies",
            "note",
            "echovec runs from a folder and is not installed, so nothing names its dependencies",
            "pip install . in its clone",
        )
        return
    plain = [one for one in wanted if one.marker is None]
    for one in plain:
        yield _required(one.name, one.specifier)
    extras: dict[str, list[Requirement]] = {}
    for one in wanted:
        _, _, name = str(one.marker or "").partition("extra ==")
        if name and one.name != "echovec":
            extras.setdefault(name.strip(" \"'"), []).append(one)
    for name, parts in extras.items():
        if name in _FOR_DEVELOPERS:
            continue
        yield _extra(name, [one.name for one in parts])


def _required(name: str, wanted: object) -> Finding:
    from packaging.specifiers import SpecifierSet

    have = _version(name)
    if have is None:
        return Finding(name, "FAIL", "not installed", f"pip install '{name}{wanted}'")
    if not SpecifierSet(str(wanted)).contains(have, prereleases=True):
        return Finding(name, "FAIL", f"{have}, needs {wanted}", f"pip install '{name}{wanted}'")
    return Finding(name, "ok", have)


def _extra(extra: str, names: list[str]) -> Finding:
    lacking = sorted(name for name in names if _version(name) is None)
    topic = f"extra {extra}"
    if not lacking:
        return Finding(topic, "ok", ", ".join(f"{name} {_version(name)}" for name in names))
    return Finding(
        topic,
        "note",
        f"not here: {', '.join(lacking)}",
        f"if you need it: pip install 'echovec[{extra}]'",
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
