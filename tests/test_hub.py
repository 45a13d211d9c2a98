"""A model of the hub by name, from a hub cache on disk laid out as huggingface_hub lays it."""

from __future__ import annotations

import os
import subprocess
import sys

from families import causal_model, family_tokenizer

REVISION = "0123456789abcdef0123456789abcdef01234567"


def test_a_hub_name_loads_from_the_hub_s_cache_without_network(tmp_path):
    """`Embedder.load("someone/tiny")` finds the cached snapshot offline, and names it so."""
    repository = tmp_path / "hub" / "models--someone--tiny"
    snapshot = repository / "snapshots" / REVISION
    causal_model("llama").save_pretrained(snapshot)
    family_tokenizer("llama").save_pretrained(snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    code = (
        "from echovec import Embedder\n"
        "embedder = Embedder.load('someone/tiny')\n"
        "print(embedder.model_path, embedder.recipe.model.name, embedder.encode('a').shape)"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path), "ECHOVEC_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split("\n")[0] == "someone/tiny someone/tiny (32,)"
