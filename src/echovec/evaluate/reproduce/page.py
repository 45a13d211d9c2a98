"""Page: Findings as a self-contained HTML page and as Markdown, the verdict first."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from echovec.evaluate.report_page import (
    html_facts,
    html_heading,
    html_list,
    html_page,
    html_plots,
    html_table,
    markdown_table,
    markdown_text,
    write_text,
)
from echovec.evaluate.reproduce.findings import Findings
from echovec.evaluate.reproduce.verdict import FAILS, HOLDS, RULE, Claim

_TONES = {HOLDS: "holds", FAILS: "fails"}


def write_findings(findings: Findings, out: Path) -> tuple[Path, Path]:
    """Write `EXPERIMENT.html` and `EXPERIMENT.md` into the folder `out`; returns both paths.

    Raises:
        StorageError: the disk does not take it.
        DependencyError: matplotlib is not installed.
    """
    page, text = out / f"{findings.experiment}.html", out / f"{findings.experiment}.md"
    write_text(page, findings_html(findings))
    write_text(text, findings_markdown(findings))
    return page, text


def findings_html(findings: Findings) -> str:
    """The whole page."""
    return html_page(findings.title, _body(findings), foot=_FOOT)


def findings_markdown(findings: Findings) -> str:
    """The same as Markdown, without the plots."""
    parts = [f"## {markdown_text(findings.title)}"]
    if command := findings.settings.get("command"):
        parts.append(f"```bash\n{command}\n```")
    parts.append(markdown_text(findings.question))
    for claim in findings.claims:
        lines = [f"**{claim.verdict.capitalize()}**: {markdown_text(claim.statement)}."]
        lines += [markdown_text(claim.reason)]
        lines += [f"Paper: {markdown_text(claim.paper)}"] if claim.paper else []
        parts.append("\n".join(lines))
    parts += [markdown_table(table).rstrip() for table in findings.tables]
    if findings.notes:
        parts.append("\n".join(f"- {markdown_text(note)}" for note in findings.notes))
    facts = (
        f"- {markdown_text(name)}: {markdown_text(value)}"
        for name, value in findings.settings.items()
        if name != "command"
    )
    parts.append("\n".join(facts))
    return "\n\n".join(parts) + "\n"


_FOOT = "Made by echovec reproduce. " + RULE
"""What every page ends with; docs/reproduce.md says it for the Markdown."""


def _body(findings: Findings) -> Iterator[str]:
    yield f'<p class="quiet">{escape(findings.question)}</p>'
    yield '<div class="claims">' + "\n".join(map(_claim, findings.claims)) + "</div>"
    if findings.plots:
        yield html_heading("Pictures")
        yield html_plots(findings.plots)
    for table in findings.tables:
        yield html_table(table)
    if findings.notes:
        yield html_heading("To know before believing it")
        yield html_list(findings.notes)
    yield html_heading("How it was run")
    yield html_facts(findings.settings.items())


def _claim(claim: Claim) -> str:
    paper = f'<p class="quiet">Paper: {escape(claim.paper)}</p>' if claim.paper else ""
    return (
        f'<section class="claim {_TONES.get(claim.verdict, "open")}">'
        f'<span class="verdict">{claim.verdict}</span>'
        f'<p class="statement">{escape(claim.statement)}</p>'
        f"<p>{escape(claim.reason)}</p>{paper}</section>"
    )
