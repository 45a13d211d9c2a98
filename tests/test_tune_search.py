"""What a search tries, and what it takes: rules stand in for a model, so the best is known."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from echovec.tune.ledger import Clock, Ledger
from echovec.tune.parts import Part, Sum
from echovec.tune.score import Scores
from echovec.tune.search import Search
from echovec.tune.space import FILTERS, METHODS, NONE, OF_KINDS, PROMPTS, TARGETS, USUAL, WHOLE

BEST, ONE_PASS, FAST = TARGETS
LAYERS = 12
COPY, WORD = ("echo-eol", "copy"), ("echo-eol", "word")
LATE, MEAN = ("classical", "copy"), ("classical", "mean")


class Ruled(Ledger):
    """Scores by a rule."""

    def __init__(self, rule, clock):
        self.tasks, self.scores, self._rule, self._clock = [], {}, rule, clock

    def score(self, mix):
        if mix not in self.scores:
            self._clock.spent += 1
            value = self._rule(mix)
            self.scores[mix] = Scores({"task": value}, {"STS": value})
        return self.scores[mix]


class Steps:
    """A clock on which a score takes a second, of so many that there are."""

    def __init__(self, budget=math.inf):
        self.spent, self.budget = 0, budget

    until = Clock.until


def allows(target, mix):
    """Classical is all that is cheap, and the two prompts are two passes."""
    prompts = set(mix.prompts)
    if target == FAST:
        return prompts == {"classical"}
    return target.passes is None or len(prompts) <= target.passes


def search(rule, *, budget=math.inf, filters=True, kinds=True, prompts=("echo-eol", "classical")):
    clock = Steps(budget)
    return Search(
        [PROMPTS[name] for name in prompts],
        LAYERS,
        Ruled(rule, clock),
        SimpleNamespace(allows=allows),
        clock,
        filters=filters,
        kinds=kinds,
        say=lambda line: None,
    )


def alone(view, layers, method):
    return Sum(((Part(*view, layers, method), 1.0),))


TOP = {COPY: 60.0, WORD: 58.0, LATE: 50.0, MEAN: 45.0}
PEAK = {COPY: 9, WORD: 7, LATE: 12, MEAN: 6}
"""The best layer of each view; an odd one is beside those that are looked at first."""

GOOD = {COPY: OF_KINDS[-1], WORD: METHODS[4], LATE: FILTERS[1], MEAN: METHODS[-1]}
"""The calibration that helps each view."""


def one(part):
    """A part alone: the nearer to its peak and the better calibrated, the better."""
    view = part.prompt, part.read
    far = abs(sum(part.layers) / len(part.layers) - PEAK[view])
    helped = 3 if part.method == GOOD[view] else 1 if part.method == USUAL else 0
    return TOP[view] - far + helped


def test_the_best_layer_and_calibration_of_each_view_are_found():
    """Also a layer beside those tried first, a kind's axes taken out, and a filter."""
    run = search(lambda mix: one(mix.parts[0][0]))
    run.layers()
    for view, layer in PEAK.items():
        assert run.best_of(*view) == alone(view, (layer,), USUAL)
    run.calibrations()
    for view, layer in PEAK.items():
        assert run.best_of(*view) == alone(view, (layer,), GOOD[view])
    assert not run.cut
    tried = {mix.parts[0][0].method for mix in run.ledger.scores}
    assert tried == {*METHODS, *OF_KINDS, *FILTERS}
    without = search(lambda mix: one(mix.parts[0][0]), filters=False, kinds=False)
    without.layers()
    without.calibrations()
    assert {mix.parts[0][0].method for mix in without.ledger.scores} == set(METHODS)


@pytest.mark.parametrize("group", [(9, 10), (8, 9, 10), tuple(range(7, 13))])
def test_layers_are_averaged(group):
    """The two best of a view, the three best, and the upper half."""
    run = search(lambda mix: one(mix.parts[0][0]) + 5 * (mix.parts[0][0].layers == group))
    run.layers()
    run.calibrations()
    assert run.best_of(*COPY) == alone(COPY, group, USUAL)


def sum_of(mix):
    """MEAN helps much unless LATE is there, which helps more once WORD is; weights have a best."""
    views = [(part.prompt, part.read) for part, _ in mix.parts]
    value = one(mix.parts[0][0])
    ideal = {WORD: 2.1, LATE: 0.5, MEAN: 1.0, COPY: 1.0}
    worth = {
        COPY: 1.0,
        WORD: 4.0,
        LATE: 8.0 if WORD in views else 0.0,
        MEAN: -0.5 if LATE in views else 5.0,
    }
    for (_, weight), view in list(zip(mix.parts, views, strict=True))[1:]:
        value += -9 if views.count(view) > 1 else worth[view] - abs(weight - ideal[view])
    return value + {WHOLE[0]: 0, WHOLE[2]: 1.0, WHOLE[3]: 1.1}.get(mix.whole, -1)


def found(rule=sum_of, **how):
    run = search(rule, **how)
    run.layers()
    run.calibrations()
    return run


def test_of_token_embeddings_there_is_one_layer():
    """Every calibration is tried of it; no other layer, no average, and no filter of the last."""
    run = search(lambda mix: 50.0, prompts=("echo-eol", "classical", "words"))
    run.layers()
    run.calibrations()
    parts = [mix.parts[0][0] for mix in run.ledger.scores]
    words = [part for part in parts if part.prompt == "words"]
    assert {part.layers for part in words} == {(0,)}
    assert {part.method for part in words} == {*METHODS, *OF_KINDS}
    assert 0 not in {layer for part in parts if part not in words for layer in part.layers}
    assert run.last_layer("words", "rare") == alone(("words", "rare"), (0,), NONE)


def test_sums_are_grown_trimmed_and_weighed():
    """Views that help are added, one that no longer does is left out, weights are tried."""
    mix = found().sums(BEST, 0.9)
    assert [((part.prompt, part.read), weight) for part, weight in mix.parts] == [
        (COPY, 1.0),
        (WORD, 2.1),
        (LATE, 0.5),
    ]
    assert {part.layers for part, _ in mix.parts} == {(9,), (7,), (12,)}
    # The second transform of the whole is better by less than it has to be.
    assert mix.whole == WHOLE[2]


def test_a_view_that_adds_too_little_is_not_added():
    """A gain of less than a tenth of a point is luck; a little more is taken."""
    for gain, count in ((0.09, 1), (0.11, 2)):
        mix = found(lambda mix, gain=gain: 50 + gain * (len(mix.parts) == 2)).sums(BEST, 0.9)
        assert len(mix.parts) == count


def test_no_sum_costs_more_than_its_target_allows():
    """Neither a start, nor what is added, nor what was found for another target."""
    run = found()
    dear = run.sums(BEST, 0.9)
    assert set(dear.prompts) == {"echo-eol", "classical"}
    once = run.sums(ONE_PASS, 0.9, [dear])
    assert set(once.prompts) == {"echo-eol"}
    cheap = run.sums(FAST, 0.9, [dear, once])
    assert set(cheap.prompts) == {"classical"}
    assert run.sums(FAST, 0.9) == cheap
    run.costs.allows = lambda target, mix: False
    assert run.sums(FAST, 0.9) is None


def test_a_sum_that_was_found_is_gone_on_from():
    """What a cheaper target found may be what no start of one view leads to."""
    parts = [Part(*view, (5,), USUAL) for view in (WORD, MEAN)]
    known = Sum(((parts[0], 0.3), (parts[1], 0.3)))

    def rule(mix):
        return 100 + len(mix.parts) if mix.parts[:2] == known.parts else sum_of(mix)

    run = found(rule)
    assert run.sums(BEST, 0.9).parts[:2] != known.parts
    assert run.sums(BEST, 0.9, [known]).parts[:2] == known.parts


def test_most_views_of_a_target_are_not_passed():
    """However much more would help."""
    mix = found(lambda mix: 10.0 * len(mix.parts)).sums(replace(BEST, most_views=3), 0.9)
    assert len(mix.parts) == 3


def test_a_budget_ends_each_stage_and_says_what_was_not_tried():
    """Views as they are come first and are scored in any case."""
    run, said = search(sum_of, budget=40), []
    run.say = said.append
    run.layers()
    assert len(run.ledger.scores) <= 4 + 40 * 0.5
    assert run.cut[0] == "layers: 11 of 24 not tried"
    assert any("layers: 13 of 24 tried, best so far" in line for line in said)
    none = search(sum_of, budget=0)
    none.clock.spent = 1
    none.layers()
    plain = {run.last_layer(*view) for view in TOP}
    assert plain <= set(none.ledger.scores)
    assert {mix.parts[0][0].method for mix in plain} == {NONE}
    none.calibrations()
    before = len(none.ledger.scores)
    assert none.sums(BEST, 0.3) is not None
    assert len(none.ledger.scores) <= before + 1
    assert none.cut[-1] == "sums for best"
