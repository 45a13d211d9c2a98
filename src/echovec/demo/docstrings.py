"""The first paragraph of every public docstring of Python's standard library, found on any machine.

Source files are parsed, never imported. What is written in C has no source to parse: those modules
are imported and inspected. Names are those a user writes: a public module that takes its names
from a private one (`pathlib` from `pathlib._local`, `os` from `posix`) is their public face, so
they are listed under it. Other re-exports keep their real place (`asyncio.tasks.wait_for`).
Python 3.11 has about 6,700 such texts, found in 3 s.
"""

from __future__ import annotations

import ast
import gc
import importlib
import importlib.util
import inspect
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

Kind = Literal["module", "class", "function", "method"]

_SKIPPED = frozenset(
    {
        *("antigravity", "this"),  # importing or describing them is a joke
        *("encodings", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "turtledemo"),
        *("site-packages", "test", "tests", "__main__"),
        "readline",  # importing it may write an escape sequence to standard output
    }
)
_BEHIND_OS = frozenset({"posix", "nt"})
_MIN_WORDS = 3

# "name(args)", "name(args) -> result", "name(args) -- words": the heading of many docstrings in C.
_SIGNATURE = re.compile(r"[\w.]+\(.*?\)\s*(?:(?:-{1,2}>|--|=>|:)\s*(?P<words>.*))?$")


@dataclass(frozen=True)
class Docstring:
    """One public thing of the standard library and what its author says of it."""

    name: str
    """Where it lives, as one would write it: "subprocess.run", "pathlib.Path.glob"."""
    kind: Kind
    """A property counts as a method."""
    text: str
    """The first paragraph of its docstring on one line, at least three words, no signature."""


def collect() -> list[Docstring]:
    """All docstrings of the running Python's standard library, one per name, sorted by name."""
    found: dict[str, Docstring] = {}
    with warnings.catch_warnings():
        # Old modules warn when they are parsed or imported; their docstrings are still texts.
        warnings.simplefilter("ignore")
        for name, kind, doc in _everything():
            text = first_paragraph(doc)
            if len(text.split()) >= _MIN_WORDS:
                found.setdefault(name, Docstring(name, kind, text))
    return [found[name] for name in sorted(found)]


def first_paragraph(doc: str | None) -> str:
    """The first paragraph that says something, on one line; empty if there is none.

    Lines that are only a signature are dropped; of "name(args) -> words that explain" the words
    are kept, if they are three or more.
    """
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(doc or "")):
        words = " ".join(_without_signature(line) for line in paragraph.splitlines()).split()
        if words:
            return " ".join(words)
    return ""


def _without_signature(line: str) -> str:
    match = _SIGNATURE.match(line.strip())
    if match is None:
        return line
    words = match["words"] or ""
    return words if len(words.split()) >= _MIN_WORDS else ""


_Found = tuple[str, Kind, str | None]


def _everything() -> Iterator[_Found]:
    """Every public definition with its raw docstring; of two with one name the first counts."""
    for name in sorted(sys.stdlib_module_names):
        if _is_private(name) or name in _SKIPPED:
            continue
        files = _source_files(name)
        for module, path in files:
            yield from _parsed(module, path)
        if not files:
            yield from _inspected(name, _imported(name))


def _is_private(module: str) -> bool:
    return module in _BEHIND_OS or any(part.startswith("_") for part in module.split("."))


def _source(module: str) -> Path | None:
    base = Path(sysconfig.get_path("stdlib"), *module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _source_files(name: str) -> list[tuple[str, Path]]:
    """The public modules of a top-level module or package: dotted name and file, sorted."""
    top = _source(name)
    if top is None or top.name != "__init__.py":
        return [(name, top)] if top else []
    files = []
    for path in sorted(top.parent.rglob("*.py")):
        inner = path.relative_to(top.parent).with_suffix("").parts
        parts = inner[:-1] if inner[-1] == "__init__" else inner
        if not _SKIPPED.intersection(parts) and not _is_private(".".join(parts) or name):
            files.append((".".join((name, *parts)), path))
    return files


def _tree(path: Path) -> ast.Module:
    """Parse with garbage collection held off.

    A collection in the middle may run code that parses too (a traceback does), and CPython 3.11
    then fails with "AST constructor recursion depth mismatch".
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(path.read_bytes())
    finally:
        if collecting:
            gc.enable()


def _parsed(module: str, path: Path) -> Iterator[_Found]:
    tree = _tree(path)
    yield module, "module", ast.get_docstring(tree)
    yield from _defined(module, tree.body)
    exported = _literal_all(tree)
    for statement in _flat(tree.body):
        if not isinstance(statement, ast.ImportFrom):
            continue
        home = _home(statement, module, is_package=path.name == "__init__.py")
        names = {alias.name for alias in statement.names}
        if names != {"*"}:
            # Only what the module declares public: other names it took for its own use.
            names &= exported or set()
        if names and _is_private(home):
            yield from _taken(home, module, None if names == {"*"} else names)


def _defined(prefix: str, body: list[ast.stmt], kind: Kind = "function") -> Iterator[_Found]:
    """The public functions, classes and methods of a body, and of the branches in it."""
    for node in _flat(body):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if node.name.startswith("_"):
            continue
        name = f"{prefix}.{node.name}"
        if isinstance(node, ast.ClassDef):
            yield name, "class", ast.get_docstring(node)
            yield from _defined(name, node.body, "method")
        else:
            yield name, kind, ast.get_docstring(node)


def _flat(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a body and of its `if`, `try` and `with` blocks, in order."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With):
            yield from _flat(node.body)
            for handler in getattr(node, "handlers", []):
                yield from _flat(handler.body)
            yield from _flat(getattr(node, "orelse", []))
            yield from _flat(getattr(node, "finalbody", []))


def _literal_all(tree: ast.Module) -> set[str] | None:
    """The names of a module's `__all__` as far as they are written out; None without any."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == ["__all__"]:
            return {
                part.value
                for part in ast.walk(node.value)
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            }
    return None


def _home(statement: ast.ImportFrom, module: str, *, is_package: bool) -> str:
    """The absolute name of the module a `from ... import` takes its names from."""
    if not statement.level:
        return statement.module or ""
    parts = module.split(".")
    climbed = parts[: len(parts) - statement.level + is_package]
    return ".".join([*climbed, *([statement.module] if statement.module else [])])


def _taken(home: str, face: str, names: set[str] | None) -> Iterator[_Found]:
    """What `face` takes from the private module `home`: these names, or all public ones."""
    path = _source(home)
    if path is not None:
        tree = _tree(path)
        names = names or _literal_all(tree)
        found = _defined(face, tree.body)
    else:
        found = _inspected(face, _imported(home))
    for name, kind, doc in found:
        top = name.removeprefix(face + ".").split(".")[0]
        if kind != "module" and (names is None or top in names):
            yield name, kind, doc


def _imported(name: str) -> ModuleType | None:
    """A module without source; None where this platform or build does not have it."""
    try:
        return importlib.import_module(name) if importlib.util.find_spec(name) else None
    except ImportError:
        return None


def _inspected(face: str, module: ModuleType | None) -> Iterator[_Found]:
    """The public functions and classes of a module written in C, and their methods."""
    if module is None:
        return
    yield face, "module", module.__doc__
    for name, member in sorted(vars(module).items()):
        # A name that differs from its own is an alias: select.error is OSError. Hooks of `sys` are
        # there to be replaced: with them the texts would depend on the program around.
        if name.startswith("_") or getattr(member, "__name__", None) != name:
            continue
        if name.endswith("hook"):
            continue
        if inspect.isclass(member):
            yield f"{face}.{name}", "class", member.__doc__
            for inner, value in sorted(vars(member).items()):
                callable_or_property = inspect.isroutine(value) or inspect.isdatadescriptor(value)
                if callable_or_property and not inner.startswith("_"):
                    yield f"{face}.{name}.{inner}", "method", value.__doc__
        elif inspect.isroutine(member):
            yield f"{face}.{name}", "function", member.__doc__
