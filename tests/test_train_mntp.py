"""Masked next-token prediction: LLM2Vec's first stage, against the same done by hand."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch.nn import functional

from echovec.errors import TrainingError
from echovec.train.run import Run, read_run
from echovec.train.schedule import Step
from echovec.train.tiny import tiny_model

pytest.importorskip("peft")
pytest.importorskip("sentence_transformers")
pytestmark = [
    pytest.mark.usefixtures("alone"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]

TEXTS = [f"{a} {b} {a}" for a in ("red", "blue", "old", "cold") for b in ("cat", "dog", "ship")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """The tiny model with a head, as a folder."""
    from transformers import LlamaForCausalLM

    inner, tokenizer = tiny_model()
    torch.manual_seed(3)
    model = LlamaForCausalLM(inner.config)
    model.model.load_state_dict(inner.state_dict())
    made = tmp_path_factory.mktemp("model")
    model.save_pretrained(made)
    tokenizer.save_pretrained(made)
    return str(made)


@pytest.fixture
def run(folder, tmp_path) -> Run:
    """Masked prediction on a file of short texts."""
    from echovec.train.data import Source

    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return dataclasses.replace(
        read_run("tiny"),
        name="masked",
        model=folder,
        objective="mntp",
        arm="bidirectional",
        sources=(Source(path=str(file)),),
        steps=4,
        batch_size=4,
        save_every=2,
        learning_rate=5e-3,
    )


def losses(history) -> list[float]:
    """The loss of each step."""
    return [entry["loss"] for entry in history if "loss" in entry]


def by_hand(folder: str, sequences, hidden, blank: int, *, causal: bool = False) -> float:
    """The mean loss of hidden tokens, one text at a time, with transformers' own model and mask."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    found = []
    for ids, mask in zip(sequences, hidden, strict=True):
        shown = torch.where(mask, blank, ids)[None]
        n = shown.shape[1]
        sees = torch.tril(torch.ones(n, n)) if causal else torch.ones(n, n)
        added = torch.where(sees > 0, 0.0, torch.finfo(torch.float32).min)[None, None]
        with torch.no_grad():
            logits = model(input_ids=shown, attention_mask=added).logits[0]
        found += [
            float(functional.cross_entropy(logits[i - 1 : i], ids[i : i + 1]))
            for i in range(n)
            if mask[i]
        ]
    return float(np.mean(found))


@pytest.fixture
def masked(run):
    """The module whose loss is trained, some texts and what is hidden of them."""
    from echovec.train.job import build
    from echovec.train.mntp import Masked, hide

    parts = build(run)
    found = parts.embedder.tokenizer.tokenize(["_", *TEXTS[:3]])
    sequences = [torch.tensor(ids) for ids in found[1:]]
    drawn = np.random.default_rng(0)
    hidden = [hide(len(ids), 0.3, drawn) for ids in sequences]
    return Masked(parts), sequences, hidden, found[0][0]


def test_the_loss_is_that_of_the_hidden_tokens_seen_both_ways(masked, folder):
    """Each is foretold from the state before it, all of the text being seen; else it differs."""
    module, sequences, hidden, blank = masked
    loss = float(module(sequences, hidden)["loss"].detach())
    assert loss == pytest.approx(by_hand(folder, sequences, hidden, blank), rel=1e-4)
    causal = by_hand(folder, sequences, hidden, blank, causal=True)
    unhidden = by_hand(folder, sequences, hidden, 5)
    assert all(loss != pytest.approx(wrong, rel=1e-2) for wrong in (causal, unhidden))


def test_adapters_alone_are_trained(masked):
    """The head and the model's own weights stay as they are."""
    module, sequences, hidden, _ = masked
    module(sequences, hidden)["loss"].backward()
    moved = {name for name, p in module.named_parameters() if p.grad is not None}
    assert moved
    assert all("lora_" in name for name in moved)


def test_some_tokens_are_hidden_and_never_the_first():
    """About the share that is asked for; one at least; by the seed."""
    from echovec.train.mntp import hide

    drawn = np.random.default_rng(1)
    masks = [hide(50, 0.2, drawn) for _ in range(200)]
    assert not any(mask[0] for mask in masks)
    assert float(torch.stack(masks)[:, 1:].float().mean()) == pytest.approx(0.2, abs=0.02)
    assert all(hide(2, 1e-9, drawn).tolist() == [False, True] for _ in range(9))
    again = (hide(50, 0.2, np.random.default_rng(1)) for _ in range(2))
    assert torch.equal(*again)


@pytest.fixture
def collator(run):
    """Parts of steps to token ids and what is hidden of them, for a run changed so."""
    from echovec.train.job import build, training_sets
    from echovec.train.mntp import Hidden

    def made(**changes):
        changed = dataclasses.replace(run, **changes)
        return Hidden(build(changed), training_sets(changed))

    return made


def test_a_text_begins_as_prompts_do_and_is_cut(collator):
    """The token that opens a sequence comes first, and is in no budget."""
    batch = collator(max_tokens=6)([Step(0, (0, 1, 2))])
    assert {int(ids[0]) for ids in batch["sequences"]} == {0}
    assert {len(ids) for ids in batch["sequences"]} == {7}
    assert all(mask.any() for mask in batch["hidden"])


def test_more_processes_hide_the_same_tokens(collator):
    """It does not depend on who has which rows of a batch; the same rows in another hide others."""

    def hidden(*parts):
        return [mask.tolist() for part in parts for mask in collate([part])["hidden"]]

    collate = collator()
    whole = Step(0, (3, 1, 4, 5))
    assert hidden(whole) == hidden(whole.part(0, 2), whole.part(1, 2))
    assert hidden(whole.part(0, 2)) != hidden(Step(0, (3, 1)))


def test_texts_of_nothing_are_said(collator, monkeypatch):
    """A model without an opening token cannot foretell a text's only token."""
    from echovec.text.tokenizer import HFTokenizer

    monkeypatch.setattr(HFTokenizer, "bos_id", property(lambda self: None))
    with pytest.raises(TrainingError, match="no text of two tokens"):
        collator(max_tokens=1)([Step(0, (0, 1))])


def test_a_run_learns_and_is_what_the_next_begins_from(run, tmp_path):
    """The loss falls; a contrastive run from it is another than one without."""
    from echovec.train.job import build, train

    done = train(dataclasses.replace(run, steps=30, save_every=30), tmp_path / "m")
    assert np.mean(losses(done.history)[-5:]) < 0.8 * np.mean(losses(done.history)[:5])
    next_run = dataclasses.replace(read_run("tiny"), model=run.model, arm="bidirectional")
    fresh = build(next_run).embedder
    begun = build(dataclasses.replace(next_run, init=str(tmp_path / "m"))).embedder
    assert np.abs(fresh.encode(["red cat"]) - begun.encode(["red cat"])).max() > 1e-3


def test_a_killed_run_goes_on_as_if_unbroken(run, tmp_path, monkeypatch):
    """The same tokens hidden, the same losses, the same adapter."""
    from echovec.train import mntp
    from echovec.train.job import train

    unbroken = train(run, tmp_path / "a")
    real = mntp.MaskedTrainer.training_step

    def dies(self, *args, **options):
        if self.state.global_step == 3:
            raise KeyboardInterrupt
        return real(self, *args, **options)

    monkeypatch.setattr(mntp.MaskedTrainer, "training_step", dies)
    with pytest.raises(KeyboardInterrupt):
        train(run, tmp_path / "b")
    monkeypatch.setattr(mntp.MaskedTrainer, "training_step", real)
    resumed = train(run, tmp_path / "b")
    assert resumed.resumed_at == 2
    assert losses(resumed.history) == pytest.approx(losses(unbroken.history), abs=1e-6)
    a, b = ((tmp_path / n / "adapter/adapter_model.safetensors").read_bytes() for n in "ab")
    assert a == b
