"""Views and transforms as JSON values and back; arrays stand aside, named by their own hash.

An array appears in the JSON as `{"array": "sha256:..."}` and lies under that name in a table of
arrays (`recipe.safetensors`). The name covers the numbers and the shape, so an array that several
roles share is kept once, a fingerprint over the JSON covers the arrays, and an edited array no
longer fits its name. Fields of a view that have their default are left out: a new kind of field
leaves old fingerprints as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from typing import Any

import numpy as np

from echovec.errors import RecipeError
from echovec.text.template import Template
from echovec.vector.transform import TRANSFORMS, Array, Transform
from echovec.vector.view import View

Json = dict[str, Any]
Arrays = Mapping[str, Array]
_ALWAYS_SHOWN = ("template", "pooling", "layer")


def array_name(array: Array) -> str:
    """A name for an array: "sha256:..." over its shape and its float32 values."""
    values = np.ascontiguousarray(array, dtype="<f4")
    head = f"{values.shape} ".encode()
    return "sha256:" + hashlib.sha256(head + values.tobytes()).hexdigest()


def arrays_of(transforms: Sequence[Transform]) -> dict[str, Array]:
    """Every array that these transforms hold, by name."""
    found: dict[str, Array] = {}
    for transform in transforms:
        for value in vars(transform).values():
            if isinstance(value, np.ndarray):
                found[array_name(value)] = value
    return found


def view_to_json(view: View) -> Json:
    """A view's fields; those beside template, pooling and layer only where they say something."""
    content: Json = {}
    for field in fields(View):
        value = getattr(view, field.name)
        if field.name in _ALWAYS_SHOWN or field.default is MISSING or value != field.default:
            content[field.name] = value
    content["template"] = asdict(view.template)
    if view.transforms:
        content["transforms"] = transforms_to_json(view.transforms)
    return {name: list(v) if isinstance(v, tuple) else v for name, v in content.items()}


def view_from_json(content: Json, arrays: Arrays) -> View:
    """Read `view_to_json`'s value back; RecipeError if an array is missing or another."""
    given: Json = {name: tuple(v) if isinstance(v, list) else v for name, v in content.items()}
    given["template"] = Template(**content["template"])
    given["transforms"] = transforms_from_json(content.get("transforms", ()), arrays)
    return View(**given)


def transforms_to_json(transforms: Sequence[Transform]) -> list[Json]:
    """Each transform as its kind and fields, arrays by name."""
    return [_transform_to_json(t) for t in transforms]


def transforms_from_json(content: Sequence[Json], arrays: Arrays) -> tuple[Transform, ...]:
    """Read `transforms_to_json`'s value back; RecipeError if an array is missing or another."""
    return tuple(_transform_from_json(c, arrays) for c in content)


def _transform_to_json(transform: Transform) -> Json:
    kind = next((name for name, row in TRANSFORMS.items() if type(transform) is row), None)
    if kind is None:
        raise RecipeError(
            f"{type(transform).__name__} is no transform that a recipe can be saved with; there "
            f"are {', '.join(TRANSFORMS)}"
        )
    values = {
        name: {"array": array_name(v)} if isinstance(v, np.ndarray) else v
        for name, v in vars(transform).items()
    }
    return {"kind": kind, **values}


def _transform_from_json(content: Json, arrays: Arrays) -> Transform:
    given = dict(content)
    kind = given.pop("kind")
    if kind not in TRANSFORMS:
        raise RecipeError(f"unknown transform {kind!r}; there are {', '.join(TRANSFORMS)}")
    for name, value in given.items():
        if isinstance(value, dict):
            given[name] = _find(value["array"], arrays)
    transform: Transform = TRANSFORMS[kind](**given)
    return transform


def _find(name: str, arrays: Arrays) -> Array:
    if name not in arrays:
        raise RecipeError(
            f"the array {name[:19]}... of this recipe is not there: it lies in recipe.safetensors "
            "beside recipe.json; keep the two files together"
        )
    array = arrays[name]
    if array_name(array) != name:
        raise RecipeError(
            f"the array {name[:19]}... of this recipe was edited (its content has "
            f"{array_name(array)[:19]}...); take the files as they were saved"
        )
    return array
