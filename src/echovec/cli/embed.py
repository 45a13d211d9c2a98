"""`echovec embed INPUT... -o OUT`: files of texts in, one file of vectors out."""

from __future__ import annotations

import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from echovec import Embedder
    from echovec.corpus.job import Report
    from echovec.corpus.source import Problem

SHOWN_PROBLEMS = 10


def embed(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help=".txt (a text a line), .jsonl, .csv or .parquet files, or - for standard input.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="OUT", help="A .parquet, .npy or .jsonl file.")
    ],
    input_format: Annotated[
        Literal["txt", "jsonl", "csv", "parquet"] | None,
        typer.Option(
            "--format",
            help="What every INPUT is; by default its ending says, and standard input is txt.",
            show_default=False,
        ),
    ] = None,
    text_field: Annotated[str, typer.Option(help="Field or column that holds the text.")] = "text",
    id_field: Annotated[
        str | None,
        typer.Option(
            help="Field or column that holds the id, '' to number the rows from 0; "
            "by default id, if the first row has one, else numbers.",
            show_default=False,
        ),
    ] = None,
    role: Annotated[
        Literal["query", "document"] | None,
        typer.Option(help="Which side of a search the texts are on; by default neither."),
    ] = None,
    instruction: Annotated[
        str | None, typer.Option(help="What the vectors are for, for recipes that take it.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="A recipe's name, or its .json file; by default echo.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model name, folder or GGUF file; by default SmolLM2-135M.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens kept of each text; by default the recipe's.")
    ] = None,
    truncate_dim: Annotated[
        int | None, typer.Option(min=1, help="Keep only the first numbers of each vector.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or mps; by default the best one here.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16; by default by device.")
    ] = None,
    precision: Annotated[
        Literal["exact", "fast"] | None,
        typer.Option(help="fast: bfloat16 where the processor has it."),
    ] = None,
    engine: Annotated[
        Literal["auto", "plain", "packed"],
        typer.Option(help="packed is fast, plain runs any model; auto takes what fits."),
    ] = "auto",
    on_error: Annotated[
        Literal["fail", "skip"],
        typer.Option(help="At a row that cannot be used: stop, or leave it out and count it."),
    ] = "fail",
    no_text: Annotated[bool, typer.Option("--no-text", help="Leave the texts out of OUT.")] = False,
    flag_truncated: Annotated[
        bool, typer.Option("--flag-truncated", help="Say of each row whether its text was cut.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = (
        False
    ),
) -> None:
    """Embed every text of the inputs into one file of vectors."""
    from tqdm import tqdm

    from echovec.corpus.job import embed_files, stop_at
    from echovec.corpus.sink import Contents, Sink, check_out
    from echovec.corpus.source import STDIN, Problem, read_rows

    # A typo shall cost milliseconds: the outputs, the inputs and the first row come before torch.
    check_out(out, overwrite=overwrite, inputs=[name for name in inputs if name != STDIN])
    rows = read_rows(inputs, kind=input_format, text_field=text_field, id_field=id_field)
    first = next(rows)
    if isinstance(first, Problem) and on_error == "fail":
        stop_at(first)
    embedder = _load(model, recipe, device, dtype, precision, engine, max_tokens)
    contents = Contents(
        recipe_json=embedder.recipe.to_json(),
        fingerprint=embedder.recipe.fingerprint,
        role=role,
        instruction=instruction,
        truncate_dim=truncate_dim,
        keep_text=not no_text,
        flag_truncated=flag_truncated,
    )
    problems: list[Problem] = []
    with (
        Sink(out, contents, overwrite=overwrite) as sink,
        tqdm(unit=" texts", disable=None, leave=False) as bar,
    ):
        report = embed_files(
            embedder,
            chain([first], rows),
            sink,
            role=role,
            instruction=instruction,
            on_error=on_error,
            truncate_dim=truncate_dim,
            progress=bar.update,
            on_problem=lambda problem: _show(problem, problems),
        )
    _conclude(report, out, embedder, truncate_dim)


def _load(
    model: str | None,
    recipe: str | None,
    device: str | None,
    dtype: str | None,
    precision: Literal["exact", "fast"] | None,
    engine: Literal["auto", "plain", "packed"],
    max_tokens: int | None,
) -> Embedder:
    from echovec import Embedder

    return Embedder.load(
        model,
        recipe,
        device=device,
        dtype=dtype,
        precision=precision,
        engine=engine,
        max_tokens=max_tokens,
    )


def _show(problem: Problem, shown: list[Problem]) -> None:
    """Print the first ten; the count at the end speaks for the rest."""
    from tqdm import tqdm

    if len(shown) < SHOWN_PROBLEMS:
        shown.append(problem)
        # Not print: it would be written into the progress bar.
        tqdm.write(f"echovec: skipped {problem.where}: {problem.reason}", file=sys.stderr)


def _conclude(report: Report, out: Path, embedder: Embedder, truncate_dim: int | None) -> None:
    recipe = embedder.recipe
    if report.skipped:
        total = report.rows + report.skipped
        shown = f"; the first {SHOWN_PROBLEMS} are shown" * (report.skipped > SHOWN_PROBLEMS)
        print(f"echovec: skipped {report.skipped:,} of {total:,} rows{shown}", file=sys.stderr)
    if report.truncated:
        print(
            f"echovec: warning: {report.truncated:,} of {report.rows:,} texts were cut to "
            f"{recipe.max_tokens:,} tokens or the model's own limit; "
            "keep more with --max-tokens, or split the texts",
            file=sys.stderr,
        )
    facts = [f"{truncate_dim or embedder.dimension:,} dimensions", f"recipe {recipe.name}"]
    facts += [f"{report.truncated:,} truncated"] if report.truncated else []
    facts += [f"{report.skipped:,} skipped"] if report.skipped else []
    print(
        f"{report.rows:,} texts -> {out} ({', '.join(facts)}) in {report.seconds:.1f} s",
        file=sys.stderr,
    )
