"""`python -m benchmarks.memory`: peak memory against the number of texts, a fresh process each.

Reads the states after the first block, so that 64,000 texts take a minute: prompts, batches and
vectors are those of the full model, and so is what is held at the peak.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time


def main() -> None:
    """Measure each count in a process of its own and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", default="1000,4000,16000,64000")
    parser.add_argument("--one", type=int, help="measure this count here (used by the others)")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    print("| texts | seconds | peak, MB | vectors, MB |\n|---|---|---|---|")
    for count in options.counts.split(","):
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.memory", "--one", count]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        print(
            f"| {row['texts']:,} | {row['seconds']:.1f} | {row['peak']:,.0f} | {row['out']:,.0f} |"
        )


def measure(count: int) -> dict[str, float]:
    """Embed `count` distinct sentences; seconds and megabytes."""
    from dataclasses import replace

    from benchmarks.workloads import sentences
    from echovec import Embedder
    from echovec.presets import one_view, preset
    from echovec.recipe import ROLES

    view = replace(preset("echo-sentence").views["symmetric"][0], layer=1)
    recipe = replace(
        one_view("first-block", view.template),
        views=dict.fromkeys(ROLES, (view,)),
    )
    model = Embedder.load(recipe=recipe)
    some = sentences(2000)
    texts = [f"{some[i % len(some)]} {i}" for i in range(count)]
    begin = time.perf_counter()
    vectors = model.encode(texts)
    took = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"texts": count, "seconds": took, "peak": peak, "out": vectors.nbytes / 2**20}


if __name__ == "__main__":
    main()
