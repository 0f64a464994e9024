"""What a client may rely on: versions, compare-and-swap, absence, quotas, large values, time."""

from __future__ import annotations

import asyncio

import pytest
from dht_kit import SimulatedRing, run

from dht.chord.ring import key_id
from dht.client import (
    Conflict,
    DhtError,
    Full,
    NotReached,
    OutcomeUnknown,
    Refused,
    Unsure,
)


def with_ring(**options):
    def decorate(scenario):
        def test():
            async def ready(ring: SimulatedRing):
                await ring.ideal()
                await scenario(ring, await ring.client())

            run(ready, **options)

        test.__name__, test.__doc__ = scenario.__name__, scenario.__doc__
        return test

    return decorate


@with_ring()
async def test_put_get_delete(ring, client):
    assert await client.get(b"key") is None
    stored = await client.put(b"key", b"one")
    assert stored.version == 1
    assert len(set(stored.acks)) == 3
    assert stored.acks[0] == stored.owner.name
    assert set(ring.holders(b"key")) == set(stored.acks)
    assert (await client.put(b"key", b"two")).version == 2
    found = await client.get(b"key")
    assert (found.value, found.version, found.sure) == (b"two", 2, True)
    await client.delete(b"key")
    assert await client.get(b"key") is None
    assert ring.holders(b"key") == []


@with_ring()
async def test_compare_and_swap(ring, client):
    assert (await client.put(b"key", b"a", expect=0)).version == 1
    with pytest.raises(Conflict, match="version 1, not 0") as caught:
        await client.put(b"key", b"b", expect=0)
    assert caught.value.version == 1
    assert (await client.put(b"key", b"c", expect=1)).version == 2
    with pytest.raises(Conflict):
        await client.delete(b"key", expect=1)
    await client.delete(b"key", expect=2)
    assert (await client.put(b"key", b"d", expect=0)).version == 4  # the deletion was the third


@with_ring()
async def test_of_many_that_swap_at_once_one_wins_each_version(ring, client):
    """A counter: as many increments as are acknowledged."""
    other = await ring.client("other")

    async def add(who, times: int) -> None:
        done = 0
        while done < times:
            found = await who.get(b"counter")
            version, count = (found.version, int(found.value)) if found else (0, 0)
            try:
                await who.put(b"counter", b"%d" % (count + 1), expect=version)
            except Conflict:
                continue
            done += 1

    await asyncio.gather(*(add(who, 10) for who in (client, other, client, other)))
    assert (await client.get(b"counter")).value == b"40"


@with_ring(count=4, settings={"vnodes": 1})
async def test_absent_is_not_unreachable(ring, client):
    """All replicas of a key are cut off: nobody may say that it is absent."""
    stored = await client.put(b"key", b"value")
    assert await client.get(b"never") is None
    for name in stored.acks:
        ring.world.crash(name)
    with pytest.raises((Unsure, NotReached)):
        await client.get(b"key", timeout_s=1.5)
    ring.world.restart(stored.acks[1])
    await asyncio.sleep(1)
    await ring.ideal(settled=False)
    found = None
    for _ in range(40):
        try:
            found = await client.get(b"key", timeout_s=5)
        except NotReached:
            continue
        if found:
            break
        await asyncio.sleep(0.5)
    assert found.value == b"value"


@with_ring(count=3, settings={"vnodes": 1, "copies_min": 3})
async def test_a_write_with_too_few_copies_is_not_acknowledged(ring, client):
    await client.put(b"key", b"one")
    ring.world.crash("d3")
    await ring.ideal(settled=False)
    with pytest.raises(OutcomeUnknown, match="only"):
        await client.put(b"key", b"two", expect=1, timeout_s=3)


@with_ring(count=3, settings={"quota_mb": 1})
async def test_a_full_quota_refuses_and_serves_on(ring, client):

    async def fill() -> None:
        for i in range(40):
            await client.put(b"k%d" % i, bytes(60_000))

    with pytest.raises(Full, match="quota"):
        await fill()
    kept = (await client.get(b"k0")).value
    assert kept == bytes(60_000)
    await client.put(b"k0", b"less")
    for service in ring.services.values():
        assert service.keeper.store.used_bytes <= 1 << 20


@with_ring()
async def test_large_values_are_cut_and_put_together(ring, client):
    value = bytes(range(256)) * 2_000
    await client.put(b"large", value)
    assert (await client.get(b"large")).value == value
    names = {r.key for s in ring.services.values() for r in s.keeper.store}
    assert len([n for n in names if n.startswith(b"\0chunk/")]) == 4
    await client.put(b"large", value[::-1])
    assert (await client.get(b"large")).value == value[::-1]
    await client.delete(b"large")
    assert await client.get(b"large") is None
    wall = ring.services["d1"]._runtime.clock.wall()
    left = [r for s in ring.services.values() for r in s.keeper.store if r.alive(wall)]
    assert left == []


@with_ring()
async def test_what_has_a_time_to_live_vanishes_and_is_forgotten(ring, client):
    await client.put(b"soon", b"gone", ttl_s=2.0)
    assert (await client.get(b"soon")).value == b"gone"
    await asyncio.sleep(2.1)
    assert await client.get(b"soon") is None
    assert (await client.put(b"soon", b"again", expect=0)).version == 2
    await client.put(b"other", b"gone", ttl_s=1.0)
    await asyncio.sleep(20)
    assert all(s.keeper.store.get(b"other") is None for s in ring.services.values())


@with_ring()
async def test_requests_that_make_no_sense_are_refused(ring, client):
    for key, value in ((b"", b"v"), (b"k" * 5000, b"v")):
        with pytest.raises(Refused, match="a key has"):
            await client.put(key, value)
    with pytest.raises(Refused, match="too many"):
        await client.put(b"k", bytes(65 << 20))
    with pytest.raises(Refused, match="iterative"):
        await client.lookup(b"k", mode="sideways")
    with pytest.raises(DhtError, match="time to live"):
        await client.put(b"k", b"v", ttl_s=-1)


@with_ring(count=6)
async def test_once_an_owner_is_known_a_request_is_one_round_trip(ring, client):
    for i in range(80):
        await client.put(b"k%d" % i, b"v")
    calls = []
    inner = client._call

    async def counting(to, method, *rest, **more):
        calls.append(method)
        return await inner(to, method, *rest, **more)

    client._call = counting
    for i in range(80):
        await client.get(b"k%d" % i)
        await client.put(b"k%d" % i, b"w")
    assert calls == ["dht.get", "dht.put"] * 80


@with_ring()
async def test_look_ups_agree_and_name_their_hops(ring, client):
    for i in range(20):
        key = b"k%d" % i
        paths = [await client.lookup(key, mode=m) for m in ("iterative", "recursive", "walk")]
        assert len({path.owner for path in paths}) == 1
        for path in paths:
            assert path.hops[-1] == path.owner
            assert path.target == key_id(key)
            assert len(set(path.hops)) == len(path.hops)
        assert len(paths[0].hops) <= len(paths[2].hops) + 1


@with_ring()
async def test_nodes_and_keys_show_what_is_there(ring, client):
    await client.put(b"key", b"value")
    nodes = await client.nodes()
    assert [n.contact.id for n in nodes] == sorted(n.contact.id for n in nodes)
    assert len(nodes) == 10
    assert {n.state for n in nodes} == {"member"}
    assert sum(n.keys for n in nodes) == 1
    keys = await client.keys()
    assert [k.key for k in keys] == [b"key"] * 3
    assert [k.owned for k in keys].count(True) == 1
    assert {k.size for k in keys} == {6}


@with_ring(count=4)
async def test_status_says_what_is_wrong(ring, client):
    service = ring.services["d1"]
    status = service.status()
    assert (status["ids"], status["trouble"]) == (2, "")
    assert set(status["successors"]) <= set(ring.names)
    metrics = service.metrics()
    assert metrics["ring_dht_records"] == 0
    for name in ring.names[1:]:
        ring.world.crash(name)
    for _ in range(100):
        if service.status()["trouble"]:
            break
        await asyncio.sleep(0.1)
    assert service.status()["trouble"] == "alone: no other peer follows"


@with_ring()
async def test_a_full_disk_refuses_writes_and_recovers(ring, client):
    await client.put(b"key", b"one")
    for service in ring.services.values():
        service._runtime.faults.apply({"disk": {"full": True}})
    with pytest.raises((Full, OutcomeUnknown)):
        await client.put(b"key", b"two", timeout_s=2)
    assert (await client.get(b"key")).value == b"one"
    for service in ring.services.values():
        service._runtime.faults.apply({"disk": {"full": False}})
    await client.put(b"key", b"three")
    assert (await client.get(b"key")).value == b"three"


@with_ring()
async def test_a_client_asks_a_dead_owner_twice_and_not_once_a_range(ring, client):
    """It knew all its ranges; they are forgotten together, and a hint to it is not followed."""
    keys = [b"k%d" % i for i in range(24)]
    owned = {}
    for key in keys:
        owned.setdefault((await client.put(key, b"v")).owner.name, []).append(key)
    victim = max(owned, key=lambda name: len(owned[name]))
    assert len(owned[victim]) > 2
    ring.world.crash(victim)
    asked = []
    call = client._call

    async def noted(to, method, body, timeout_s, **options):
        asked.append((to.name, method))
        return await call(to, method, body, timeout_s, **options)

    client._call = noted
    for key in owned[victim]:
        assert (await client.get(key)).value == b"v"
    # The connection that it had is lost; and when it dials, nobody listens.
    assert asked.count((victim, "dht.get")) == 2
