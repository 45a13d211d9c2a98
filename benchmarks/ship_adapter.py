"""`python -m benchmarks.ship_adapter RUN`: a finished run into src/echovec/adapters/.

    echovec train smollm2-echo -o RUN --data DATA
    python -m benchmarks.ship_adapter RUN

The adapter is what the run wrote. The recipe is its own with the usual budget of tokens, bound in
float32, so that it is one embedder on every machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

from echovec import Embedder
from echovec.recipe import Recipe
from echovec.saved import ADAPTER_FOLDER

NAME = "smollm2-135m-echo"
MODEL = "SmolLM2-135M-Instruct"
OUT = Path("src/echovec/adapters")
MAX_TOKENS = 512


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
    trained = Embedder.load(run, precision="exact", max_tokens=MAX_TOKENS)
    bound = trained.recipe
    assert bound.model is not None
    # Where the model lies on this machine is nobody's business, and the name says no version.
    recipe = replace(bound, name=NAME, model=replace(bound.model, name=MODEL, path=None))
    shutil.copytree(run / ADAPTER_FOLDER, folder / ADAPTER_FOLDER, dirs_exist_ok=True)
    config = folder / ADAPTER_FOLDER / "adapter_config.json"
    settings = json.loads(config.read_text("utf-8"))
    settings["base_model_name_or_path"] = MODEL
    config.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", "utf-8")
    (folder / ADAPTER_FOLDER / "adapter_model.safetensors").chmod(0o644)
    recipe.save(folder)
    return folder


if __name__ == "__main__":
    main()
