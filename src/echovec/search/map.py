"""A map of an index: one HTML page that needs nothing else, and the same points as Parquet.

    Index.points --plane--> x, y --clusters, fields--> colours --map.html--> OUT.html, OUT.parquet

The page draws on a canvas, works from a file without a network, and is made of the data here and
the template beside this file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from echovec.errors import DependencyError, InputError
from echovec.files.disk import NewFile, check_out, write_file
from echovec.search.clusters import Clusters, find_clusters
from echovec.search.points import Points

Method = Literal["pca", "umap"]

TEXT_CHARACTERS = 300
KINDS_SHOWN = 16
"""Values of a field that have a colour of their own; the rest share one."""


@dataclass(frozen=True)
class Colour:
    """One way to colour the points."""

    name: str
    labels: list[str]
    values: list[int]
    """Which label each point has."""
    centres: list[int] | None = None
    """For each label the point that is nearest to its middle, to write its name there."""


def column_names(points: Points) -> dict[str, str]:
    """What x, y and cluster are called beside the rows' own fields: map_x where there is an x."""
    names = {}
    for own in ("x", "y", "cluster"):
        name = own
        while name in points.fields:
            name = f"map_{name}"
        names[own] = name
    return names


def plane(points: Points, method: Method = "pca", *, seed: int = 0) -> NDArray[np.float32]:
    """Where the points are: float32 [n, 2], centred, the farthest about 1 from the middle.

    Raises:
        InputError: an unknown method.
        DependencyError: umap is asked for and not installed.
    """
    if method == "pca":
        xy = points.xy_N2
    elif method == "umap":
        xy = _umap(points, seed)
    else:
        raise InputError(f"method {method!r}; there are pca, umap")
    middle = (xy.max(axis=0) + xy.min(axis=0)) / 2
    farthest = np.abs(xy - middle).max()
    scaled: NDArray[np.float32] = ((xy - middle) / (farthest or 1)).astype(np.float32)
    return scaled


def _umap(points: Points, seed: int) -> NDArray[np.float32]:
    import warnings

    try:
        from umap import UMAP
    except ImportError as error:
        raise DependencyError(
            f'a UMAP plane needs umap-learn ({error}): pip install "echovec[viz]"'
        ) from None
    if len(points.ids) < 5:
        return points.xy_N2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that a seed makes it use one core
        neighbours = min(15, len(points.ids) - 1)
        found = UMAP(n_neighbors=neighbours, metric="cosine", random_state=seed)
        return np.asarray(found.fit_transform(points.vectors_ND), dtype=np.float32)


def colours(points: Points, clusters: Clusters, xy_N2: NDArray[np.float32]) -> list[Colour]:
    """The clusters, then every field that tells rows apart."""
    names = [", ".join(words) or f"cluster {n}" for n, words in enumerate(clusters.words, 1)]
    centres = []
    for label in range(len(names)):
        members = np.flatnonzero(clusters.labels_N == label)
        middle = np.median(xy_N2[members], axis=0)
        centres.append(int(members[((xy_N2[members] - middle) ** 2).sum(axis=1).argmin()]))
    own = column_names(points)["cluster"]
    found = [Colour(own, names, clusters.labels_N.tolist(), centres)]
    for name, values in points.fields.items():
        if colour := _field_colour(name, values):
            found.append(colour)
    return found


def _field_colour(name: str, values: Sequence[Any]) -> Colour | None:
    counts = Counter("none" if value is None else str(value) for value in values)
    if len(counts) < 2:
        return None
    given = [value for value in values if value is not None]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in given)
    if len(counts) > KINDS_SHOWN and numbers:
        return _number_colour(name, values)
    shown = [value for value, _ in counts.most_common(KINDS_SHOWN)]
    if len(counts) > KINDS_SHOWN:
        if counts[shown[0]] == 1:
            return None  # every row has a value of its own, as names have
        shown = [*shown[:-1], "other"]
    place = {value: n for n, value in enumerate(shown)}
    rest = len(shown) - 1
    keys = ("none" if value is None else str(value) for value in values)
    return Colour(name, shown, [place.get(key, rest) for key in keys])


def _number_colour(name: str, values: Sequence[Any], bins: int = 6) -> Colour:
    """Numbers in parts of about equally many rows."""
    array = np.array([np.nan if value is None else float(value) for value in values])
    known = array[np.isfinite(array)]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1)))
    which = np.clip(np.searchsorted(edges, array, side="right") - 1, 0, len(edges) - 2)
    labels = [f"{a:g} to {b:g}" for a, b in pairwise(edges)]
    if len(known) < len(array):
        labels.append("none")
        which[~np.isfinite(array)] = len(labels) - 1
    return Colour(name, labels, which.tolist())


def page(
    points: Points, xy_N2: NDArray[np.float32], found: list[Colour], *, title: str, facts: str
) -> str:
    """The HTML of a map.

    Args:
        points: ids and texts.
        xy_N2: where they are, between -1 and 1.
        found: how they can be coloured; the first is chosen.
        title: the page's title.
        facts: a line below it.
    """
    content = {
        "title": title,
        "facts": facts,
        "ids": points.ids,
        "texts": [_short(text) for text in points.texts],
        "xy": [round(float(value), 4) for value in xy_N2.ravel()],
        "colours": [vars(colour) for colour in found],
    }
    # "</script>" in a text must not end the script; JSON may write "<" in this way.
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    template = files("echovec.search").joinpath("map.html").read_text("utf-8")
    return template.replace("/*DATA*/", data)


def write_map(
    points: Points,
    out: str | Path,
    *,
    title: str,
    method: Method = "pca",
    clusters: int = 12,
    seed: int = 0,
) -> Path:
    """Write OUT.html and, beside it, OUT.parquet with x, y and cluster of each point.

    A field of the rows keeps its name; where it is called x, y or cluster, see `column_names`.

    Returns:
        The Parquet file.

    Raises:
        InputError: an unknown method, no cluster, OUT's folder is not there, or OUT.parquet is
            there and no map's points.
        DependencyError: umap is asked for and not installed.
        StorageError: the disk is full, read-only or broken.
    """
    out = Path(out)
    table = out.with_suffix(".parquet")
    check_out(out)
    _check_table(table)
    xy_N2 = plane(points, method, seed=seed)
    found = find_clusters(
        points.vectors_ND, min(clusters, len(points.ids)), texts=points.texts, seed=seed
    )
    shown, total = len(points.ids), points.num_rows
    facts = f"{shown:,} rows" if shown == total else f"{shown:,} of {total:,} rows, evenly taken"
    facts += ", two principal axes" if method == "pca" else ", UMAP"
    text = page(points, xy_N2, colours(points, found, xy_N2), title=title, facts=facts)
    _write_table(points, xy_N2, found, table)
    write_file(out, text.encode("utf-8", "replace"))
    return table


def _check_table(path: Path) -> None:
    """Refuse to replace a Parquet file that no map has written: vectors may be of the same name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        return
    try:
        names = set(pq.read_schema(path).names)
    except (pa.ArrowException, OSError):
        names = set()
    if not {"x", "y", "cluster"} <= names or "embedding" in names:
        raise InputError(
            f"{path} would be replaced by the map's points, and holds something else; give the "
            "page another name"
        )


def _write_table(points: Points, xy_N2: NDArray[np.float32], found: Clusters, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    words = [", ".join(found.words[label]) for label in found.labels_N]
    own = {"cluster": words, "x": xy_N2[:, 0], "y": xy_N2[:, 1]}
    names = column_names(points)
    columns = {**points.fields, "id": points.ids, "text": points.texts}
    table = pa.table(columns | {names[key]: values for key, values in own.items()})
    with NewFile(path) as file:
        pq.write_table(table, pa.PythonFile(file, mode="w"))
        file.keep()


def _short(text: str | None) -> str | None:
    if text is None or len(text) <= TEXT_CHARACTERS:
        return text
    return text[: TEXT_CHARACTERS - 1] + "…"
