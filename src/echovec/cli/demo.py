"""`echovec demo`: questions in plain English, answered from the standard library's docstrings."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from echovec.cli.counts import counted


def demo(
    question: Annotated[
        str | None, typer.Argument(help="Your own question, in quotes; ten fixed ones without it.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the indexes.")] = Path("demo"),
    recipe: Annotated[
        str, typer.Option(help="Recipes to show side by side, separated by commas.")
    ] = "classical,echo,best",
    top: Annotated[int, typer.Option(min=1, help="Answers to show for each question.")] = 3,
    model: Annotated[
        str | None,
        typer.Option(help="Model name, folder or GGUF file; by default SmolLM2-135M-Instruct."),
    ] = None,
    precision: Annotated[
        Literal["exact", "fast", "int8"],
        typer.Option(help="fast: bfloat16 where the processor has it; int8: 8 bits, on a CPU."),
    ] = "int8",
    every: Annotated[
        int | None,
        typer.Option(
            min=1, help="Take one docstring of so many; by default, what six minutes allow."
        ),
    ] = None,
) -> None:
    """Embed the docstrings of Python's standard library and ask them questions.

    Each recipe's index is kept: a second run opens it, and so do `echovec search` and `map`.
    """
    import warnings

    from rich.console import Console

    from echovec import Embedder
    from echovec.demo import FOUND_DEPTH, QUESTIONS, Voice, answer_table, found, own_question, run
    from echovec.errors import InputError, PrecisionWarning
    from echovec.presets import as_recipe

    recipes = [name for part in recipe.split(",") if (name := part.strip())]
    if not recipes:
        raise InputError(f"--recipe {recipe!r} names no recipe; see `echovec recipes`")
    for name in recipes:  # a typo shall not wait for the model
        as_recipe(name)
    questions = QUESTIONS if question is None else (own_question(question),)
    with _phase("loading the model"), warnings.catch_warnings():
        warnings.simplefilter("ignore", PrecisionWarning)  # what there is will do for the eye
        embedder = Embedder.load(model, recipes[0], precision=precision)
    answers, saved = run(
        embedder,
        questions,
        recipes=recipes,
        folder=out,
        depth=max(top, FOUND_DEPTH),
        voice=Voice(say=print, phase=_phase),
        every=every,
    )
    console = Console(highlight=False)
    for answer in answers:
        console.print()
        console.print(answer_table(answer, num_rows=top, width=console.width))
    print()
    if question is None:
        counts = (f"{name} {found(answers, name)}/{len(answers)}" for name in answers[0].hits)
        depth = f"{FOUND_DEPTH} of {saved[0].num_vectors:,}"
        print(f"* a right answer, chosen beforehand; in the top {depth}: {', '.join(counts)}")
    for index in saved:
        print(
            f"{index.path}: {counted(index.num_vectors, 'vector')} of {index.dimension} numbers, "
            "all finite and of unit length (checked)"
        )


@contextmanager
def _phase(work: str) -> Iterator[None]:
    """Name the work, then its time: on one line, but for a terminal's progress bar between."""
    terminal = sys.stderr.isatty()
    print(f"{work} ...", end="\n" if terminal else " ", flush=True)
    start = time.monotonic()
    try:
        yield
    except BaseException:
        print(flush=True)  # so that the error starts on a line of its own
        raise
    print(f"{'  ' if terminal else ''}{time.monotonic() - start:.1f} s", flush=True)
