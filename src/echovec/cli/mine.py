"""`echovec mine`: hard negatives for training rows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from echovec.cli.counts import counted
from echovec.cli.options import Precision


def mine(
    data: Annotated[Path, typer.Argument(help="Rows with anchor and positive, as train reads.")],
    output: Annotated[Path, typer.Option("--out", "--output", "-o", help="A .jsonl file.")],
    pool: Annotated[
        Path | None,
        typer.Option("--corpus", help="More texts to choose from: a .txt file, or rows of `text`."),
    ] = None,
    num_negatives: Annotated[int, typer.Option(min=1, help="For each row.")] = 1,
    range_min: Annotated[
        int, typer.Option(min=0, help="Leave out so many of the nearest: they may be answers.")
    ] = 0,
    range_max: Annotated[int, typer.Option(min=1, help="Look at the nearest so many.")] = 100,
    relative_margin: Annotated[
        float,
        typer.Option(
            min=-1, max=1, help="Similarity at most (1 - this) times the positive's; -1: any."
        ),
    ] = 0.05,
    max_score: Annotated[float | None, typer.Option(help="Similarity at most this.")] = None,
    min_score: Annotated[float | None, typer.Option(help="Similarity at least this.")] = None,
    sampling: Annotated[
        Literal["top", "random"], typer.Option(help="The nearest that pass, or any that pass.")
    ] = "top",
    seed: Annotated[int, typer.Option(help="Of --sampling random.")] = 42,
    instruction: Annotated[
        str | None, typer.Option(help="For the anchors; only for recipes that take one.")
    ] = None,
    symmetric: Annotated[
        bool, typer.Option("--symmetric", help="Both sides are alike, as in sentence pairs.")
    ] = False,
    approximate: Annotated[
        bool,
        typer.Option(
            "--approximate", help="For pools of a million texts: LanceDB's graph (extra search)."
        ),
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="Model or trained embedder; by default SmolLM2-135M.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="A recipe's name or file.")] = None,
    precision: Precision = None,
    cache: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where vectors are kept; by default OUTPUT.vectors."),
    ] = None,
) -> None:
    """Add hard negatives to training rows: near the anchor, and no answer to it."""
    from tqdm import tqdm

    from echovec import Embedder
    from echovec.corpus.sink import check_is_no_input
    from echovec.train.mine import Guards, mine, read_pool

    guards = Guards(
        num_negatives=num_negatives,
        range_min=range_min,
        range_max=range_max,
        relative_margin=None if relative_margin == -1 else relative_margin,
        max_score=max_score,
        min_score=min_score,
        sampling=sampling,
        seed=seed,
    )
    check_is_no_input(output, [data] if pool is None else [data, pool])
    texts = [] if pool is None else read_pool(pool)
    embedder = Embedder.load(model, recipe, precision=precision)
    kept = cache or output.with_name(output.name + ".vectors")
    with tqdm(total=0, unit="", disable=None, leave=False, bar_format=_BAR) as bar:

        def expect(weight: int) -> None:
            bar.total = weight
            bar.refresh()

        mined = mine(
            data,
            output,
            embedder,
            guards,
            pool=texts,
            instruction=instruction,
            symmetric=symmetric,
            approximate=approximate,
            cache=kept,
            expect=expect,
            advance=bar.update,
        )
    for line in mined.skipped[:10]:
        print(f"echovec: left out: {line}", file=sys.stderr)
    if len(mined.skipped) > 10:
        print(f"echovec: and {len(mined.skipped) - 10:,} more", file=sys.stderr)
    print(
        f"{counted(mined.rows, 'row')} -> {output}: {counted(mined.negatives, 'negative')}; "
        f"mean similarity {mined.positive_score:.3f} to positives, "
        f"{mined.negative_score:.3f} to negatives"
    )
    for reason, count in mined.turned_away.most_common():
        print(f"  {count:>9,} candidates turned away: a text that {reason}")
    if mined.short:
        print(
            f"  {mined.short:>9,} rows have fewer than {num_negatives}; a larger --range-max or a "
            "smaller --relative-margin finds more"
        )


_BAR = "embedding {percentage:3.0f}% |{bar:30}| {elapsed}, about {remaining} left"
