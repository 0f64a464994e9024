"""Look-ups of all three forms among the dead and the silent: whole peers in virtual time."""

from __future__ import annotations

from functools import partial

import pytest
from dht_kit import SimulatedRing, run
from dht_lookup_kit import (
    LOSSES,
    MODES,
    OPTIONS,
    after,
    look_up,
    lost_in_the_middle,
    no_way_there,
    places,
    stand_still,
)

from dht.chord.ring import key_id
from dht.client import NotReached

OWNED = 5  # the place of who owns the target


@pytest.mark.parametrize("how", ["dead", "paused"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("lost", LOSSES)
def test_a_look_up_goes_round_the_dead_before_anybody_has_repaired_anything(mode, lost, how):
    run(partial(after, mode=mode, lost=LOSSES[lost], how=how), **OPTIONS)


def test_a_hop_that_stops_with_the_question_in_its_hands_is_passed_over():
    run(lost_in_the_middle, **OPTIONS)


def test_a_hop_that_finds_no_way_is_not_the_end():
    run(no_way_there, **OPTIONS)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("entrances", "times_s"),
    # Later the first has noticed that it is alone, and owns everything.
    [("silent", (0.25, 1.0, 2.5)), ("lead to the silent", (0.1, 0.25))],
)
def test_there_is_one_deadline_for_all_hops_and_entrances(mode, entrances, times_s):
    async def scenario(ring: SimulatedRing):
        client, order = await places(ring)
        client._start = list(order)
        for member in order if entrances == "silent" else order[1:]:
            ring.world.pause(member.name)
        for timeout_s in times_s:
            began = ring.world.now
            with pytest.raises(NotReached, match="in time"):
                await look_up(client, order[4].id, mode, timeout_s)
            assert timeout_s - 0.01 <= ring.world.now - began <= timeout_s + 0.01

    run(scenario, count=6, settings={"vnodes": 1, "successors": 2})


@pytest.mark.parametrize("mode", MODES)
def test_a_newcomer_of_whom_only_its_successor_knows_is_found(mode):
    """It has joined, and notified; its predecessor has not stabilised yet."""

    async def scenario(ring: SimulatedRing):
        client, order = await places(ring)
        new = order[OWNED]
        for member in order:
            core = ring.services[member.name].members[0].core
            core.succ[:] = core._padded(c for c in core.succ if c not in (new, order[0]))
            core.fingers = {i: f for i, f in core.fingers.items() if f != new}
            core._table = None
        stand_still(ring)
        path = await look_up(client, new.id, mode)
        assert path.owner == new
        assert path.hops[-2:] == (order[OWNED + 1], new)

    run(scenario, **OPTIONS)


@pytest.mark.parametrize("mode", MODES)
def test_in_a_whole_ring_with_several_identifiers_a_process_all_agree(mode):
    async def scenario(ring: SimulatedRing):
        await ring.ideal()
        client, order = await ring.client(), sorted(ring.ring())
        for i in range(20):
            target = key_id(b"k%d" % i)
            right = next((me for me in order if me.id >= target), order[0])
            path = await look_up(client, target, mode)
            assert (path.owner, path.timeouts) == (right, ())

    run(scenario, count=4, settings={"vnodes": 4})
