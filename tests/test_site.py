"""The site: every page has its place in it, links hold there, and it is built without a warning."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "site_pages.py"


def test_links_are_turned_for_the_site():
    """Neighbours get their page's name, pages lose their folder, source files become plain text."""
    turned = runpy.run_path(str(SCRIPT))["turned"]
    inside = turned("[a](../README.md#x) [b](recipe.md) [c](https://x.y)", inside_docs=True)
    assert inside == "[a](index.md#x) [b](recipe.md) [c](https://x.y)"
    outside = turned("![p](docs/idea.svg) [d](docs/design.md) [s](src/x.py)", inside_docs=False)
    assert outside == "![p](idea.svg) [d](design.md) s"


def test_the_index_for_language_models_names_real_pages():
    """Every link of llms.txt is a file."""
    for link in re.findall(r"\]\(([^)]+)\)", (ROOT / "llms.txt").read_text("utf-8")):
        assert (ROOT / link).is_file(), link


def test_the_citation_is_of_this_version():
    """CITATION.cff names the package's version and the paper."""
    import echovec

    text = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"version: {echovec.__version__}" in text
    assert "2402.15449" in text


def test_every_link_and_picture_is_there():
    """The pages that the site is made of link to pages and pictures beside them."""
    script = runpy.run_path(str(SCRIPT))
    script["main"]()
    pages = sorted(script["OUT"].glob("*.md"))
    linked = {
        (page.name, link.partition("#")[0])
        for page in pages
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))
        if "://" not in link and not link.startswith("#")
    }
    assert any(link.endswith(".png") for _, link in linked)
    missing = [(page, link) for page, link in linked if not (script["OUT"] / link).is_file()]
    assert missing == []


@pytest.mark.slow
def test_the_site_is_built_without_a_warning():
    """Mkdocs --strict, every docstring of docs/api.md found."""
    pytest.importorskip("mkdocstrings", reason="the extra docs")
    for call in ([str(SCRIPT)], ["-m", "mkdocs", "build", "--strict", "--quiet"]):
        subprocess.run([sys.executable, *call], cwd=ROOT, check=True, capture_output=True)
    assert "encode_query" in (ROOT / "build" / "site" / "api.html").read_text("utf-8")
