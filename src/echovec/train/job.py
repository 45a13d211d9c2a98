"""Job: a run from its table to a folder that `Embedder.load` reads; kill it and start it again.

The folder: `run.toml` (what was asked), `checkpoints/` (what a resumed run goes on from),
`log.jsonl` (one line each logging step), and at the end `adapter/`, `recipe.json`, `README.md` (the
model card) and `index.html` (the run page).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from echovec.embedder import Embedder
from echovec.errors import DependencyError, InputError, TrainingError
from echovec.files.disk import append, storage_errors, write_file
from echovec.model.adapter import adapted_hash, adapter_hash, merge, stack
from echovec.model.families import why_not
from echovec.model.hashed import hash_of
from echovec.model.hub import commit_of
from echovec.model.load import read_model
from echovec.model.plain import PlainBackbone
from echovec.model.precision import pick_device, pick_dtype
from echovec.saved import ADAPTER_FOLDER, MODEL_FOLDER, RUN_FILE, library_versions
from echovec.train import lora
from echovec.train.data import TrainingSet, against_themselves, hold_out, read
from echovec.train.run import Run
from echovec.train.schedule import schedule

LOG_FILE = "log.jsonl"
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Trained:
    """What a run came to."""

    folder: Path
    steps: int
    resumed_at: int
    history: list[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Parts:
    """A run's live parts, as checks and benchmarks use them too."""

    run: Run
    embedder: Embedder
    peft_model: Any
    transformer: Any
    """The SentenceTransformer around both."""

    base_hash: str
    source: Path | str | None


def train(run: Run, out: str | Path, *, data: str | Path | None = None) -> Trained:
    """Train to the end; a folder with a run begun in it is gone on with.

    Args:
        run: what to do.
        out: the run's folder.
        data: what the sources' relative paths are relative to.

    Raises:
        InputError: the folder holds another run, or the data cannot be read.
        StorageError: the folder cannot be written to.
        TrainingError: the loss is no number, or two views that must differ are alike.
        DependencyError: the extra is not installed.
    """
    require()
    from echovec.train.trainer import fit, reporters

    reporters()  # told before anything is read
    out = Path(out)
    if is_first():
        _claim(out, run)
    sets = training_sets(run, data)
    if is_first() and not (out / LOG_FILE).exists():
        log_to(out, *({"skipped": line} for one in sets for line in one.skipped))
    plan = schedule(sets, batch_size=run.batch_size, steps=run.steps, seed=run.seed)
    parts = build(run)
    with _meeting():
        if run.objective == "mntp":
            from echovec.train.mntp import fit as fit_mntp

            steps, resumed_at, history = fit_mntp(parts, sets, plan, out)
        else:
            steps, resumed_at, history = fit(parts, sets, plan, out, data=data)
    if is_first():
        finish(parts, sets, out)
    return Trained(out, steps, resumed_at, history)


def require() -> None:
    """Refuse kindly where the extra is missing.

    Raises:
        DependencyError: with the command that installs it.
    """
    try:
        import datasets  # noqa: F401
        import peft  # noqa: F401
        import sentence_transformers  # noqa: F401
    except ImportError as error:
        raise DependencyError(
            f'training needs {error.name}; pip install "echovec[train]"'
        ) from error


def training_sets(run: Run, data: str | Path | None = None) -> list[TrainingSet]:
    """The run's sets, read; for "simcse" each text against itself."""
    if run.model == "tiny" and not run.sources:
        from echovec.train.tiny import tiny_sets

        sets = tiny_sets()
    elif run.sources:
        folder = Path(data) if data is not None else None
        sets = [read(source, folder) for source in run.sources]
    else:
        raise InputError(f"run {run.name!r} names no data; add a [[sources]] table with a path")
    if run.objective == "simcse":
        sets = [against_themselves(one) for one in sets]
    return [hold_out(one, run.held_out) for one in sets]


def build(run: Run) -> Parts:
    """The model with its adapter, the embedder around it, and sentence-transformers around both."""
    from sentence_transformers import SentenceTransformer

    from echovec.train.module import EchoModule

    torch.manual_seed(run.seed)
    device = _device()
    model, tokenizer, source = _base(run, device)
    base_hash = hash_of(model)
    if run.init is not None:
        merge(model, _adapter_in(Path(run.init)))
    eos = tokenizer.eos_token_id
    trained_ids = (int(eos),) if run.prompt == "instruct" and eos is not None else ()
    if run.input_dropout:
        lora.inject_dropout(model, run.input_dropout)
    wrapped = lora.adapted(
        model, rank=run.rank, alpha=run.alpha, dropout=run.lora_dropout, token_ids=trained_ids
    )
    inner = wrapped.base_model.model
    packs = run.arm != "bidirectional" and run.engine != "plain" and why_not(inner) is None
    if run.gradient_checkpointing:
        packs = False
        inner.gradient_checkpointing_enable({"use_reentrant": False})
        wrapped.enable_input_require_grads()
    embedder = Embedder.from_model(
        inner, tokenizer, run.recipe, engine="packed" if packs else "plain"
    )
    if max(run.matryoshka, default=0) > embedder.dimension:
        raise InputError(
            f"matryoshka={list(run.matryoshka)}; the vectors have {embedder.dimension} numbers"
        )
    if isinstance(embedder.backbone, PlainBackbone):
        embedder.backbone.evaluates = False
    module: nn.Module = EchoModule(embedder, wrapped)
    transformer = SentenceTransformer(modules=[module], device=device)
    return Parts(run, embedder, wrapped, transformer, base_hash, source)


def finish(parts: Parts, sets: list[TrainingSet], out: Path) -> None:
    """Write the adapter, the recipe, the card and the page."""
    from echovec.train.card import write_card
    from echovec.train.page import write_page

    run = parts.run
    folder = out / ADAPTER_FOLDER
    lora.save(parts.peft_model, folder, torch.float16)
    if run.model == "tiny":  # is nowhere else
        for part in _base(run, "cpu")[:2]:
            part.save_pretrained(out / MODEL_FOLDER)
    if run.init is not None:  # of the base model's, as the folder will be loaded
        stack(_adapter_in(Path(run.init)), folder)
    # Saved numbers are rounded once more; what is on disk is what the identity is of.
    identity = replace(
        parts.embedder.identity_without_weights,
        name=run.name,
        hash=adapted_hash(parts.base_hash, adapter_hash(folder)),
        path=None if parts.source is None else str(parts.source),
        revision=None if parts.source is None else commit_of(parts.source),
    )
    recipe = replace(
        run.recipe, model=identity, dtype=parts.embedder.backbone.dtype, versions=library_versions()
    )
    history = history_of(out)
    ends = {"alignment", "uniformity", "recall_at_1", "sts_dev"}
    last = {
        name: value
        for entry in history
        for name, value in entry.items()
        if any(name.endswith(end) for end in ends)
    }
    write_card(run, sets, out, last=last)
    write_page(run, history, out)
    recipe.save(out)


def history_of(out: Path) -> list[dict[str, Any]]:
    """The run's log, one entry a line; a line that a crash cut off is left out."""
    file = out / LOG_FILE
    entries: dict[int, dict[str, Any]] = {}
    for line in file.read_text("utf-8").splitlines() if file.is_file() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if "step" in entry:  # a resumed run writes some steps a second time
            entries.setdefault(entry["step"], {}).update(entry)
    return [entries[step] for step in sorted(entries)]


def last_checkpoint(out: Path) -> Path | None:
    """The newest whole checkpoint."""
    found = [path for path in (out / CHECKPOINTS).glob("checkpoint-*") if _is_whole(path)]
    return max(found, key=lambda path: int(path.name.rsplit("-", 1)[1]), default=None)


def _is_whole(checkpoint: Path) -> bool:
    """Whether nobody was killed while it was written: its state comes last."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return True


def log_to(out: Path, *entries: dict[str, Any]) -> None:
    """More lines of the run's log, one for each entry; a line that a crash cut off stays alone.

    Raises:
        StorageError: the disk does not take them.
    """
    file = out / LOG_FILE
    lines = "".join(json.dumps(entry) + "\n" for entry in entries)
    append(file, ("\n" if _is_torn(file) else "").encode() + lines.encode())


def _is_torn(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            opened.seek(-1, os.SEEK_END)
            return opened.read(1) != b"\n"
    except OSError:  # not there yet, or empty
        return False


@contextmanager
def _meeting() -> Iterator[None]:
    """Processes that the trainer brings together part at the end, unless they had met before."""
    able = torch.distributed.is_available()
    before = able and torch.distributed.is_initialized()
    try:
        yield
    finally:
        if able and not before and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def is_first() -> bool:
    """Whether this is the process that writes, of those that a launcher has started."""
    return os.environ.get("RANK", "0") == "0"


def _claim(out: Path, run: Run) -> None:
    file = out / RUN_FILE
    text = run.to_toml()
    if file.is_file() and file.read_text("utf-8") != text:
        raise InputError(
            f"{out} holds another run: its {RUN_FILE} differs from what is asked; choose another "
            "folder, or go on with `echovec train " + str(file) + "`"
        )
    if (out / "recipe.json").is_file():
        raise InputError(f"{out} holds a run that has ended; choose another folder")
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    write_file(file, text.encode())


def _device() -> str:
    """Where this process trains: of several that a launcher started, each on a card of its own."""
    device = pick_device(None)
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device


def _base(run: Run, device: str) -> tuple[Any, Any, Path | str | None]:
    dtype = getattr(torch, pick_dtype(None, run.precision, device))
    if run.model == "tiny":
        from echovec.train.tiny import tiny_model

        model, tokenizer = tiny_model()
        return model.to(dtype), tokenizer, None
    return read_model(run.model, device=device, dtype=dtype)


def _adapter_in(folder: Path) -> Path:
    inner = folder / ADAPTER_FOLDER
    found = inner if inner.is_dir() else folder
    if not found.is_dir():
        raise TrainingError(f"init={str(folder)!r}: no such folder")
    return found
