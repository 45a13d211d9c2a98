"""MNTP: masked next-token prediction with every token seeing all (LLM2Vec, arXiv 2404.05961).

A causal model whose mask is switched off has never looked ahead. This first stage teaches it:
some tokens are hidden, and each is predicted from the state of the token before it, as the model
was trained to. Its adapter is what a contrastive run with `init` starts from. Hidden tokens become
the blank token "_", LLM2Vec's choice for models without a mask token. A text begins as prompts do,
with the token that opens a sequence where there is one.

Shapes: S sequences, N tokens of them all, M masked ones, D width, V vocabulary.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import Trainer

from echovec.errors import TrainingError
from echovec.model.head import unembedding
from echovec.model.parts import How, reader
from echovec.text.batch import Batch
from echovec.train.data import TrainingSet
from echovec.train.job import Parts, history_of, last_checkpoint
from echovec.train.schedule import Step
from echovec.train.trainer import AdapterSaves, Batches, RunLog, arguments


class Masked(nn.Module):
    """The loss of hidden tokens, under the mask that sees both ways."""

    def __init__(self, parts: Parts, blank_id: int) -> None:
        super().__init__()
        self.model = parts.peft_model
        self._backbone = reader(parts.embedder.backbone, How(bidirectional=True))
        folder = parts.source if isinstance(parts.source, Path) else None
        inner = parts.peft_model.base_model.model
        head = torch.from_numpy(np.array(unembedding(inner, folder)))
        self.register_buffer("head_VD", head.to(inner.dtype), persistent=False)
        self._blank = blank_id

    def forward(self, sequences: list[Tensor], hidden: list[Tensor]) -> dict[str, Tensor]:
        """`sequences` are token ids; `hidden`, of the same lengths, says which are masked."""
        lengths = [len(one) for one in sequences]
        ids_N, hide_N = torch.cat(sequences), torch.cat(hidden)
        shown_N = torch.where(hide_N, self._blank, ids_N)
        read = self._backbone.read(
            batch_of(shown_N.cpu().numpy(), lengths), [-1], How(bidirectional=True)
        )
        h_ND = read.hidden[0]
        places_M = torch.nonzero(hide_N)[:, 0]
        head_VD: Any = self.head_VD
        logits_MV = functional.linear(h_ND[places_M - 1].to(head_VD.dtype), head_VD).float()
        targets_M = ids_N[places_M].to(logits_MV.device)
        return {"loss": functional.cross_entropy(logits_MV, targets_M)}


class MaskedTrainer(AdapterSaves, Trainer):  # type: ignore[misc]
    """transformers' trainer on planned batches of unlabelled text."""

    def __init__(self, *, parts: Parts, batches: Batches, **options: Any) -> None:
        self._parts = parts
        self._batches = batches
        super().__init__(**options)

    def get_train_dataloader(self) -> Any:
        """The planned batches in order."""
        loader = DataLoader(
            self._batches, batch_size=1, shuffle=False, collate_fn=self.data_collator
        )
        return self.accelerator.prepare(loader)


def fit(
    parts: Parts, sets: Sequence[TrainingSet], plan: Sequence[Step], out: Path
) -> tuple[int, int, list[dict[str, Any]]]:
    """Run the plan, from the newest checkpoint where there is one."""
    run = parts.run
    tokenizer = parts.embedder.tokenizer
    blank_id = tokenizer.tokenize(["_"])[0][0]
    opens = run.recipe.views["symmetric"][0].template.bos != "absent"
    begin = [tokenizer.bos_id] if opens and tokenizer.bos_id is not None else []

    def collate(steps: Sequence[Step]) -> dict[str, Any]:
        (step,) = steps
        examples = [sets[step.of].examples[row] for row in step.rows]
        found = tokenizer.tokenize([one.positive for one in examples])
        sequences = [begin + list(ids[: run.max_tokens]) for ids in found]
        sequences = [ids for ids in sequences if len(ids) > 1]  # one token has none to foretell it
        if not sequences:
            raise TrainingError("a batch has no text of two tokens; give longer texts")
        # Masked by the part's own rows, so a resumed run hides the same tokens.
        drawn = np.random.default_rng([run.seed, *step.rows])
        hidden = [hide(len(one), run.mask_share, drawn) for one in sequences]
        return {"sequences": [torch.tensor(one) for one in sequences], "hidden": hidden}

    checkpoint = last_checkpoint(out)
    asked = arguments(run, out, len(plan))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="torch")
        trainer = MaskedTrainer(
            parts=parts,
            batches=Batches(plan, max(1, asked.world_size)),
            model=Masked(parts, blank_id),
            args=asked,
            data_collator=collate,
            callbacks=[RunLog(out)],
        )
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    resumed_at = int(checkpoint.name.rsplit("-", 1)[1]) if checkpoint else 0
    return trainer.state.global_step, resumed_at, history_of(out)


def hide(length: int, share: float, drawn: np.random.Generator) -> Tensor:
    """Which of a text's tokens are hidden: at least one, and never the first."""
    mask = drawn.random(length) < share
    mask[0] = False
    if not mask.any():
        mask[1 + drawn.integers(length - 1)] = True
    return torch.from_numpy(mask)


def batch_of(ids_N: Any, lengths: Sequence[int]) -> Batch:
    """Bare sequences as a batch that pools every token."""
    offsets_S1 = np.concatenate([[0], np.cumsum(lengths)])
    count = len(lengths)
    return Batch(
        ids_T=np.asarray(ids_N, dtype=np.int64),
        offsets_S1=offsets_S1,
        spans_SK2=np.stack([offsets_S1[:-1], offsets_S1[1:]], axis=1)[:, None, :],
        prefix=0,
        order_S=np.arange(count),
        share_S=np.ones(count),
        truncated_S=np.zeros(count, dtype=np.bool_),
    )
