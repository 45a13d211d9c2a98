"""What is installed with echovec, and under which licences; as a table or as an SBOM.

    python scripts/licences.py               a line for each package: name, version, licence
    python scripts/licences.py --sbom        CycloneDX 1.6 as JSON
    python scripts/licences.py --extra serve only with these extras as well

Reads the metadata of the environment it runs in; nothing is fetched.
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Any

from packaging.requirements import Requirement


def closure(root: str, extras: set[str]) -> dict[str, Distribution]:
    """A package with all that it requires here, by name."""
    found: dict[str, Distribution] = {}
    waiting = [(root, extras)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, wanted = waiting.pop()
        key = (name.lower().replace("_", "-"), frozenset(wanted))
        if key in seen:
            continue
        seen.add(key)
        try:
            found[key[0]] = dist = distribution(name)
        except PackageNotFoundError:
            continue  # for another platform, or not installed
        for line in dist.requires or ():
            one = Requirement(line)
            tried = [{"extra": extra} for extra in (*sorted(wanted), "")]
            if one.marker is None or any(one.marker.evaluate(values) for values in tried):
                waiting.append((one.name, one.extras))
    return dict(sorted(found.items()))


def licence(dist: Distribution) -> str:
    """The licence as its metadata says: the SPDX expression, the field, or the classifiers."""
    about: Any = dist.metadata
    if said := about.get("License-Expression"):
        return str(said)
    named = [
        str(line).rpartition(" :: ")[2]
        for line in about.get_all("Classifier") or ()
        if str(line).startswith("License ::")
    ]
    field = str(about.get("License") or "").strip().splitlines()
    return "; ".join(named) or (field[0][:60] if field else "not said")


def sbom(found: dict[str, Distribution]) -> str:
    """A CycloneDX document of the packages."""
    components = [
        {
            "type": "library",
            "name": name,
            "version": dist.version,
            "purl": f"pkg:pypi/{name}@{dist.version}",
            "licenses": [{"license": {"name": licence(dist)}}],
        }
        for name, dist in found.items()
    ]
    content = {"bomFormat": "CycloneDX", "specVersion": "1.6", "components": components}
    return json.dumps(content, indent=1)


def main() -> None:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extra", action="append", default=[])
    parser.add_argument("--sbom", action="store_true")
    given = parser.parse_args()
    found = closure("echovec", set(given.extra))
    if given.sbom:
        print(sbom(found))
        return
    for name, dist in found.items():
        print(f"{name:<28} {dist.version:<16} {licence(dist)}")


if __name__ == "__main__":
    main()
