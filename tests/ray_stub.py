"""A corpus job with a stub on real Ray, in a process of its own, to be killed.

python ray_stub.py INPUT FOLDER SECONDS_A_ROW WORKERS
Prints the models' process ids, then "done N".
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
    """A stub that leaves a file with its process id."""

    def __init__(self, folder, seconds_a_row):
        super().__init__(seconds_a_row=seconds_a_row)
        (folder / f"model-{os.getpid()}").touch()


if __name__ == "__main__":
    source, out, seconds, workers = sys.argv[1:]
    marks = Path(out).parent
    load = partial(Here, marks, float(seconds))
    with RayRunner(load, workers=int(workers)) as models:
        print(*(path.name.removeprefix("model-") for path in marks.glob("model-*")), flush=True)
        done = job([source], Path(out), models, runner=models, shard_rows=20)
    print("done", done.rows, flush=True)
