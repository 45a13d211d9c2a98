"""`python -m benchmarks.ship_adapter RUN [RUN ...]`: finished runs into src/echovec/adapters/.

    echovec train smollm2-echo -o PAIRS --data DATA
    echovec train smollm2-echo-labels -o LABELS --data DATA
    python -m benchmarks.ship_adapter PAIRS LABELS

The adapter is the mean of what the runs wrote (Wortsman et al., arXiv 2203.05482), brought back to
their rank by PEFT. It is read by two views in one run, the second copy at layers 26 and 30 and the
word after it, calibrated on texts that the model wrote itself before it was trained: better on
development data than the plain mean that it was trained with, and than the views of `one-pass`
(docs/LOG.md, 2026-11-27 and 2026-11-28). Bound in float32, so that it is one embedder on every
machine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from benchmarks.fit_recipes import ECHO_COPY, ECHO_WORD, SCALE
from echovec import Embedder
from echovec.calibrate.fitting import calibrated_view, recorded
from echovec.calibrate.kept import self_texts, texts_hash
from echovec.model.adapter import CONFIG_FILE, WEIGHTS_FILE
from echovec.model.load import load_model, read_model
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
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--weights", default="", help="of each, with , between; by default alike")
    parser.add_argument("--out", type=Path, default=OUT / NAME)
    options = parser.parse_args()
    given = [float(one) for one in options.weights.split(",") if one] or [1.0] * len(options.runs)
    folder = ship(dict(zip(options.runs, given, strict=True)), options.out)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{NAME}: {Recipe.load(folder).fingerprint}, {size:,} bytes -> {folder}")


def ship(runs: Mapping[Path, float], folder: Path) -> Path:
    """Write the weighted mean of the runs' adapters, its recipe and what it is calibrated on."""
    whole = sum(runs.values())
    shares = {run / ADAPTER_FOLDER: weight / whole for run, weight in runs.items()}
    adapter = average(shares, folder / ADAPTER_FOLDER)
    backbone, tokenizer, _ = load_model(
        None,
        device="cpu",
        dtype="float32",
        engine="auto",
        revision=None,
        trust_remote_code=False,
        adapter=adapter,
        tokenizer_at=None,
    )
    views = [view for view, _, _ in READINGS]
    trained = Embedder(recipe_of(NAME, *views), tokenizer, backbone)
    written = self_texts(Embedder.load(precision="fast"))
    texts = list(written.texts)
    fitted = [
        replace(calibrated_view(view, z_LND, steps, written.kinds), weight=weight)
        for (view, weight, steps), z_LND in zip(READINGS, trained.states(texts), strict=True)
    ]
    record = (
        f"fitted on {len(texts):,} texts of several kinds written by the base model, "
        f"{texts_hash(texts)}"
    )
    bound = recorded(trained, recipe_of(NAME, *fitted, **LONG_TEXT), record).recipe
    assert bound.model is not None
    # Where the model lies on this machine is nobody's business, and the name says no version.
    replace(bound, model=replace(bound.model, name=MODEL, path=None)).save(folder)
    return folder


def average(adapters: Mapping[Path, float], folder: Path) -> Path:
    """The weighted mean of adapters of one rank, at that rank, in float16."""
    first, *others = adapters
    config = json.loads((first / CONFIG_FILE).read_text("utf-8"))
    model, _, _ = read_model(None, device="cpu", dtype=torch.float32)
    names = [f"run{place}" for place in range(len(adapters))]
    wrapped = PeftModel.from_pretrained(model, str(first), adapter_name=names[0])
    for name, adapter in zip(names[1:], others, strict=True):
        wrapped.load_adapter(str(adapter), name)
    wrapped.add_weighted_adapter(
        names, list(adapters.values()), "mean", combination_type="svd", svd_rank=config["r"]
    )
    with tempfile.TemporaryDirectory() as kept:
        wrapped.save_pretrained(kept, selected_adapters=["mean"])
        tensors = load_file(Path(kept) / "mean" / WEIGHTS_FILE)
        told = json.loads((Path(kept) / "mean" / CONFIG_FILE).read_text("utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    told["base_model_name_or_path"] = MODEL
    config_text = json.dumps(told, indent=2, sort_keys=True) + "\n"
    (folder / CONFIG_FILE).write_text(config_text, "utf-8")
    halves = {name: tensor.half().contiguous() for name, tensor in tensors.items()}
    save_file(halves, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / WEIGHTS_FILE).chmod(0o644)
    return folder


if __name__ == "__main__":
    main()
