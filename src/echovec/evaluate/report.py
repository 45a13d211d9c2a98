"""Report: methods side by side, from the folders that `echovec eval` wrote.

What is compared is what can be compared: a mean is taken only over tasks that every compared method
has, on the same split and the same sample; sampled and whole runs stand in sections of their own.
Beside a method stands the printed row of the same method, marked, with its backbone and task set:
its numbers are averages over other tasks, and only the direction can be compared.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path

from echovec.errors import InputError
from echovec.evaluate.report_page import (
    html_heading,
    html_list,
    html_page,
    html_plots,
    html_table,
    markdown_table,
    markdown_text,
)
from echovec.evaluate.report_tables import Method, Section, method_of, plots_of, tables_of
from echovec.evaluate.results import Outcome, read_outcomes
from echovec.model.store import DEFAULT_NAME, is_default
from echovec.presets import fitted_names, preset, preset_names


def report(folders: Sequence[Path]) -> list[Section]:
    """Read result folders and sort the outcomes into sections, whole test sets first.

    Raises:
        InputError: there are no outcomes, or two of one method and task disagree.
    """
    outcomes = read_outcomes(*folders)
    if not outcomes:
        raise InputError(
            f"no results in {', '.join(map(str, folders))}; make some with "
            "`echovec eval --recipe ... --tasks ... --out DIR`"
        )
    return sections_of(outcomes)


def sections_of(outcomes: Iterable[Outcome]) -> list[Section]:
    """Outcomes that may be compared together: test before development, whole before samples."""
    groups: dict[_Taken, dict[tuple[Method, str], Outcome]] = {}
    for outcome in outcomes:
        taken = (not outcome.is_test, outcome.sample, outcome.seed if outcome.sample else None)
        before = groups.setdefault(taken, {}).setdefault(
            (method_of(outcome), outcome.task), outcome
        )
        scores = before.main_score, outcome.main_score
        if not (math.isclose(*scores, abs_tol=1e-6) or all(map(math.isnan, scores))):
            raise InputError(
                f"two results of {outcome.recipe_name} on {outcome.task} "
                f"({' and '.join(dict.fromkeys((before.split, outcome.split)))}) disagree: "
                f"{before.main_score:.6f} and {outcome.main_score:.6f}; report only one of them"
            )
    ordered = sorted(groups, key=lambda taken: (taken[0], -(taken[1] or 10**12), taken[2] or 0))
    return [Section(_section_title(*taken), tuple(groups[taken].values())) for taken in ordered]


_Taken = tuple[bool, int | None, int | None]
"""(on development data, sample, seed)."""


def report_html(sections: Sequence[Section], title: str = "Evaluation") -> str:
    """One self-contained page."""
    body = [markup for section in sections for markup in _html_section(section)]
    return html_page(title, [*body, html_heading("How to read this"), html_list(READING)])


def report_markdown(
    sections: Sequence[Section], title: str = "Evaluation", findings: Sequence[str] = ()
) -> str:
    """The same tables as Markdown, without the plots.

    Args:
        sections: what `report` read.
        title: the heading.
        findings: Markdown that `echovec reproduce` wrote, to follow.
    """
    parts = [f"# {markdown_text(title)}"]
    for section in sections:
        parts.append(f"## {markdown_text(section.title)}")
        parts.append(f"```bash\n{command_of(section)}\n```")
        parts += [markdown_table(table).rstrip() for table in tables_of(section)]
    if sections:
        parts.append("\n".join(f"- {markdown_text(line)}" for line in READING))
    parts += [one.rstrip() for one in findings]
    return "\n\n".join(parts) + "\n"


def command_of(section: Section) -> str:
    """What to type to get these outcomes, a line or several; folders are the reader's own."""
    alike: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Outcome]] = {}
    for one in section.outcomes:
        alike.setdefault((_model(one), _options(one)), []).append(one)
    return "\n".join(
        " ".join(
            (
                f"echovec eval --recipe {_listed(one.recipe_name for one in outcomes)}",
                f"--tasks {_listed(one.task for one in outcomes)}",
                *model,
                "--data DIR --out RESULTS",
                *options,
            )
        )
        for (model, options), outcomes in alike.items()
    )


def _listed(names: Iterable[str]) -> str:
    return shlex.quote(",".join(dict.fromkeys(names)))


def _model(one: Outcome) -> tuple[str, ...]:
    """What says the model; nothing for the default one, or where it lived in memory only."""
    if one.adapter is not None:
        return (f"--model {shlex.quote(one.adapter)}",)
    found = one.recipe.get("model") or {}
    name, path = str(found.get("name")), found.get("path")
    own = path is None or (is_default(path) and name in (Path(path).name, DEFAULT_NAME))
    revision = found.get("revision")
    words = () if own else (f"--model {shlex.quote(name)}",)
    return (*words, f"--revision {revision}") if revision else words


def _options(one: Outcome) -> tuple[str, ...]:
    words = [] if one.is_test else [f"--split {one.split}"]
    words += [f"--sample {one.sample} --seed {one.seed}"] if one.sample else []
    precision = one.recipe.get("precision", "exact")
    words += [] if precision == "exact" else [f"--precision {precision}"]
    budget = one.recipe.get("max_tokens")
    if budget and one.recipe_name in (*preset_names(), *fitted_names()):
        words += [] if budget == preset(one.recipe_name).max_tokens else [f"--max-tokens {budget}"]
    return tuple(words)


READING = (
    (
        "Samples are a quick look: their scores are not those of the whole tasks and are never "
        "averaged with them."
    ),
    (
        "Scores are mteb's main score of each task, times 100, with a 95 % bootstrap interval over "
        "the task's items."
    ),
    (
        "A mean of several tasks counts each task once; its interval adds up those of its tasks as "
        "independent errors."
    ),
    "Means are only over tasks that all methods of the column have, on the same items.",
    (
        "Published rows are averages over other tasks with other models: compare directions, not "
        "numbers."
    ),
)


def _html_section(section: Section) -> Iterator[str]:
    yield html_heading(section.title)
    lines = "<br>".join(map(escape, command_of(section).splitlines()))
    yield f"<p><code>{lines}</code></p>"
    first, *others = tables_of(section)
    yield html_table(first, level=3)
    yield html_plots(plots_of(section))
    for table in others:
        yield html_table(table, level=3)


def _section_title(development: bool, sample: int | None, seed: int | None) -> str:
    data = "Development data" if development else "Test data"
    if sample is None:
        return f"{data}, whole"
    return f"{data}, samples: at most {sample:,} items of each task, seed {seed}"
