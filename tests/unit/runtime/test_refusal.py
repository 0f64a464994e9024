"""Whether nobody listens at an address: asked of the kernel, of bad links, of the simulation."""

from __future__ import annotations

import random

import pytest
from endpoint_kit import LOCALHOST, Net, nets, scene, turns
from runtime_kit import Hands, Later
from world_kit import address, passes, radio_world

from netstack.runtime.faulty_endpoint import FaultyEndpoint
from netstack.runtime.policy import LinkPolicy, LinkTable


@pytest.fixture(params=nets())
def net(request):
    made = Net(*request.param)
    yield made
    made.close()


class TestARealSocket:
    @scene
    async def test_is_refused_where_nobody_is_bound(self, net):
        here, there = await net.bind(), await net.bind()
        assert not here.refuses(there.address)
        net.shut(there)
        await turns(3)
        assert here.refuses(there.address)

    @scene
    async def test_goes_on_as_before(self, net):
        """An answer of the kernel must not be taken for one to what is sent."""
        here, there, inbox = await net.pair()
        nobody = await net.bind()
        net.shut(nobody)
        await turns(3)
        for number in range(20):
            assert here.refuses(nobody.address)
            here.send([b"%d" % number], there.address)
        assert await inbox.until(20) == [b"%d" % number for number in range(20)]
        assert here.send_failures == 0

    @scene
    async def test_that_is_asked_for_hears_an_empty_datagram(self, net):
        here, there, inbox = await net.pair()
        here.refuses(there.address)
        here.send([b"x"], there.address)
        assert await inbox.until(2) == [b"", b"x"]


class Absent:
    """An endpoint to which every address is refused."""

    address = (LOCALHOST, 7401)

    def refuses(self, destination):
        return True


THERE = (LOCALHOST, 7402)


class TestABadLink:
    @pytest.mark.parametrize(
        ("policy", "refused"),
        [
            (LinkPolicy(duplicate=1.0), True),
            (LinkPolicy(cut=True), False),
            (LinkPolicy(loss=1.0), False),
            (LinkPolicy(delay_s=0.5), False),
        ],
    )
    def test_brings_no_refusal_that_it_would_lose_or_hold_up(self, policy, refused):
        links = LinkTable(random.Random(1))
        links.set(THERE, policy)
        endpoint = FaultyEndpoint(Absent(), links, Hands().clock, Later())
        assert endpoint.refuses(THERE) is refused
        assert endpoint.refuses((LOCALHOST, 7403))


@pytest.fixture
def radio():
    world, radio = radio_world()
    yield world, radio
    world.close()


class TestASimulatedProcess:
    def test_is_missed_when_it_was_killed_and_not_when_it_is_paused(self, radio):
        world, radio = radio
        ours = radio.endpoints["n1"]
        world.pause("n2")
        assert not ours.refuses(address("n2"))
        world.crash("n2")
        assert ours.refuses(address("n2"))
        world.restart("n2")
        passes(world, 0.001)
        assert not ours.refuses(address("n2"))

    def test_is_not_missed_from_behind_a_cut_nor_from_far_away(self, radio):
        world, radio = radio
        ours = radio.endpoints["n1"]
        world.crash("n2")
        world.network.partition([["n1"], ["n2", "n3"]])
        assert not ours.refuses(address("n2"))
        world.network.heal()
        world.network.cut("n2", "n1")
        assert not ours.refuses(address("n2"))
        world.network.heal()
        assert ours.refuses(address("n2"))
        world.network.base_policy = LinkPolicy(delay_s=0.01)
        assert not ours.refuses(address("n2"))

    def test_that_is_dead_learns_nothing(self, radio):
        world, radio = radio
        ours = radio.endpoints["n1"]
        world.crash("n2")
        world.crash("n1")
        assert not ours.refuses(address("n2"))
