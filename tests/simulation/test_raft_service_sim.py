"""Whole nodes and their clients in virtual time: what a bad request or a full disk must not do."""

from __future__ import annotations

import asyncio

import pytest
from store_kit import run

from raftd import commands as c
from raftd.membership import Membership
from raftd.results import Refused
from raftd.sessions import ANSWERS_MAX


def test_thousands_of_writes_at_once_of_one_client_are_all_answered():
    """More than the store keeps answers for: they take turns, and none is unsure."""

    async def scenario(store):
        client = await store.client()
        many = 2 * ANSWERS_MAX
        done = await asyncio.gather(
            *(client.put(b"k%d" % i, b"v", timeout_s=30) for i in range(many))
        )
        assert len({result.revision for result in done}) == many

    run(scenario)


def test_a_lease_that_is_no_number_is_refused_and_all_copies_stay_alike():
    async def scenario(store):
        client = await store.client()

        async def poison():
            for lease in ([1], "x", None):
                with pytest.raises(Refused, match="a lease is a number"):
                    await client.lease_keep_alive(lease)
                with pytest.raises(Refused, match="a lease is a number"):
                    await client.lease_ttl(lease)

        puts = (client.put(b"k%d" % i, b"v") for i in range(100))
        await asyncio.gather(*puts, poison(), poison())
        await asyncio.sleep(1)
        assert len({s.replica.store.hash() for s in store.services.values()}) == 1

    run(scenario)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"add": 5}, "add: expected a map"),
        ({"add": {"n4": ["127.0.0.1", "x"]}}, "add: expected name"),
        ({"add": {"n4": 7404}}, "add: expected name"),
        ({"remove": [["n3"]]}, "remove: expected a list of names"),
        ({"remvoe": ["n3"]}, "expected a map with add and remove"),
        ([], "expected a map with add and remove"),
    ],
)
def test_a_change_of_members_that_makes_no_sense_names_what_is_wrong(body, message):
    async def scenario(store):
        client = await store.client()
        with pytest.raises(Refused, match=message):
            await client._ask_leader("raft.members", body, 2.0)

    run(scenario)


def test_a_callback_that_fails_keeps_nothing_from_the_store():
    async def scenario(store):
        client = await store.client()
        leader = store.services[client._leader]

        def fails(*_):
            raise RuntimeError("a bug of who asked")

        for i in range(20):
            leader.replica.read(fails)
            await client.put(b"k%d" % i, b"v")
        await asyncio.sleep(1)
        assert len({s.replica.store.hash() for s in store.services.values()}) == 1
        assert "raft.callback_error" in store.world.log

    run(scenario)


def test_what_waits_already_is_not_written_a_second_time_and_all_who_ask_are_told():
    """A client whose patience ends asks again: not every question is another entry of the log."""

    async def scenario(store):
        client = await store.client()
        await client.put(b"before", b"hand")
        (leader,) = [s for s in store.services.values() if s.replica.is_leader]
        replica, told = leader.replica, []
        last = replica.core.log.last_index
        op = [c.PUT, b"once", b"value", 0, False]
        request = (b"s" * c.SESSION_BYTES, 1)
        for again in (False, True, True):
            command = c.pack_command(*request, 0, retry=again, base=0, op=op)
            replica.propose(command, lambda *outcome: told.append(outcome), request, again=again)
            await asyncio.sleep(0)  # the first is with the core by now
        while len(told) < 3:  # noqa: ASYNC110 - told by no one
            await asyncio.sleep(0.01)
        assert replica.core.log.last_index == last + 1
        command = c.pack_command(*request, 0, retry=True, base=0, op=op)
        replica.propose(command, lambda *outcome: told.append(outcome), request, again=True)
        assert len(told) == 4, "it is known what was answered"
        assert told == [told[0]] * 4
        assert told[0][1] is None
        assert replica.core.log.last_index == last + 1
        assert replica._asked == {}

    run(scenario)


@pytest.mark.parametrize("fault", ["torn", "sync_error"])
def test_after_a_write_that_failed_nothing_more_is_written(fault):
    """A process takes a moment to end. What it wrote then would follow a hole in its log."""

    async def scenario(store):
        client = await store.client()
        await client.put(b"before", b"hand")
        name = next(n for n in store.services if n != client._leader)
        runtime = store.services[name]._runtime
        runtime.on_fatal = None  # as long as that moment lasts
        setattr(runtime.disk.faults, fault, True)
        for i in range(20):
            await client.put(b"k%d" % i, b"v")
        assert "node.fatal" in store.world.log
        store.world.crash(name)
        store.world.restart(name)
        await client.put(b"after", b"wards")
        await asyncio.sleep(2)
        stores = [service.replica.store for service in store.services.values()]
        assert len({one.applied_index for one in stores}) == 1
        assert len({one.hash() for one in stores}) == 1

    run(scenario)


def test_a_leader_with_a_full_disk_hands_over_as_soon_as_somebody_can_take_over():
    """Also when those were too slow to do so at first."""

    async def scenario(store):
        client = await store.client()
        leader, nodes = client._leader, store.world.nodes
        await client.put(b"a", b"1")
        followers = [name for name in store.services if name != leader]
        for name in followers:
            nodes[name].runtime.disk.faults.apply({"slow_s": 0.5})
        asking = [asyncio.ensure_future(client.put(b"p", b"v", timeout_s=30)) for _ in range(3)]
        await asyncio.sleep(0.01)
        nodes[leader].runtime.disk.faults.apply({"full": True})
        asking += [asyncio.ensure_future(client.put(b"q", b"v", timeout_s=30)) for _ in range(3)]
        await asyncio.sleep(1.5)
        for name in followers:
            nodes[name].runtime.disk.faults.heal()
        await asyncio.sleep(3)
        await client.put(b"z", b"1", timeout_s=5)
        assert await client.leader() != leader
        await asyncio.gather(*asking, return_exceptions=True)

    run(scenario)


def test_a_newcomer_reads_of_the_time_without_its_leader_and_does_not_part_from_it():
    """In the log that it is sent the leader leaves; that it joins again has not come yet."""

    async def scenario(store):
        client = await store.client()
        leader = client._leader
        name, other = (n for n in store.services if n != leader)
        service = store.services[name]
        past = {n: service._addresses[n] for n in (name, other)}
        memberships = service.replica.core._memberships
        memberships.append((1, Membership.of(past)))
        service._members_changed()
        await asyncio.sleep(1)
        assert set(service.node._links) == {leader, other}
        memberships.pop()
        service._members_changed()
        memberships.append((1, Membership.of({n: service._addresses[n] for n in (name, leader)})))
        service._members_changed()
        await asyncio.sleep(1)
        assert set(service.node._links) == {leader}, "of the others it does"

    run(scenario)


def test_a_member_that_has_left_is_dialled_no_more():
    async def scenario(store):
        client = await store.client()
        gone = next(name for name in store.services if name != client._leader)
        await client._ask_leader("raft.members", {"remove": [gone]}, 5.0)
        await asyncio.sleep(1)
        for name, service in store.services.items():
            if name != gone:
                assert gone not in service.node._links
                assert gone not in service._addresses

    run(scenario)


def test_a_log_of_few_and_large_commands_is_written_out_too(monkeypatch):
    monkeypatch.setattr("raftd.replica.LOG_BYTES_MAX", 2_000_000)

    async def scenario(store):
        client = await store.client()
        for _ in range(50):
            await client.put(b"k", bytes(100_000))
        await asyncio.sleep(2)
        assert all(service.replica.core.snapshot for service in store.services.values())

    run(scenario)
