"""What executors count, on all ways, is what the lecture's table says and what a schedule costs."""

from __future__ import annotations

import numpy as np
import pytest
from ddp_kit import SharedRanks, results

from ddp.call import Call
from ddp.client import cost_table
from ddp.execution import Execution
from ddp.recorder import Record
from ddp.schedules.catalogue import ALLREDUCE, SINGLE, schedule_of
from ddp.schedules.checker import count
from ddp.schedules.costs import table, tree_bounds
from ddp.segment import usable
from ddp.simulation import Simulation

SIZES = range(2, 10)
BYTES = 4


def counted(kind, algorithm, size, n, seed=0):
    """(rounds, bytes by rank, fan-in) of one call in a simulation."""
    world = Simulation(size, seed)
    call = Call(kind, algorithm, "sum", "float32", n)
    started = world.all_call(call, [np.ones(n, np.float32) for _ in range(size)])
    world.run()
    records = [operation.record for operation in started]
    assert {record.outcome for record in records} == {"done"}
    return joined(records)


def joined(records: list[Record]):
    rounds, fan_in = (max(getattr(r, name) for r in records) for name in ("rounds", "fan_in"))
    return rounds, [record.sent for record in records], fan_in


def agrees(algorithm, size, n, found):
    """Whether it is the row of the table (the double tree's: within its bounds)."""
    rounds, sent, fan_in = found
    most, mean = max(sent) / (BYTES * n), sum(sent) / size / (BYTES * n)
    row = tree_bounds(size) if algorithm == "double-tree" else table(algorithm, size)
    if row is None:
        return None
    if algorithm == "double-tree":
        within = most <= row.sent_max + 1e-9 and fan_in <= row.fan_in
        return within and (rounds, mean) == (row.rounds, pytest.approx(row.sent_mean))
    expected = (row.rounds, pytest.approx(row.sent_max), pytest.approx(row.sent_mean), row.fan_in)
    return (rounds, most, mean, fan_in) == expected


@pytest.mark.parametrize("algorithm", ALLREDUCE)
def test_executors_count_what_the_table_says(algorithm):
    asked = 0
    for size in SIZES:
        n = size * 16 * (size - 1)  # the shares of workers and of all ranks are whole
        if algorithm == "hierarchical":
            n *= -(-size // 2)
        found = counted("allreduce", algorithm, size, n)
        cost = count(schedule_of("allreduce", algorithm, size), n)
        assert found == (cost.rounds, [BYTES * e for e in cost.sent], cost.fan_in), size
        verdict = agrees(algorithm, size, n, found)
        assert verdict is not False, (size, found)
        asked += verdict is True
    assert asked >= (3 if "doubling" in algorithm else len(SIZES))


@pytest.mark.parametrize("kind", SINGLE)
def test_executors_count_what_other_schedules_cost(kind):
    for size in SIZES:
        n = 12 * size
        cost = count(schedule_of(kind, SINGLE[kind], size), n)
        expected = (cost.rounds, [BYTES * e for e in cost.sent], cost.fan_in)
        assert counted(kind, SINGLE[kind], size, n) == expected, size


@pytest.mark.skipif(not usable(), reason="shared memory is for Linux on x86-64")
@pytest.mark.parametrize("size", SIZES)
def test_a_direct_sum_counts_what_the_table_says_and_what_one_shows_others_take(size):
    names = ["sharded-server"] + ["recursive-doubling"] * (size == 2)
    n = 504 * size  # more than a window, and the shares are whole

    def work(group):
        found = []
        for name in names:
            before = group.counters["received_bytes"]
            group.allreduce(np.ones(n, np.float32), algorithm=name)
            taken = group.counters["received_bytes"] - before
            found.append((group.fabric.engine.recorder.records[-1], taken))
        return found

    with SharedRanks(size, window=4 * 252 * size) as groups:
        for name, ranks in zip(names, zip(*results(groups, work), strict=True), strict=True):
            found = joined([record for record, _ in ranks])
            assert agrees(name, size, n, found), found
            assert sum(found[1]) == sum(taken for _, taken in ranks)


@pytest.mark.parametrize("ranks", [2, 5, 8])
def test_the_table_that_is_printed_agrees_with_its_formulas(ranks):
    rows = cost_table(ranks, 420 * ranks)
    assert [row["algorithm"] for row in rows] == list(ALLREDUCE)
    assert not [row for row in rows if row["equal"] is False]
    assert sum(row["equal"] is True for row in rows) >= 8


class SendsTwice(Execution):
    """The first round goes out again."""

    def _send(self, round_, t):
        super()._send(round_, t)
        if round_ == 0:
            self.outbox.append(self.outbox[-1])


class IgnoresSome(Execution):
    """Takes a piece without having been sent it."""

    def _next_turn(self):
        super()._next_turn()
        if self._due and self._turns[self._at].round == 0 and len(self._due) > 1:
            gone = self._due.pop()
            self._to_come.discard((0, gone.src, gone.lo))


@pytest.mark.parametrize(("at", "bug"), [(1, SendsTwice), (2, IgnoresSome)])
def test_the_counts_are_of_what_happened(monkeypatch, at, bug):
    """An executor that does something else than its schedule counts something else."""
    from ddp.call import Call
    from ddp.schedules.schedule import Action, Schedule, Transfer

    both = tuple(Transfer(src, 0, 0, 1, Action.REDUCE) for src in (1, 2))
    schedule = Schedule("both at once", 3, 1, (both,))
    call = Call("allreduce", "both at once", "sum", "float32", 8)

    def run(make):
        made = [make(schedule, r, np.ones(8, np.float32), call) for r in range(3)]
        for execution in made:
            execution.begin()
        sent = sum(len(piece.data) for execution in made for piece in execution.outbox)
        for src in (1, 2):
            piece = made[src].outbox[0]
            if (0, src, 0) in made[0]._to_come:
                made[0].receive(src, piece.round, piece.lo, piece.offset, piece.data)
        return made[0].rounds, sent, made[0].fan_in

    assert run(Execution) == (1, 64, 2)
    assert run(bug)[at] != (1, 64, 2)[at]
