"""Reproduce: every experiment of the paper as a function, on any model, with a verdict.

One file per experiment, each with a function `(embedder, data, options) -> Findings`; a new one is
a file and a row in EXPERIMENTS.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from echovec.errors import InputError

if TYPE_CHECKING:
    from echovec.evaluate.reproduce.findings import Experiment

EXPERIMENTS: Mapping[str, str] = {
    "toy": "section 3, figure 2: does a vector know the end of the text",
    "zero-shot": "tables 1, 2, 12: echo, echo with half the text, a single copy, a one-word prompt",
    "pooling": "table 4: the mean against the last token",
    "bidirectional": "table 3: a single copy with the causal mask switched off",
    "token-budget": "figure 4: echo and a single copy at the same number of tokens",
    "prompts": "figures 3 and 7 to 12: how much depends on the prompt",
    "halves": "appendix E: is the beginning of a text overrated",
    "controls": "not in the paper: repetition alone, instruction alone, 3 and 4 copies",
    "layers": "not in the paper: which layer to read",
}
"""Name to what it is about. A name's function stands in the file of that name, "-" as "_"."""


def experiment(name: str) -> Experiment:
    """The experiment's function.

    Raises:
        InputError: there is none of that name; the message offers the nearest.
    """
    if name not in EXPERIMENTS:
        near = difflib.get_close_matches(name, (*EXPERIMENTS, "all"), n=2)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise InputError(
            f"unknown experiment {name!r}; there are {', '.join(EXPERIMENTS)}, and all{hint}"
        )
    plain = name.replace("-", "_")
    found: Experiment = getattr(import_module(f"{__name__}.{plain}"), plain)
    return found


def experiments_named(name: str) -> dict[str, Experiment]:
    """The experiment of this name, or every one for "all"."""
    return {one: experiment(one) for one in (EXPERIMENTS if name == "all" else (name,))}


def findings_in(folder: Path) -> list[str]:
    """The Markdown of every experiment that was written into a folder, in the order of the table.

    Raises:
        InputError: there is none.
    """
    files = [folder / f"{name}.md" for name in EXPERIMENTS]
    found = [file.read_text("utf-8") for file in files if file.is_file()]
    if not found:
        raise InputError(f"no page of an experiment in {folder}; make one with `echovec reproduce`")
    return found
