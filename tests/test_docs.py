"""The README and the pages in docs/: their Python runs, their outputs and links are right.

A ```python block is run; blocks of a page share their names. An ```output block holds what the
block above it prints. A ```bash block is run on the pages of COMMANDS. Others are not run.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import re
import shlex
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from echovec import loading
from echovec.cli import app

ROOT = Path(__file__).parents[1]
BESIDE = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES = [*BESIDE, *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMANDS = ("quickstart.md",)
NEEDS_MODEL = ("Embedder.load(", "default_model()")


class Block(NamedTuple):
    """One fenced block of a page."""

    line: int
    language: str
    code: str


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order; `line` is the first one inside."""
    text = page.read_text("utf-8")
    return [Block(text.count("\n", 0, m.start(2)) + 1, m[1], m[2]) for m in FENCE.finditer(text)]


def without_model(found: list[Block]) -> list[Block]:
    """The blocks before the first that needs the default model."""
    for place, block in enumerate(found):
        if block.language == "python" and any(need in block.code for need in NEEDS_MODEL):
            return found[:place]
    return found


def missing(block: Block) -> list[str]:
    """The packages that a block imports and that are not installed here."""
    if block.language != "python":
        return []
    roots = set()
    for node in ast.walk(ast.parse(block.code)):
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add(str(node.module).partition(".")[0])
    return sorted(root for root in roots if importlib.util.find_spec(root) is None)


def run(page: Path, found: list[Block]) -> None:
    """Execute the blocks as one program and compare what each prints, where the page says it.

    A block that imports an extra which is not installed is left out, and the page is then a skip
    that names it; everything else of the page has to be right all the same.
    """
    namespace: dict[str, object] = {"__name__": "page"}
    printed: str | None = ""
    lacking: set[str] = set()
    for block in found:
        where = f"{page.name}:{block.line}"
        if absent := missing(block):
            lacking.update(absent)
            printed = None
        elif block.language == "python":
            out = io.StringIO()
            # The blank lines make a traceback name the line of the page.
            code = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
            with contextlib.redirect_stdout(out):
                exec(code, namespace)
            printed = out.getvalue()
        elif block.language == "bash" and page.name in COMMANDS:
            command(block.code, where)
        elif block.language == "output" and printed is not None:
            assert printed == block.code, f"{where} prints something else"
    if lacking:
        pytest.skip(f"the rest of the page is right; not installed: {', '.join(sorted(lacking))}")


def command(code: str, where: str) -> None:
    """Run the lines of a block, each a call of echovec, as its command line does."""
    for line in code.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "echovec", f"{where} runs something else: {line}"
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, f"{where}: {line}: {result.output}{result.exception!r}"


def has_python(found: list[Block]) -> bool:
    return any(block.language == "python" for block in found)


BLOCKS = {page: blocks(page) for page in PAGES}
OFFLINE = [page for page in PAGES if has_python(without_model(BLOCKS[page]))]
WITH_MODEL = [page for page in PAGES if without_model(BLOCKS[page]) != BLOCKS[page]]


def _name(page: Path) -> str:
    return page.name


@pytest.mark.parametrize("page", OFFLINE, ids=_name)
def test_python_runs(page, tmp_path, monkeypatch):
    """A page's Python runs from the top, as far as it needs no model, and prints what it says."""
    monkeypatch.chdir(tmp_path)
    run(page, without_model(BLOCKS[page]))


@pytest.fixture
def default_model_read_once(monkeypatch, read_once):
    """Pages of one process share the default model."""
    monkeypatch.setattr(loading, "load_model", read_once)


# "fast" says so where the processor does not multiply bfloat16; the page is right even so.
@pytest.mark.filterwarnings("ignore::echovec.PrecisionWarning")
@pytest.mark.parametrize("page", WITH_MODEL, ids=_name)
def test_python_runs_with_the_default_model(page, tmp_path, monkeypatch, default_model_read_once):
    """A page that uses the default model runs from top to bottom and prints what it says."""
    monkeypatch.chdir(tmp_path)
    run(page, BLOCKS[page])


def test_a_wrong_output_is_noticed(tmp_path):
    """A page whose output block differs from what its code prints does not pass."""
    page = tmp_path / "wrong.md"
    page.write_text("```python\nprint(1)\n```\n\n```output\n2\n```\n", "utf-8")
    with pytest.raises(AssertionError, match=r"wrong\.md:6"):
        run(page, blocks(page))


def test_only_what_is_not_installed_is_left_out(tmp_path):
    """A block that needs a missing extra makes a skip that names it; an error elsewhere counts."""
    page = tmp_path / "extra.md"
    extra = "```python\nimport no_such_extra\n```\n\n```output\nx\n```\n"
    page.write_text(extra + "```python\nprint(1)\n```\n\n```output\n1\n```\n", "utf-8")
    with pytest.raises(pytest.skip.Exception, match="no_such_extra"):
        run(page, blocks(page))
    page.write_text(extra + "```python\nraise ValueError\n```\n", "utf-8")
    with pytest.raises(ValueError):
        run(page, blocks(page))


def test_the_readme_shows_how_to_begin():
    """The README has Python to run, on its first screen, beside the two make targets."""
    screen = (ROOT / "README.md").read_text("utf-8").splitlines()[:45]
    for expected in ("make demo", "make test", "```python", "docs/idea.svg"):
        assert any(expected in line for line in screen)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page):
    """Every link to a file of the project names one that exists, and its heading if it has one."""
    for link in LINK.findall(FENCE.sub("", page.read_text("utf-8"))):
        if "://" in link:
            continue
        path, _, heading = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        if heading:
            lines = target.read_text("utf-8").splitlines()
            titles = [line.lstrip("# ").lower() for line in lines if line.startswith("#")]
            assert heading in {re.sub(r"[^\w -]", "", t).replace(" ", "-") for t in titles}


def test_the_rooms_of_the_design_are_those_of_the_contract():
    """The table of rooms in docs/design.md has the layers that `make check` proves, in order."""
    text = (ROOT / "docs" / "design.md").read_text("utf-8")
    table = text[text.index("cli      ") :].partition("```")[0]
    heads = re.findall(r"^\w+(?: *\| *\w+)*", table, re.M)
    drawn = [re.findall(r"\w+", head) for head in heads]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    rooms = [re.findall(r"echovec\.(\w+)", layer) for layer in layers]
    assert [room for row in drawn for room in row] == [room for row in rooms for room in row]


def test_every_verb_is_documented():
    """The command line's page lists every verb once, and the README's table names each."""
    verbs = [command.name for command in app.registered_commands]
    page = (ROOT / "docs" / "command-line.md").read_text("utf-8")
    listed = re.findall(r"^    echovec ([a-z]+)", page[: page.index("Results and data")], re.M)
    assert sorted(listed) == sorted(verbs)
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "README.md").read_text("utf-8"), re.M)
    named = re.findall(r"[a-z]+", " ".join(rows))
    assert set(verbs) <= set(named)


def test_every_page_is_in_the_index():
    """docs/index.md links to every page of docs/."""
    linked = set(LINK.findall((ROOT / "docs" / "index.md").read_text("utf-8")))
    names = {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert names <= linked, f"not in docs/index.md: {sorted(names - linked)}"


def test_every_page_is_in_the_navigation_once():
    """All pages of the site stand in the `nav` of mkdocs.yml once; its index.md is the README."""
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    named = sorted(re.findall(r": ([\w-]+\.md)$", text, re.MULTILINE))
    beside = ["pages.md", "contributing.md", "changelog.md", "security-policy.md"]
    pages = sorted([page.name for page in (ROOT / "docs").glob("*.md")] + beside)
    assert named == pages, "put each page of docs/ into `nav` of mkdocs.yml, once"


def test_every_main_preset_is_on_the_template_page():
    """The presets' table on docs/template.md names each preset and gives its prompts unchanged."""
    from echovec.presets import preset, preset_names
    from echovec.recipe import ROLES

    page = (ROOT / "docs" / "template.md").read_text("utf-8")
    table = page[page.index("## Presets") :]
    for name in preset_names():
        group = re.sub(r"^(paper-.*)-\d+$", r"\1-1", name)
        assert f"`{group}`" in table, f"{name} is missing"
        if group == name and not name.startswith("paper-") and name != "meta-eol":
            for role in ROLES:
                for view in preset(name).views[role]:
                    prompt = view.template.prompt.replace("\n", "\\n")
                    assert f"`{prompt}`" in table, f"{name}: {prompt}"


def test_the_picture_runs_nothing():
    """The picture is well-formed XML of plain shapes: no script, no outside reference."""
    root = ET.parse(ROOT / "docs" / "idea.svg").getroot()
    assert root.get("viewBox") == "0 0 820 300"
    kinds = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert kinds <= {"svg", "title", "desc", "style", "g", "rect", "path", "text"}
