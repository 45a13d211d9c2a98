"""`echovec embed INPUT... -o OUT`: texts in, one file of vectors or a folder of shards out."""

from __future__ import annotations

import os
import sys
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from echovec.cli.counts import counted
from echovec.cli.options import Device, Dtype, Model, Precision
from echovec.errors import InputError

if TYPE_CHECKING:
    from echovec import Embedder
    from echovec.corpus.job import Report
    from echovec.corpus.keep import Keep
    from echovec.corpus.source import Problem
    from echovec.recipe import Recipe

SHOWN_PROBLEMS = 10


def embed(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help=".txt (a text a line), .jsonl, .csv or .parquet files, folders or globs of them, "
            "data sets saved by Hugging Face datasets, or - for standard input.",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            metavar="OUT",
            help="A .parquet, .npy or .jsonl file; or FOLDER/, for a job of any size that goes on "
            "where it was stopped.",
        ),
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
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="FIELDS",
            help="Fields or columns that go along into OUT, with commas between; or all. An index "
            "takes them along too, to filter by.",
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
        str | None,
        typer.Option(
            help="A recipe's name, or its .json file; by default best, on other models echo."
        ),
    ] = None,
    model: Model = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Budget of each text; by default the recipe's.")
    ] = None,
    long_text: Annotated[
        Literal["cut", "windows"] | None,
        typer.Option(help="What becomes of texts beyond it; by default as the recipe says."),
    ] = None,
    truncate_dim: Annotated[
        int | None, typer.Option(min=1, help="Keep only the first numbers of each vector.")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    precision: Precision = None,
    engine: Annotated[
        Literal["auto", "plain", "packed", "ray"],
        typer.Option(
            help="packed is fast, plain runs any model; auto takes what fits. ray: --runner ray."
        ),
    ] = "auto",
    on_error: Annotated[
        Literal["fail", "skip"] | None,
        typer.Option(
            help="At a row that cannot be used: stop (by default for a file), or leave it out and "
            "count it (by default for a folder, which lists it in rejected.jsonl).",
            show_default=False,
        ),
    ] = None,
    no_text: Annotated[bool, typer.Option("--no-text", help="Leave the texts out of OUT.")] = False,
    flag_truncated: Annotated[
        bool, typer.Option("--flag-truncated", help="Say of each row whether its text was cut.")
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace OUT if it exists; in a folder of the same recipe, vectors of unchanged "
            "texts are kept.",
        ),
    ] = False,
    shard_rows: Annotated[
        int | None,
        typer.Option(min=1, help="FOLDER/: rows of input to a shard, 8192 by default."),
    ] = None,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="FOLDER/: check every shard, do damaged ones again."),
    ] = False,
    mirror: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="FOLDER/: copy finished shards there too (s3://, gs://, file://)."
        ),
    ] = None,
    json_progress: Annotated[
        bool,
        typer.Option("--json-progress", help="FOLDER/: a line of JSON on stdout for each shard."),
    ] = False,
    runner: Annotated[
        Literal["local", "ray"],
        typer.Option(help="FOLDER/: where models run, in this process or on a Ray cluster."),
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(help="A running cluster: auto, HOST:6379; by default one on this machine."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Models on the cluster; by default one for each GPU.")
    ] = None,
    gpus_per_worker: Annotated[
        float | None, typer.Option(min=0, help="GPUs for each model; by default 1 if there are.")
    ] = None,
) -> None:
    """Embed every text of the inputs into one file of vectors, or a folder of shards."""
    from tqdm import tqdm

    from echovec.cli.embed_folder import embed_folder
    from echovec.corpus.count import count_rows
    from echovec.corpus.folder import check_folder
    from echovec.corpus.job import embed_files, stop_at
    from echovec.corpus.mirror import Mirror
    from echovec.corpus.ray_runner import RayRunner
    from echovec.corpus.sink import Contents, Sink, check_out
    from echovec.corpus.source import STDIN, Problem, read_rows
    from echovec.files.parquet import give_memory_back

    give_memory_back()
    if engine == "ray":
        engine, runner = "auto", "ray"
    cluster: dict[str, Any] = {"workers": workers, "gpus_per_worker": gpus_per_worker}
    if runner != "ray":
        _refuse_without_ray({"ray_address": ray_address, **cluster})
    # A typo shall cost milliseconds: the outputs, the inputs and the first row come before torch.
    to_folder = out.endswith(("/", os.sep)) or Path(out).is_dir()
    on_error = on_error or ("skip" if to_folder else "fail")
    files = [name for name in inputs if name != STDIN]
    if to_folder:
        check_folder(Path(out), files)
    else:
        folder_only: dict[str, object] = {
            "--shard-rows": shard_rows,
            "--repair": repair,
            "--json-progress": json_progress,
            "--mirror": mirror,
            "--runner ray": runner == "ray",
        }
        _refuse_without_folder(folder_only)
        check_out(out, overwrite=overwrite, inputs=files)
    rows = read_rows(
        inputs,
        kind=input_format,
        text_field=text_field,
        id_field=id_field,
        unique_ids=not to_folder,
        keep=_names(keep),
    )
    first = next(rows)
    if isinstance(first, Problem) and on_error == "fail":
        stop_at(first)
    load = partial(_load, model, recipe, device, dtype, precision, engine, max_tokens, long_text)
    run: dict[str, Any] = {"role": role, "instruction": instruction, "truncate_dim": truncate_dim}

    def contents(made_by: Recipe) -> Contents:
        return Contents(
            recipe_json=made_by.to_json(),
            fingerprint=made_by.fingerprint,
            keep_text=not no_text,
            flag_truncated=flag_truncated,
            columns=rows.columns,
            **run,
        )

    if to_folder:
        start = partial(
            embed_folder,
            rows=chain([first], rows),
            out=Path(out),
            total=count_rows(inputs, input_format),
            shard_rows=shard_rows,
            on_error=on_error,
            overwrite=overwrite,
            repair=repair,
            json_progress=json_progress,
            mirror=None if mirror is None else Mirror(mirror),
        )
        if runner == "ray":
            with RayRunner(load, **run, address=ray_address, **cluster) as models:
                start(models, contents=contents(models.recipe), runner=models)
        else:
            embedder = load()
            start(embedder, contents=contents(embedder.recipe))
        return
    embedder = load()
    problems: list[Problem] = []
    with (
        Sink(out, contents(embedder.recipe), overwrite=overwrite) as sink,
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
    _conclude(report, Path(out), embedder, truncate_dim)


def _load(
    model: str | None,
    recipe: str | None,
    device: str | None,
    dtype: str | None,
    precision: Literal["exact", "fast", "int8"] | None,
    engine: Literal["auto", "plain", "packed"],
    max_tokens: int | None,
    long_text: Literal["cut", "windows"] | None,
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
        long_text=long_text,
    )


def _names(keep: str | None) -> Keep:
    if keep is None or keep == "all":
        return keep or ()
    return [name.strip() for name in keep.split(",")]


def _refuse_without_folder(given: dict[str, object]) -> None:
    if named := [name for name, value in given.items() if value]:
        raise InputError(
            f"{named[0]} is for a folder of shards; end the name of the output with a slash"
        )


def _refuse_without_ray(given: dict[str, object]) -> None:
    if named := [name for name, value in given.items() if value is not None]:
        option = "--" + named[0].replace("_", "-")
        raise InputError(f"{option} is for --runner ray; leave it out, or run on Ray")


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
        print(
            f"echovec: skipped {report.skipped:,} of {counted(total, 'row')}{shown}",
            file=sys.stderr,
        )
    if report.truncated:
        print(
            f"echovec: warning: {report.truncated:,} of {report.rows:,} texts were cut to "
            f"{recipe.max_tokens:,} tokens or the model's own limit; "
            "keep more with --max-tokens, or all with --long-text windows",
            file=sys.stderr,
        )
    facts = [counted(truncate_dim or embedder.dimension, "dimension"), f"recipe {recipe.name}"]
    facts += [f"{report.truncated:,} truncated"] if report.truncated else []
    facts += [f"{report.skipped:,} skipped"] if report.skipped else []
    print(
        f"{counted(report.rows, 'text')} -> {out} ({', '.join(facts)}) in {report.seconds:.1f} s",
        file=sys.stderr,
    )
