"""`python -m benchmarks.ship_adapter RUN`: a finished run into src/echovec/adapters/.

    echovec train smollm2-echo -o RUN --data DATA
    python -m benchmarks.ship_adapter RUN

The adapter is what the run wrote. It is read by two views in one run, the second copy at layers 26
and 30 and the word after it, calibrated on texts that the model wrote itself before it was trained:
better on development data than the plain mean that it was trained with, and than the views of
`one-pass` (docs/LOG.md, 2026-11-27). Bound in float32, so that it is one embedder on every machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

from benchmarks.fit_recipes import ECHO_COPY, ECHO_WORD, SCALE
from echovec import Embedder
from echovec.calibrate.fitting import calibrated_view, recorded
from echovec.calibrate.kept import self_texts, texts_hash
from echovec.presets import LONG_TEXT, recipe_of
from echovec.recipe import Recipe
from echovec.saved import ADAPTER_FOLDER

NAME = "smollm2-135m-echo"
MODEL = "SmolLM2-135M-Instruct"
OUT = Path("src/echovec/adapters")
READINGS = ((replace(ECHO_COPY, layer=(26, 30)), 1.0, SCALE), (ECHO_WORD, 1.0, SCALE))


def main() -> None:
    """Write the folder and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    options = parser.parse_args()
    folder = ship(options.run, OUT / NAME)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{NAME}: {Recipe.load(folder).fingerprint}, {size:,} bytes -> {folder}")


def ship(run: Path, folder: Path) -> Path:
    """Copy a run's adapter and write its recipe and card."""
    trained = Embedder.load(run, precision="exact")
    written = self_texts(Embedder.load(precision="fast"))
    texts = list(written.texts)
    bare = trained.with_recipe(recipe_of(NAME, *(view for view, _, _ in READINGS)))
    views = [
        replace(calibrated_view(view, z_LND, steps, written.kinds), weight=weight)
        for (view, weight, steps), z_LND in zip(READINGS, bare.states(texts), strict=True)
    ]
    record = (
        f"fitted on {len(texts):,} texts of several kinds written by the base model, "
        f"{texts_hash(texts)}"
    )
    bound = recorded(trained, recipe_of(NAME, *views, **LONG_TEXT), record).recipe
    assert bound.model is not None
    # Where the model lies on this machine is nobody's business, and the name says no version.
    recipe = replace(bound, model=replace(bound.model, name=MODEL, path=None))
    shutil.copytree(run / ADAPTER_FOLDER, folder / ADAPTER_FOLDER, dirs_exist_ok=True)
    config = folder / ADAPTER_FOLDER / "adapter_config.json"
    told = json.loads(config.read_text("utf-8"))
    told["base_model_name_or_path"] = MODEL
    config.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", "utf-8")
    (folder / ADAPTER_FOLDER / "adapter_model.safetensors").chmod(0o644)
    recipe.save(folder)
    return folder


if __name__ == "__main__":
    main()
