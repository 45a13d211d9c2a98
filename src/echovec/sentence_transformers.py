"""sentence_transformers: load what `echovec export` wrote, running none of the folder's code.

    model = echovec.sentence_transformers.load("folder")      # a SentenceTransformer

An export whose recipe needs a module of its own carries that module as a file, which plain
`SentenceTransformer(folder)` runs only with `trust_remote_code=True`. Here the same class comes
from this package; everything else in such a folder is data.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from echovec.errors import InputError
from echovec.export.to_sentence_transformers import need_sentence_transformers
from echovec.model.load import quiet_transformers

OWN_TYPE = "echo_module.EchoModule"
_STANDARD = ("Dense", "Normalize")


def load(folder: str | Path, *, device: str | None = None) -> Any:
    """An export of either route as a SentenceTransformer.

    Args:
        folder: what `echovec export` or `Embedder.save_sentence_transformers` wrote.
        device: a torch device; by default sentence-transformers' choice.

    Raises:
        InputError: no such folder, it names modules that an export does not have, or its
            `echo.json` is not whole.
        DependencyError: sentence-transformers is not installed.
    """
    need_sentence_transformers()
    from sentence_transformers import SentenceTransformer

    folder = Path(folder)
    table = _modules(folder)
    if table[0]["type"] != OWN_TYPE:
        return SentenceTransformer(str(folder), device=device, local_files_only=True)
    from sentence_transformers.base import modules as standard

    from echovec.export.echo_module import PROGRAM, EchoModule, problem_of

    if problem := problem_of(_read(folder / PROGRAM)):
        raise InputError(f"{folder}: {PROGRAM} {problem}")
    with quiet_transformers():
        modules: list[Any] = [EchoModule.load(str(folder), local_files_only=True)]
    for entry in table[1:]:
        name = entry["type"].rpartition(".")[2]
        if name not in _STANDARD:
            raise _edited(folder, entry)
        kind = getattr(standard, name)
        modules.append(
            kind.load(str(folder), subfolder=entry["path"], local_files_only=True)
            if name == "Dense"
            else kind()
        )
    config = _read(folder / "config_sentence_transformers.json")
    return SentenceTransformer(
        modules=modules,
        device=device,
        prompts=config.get("prompts"),
        similarity_fn_name=config.get("similarity_fn_name"),
    )


def _modules(folder: Path) -> list[dict[str, str]]:
    """Type and path of each module: sentence-transformers', but the first, which may be ours."""
    table = _read(folder / "modules.json")
    if not isinstance(table, list) or not table:
        raise _edited(folder, table)
    for place, entry in enumerate(table):
        if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
            raise _edited(folder, entry)
        kind = str(entry.get("type"))
        if not kind.startswith("sentence_transformers.") and (place or kind != OWN_TYPE):
            raise _edited(folder, entry)
    return table


def _edited(folder: Path, entry: Any) -> InputError:
    return InputError(
        f"{folder}: modules.json names {entry!r}, which no export has; it was edited: export "
        "again, or load it with SentenceTransformer yourself"
    )


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{file.parent} is no sentence-transformers folder: cannot read {file.name} ({error})"
        ) from None
