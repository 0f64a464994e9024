"""Asynchronous updates: the bound holds, bound 0 is synchronous, and staleness has its price."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ddp.local import run_local
from ddp.training.autograd import Parameter
from ddp.training.data import Dataset
from ddp.training.errors import TrainingError
from ddp.training.grid import Grid
from ddp.training.models import Spec
from ddp.training.optimizers import Sgd
from ddp.training.order import DataOrder
from ddp.training.race import Race
from ddp.training.stale import StaleServer
from ddp.training.trainer import Trainer

SPEC = Spec("mlp", 6, 3, width=8, depth=1)


def clusters(count=200):
    """Three clouds of points, which a small network tells apart."""
    dice = np.random.default_rng(1)
    centres = 2 * dice.standard_normal((3, 6))
    y = dice.integers(0, 3, count)
    x = centres[y] + dice.standard_normal((count, 6))
    return Dataset("clouds", x[40:], y[40:], x[:40], y[:40], 3)


DATA = clusters()


def race(bound, pushes=60, slowness=(1.0, 1.0, 1.0, 5.0), rate=0.05, momentum=0.0, seed=0):
    optimizer = Sgd(rate, momentum)
    options = {"slowness": slowness, "bound": bound, "batch": 40, "seed": seed}
    found = Race(SPEC, DATA, optimizer, **options)
    return found, found.run(pushes)


def test_bound_zero_is_synchronous_training_bit_for_bit():
    found, outcome = race(0, pushes=4 * 10)
    order = DataOrder(0, len(DATA.train_x), 40)

    def rank(world):
        trainer = Trainer(SPEC, Grid(dp=4), world, Sgd(0.05))
        for step in range(10):
            rows = order.rows(step)
            trainer.step(DATA.train_x[rows], DATA.train_y[rows])
        return [p.data for p in trainer.parameters]

    for theirs in run_local(4, rank):
        for ours, other in zip(found.parameters, theirs, strict=True):
            np.testing.assert_array_equal(ours.data, other)
    assert set(outcome.staleness) == {0}


@pytest.mark.parametrize("bound", [0, 1, 3, 8])
def test_synchronous_goes_at_the_stragglers_pace_and_says_who_it_is(bound):
    _, outcome = race(bound, pushes=200)
    assert max(outcome.pushes) - min(outcome.pushes) <= bound + 1
    # Four gradients in the five seconds of the slowest, and the head start of those that may.
    assert outcome.rate < 1.1 * (4 / 5) * (1 + bound / 25)
    culprits = {whom for _, whom in outcome.waited_s if outcome.waited_s[_, whom] > 10}
    assert culprits == {3}


def test_without_a_bound_nobody_waits_and_the_others_go_at_their_own_pace():
    _, outcome = race(None, pushes=200)
    assert not outcome.waited_s
    ideal = 3 + 1 / 5
    assert outcome.rate > 0.8 * ideal
    assert outcome.pushes[0] > 4 * outcome.pushes[3]


def test_the_same_seed_is_the_same_race():
    assert race(2)[1] == race(2)[1]
    assert race(2)[1] != race(2, seed=1)[1]


def test_staleness_has_its_price():
    """Row 44: after the same number of gradients, at the same rate, the loss is higher."""

    def last_losses(bound):
        races = [race(bound, 300, rate=0.04, momentum=0.9, seed=seed)[1] for seed in range(3)]
        return np.mean([loss for outcome in races for _, loss in outcome.losses[-40:]])

    assert last_losses(None) > 1.2 * last_losses(0)


def server(workers=3, bound=1):
    return StaleServer([Parameter("w", np.zeros(1))], Sgd(1.0), range(workers), bound)


def test_who_is_too_far_ahead_is_told_for_whom_it_waits():
    found = server()
    for _ in range(2):
        assert found.push(0, found.read(0).ticket, [np.ones(1)])
    assert found.blockers(0) == [1, 2]
    with pytest.raises(TrainingError, match=r"worker 0 is too far ahead of \[1, 2\]"):
        found.read(0)
    assert repr(found) == "<StaleServer clocks=[2, 0, 0] bound=1 version=2>"


def test_staleness_is_what_was_applied_between_read_and_push():
    found = server(bound=None)
    tickets = [found.read(worker).ticket for worker in (0, 1)]
    assert found.push(1, tickets[1], [np.ones(1)])
    assert found.push(0, tickets[0], [np.ones(1)])
    assert found.staleness == {0: 1, 1: 1}


class Server(RuleBasedStateMachine):
    """Any order of reads and pushes, against the definition of the bound."""

    bound: int | None = 2

    def __init__(self):
        super().__init__()
        self.server = server(3, self.bound)
        self.computing = set()
        self.sent = np.zeros(1)

    @rule(worker=st.integers(0, 2))
    def read(self, worker):
        if worker in self.computing:
            return
        clocks = self.server.clocks
        allowed = self.bound is None or clocks[worker] - min(clocks) <= self.bound
        assert (not self.server.blockers(worker)) == allowed
        if allowed:
            self.server.read(worker)
            self.computing.add(worker)

    @precondition(lambda self: self.computing)
    @rule(data=st.data())
    def push(self, data):
        worker = data.draw(st.sampled_from(sorted(self.computing)))
        self.computing.remove(worker)
        gradient = np.array([float(2**worker)])
        self.sent += gradient
        self.server.push(worker, [gradient])

    @invariant()
    def nothing_is_lost(self):
        waiting = sum(float(g[0][0]) for g in self.server._waiting.values())
        assert -self.server.parameters[0].data[0] + waiting == self.sent[0]

    @invariant()
    def somebody_may_always_go_on(self):
        assert self.computing or any(not self.server.blockers(w) for w in range(3))


class Synchronous(Server):
    bound = 0


class Unbounded(Server):
    bound = None


for machine in (Server, Synchronous, Unbounded):
    machine.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestServer = Server.TestCase
TestSynchronous = Synchronous.TestCase
TestUnbounded = Unbounded.TestCase
