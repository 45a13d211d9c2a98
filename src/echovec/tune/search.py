"""Search: layers, then calibrations, then sums of views; each stage tries what the last one left.

Everything is scored by the mean over categories of the development data, and everything that was
scored is in the ledger. A stage stops when its share of the time is used up and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from echovec.tune.cost import Costs
from echovec.tune.ledger import Clock, Ledger
from echovec.tune.parts import Part, Sum
from echovec.tune.score import Scores
from echovec.tune.space import (
    FILTERS,
    METHODS,
    NONE,
    OF_KINDS,
    USUAL,
    WEIGHTS,
    WHOLE,
    Method,
    Prompt,
    Target,
)

_FEW_LAYERS = 8
_TOP_LAYERS = 3
_POOL, _OF_EACH_VIEW = 28, 4
_STARTS = 3
_VIEW_GAIN, _WEIGHT_GAIN, _WHOLE_GAIN = 0.1, 0.05, 0.2
"""What a view, a weight and a transform of the sum have to be worth, in points: samples are small,
and the best of many tries is partly luck."""


@dataclass
class Search:
    """One search over kept states.

    Args:
        prompts: what states there are of.
        num_layers: the model's blocks.
        ledger: scores.
        costs: what a sum takes.
        clock: the budget.
        filters: whether the unembedding matrix can be had.
        kinds: whether the texts to calibrate on are of several kinds.
        say: called with a line for people, about once a second or less.
    """

    prompts: Sequence[Prompt]
    num_layers: int
    ledger: Ledger
    costs: Costs
    clock: Clock
    filters: bool
    kinds: bool
    say: Callable[[str], None]
    cut: list[str] = field(default_factory=list)
    """Stages that the budget cut short."""

    _best: float = -1.0

    @property
    def views(self) -> list[tuple[str, str]]:
        """Every prompt with everything that is read from it."""
        return [(prompt.name, read) for prompt in self.prompts for read in prompt.views]

    @property
    def deep(self) -> list[tuple[str, str]]:
        """Those of them that there are several layers of."""
        names = {prompt.name for prompt in self.prompts if not prompt.embeddings}
        return [(name, read) for name, read in self.views if name in names]

    def layers(self) -> None:
        """Every view at many layers with the usual calibration; the last layer as it is too.

        The latter is what is compared with, so it is scored however short the budget is.
        """
        last = self.num_layers
        first = 1 if last <= _FEW_LAYERS else max(1, last // 3)
        coarse = range(last, first - 1, -1 if last <= _FEW_LAYERS else -2)
        tries = [(p, r, (self._last(p),), NONE) for p, r in self.views]
        tries += [(p, r, (0,), USUAL) for p, r in self.views if (p, r) not in self.deep]
        tries += [(p, r, (layer,), USUAL) for layer in coarse for p, r in self.deep]
        self._stage("layers", tries, 0.3, least=len(self.views))
        near: list[tuple[str, str, tuple[int, ...], Method]] = []
        for p, r in self.deep:
            for layer in self._top_layers(p, r)[:2]:
                for beside in (layer - 1, layer + 1):
                    if first <= beside <= last:
                        near.append((p, r, (beside,), USUAL))
        self._stage("layers beside the best", near, 0.2)

    def calibrations(self) -> None:
        """Every calibration at each view's best layers, and averages of layers."""
        tries: list[tuple[str, str, tuple[int, ...], Method]] = []
        tops = {(p, r): self._top_layers(p, r) for p, r in self.views}
        for (p, r), top in tops.items():
            groups = {tuple(sorted(top[:2])), tuple(sorted(top))}
            groups |= {self._upper_half()} if (p, r) in self.deep else set()
            tries += [(p, r, group, USUAL) for group in sorted(groups) if len(group) > 1]
        others = [method for method in METHODS if method not in (NONE, USUAL)]
        others += OF_KINDS if self.kinds else ()
        for method in others:
            tries += [(p, r, (layer,), method) for (p, r), top in tops.items() for layer in top[:2]]
        if self.filters:
            for method in FILTERS:
                tries += [(p, r, (self.num_layers,), method) for p, r in self.deep]
        self._stage("calibrations", tries, 0.45)

    def sums(self, target: Target, share: float, known: Sequence[Sum] = ()) -> Sum | None:
        """The best sum of views within what a target may cost; None if nothing is.

        Args:
            target: what it may cost.
            share: the part of the time that is left.
            known: sums that were found for other targets, to go on from.
        """
        until = self.clock.until(share)
        pool = [part for part in self._pool() if self.costs.allows(target, _alone(part))]
        if not pool:
            return None
        alone = sorted(map(_alone, pool), key=lambda mix: -self._mean(mix))[:_STARTS]
        starts = [*(mix for mix in known if self.costs.allows(target, mix)), *alone]
        found = [self._grown(mix, pool, target, until) for mix in starts]
        best = max(found, key=self._mean)
        best = self._trimmed(best, until)
        for whole in WHOLE:
            tried = replace(best, whole=whole)
            if self._in_time(until) and self._mean(tried) >= self._mean(best) + _WHOLE_GAIN:
                best = tried
        if not self._in_time(until):
            self.cut.append(f"sums for {target.name}")
        self._tell(f"{target.name}: {self._mean(best):.2f} with {best.shown}")
        return best

    def last_layer(self, prompt: str, read: str) -> Sum:
        """A view as the papers have it: the last layer, nothing fitted."""
        return _alone(Part(prompt, read, (self._last(prompt),), NONE))

    def best_of(self, prompt: str, read: str) -> Sum:
        """The best that one view gives alone."""
        return next(
            mix
            for mix, _ in self.ledger.single()
            if (mix.parts[0][0].prompt, mix.parts[0][0].read) == (prompt, read)
        )

    def _stage(
        self,
        name: str,
        tries: Sequence[tuple[str, str, tuple[int, ...], Method]],
        share: float,
        *,
        least: int = 0,
    ) -> None:
        """Score tries in order until the share of the time is used; the `least` first anyway."""
        until, tried = self.clock.until(share), len(tries)
        for number, (prompt, read, layers, method) in enumerate(tries):
            if number >= least and not self._in_time(until):
                tried = number
                self.cut.append(f"{name}: {len(tries) - number} of {len(tries)} not tried")
                break
            mix = _alone(Part(prompt, read, layers, method))
            mean = self._mean(mix)
            if mean > self._best:
                self._best = mean
                self._tell(f"{name} {number + 1}/{len(tries)}: {mean:.2f} with {mix.shown}")
        self._tell(f"{name}: {tried} of {len(tries)} tried, best so far {self._best:.2f}")

    def _top_layers(self, prompt: str, read: str) -> list[int]:
        found = [
            (mix.parts[0][0].layers[0], scores)
            for mix, scores in self.ledger.single()
            if (mix.parts[0][0].prompt, mix.parts[0][0].read) == (prompt, read)
            and mix.parts[0][0].method == USUAL
            and len(mix.parts[0][0].layers) == 1
        ]
        return [layer for layer, _ in found][:_TOP_LAYERS] or [self._last(prompt)]

    def _last(self, prompt: str) -> int:
        own = next(one for one in self.prompts if one.name == prompt)
        return own.layers(self.num_layers)[-1]

    def _upper_half(self) -> tuple[int, ...]:
        return tuple(range(self.num_layers // 2 + 1, self.num_layers + 1))

    def _pool(self) -> list[Part]:
        """The best parts, some of every view, so that what is weak alone can help others."""
        pool: list[Part] = []
        for limit, size in ((1, len(self.views)), (_OF_EACH_VIEW, _POOL)):
            for mix, _ in self.ledger.single():
                part = mix.parts[0][0]
                own = sum((p.prompt, p.read) == (part.prompt, part.read) for p in pool)
                if part not in pool and own < limit and len(pool) < max(size, len(self.views)):
                    pool.append(part)
        return pool

    def _grown(self, mix: Sum, pool: Sequence[Part], target: Target, until: float) -> Sum:
        """Add the view that helps most, until none helps."""
        while len(mix.parts) < target.most_views:
            better = max(self._more(mix, pool, target, until), key=self._mean, default=mix)
            if self._mean(better) < self._mean(mix) + _VIEW_GAIN:
                break
            mix = better
            self._tell(f"{target.name}, {len(mix.parts)} views: {self._mean(mix):.2f}")
        return mix

    def _more(self, mix: Sum, pool: Sequence[Part], target: Target, until: float) -> Iterator[Sum]:
        taken = {part for part, _ in mix.parts}
        for part in pool:
            for weight in WEIGHTS:
                more = replace(mix, parts=(*mix.parts, (part, weight)))
                if part not in taken and self._in_time(until) and self.costs.allows(target, more):
                    self._mean(more)
                    yield more

    def _trimmed(self, mix: Sum, until: float) -> Sum:
        """Leave out views that are worth nothing, and try other weights for the others."""
        for part, _ in mix.parts:
            fewer = replace(mix, parts=tuple(pair for pair in mix.parts if pair[0] != part))
            if fewer.parts and self._in_time(until) and self._mean(fewer) >= self._mean(mix):
                mix = fewer
        for place in range(1, len(mix.parts)):
            for factor in (0.7, 1.4):
                part, weight = mix.parts[place]
                parts = list(mix.parts)
                parts[place] = (part, round(weight * factor, 3))
                other = replace(mix, parts=tuple(parts))
                if self._in_time(until) and self._mean(other) >= self._mean(mix) + _WEIGHT_GAIN:
                    mix = other
        return mix

    def _mean(self, mix: Sum) -> float:
        scores: Scores = self.ledger.score(mix)
        return scores.mean

    def _in_time(self, until: float) -> bool:
        return self.clock.spent <= until

    def _tell(self, line: str) -> None:
        self.say(f"[{self.clock.spent / 60:5.1f} min] {line}")


def _alone(part: Part) -> Sum:
    return Sum(((part, 1.0),))
