"""`echovec embed ... -o FOLDER/`: the same texts into a folder of shards, to come back to."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from echovec.cli.counts import counted

if TYPE_CHECKING:
    from echovec import Embedder
    from echovec.corpus.folder import Folder
    from echovec.corpus.formats import Contents
    from echovec.corpus.mirror import Mirror
    from echovec.corpus.ray_runner import RayRunner
    from echovec.corpus.run import Progress
    from echovec.corpus.source import Problem, Row

SHOWN_REPAIRS = 10


def embed_folder(
    embedder: Embedder | RayRunner,
    *,
    rows: Iterator[Row | Problem],
    out: Path,
    contents: Contents,
    total: int | None,
    shard_rows: int | None,
    on_error: Literal["fail", "skip"],
    overwrite: bool,
    repair: bool,
    json_progress: bool,
    mirror: Mirror | None = None,
    runner: RayRunner | None = None,
) -> None:
    """Run the job and tell how far it is: a bar, or a line of JSON on stdout after each shard."""
    from tqdm import tqdm

    from echovec.corpus.folder import REJECTED
    from echovec.corpus.run import SHARD_ROWS, embed_corpus

    with tqdm(total=total, unit=" rows", disable=json_progress or None, leave=False) as bar:

        def begin(folder: Folder) -> None:
            for line in folder.repairs[:SHOWN_REPAIRS]:
                tqdm.write(f"echovec: to be done again: {line}", file=sys.stderr)
            if len(folder.repairs) > SHOWN_REPAIRS:
                more = len(folder.repairs) - SHOWN_REPAIRS
                tqdm.write(f"echovec: and {more:,} more", file=sys.stderr)
            done = sum(entry.stop - entry.start for entry in folder.entries)
            if done:
                tqdm.write(f"echovec: there already: {counted(done, 'row')}", file=sys.stderr)
            bar.update(done)

        def tell(progress: Progress) -> None:
            if json_progress:
                print(json.dumps(_event(progress, total)), flush=True)
            bar.update(progress.rows + progress.rejected - bar.n)

        done = embed_corpus(
            embedder,
            rows,
            out,
            contents,
            shard_rows=shard_rows or SHARD_ROWS,
            on_error=on_error,
            overwrite=overwrite,
            repair=repair,
            runner=runner,
            mirror=mirror,
            on_start=begin,
            on_progress=tell,
        )
    facts = [counted(done.shards, "shard"), f"recipe {embedder.recipe.name}"]
    facts += [f"{done.reused:,} equal to earlier texts"] if done.reused else []
    facts += [f"{done.truncated:,} truncated"] if done.truncated else []
    facts += [f"{done.rejected:,} rejected, see {out / REJECTED}"] if done.rejected else []
    facts += [f"copied to {mirror.url}"] if mirror else []
    new = done.rows - done.resumed
    print(
        f"{counted(done.rows, 'text')} -> {out}/ ({', '.join(facts)}), {new:,} of them now "
        f"in {done.seconds:.1f} s",
        file=sys.stderr,
    )


def _event(progress: Progress, total: int | None) -> dict[str, float | int | None]:
    read = progress.rows + progress.rejected
    rate = progress.rows_per_second
    remaining = None if total is None or not rate else max(total - read, 0) / rate
    return {
        **asdict(progress),
        "seconds": round(progress.seconds, 3),
        "rows_per_second": round(rate, 2),
        "rows_total": total,
        "remaining_seconds": None if remaining is None else round(remaining, 1),
    }
