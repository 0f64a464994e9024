"""The same sending and receiving shells in a simulated world, where time is exact."""

from __future__ import annotations

import asyncio

import pytest

from netstack.arq.errors import GaveUp
from netstack.arq.nak import NakReceiver
from netstack.arq.segment import cut
from netstack.arq.shell import Inbox, Outgoing
from netstack.arq.sliding_window import SlidingWindowSender
from netstack.runtime.policy import LinkPolicy
from netstack.runtime.simulation.world import World

SENDER, RECEIVER = ("10.0.0.1", 7001), ("10.0.0.2", 7002)
DATA = bytes(range(256)) * 400
SEGMENTS = cut(914, DATA, 500)


@pytest.fixture
def world_of_two():
    worlds = []

    def make(seed: int = 1, **faults: float):
        worlds.append(World(seed))
        return two_nodes(worlds[-1], **faults)

    yield make
    for world in worlds:
        world.close()


def two_nodes(world: World, **faults: float):
    """A sending node with nothing to do yet, and a receiving one; (world, ways in, bytes)."""
    ways, got = {}, bytearray()
    world.network.base_policy = LinkPolicy(delay_s=0.035, **faults)

    async def sending(runtime):
        ways["send"] = runtime, await runtime.bind(SENDER)

    async def receiving(runtime):
        endpoint = await runtime.bind(RECEIVER)
        ways["inbox"] = Inbox(endpoint, lambda source: NakReceiver(), keep)

    def keep(source, receiver, data):
        got.extend(data)
        return True

    for name, start in (("n1", sending), ("n2", receiving)):
        world.add_node(name, start)
        world.restart(name)
    world.run(asyncio.sleep(0.001))
    return world, ways, got


def send(world, ways, sender) -> float:
    """How long it takes; raises GaveUp."""
    runtime, endpoint = ways["send"]
    began = world.loop.time()

    async def run():
        await Outgoing(runtime, endpoint, RECEIVER, sender).run()

    world.run(run())
    return world.loop.time() - began


def test_a_message_takes_the_rounds_of_its_window(world_of_two):
    world, ways, got = world_of_two()
    took = send(world, ways, SlidingWindowSender(SEGMENTS, 41))
    assert got == DATA
    assert took == pytest.approx(-(-len(SEGMENTS) // 41) * 0.07)


@pytest.mark.parametrize("seed", range(3))
def test_a_hostile_network_changes_the_time_and_nothing_else(world_of_two, seed):
    faults = {"loss": 0.1, "duplicate": 0.1, "reorder": 0.1, "corrupt": 0.1, "jitter_s": 0.02}
    world, ways, got = world_of_two(seed, **faults)
    sender = SlidingWindowSender(SEGMENTS, 41, tries_max=20)
    send(world, ways, sender)
    assert got == DATA
    assert sender.bytes_sent_again > 0


def test_a_receiver_that_crashes_is_given_up_when_the_tries_are_over(world_of_two):
    world, ways, got = world_of_two()
    world.loop.call_later(0.1, world.crash, "n2")
    sender = SlidingWindowSender(SEGMENTS, 10, tries_max=3)
    with pytest.raises(GaveUp, match=r"gave up after 3 tries, segment 11 of 205"):
        send(world, ways, sender)
    assert DATA.startswith(got)
    assert len(got) == 5_000


def test_a_receiver_that_comes_back_has_forgotten_and_the_sender_gives_up(world_of_two):
    world, ways, got = world_of_two()
    world.loop.call_later(0.1, world.crash, "n2")
    world.loop.call_later(0.15, world.restart, "n2")
    with pytest.raises(GaveUp):
        send(world, ways, SlidingWindowSender(SEGMENTS, 10, tries_max=3))
    assert DATA.startswith(got)
