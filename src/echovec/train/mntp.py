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

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.model = parts.peft_model
        self._backbone = reader(parts.embedder.backbone, How(bidirectional=True))
        folder = parts.source if isinstance(parts.source, Path) else None
        inner = parts.peft_model.base_model.model
        head = torch.from_numpy(np.array(unembedding(inner, folder)))
        self.register_buffer("head_VD", head.to(inner.dtype), persistent=False)
        self._blank = parts.embedder.tokenizer.tokenize(["_"])[0][0]

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


class Hidden:
    """One part of a step to the token ids of its texts, and which of them are hidden."""

    def __init__(self, parts: Parts, sets: Sequence[TrainingSet]) -> None:
        self._run, self._sets = parts.run, sets
        self._tokenizer = parts.embedder.tokenizer
        template = parts.run.recipe.views["symmetric"][0].template
        opening = None if template.bos == "absent" else self._tokenizer.bos_id
        self._begin = [] if opening is None else [opening]

    def __call__(self, steps: Sequence[Step]) -> dict[str, Any]:
        """`steps` is one part: a batch is never mixed of several."""
        (part,) = steps
        run = self._run
        examples = [self._sets[part.of].examples[row] for row in part.rows]
        found = self._tokenizer.tokenize([one.positive for one in examples])
        sequences, hidden = [], []
        for row, text_ids in zip(part.rows, found, strict=True):
            ids = self._begin + list(text_ids[: run.max_tokens])
            if len(ids) > 1:  # one token has none to foretell it
                # By row and batch: a resumed run, or one on more processes, hides the same tokens.
                drawn = np.random.default_rng([run.seed, row, *part.all_rows])
                sequences.append(torch.tensor(ids))
                hidden.append(hide(len(ids), run.mask_share, drawn))
        if not sequences:
            raise TrainingError("a batch has no text of two tokens; give longer texts")
        return {"sequences": sequences, "hidden": hidden}


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
    collator = Hidden(parts, sets)
    checkpoint = last_checkpoint(out)
    asked = arguments(run, out, len(plan))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="torch")
        trainer = MaskedTrainer(
            parts=parts,
            batches=Batches(plan, max(1, asked.world_size)),
            model=Masked(parts),
            args=asked,
            data_collator=collator,
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
