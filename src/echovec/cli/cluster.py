"""`echovec cluster INDEX`: what an index is about, in groups with their words."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from echovec.cli.counts import counted


def cluster(
    index: Annotated[Path, typer.Argument(help="What `echovec index` made.")],
    clusters: Annotated[int, typer.Option("--clusters", "-n", min=1, help="How many.")] = 12,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A .jsonl file: id, cluster and cosine of each row."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The report as lines of JSON.")] = False,
) -> None:
    """Cluster the rows and print each cluster's size, words and middle row."""
    import numpy as np

    from echovec.files.disk import check_out, write_file
    from echovec.search.clusters import find_clusters
    from echovec.search.index import Index

    if out is not None:
        check_out(out)
    points = Index.open(index).points()
    found = find_clusters(points.vectors_ND, min(clusters, len(points.ids)), texts=points.texts)
    for number, (size, words) in enumerate(zip(found.sizes, found.words, strict=True)):
        members = np.flatnonzero(found.labels_N == number)
        middle = int(members[found.cosines_N[members].argmax()])
        cosine = float(found.cosines_N[members].mean())
        if as_json:
            report = {"cluster": number, "rows": size, "cosine": round(cosine, 4), "words": words}
            report |= {"id": points.ids[middle], "text": points.texts[middle]}
            print(json.dumps(report, ensure_ascii=False))
        else:
            text = " ".join((points.texts[middle] or "").split())[:60]
            noun = "row " if size == 1 else "rows"
            print(f"{number:>3}  {size:>7,} {noun}  cosine {cosine:.3f}  {', '.join(words)}")
            print(f"     {points.ids[middle]}  {text}")
    if out is not None:
        rows = zip(points.ids, found.labels_N.tolist(), found.cosines_N.tolist(), strict=True)
        lines = [
            json.dumps({"id": key, "cluster": label, "cosine": round(cosine, 6)})
            for key, label, cosine in rows
        ]
        write_file(out, "".join(f"{line}\n" for line in lines).encode())
        print(f"{counted(len(lines), 'row')} -> {out}", file=sys.stderr)
