"""Adapters that are trained: where they are, what moves, and what a run's settings become."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from echovec import Embedder
from echovec.train import check
from echovec.train.run import Run, read_run
from echovec.train.tiny import tiny_model

pytest.importorskip("peft")
pytest.importorskip("sentence_transformers")
pytestmark = [
    pytest.mark.usefixtures("alone", "undrawn"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]

TINY = read_run("tiny")


def trained(model) -> dict[str, torch.Tensor]:
    """What an optimizer would move."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def test_every_linear_module_has_an_adapter_and_nothing_else_is_trained():
    """Of the asked rank, in float32 whatever the model is in; the paper's sizes by default."""
    from echovec.train.lora import adapted

    model, _ = tiny_model()
    linear = {name for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    wrapped = adapted(model.bfloat16(), rank=4, alpha=8, dropout=0.0)
    found = trained(wrapped)
    places = {name.split(".lora_")[0].removeprefix("base_model.model.") for name in found}
    assert places == linear
    assert len(found) == 2 * len(linear)
    assert all(p.dtype == torch.float32 for p in found.values())
    assert {p.shape[0] for name, p in found.items() if "lora_A" in name} == {4}
    assert (Run().rank, Run().alpha, Run().temperature) == (16, 16, 0.02)


def test_alpha_scales_what_is_added():
    """By alpha / rank: twice the alpha, twice the change of a layer's output."""
    from echovec.train.lora import adapted

    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    added = []
    for alpha in (4, 8):
        model, _ = tiny_model()
        before = model.layers[0].self_attn.q_proj(x).detach()
        wrapped = adapted(model, rank=4, alpha=alpha, dropout=0.0)
        with torch.no_grad():
            for name, p in trained(wrapped).items():
                p.fill_(0.1 if "lora_B" in name else 0.01)
        added.append(model.layers[0].self_attn.q_proj(x).detach() - before)
    assert float(added[0].abs().max()) > 1e-3
    torch.testing.assert_close(added[1], 2 * added[0])


def test_the_end_token_s_embedding_is_trained_and_no_other(tmp_path):
    """With prompt="instruct", as in the paper: that row moves, and the folder that loads has it."""
    from echovec.train.job import train

    run = TINY.changed(["prompt=instruct", "steps=3", "learning_rate=1e-2", "eval_every=9"])
    train(run, tmp_path / "r")
    base, tokenizer = tiny_model()
    loaded = Embedder.load(tmp_path / "r", engine="plain")
    model, _ = loaded.hugging_face
    moved = (model.embed_tokens.weight - base.embed_tokens.weight).abs().amax(1)
    assert [i for i, by in enumerate(moved) if by > 1e-4] == [tokenizer.eos_token_id]


def test_the_tiny_run_s_folder_loads(tmp_path, monkeypatch):
    """As the command says at its end; it gives the vectors that were trained."""
    from echovec.train import job

    live = []
    real = job.build
    monkeypatch.setattr(job, "build", lambda run: live.append(real(run)) or live[-1])
    job.train(TINY.changed(["steps=2", "eval_every=9"]), tmp_path / "r")
    loaded = Embedder.load(tmp_path / "r")
    trained = live[0].embedder.encode(["a cat sees a dog"])
    assert loaded.encode(["a cat sees a dog"]) == pytest.approx(trained, abs=1e-3)


def test_dropout_of_inputs_is_for_training_alone():
    """Without it SimCSE's two views are one; in evaluation nothing is dropped."""
    from echovec.train.lora import inject_dropout

    model, _ = tiny_model()
    ids = torch.arange(5)[None]
    with torch.no_grad():
        before = model(ids).last_hidden_state
        inject_dropout(model, 0.5)
        assert torch.equal(model.eval()(ids).last_hidden_state, before)
        one, two = (model.train()(ids).last_hidden_state for _ in range(2))
    assert not torch.equal(one, two)


def test_a_run_s_settings_reach_the_trainer(tmp_path):
    """What sentence-transformers is asked for is what the table says."""
    from echovec.train.trainer import arguments

    run = dataclasses.replace(
        TINY,
        learning_rate=3e-4,
        warmup_steps=7,
        scheduler="cosine",
        weight_decay=0.2,
        max_grad_norm=0.5,
        save_every=11,
        seed=9,
    )
    asked = arguments(run, tmp_path, 13)
    assert (asked.learning_rate, asked.warmup_steps, asked.max_steps) == (3e-4, 7, 13)
    assert asked.lr_scheduler_type == "cosine"
    assert (asked.weight_decay, asked.max_grad_norm) == (0.2, 0.5)
    assert (asked.save_steps, asked.seed, asked.data_seed) == (11, 9, 9)
    assert asked.report_to == []


def test_one_process_trains_on_one_of_several_gpus(tmp_path, monkeypatch, caplog):
    """The trainer would copy the model to all at every mini-batch; it is said how to use them."""
    from echovec.train import trainer

    class Cards(trainer.SentenceTransformerTrainingArguments):
        """What is found on a machine with four."""

        def __post_init__(self):
            super().__post_init__()
            self._n_gpu = 4

    monkeypatch.setattr(trainer, "SentenceTransformerTrainingArguments", Cards)
    asked = trainer.arguments(TINY, tmp_path, 1)
    assert asked.n_gpu == 1
    assert "one of 4 GPUs; on all: torchrun --nproc-per-node 4" in caplog.text


def test_text_share_halves_what_is_read():
    """The compute-matched arm: half of each text, in both copies."""
    from echovec.train.job import build, training_sets
    from echovec.train.schedule import schedule

    sets = training_sets(TINY)
    plan = schedule(sets, batch_size=8, steps=1, seed=0)
    tokens = {}
    for share in (1.0, 0.5):
        run = dataclasses.replace(TINY, text_share=share, max_tokens=64)
        columns = check._features(build(run), sets, plan[0], run)
        tokens[share] = [int(c["spans"].reshape(-1, 2).diff().sum()) for c in columns]
    for whole, half in zip(tokens[1.0], tokens[0.5], strict=True):
        assert half == pytest.approx(whole / 2, abs=8)
