"""`echovec dedup INDEX`: rows that say nearly the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from echovec.cli.counts import counted

if TYPE_CHECKING:
    from echovec.search.dedup import Group
    from echovec.search.points import Points


def dedup(
    index: Annotated[Path, typer.Argument(help="What `echovec index` made.")],
    threshold: Annotated[
        float | None,
        typer.Option(
            help="The least cosine with the row that is kept; by default nearer than a tenth of "
            "the distance that two rows have on average.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A .jsonl file: a line for each group.")
    ] = None,
    show: Annotated[int, typer.Option(min=0, help="Groups to print, largest first.")] = 10,
) -> None:
    """Find rows that say nearly what an earlier one says: how many could go, and which to keep."""
    from tqdm import tqdm

    from echovec.files.disk import check_out, write_file
    from echovec.search.dedup import find_groups, mean_cosine, usual_threshold
    from echovec.search.index import Index

    if out is not None:
        check_out(out)
    points = Index.open(index).points()
    if threshold is None:
        threshold = usual_threshold(points.vectors_ND)
    with tqdm(total=len(points.ids), unit=" rows", disable=None, leave=False) as bar:
        groups = find_groups(points.vectors_ND, threshold, progress=bar.update)
    spare = sum(len(group.others) for group in groups)
    print(
        f"{counted(len(points.ids), 'row')}, {counted(len(groups), 'group')} of near-duplicates: "
        f"{counted(spare, 'row')} could go, {len(points.ids) - spare:,} would stay (cosine "
        f"at least {threshold:.4g}; two rows have {mean_cosine(points.vectors_ND):.3f} on average)"
    )
    for group in sorted(groups, key=lambda group: -len(group.others))[:show]:
        print(f"\n{1 + len(group.others)} rows  keep {_shown(points, group.kept)}")
        for row, cosine in list(zip(group.others, group.cosines, strict=True))[:3]:
            print(f"  {cosine:.3f}  {_shown(points, row)}")
    if out is not None:
        lines = [json.dumps(_report(points, group), ensure_ascii=False) for group in groups]
        write_file(out, "".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
        print(f"{counted(len(lines), 'group')} -> {out}", file=sys.stderr)


def _report(points: Points, group: Group) -> dict[str, Any]:
    others = zip(group.others, group.cosines, strict=True)
    return {
        "keep": points.ids[group.kept],
        "text": points.texts[group.kept],
        "others": [
            {"id": points.ids[row], "cosine": round(cosine, 6), "text": points.texts[row]}
            for row, cosine in others
        ],
    }


def _shown(points: Points, row: int) -> str:
    text = " ".join((points.texts[row] or "").split())
    return f"{points.ids[row]}  {text[:90]}"
