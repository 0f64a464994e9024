"""Planted bugs of calls, links and hosts, and the test that catches each.

A judge is a test of tests/unit/rpc or tests/simulation, where it passes; here it must fail.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest

from netstack.rpc import dedup, frames
from netstack.rpc.client import RpcClient
from netstack.rpc.connection import _END, RpcConnection, _Incoming
from netstack.rpc.errors import ConnectionLost, Forbidden, Interrupted, RpcError, from_wire
from netstack.rpc.node import Link
from netstack.rpc.service import Call, RpcService
from netstack.transport import packet
from netstack.transport.connection import Connection
from netstack.transport.errors import BufferFull, TransportError
from netstack.transport.host import Host
from netstack.transport.peer import Peer, Stream
from netstack.transport.tokens import TokenMint

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "unit" / "rpc"), str(TESTS / "simulation")]
calls = importlib.import_module("test_rpc_calls")
hostile = importlib.import_module("test_rpc_hostile")
links = importlib.import_module("test_rpc_links")
hosts = importlib.import_module("test_host_sim")
moves = importlib.import_module("test_moves_sim")
streams = importlib.import_module("test_streams_sim")

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


class TakesAnyLifeForItsOwn(RpcService):
    def _first_time(self, call, key):
        return super()._first_time(call, [*key[:3], None])


class RepeatsPlainCalls(RpcClient):
    async def call(self, method, body=None, *, timeout_s=5.0, idempotent=False, once=False):
        return await super().call(method, body, timeout_s=timeout_s, idempotent=not once, once=once)


class NeverRepeats(RpcClient):
    async def call(self, method, body=None, *, timeout_s=5.0, idempotent=False, once=False):
        return await super().call(method, body, timeout_s=timeout_s)


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
    def _refusal(self, method, name, connection):
        self._calls_max = 2**31
        return super()._refusal(method, name, connection)


class TakesCallsWhileItDrains(RpcService):
    def _refusal(self, method, name, connection):
        draining, self.draining = self.draining, False
        try:
            return super()._refusal(method, name, connection)
        finally:
            self.draining = draining


class IgnoresDeadlines(RpcService):
    async def _run_unary(self, method, body, call, connection):
        call.deadline = float("inf")
        await super()._run_unary(method, body, call, connection)


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
    def _push(self, data):
        super()._push(data)
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


class HoardsWhatIsNotRead(RpcConnection):
    def _push(self, data):
        try:
            self._lane.push(data)
        except BufferFull:
            self.counters["unread"] += 1


class ReadsOnAfterNonsense(RpcConnection):
    def abort(self, reason):
        return


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


class GivesNoCredit(_Incoming):
    def consumed(self):
        return False


class TakesALossForTheEnd(_Incoming):
    def put(self, item):
        super().put(_END if isinstance(item, ConnectionLost) else item)


class LetsTheProducerRunOn(RpcConnection):
    def send(self, message):
        if message[0] != frames.CANCEL:
            super().send(message)


# -- links


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


class LingersWhenUnlinked(Link):
    async def close(self):
        return


# -- hosts


class BelievesStrangers(TokenMint):
    def valid(self, token, host, port, now):
        return True


class GivesBearerTokens(TokenMint):
    def _address_token(self, bound_to, expires_at):
        return super()._address_token("anybody", expires_at)


class ForgetsItsResetKey(TokenMint):
    def __init__(self, secret):
        super().__init__(secret)
        self._reset_key = os.urandom(32)


class HasRoomForAllStrangers(Host):
    def _receive_initial(self, data, source, now):
        self._half_open = 0
        super()._receive_initial(data, source, now)


class NeverForgetsHandshakes(Host):
    def _handshake_over(self, peer):
        self._half_open += peer.initial_key is not None
        super()._handshake_over(peer)


class NeverRefuses(Host):
    def _send(self, datagrams, destination):
        if datagrams[0][0] != packet.REFUSED:
            super()._send(datagrams, destination)


class AnswersShortInitials(Host):
    def _receive_initial(self, data, source, now):
        super()._receive_initial(data.ljust(1200, b"\0"), source, now)


class ResetsWithoutEnd(Host):
    def _answer_unknown(self, data, connection_id, source, now):
        self._resets_left, self._resets_at = 100.0, now
        super()._answer_unknown(data, connection_id, source, now)


class BelievesAnyReset(Connection):
    def receive_reset(self, token):
        return super().receive_reset(self._reset_token)


class KeepsItselfAlive(Connection):
    def datagrams_to_send(self, now):
        out = super().datagrams_to_send(now)
        self._last_received = now if out else self._last_received
        return out


class FollowsAnybody(Host):
    def _receive(self, datagrams, source):
        for data in datagrams:
            if data[0] & packet.DATA and len(data) > 9:
                peer = self._peers.get(packet.destination_id(data))
                if peer is not None:
                    peer.address = source
        super()._receive(datagrams, source)


class AsksForNobody(Host):
    async def connect(self, address, *, service, expect=None, timeout_s=5.0):
        return await super().connect(address, service=service, timeout_s=timeout_s)


class RemembersNobody(Host):
    def _remember(self, peer, token):
        return


class LeavesWithoutAWord(Host):
    def end(self, peer, code, reason):
        peer.connection._session = None
        super().end(peer, code, reason)


class WakesNoWriter(Peer):
    def wake_writers(self):
        return


class WaitsForNoReader(Stream):
    async def drain(self):
        return


class IgnoresTheReadersReset(Stream):
    def cut(self, receiving, code):
        return


TABLE, CALL = "netstack.rpc.dedup.OnceTable", "netstack.rpc.service.Call"
SERVICE, CLIENT = "netstack.rpc.node.RpcService", "netstack.rpc.node.RpcClient"
CONVERSATION, LINK = "netstack.rpc.node.RpcConnection", "netstack.rpc.node.Link"
INCOMING, FROM_WIRE = "netstack.rpc.connection._Incoming", "netstack.rpc.connection.from_wire"
HOST, MINT = "host_kit.Host", "netstack.transport.host.TokenMint"
CONNECTION, PEER = "netstack.transport.host.Connection", "netstack.transport.host.Peer"
STREAM = "netstack.transport.peer.Stream"

retries, server_streams = calls.TestRetries(), calls.TestStreams()
lanes, nonsense = hostile.TestFullLanes(), hostile.TestNonsense()
handlers, siblings = hostile.TestHandlersWithBugs(), links.TestLinks()

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
        TakesAnyLifeForItsOwn,
        SERVICE,
        retries.test_once_is_refused_by_another_life_of_the_service,
    ),
    (RepeatsPlainCalls, CLIENT, retries.test_a_plain_call_is_not_repeated),
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
    (LingersWhenUnlinked, LINK, siblings.test_an_unlinked_sibling_is_not_dialled_any_more),
    (
        BelievesStrangers,
        MINT,
        hosts.test_a_stranger_gets_less_than_he_sent_and_leaves_nothing_behind,
    ),
    (GivesBearerTokens, MINT, hosts.test_a_token_is_worth_nothing_at_another_address),
    (
        ForgetsItsResetKey,
        MINT,
        hosts.test_a_peer_that_was_killed_and_restarted_is_noticed_in_one_round_trip,
    ),
    (
        HasRoomForAllStrangers,
        HOST,
        hosts.test_handshakes_under_way_are_bounded_and_those_who_talk_are_served,
    ),
    (
        NeverForgetsHandshakes,
        HOST,
        hosts.test_a_dial_that_is_called_off_leaves_nothing_on_either_side,
    ),
    (
        NeverRefuses,
        HOST,
        hosts.test_a_key_that_is_stale_is_answered_and_the_dial_begins_again,
    ),
    (AnswersShortInitials, HOST, hosts.test_an_initial_that_is_not_padded_is_not_answered),
    (ResetsWithoutEnd, HOST, hosts.test_resets_are_rare_and_small_and_never_answer_one_another),
    (
        BelievesAnyReset,
        CONNECTION,
        hosts.test_a_reset_that_is_not_the_peers_changes_nothing,
    ),
    (KeepsItselfAlive, CONNECTION, hosts.test_silence_is_judged_by_what_is_received),
    (
        FollowsAnybody,
        HOST,
        moves.test_what_a_thief_has_copied_is_read_and_takes_nothing_over,
    ),
    (AsksForNobody, HOST, hosts.test_who_answers_must_be_who_was_asked_for),
    (
        RemembersNobody,
        HOST,
        hosts.test_the_first_dial_takes_two_round_trips_and_the_next_one,
    ),
    (LeavesWithoutAWord, HOST, hosts.test_a_goodbye_is_heard_at_once),
    (WakesNoWriter, PEER, lanes.test_callers_wait),
    (WaitsForNoReader, STREAM, streams.test_a_writer_waits_for_a_reader_that_does_not_read),
    (
        IgnoresTheReadersReset,
        STREAM,
        streams.test_a_writer_that_waits_is_told_when_the_reader_gives_up,
    ),
]


def _id(value: object) -> str:
    return "" if isinstance(value, str) else getattr(value, "__name__", "").strip("<>")


@pytest.mark.parametrize(("bug", "where", "judge"), ZOO, ids=_id)
def test_the_bug_is_caught(bug, where, judge, monkeypatch):
    with monkeypatch.context() as planted:
        planted.setattr(where, bug)
        with pytest.raises(CAUGHT):
            judge()
