"""Report: all findings, in order."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import chain

from echovec.doctor.finding import Finding, without_home
from echovec.doctor.installed import installed
from echovec.doctor.machine import machine
from echovec.doctor.models import chosen_model, models
from echovec.errors import EchovecError


def findings(model: str | None = None, *, self_test: bool = True) -> Iterator[Finding]:
    """Look at everything; what one part cannot do is a finding, not an end.

    Args:
        model: what the self-test runs on, as `Embedder.load` takes it; by default the default
            model where a folder of it is on this machine, else a made-up one. Nothing is fetched.
        self_test: whether to compute vectors at all.
    """
    yield from chain(installed(), machine(), models())
    if self_test:
        yield from _self_test(model)


def _self_test(model: str | None) -> Iterator[Finding]:
    from echovec.doctor.self_test import recipe, self_test
    from echovec.embedder import Embedder
    from echovec.model import store
    from echovec.train.tiny import tiny_model

    # A GGUF file would be converted first, which changes the cache.
    chosen = chosen_model()
    whole = chosen.is_dir() if chosen else store.default_origin().endswith("(cached)")
    made_up = model is None and not whole
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if made_up:
                embedder = Embedder.from_model(*tiny_model(), recipe(), engine="packed")
            else:
                embedder = Embedder.load(model, recipe())
            name = "a made-up model" if made_up else without_home(model or "the default model")
            yield from self_test(embedder, name)
    except EchovecError as error:
        said = without_home(str(error))
        yield Finding("self-test", "FAIL", said, "give another --model, or see the message")
