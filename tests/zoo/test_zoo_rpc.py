"""Planted bugs of calls and links, and the test that catches each.

A judge is a test of tests/unit/rpc, where it passes; here it must fail.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from netstack.rpc import dedup, frames
from netstack.rpc.client import RpcClient
from netstack.rpc.connection import RpcConnection
from netstack.rpc.dialler import Dialler
from netstack.rpc.errors import ConnectionLost, Forbidden, Interrupted, RpcError, from_wire
from netstack.rpc.incoming import END, Incoming
from netstack.rpc.node import Link
from netstack.rpc.service import Call, RpcService
from netstack.transport.errors import BufferFull, TransportError
from netstack.transport.peer import Peer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "rpc"))
bugs = importlib.import_module("test_rpc_bugs")
calls = importlib.import_module("test_rpc_calls")
hostile = importlib.import_module("test_rpc_hostile")
links = importlib.import_module("test_rpc_links")
nonces = importlib.import_module("test_rpc_dedup")

CAUGHT = (AssertionError, RpcError, TransportError, TimeoutError, pytest.fail.Exception)


# -- at most once


class RunsCopies(dedup.OnceTable):
    def begin(self, client_id, sequence, done, *, retry):
        super().begin(client_id, sequence, done, retry=retry)
        return dedup.NEW


class ForgetsWhoWaits(dedup.OnceTable):
    def finish(self, client_id, sequence, outcome):
        super().finish(client_id, sequence, outcome)
        return []


class RemembersEverything(dedup.OnceTable):
    def begin(self, client_id, sequence, done, *, retry):
        return super().begin(client_id, sequence, 0, retry=retry)


class ForgetsThatItForgot(dedup.OnceTable):
    def begin(self, client_id, sequence, done, *, retry):
        verdict = super().begin(client_id, sequence, done, retry=retry)
        self._clients[client_id].since = 0
        return verdict


class TakesAnyLifeForItsOwn(RpcService):
    def _first_time(self, method, call, key):
        return super()._first_time(method, call, [*key[:3], None])


class RepeatsPlainCalls(RpcClient):
    async def call(self, method, body=None, *, timeout_s=5.0, idempotent=False, once=False):
        return await super().call(method, body, timeout_s=timeout_s, idempotent=not once, once=once)


class NeverRepeats(RpcClient):
    async def call(self, method, body=None, *, timeout_s=5.0, idempotent=False, once=False):
        return await super().call(method, body, timeout_s=timeout_s)


class BelievesTheLastTry(RpcClient):
    async def call(self, method, body=None, **how):
        try:
            return await super().call(method, body, **how)
        except ConnectionLost as error:
            raise error.__cause__ or error from None


class DiesWithItsConnection(Call):
    connection_lost = Call.abandon


class WorksForNobody(Call):
    def connection_lost(self):
        return


# -- calls


class IgnoresWhoMayCall(RpcService):
    @staticmethod
    def _allowed(method, connection):
        return True


class HasNoLimit(RpcService):
    def _admit(self, name, connection):
        self._calls_max = 2**31
        return super()._admit(name, connection)


class TakesCallsWhileItDrains(RpcService):
    def _admit(self, name, connection):
        draining, self.draining = self.draining, False
        try:
            return super()._admit(name, connection)
        finally:
            self.draining = draining


class IgnoresDeadlines(RpcService):
    async def _run(self, method, body, call, connection):
        call.deadline = float("inf")
        await super()._run(method, body, call, connection)


class WorksOnWhenCancelled(Call):
    def abandon(self):
        self.task = None
        super().abandon()


class KeepsCountingTheCancelled(Call):
    def abandon(self):
        self._service.open_calls += 1
        super().abandon()


class WaitsForever(RpcConnection):
    def _sweep(self):
        return


class DialsForEachCall(RpcClient):
    async def _connected(self, deadline):
        return await self._dial()


class SpendsAPacketOnEachMessage(RpcConnection):
    def _push(self, data, stream):
        super()._push(data, stream)
        self._peer._host._flush()


class ReportsNothing(RpcConnection):
    def report(self, error):
        return


class TellsNobodyWhatWasDropped(RpcConnection):
    def notify(self, message, *, bulk=False):
        super().notify(message, bulk=bulk)
        return True


class NeverHoldsBack(RpcConnection):
    congested = False


class WaitsForRoomWithoutEnd(RpcConnection):
    async def wait_for_room(self, timeout_s):
        return await super().wait_for_room(1e6)


class WakesNoWriter(Peer):
    def wake_writers(self):
        return


class HoardsWhatIsNotRead(RpcConnection):
    def _push(self, data, stream):
        try:
            stream.push(data)
        except BufferFull:
            self.counters["unread"] += 1


class ReadsOnAfterNonsense(RpcConnection):
    def abort(self, reason):
        return


class ReadsOnWhenItIsOver(RpcConnection):
    def _receiver(self):
        decoder = frames.Decoder()

        def received(data, fin):
            try:
                for message in decoder.feed(data):
                    self._dispatch(message)
            except frames.ProtocolError as error:
                self.abort(str(error))

        return received


class StaysWithHalfALane(RpcConnection):
    def _stream_opened(self, stream):
        super()._stream_opened(stream)
        stream.on_reset = None


class HasOneLane(RpcConnection):
    def notify(self, message, *, bulk=False):
        return super().notify(message)


def is_always_sure(fields):
    error = from_wire(fields)
    error.definite = True
    return error


# -- server streams


class SendsWithoutCredit(Call):
    async def send_item(self, body):
        self._credit = 2**31
        await super().send_item(body)


class GivesNoCredit(Incoming):
    def consumed(self):
        return False


class TakesALossForTheEnd(Incoming):
    def put(self, item):
        super().put(END if isinstance(item, ConnectionLost) else item)


class TakesAnyNumberOfItems(RpcConnection):
    def _incoming(self, id_):
        return self._streams.get(id_)


class LetsTheProducerRunOn(RpcConnection):
    def send(self, message):
        if message[0] != frames.CANCEL:
            super().send(message)


# -- links and dials


class AlwaysDials(Link):
    def __init__(self, of, name, address, service):
        super().__init__(of, name, address, service)
        if self._dialler is None:
            of.runtime.spawn(self._keep_dialled(), "one more")


class KeepsTheOlder(Link):
    def _use(self, connection):
        if self.connection is None:
            super()._use(connection)


class DialsOnce(Link):
    async def _keep_dialled(self):
        connection = await self._node.dial(self.address, self._service, self.name, 2.0)
        self._use(connection)


class IgnoresWhoCameBefore(RpcConnection):
    dialled = property(lambda self: True, lambda self, value: None)


class DialsInHaste(Dialler):
    async def dial(self, *, patient=True):
        self._began = float("-inf")
        return await super().dial(patient=patient)


class RevivesWhenItIsCalled(RpcClient):
    async def close(self):
        await super().close()
        self._closed = False


class LingersWhenUnlinked(Link):
    async def close(self):
        return


TABLE, CALL = "netstack.rpc.dedup.OnceTable", "netstack.rpc.service.Call"
SERVICE, CLIENT = "netstack.rpc.node.RpcService", "netstack.rpc.node.RpcClient"
CONVERSATION, LINK = "netstack.rpc.node.RpcConnection", "netstack.rpc.node.Link"
INCOMING, FROM_WIRE = "netstack.rpc.connection.Incoming", "netstack.rpc.connection.from_wire"
PEER = "netstack.transport.host.Peer"

retries, server_streams = calls.TestRetries(), calls.TestStreams()
lanes, nonsense = hostile.TestFullLanes(), hostile.TestNonsense()
handlers, siblings = bugs.TestHandlersWithBugs(), links.TestLinks()
clients = links.TestClients()

ZOO = [
    (
        RunsCopies,
        TABLE,
        retries.test_a_copy_of_a_running_call_waits_for_it_and_gets_the_same_answer,
    ),
    (RunsCopies, TABLE, retries.test_once_runs_once_however_often_the_connection_is_lost),
    (
        ForgetsWhoWaits,
        TABLE,
        retries.test_a_copy_of_a_running_call_waits_for_it_and_gets_the_same_answer,
    ),
    (RemembersEverything, TABLE, retries.test_what_is_remembered_of_a_caller_does_not_grow),
    (
        ForgetsThatItForgot,
        "test_rpc_dedup.OnceTable",
        nonces.test_nor_is_one_whose_caller_was_evicted_and_has_called_again_since,
    ),
    (
        TakesAnyLifeForItsOwn,
        SERVICE,
        retries.test_once_is_refused_by_another_life_of_the_service,
    ),
    (RepeatsPlainCalls, CLIENT, retries.test_a_plain_call_is_not_repeated),
    (
        BelievesTheLastTry,
        CLIENT,
        lambda: retries.test_a_retry_that_did_not_happen_says_nothing_about_the_first_try(
            "once", "refused"
        ),
    ),
    (NeverRepeats, CLIENT, retries.test_an_idempotent_one_is),
    (NeverRepeats, CLIENT, retries.test_once_runs_once_when_only_the_connection_is_lost),
    (
        DiesWithItsConnection,
        CALL,
        retries.test_once_runs_once_when_only_the_connection_is_lost,
    ),
    (
        WorksForNobody,
        CALL,
        retries.test_a_lost_connection_stops_the_work_of_a_plain_call_and_not_of_a_keyed_one,
    ),
    (
        IgnoresWhoMayCall,
        SERVICE,
        lambda: calls.test_an_error_arrives_as_what_it_is("secret", None, Forbidden, True),
    ),
    (HasNoLimit, SERVICE, calls.test_too_many_open_calls_are_refused_and_did_not_happen),
    (
        TakesCallsWhileItDrains,
        SERVICE,
        calls.test_a_service_that_drains_finishes_what_it_has_and_takes_nothing_new,
    ),
    (
        IgnoresDeadlines,
        SERVICE,
        calls.test_both_sides_keep_the_deadline_though_they_hear_no_more_of_each_other,
    ),
    (WorksOnWhenCancelled, CALL, calls.test_a_caller_that_gives_up_stops_the_work),
    (KeepsCountingTheCancelled, CALL, calls.test_a_caller_that_gives_up_stops_the_work),
    (
        WaitsForever,
        CONVERSATION,
        calls.test_both_sides_keep_the_deadline_though_they_hear_no_more_of_each_other,
    ),
    (DialsForEachCall, CLIENT, calls.test_callers_that_begin_together_share_one_dial),
    (
        SpendsAPacketOnEachMessage,
        CONVERSATION,
        calls.test_a_hundred_calls_at_once_share_their_packets,
    ),
    (
        is_always_sure,
        FROM_WIRE,
        lambda: calls.test_an_error_arrives_as_what_it_is("break", None, Interrupted, False),
    ),
    (SendsWithoutCredit, CALL, server_streams.test_a_slow_consumer_holds_the_producer_up),
    (GivesNoCredit, INCOMING, server_streams.test_items_in_order_to_the_end),
    (
        TakesALossForTheEnd,
        INCOMING,
        server_streams.test_a_lost_connection_ends_a_stream_with_an_error_not_an_end,
    ),
    (
        LetsTheProducerRunOn,
        CONVERSATION,
        server_streams.test_a_consumer_that_leaves_ends_the_producer,
    ),
    (
        ReportsNothing,
        CONVERSATION,
        lambda: handlers.test_the_caller_learns_that_it_does_not_know_and_the_service_goes_on(
            "raises_at_once"
        ),
    ),
    (
        TellsNobodyWhatWasDropped,
        CONVERSATION,
        lanes.test_one_way_messages_are_dropped_and_the_sender_is_told,
    ),
    (NeverHoldsBack, CONVERSATION, lanes.test_callers_wait),
    (NeverHoldsBack, CONVERSATION, lanes.test_a_producer_of_large_items_waits_for_the_lane_too),
    (
        WaitsForRoomWithoutEnd,
        CONVERSATION,
        lanes.test_the_time_limit_of_a_call_holds_while_it_waits,
    ),
    (WakesNoWriter, PEER, lanes.test_callers_wait),
    (
        HoardsWhatIsNotRead,
        CONVERSATION,
        lanes.test_a_peer_that_asks_and_does_not_read_is_cut_off,
    ),
    (
        ReadsOnAfterNonsense,
        CONVERSATION,
        lambda: nonsense.test_ends_that_connection_and_no_other_and_is_counted(
            hostile.NONSENSE["no such kind"]
        ),
    ),
    (
        ReadsOnWhenItIsOver,
        CONVERSATION,
        nonsense.test_nothing_is_run_for_a_connection_that_was_ended,
    ),
    (
        StaysWithHalfALane,
        CONVERSATION,
        nonsense.test_a_lane_that_is_given_up_is_the_end_of_the_connection,
    ),
    (
        TakesAnyNumberOfItems,
        CONVERSATION,
        lambda: nonsense.test_a_stream_brings_no_more_than_there_was_room_for(frames.ITEM),
    ),
    (HasOneLane, CONVERSATION, siblings.test_a_heartbeat_does_not_wait_behind_a_snapshot),
    (AlwaysDials, LINK, siblings.test_a_pair_shares_one_connection_and_both_speak_on_it),
    (
        KeepsTheOlder,
        LINK,
        siblings.test_the_newest_connection_is_the_one_in_use_and_the_older_is_closed,
    ),
    (
        DialsOnce,
        LINK,
        lambda: siblings.test_a_sibling_that_comes_back_is_linked_again_whoever_dials("gamma"),
    ),
    (
        IgnoresWhoCameBefore,
        CONVERSATION,
        siblings.test_a_link_made_after_the_sibling_dialled_uses_its_connection,
    ),
    (
        DialsInHaste,
        "netstack.rpc.node.Dialler",
        siblings.test_a_sibling_that_hangs_up_at_once_is_not_dialled_without_a_pause,
    ),
    (
        DialsInHaste,
        "netstack.rpc.client.Dialler",
        clients.test_a_service_that_hangs_up_at_once_is_not_dialled_without_a_pause,
    ),
    (RevivesWhenItIsCalled, CLIENT, clients.test_a_client_that_was_closed_does_not_dial_again),
    (LingersWhenUnlinked, LINK, siblings.test_an_unlinked_sibling_is_not_dialled_any_more),
]


def _id(value: object) -> str:
    return "" if isinstance(value, str) else getattr(value, "__name__", "").strip("<>")


@pytest.mark.parametrize(("bug", "where", "judge"), ZOO, ids=_id)
def test_the_bug_is_caught(bug, where, judge, monkeypatch):
    with monkeypatch.context() as planted:
        planted.setattr(where, bug)
        with pytest.raises(CAUGHT):
            judge()
