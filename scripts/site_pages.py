"""The pages of the site: docs/ with README, CONTRIBUTING, CHANGELOG and SECURITY beside them.

    python scripts/site_pages.py      writes build/pages, which mkdocs.yml reads

On disk and on a code host the pages link to their neighbours as files (`../README.md`); a site has
one folder, so those links are turned here, and links to source code become plain text. The README
is the site's front page, so the table of all pages gets another name there.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUT = ROOT / "build" / "pages"
NEIGHBOURS = {
    "index.md": "pages.md",
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security-policy.md",
}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def turned(text: str, *, inside_docs: bool) -> str:
    """The page with its links as they are in the site."""

    def turn(match: re.Match[str]) -> str:
        image, label, link = match.groups()
        if "://" in link or link.startswith("#"):
            return match[0]
        path, mark, heading = link.partition("#")
        path = path.removeprefix("../") if inside_docs else path.removeprefix("docs/")
        path = NEIGHBOURS.get(path, path)
        known = path in NEIGHBOURS.values() or (ROOT / "docs" / path).is_file()
        return f"{image}[{label}]({path}{mark}{heading})" if known else label

    return _LINK.sub(turn, text)


def main() -> None:
    """Write build/pages anew."""
    shutil.rmtree(OUT, ignore_errors=True)
    shutil.copytree(ROOT / "docs", OUT)  # pictures, too
    for file in (ROOT / "docs").glob("*.md"):
        text = turned(file.read_text("utf-8"), inside_docs=True)
        (OUT / NEIGHBOURS.get(file.name, file.name)).write_text(text, "utf-8")
    for source, name in NEIGHBOURS.items():
        if (ROOT / source).is_file():
            text = turned((ROOT / source).read_text("utf-8"), inside_docs=False)
            (OUT / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
