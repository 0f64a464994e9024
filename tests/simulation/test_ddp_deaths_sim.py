"""Death at every step of every schedule, in any order: one outcome, never a wrong number."""

from __future__ import annotations

import random

import pytest
from ddp_sim_kit import WAYS, N, algorithms_of, deaths, go, inputs, judge, one_call

from ddp.call import Call
from ddp.errors import Fenced, RankLost
from ddp.frames import Type
from ddp.schedules.catalogue import ALLREDUCE, KINDS
from ddp.simulation import Simulation

EVERY = [pair for kind in KINDS for pair in algorithms_of(kind, ALLREDUCE)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("kind", "algorithm"), EVERY)
def test_any_order_of_arrival_gives_the_sum(kind, algorithm, way, monkeypatch):
    go(way, monkeypatch)
    for seed in range(8):
        found = one_call(algorithm, 5, seed, kind=kind)
        assert judge(*found, algorithm, kind=kind) == "sum"


@pytest.mark.parametrize(("kind", "algorithm"), EVERY)
def test_a_death_at_every_step_leaves_all_survivors_with_the_sum_or_all_with_an_error(
    kind, algorithm
):
    seen = deaths(kind, algorithm, 4)
    assert seen == {"sum", "error"}, "both must have been seen, or this tested nothing"


def test_the_ways_are_what_they_are_called(monkeypatch):
    call = Call("allreduce", "ring", "sum", "float32", N)
    found = {}
    for way in WAYS:
        with monkeypatch.context() as patch:
            go(way, patch)
            world = Simulation(3, 0)
            operation = world.call(0, call, inputs("allreduce", N, 0, 3))
            leaving = [f for _, f in world.engines[0].take_outputs() if f.type is Type.DATA]
            held = [frame for frames in operation.held.values() for frame in frames]
            slices = {frame.slice for frame in leaving + held}
            found[way] = (len(leaving), len(held), len(slices))
    # In its first round of a ring of three a rank sends a third of the vector, 32 bytes at most.
    assert found == {
        "eager": (1, 0, 1),
        "held": (0, 1, 1),
        "pieces": (0, 2, 1),
        "slices": (2, 0, 2),
    }


@pytest.mark.parametrize("algorithm", ALLREDUCE)
def test_a_mean_is_the_same_whether_its_vector_is_copied_or_not(algorithm, monkeypatch):
    call = Call("allreduce", algorithm, "mean", "float32", N)
    found = []
    for way in ("eager", "held"):
        with monkeypatch.context() as patch:
            go(way, patch)
            for seed in range(8):
                world = Simulation(5, seed)
                vectors = [inputs("allreduce", N, rank, 5) for rank in range(5)]
                operations = world.all_call(call, vectors)
                world.run()
                assert all(op.ended and op.error is None for op in operations)
                found += [vector.tobytes() for vector in vectors]
    assert len(set(found)) == 1


@pytest.mark.parametrize("way", [way for way in WAYS if way != "eager"])
@pytest.mark.parametrize(("kind", "algorithm"), EVERY)
def test_deaths_while_a_vector_is_held_or_cut(kind, algorithm, way, monkeypatch):
    go(way, monkeypatch)
    assert deaths(kind, algorithm, 4, every=23) >= {"error"}


@pytest.mark.slow
@pytest.mark.parametrize("size", [3, 4, 5])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("kind", "algorithm"), EVERY)
def test_a_death_at_every_step_of_every_way(kind, algorithm, way, size, monkeypatch):
    go(way, monkeypatch)
    assert deaths(kind, algorithm, size) == {"sum", "error"}


@pytest.mark.parametrize("algorithm", ["ring", "sharded-server", "double-tree"])
def test_deaths_with_a_vector_of_more_than_a_slice_and_pieces_that_are_held(algorithm):
    """As it is in earnest: above 64 KB pieces wait for their receiver, above 4 MB there are more
    slices than one."""
    for n, every in ((100_000, 41), (1_200_000, 211)):
        assert "error" in deaths("allreduce", algorithm, 3, n=n, every=every)


@pytest.mark.parametrize("algorithm", ["ring", "double-tree", "sharded-server", "halving-doubling"])
def test_two_deaths_too(algorithm):
    size, dice, seen = 5, random.Random(1), set()
    for seed in range(250):
        first, second = dice.sample(range(size), 2)
        kill = {first: dice.randrange(120), second: dice.randrange(120)}
        seen.add(judge(*one_call(algorithm, size, seed, kill=kill), algorithm))
    assert seen == {"sum", "error"}


def test_a_death_before_the_call_is_an_error_of_all():
    for seed in range(20):
        found = one_call("ring", 3, seed, kill={1: 0})
        assert judge(*found, "ring") == "error"


def test_who_has_not_begun_when_a_rank_dies_tells_those_who_have():
    import numpy as np

    world = Simulation(3, 1)
    call = Call("allreduce", "recursive-doubling", "sum", "float64", 4)
    operations = [world.call(rank, call, np.ones(4)) for rank in (0, 1)]
    world.kill(1)
    world.run()
    assert operations[0].ended
    assert isinstance(operations[0].error, RankLost)
    assert isinstance(world.call(2, call, np.ones(4)), RankLost)


def test_a_rank_of_an_epoch_that_is_over_is_fenced_off():
    """Stopped, given up and continued: what it sends counts for nothing, and it is told so."""
    import numpy as np

    world = Simulation(2, 3, epoch=1)
    world.engines[0].epoch = 2  # the others have gone on without rank 1
    call = Call("allreduce", "ring", "sum", "float64", 4)
    mine = world.call(0, call, np.ones(4))
    stale = world.call(1, call, np.full(4, 1e9))
    world.run()
    assert isinstance(stale.error, Fenced)
    assert "epoch 1 is over" in str(stale.error)
    assert not mine.part_done
    assert world.engines[0].counters["stale"] > 0


def test_a_seed_is_a_history():
    def story(seed):
        world, *_ = one_call("double-tree", 5, seed, kill={3: 40})
        return world.delivered, [e.recorder.records[-1].outcome for e in world.engines]

    assert story(5) == story(5)
