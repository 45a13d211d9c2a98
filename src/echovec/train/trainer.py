"""Trainer: sentence-transformers' own, fed our batches, watched, and saved as adapters."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset as Table
from sentence_transformers import (
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import TrainerCallback
from transformers.integrations import get_reporting_integration_callbacks

from echovec.errors import DependencyError, InputError, TrainingError
from echovec.model.precision import pick_device
from echovec.train import lora
from echovec.train.data import Source, TrainingSet
from echovec.train.job import CHECKPOINTS, Parts, last_checkpoint, log_to
from echovec.train.loss import make_loss
from echovec.train.run import Run
from echovec.train.schedule import Step
from echovec.train.watch import EVAL, Watch

_log = logging.getLogger("echovec")

REPORT_TO = "ECHOVEC_REPORT_TO"
_LAST_GOOD = "last-good"


class Batches(Dataset[Step]):
    """The planned steps, each cut into one part for each process."""

    def __init__(self, plan: Sequence[Step], world: int) -> None:
        self._parts = [step.part(rank, world) for step in plan for rank in range(world)]

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, index: int) -> Step:
        return self._parts[index]


class Collator:
    """One part of a step to the trainer's flat features: `anchor_input_ids` and so on."""

    def __init__(
        self, module: Any, sets: Sequence[TrainingSet], *, with_instructions: bool
    ) -> None:
        self._module, self._sets = module, sets
        self._with_instructions = with_instructions

    def __call__(self, parts: Sequence[Step]) -> dict[str, Any]:
        """`parts` is one part: a batch is never mixed of several."""
        (part,) = parts
        one = self._sets[part.of]
        examples = [one.examples[row] for row in part.rows]
        columns = {
            "anchor": [example.anchor for example in examples],
            "positive": [example.positive for example in examples],
        }
        # As many negatives as every row of the batch has: a column is whole or it is not there, and
        # processes that gather each other's have the same ones.
        for place in range(min(len(one.examples[row].negatives) for row in part.all_rows)):
            columns[f"negative_{place}"] = [example.negatives[place] for example in examples]
        batch: dict[str, Any] = {}
        for name, texts in columns.items():
            task, prompt = self._side(one.source, name, part)
            for key, value in self._module.preprocess(texts, prompt=prompt, task=task).items():
                batch[f"{name}_{key}"] = value
        return batch

    def _side(self, source: Source, column: str, part: Step) -> tuple[str | None, str | None]:
        """The role of a column, and its instruction where the prompt takes one."""
        role = None if source.symmetric else "query" if column == "anchor" else "document"
        if not self._with_instructions or role == "document" or not source.instructions:
            return role, None
        return role, source.instructions[part.all_rows[0] % len(source.instructions)]


class AdapterSaves:
    """What our trainers share: a guard on every step, and checkpoints of the adapter only."""

    _parts: Parts
    args: Any
    state: Any

    def training_step(self, model: nn.Module, inputs: Any, *args: Any, **options: Any) -> Tensor:
        """One step; a loss or gradient that is no number stops it before the optimizer sees it."""
        loss: Tensor = super().training_step(  # type: ignore[misc]
            model, inputs, *args, **options
        )
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        if not (math.isfinite(float(loss)) and all(bool(g.isfinite().all()) for g in gradients)):
            folder = Path(self.args.output_dir).parent / _LAST_GOOD
            if self.state.is_world_process_zero:
                lora.save(self._parts.peft_model, folder)
            raise TrainingError(
                f"step {self.state.global_step + 1}: the loss is {float(loss)}, or a gradient is "
                f"not finite; the adapter as it was before is in {folder}. "
                "Lower learning_rate, or use precision='exact'"
            )
        return loss

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        lora.save(self._parts.peft_model, Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, checkpoint_path: str) -> None:
        lora.restore(self._parts.peft_model, Path(checkpoint_path))


class EchoTrainer(AdapterSaves, SentenceTransformerTrainer):  # type: ignore[misc]
    """sentence-transformers' trainer on planned batches; checkpoints hold the adapter only."""

    def __init__(
        self, *, parts: Parts, batches: Batches, collator: Collator, **options: Any
    ) -> None:
        self._parts = parts
        self._batches = batches
        super().__init__(data_collator=collator, train_dataset=_placeholder(), **options)

    def get_train_dataloader(self) -> Any:
        """The planned batches in order; the accelerator deals one part to each process."""
        loader = DataLoader(
            self._batches, batch_size=1, shuffle=False, collate_fn=self.data_collator
        )
        return self.accelerator.prepare(loader)

    def create_model_card(self, *args: Any, **options: Any) -> None:
        """Ours is written at the end of the run."""

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """None: it reads the training data, which is planned here."""


def fit(
    parts: Parts,
    sets: Sequence[TrainingSet],
    plan: Sequence[Step],
    out: Path,
    *,
    data: str | Path | None = None,
) -> tuple[int, int, list[dict[str, Any]]]:
    """Run the plan, from the newest checkpoint where there is one."""
    from echovec.train.job import history_of

    run = parts.run
    asked = arguments(run, out, len(plan))
    world = max(1, asked.world_size)
    collator = Collator(parts.transformer[0], sets, with_instructions=run.prompt == "instruct")
    loss = make_loss(run, parts.transformer)
    checkpoint = last_checkpoint(out)
    with warnings.catch_warnings():
        # pin_memory without an accelerator, and such, are none of the user's doing
        warnings.filterwarnings("ignore", category=UserWarning, module="torch")
        trainer = EchoTrainer(
            parts=parts,
            batches=Batches(plan, world),
            collator=collator,
            model=parts.transformer,
            args=asked,
            loss=loss,
            callbacks=[RunLog(out)],
        )
        trainer.add_callback(Watch(parts, sets, trainer.log, data=data))
        if run.objective == "simcse":
            _refuse_identical_views(parts, collator, plan[0])
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    resumed_at = int(checkpoint.name.rsplit("-", 1)[1]) if checkpoint else 0
    return trainer.state.global_step, resumed_at, history_of(out)


class RunLog(TrainerCallback):  # type: ignore[misc]
    """What the trainer logs, one line a step, in the run's folder."""

    def __init__(self, out: Path) -> None:
        self._out = out

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """One line."""
        if state.is_world_process_zero and logs:
            named = {name.removeprefix(EVAL): value for name, value in logs.items()}
            log_to(self._out, {"step": state.global_step, **named})


def arguments(run: Run, out: Path, steps: int) -> Any:
    """The run as the trainer's own arguments.

    Raises:
        TrainingError: processes were launched that do not find each other.
        InputError, DependencyError: of `reporters`.
    """
    asked = SentenceTransformerTrainingArguments(
        output_dir=str(out / CHECKPOINTS),
        max_steps=steps,
        per_device_train_batch_size=1,  # one planned part; run.batch_size rows
        learning_rate=run.learning_rate,
        warmup_steps=run.warmup_steps,
        lr_scheduler_type=run.scheduler,
        weight_decay=run.weight_decay,
        max_grad_norm=run.max_grad_norm,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_steps=run.save_every,
        save_total_limit=2,
        seed=run.seed,
        data_seed=run.seed,
        report_to=reporters(),
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        dataloader_drop_last=True,  # nothing is left over; without it several processes are warned
        ddp_find_unused_parameters=False,
        disable_tqdm=None,
        use_cpu=pick_device(None) == "cpu",  # else launched processes would each train alone there
    )
    if asked.world_size != (launched := int(os.environ.get("WORLD_SIZE", "1"))):
        raise TrainingError(
            f"{launched} processes were launched and this one sees {asked.world_size}, so each "
            "would train on all rows alone; launch them with torchrun or accelerate, as many as "
            "there are devices"
        )
    if (cards := asked.n_gpu) > 1:
        asked._n_gpu = 1  # else the trainer deals each mini-batch out to copies of the model
        _log.warning(
            "training on one of %d GPUs; on all: torchrun --nproc-per-node %d -m echovec train ...",
            cards,
            cards,
        )
    return asked


def reporters() -> list[str]:
    """Trackers that ECHOVEC_REPORT_TO names, e.g. "tensorboard,wandb".

    Raises:
        InputError: transformers knows no tracker of that name.
        DependencyError: it is not installed.
    """
    named = [name.strip() for name in os.environ.get(REPORT_TO, "").split(",") if name.strip()]
    try:
        for tracker in get_reporting_integration_callbacks(named):
            tracker()
    except ValueError as error:
        raise InputError(f"{REPORT_TO}={','.join(named)}: {error}") from None
    except RuntimeError as error:
        raise DependencyError(f"{REPORT_TO}={','.join(named)}: {error}") from None
    return named


def _placeholder() -> Table:
    """The trainer wants a data set to be named; the loader above is what it reads."""
    return Table.from_dict({"anchor": [""], "positive": [""]})


def _refuse_identical_views(parts: Parts, collator: Collator, step: Step) -> None:
    transformer = parts.transformer
    batch = collator([Step(step.of, step.rows[:2])])
    features = {
        key.removeprefix("anchor_"): v for key, v in batch.items() if key.startswith("anchor_")
    }
    transformer.train()
    with torch.no_grad():
        first, second = (transformer(dict(features))["sentence_embedding"] for _ in range(2))
    if torch.equal(first, second):
        raise TrainingError(
            "both views of a text are the same vector, so SimCSE has nothing to learn from; set "
            "input_dropout=0.1"
        )
