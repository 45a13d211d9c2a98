"""Fit the recipes that ship for the default model: `python -m benchmarks.fit_recipes [NAME ...]`.

Which views, layers, weights and calibrations was chosen on development data, by `echovec tune` and,
for all but `one-pass`, from there on (docs/LOG.md, 2026-11-26, -28, -30 and 2026-12-01); the
numbers are fitted here, in float32, on 1,024 texts of seven kinds that the model writes itself, and
what the kinds differ by is taken out (docs/LOG.md, 2026-11-27). Writes src/echovec/recipes/NAME/.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from echovec import Embedder
from echovec.calibrate.fitting import Steps, calibrated_view, recorded
from echovec.calibrate.kept import self_texts, texts_hash
from echovec.presets import LONG_TEXT, preset, recipe_of
from echovec.tune.space import PROMPTS
from echovec.vector.view import View

OUT = Path("src/echovec/recipes")
SCALE: Steps = (("center-scale", {}), ("remove-kinds", {"count": 2}))
WHITEN: Steps = (*SCALE, ("whiten", {"shrinkage": 0.1, "strength": 0.75}))

_ECHO, _TOPIC = PROMPTS["echo-sentence-eol"].views, PROMPTS["topic-eol"].views
ECHO_COPY, ECHO_WORD = _ECHO["copy"], _ECHO["word"]
(WORDS,) = preset("sif").views["symmetric"]
WORDED = PROMPTS["echo-worded-eol"].views
TOPIC_COPY, TOPIC_WORD = replace(_TOPIC["copy"], layer=(24, 30)), _TOPIC["word"]

Parts = Sequence[tuple[View, float, Steps]]
"""Views, each with its weight and its calibrations."""

CHOSEN: Mapping[str, Parts] = {
    "best": (
        (TOPIC_WORD, 1.0, SCALE),
        (ECHO_COPY, 1.5, WHITEN),
        (replace(ECHO_COPY, layer=26), 0.75, SCALE),
        (ECHO_WORD, 1.5, SCALE),
    ),
    "one-pass": (
        (ECHO_COPY, 1.0, SCALE),
        (ECHO_WORD, 1.0, SCALE),
        (ECHO_COPY, 0.5, WHITEN),
    ),
    "similarity": (
        (TOPIC_WORD, 1.0, SCALE),
        (replace(WORDED["bare"], pooling="sif", layer=0), 1.5, WHITEN),
        (WORDED["bare"], 1.0, SCALE),
        (replace(WORDED["bare"], layer=26), 0.5, SCALE),
        (WORDED["sorted"], 1.0, SCALE),
        (WORDED["word"], 1.5, SCALE),
    ),
    "fast": ((TOPIC_WORD, 1.0, SCALE), (TOPIC_COPY, 1.0, SCALE), (WORDS, 1.0, WHITEN)),
    "static": ((WORDS, 1.0, WHITEN),),
}


def main() -> None:
    """Fit and write all of them, or those that are named."""
    embedder = Embedder.load(precision="exact")
    written = self_texts(embedder)
    texts = list(written.texts)
    for name in sys.argv[1:] or CHOSEN:
        parts = CHOSEN[name]
        bare = embedder.with_recipe(recipe_of(name, *(view for view, _, _ in parts)))
        views = [
            replace(calibrated_view(view, z_LND, steps, written.kinds), weight=weight)
            for (view, weight, steps), z_LND in zip(parts, bare.states(texts), strict=True)
        ]
        record = (
            f"fitted on {len(texts):,} texts of several kinds written by the model itself, "
            f"sha256:{texts_hash(texts)}; chosen on development data"
        )
        recipe = recorded(embedder, recipe_of(name, *views, **LONG_TEXT), record).recipe
        assert recipe.model is not None
        # Where the model lies on this machine is nobody's business, and the name says no version.
        shipped = replace(
            recipe, model=replace(recipe.model, name="SmolLM2-135M-Instruct", path=None)
        )
        folder = shipped.save(OUT / name)
        size = sum(file.stat().st_size for file in folder.iterdir())
        print(f"{name}: {shipped.fingerprint}, {size:,} bytes -> {folder}", flush=True)


if __name__ == "__main__":
    main()
