"""Pass: one run of the model over one prompt, and the views that are read from it.

The views of a role are grouped by what decides the run: the prompt, its markers and instruction,
the mask and token prepending. An echo's second copy and a one-word suffix after it are two views of
one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from echovec.text.template import Template
from echovec.vector.view import View


@dataclass(frozen=True)
class Pass:
    """The views that one run of the model serves."""

    templates: tuple[Template, ...]
    """What differs in them is what they pool: the k-th names the k-th span of each sequence."""

    places: tuple[int, ...]
    """The places of its views among the role's."""


def passes_of(views: Sequence[View]) -> tuple[Pass, ...]:
    """Group a role's views into passes, both in order of first appearance."""
    groups: dict[object, list[int]] = {}
    for place, view in enumerate(views):
        groups.setdefault((view.template.prompt_key, view.mask, view.prepend), []).append(place)
    return tuple(
        Pass(tuple(dict.fromkeys(views[p].template for p in places)), tuple(places))
        for places in groups.values()
    )
