"""GradCache that keeps what it has room for: the same gradients, fewer times through the model."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from echovec.train import check
from echovec.train.run import read_run

pytest.importorskip("peft")
pytest.importorskip("sentence_transformers")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

MINI = 256
RUN = dataclasses.replace(read_run("tiny"), mini_batch_tokens=MINI)


@pytest.fixture(scope="module")
def step():
    """The sets of the tiny run, and a step of eight rows with negatives."""
    from echovec.train.job import training_sets
    from echovec.train.schedule import schedule

    sets = training_sets(RUN)
    plan = schedule(sets, batch_size=8, steps=8, seed=1)
    return sets, next(one for one in plan if sets[one.of].examples[0].negatives)


@pytest.fixture
def parts():
    """A model whose adapters are awake; dropout on what every layer reads."""
    from echovec.train.job import build

    built = build(dataclasses.replace(RUN, lora_dropout=0.2))
    check.wake(built)
    return built


@pytest.fixture
def passes(parts, monkeypatch):
    """Of each time through the model: whether it makes a graph, and how many are kept meanwhile."""
    from echovec.train.loss import PartlyCached

    module, losses, seen = parts.transformer[0], [], []
    real_forward, real_init = module.forward, PartlyCached.__init__

    def forward(features, **options):
        kept = sum(len(loss._kept) for loss in losses)
        seen.append((torch.is_grad_enabled(), kept))
        return real_forward(features, **options)

    def init(self, *args, **options):
        real_init(self, *args, **options)
        losses.append(self)

    monkeypatch.setattr(module, "forward", forward)
    monkeypatch.setattr(PartlyCached, "__init__", init)
    return seen


def gradients(parts, step, kept):
    """The loss and its gradients with so many tokens kept."""
    return check.gradients(parts, *step, dataclasses.replace(RUN, kept_tokens=kept))


@pytest.mark.parametrize("kept", [MINI, 2 * MINI, 1 << 20])
def test_gradients_are_those_of_plain_gradcache(parts, step, kept):
    """With dropout: what is kept was drawn once, what runs again is drawn as before."""
    loss, expected = gradients(parts, step, 0)
    again, found = gradients(parts, step, kept)
    assert again == pytest.approx(loss, rel=1e-6)
    assert check.relative_error(expected, found) < 1e-6


def test_gradients_of_another_mini_batch_are_noticed(parts, step, monkeypatch):
    """Negative control: graphs handed out in the wrong order give other gradients."""
    from echovec.train.loss import PartlyCached

    _, expected = gradients(parts, step, 0)
    real = PartlyCached.embed_minibatch

    def wrong(self, sentence_feature, begin, end, with_grad, copy_random_state, **options):
        if with_grad and self._kept:
            return self._kept.pop(max(self._kept)), None
        return real(self, sentence_feature, begin, end, with_grad, copy_random_state, **options)

    monkeypatch.setattr(PartlyCached, "embed_minibatch", wrong)
    _, found = gradients(parts, step, 1 << 20)
    assert check.relative_error(expected, found) > 1e-2


def test_what_is_kept_runs_once(parts, step, passes):
    """Nothing kept: all twice. Room for one mini-batch: that one once. Room for all: all once."""
    gradients(parts, step, 0)
    twice = len(passes)
    count = twice // 2
    assert count > 2  # else this test would say nothing
    assert [grad for grad, _ in passes] == [False] * count + [True] * count
    passes.clear()
    gradients(parts, step, None)
    assert [grad for grad, _ in passes] == [True] + [False] * (count - 1) + [True] * (count - 1)
    passes.clear()
    gradients(parts, step, 1 << 20)
    assert [grad for grad, _ in passes] == [True] * count


def test_what_is_kept_is_let_go_of_before_another_graph_is_made(parts, step, passes):
    """So the peak of memory is a mini-batch's, as without."""
    gradients(parts, step, 2 * MINI)
    begun = [grad for grad, _ in passes].index(False)
    later = passes[begun:]
    assert {kept for grad, kept in later if not grad} == {2}
    again = [kept for grad, kept in later if grad]
    assert again
    assert not any(again)


def test_a_batch_that_was_never_gone_back_through(parts, step):
    """Two losses before a backward pass: the first runs again, and both gradients are right."""
    from echovec.train.loss import make_loss

    run = dataclasses.replace(RUN, kept_tokens=1 << 20)
    _, expected = gradients(parts, step, 0)
    loss = make_loss(run, parts.transformer)
    features = check._features(parts, *step, run)
    parts.transformer.zero_grad()
    torch.manual_seed(RUN.seed)
    one = loss(features, None)
    loss([dict(column) for column in features], None)
    one.backward()
    assert check.relative_error(expected, check._collected(parts)) < 1e-6


def test_a_score_keeps_nothing(parts, step, passes):
    """Without gradients, as in an evaluation, there is nothing to go back through."""
    from echovec.train.loss import make_loss

    loss = make_loss(dataclasses.replace(RUN, kept_tokens=1 << 20), parts.transformer)
    with torch.no_grad():
        loss(check._features(parts, *step, RUN), None)
    assert not any(grad for grad, _ in passes)
    assert not loss._kept


def by_hand(vectors, temperature: float, *, symmetric: bool = False) -> float:
    """InfoNCE in loops: an anchor's positive against all positives and negatives of the batch."""
    anchors, *others = [v / v.norm(dim=1, keepdim=True) for v in vectors]
    texts, rows = torch.cat(others), range(len(anchors))
    found = []
    for i in rows:
        asked = torch.tensor([float(anchors[i] @ text) / temperature for text in texts])
        one = -torch.log_softmax(asked, 0)[i]
        if symmetric:
            back = torch.tensor([float(others[0][i] @ anchors[j]) / temperature for j in rows])
            one = (one - torch.log_softmax(back, 0)[i]) / 2
        found.append(float(one))
    return sum(found) / len(found)


@pytest.fixture
def vectors(step):
    """What the model without dropout makes of each column, and the parts it is of."""
    from echovec.train.job import build

    built = build(RUN)
    check.wake(built)
    built.transformer.train()
    with torch.no_grad():
        columns = check._features(built, *step, RUN)
        return built, [built.transformer(dict(c))["sentence_embedding"].double() for c in columns]


@pytest.mark.parametrize("mini", [0, MINI])
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_loss_is_infonce(vectors, step, mini, symmetric):
    """With negatives, cached or not, one way or both; another temperature is another loss."""
    built, columns = vectors
    assert len(columns) == 3
    changes = {"mini_batch_tokens": mini, "symmetric_loss": symmetric, "temperature": 0.1}
    run = dataclasses.replace(RUN, **changes)
    loss, _ = check.gradients(built, *step, run)
    assert loss == pytest.approx(by_hand(columns, 0.1, symmetric=symmetric), rel=1e-4)
    for wrong in (
        by_hand(columns, 0.02, symmetric=symmetric),
        by_hand(columns, 0.1, symmetric=not symmetric),
        by_hand(columns[:2], 0.1, symmetric=symmetric),
    ):
        assert loss != pytest.approx(wrong, rel=1e-2)


@pytest.mark.parametrize("mini", [0, MINI])
def test_matryoshka_is_the_sum_over_widths(vectors, step, mini):
    """Each width's leading numbers have the loss that they would have alone."""
    built, columns = vectors
    run = dataclasses.replace(RUN, mini_batch_tokens=mini, matryoshka=(4, 32), temperature=0.1)
    loss, _ = check.gradients(built, *step, run)
    expected = sum(by_hand([column[:, :w] for column in columns], 0.1) for w in (4, 32))
    assert loss == pytest.approx(expected, rel=1e-4)
