"""Program as JSON: what `echo_module.py` reads, and the arrays beside it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echovec.export.linear import Affine, Step
from echovec.export.program import PassProgram, Program, ReadOff
from echovec.recipe import ROLES, Recipe
from echovec.version import __version__

Arrays = dict[str, NDArray[np.float32]]


def program_to_json(program: Program, recipe: Recipe) -> tuple[dict[str, Any], Arrays]:
    """`echo.json`'s content and the arrays of its steps, by the names that it calls them."""
    arrays: Arrays = {}
    roles: dict[str, Any] = {}
    for role in ROLES:
        passes = [_pass(one, arrays) for one in program.roles[role]]
        roles[role] = "symmetric" if roles and passes == roles["symmetric"] else passes
    content = {
        "format": 1,
        "made_by": f"echovec {__version__}",
        "recipe": recipe.name,
        "fingerprint": recipe.fingerprint,
        "roles": roles,
        "combine": program.combine,
        "max_tokens": program.max_tokens,
        "max_positions": program.max_positions,
        "text_share": program.text_share,
        "num_layers": program.num_layers,
        "dim": program.dim,
        "special": program.special,
        "arrays": bool(arrays),
    }
    return content, arrays


def _pass(one: PassProgram, arrays: Arrays) -> dict[str, Any]:
    pieces = [asdict(piece) | {"ids": list(piece.ids)} for piece in one.pieces]
    return {"pieces": pieces, "views": [_view(view, arrays) for view in one.views]}


def _view(view: ReadOff, arrays: Arrays) -> dict[str, Any]:
    return {
        "place": view.place,
        "span": list(view.span),
        "pooling": view.pooling,
        "layers": list(view.layers),
        "steps": [_step(step, arrays) for step in view.steps],
    }


def _step(step: Step, arrays: Arrays) -> dict[str, Any]:
    if not isinstance(step, Affine):
        return {"kind": "normalize"}
    matrix = step.matrix_DE
    if matrix.shape[0] == matrix.shape[1] and not (matrix - np.diag(np.diag(matrix))).any():
        matrix = np.diag(matrix)  # a scale of each dimension needs no product
    return {
        "kind": "affine",
        "matrix": _named(matrix, arrays),
        "bias": _named(step.bias_E, arrays),
    }


def _named(array: NDArray[np.float64], arrays: Arrays) -> str:
    narrow = np.ascontiguousarray(array, dtype=np.float32)
    for name, known in arrays.items():
        if np.array_equal(known, narrow):
            return name
    name = f"array {len(arrays)}"
    arrays[name] = narrow
    return name
