"""The paper's claim on real data: echo against a single copy on STSBenchmark, default model."""

from __future__ import annotations

import gzip
import json
import os

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from echovec import Embedder


def spearman(embedder, rows):
    """Spearman x 100 of cosine against the gold score."""
    first = embedder.encode([row["sentence1"] for row in rows])
    second = embedder.encode([row["sentence2"] for row in rows])
    cosine = embedder.similarity_pairwise(first, second)
    return 100 * spearmanr(cosine, [row["score"] for row in rows]).statistic


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_echo_beats_one_copy_by_fifteen_points(data, default_model):
    """STSBenchmark test, last layer, mean, float32: echo-sentence >= classical + 15."""
    file = data / "STSBenchmark" / "test.jsonl.gz"
    if not file.exists():
        pytest.skip(f"no {file}")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    try:
        embedder = Embedder.load(precision="exact")
        scores = {
            name: spearman(embedder.with_recipe(name), rows)
            for name in ("classical", "classical-sentence", "echo", "echo-sentence", "prompt-eol")
        }
    finally:
        torch.set_num_threads(threads)
    for name, score in scores.items():
        print(f"STSBenchmark test, {len(rows)} pairs, {name}: {score:.2f}")
    assert np.isfinite(list(scores.values())).all()
    assert scores["echo-sentence"] >= scores["classical"] + 15
