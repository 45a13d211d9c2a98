"""Toy: where in a text a vector looks (the paper's section 3 and figure 2).

A triplet counts as right if cos(q, s+) > cos(q, s-). In S1 the first halves differ and the second
halves of q and s- are the same words; in S2 it is the other way round. A causal model has not read
the second half when it reads the first, so a single copy should fail on S2, and the second copy of
an echo should not, even if only the tokens of its first half are pooled (figure 2C).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from echovec.evaluate.report_parts import Cell, Plot, Series, Table
from echovec.evaluate.reproduce.findings import Findings, Options
from echovec.evaluate.reproduce.halved import Reading, read_all
from echovec.evaluate.reproduce.recipes import common_settings
from echovec.evaluate.reproduce.triplets import (
    SHOWN,
    STRUCTURES,
    WORDINGS,
    Halves,
    Wording,
    triplets,
)
from echovec.evaluate.reproduce.verdict import (
    Claim,
    Floats,
    less_chance,
    mean_difference,
    mean_of,
)
from echovec.vector.similarity import cosine_pairwise

if TYPE_CHECKING:
    from echovec.embedder import Embedder

CHANCE = 50.0

CLASSICAL: Mapping[str, Reading] = {
    "classical, mean": Reading(),
    "classical, last token": Reading("lasttoken"),
    "classical, first half": Reading(part="first"),
    "classical, second half": Reading(part="second"),
}
ECHO: Mapping[str, Reading] = {
    "echo, mean": Reading(),
    "echo, last token": Reading("lasttoken"),
    "echo, first half": Reading(part="first"),
    "echo, second half": Reading(part="second"),
    "echo, first copy (control)": Reading(copy=0),
}
PASSES: Mapping[str, Mapping[str, Reading]] = {
    "classical-sentence": CLASSICAL,
    "echo-sentence": ECHO,
    "prompt-eol": {"prompt-eol, last token": Reading("lasttoken")},
}
"""Recipe to what is read from its one pass; "echo, first half" is figure 2C."""

WHOLE = (
    "classical, mean",
    "classical, last token",
    "echo, mean",
    "echo, last token",
    "prompt-eol, last token",
)
HALF = (
    "classical, first half",
    "classical, second half",
    "echo, first half",
    "echo, second half",
)
CONTROL = "echo, first copy (control)"

Gaps = Mapping[tuple[str, Wording, str], Floats]
"""(reading, wording, structure) to one number per situation."""


def toy(embedder: Embedder, data: Path | None, options: Options) -> Findings:
    """Section 3 on the triplets that ship; `data` is not needed and not read."""
    gaps: dict[tuple[str, Wording, str], Floats] = {}
    for recipe, readings in PASSES.items():
        options.say(f"toy: {len(_texts())} texts with {recipe}")
        gaps |= _gaps(embedder, recipe, readings)
    right = {key: (values > 0).astype(np.float64) for key, values in gaps.items()}
    return Findings(
        experiment="toy",
        title="Toy triplets: does a vector know the end of the text?",
        question=(
            "Of two texts, is the one that means the same nearer than the one that repeats half "
            "of the words and says something else? Share of triplets that are right, in percent; "
            "50 is chance."
        ),
        claims=_claims(right),
        tables=tuple(_table(right, wording) for wording in WORDINGS),
        plots=_plots(right, gaps),
        settings=common_settings(
            embedder,
            PASSES,
            data="the triplets of the package",
            size=f"{len(triplets('S1'))} situations, each in {len(STRUCTURES)} structures and "
            f"{len(WORDINGS)} wordings",
        ),
        notes=(
            "The triplets were written for this project; of the paper's own, 28 are printed.",
            "The paper gives no numbers for this experiment: its figure 2 is a picture.",
            (
                "The claims are about positives in slightly other words, as the authors asked "
                "for them. In quite other words, sharing one word in nine, the words speak for s-."
            ),
            "A text's first half ends where the triplet says, not at its middle token.",
            (
                "Two controls: with the first half of a single copy pooled, q and s- of S2 have "
                "the same vector, so 0 percent is right; and the first copy of an echo must do "
                "as a single copy does."
            ),
        ),
    )


def _claims(right: Gaps) -> tuple[Claim, ...]:
    def of(name: str, structure: str) -> Floats:
        return right[name, "near", structure]

    def mixed(name: str) -> Floats:
        # By situation, so that a resample keeps both structures of a situation together.
        return np.asarray((of(name, "S1") + of(name, "S2")) / 2)

    echo, classical = "echo, mean", "classical, mean"
    return (
        Claim(
            statement="Where the second halves differ (S2), echo is right more often than a "
            "single copy",
            items=len(of(echo, "S1")),
            difference=mean_difference(of(echo, "S2"), of(classical, "S2")),
            paper="figure 2B, Mistral-7B-Instruct-v0.1: the single copy fails on S2, echo does "
            "not (no numbers printed)",
        ),
        Claim(
            statement="On the mixed set (S1 and S2) the mean of a single copy is no better than "
            "chance",
            items=len(of(echo, "S1")),
            difference=less_chance(mean_of(mixed(classical)), CHANCE),
            kind="not greater",
            margin=5.0,
            paper="figure 2A: mean and last-token pooling of a single copy are no better than "
            "chance",
        ),
        Claim(
            statement="On the mixed set echo is better than chance",
            items=len(of(echo, "S1")),
            difference=less_chance(mean_of(mixed(echo)), CHANCE),
            paper="figure 2: echo with the mean is good on both structures",
        ),
        Claim(
            statement="With only the first half of the second copy pooled, S2 is right more "
            "often than not",
            items=len(of(echo, "S1")),
            difference=less_chance(mean_of(of("echo, first half", "S2")), CHANCE),
            paper="figure 2C: with only A of the second copy pooled, Sim(q, s+) is typically "
            "larger than Sim(q, s-)",
        ),
        Claim(
            statement="The same with an identical prefix, where only what comes later differs: "
            "early tokens of the second copy know the later text",
            items=len(of(echo, "S1")),
            difference=less_chance(mean_of(of("echo, first half", "prefix")), CHANCE),
            paper="not tried with the identical prefix; the first half of a single copy is the "
            "same vector in all three texts, so it can never be right",
        ),
        Claim(
            statement="Where the first halves differ (S1), the mean of a single copy is right "
            "more often than its last token",
            items=len(of(echo, "S1")),
            difference=mean_difference(of(classical, "S1"), of("classical, last token", "S1")),
            paper="section 3: last-token pooling fails on S1, the mean is fine",
        ),
    )


def _table(right: Gaps, wording: Wording) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for name in (*WHOLE, *HALF, CONTROL):
        by_structure = [right[name, wording, structure] for structure in STRUCTURES]
        mixed = mean_of((by_structure[0] + by_structure[1]) / 2)
        rows.append((name, *map(mean_of, by_structure), mixed))
    words = {"near": "slightly other words", "far": "quite other words"}[wording]
    columns = ("pooled", *SHOWN.values(), "mixed (S1 and S2)")
    return Table(f"Triplets right, percent: positives in {words}", columns, tuple(rows))


def _plots(right: Gaps, gaps: Gaps) -> tuple[Plot, ...]:
    def dots(title: str, names: Sequence[str], caption: str) -> Plot:
        series = tuple(
            Series(name, tuple(mean_of(right[name, "near", structure]) for structure in STRUCTURES))
            for name in names
        )
        return Plot(
            title=title,
            kind="dots",
            series=series,
            ticks=tuple(text.replace(", ", "\n") for text in SHOWN.values()),
            axis="triplets right, percent",
            mark=CHANCE,
            caption=caption,
        )

    early = gaps["echo, first half", "near", "S2"]
    return (
        dots("Whole texts pooled", WHOLE, "The dashed line is chance."),
        dots(
            "One half pooled",
            HALF,
            "Only the tokens of one half of the pooled copy. The first half of a single copy "
            "cannot know the second.",
        ),
        Plot(
            title="First half of the second copy, S2",
            kind="histogram",
            series=(Series("triplets", tuple(map(float, early))),),
            axis="cos(q, s+) - cos(q, s-)",
            places="triplets",
            mark=0.0,
            caption="Figure 2C: to the right of the line meaning wins over shared words.",
        ),
    )


def _texts() -> dict[str, Halves]:
    """Every distinct text of all triplets."""
    return {
        half.text: half
        for wording in WORDINGS
        for structure in STRUCTURES
        for t in triplets(structure, wording)
        for half in (t.query, t.positive, t.negative)
    }


def _gaps(embedder: Embedder, recipe: str, readings: Mapping[str, Reading]) -> Gaps:
    """cos(q, s+) - cos(q, s-) of every triplet; every distinct text is computed once."""
    texts = _texts()
    rows = {text: row for row, text in enumerate(texts)}
    read = read_all(embedder, recipe, list(readings.values()), list(texts.values()))
    gaps: dict[tuple[str, Wording, str], Floats] = {}
    for name, vectors in zip(readings, read, strict=True):
        for wording in WORDINGS:
            for structure in STRUCTURES:
                chosen = triplets(structure, wording)
                q, positive, negative = (
                    vectors[[rows[getattr(t, side).text] for t in chosen]]
                    for side in ("query", "positive", "negative")
                )
                near, far = cosine_pairwise(q, positive), cosine_pairwise(q, negative)
                gaps[name, wording, structure] = np.asarray(near - far, dtype=np.float64)
    return gaps
