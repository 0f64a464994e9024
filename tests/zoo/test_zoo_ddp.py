"""The zoo of collectives: planted bugs, each caught by the check that claims to catch its kind."""

from __future__ import annotations

import sys
from pathlib import Path

import ddp_bugs
import numpy as np
import pytest

from ddp import engine as engine_module
from ddp import operation as operation_module
from ddp.call import Call
from ddp.direct import Way
from ddp.engine import Engine
from ddp.schedules.checker import WrongSchedule, prove
from ddp.simulation import Simulation

sys.path.insert(0, str(Path(__file__).parent.parent / "simulation"))
from ddp_direct_kit import Exploration, Wrong
from ddp_sim_kit import go, judge, one_call


def test_an_off_by_one_chunk_is_caught_by_the_proof():
    with pytest.raises(WrongSchedule):
        prove(ddp_bugs.ring_off_by_one(5), "allreduce")


def test_a_leaf_counted_twice_is_caught_by_the_proof():
    with pytest.raises(WrongSchedule, match="counted twice"):
        prove(ddp_bugs.tree_with_a_leaf_counted_twice(7), "allreduce")


def bits(seed, execution, monkeypatch):
    """What a sum of three very different numbers comes to under a seed."""
    monkeypatch.setattr(operation_module, "Execution", execution)
    world = Simulation(4, seed)
    vectors = [np.full(4, value, np.float32) for value in (1e8, 1.0, -1e8, 3.0)]
    world.all_call(Call("allreduce", "sharded-server", "sum", "float32", 4), vectors)
    world.run()
    return vectors[1].tobytes()


def test_sums_in_the_order_of_arrival_are_caught_by_comparing_runs(monkeypatch):
    from ddp.execution import Execution

    assert len({bits(seed, Execution, monkeypatch) for seed in range(20)}) == 1
    assert len({bits(seed, ddp_bugs.AddsAsItComes, monkeypatch) for seed in range(20)}) > 1


def test_a_dropped_piece_is_caught_by_verifiable_inputs(monkeypatch):
    monkeypatch.setattr(operation_module, "Execution", ddp_bugs.DropsAPiece)
    with pytest.raises(AssertionError, match="a wrong number"):
        judge(*one_call("ring", 4, 1), "ring")


def campaign(make):
    """Deaths at every step of a ring of four."""
    for step in range(60):
        for victim in range(4):
            found = one_call("ring", 4, step * 4 + victim, kill={victim: step}, make=make)
            judge(*found, "ring")


def test_the_campaign_passes_without_a_bug():
    campaign(Engine)


def test_who_does_not_ask_the_others_is_caught_by_deaths_at_every_step():
    with pytest.raises(AssertionError, match=r"survivors disagree|hangs"):
        campaign(ddp_bugs.ReturnsWhenItsOwnPartIsDone)


def test_what_was_held_and_forgotten_is_caught_where_vectors_are_held(monkeypatch):
    go("held", monkeypatch)
    assert judge(*one_call("ring", 3, 1), "ring") == "sum"
    with pytest.raises(AssertionError, match="hangs"):
        judge(*one_call("ring", 3, 1, make=ddp_bugs.ForgetsWhatItHeld), "ring")


@pytest.mark.parametrize("algorithm", ["recursive-doubling", "naive-shift"])
def test_what_is_overwritten_before_it_is_read_is_caught_where_vectors_are_lent(
    algorithm, monkeypatch
):
    go("pieces", monkeypatch)
    for seed in range(8):
        assert judge(*one_call(algorithm, 4, seed), algorithm) == "sum"
    monkeypatch.setattr(operation_module, "Execution", ddp_bugs.LendsEverything)
    with pytest.raises(AssertionError, match="a wrong number"):
        [judge(*one_call(algorithm, 4, seed), algorithm) for seed in range(8)]


def in_slices(seeds=20):
    """How sums of several slices end."""
    return {judge(*one_call("ring", 3, seed), "ring") for seed in range(seeds)}


def test_pieces_of_another_slice_are_caught_where_there_are_several(monkeypatch):
    go("slices", monkeypatch)
    assert in_slices() == {"sum"}
    monkeypatch.setattr(engine_module, "Operation", ddp_bugs.TakesSlicesAsTheyCome)
    assert in_slices() != {"sum"}


def stale(make):
    """Rank 1 is of an epoch that is over; whether its numbers were added."""
    world = Simulation(2, 3, make=make)
    world.engines[0].epoch = 2
    vector = np.ones(4)
    call = Call("allreduce", "ring", "sum", "float64", 4)
    operation = world.call(0, call, vector)
    world.call(1, call, np.full(4, 1e9))
    world.run()
    return operation.part_done


def test_a_stale_epoch_that_is_accepted_is_caught():
    assert not stale(Engine)
    assert stale(ddp_bugs.TakesStaleEpochs)


def mismatched(make):
    """Two reductions under one number; whether anybody returned a number."""
    world = Simulation(2, 5, make=make)
    found = [
        world.call(rank, Call("allreduce", "ring", op, "float64", 4), np.full(4, rank + 1.0))
        for rank, op in enumerate(("sum", "max"))
    ]
    world.run()
    return any(operation.ended and operation.error is None for operation in found)


def test_calls_that_are_not_compared_are_caught():
    assert not mismatched(Engine)
    assert mismatched(ddp_bugs.DoesNotCompareCalls)


@pytest.mark.parametrize(
    ("bug", "faults", "caught"),
    [
        (ddp_bugs.fails_when_anybody_is_dead, {"deaths": 1}, "survivors disagree"),
        (ddp_bugs.takes_the_suspected_for_frozen, {"suspicions": 1}, "survivors disagree"),
        (ddp_bugs.never_hopeless, {"deaths": 1}, "nothing moves"),
    ],
)
def test_who_gives_up_a_direct_sum_for_the_wrong_reason_is_caught(bug, faults, caught):
    Exploration(3, **faults).run()
    with pytest.raises(Wrong, match=caught):
        Exploration(3, hopeless=bug, **faults).run()


def test_who_adds_before_all_have_filled_is_caught():
    with pytest.raises(Wrong, match="what is not there"):
        Exploration(3, program=ddp_bugs.adds_before_all_have_filled).run()


@pytest.mark.parametrize(
    ("bug", "faults", "caught"),
    [
        (ddp_bugs.returns_before_all_have_taken, {}, "who has returned"),
        (ddp_bugs.takes_before_it_was_read, {}, "has not added|has overwritten"),
        (ddp_bugs.trusts_what_it_has_read, {"impatient": True}, "nobody's"),
        (ddp_bugs.trusts_what_it_has_read, {"deaths": 1}, "nobody's"),
    ],
)
def test_who_reads_vectors_of_those_who_may_have_gone_on_is_caught(bug, faults, caught):
    Exploration(2, ways=[Way.REACH], **faults).run()
    with pytest.raises(Wrong, match=caught):
        Exploration(2, ways=[Way.REACH], program=bug, **faults).run()


def test_who_fills_before_it_has_met_others_who_still_read_is_caught():
    ways = [Way.EXCHANGE, Way.SHARDS]
    Exploration(2, 2, ways=ways).run()
    with pytest.raises(Wrong, match="what is not there"):
        Exploration(2, 2, ways=ways, fills_early=ddp_bugs.fills_at_once).run()


def test_a_vector_without_elements_that_has_no_window_is_caught():
    """Its ranks part as soon as they have met: one with the sum, one that has met fewer without."""
    with pytest.raises(Wrong, match="survivors disagree"):
        Exploration(3, 0, deaths=1, program=ddp_bugs.without_windows).run()
