"""Tune: search for the best recipe of a model, on development data only, cheap stages first.

dev.py      texts and tasks to choose by; a guard that lets no test data in
space.py    what is tried: prompts and their views, calibrations; the limits of cost
states.py   pooled states of all layers, one run of the model per prompt, kept on disk
score.py    from vectors to scores, per task, per category, in all
parts.py    one view at one layer with one calibration, as arithmetic on the kept states
search.py   layers, then calibrations, then sums of views under a limit of cost
card.py     what was tried and chosen, as a page; plots.py its pictures
run.py      all of it: `tune`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from echovec.tune.run import Tuned, tune

__all__ = ["Tuned", "tune"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from echovec.tune import run

        return getattr(run, name)
    raise AttributeError(f"module 'echovec.tune' has no attribute {name!r}")
