"""Check: proofs that a run's gradients are what they should be, on its own first rows.

Other trainers have got these wrong without a sign: cached gradients that drift from the uncached
ones, a temperature that is never applied, adapters whose gradients are all zero under gradient
checkpointing (docs/train.md says where). Here they are measured before a run, in minutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from echovec.train.data import TrainingSet
from echovec.train.job import Parts, build, require, training_sets
from echovec.train.run import Run
from echovec.train.schedule import Step, schedule

TOLERANCE = 1e-4
"""Largest relative error of a gradient, in float32."""

_ROWS = 8


@dataclass(frozen=True)
class Finding:
    """One property of a run, whether it holds, and the number that says so."""

    what: str
    holds: bool
    found: str


def check_run(run: Run, *, data: str | Path | None = None) -> list[Finding]:
    """All checks that fit a run, in float32 on a few of its rows; trains nothing.

    Dropout has a check of its own: elsewhere two passes would differ by what is dropped.
    """
    require()
    sets = training_sets(run, data)
    small = replace(
        run,
        objective="contrastive",  # "simcse" insists on dropout
        lora_dropout=0.0,
        input_dropout=0.0,
        precision="exact",
        batch_size=min(run.batch_size, _ROWS),
        mini_batch_tokens=64,
        steps=1,
        init=None,
    )
    (step,) = schedule(sets, batch_size=small.batch_size, steps=1, seed=small.seed)
    parts = build(small)
    wake(parts)
    plain = replace(small, mini_batch_tokens=0)
    loss, expected = gradients(parts, sets, step, plain)
    findings = [_cached("cached equals uncached", parts, sets, step, small, expected)]
    findings.append(_temperature(parts, sets, step, plain, loss))
    zero = [name for name, gradient in expected.items() if not gradient.any()]
    findings.append(
        Finding(
            "every adapter has a gradient", not zero, f"{len(zero)} of {len(expected)} are zero"
        )
    )
    dropped = replace(small, lora_dropout=0.1)
    findings.append(_with_dropout(dropped, sets, step))
    if run.arm != "bidirectional":
        padded = build(replace(small, engine="plain"))
        wake(padded)
        _, other = gradients(padded, sets, step, plain)
        findings.append(_compared("packed equals padded", expected, other))
        checkpointed = build(replace(small, engine="plain", gradient_checkpointing=True))
        wake(checkpointed)
        _, other = gradients(checkpointed, sets, step, small)
        findings.append(
            _compared("cached with gradient checkpointing equals uncached without", expected, other)
        )
    return findings


def gradients(
    parts: Parts, sets: Sequence[TrainingSet], step: Step, run: Run
) -> tuple[float, dict[str, Tensor]]:
    """The loss of one step and the gradient of every trained parameter, by name."""
    from echovec.train.loss import make_loss

    features = _features(parts, sets, step, run)
    parts.transformer.train()
    parts.transformer.zero_grad()
    torch.manual_seed(run.seed)
    loss = make_loss(run, parts.transformer)(features, None)
    loss.backward()
    return float(loss.detach()), _collected(parts)


def _features(
    parts: Parts, sets: Sequence[TrainingSet], step: Step, run: Run
) -> list[dict[str, Any]]:
    """The step's columns, each as the model takes it."""
    from echovec.train.trainer import Collator

    collator = Collator(parts.transformer[0], sets, with_instructions=run.prompt == "instruct")
    batch = collator([step])
    columns = dict.fromkeys(key.split("_input_ids")[0] for key in batch if "_input_ids" in key)
    return [
        {key.removeprefix(f"{name}_"): v for key, v in batch.items() if key.startswith(f"{name}_")}
        for name in columns
    ]


def _collected(parts: Parts) -> dict[str, Tensor]:
    return {
        name: parameter.grad.detach().cpu().clone()  # where there is float64 to compare in
        for name, parameter in parts.peft_model.named_parameters()
        if parameter.requires_grad and parameter.grad is not None
    }


def wake(parts: Parts) -> None:
    """Give the adapters' second halves numbers: they start at zero, where half the gradients are.

    In place and from a fixed seed, so that two models get the same ones.
    """
    source = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in parts.peft_model.named_parameters():
            if "lora_B" in name:
                noise = torch.randn(parameter.shape, generator=source) * 0.02
                parameter.copy_(noise.to(parameter))


def relative_error(expected: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """|other - expected| / |expected| over all parameters together."""
    if set(expected) != set(other):
        return float("inf")
    apart = sum(float((other[n] - g).double().square().sum()) for n, g in expected.items())
    size = sum(float(g.double().square().sum()) for g in expected.values())
    return float((apart / size) ** 0.5) if size else float("inf")


def _compared(what: str, expected: dict[str, Tensor], other: dict[str, Tensor]) -> Finding:
    error = relative_error(expected, other)
    return Finding(what, error <= TOLERANCE, f"relative error {error:.1e}")


def _cached(
    what: str,
    parts: Parts,
    sets: Sequence[TrainingSet],
    step: Step,
    run: Run,
    expected: dict[str, Tensor],
) -> Finding:
    _, cached = gradients(parts, sets, step, run)
    return _compared(what, expected, cached)


def _temperature(
    parts: Parts, sets: Sequence[TrainingSet], step: Step, run: Run, loss: float
) -> Finding:
    colder, _ = gradients(parts, sets, step, replace(run, temperature=run.temperature * 10))
    applied = abs(colder - loss) > 1e-3 * abs(loss)
    return Finding("temperature is applied", applied, f"loss {loss:.4f}, ten times it {colder:.4f}")


def _with_dropout(run: Run, sets: Sequence[TrainingSet], step: Step) -> Finding:
    """Cached, and by hand with every column in one pass: the same masks must be drawn again."""
    from echovec.train.loss import make_loss

    what = "cached equals uncached with dropout"
    parts = build(run)
    wake(parts)
    whole = replace(run, mini_batch_tokens=1 << 30, kept_tokens=0, matryoshka=())
    _, cached = gradients(parts, sets, step, whole)
    _, without = gradients(parts, sets, step, replace(whole, seed=run.seed + 1))
    parts.transformer.zero_grad()
    torch.manual_seed(run.seed)
    # By hand: sentence-transformers' own uncached loss embeds all columns at once, in other draws.
    columns = _features(parts, sets, step, run)
    vectors = [[parts.transformer(one)["sentence_embedding"]] for one in columns]
    loss: Any = make_loss(whole, parts.transformer)
    loss.calculate_loss(vectors).backward()
    expected = _collected(parts)
    error = relative_error(expected, cached)
    drops = relative_error(expected, without) > TOLERANCE  # a check without dropout proves nothing
    return Finding(what, error <= TOLERANCE and drops, f"relative error {error:.1e}")
