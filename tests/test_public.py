"""The package's face: its names, its weight on import, its layers."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import echovec


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    ).stdout.strip()


def test_every_exported_name_is_there_and_sorted():
    """`__all__` is sorted, complete and importable."""
    names = [n for n in echovec.__all__ if not n.startswith("_")]
    assert names == sorted(names)
    for name in echovec.__all__:
        assert getattr(echovec, name) is not None
    assert set(dir(echovec)) == set(echovec.__all__)


def test_importing_the_package_loads_nothing_heavy():
    """`import echovec` and the command line's help load no torch and no transformers."""
    loaded = run(
        "import sys, echovec, echovec.cli, echovec.recipe, echovec.text.batch\n"
        "print([m for m in ('torch', 'transformers', 'pyarrow') if m in sys.modules])"
    )
    assert loaded == "[]"


def test_an_unknown_name_is_an_attribute_error():
    """A misspelt import says so."""
    assert not hasattr(echovec, "Embeder")


def test_errors_have_the_exit_codes_their_page_says():
    """The tree in the module's docstring is the tree of classes, with its exit codes."""
    from echovec import errors

    for line in (errors.__doc__ or "").splitlines():
        words = line.replace("|", " ").replace("`--", " ").replace("--", " ").split()
        if words and hasattr(errors, words[0]):
            code = int(next(word for word in words[1:] if word.isdigit()))
            assert getattr(errors, words[0]).exit_code == code, words[0]


def test_every_test_says_its_property():
    """Each test function of this suite has a docstring."""
    silent = []
    for file in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            is_test = isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
            if is_test and not ast.get_docstring(node):
                silent.append(f"{file.name}: {node.name}")
    assert silent == []
