"""`echovec report DIR...`: results of `echovec eval` as one page and as Markdown."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR", help="Folders that `echovec eval --out` wrote."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE.html", help="The page; by default report.html in DIR."
        ),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE.md", help="Also write the tables as Markdown.")
    ] = None,
    findings: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of `echovec reproduce`: its Markdown follows the tables."
        ),
    ] = None,
    title: Annotated[str, typer.Option(help="The heading.")] = "Evaluation",
) -> None:
    """Put methods side by side, with intervals, published rows, cost and what was chosen where."""
    from echovec.evaluate.report import report, report_html, report_markdown
    from echovec.evaluate.report_page import write_text
    from echovec.evaluate.reproduce import findings_in

    follow = [] if findings is None else findings_in(findings)
    sections = report(folders)
    page = out or folders[0] / "report.html"
    write_text(page, report_html(sections, title))
    print(f"report -> {page}", file=sys.stderr)
    if markdown is not None:
        write_text(markdown, report_markdown(sections, title, follow))
        print(f"tables -> {markdown}", file=sys.stderr)
