"""Runs from their table to a folder that loads; killed, resumed, and stopped by a bad loss."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from echovec import Embedder, Template
from echovec.cli import app
from echovec.errors import InputError, ModelError, RecipeError, StorageError, TrainingError
from echovec.presets import recipe_of
from echovec.train import check as check_module
from echovec.train.run import Run, read_run
from echovec.train.tiny import tiny_model
from echovec.vector.view import View

pytest.importorskip("peft")
pytest.importorskip("sentence_transformers")
pytestmark = [
    pytest.mark.usefixtures("alone"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]

TINY = read_run("tiny")


@pytest.fixture(scope="module")
def local_model(tmp_path_factory) -> str:
    """The tiny model as a folder."""
    folder = tmp_path_factory.mktemp("model")
    model, tokenizer = tiny_model()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def a_data_file(folder: Path) -> Path:
    """Pairs of words."""
    file = folder / "pairs.jsonl"
    words = ["red", "blue", "green", "old", "new", "cold", "warm", "wide"]
    rows = [
        {"anchor": f"{a} {b}", "positive": f"{b} and {a}"} for a in words for b in words if a < b
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def local_run(local_model: str, folder: Path, *settings: str) -> Run:
    """A run on the folder's model and data."""
    run = dataclasses.replace(TINY, name="local", model=local_model)
    text = run.to_toml() + f'[[sources]]\npath = "{a_data_file(folder)}"\nsymmetric = true\n'
    from echovec.train.run import run_of

    return run_of(text, name="local").changed(settings)


def losses(history: list[dict]) -> list[float]:
    """The loss of each step."""
    return [entry["loss"] for entry in history if "loss" in entry]


def train(run: Run, out: Path):
    """Imported late: it loads the trainer."""
    from echovec.train.job import train

    return train(run, out)


def test_a_run_learns_and_its_folder_loads(local_model, tmp_path):
    """The loss falls, and the loaded embedder is the trained one, not the base."""
    settings = ["steps=12", "learning_rate=5e-3", "mini_batch_tokens=512"]
    done = train(local_run(local_model, tmp_path, *settings), tmp_path / "r")
    assert np.mean(losses(done.history)[-3:]) < np.mean(losses(done.history)[:3])
    embedder = Embedder.load(tmp_path / "r")
    base = Embedder.load(
        local_model, recipe=dataclasses.replace(embedder.recipe, model=None, dtype=None)
    )
    a, b = embedder.encode(["old and warm"]), base.encode(["old and warm"])
    assert float((a * b).sum()) < 0.999
    assert embedder.recipe.fingerprint != base.recipe.fingerprint
    assert "local" in repr(embedder)
    card = (tmp_path / "r" / "README.md").read_text()
    assert "pairs" in card
    assert "<svg" in (tmp_path / "r" / "index.html").read_text()
    with pytest.raises(InputError, match="has ended"):
        train(local_run(local_model, tmp_path, *settings), tmp_path / "r")


def test_the_saved_vectors_are_the_trained_ones(local_model, tmp_path):
    """To the rounding of the saved adapter, in both engines."""
    from echovec.train.job import build, finish, training_sets

    run = local_run(local_model, tmp_path)
    parts = build(run)
    check_module.wake(parts)
    texts = ["old and warm", "new and cold"]
    trained = parts.embedder.encode(texts)
    finish(parts, training_sets(run), tmp_path)
    for engine in ("packed", "plain"):
        loaded = Embedder.load(tmp_path, engine=engine)
        assert np.abs(loaded.encode(texts) - trained).max() < 1e-3
    assert loaded.recipe.fingerprint == Embedder.load(tmp_path).recipe.fingerprint


def test_a_run_that_begins_from_an_adapter_holds_both(local_model, tmp_path, undrawn):
    """The folder alone gives the trained vectors, in the dtype it was trained in and any other."""
    from echovec.train.job import build, finish, training_sets

    train(local_run(local_model, tmp_path, "steps=2"), tmp_path / "first")
    run = local_run(local_model, tmp_path, f"init={tmp_path / 'first'}", "rank=4")
    parts = build(run)
    check_module.wake(parts)
    texts = ["old and warm", "new and cold"]
    trained = parts.embedder.encode(texts)
    finish(parts, training_sets(run), tmp_path / "both")
    loaded = Embedder.load(tmp_path / "both")
    assert np.abs(loaded.encode(texts) - trained).max() < 2e-3
    first = Embedder.load(tmp_path / "first")
    assert np.abs(first.encode(texts) - trained).max() > 0.01
    assert loaded.recipe.fingerprint != first.recipe.fingerprint


def test_an_adapter_is_saved_alone_or_merged(local_model, tmp_path, undrawn):
    """Both copies of a trained embedder load and give its vectors; the first holds no weights."""
    train(local_run(local_model, tmp_path, "steps=2"), tmp_path / "r")
    trained = Embedder.load(tmp_path / "r")
    expected = trained.encode(["old and warm"])
    alone = trained.with_recipe(trained.definition).save(tmp_path / "alone")
    merged = trained.save(tmp_path / "merged", include_model=True)
    assert (alone / "adapter").is_dir()
    assert not (alone / "model").exists()
    assert not (merged / "adapter").exists()
    for folder in (alone, merged):
        loaded = Embedder.load(folder)
        assert np.abs(loaded.encode(["old and warm"]) - expected).max() < 1e-5
        # Merged weights are weights of their own.
        same = loaded.recipe.fingerprint == trained.recipe.fingerprint
        assert same == (folder == alone)


def test_a_killed_run_goes_on_as_if_unbroken(tmp_path, monkeypatch, undrawn):
    """The same losses, step by step, and the same adapter."""
    from echovec.train import trainer

    run = TINY.changed(["mini_batch_tokens=512"])  # half as many parts of a step as TINY has
    unbroken = train(run, tmp_path / "a")
    real = trainer.EchoTrainer.training_step

    def dies(self, *args, **options):
        if self.state.global_step == 6:
            raise KeyboardInterrupt
        return real(self, *args, **options)

    with monkeypatch.context() as killed:
        killed.setattr(trainer.EchoTrainer, "training_step", dies)
        with pytest.raises(KeyboardInterrupt):
            train(run, tmp_path / "b")
    resumed = train(run, tmp_path / "b")
    assert resumed.resumed_at == 4
    assert losses(resumed.history) == pytest.approx(losses(unbroken.history), abs=1e-6)
    ours, theirs = (
        (tmp_path / n / "adapter" / "adapter_model.safetensors").read_bytes() for n in "ab"
    )
    assert ours == theirs


def test_a_checkpoint_that_was_being_written_is_passed_over(tmp_path):
    """Whoever is killed at any moment goes on from the one before."""
    from echovec.train.job import last_checkpoint

    for step, state in ((4, "{}"), (8, '{"global_st'), (12, None)):
        folder = tmp_path / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoints" / "checkpoint-4"
    assert last_checkpoint(tmp_path / "none") is None


def test_a_torn_line_of_the_log_takes_no_other_with_it(tmp_path):
    """What is logged after a crash begins a line of its own."""
    from echovec.train.job import history_of, log_to

    log_to(tmp_path, {"step": 1, "loss": 3.0})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    log_to(tmp_path, {"step": 2, "loss": 2.0}, {"step": 3, "loss": 1.0})
    assert losses(history_of(tmp_path)) == [3.0, 2.0, 1.0]


def test_of_several_processes_one_writes(tmp_path, monkeypatch):
    """Two that wrote the same files at once would read each other's halves."""
    from echovec.train import job, trainer

    monkeypatch.setattr(trainer, "fit", lambda *_, **__: (0, 0, []))
    monkeypatch.setenv("RANK", "1")
    job.train(TINY, tmp_path / "r")
    assert not (tmp_path / "r").exists()
    monkeypatch.setenv("RANK", "0")
    job.train(TINY, tmp_path / "r")
    assert {"run.toml", "recipe.json", "adapter"} <= {p.name for p in (tmp_path / "r").iterdir()}


def test_a_folder_that_cannot_be_is_named(tmp_path):
    """A file in its place; the exit code is that of disks."""
    (tmp_path / "r").write_text("x")
    with pytest.raises(StorageError, match=f"{tmp_path}/r"):
        train(TINY, tmp_path / "r")


def test_another_run_in_the_folder_is_refused(tmp_path):
    """Nobody's run is continued with other settings."""
    (tmp_path / "run.toml").write_text(TINY.to_toml())
    with pytest.raises(InputError, match="another run"):
        train(TINY.changed(["steps=9"]), tmp_path)


def test_a_run_that_has_not_ended_does_not_load(tmp_path):
    """The message says that it is a run, and how it goes on."""
    (tmp_path / "run.toml").write_text(TINY.to_toml())
    with pytest.raises(ModelError, match="has not ended; go on with"):
        Embedder.load(tmp_path)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path, monkeypatch):
    """Before the optimizer sees it; the adapter as it was is kept, and is finite."""
    from safetensors.torch import load_file

    from echovec.train import module

    real = module.EchoModule.forward
    calls = []

    def breaks(self, features, **options):
        calls.append(1)
        found = real(self, features, **options)
        if len(calls) > 12:
            found["sentence_embedding"] = found["sentence_embedding"] * float("nan")
        return found

    monkeypatch.setattr(module.EchoModule, "forward", breaks)
    with pytest.raises(TrainingError, match="last-good"):
        train(TINY, tmp_path / "r")
    kept = load_file(tmp_path / "r" / "last-good" / "adapter_model.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in kept.values())


def test_simcse_refuses_identical_views(tmp_path, monkeypatch, undrawn):
    """A run whose dropout does nothing learns nothing."""
    from echovec.train import lora

    run = TINY.changed(["objective=simcse", "input_dropout=0.2", "steps=1"])
    assert train(run, tmp_path / "works").steps == 1
    monkeypatch.setattr(lora, "inject_dropout", lambda *_: None)
    with pytest.raises(TrainingError, match="same vector"):
        train(run, tmp_path / "r")


def test_processes_have_the_same_columns_and_instruction():
    """What they gather from each other has to fit: the whole batch decides, not a part of it."""
    from echovec.train.data import Example, Source, TrainingSet
    from echovec.train.job import build
    from echovec.train.schedule import Step
    from echovec.train.trainer import Collator

    examples = (Example("a", "p", ("n", "m")), Example("b", "q"), *[Example("c", "r", ("s",))] * 2)
    source = Source(path="", instructions=("first", "second"))
    sets = [TrainingSet(source, "x", examples)]
    parts = build(TINY.changed(["prompt=instruct"]))
    collator = Collator(parts.transformer[0], sets, with_instructions=True)
    whole = Step(0, (3, 0, 2, 1))
    batches = [collator([whole.part(rank, 2)]) for rank in range(2)]
    assert {key.split("_input_ids")[0] for key in batches[0] if key.endswith("_input_ids")} == {
        "anchor",
        "positive",
    }
    assert batches[0].keys() == batches[1].keys() == collator([whole]).keys()
    told = [
        parts.embedder.tokenizer.inner.decode(batch["anchor_input_ids"][0]) for batch in batches
    ]
    assert all("second" in text and "first" not in text for text in told)


@pytest.mark.parametrize(
    ("family", "prompt", "said"),
    [("gpt2", "plain", "keeps its weights transposed"), ("gpt_neox", "instruct", "embed_in")],
)
def test_what_could_not_be_read_again_is_not_trained(family, prompt, said, tmp_path):
    """Refused before the first step, not after the last."""
    from echovec.train.job import build
    from families import causal_model, family_tokenizer

    causal_model(family).save_pretrained(tmp_path)
    family_tokenizer(family).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=said):
        build(TINY.changed([f'model="{tmp_path}"', f"prompt={prompt}"]))


def test_simcse_sets_each_text_against_itself(tmp_path):
    """Also where the file has pairs: what people say belongs together is not looked at."""
    from echovec.train.job import training_sets

    run = TINY.changed(["objective=simcse", "input_dropout=0.2"])
    for one, paired in zip(training_sets(run), training_sets(TINY), strict=True):
        assert one.source.symmetric
        for example in (*one.examples, *one.held):
            assert example.anchor == example.positive
            assert not example.negatives
        assert any(example.anchor != example.positive for example in paired.examples)


def test_widths_above_the_vectors_are_refused(tmp_path):
    """Before a step, with the number there is."""
    with pytest.raises(InputError, match="the vectors have 32"):
        train(TINY.changed(["matryoshka=[8, 64]"]), tmp_path / "r")


@pytest.mark.parametrize(
    "settings",
    [
        ["arm=bidirectional"],
        ["prompt=instruct", "symmetric_loss=true"],
        ["matryoshka=[8,32]"],
        ["mini_batch_tokens=0", "text_share=0.5"],
    ],
    ids=" ".join,
)
def test_every_kind_of_run_ends(tmp_path, settings, undrawn):
    """Two steps, finite losses."""
    done = train(TINY.changed([*settings, "steps=2"]), tmp_path / "r")
    assert np.isfinite(losses(done.history)).all()


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["lora_dropout=0.2"],
        ["objective=simcse", "input_dropout=0.2"],
        ["matryoshka=[8, 32]", "symmetric_loss=true"],
    ],
    ids=" ".join,
)
def test_the_checks_hold_on_a_run(settings):
    """Cached, dropout, temperature, adapters, packed, checkpointing; of every kind of run."""
    for finding in check_module.check_run(TINY.changed([*settings, "batch_size=4"])):
        assert finding.holds, finding


def test_the_checks_can_fail(monkeypatch):
    """Negative control: a wrong backward pass of the packed engine, and a temperature ignored."""
    from echovec.model import gradients
    from echovec.train import loss

    monkeypatch.setattr(gradients._Gate, "backward", lambda ctx, dy: (dy.repeat(1, 2),))
    real = loss.make_loss

    def deaf(run, transformer):
        return real(dataclasses.replace(run, temperature=0.02), transformer)

    monkeypatch.setattr(loss, "make_loss", deaf)
    run = TINY.changed(["batch_size=4"])
    failed = {f.what for f in check_module.check_run(run) if not f.holds}
    assert {"packed equals padded", "temperature is applied"} <= failed


def same_step(one: Path, two: Path) -> None:
    """Both folders hold the same step, one trained by a process alone, one by two ranks."""
    from safetensors.torch import load_file

    from echovec.train.job import history_of

    first, second = (
        {key: value for entry in history_of(folder) for key, value in entry.items()}
        for folder in (one, two)
    )
    # Each rank has the loss of its own anchors against all texts; what is logged is their mean.
    assert second["loss"] == pytest.approx(first["loss"], rel=1e-4)
    assert second["grad_norm"] == pytest.approx(first["grad_norm"], rel=1e-4)
    a, b = (load_file(folder / "adapter/adapter_model.safetensors") for folder in (one, two))
    apart = torch.cat([(a[name].float() - b[name].float()).abs().flatten() for name in a])
    # Adam's first step is the gradient's sign, so gradients near zero may step the other way.
    assert float((apart > 1e-5).float().mean()) < 0.02


def test_two_processes_agree_with_one(tmp_path):
    """The same batch on two ranks over gloo: the same loss, gradient and adapter after a step.

    With all mini-batches kept that can be: the last one is where the ranks add up, and runs twice.
    """
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "tests.ranks",
        str(tmp_path),
        "kept_tokens=9999",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    ran = subprocess.Popen(
        command,
        cwd=Path(__file__).parents[1],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, told = ran.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        os.killpg(ran.pid, signal.SIGKILL)  # ranks that wait for each other do not end
        raise
    assert ran.returncode == 0, told[-2000:]
    same_step(tmp_path / "1", tmp_path / "2")


@pytest.mark.slow
def test_torchrun_starts_ranks_that_meet(tmp_path):
    """The command under a launcher, against the command alone."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    launched = [sys.executable, "-W", "ignore", "-m"]
    port = str(29500 + os.getpid() % 400)
    two_ranks = ["torch.distributed.run", "--nproc-per-node=2", "--master-port", port, "-m"]
    for before, out in ((two_ranks, "two"), ([], "one")):
        command = [*launched, *before, "echovec", "train", "tiny", "-o", str(tmp_path / out)]
        command += ["--set", "steps=1", "--set", "warmup_steps=0"]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr[-2000:]
    same_step(tmp_path / "one", tmp_path / "two")


def test_processes_that_do_not_find_each_other_are_refused(tmp_path, monkeypatch):
    """Each would train on all rows alone, and the last to write would win."""
    from echovec.train import trainer

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(trainer, "pick_device", lambda device: "cuda")
    with pytest.raises(TrainingError, match="2 processes were launched and this one sees 1"):
        trainer.arguments(TINY, tmp_path, 1)


@pytest.mark.parametrize("verb", ["train", "mine", "pairs"])
def test_out_is_spelled_as_with_the_other_verbs(verb):
    """`--out`, `--output` and `-o` are one option, and the help names all three."""
    command = typer.main.get_command(app).get_command(None, verb)
    (output,) = [option for option in command.params if option.name == "output"]
    assert output.opts == ["--out", "--output", "-o"]
    said = CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "120", "NO_COLOR": "1"}).stdout
    assert re.search(r"--out\b.*--output\b.*-o\b", said)


@pytest.mark.parametrize("spelling", ["--out", "--output", "-o"])
def test_each_spelling_of_out_is_taken(spelling, tmp_path):
    """What it is given is the file that is spoken of."""
    told = CliRunner().invoke(app, ["pairs", spelling, str(tmp_path / f"{spelling}.csv")])
    assert f"{spelling}.csv: pairs are written as .jsonl" in str(told.exception)


def test_a_recipe_of_several_prompts_is_refused_before_anything_runs():
    """A row of training is one run of the model."""
    from echovec.train.module import EchoModule

    model, tokenizer = tiny_model()
    two = recipe_of("two", View(Template("a {text}")), View(Template("b {text}")))
    with pytest.raises(RecipeError, match=r"two: .* several prompts .* such as one-pass"):
        EchoModule(Embedder.from_model(model, tokenizer, two), model)


def test_the_command_line_trains_checks_and_shows(tmp_path):
    """`echovec train tiny`, `--check` and `--show`."""
    runner = CliRunner()
    shown = runner.invoke(app, ["train", "smollm2-echo", "--show", "--set", "steps=3"])
    assert shown.exit_code == 0
    assert "steps = 3" in shown.stdout
    ran = runner.invoke(app, ["train", "tiny", "-o", str(tmp_path / "t"), "--set", "steps=2"])
    assert ran.exit_code == 0, ran.output
    assert "2 steps" in ran.stdout
