"""`echovec pairs`: training pairs out of texts alone."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Annotated

import typer

from echovec.cli.counts import counted
from echovec.cli.options import Precision


def pairs(
    texts: Annotated[
        Path | None,
        typer.Argument(
            help=".txt (a text a line), .jsonl, .csv or .parquet; by default the model writes some."
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option("--out", "--output", "-o", help="A .jsonl file of anchors and positives."),
    ] = Path("pairs.jsonl"),
    count: Annotated[
        int | None,
        typer.Option(
            min=2, help="So many of the texts, drawn by --seed; or so many are written (2,048)."
        ),
    ] = None,
    text_field: Annotated[
        str, typer.Option("--text-field", help="The column that holds the texts.")
    ] = "text",
    forms: Annotated[
        str, typer.Option(help="What is written for each text: query, title, or both.")
    ] = "query,title",
    within: Annotated[
        int, typer.Option(min=1, help="It has to find its text among the nearest so many.")
    ] = 3,
    text_tokens: Annotated[
        int, typer.Option(min=1, help="The model sees so many tokens of each text.")
    ] = 96,
    temperature: Annotated[
        float, typer.Option(help="Lower is more likely, and less varied.")
    ] = 0.7,
    seed: Annotated[int, typer.Option(min=0, help="What everything is drawn with.")] = 0,
    model: Annotated[
        str | None, typer.Option(help="Model or trained embedder; by default SmolLM2-135M.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="A recipe's name or file.")] = None,
    precision: Precision = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code that the model brings.")
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where vectors are kept; by default OUTPUT.vectors."),
    ] = None,
) -> None:
    """Write what each text would answer, and keep what finds its text again: training pairs."""
    from tqdm import tqdm

    from echovec import Embedder
    from echovec.cli.calibrate import read_texts
    from echovec.corpus.sink import check_is_no_input
    from echovec.errors import InputError
    from echovec.files.disk import write_file
    from echovec.train.ask import Asking
    from echovec.train.ask import pairs as made
    from echovec.train.passages import own_passages

    asking = Asking(
        forms=tuple(part.strip() for part in forms.split(",")),
        within=within,
        text_tokens=text_tokens,
        temperature=temperature,
        seed=seed,
    )
    if output.suffix != ".jsonl":
        raise InputError(f"{output.name}: pairs are written as .jsonl")
    check_is_no_input(output, [] if texts is None else [texts])
    given = None if texts is None else read_texts(texts, text_field, None)
    if given is not None and count is not None and count < len(given):
        given = random.Random(seed).sample(given, count)
    to_write = count or OWN
    embedder = Embedder.load(
        model, recipe, precision=precision, trust_remote_code=trust_remote_code
    )
    kept = cache or output.with_name(output.name + ".vectors")
    with tqdm(total=to_write, unit="", disable=None, leave=False, bar_format=_BAR) as bar:

        def expect(total: int, doing: str) -> None:
            bar.set_description_str(doing, refresh=False)
            bar.reset(total)

        if given is None:
            expect(to_write, "writing")
            given = own_passages(
                embedder,
                to_write,
                seed=seed,
                trust_remote_code=trust_remote_code,
                advance=bar.update,
            )
        found = made(
            embedder,
            given,
            asking,
            vectors=kept,
            trust_remote_code=trust_remote_code,
            expect=expect,
            advance=bar.update,
        )
    lines = [
        json.dumps(
            {"anchor": pair.anchor, "positive": pair.positive, "form": pair.form},
            ensure_ascii=False,
        )
        for pair in found.rows
    ]
    write_file(output, "".join(line + "\n" for line in lines).encode("utf-8", "surrogatepass"))
    print(f"{counted(found.texts, 'text')} -> {output}: {counted(len(lines), 'pair')}")
    for reason, number in found.left_out.most_common():
        print(f"  {number:>9,} left out: what {reason}")
    if not lines:
        print("  nothing is left to train on; a larger --within keeps more")


OWN = 2048
"""Texts that the model writes where none are given, and nobody says how many."""

_BAR = "{desc} {percentage:3.0f}% |{bar:30}| {elapsed}, about {remaining} left"
