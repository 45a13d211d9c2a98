"""`python -m benchmarks.table RUN.json [--markdown docs/performance.md]`: the tables of a run.

In the page the text between `<!-- benchmarks -->` and `<!-- end of benchmarks -->` is replaced.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- benchmarks -->", "<!-- end of benchmarks -->"
NEAR = 0.999
"""The least cosine to the oracle's vectors that 16 bits shall have."""

EXACT, FAST, INT8 = (f"echovec, packed, {kind}" for kind in ("exact", "fast", "int8"))
GOALS = (
    ("sentences", EXACT, "transformers, sorted, float32", 3.5),
    ("sentences", EXACT, "best float32", 1.5),
    ("sentences", EXACT, "transformers, unsorted, batch 32, float32", 6.0),
    ("sentences", FAST, "transformers, sorted by token budget, bfloat16", 2.0),
    ("sentences", FAST, "best bfloat16", 2.0),
    ("sentences, instruct", FAST, "best bfloat16", 2.3),
    ("passages of 150 tokens", FAST, "best bfloat16", 1.3),
    ("documents of 512 tokens", FAST, "best bfloat16", 1.15),
    ("sentences", INT8, "best bfloat16", 2.0),
    ("sentences, instruct", INT8, "best bfloat16", 2.3),
    ("passages of 150 tokens", INT8, "best bfloat16", 1.3),
    ("documents of 512 tokens", INT8, "best bfloat16", 1.15),
)


def main() -> None:
    """Print the tables, or put them into a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    text = "\n".join(tables(json.loads(run.read_text())) for run in options.runs)
    if options.markdown is None:
        print(text)
        return
    page = options.markdown.read_text()
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    options.markdown.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")


def tables(run: dict[str, Any]) -> str:
    """All tables of one run, as Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    peak = ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in run["peak"].items())
    head = (
        f"Run of {run['date']} at commit {run['commit']}: {run['cpu']}, {run['threads']} threads; "
        f"best matrix product seen in the same run: {peak}. {versions}. Load average before "
        f"{run['load_before']:.2f}, after {run['load_after']:.2f}. Medians of "
        f"{run['repetitions']} alternating repetitions, end to end."
    )
    parts = [
        head,
        goals(run),
        *(workload(row, run) for row in run["workloads"]),
    ]
    if run.get("latency_ms"):
        parts.append(latency(run["latency_ms"]))
    for reason in dict.fromkeys(run["not_run"].values()):
        names = "; ".join(name for name, why in run["not_run"].items() if why == reason)
        parts.append(f"Not run: {names}. {reason.splitlines()[0]}")
    return "\n\n".join(parts) + "\n"


def goals(run: dict[str, Any]) -> str:
    """Ratios against what was set as a goal.

    Where the fastest peer's vectors are not those of the model, the fastest of the others has a
    row too.
    """
    lines = [
        "| workload | ours | against | its lowest cosine | ratio | goal |",
        "|---|---|---|---|---|---|",
    ]
    rows = {row["name"]: row for row in run["workloads"]}
    for name, ours, against, goal in GOALS:
        if name not in rows or ours not in rows[name]["seconds"]:
            continue
        seconds, accuracy = medians(rows[name]), rows[name]["accuracy"]
        peers = [against]
        if "best" in against:
            kind = against.removeprefix("best ")
            near = {peer: took for peer, took in seconds.items() if accuracy[peer][1] >= NEAR}
            peers = list(dict.fromkeys([best(seconds, kind), best(near, kind)]))
        lines += [
            f"| {name} | {ours} | {peer} | {accuracy[peer][1]:.4f} "
            f"| **{seconds[peer] / seconds[ours]:.2f}x** | {goal}x |"
            for peer in peers
            if peer in seconds
        ]
    return "\n".join(lines)


def workload(row: dict[str, Any], run: dict[str, Any]) -> str:
    """One workload: every peer's speed and accuracy."""
    seconds = medians(row)
    about = (
        f"{row['texts']} texts, {row['tokens']:,} tokens, recipe `{row['recipe']}`, "
        f"{row['flop'] / 1e9:,.0f} GFLOP needed."
    )
    lines = [
        f"### {row['name'][:1].upper()}{row['name'][1:]}",
        "",
        about,
        "",
        "| | s | fastest | texts/s | share of the peak | largest difference | lowest cosine |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, took in sorted(seconds.items(), key=lambda item: -item[1]):
        peak = run["peak"]["bfloat16" if is_narrow(name) else "float32"]
        difference, cosine = row["accuracy"][name]
        lines.append(
            f"| {name} | {took:.2f} | {min(row['seconds'][name]):.2f} "
            f"| {row['texts'] / took:.1f} | {row['flop'] / took / peak:.0%} "
            f"| {difference:.1e} | {cosine:.6f} |"
        )
    return "\n".join(lines)


def latency(found: dict[str, list[float]]) -> str:
    """One query alone."""
    lines = [
        "### One query alone, warm",
        "",
        "| | median, ms | 90 % below, ms |",
        "|---|---|---|",
    ]
    for name, each in sorted(found.items(), key=lambda item: -statistics.median(item[1])):
        ninth = sorted(each)[int(0.9 * (len(each) - 1))]
        lines.append(f"| {name} | {statistics.median(each):.1f} | {ninth:.1f} |")
    return "\n".join(lines)


def medians(row: dict[str, Any]) -> dict[str, float]:
    """Seconds of each peer."""
    return {name: statistics.median(each) for name, each in row["seconds"].items() if each}


def best(seconds: dict[str, float], kind: str) -> str:
    """The fastest of the others that computes in this dtype."""
    others = {
        name: took
        for name, took in seconds.items()
        if not name.startswith("echovec")
        and "int8" not in name
        and is_narrow(name) == (kind == "bfloat16")
    }
    return min(others, key=lambda name: others[name]) if others else ""


def is_narrow(name: str) -> bool:
    """Whether a peer, or one of ours, computes in 16 bits or fewer."""
    return any(word in name for word in ("bfloat16", "fast", "int8"))


if __name__ == "__main__":
    main()
