"""Pages: self-contained, escaped, complete; plots take the page's colours."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from echovec.errors import StorageError
from echovec.evaluate.report_page import (
    html_page,
    html_plots,
    html_table,
    markdown_table,
    markdown_text,
    write_text,
)
from echovec.evaluate.report_parts import Label, Measured, Plot, Series, Table, shown
from echovec.evaluate.report_plot import svg
from echovec.evaluate.reproduce.findings import Findings
from echovec.evaluate.reproduce.page import findings_html, findings_markdown, write_findings
from echovec.evaluate.reproduce.verdict import Claim

pytest.importorskip("matplotlib")

VOID = {"meta", "br", "img"}


class Balanced(HTMLParser):
    """Raises where a closing tag does not match."""

    def __init__(self):
        super().__init__()
        self.open = []
        self.seen = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check(page):
    """The tags of a page, which must close, fetch nothing and run nothing."""
    reader = Balanced()
    reader.feed(page)
    assert reader.open == []
    assert "script" not in reader.seen
    assert not re.search(r'(src|href)="(?!#)', page)
    assert "@import" not in page
    assert "url(" not in re.sub(r"url\(#[^)]+\)", "", page)
    return reader.seen


PLOTS = {
    "dots": Plot(
        title="Dots <1>",
        kind="dots",
        series=(Series("a & b", (Measured(5, 4, 6), None)), Series("c", (1.0, Measured(2, 2, 2)))),
        ticks=("one", "two"),
        axis="points",
        mark=3.0,
    ),
    "lines": Plot(
        title="Lines",
        kind="lines",
        series=(Series("a", tuple(Measured(n, n - 1, n + 1) for n in range(12))),),
        ticks=tuple(map(str, range(12))),
        mark=2.0,
    ),
    "histogram": Plot(
        title="Histogram", kind="histogram", series=(Series("a", (1.0, 2.0, 2.5)),), mark=0.0
    ),
}

TABLE = Table(
    "Scores | by <name>",
    ("method", "points", "texts", "words"),
    (("echo", Measured(12.34, 10, 15), 12345, "a*b"), ("theirs", 9.87, None, "x")),
    note="read & think",
    published=frozenset({1}),
)


def findings():
    claim = Claim(statement="A < B", items=60, difference=Measured(2, 1, 3), paper="48.64 & 42.38")
    return Findings(
        experiment="made-up",
        title="Made & up",
        question="Is it?",
        claims=(claim, Claim(statement="C", items=60, difference=Measured(0, -9, 9))),
        tables=(TABLE,),
        plots=tuple(PLOTS.values()),
        settings={"model": "tiny <b>"},
        notes=("a *note*",),
    )


@pytest.mark.parametrize("kind", PLOTS)
def test_plots_take_the_colours_of_the_page(kind):
    """A plot has no colour of its own for ink or lines, keeps its text, and has its own ids."""
    drawn = svg(PLOTS[kind])
    check(drawn)
    assert "var(--line-0)" in drawn
    assert "var(--ink)" in drawn or "var(--quiet)" in drawn
    assert not re.search(r"#0102\d\d", drawn)
    assert "<text" in drawn
    ids = re.findall(r'\bid="([^"]+)"', drawn)
    assert ids
    assert all(name.startswith(kind) for name in ids)
    for name in re.findall(r'(?:href="|url\()#([^")]+)', drawn):
        assert name in ids


def test_plots_are_the_same_each_time():
    """Drawing twice gives the same text, so pages can be compared."""
    assert svg(PLOTS["dots"]) == svg(PLOTS["dots"])


def test_empty_series_are_drawn():
    """A method without a single number leaves an empty place, not an error."""
    nothing = Plot(title="n", kind="dots", series=(Series("a", (None,)),), ticks=("t",))
    assert "<svg" in svg(nothing)


def test_tables_escape_and_mark_what_is_published():
    """Text is escaped, intervals are shown, and only the published row is marked."""
    markup = html_table(TABLE)
    check(markup)
    assert "Scores | by &lt;name&gt;" in markup
    assert "12.3<small>10.0 to 15.0</small>" in markup
    assert "12,345" in markup
    assert markup.count('class="published"') == markup.count("published</span>") == 1


def test_columns_can_be_published_too():
    """A published column is marked in its head and in each cell, in both forms."""
    table = Table(
        "",
        ("d", "here", "camelCase"),
        ((Label("x", "small"), 1.0, 2.0), ("y", 3.0, None)),
        published_columns=frozenset({2}),
    )
    markup, text = html_table(table), markdown_table(table)
    check(markup.replace("<wbr>", ""))
    assert markup.count('class="published"') == 2
    assert markup.count("published</span>") == 1
    assert "x<small>small</small>" in markup
    assert "camel<wbr>Case" in markup
    assert "| d | here | camelCase *(published)* |" in text
    assert "| x (small) | 1.0 | 2.0 |" in text


def test_markdown_tables_hold_their_columns():
    """No cell breaks out of its column, and the published row says so in words."""
    lines = markdown_table(TABLE).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}
    assert rows[1] == "| --- | ---: | ---: | --- |"
    assert "theirs *(published)*" in rows[3]
    assert markdown_text("a|b*c\nd") == r"a\|b\*c d"


def test_cells_as_text():
    """One decimal for numbers, thousands apart in counts, a dash for nothing."""
    assert [shown(c) for c in (None, 1234, 1.26, "x")] == ["–", "1,234", "1.3", "x"]


def test_the_page_of_findings_says_everything():
    """Verdicts, reasons, the paper's numbers, tables, plots, settings and the rule are there."""
    page = findings_html(findings())
    seen = check(page)
    assert seen.count("svg") == 3
    assert page.startswith("<!doctype html>")
    for part in ("holds", "cannot be told at this size", "48.64 &amp; 42.38", "A &lt; B"):
        assert part in page
    assert "tiny &lt;b&gt;" in page
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page
    assert "resamples" in page


def test_the_markdown_of_findings_says_everything():
    """The Markdown has verdicts, reasons, tables and settings."""
    text = findings_markdown(findings())
    assert "**Holds**: A \\< B." in text
    assert "**Cannot be told at this size**: C." in text
    assert "48.64 & 42.38" in text
    assert "12.3 [10.0, 15.0]" in text


def test_findings_are_written(tmp_path):
    """Both files are in the folder under the experiment's name, with nothing left beside them."""
    page, text = write_findings(findings(), tmp_path / "deep" / "er")
    assert {page.name, text.name} == {"made-up.html", "made-up.md"}
    assert sorted(p.name for p in page.parent.iterdir()) == ["made-up.html", "made-up.md"]


def test_a_disk_that_does_not_take_it(tmp_path):
    """A place that cannot be written is a StorageError that names the file."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*x\.html"):
        write_text(tmp_path / "file" / "x.html", "")


def test_a_page_without_anything():
    """An empty page is still a page; no plots make no box."""
    check(html_page("t", []))
    assert html_plots([]) == ""
