"""Death at every step of every schedule, in any order: one outcome, never a wrong number."""

from __future__ import annotations

import random

import pytest
from ddp_sim_kit import judge, one_call

from ddp.call import Call
from ddp.errors import Fenced, RankLost
from ddp.schedules.catalogue import ALLREDUCE
from ddp.simulation import Simulation


@pytest.mark.parametrize("algorithm", ALLREDUCE)
def test_any_order_of_arrival_gives_the_sum(algorithm):
    for seed in range(20):
        assert judge(*one_call(algorithm, 5, seed), algorithm) == "sum"


@pytest.mark.parametrize("algorithm", ALLREDUCE)
def test_a_death_at_every_step_leaves_all_survivors_with_the_sum_or_all_with_an_error(algorithm):
    size, seen = 4, set()
    steps = one_call(algorithm, size, 0)[0].delivered
    assert steps > 10
    for step in range(steps + 1):
        for victim in range(size):
            seed = step * size + victim
            found = one_call(algorithm, size, seed, kill={victim: step})
            seen.add(judge(*found, algorithm))
            for engine in found[0].engines:
                if engine.rank != victim and victim in found[0].dead:
                    assert f"rank {victim} is gone" in str(engine.broken)
    assert seen == {"sum", "error"}, "both must have been seen, or this tested nothing"


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
