"""Asynchronous updates: the bound holds, bound 0 is synchronous, and staleness has its price."""

from __future__ import annotations

import numpy as np
import pytest
from elastic_kit import member
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ddp.local import run_local
from ddp.membership import Record
from ddp.training.autograd import Parameter
from ddp.training.data import Dataset
from ddp.training.errors import TrainingError
from ddp.training.grid import Grid
from ddp.training.job import Job, Learner
from ddp.training.models import Spec
from ddp.training.optimizers import Sgd
from ddp.training.order import DataOrder
from ddp.training.pushing import Reign
from ddp.training.race import Race
from ddp.training.stale import StaleServer, parse_bound
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


def test_a_push_counts_once_and_only_with_the_ticket_of_the_last_read():
    found = server(bound=None)
    first = found.read(0).ticket
    second = found.read(0).ticket
    one = [np.ones(1)]
    assert not found.push(0, first, one)
    assert not found.push(1, second, one)
    assert found.push(0, second, one)
    assert not found.push(0, second, one)
    assert found.clocks == {0: 1, 1: 0, 2: 0}
    assert found.parameters[0].data == -1


def test_whoever_comes_begins_with_the_slowest_and_what_is_under_way_ends():
    found = server(workers=2, bound=3)
    for _ in range(3):
        found.push(0, found.read(0).ticket, [np.ones(1)])
    found.push(1, found.read(1).ticket, [np.ones(1)])
    ticket = found.read(0).ticket
    found.change([0, 1, "new"])
    assert found.clocks == {0: 3, 1: 1, "new": 1}
    assert not found.push(0, ticket, [np.ones(1)])
    share = found.read("new")
    assert (share.clock, share.rank, share.size) == (1, 2, 3)
    with pytest.raises(TrainingError, match=r"w9 is none of the workers: \[0, 1, 'new'\]"):
        found.ask("w9", 0.0)


def test_a_step_of_all_is_done_again_by_those_that_are_left():
    """Bound 0: w0 and w1 have pushed, then w2 dies; their parts were thirds, and are halves now."""
    found = server(workers=3, bound=0)
    for worker in (0, 1):
        found.push(worker, found.read(worker).ticket, [np.ones(1)])
    assert found.blockers(0) == [2]
    found.change([0, 1])
    assert found.parameters[0].data == 0
    for worker in (0, 1):
        share = found.read(worker)
        assert (share.clock, share.rank, share.size) == (0, worker, 2)
        found.push(worker, share.ticket, [np.ones(1)], loss=0.5)
    assert found.parameters[0].data == -2
    assert found.take_steps() == [(0, 1.0)]


def test_a_step_is_a_batch_of_gradients_whoever_pushed_them():
    found = server(workers=2, bound=None)
    for i in range(4):
        found.push(0, found.read(0).ticket, [np.ones(1)], loss=i)
    assert found.take_steps() == [(0, 0 + 1), (1, 2 + 3)]
    found.change([0])
    found.push(0, found.read(0).ticket, [np.ones(1)], loss=9)
    assert found.take_steps() == [(2, 9)]
    assert found.step == 3


def test_time_that_one_waits_is_charged_to_the_slowest():
    found = server(workers=3, bound=0)
    tickets = [found.read(worker).ticket for worker in range(3)]

    def push(worker, now):
        found.push(worker, tickets[worker], [np.ones(1)])
        found.ask(worker, now)
        return found.take_ready(now)

    assert push(0, 1.0) == []
    assert push(1, 3.0) == []
    assert push(2, 7.0) == [0, 1, 2]
    assert found.waited_s == {(0, 1): 2.0, (0, 2): 4.0, (1, 2): 4.0}


@pytest.mark.parametrize(("text", "bound"), [("0", 0), ("12", 12), ("inf", None)])
def test_a_bound_as_it_is_typed(text, bound):
    assert parse_bound(text) == bound
    with pytest.raises(TrainingError, match=r"a staleness is 0, 1, 2, … or inf, not '-"):
        parse_bound(f"-{text}")


WORDS = Job("transformer", "topics", steps=6, batch=6, width=16, depth=1, heads=2)
LIVES = [member(name, f"{name}.1") for name in ("w1", "w2", "w3")]


@pytest.mark.parametrize("dies", [False, True])
def test_bound_zero_on_processes_is_a_synchronous_run_bit_for_bit(dies):
    """What crosses the wire is pushed and read; in the fourth step the third worker dies."""
    alone, sizes = Learner(WORDS), [3, 3, 3, *([2] * 3 if dies else [3] * 3)]
    expected = []
    for step, size in enumerate(sizes):
        parts = [alone.gradient(step, rank, size) for rank in range(size)]
        expected.append((step, alone.apply(sum(parts[1:], parts[0])), alone.checksum()))
    learner, workers = Learner(WORDS), [Learner(WORDS) for _ in LIVES]
    record = Record(1, 0, tuple(LIVES))
    reign = Reign(member("ps"), learner, record, bound=0, every=2)
    said, kept = [], []

    def work(live):
        for life, share in reign.read(0.0):
            assert share.clock == reign.core.step
            flat = np.concatenate([array.reshape(-1) for array in share.parameters])
            me = workers[[m.life for m in LIVES].index(life)]
            me.put(flat)
            data = me.gradient(share.clock, share.rank, share.size).tobytes()
            assert len(data) == reign.push_bytes
            if life in live:
                counted, done = reign.push(life, share.ticket, data)
                assert counted
                assert not reign.push(life, share.ticket, data)[0]
                said.extend((d.step, d.loss, d.checksum) for d in done)
                kept.extend(d.kept.step for d in done if d.kept)
                reign.core.ask(life, 0.0)

    lives = [m.life for m in LIVES]
    for life in lives:
        reign.core.ask(life, 0.0)
    for _ in range(3):
        work(lives)
    if dies:
        work(lives[:2])
        lives = lives[:2]
        reign.follow(record.changed(["w3.1"], []))
    for _ in range(4):
        work(lives)
    assert said == expected
    assert kept == [2, 4, 6]
    assert reign.read(0.0) == [], "it is over, and nobody reads"


class Server(RuleBasedStateMachine):
    """Any order of reads, pushes, comings and goings, against the definition of the bound."""

    bound: int | None = 1

    def __init__(self):
        super().__init__()
        self.server = server(3, self.bound)
        self.clocks = dict.fromkeys(range(3), 0)  # ours: what each has done
        self.born = 3
        self.asked, self.tickets, self.ended = set(), {}, []
        self.open = set()  # bound 0: who has pushed for the clock that is open
        self.applied = 0
        self.now = 0.0

    def slowest(self):
        return min(self.clocks.values())

    @rule(data=st.data())
    def ask(self, data):
        worker = data.draw(st.sampled_from(sorted(self.clocks)))
        self.server.ask(worker, self.now)
        self.asked.add(worker)
        self.wake()

    def wake(self):
        """After each event: whoever may read, reads."""
        self.now += 1
        ready = self.server.take_ready(self.now)
        least = None if self.bound is None else self.slowest() + self.bound
        may = {w for w in self.asked if least is None or self.clocks[w] <= least}
        assert set(ready) == may
        assert len(ready) == len(may)
        self.asked -= may
        for worker in ready:
            if worker in self.tickets:
                self.ended.append((worker, self.tickets[worker]))
            share = self.server.read(worker)
            assert share.clock == self.clocks[worker]
            assert (share.rank, share.size) == (list(self.clocks).index(worker), len(self.clocks))
            self.tickets[worker] = share.ticket

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def push(self, data):
        worker = data.draw(st.sampled_from(sorted(self.tickets)))
        ticket = self.tickets.pop(worker)
        assert self.server.push(worker, ticket, [np.ones(1)])
        self.ended.append((worker, ticket))
        self.clocks[worker] += 1
        if self.bound == 0:
            self.open.add(worker)
            if self.open == set(self.clocks):
                self.applied += len(self.open)
                self.open.clear()
        else:
            self.applied += 1
        self.wake()

    @precondition(lambda self: self.ended)
    @rule(data=st.data())
    def push_again(self, data):
        worker, ticket = data.draw(st.sampled_from(self.ended))
        assert not self.server.push(worker, ticket, [np.ones(1)])

    @rule(data=st.data(), comes=st.booleans())
    def change(self, data, comes):
        gone = data.draw(st.sampled_from([None, *self.clocks]))
        stay = [worker for worker in self.clocks if worker != gone]
        self.born += comes
        after = stay + [self.born] * comes
        if not after or after == list(self.clocks):
            self.server.change(self.clocks)  # the same: nothing ends
            return
        for worker in self.open:
            self.clocks[worker] -= 1
        self.open.clear()
        slowest = min([self.clocks[w] for w in stay], default=self.server.step)
        self.clocks = {worker: self.clocks.get(worker, slowest) for worker in after}
        self.asked &= set(after)
        self.ended += self.tickets.items()
        self.tickets.clear()
        self.server.change(after)
        self.wake()

    @invariant()
    def nothing_is_lost_or_applied_twice(self):
        assert -self.server.parameters[0].data[0] == self.applied

    @invariant()
    def nobody_is_further_ahead_than_the_bound_and_what_is_read_allow(self):
        assert self.server.clocks == self.clocks
        if self.bound is not None:
            assert max(self.clocks.values()) - self.slowest() <= self.bound + 1
            for worker in self.tickets:
                assert self.clocks[worker] - self.slowest() <= self.bound

    @invariant()
    def somebody_may_always_go_on(self):
        assert self.tickets or any(not self.server.blockers(w) for w in self.clocks)


class Synchronous(Server):
    bound = 0


class Unbounded(Server):
    bound = None


for machine in (Server, Synchronous, Unbounded):
    machine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestServer = Server.TestCase
TestSynchronous = Synchronous.TestCase
TestUnbounded = Unbounded.TestCase
