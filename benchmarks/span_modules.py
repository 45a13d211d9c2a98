"""An echo embedder in sentence-transformers: a module that renders, and one that pools the span."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.peers import Encode, Job, Vectors, pools_last


def span_model(path: Path, dtype: str) -> Encode:
    """Load sentence-transformers around the model; it sorts, batches and normalises."""
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel

    model = AutoModel.from_pretrained(str(path), dtype=getattr(torch, dtype)).eval()

    class Echo(nn.Module):
        """The texts' prompts to states and the pooled span's mask."""

        job: Job

        def tokenize(self, texts: list[str], **options: Any) -> dict[str, Tensor]:
            rendered = Job(
                self.job.embedder, texts, self.job.recipe, self.job.instruction
            ).rendered()
            longest = max(len(r.ids) for r in rendered)
            shape = (len(rendered), longest)
            ids, mask, span = (torch.zeros(shape, dtype=torch.long) for _ in range(3))
            for row, one in enumerate(rendered):
                ids[row, : len(one.ids)] = torch.from_numpy(one.ids)
                mask[row, : len(one.ids)] = 1
                span[row, slice(*one.spans[0])] = 1
            return {"input_ids": ids, "attention_mask": mask, "span": span}

        preprocess = tokenize

        def forward(self, inputs: dict[str, Any], **options: Any) -> dict[str, Any]:
            output = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
            return inputs | {"token_embeddings": output.last_hidden_state}

    class SpanPooling(nn.Module):
        """The mean of the span, or its last token."""

        last = False

        def forward(self, inputs: dict[str, Any], **options: Any) -> dict[str, Any]:
            span = inputs["span"]
            if self.last:
                span = span * (span.cumsum(1) == span.sum(1, keepdim=True))
            weights = span[..., None].to(torch.float32)
            states = inputs["token_embeddings"].float()
            return inputs | {"sentence_embedding": (states * weights).sum(1) / weights.sum(1)}

    first, second = Echo(), SpanPooling()
    whole = SentenceTransformer(modules=[first, second], device="cpu")

    def encode(job: Job) -> Vectors:
        first.job, second.last = job, pools_last(job)
        vectors = whole.encode(
            list(job.texts), batch_size=32, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vectors, dtype=np.float32)

    return encode
