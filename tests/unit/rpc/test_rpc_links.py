"""What stands on one socket: the lasting links between siblings, and what the operator may ask."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from rpc_kit import DELAY_S, ROUND_TRIP, SERVER, Town, identity, in_town, offer

from netstack.rpc import frames
from netstack.rpc.admin import AdminClient, offer_admin
from netstack.rpc.errors import BadRequest, ConnectionLost, Forbidden, Unavailable
from netstack.rpc.node import RpcNode
from netstack.runtime.policy import LinkPolicy
from netstack.runtime.simulation.world import World

ADDRESSES = {name: ("127.0.0.1", 7001 + i) for i, name in enumerate(("alpha", "beta", "gamma"))}


class Siblings:
    """Three nodes of one service, each with links to the others; `heard` is what came, in order."""

    def __init__(self) -> None:
        self.world = World(seed=2)
        self.world.network.base_policy = LinkPolicy(delay_s=DELAY_S)
        self.nodes: dict[str, RpcNode] = {}
        self.heard: list[tuple[str, str, object]] = []  # by whom, from whom, what
        self.dials = 0
        for name in ADDRESSES:
            self.world.add_node(name, self._start)

    async def _start(self, runtime):
        node = RpcNode(runtime, identity(runtime.node, "raft"), service="raft")
        self.nodes[runtime.node] = node

        def news(body, connection):
            what = len(body) if isinstance(body, bytes) else body
            self.heard.append((runtime.node, connection.peer_name, what))

        node.service.add("news", news, notify=True)
        node.service.add("echo", lambda body, call: call.reply(body))
        node.on_connection.append(self._count)
        await node.start(ADDRESSES[runtime.node])
        for name in ADDRESSES:
            if name != runtime.node:
                node.link(name, ADDRESSES[name], "raft")

    def _count(self, connection):
        self.dials += 1

    def link(self, of, to):
        return self.nodes[of]._links[to]

    def tell(self, of, to, what, **how):
        return self.link(of, to).notify(frames.notify("news", what), **how)

    @property
    def up(self):
        return [(a, b) for a in ADDRESSES for b in ADDRESSES if a != b and self.link(a, b).up]


def among_siblings(scenario, start=tuple(ADDRESSES)):
    siblings = Siblings()
    for name in start:
        siblings.world.restart(name)

    async def main():
        await asyncio.sleep(1)
        await scenario(siblings)

    try:
        siblings.world.run(main())
    finally:
        siblings.world.close()


class TestLinks:
    def test_a_pair_shares_one_connection_and_both_speak_on_it(self):
        async def scenario(siblings):
            assert len(siblings.up) == 6
            assert all(len(node.host._peers) == 2 for node in siblings.nodes.values())
            assert siblings.tell("alpha", "beta", "from above")
            assert siblings.tell("beta", "alpha", "from below")
            assert await siblings.link("gamma", "alpha").call("echo", 1, 1.0) == 1
            assert await siblings.link("alpha", "gamma").call("echo", 2, 1.0) == 2
            expected = [("alpha", "beta", "from below"), ("beta", "alpha", "from above")]
            assert sorted(siblings.heard) == expected

        among_siblings(scenario)

    @pytest.mark.parametrize("killed", ["alpha", "gamma"])
    def test_a_sibling_that_comes_back_is_linked_again_whoever_dials(self, killed):
        async def scenario(siblings):
            siblings.world.crash(killed)
            siblings.world.restart(killed)
            await asyncio.sleep(8)  # the side that dials notices at its next PING
            assert len(siblings.up) == 6
            assert siblings.tell("beta", killed, "welcome")
            assert siblings.tell(killed, "beta", "back")
            await asyncio.sleep(0.1)
            assert sorted(siblings.heard) == sorted(
                [(killed, "beta", "welcome"), ("beta", killed, "back")]
            )

        among_siblings(scenario)

    def test_nobody_is_told_that_a_message_left_while_the_link_is_down(self):
        async def scenario(siblings):
            link = siblings.link("alpha", "gamma")
            assert repr(link) == "<Link gamma down>"
            assert not siblings.tell("alpha", "gamma", "lost")
            with pytest.raises(Unavailable) as caught:
                await link.call("echo", 1, 1.0)
            assert caught.value.definite
            came_up = []
            link.on_up.append(lambda: came_up.append(siblings.world.now))
            siblings.world.restart("gamma")
            await asyncio.sleep(2)
            assert len(came_up) == 1
            assert repr(link) == "<Link gamma up>"

        among_siblings(scenario, start=("alpha", "beta"))

    def test_a_heartbeat_does_not_wait_behind_a_snapshot(self):
        async def scenario(siblings):
            for i in range(4):
                assert siblings.tell("alpha", "beta", bytes(1_000_000), bulk=True)
                assert siblings.tell("alpha", "beta", i)
            await asyncio.sleep(30)
            small = [what for _, _, what in siblings.heard[:4]]
            assert small == [0, 1, 2, 3]
            assert len(siblings.heard) == 8

        among_siblings(scenario)

    def test_an_unlinked_sibling_is_not_dialled_any_more(self):
        async def scenario(siblings):
            await siblings.nodes["alpha"].unlink("beta")
            await asyncio.sleep(10)
            assert "beta" not in siblings.nodes["alpha"]._links
            assert not siblings.link("beta", "alpha").up
            assert len(siblings.nodes["alpha"].host._peers) == 1
            assert siblings.link("alpha", "gamma").up

        among_siblings(scenario)

    def test_the_newest_connection_is_the_one_in_use_and_the_older_is_closed(self):
        async def scenario(siblings):
            link = siblings.link("beta", "alpha")
            older = link.connection
            await siblings.nodes["alpha"].dial(ADDRESSES["beta"], "raft", "beta", 2.0)
            await asyncio.sleep(1)
            assert older.closed
            assert link.up
            assert link.connection is not older

        among_siblings(scenario)

    def test_a_link_made_after_the_sibling_dialled_uses_its_connection(self):
        async def scenario(siblings):
            beta = siblings.nodes["beta"]
            beta._links.clear()  # as before a change of the members
            siblings.world.crash("alpha")
            siblings.world.restart("alpha")
            await asyncio.sleep(1)
            assert siblings.link("alpha", "beta").up
            beta.link("alpha", ADDRESSES["alpha"], "raft")
            await asyncio.sleep(10)
            assert siblings.link("beta", "alpha").up

        among_siblings(scenario)

    def test_a_sibling_that_hangs_up_at_once_is_not_dialled_without_a_pause(self):
        async def scenario(siblings):
            beta = siblings.nodes["beta"]
            beta.host._on_peer = lambda peer: beta.host.end(peer, 1, "not you")
            siblings.dials = 0
            await siblings.link("alpha", "beta").connection.close()
            await asyncio.sleep(10)
            assert 0 < siblings.dials < 100  # 20 to 500 ms between two

        among_siblings(scenario)


async def _administered(town):
    """The server, with an administrator's methods."""
    ended = []

    async def drain():
        ended.append(True)

    daemon = SimpleNamespace(
        status=lambda: {"role": "tester"}, metrics=lambda: {"ring_test_total": 3.0}, drain=drain
    )
    offer_admin(town.server, daemon)
    return ended


class TestAdmin:
    def test_status_and_metrics_tell_of_the_service_and_of_what_it_stands_on(self):
        async def scenario(town):
            await _administered(town)
            await asyncio.sleep(2)
            admin = AdminClient(await town.caller())
            status = await admin.status()
            assert (status["node"], status["role"]) == ("server", "tester")
            assert status["uptime_s"] == pytest.approx(2 + 3 * ROUND_TRIP, abs=0.1)
            metrics = await admin.metrics()
            assert metrics["ring_test_total"] == 3.0
            assert metrics["ring_rpc_connections"] == 1.0
            assert metrics["ring_rpc_open_calls"] == 1.0  # this one
            assert metrics["ring_transport_retries_total"] == 1.0

        in_town(scenario)

    def test_a_sibling_is_no_operator(self):
        async def scenario(town):
            await _administered(town)
            client = await town.caller("sibling", service="raft")
            for ask in (AdminClient(client).status, AdminClient(client).drain):
                with pytest.raises(Forbidden):
                    await ask()
            assert not town.server.service.draining

        in_town(scenario)

    def test_faults_are_injected_asked_for_and_healed(self):
        async def scenario(town):
            await _administered(town)
            admin = AdminClient(await town.caller())
            change = {"links": {"127.0.0.1:7999": {"loss": 0.5}}}
            assert "127.0.0.1:7999" in (await admin.faults(change))["links"]
            assert "127.0.0.1:7999" in (await admin.faults({}))["links"]
            assert (await admin.faults({"heal": ["links"]}))["links"] == {}

        in_town(scenario)

    @pytest.mark.parametrize("change", [7, {"wind": {}}, {"clock": 1}, {1: 2, "x": 3}])
    def test_faults_that_make_no_sense_are_refused(self, change):
        async def scenario(town):
            await _administered(town)
            client = await town.caller()
            with pytest.raises(BadRequest, match="faults"):
                await client.call("admin.faults", change)

        in_town(scenario)

    def test_a_drained_service_refuses_calls_and_still_answers_its_operator(self):
        async def scenario(town):
            ended = await _administered(town)
            client = await town.caller()
            await AdminClient(client).drain()
            assert ended == [True]
            with pytest.raises(Unavailable, match="shutting down"):
                await client.call("echo", 1, timeout_s=0.5)
            assert (await AdminClient(client).status())["role"] == "tester"

        in_town(scenario)


class TestClients:
    def test_a_client_says_whom_it_calls_and_whether_it_is_connected(self):
        async def scenario(town):
            client = await town.caller()
            assert repr(client) == "<RpcClient server 127.0.0.1:7000 not connected>"
            await client.call("echo")
            assert repr(client) == "<RpcClient server 127.0.0.1:7000 connected>"

        in_town(scenario)

    def test_a_connection_that_was_dropped_is_dialled_again(self):
        async def scenario(town):
            client = await town.caller()
            await client.call("echo")
            await client.drop_connection()
            assert await client.call("echo", 2) == 2
            await asyncio.sleep(0.1)
            assert len(town.server.connections) == 1

        in_town(scenario)

    def test_calls_that_wait_for_a_connection_are_told_when_it_is_given_up(self):
        async def scenario(town):
            node = await town.node("caller", "client")
            client = node.client(("127.0.0.1", 7999), "echo")  # where nobody is
            call = asyncio.ensure_future(client.call("echo", timeout_s=30.0))
            await asyncio.sleep(0.1)
            began = town.now
            await client.drop_connection()
            with pytest.raises(Unavailable):
                await call
            assert town.now - began < 0.1

        in_town(scenario)

    def test_somebody_else_at_the_address_is_not_called(self):
        async def scenario(town):
            node = await town.node("caller", "client")
            with pytest.raises(Unavailable):
                await node.client(SERVER, "echo", "another").call("slow", 0.0, timeout_s=2.0)
            with pytest.raises(Unavailable):
                await node.client(SERVER, "raft").call("slow", 0.0, timeout_s=2.0)
            assert town.server.service.seen["ran"] == 0

        in_town(scenario)

    def test_a_service_that_hangs_up_at_once_is_not_dialled_without_a_pause(self):
        async def scenario(town):
            dials = []

            def hang_up(peer):
                dials.append(town.now)
                town.server.host.end(peer, 1, "not you")

            town.server.host._on_peer = hang_up
            client = await town.caller()
            with pytest.raises(ConnectionLost):
                await client.call("echo", timeout_s=10.0, idempotent=True)
            assert 10 < len(dials) < 100
            assert dials[1] - dials[0] < 0.2

        in_town(scenario)

    @pytest.mark.parametrize("spoiled", ["over", "without streams"])
    def test_a_connection_that_cannot_be_used_is_none(self, spoiled):
        async def scenario(town):
            node = await town.node("caller", "client")
            connect = node.host.connect

            async def spoil(*arguments, **options):
                peer = await connect(*arguments, **options)
                if spoiled == "over":
                    node.host.end(peer, 1, "not you")
                else:
                    peer.connection.streams._local_limit = 1
                return peer

            node.host.connect = spoil
            with pytest.raises(Unavailable):
                await node.dial(SERVER, "echo", None, 2.0)
            await asyncio.sleep(1)
            assert not node.connections
            assert not node.host._peers
            assert not town.server.connections

        in_town(scenario)

    def test_a_client_that_was_closed_does_not_dial_again(self):
        async def scenario(town):
            client = await town.caller()
            task = asyncio.create_task(client.call("slow", 1.0, idempotent=True))
            await asyncio.sleep(0.5)
            await client.close()
            with pytest.raises(ConnectionLost):
                await task
            with pytest.raises(Unavailable):
                await client.call("echo")
            await asyncio.sleep(1)
            assert not town.server.connections

        in_town(scenario)

    def test_who_waits_for_a_dial_that_is_called_off_is_told_so(self):
        async def scenario(town):
            town.world.crash("server")
            client = await town.caller()
            task = asyncio.create_task(client.call("echo", 1, timeout_s=5.0))
            await asyncio.sleep(0.5)
            await client.close()
            await asyncio.wait([task])
            assert not task.cancelled()
            assert isinstance(task.exception(), Unavailable)

        in_town(scenario)

    def test_a_node_that_closes_says_goodbye_and_its_callers_are_told(self):
        async def scenario(town):
            client = await town.caller()
            task = asyncio.create_task(client.call("slow", 10.0, timeout_s=20.0))
            await asyncio.sleep(0.5)
            began = town.now
            await town.server.close()
            (error,) = await asyncio.gather(task, return_exceptions=True)
            assert "goodbye" in str(error)
            assert town.now - began == pytest.approx(DELAY_S, abs=0.001)

        in_town(scenario)


def test_calls_that_are_open_count_for_all_connections_together():
    """One limit for the process: a caller does not get more by dialling twice."""

    async def scenario(town):
        one, two = await town.caller("one"), await town.caller("two")
        calls = [asyncio.create_task(c.call("slow", 1.0)) for c in (one, two) for _ in range(2)]
        await asyncio.sleep(0.5)
        assert repr(town.server.service).endswith("open=4>")
        assert await asyncio.gather(*calls) == [1.0] * 4
        assert town.server.service.open_calls == 0

    Town(offer).run(scenario)
