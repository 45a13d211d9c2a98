"""A corpus job with a stub on real Ray, in a process of its own, to be killed.

python ray_stub.py INPUT FOLDER SECONDS_A_ROW WORKERS [ADDRESS]
Prints the models' process ids, then "done N". Each model leaves a file model-PID beside FOLDER with
a line of how many texts for each of its batches; it stops sleeping when there is a file `fast`.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

# Other programs' memory is not our matter.
os.environ["RAY_memory_monitor_refresh_ms"] = "0"  # noqa: SIM112 - Ray spells it so

from corpus_stub import Stub, job
from echovec.corpus.ray_runner import RayRunner


class Here(Stub):
    """A stub that tells what it does."""

    def __init__(self, folder, seconds_a_row):
        super().__init__(seconds_a_row=seconds_a_row)
        self.folder, self.mark = folder, folder / f"model-{os.getpid()}"
        self.mark.touch()

    def encode(self, texts, **options):
        if (self.folder / "fast").exists():
            self.seconds_a_row = 0.0
        made = super().encode(texts, **options)
        with self.mark.open("a") as file:
            file.write(f"{len(texts)}\n")
        return made


if __name__ == "__main__":
    source, out, seconds, workers, *address = sys.argv[1:]
    marks = Path(out).parent
    load = partial(Here, marks, float(seconds))
    with RayRunner(load, workers=int(workers), address=(address or [None])[0]) as models:
        print(*(path.name.removeprefix("model-") for path in marks.glob("model-*")), flush=True)
        done = job([source], Path(out), models, runner=models, shard_rows=20)
    print("done", done.rows, flush=True)
