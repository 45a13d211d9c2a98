"""Plan: how much of the data, and how many prompts, a budget of minutes has time for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from echovec.calibrate.kept import texts_hash
from echovec.evaluate.quiet import without_noise
from echovec.evaluate.results import write_whole
from echovec.tune.dev import DevData
from echovec.tune.ledger import Clock
from echovec.tune.samples import halves, read_dev
from echovec.tune.space import NEEDED, Prompt
from echovec.tune.states import KeptStates

if TYPE_CHECKING:
    from echovec.embedder import Embedder

MAX_TOKENS = 192
"""Budget for each copy of a text while tuning: long texts would take the time of many short ones.
The recipes that are found keep the usual budget."""

_STATES_SHARE = 0.5
"""The part of the budget that runs of the model may take."""

_LEAST_SHARE = 0.3
"""Below this part of the usual sample, prompts are left out instead."""


class Plan:
    """How much is sampled, and from how many prompts, so that the budget suffices; kept on disk."""

    def __init__(
        self,
        embedder: Embedder,
        prompts: Sequence[Prompt],
        calibration: list[str],
        own: list[str],
        data: Path | None,
        work: Path,
        seed: int,
    ) -> None:
        self._embedder = embedder
        self._prompts = list(prompts)
        self._calibration = calibration
        self._own = own
        self._data = data
        self._work = work
        self._seed = seed
        self.share = 1.0

    def kept(self, prompt: Prompt) -> KeptStates:
        """The states of a prompt."""
        return KeptStates(self._embedder, prompt, self._work / "states", max_tokens=MAX_TOKENS)

    def made(self, clock: Clock, tell: Callable[[str], None]) -> tuple[list[Prompt], DevData]:
        """The prompts and the data that the budget has time for."""
        kept = {prompt.name: self.kept(prompt) for prompt in self._prompts}
        whole = self._dev(1.0)
        file = self._work / "plan.json"
        names = list(kept)
        key = [clock.budget, names, texts_hash(whole.texts), texts_hash(self._calibration)]
        earlier = _read_json(file)
        if earlier.get("key") == json.loads(json.dumps(key)):
            names, self.share = earlier["prompts"], earlier["share"]
        elif clock.budget < float("inf"):
            speed = self._speed(kept[names[0]], clock, earlier.get("speed"), tell)
            base = {name: kept[name].tokens(self._calibration) for name in names}
            all_texts = {name: kept[name].tokens(whole.texts) for name in names}
            tokens = speed * max(0.0, _STATES_SHARE * clock.budget - clock.spent)
            while True:
                room = tokens - sum(base[name] for name in names[1:])
                share = room / sum(all_texts[name] for name in names)
                spare = [name for name in names if name not in NEEDED]
                if share >= _LEAST_SHARE or not spare:
                    break
                names.remove(spare[-1])
            self.share = round(float(np.clip(share, 0.1, 1.0)), 2)
            _write_json(file, {"key": key, "prompts": names, "share": self.share, "speed": speed})
        dev = whole if self.share == 1.0 else self._dev(self.share)
        tell(
            f"{len(dev.tasks)} tasks, {len(dev.texts):,} texts (share {self.share:.2f}), "
            f"{len(names)} prompts: {', '.join(names)}"
        )
        return [prompt for prompt in self._prompts if prompt.name in names], dev

    def _dev(self, share: float) -> DevData:
        if self._data is None:
            return halves(self._own[: max(20, round(share * len(self._own)))])
        return read_dev(self._data, share=share, seed=self._seed)

    def _speed(
        self, kept: KeptStates, clock: Clock, earlier: Any, tell: Callable[[str], None]
    ) -> float:
        """Tokens a second, measured on work that has to be done anyway."""
        before, tokens = clock.spent, 0
        with without_noise():
            for work in kept.calibrate_on(self._calibration):
                tokens += work()
        seconds = clock.spent - before
        if not tokens:  # all of it was there
            return float(earlier or 1_000.0)
        tell(f"{tokens / seconds:,.0f} tokens a second")
        return tokens / seconds


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    write_whole(file, json.dumps(content).encode())
