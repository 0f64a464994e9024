"""Whole nodes and their clients in virtual time: what a bad request or a full disk must not do."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise

import pytest
from store_kit import run

from raftd import commands as c
from raftd.membership import Membership
from raftd.messages import AppendReply
from raftd.options import RaftOptions
from raftd.results import Refused
from raftd.sessions import ANSWERS_MAX

LOW = RaftOptions().election_timeout_s[0]


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


class OnTheLoop:
    """The log's executor while its disk is brief: in the next turn."""

    def submit(self, function, done):
        asyncio.get_running_loop().call_soon(lambda: done(function(), None))

    def close(self):
        pass


def test_a_follower_with_a_brief_disk_acknowledges_what_is_new_before_it_applies_the_rest():
    """Its leader waits for the one, and nobody for the other."""

    async def scenario(store):
        client = await store.client()
        await client.put(b"first", b"v")
        follower = next(s.replica for s in store.services.values() if not s.replica.is_leader)
        told, send, apply = [], follower._send_out, follower._apply

        def acknowledges(output):
            if type(output.message) is AppendReply:
                told.append(("acknowledged", output.message.index))
            send(output)

        def applies(output):
            told.append(("applied", output.entries[-1].index))
            apply(output)

        follower._send_out, follower._apply = acknowledges, applies
        follower._writer = OnTheLoop()
        for i in range(10):
            await client.put(b"k%d" % i, b"v")
        await asyncio.sleep(1)
        applied = [index for what, index in told if what == "applied"]
        later = [told.index(("acknowledged", i + 1)) for i in applied[:-1]]
        assert len(later) >= 8
        assert all(told.index(("applied", i)) > at for i, at in zip(applied, later, strict=False))

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


def test_a_full_store_refuses_more_says_so_in_its_status_and_goes_on_after_a_deletion():
    async def scenario(store):
        client = await store.client()
        for service in store.services.values():
            service.replica.store.space.present_max = 8_000_000
        for i in range(7):
            await client.put(b"k%d" % i, bytes(1_000_000))
        with pytest.raises(Refused, match=r"the store is full.*delete some") as refused:
            await client.put(b"k7", bytes(1_000_000))
        assert refused.value.reason == "no-space"
        leader = store.services[client._leader]
        assert leader.status()["trouble"] == "nearly full: delete keys"
        assert leader.status()["bytes"] == leader.metrics()["ring_store_bytes"] > 7_000_000
        assert (await client.get(b"k3")).value == bytes(1_000_000)
        await client.delete(b"k", prefix=True)
        await client.put(b"new", bytes(1_000_000))
        assert leader.status()["trouble"] == ""
        await asyncio.sleep(1)
        assert len({s.replica.store.hash() for s in store.services.values()}) == 1

    run(scenario)


def test_a_state_that_has_shrunk_is_written_out_after_as_long_a_log_as_it_has_now(monkeypatch):
    """Or what is too large to be sent would stay so for as long again."""
    monkeypatch.setattr("raftd.replica.LOG_BYTES_MAX", 2_000_000)

    async def scenario(store):
        client = await store.client()
        for i in range(20):
            await client.put(b"k%d" % i, bytes(1_000_000))
        await asyncio.sleep(2)
        leader = store.services[client._leader].replica
        assert len(leader.core.snapshot[1]) > 10_000_000
        await client.delete(b"k", prefix=True)
        leader.store.space.past_max = 1000
        for _ in range(4):
            await client.put(b"k", bytes(600_000))
        await asyncio.sleep(2)
        assert len(leader.core.snapshot[1]) < 2_000_000

    run(scenario)


def events(store, node, kind):
    lines = map(json.loads, store.world.log.splitlines())
    return [line for line in lines if (line["node"], line["kind"]) == (node, kind)]


def test_what_the_log_costs_is_told_in_events_and_metrics():
    async def scenario(store):
        client = await store.client()
        leader = client._leader
        service = store.services[leader]
        before = service.metrics()
        for _ in range(10):
            await client.put(b"k", bytes(1000))
        await asyncio.sleep(0.2)
        await client.put(b"k", b"last")  # tells of what it is told of at last
        await asyncio.sleep(1)
        after = service.metrics()
        spent = {name: after[name] - before[name] for name in after if "ring_wal" in name}
        assert 11 <= spent["ring_wal_syncs_total"] <= 14
        assert 10_000 < spent["ring_wal_bytes_total"] < 15_000
        told = events(store, leader, "log.append")
        assert [told[-1]["index"], told[-1]["term"]] == [service.replica.core.log.last_index, 1]
        assert sum(line["syncs"] for line in told) == after["ring_wal_syncs_total"]
        assert sum(line["bytes"] for line in told) == after["ring_wal_bytes_total"]

    run(scenario)


def test_a_busy_log_is_told_of_ten_times_a_second():
    async def scenario(store):
        client = await store.client()
        began = store.world.now
        while store.world.now < began + 2:
            await client.put(b"k", b"v")
        told = events(store, client._leader, "log.append")
        assert len(told) > 5
        gaps = [b["mono"] - a["mono"] for a, b in pairwise(told)]
        assert min(gaps) >= 0.1 - 1e-6

    run(scenario)


async def somebody_leads(store):
    while not any(s.replica.is_leader for s in store.services.values()):  # noqa: ASYNC110
        await asyncio.sleep(0.001)


def term_of(store):
    return max(service.replica.core.term for service in store.services.values())


def test_a_leader_that_is_killed_is_replaced_before_anybody_has_timed_out():
    """Its port refuses, so the followers need not wait: a first round of votes, and no other."""

    async def scenario(store):
        client = await store.client()
        for trial in range(10):
            await client.put(b"k", b"%d" % trial)
            await asyncio.sleep(0.5 + trial / 97)
            killed, term = await client.leader(), term_of(store)
            del store.services[killed]
            store.world.crash(killed)
            died = store.world.now
            await somebody_leads(store)
            assert store.world.now - died < LOW
            assert term_of(store) == term + 1
            await client.put(b"k", b"after %d" % trial)
            assert store.world.now - died < 2 * LOW
            store.world.restart(killed)
            await asyncio.sleep(1)

    run(scenario)


def test_a_leader_that_is_paused_has_its_full_time():
    async def scenario(store):
        client = await store.client()
        await client.put(b"k", b"v")
        leader = await client.leader()
        store.world.pause(leader)
        paused = store.services.pop(leader)
        began = store.world.now
        await somebody_leads(store)
        assert store.world.now - began > LOW - 0.05  # since its last heartbeat
        assert not events(store, paused.node.identity.name, "raft.leader_gone")
        assert "raft.leader_gone" not in store.world.log

    run(scenario)


def test_a_leader_that_loses_its_connections_stays():
    async def scenario(store):
        client = await store.client()
        await client.put(b"k", b"v")
        leader, term = store.services[await client.leader()], term_of(store)
        for _ in range(20):
            for connection in list(leader.node.connections):
                if connection.peer_service == "raft":
                    leader.node.host.end(connection._peer, 1, "cut off")
            await asyncio.sleep(2)  # who dials often waits between
        assert term_of(store) == term
        assert "raft.leader_gone" not in store.world.log

    run(scenario)
