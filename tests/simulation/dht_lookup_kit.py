"""Look-ups in a ring that has just lost some members, before anybody can have repaired anything.

Eight peers of one identifier each, in the order of the circle; the target is the sixth's. The
client knows the first alone, so the question has some way to go.
"""

from __future__ import annotations

import asyncio

from dht_kit import SimulatedRing

from dht.chord.ring import Contact
from dht.client import DhtClient
from dht.results import Path

OPTIONS = {"count": 8, "settings": {"vnodes": 1}}
MODES = ("iterative", "recursive", "walk")

OWNER = 5
# In places of the circle. The owner is the sixth unless it is among them, then the next that lives.
LOSSES = {
    "nobody": (),
    "the owner": (5,),
    "the two before it": (3, 4),
    "the two before it, and it": (3, 4, 5),
    "three on the way": (1, 2, 3),
    "the owner and the two behind it": (5, 6, 7),
}

# A hop that does not answer costs at the most HOP_S of the client or twice the peers' time-out.
A_DEAD_HOP_S = 0.6


async def places(ring: SimulatedRing) -> tuple[DhtClient, list[Contact]]:
    """(a client that knows the first, the members in order), with fingers and an ideal ring."""
    await ring.ideal()
    await asyncio.sleep(3)  # for the fingers
    client = await ring.client()
    order = sorted(ring.ring())
    client._start = order[:1]
    return client, order


def stand_still(ring: SimulatedRing) -> None:
    """Nobody stabilises any more: a look-up has the ring as it is."""
    for member in ring.members():
        core = member.core
        core._stabilise_at = core._finger_at = core._probe_at = ring.world.now + 60


async def look_up(client: DhtClient, target: int, mode: str, timeout_s: float = 5.0) -> Path:
    """As DhtClient.lookup, for an identifier."""
    if mode == "recursive":
        return await client.find_recursively(target, timeout_s=timeout_s)
    return await client.find(target, walk=mode == "walk", timeout_s=timeout_s)


async def after(ring: SimulatedRing, mode: str, lost: tuple[int, ...], how: str) -> None:
    """The first that lives at or behind the target is found at once, whoever was lost."""
    client, order = await places(ring)
    alive = [me for at, me in enumerate(order) if at not in lost]
    right = next(me for me in alive if me.id >= order[OWNER].id) if lost != (5, 6, 7) else order[0]
    for at in lost:
        (ring.world.crash if how == "dead" else ring.world.pause)(order[at].name)
    stand_still(ring)
    path = await look_up(client, order[OWNER].id, mode)
    assert path.owner == right, (path, order)
    assert path.hops[0] == order[0]
    assert path.hops[-1] == right
    assert not {order[at] for at in lost} & set(path.hops)
    assert set(path.timeouts) <= {order[at] for at in lost}
    assert path.seconds <= len(lost) * A_DEAD_HOP_S + 0.1, path
    if mode == "walk":
        reached = order.index(right) or len(order)
        assert list(path.hops) == [order[at % len(order)] for at in range(reached + 1)
                                   if at not in lost]  # fmt: skip


async def lost_in_the_middle(ring: SimulatedRing) -> None:
    """A hop that has taken the question, and stops while it works on it, is passed over."""
    client, order = await places(ring)
    # The third alone leads on, as far as the first knows; it waits for the fifth, and stops.
    for at in (3, 4):
        ring.world.pause(order[at].name)
    first = ring.services[order[0].name].members[0].core
    first.fingers.clear()
    first.succ[:] = first._padded(order[1:3])
    first._table = None
    ring.services[order[2].name].members[0].core.fingers.clear()
    ring.services[order[2].name].members[0].core._table = None
    asked = asyncio.ensure_future(client.find_recursively(order[OWNER].id))
    await asyncio.sleep(0.1)
    ring.world.pause(order[2].name)
    path = await asked
    assert path.owner == order[OWNER]
    assert order[2] in path.timeouts
    assert path.hops[:2] == (order[0], order[1])


async def no_way_there(ring: SimulatedRing) -> None:
    """A hop all of whose contacts on the way are dead says so, and another one is asked."""
    client, order = await places(ring)
    ring.world.crash(order[4].name)
    # The fourth knows only the fifth and nobody behind it; the third knows all.
    lost = ring.services[order[3].name].members[0].core
    lost.fingers.clear()
    lost.succ[:] = lost._padded(order[4:5])
    lost._table = None
    stand_still(ring)
    path = await look_up(client, order[OWNER].id, "recursive")
    assert path.owner == order[OWNER]
    assert order[3] not in path.hops
    assert path.timeouts == (order[4],)
