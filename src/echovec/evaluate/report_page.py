"""Pages: tables and plots as one self-contained HTML file, or as Markdown.

A page fetches nothing: style and pictures are inside, colours follow the reader's light or dark
setting, and it reads on a phone. It runs no script.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path

from echovec.errors import StorageError
from echovec.evaluate.report_parts import Cell, Label, Measured, Plot, Series, Table, shown
from echovec.evaluate.report_plot import SHAPES, svg

DENSE = 7
"""Tables of more columns are set in smaller letters."""

STYLE = """
:root { color-scheme: light dark;
  --font: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif;
  --paper: #fbfaf8; --card: #ffffff; --ink: #22262b; --quiet: #646b74; --rule: #e2dfd9;
  --accent: #2f5d8a; --good: #2e6b45; --good-bg: #e6f1e9; --bad: #9a3b2d; --bad-bg: #f8e8e4;
  --open: #76591c; --open-bg: #f6eed9; --print-bg: #f3f1ec;
  --line-0: #2f6fab; --line-1: #c2622d; --line-2: #3d8a57; --line-3: #8a5aa8; --line-4: #b08a1e;
  --line-5: #4a9aa5; --line-6: #a8466b; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #15181c; --card: #1c2025; --ink: #e4e6e9; --quiet: #9aa2ac; --rule: #31363d;
  --accent: #8ab6e0; --good: #8fd0a6; --good-bg: #1f3328; --bad: #eb9c8c; --bad-bg: #3b2420;
  --open: #e0c078; --open-bg: #362d18; --print-bg: #22262c;
  --line-0: #76aee3; --line-1: #ea9a68; --line-2: #7cc795; --line-3: #c39be0; --line-4: #d9b954;
  --line-5: #7fc9d3; --line-6: #e28aac; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.6 var(--font); }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 .5rem; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; line-height: 1.35; margin: 2.75rem 0 .6rem; }
h3 { font-size: 1.02rem; margin: 1.9rem 0 .5rem; }
p { max-width: 42rem; margin: .6rem 0; }
.quiet, figcaption, .note, footer { color: var(--quiet); font-size: .875rem; }
.note { max-width: 42rem; margin: .5rem 0 0; }
a { color: var(--accent); }
code { font: .875em ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  overflow-wrap: anywhere; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--rule);
  border-radius: 10px; }
table { border-collapse: collapse; width: 100%; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .6rem; text-align: right; vertical-align: baseline; white-space: nowrap;
  border-top: 1px solid var(--rule); }
thead th { border-top: 0; color: var(--quiet); font-weight: 500; vertical-align: bottom;
  white-space: normal; line-height: 1.3; }
.dense { font-size: .84rem; } .dense th, .dense td { padding: .4rem .42rem; }
.dense small { font-size: .73rem; } .dense tbody th { min-width: 8.5rem; max-width: 10.5rem; }
th:first-child, .words { text-align: left; }
td.words { white-space: normal; min-width: 7rem; }
tbody th { font-weight: 500; white-space: normal; min-width: 9.5rem; max-width: 15rem; }
tbody th, thead th:first-child { position: sticky; left: 0; background: var(--card); }
td small, th small { display: block; color: var(--quiet); font-size: .78rem; font-weight: 400;
  line-height: 1.3; }
tr.published > *, td.published { background: var(--print-bg); color: var(--quiet);
  font-style: italic; }
.tag { display: inline-block; font-size: .72rem; font-style: normal; font-weight: 600;
  border: 1px solid var(--rule); border-radius: 99px; padding: 0 .5em;
  color: var(--quiet); }
.claims { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr));
  gap: .8rem; margin: 1.4rem 0; }
.claims > :first-child { grid-column: 1 / -1; }
.claim { background: var(--card); border: 1px solid var(--rule); border-left: 4px solid var(--tone);
  border-radius: 10px; padding: .9rem 1.1rem; }
.claim p { margin: .3rem 0; max-width: none; }
.claim .statement { font-weight: 600; }
.verdict { display: inline-block; font-size: .8rem; font-weight: 650; color: var(--tone);
  background: var(--tone-bg); border-radius: 99px; padding: .1rem .7rem; }
.holds { --tone: var(--good); --tone-bg: var(--good-bg); }
.fails { --tone: var(--bad); --tone-bg: var(--bad-bg); }
.open { --tone: var(--open); --tone-bg: var(--open-bg); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr));
  gap: 1rem; align-items: start; margin: 1rem 0; }
figure { margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: .9rem .9rem .7rem; max-width: 30rem; }
figure h3 { font-size: .95rem; margin: 0 0 .3rem; font-weight: 600; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { margin-top: .4rem; line-height: 1.45; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem .9rem; font-size: .82rem; margin: 0 0 .3rem;
  padding: 0; list-style: none; }
.legend span { font-size: .8em; margin-right: .35em; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; font-size: .9rem; }
dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; }
ul.plain { padding-left: 1.1rem; max-width: 42rem; }
footer { margin-top: 3rem; border-top: 1px solid var(--rule); padding-top: .8rem; }
@media (max-width: 36rem) { main { padding: 1.5rem .9rem 3rem; } h1 { font-size: 1.4rem; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; }
  th, td { padding: .4rem .5rem; } tbody th { min-width: 7.5rem; max-width: 9.5rem; }
  figure { padding: .7rem .6rem .5rem; } }
@media print { .claim, figure, tr { break-inside: avoid; } }
"""


def html_page(title: str, body: Iterable[str], *, foot: str = "") -> str:
    """A whole page; `title` and `foot` are plain text, `body` is markup."""
    parts = "\n".join(body)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{escape(title)}</h1>\n{parts}\n"
        f"<footer>{escape(foot)}</footer>\n</main>\n</body>\n</html>\n"
    )


def html_table(table: Table, *, level: int = 2) -> str:
    """A table with its title above and its note below; it scrolls sideways on its own."""
    words = [not _is_number(cells) for cells in zip(*table.rows, strict=True)]
    head = "".join(
        _html_head(column, words=place < len(words) and words[place], printed=printed)
        for place, column in enumerate(table.columns)
        for printed in [place in table.published_columns]
    )
    dense = ' class="dense"' if len(table.columns) > DENSE else ""
    rows = "\n".join(_html_row(row, table, place) for place, row in enumerate(table.rows))
    return (
        f"{html_heading(table.title, level=level)}\n"
        f'<div class="scroll"><table{dense}>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table></div>\n{html_note(table.note)}"
    )


def html_plots(plots: Iterable[Plot]) -> str:
    """Pictures side by side where there is room."""
    figures = "\n".join(_html_plot(plot) for plot in plots)
    return f'<div class="plots">\n{figures}\n</div>' if figures else ""


def html_heading(text: str, *, level: int = 2) -> str:
    """A heading, or nothing."""
    return f"<h{level}>{escape(text)}</h{level}>" if text else ""


def html_note(text: str) -> str:
    """A paragraph in small quiet letters, or nothing."""
    return f'<p class="note">{escape(text)}</p>' if text else ""


def html_list(items: Iterable[str]) -> str:
    """A plain list."""
    return '<ul class="plain">' + "".join(f"<li>{escape(i)}</li>" for i in items) + "</ul>"


def html_facts(facts: Iterable[tuple[str, str]]) -> str:
    """Names and values in two columns."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    return f"<dl>{rows}</dl>"


def markdown_table(table: Table) -> str:
    """A table with a bold title and its note; measured numbers have their interval in brackets."""
    right = [_is_number(cells) for cells in zip(*table.rows, strict=True)]
    marks = ["---:" if place and right[place] else "---" for place in range(len(table.columns))]
    lines = [
        _markdown_row(
            markdown_text(column) + " *(published)*" * (place in table.published_columns)
            for place, column in enumerate(table.columns)
        ),
        _markdown_row(marks),
        *(
            _markdown_row(
                [
                    markdown_text(shown(row[0])) + " *(published)*" * (place in table.published),
                    *(markdown_text(shown(cell)) for cell in row[1:]),
                ]
            )
            for place, row in enumerate(table.rows)
        ),
    ]
    title = [f"**{markdown_text(table.title)}**", ""] if table.title else []
    note = ["", markdown_text(table.note)] if table.note else []
    return "\n".join([*title, *lines, *note]) + "\n"


def markdown_text(text: str) -> str:
    """Text whose own characters do not become markup."""
    for mark in ("\\", "|", "*", "_", "<", "`"):
        text = text.replace(mark, f"\\{mark}")
    text = re.sub(r"&(?=#?\w+;)", r"\&", text.replace("](", r"]\("))
    return " ".join(text.splitlines())


def write_text(path: Path, text: str) -> None:
    """Write a page, making its folder; a reader never sees half of it.

    Raises:
        StorageError: the disk does not take it.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, "utf-8")
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from None


_TAG = ' <span class="tag">published</span>'
_BREAKS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[_/-])")


def _html_head(column: str, *, words: bool, printed: bool) -> str:
    # Long names may break where their parts meet, so that many columns fit.
    name = _BREAKS.sub("<wbr>", escape(column))
    mark = ' class="words"' if words else ""
    return f'<th scope="col"{mark}>{name}{_TAG * printed}</th>'


def _html_row(row: Sequence[Cell], table: Table, place: int) -> str:
    printed = place in table.published
    cells = "".join(
        _html_cell(cell, printed=column in table.published_columns)
        for column, cell in enumerate(row[1:], 1)
    )
    mark = ' class="published"' if printed else ""
    name, detail = (row[0].text, row[0].detail) if isinstance(row[0], Label) else (row[0], "")
    small = f"<small>{escape(detail)}</small>" if detail else ""
    head = f"{escape(shown(name))}{_TAG * printed}{small}"
    return f'<tr{mark}><th scope="row">{head}</th>{cells}</tr>'


def _html_cell(cell: Cell, *, printed: bool) -> str:
    kinds = []
    if isinstance(cell, Measured):
        value, _, interval = str(cell).partition(" ")
        interval = interval.strip("[]").replace(",", " to")
        inside = f"{escape(value)}<small>{escape(interval)}</small>"
    else:
        inside = escape(shown(cell))
        kinds += ["words"] if not _is_number([cell]) else []
    kinds += ["published"] if printed else []
    mark = f' class="{" ".join(kinds)}"' if kinds else ""
    return f"<td{mark}>{inside}</td>"


def _html_plot(plot: Plot) -> str:
    caption = f"<figcaption>{escape(plot.caption)}</figcaption>" if plot.caption else ""
    legend = "".join(_html_key(place, one) for place, one in enumerate(plot.series))
    legend = f'<ul class="legend">{legend}</ul>' if len(plot.series) > 1 else ""
    return f"<figure><h3>{escape(plot.title)}</h3>{legend}{svg(plot)}{caption}</figure>"


def _html_key(place: int, series: Series) -> str:
    shape = SHAPES[place % len(SHAPES)]
    mark = f'<span style="color:var(--line-{place % 7})" aria-hidden="true">{shape}</span>'
    return f"<li>{mark}{escape(series.name)}</li>"


def _markdown_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _is_number(cells: Iterable[Cell]) -> bool:
    return all(
        not isinstance(cell, Label) and (not isinstance(cell, str) or _reads_as_number(cell))
        for cell in cells
    )


def _reads_as_number(text: str) -> bool:
    return text[:1] in "–+-0123456789" and not any(letter.isalpha() for letter in text)
