"""What is released: the wheel's content, weight on import, licences, the size of files."""

from __future__ import annotations

import json
import re
import runpy
import statistics
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from echovec.saved import shipped_names

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))


def test_files_are_small():
    """The median source file has fewer than 200 lines, none more than 500."""
    lengths = {file: len(file.read_text("utf-8").splitlines()) for file in SOURCES}
    full = {file: length for file, length in lengths.items() if length > 1}
    assert statistics.median(full.values()) < 200
    assert [str(file) for file, length in lengths.items() if length > 500] == []


def test_every_module_has_a_docstring():
    """Each source file says what it is in its first line."""
    silent = [
        file.name for file in SOURCES if not file.read_text("utf-8").startswith(('"""', 'r"""'))
    ]
    assert silent == []


def test_importing_takes_under_a_third_of_a_second():
    """`import echovec` costs less than 0.3 s of processor time, at best of three."""
    code = "import time; t = time.process_time(); import echovec; print(time.process_time() - t)"
    took = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(3)
    ]
    assert min(took) < 0.3


def test_licences_of_all_that_comes_along():
    """The list names dependencies of dependencies; the SBOM is CycloneDX with versions."""
    script = runpy.run_path(str(ROOT / "scripts" / "licences.py"))
    found = script["closure"]("echovec", set())
    assert {"torch", "transformers", "numpy", "jinja2"} <= set(found)
    assert "pytest" not in found
    content = json.loads(script["sbom"](found))
    assert content["bomFormat"] == "CycloneDX"
    torch = next(one for one in content["components"] if one["name"] == "torch")
    assert torch["purl"].startswith("pkg:pypi/torch@")
    assert script["licence"](found["numpy"]) != "not said"


def test_the_newcomers_program_is_the_quickstart():
    """Every python, bash and output block of the page is in the program that the script runs."""
    script = runpy.run_path(str(ROOT / "scripts" / "newcomer.py"))
    page = (ROOT / "docs" / "quickstart.md").read_text("utf-8")
    program = script["program"](page, Path("/bin"))
    compile(program, "quickstart", "exec")
    for language, call in (
        ("python", "exec("),
        ("output", "assert said"),
        ("bash", "subprocess.run"),
    ):
        assert program.count(call) >= page.count(f"```{language}\n") > 0


def test_every_requirement_has_a_lowest_version():
    """The script that tries the lowest versions reads each bound of pyproject.toml."""
    script = runpy.run_path(str(ROOT / "scripts" / "versions.py"))
    wanted = script["requirements"]((ROOT / "pyproject.toml").read_text("utf-8"))
    pins = [script["lowest"](one) for one in wanted]
    assert {"numpy", "transformers", "mteb", "fastapi"} <= {pin.partition("==")[0] for pin in pins}
    assert all(pin.partition("==")[2][0].isdigit() for pin in pins)
    for name in script["CORE"]:
        assert (ROOT / "tests" / f"test_{name}.py").is_file(), name


def test_the_source_distribution_holds_what_tests_and_pages_need():
    """Whatever tests open at the root, and whatever the pages there link to."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]
    taken = {*settings["targets"]["sdist"]["include"], "pyproject.toml"}
    assert [name for name in taken if not (ROOT / name).exists()] == []
    tests = [file.read_text("utf-8") for file in (ROOT / "tests").glob("*.py")]
    needed = {name for text in tests for name in re.findall(r'ROOT / "([\w.]+)"', text)}
    for page in ROOT.glob("*.md"):
        links = re.findall(r"\]\(([^)#:]+)[^):]*\)", page.read_text("utf-8"))
        needed |= {link.partition("/")[0] for link in links}
    assert {"scripts", "CONTRIBUTING.md", "docs"} <= needed
    assert needed - {"build"} <= taken


def built(folder: Path) -> Path:
    """The wheel, built with what is installed here."""
    pytest.importorskip("hatchling", reason="building needs hatchling")
    call = ["-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([sys.executable, *call, str(ROOT)], check=True)
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(tmp_path):
    """Sources, recipes, the adapters that ship, types; no tests or pages; under 25 MB."""
    wheel = built(tmp_path)
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if "dist-info" not in name} == {"echovec"}
    for needed in ("py.typed", "recipes/best/recipe.safetensors", "export/echo_module.py"):
        assert f"echovec/{needed}" in names
    for name in shipped_names():
        assert f"echovec/adapters/{name}/adapter/adapter_model.safetensors" in names
    sources = {str(file.relative_to(ROOT / "src")) for file in SOURCES}
    assert sources <= set(names)
    assert wheel.stat().st_size < 25_000_000


@pytest.mark.slow
@pytest.mark.network
def test_a_newcomer_finishes_the_quickstart():
    """An empty environment, the wheel from an index, every block of the page."""
    subprocess.run([sys.executable, str(ROOT / "scripts" / "newcomer.py")], check=True)
