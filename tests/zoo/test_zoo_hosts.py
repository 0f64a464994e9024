"""Planted bugs of hosts, and the test that catches each.

A judge is a test of tests/simulation, where it passes; here it must fail.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest
from evidence import caught

from netstack.transport import packet
from netstack.transport.connection import Connection
from netstack.transport.host import Host
from netstack.transport.peer import Stream
from netstack.transport.tokens import TokenMint

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "simulation"))
hosts = importlib.import_module("test_host_sim")
many = importlib.import_module("test_many_connections_sim")
moves = importlib.import_module("test_moves_sim")
streams = importlib.import_module("test_streams_sim")


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


class AnswersWithMore(Host):
    def _receive_initial(self, data, source, now):
        for _ in range(20):
            super()._receive_initial(data, source, now)


class LetsOneDialReplaceAnother(Host):
    def _receive_initial(self, data, source, now):
        super()._receive_initial(data, (source[0], source[1]), now)
        if len(self._peers) > 500:
            self._forget(self._peers[next(iter(self._peers))])


class KeepsTheDead(Host):
    def _set_alarm(self, peer):
        if peer.connection.next_deadline() is None:
            peer.deadline = 1e9
        super()._set_alarm(peer)

    def _forget(self, peer):
        super()._forget(peer)
        self._set_alarm(peer)


class HearsOfOneOnly(Host):
    """One handshake an id, whatever it begins with."""

    def _receive_initial(self, data, source, now):
        source_id = packet.parse_initial(data)[0]
        known = [peer for key, peer in self._by_initial.items() if key[1] == source_id]
        if known:
            known[0].connection.repeated_initial(data)
            self.touch(known[0])
        else:
            super()._receive_initial(data, source, now)


class NeverForgetsHandshakes(Host):
    def _handshake_over(self, peer):
        self._half_open += peer.initial_key is not None
        super()._handshake_over(peer)


class NeverRefuses(Host):
    def _send(self, datagrams, destination, mark=0):
        if datagrams[0][0] != packet.REFUSED:
            super()._send(datagrams, destination, mark)


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
    def _receive(self, datagrams, source, mark=0):
        for data in datagrams:
            if data[0] & packet.DATA and len(data) > 9:
                peer = self._peers.get(packet.destination_id(data))
                if peer is not None:
                    peer.address = source
        super()._receive(datagrams, source, mark)


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


class WaitsForNoReader(Stream):
    async def drain(self):
        return


class IgnoresTheReadersReset(Stream):
    def cut(self, receiving, code):
        return


HOST, MINT = "host_kit.Host", "netstack.transport.host.TokenMint"
CONNECTION, STREAM = "netstack.transport.host.Connection", "netstack.transport.peer.Stream"

ZOO = [
    (
        BelievesStrangers,
        MINT,
        hosts.test_a_stranger_gets_less_than_he_sent_and_leaves_nothing_behind,
        "assert len(answers) == 10",
    ),
    (
        GivesBearerTokens,
        MINT,
        hosts.test_a_token_is_worth_nothing_at_another_address,
        "assert [data[0] for data in answers] == [packet.RETRY]",
    ),
    (
        ForgetsItsResetKey,
        MINT,
        hosts.test_a_peer_that_was_killed_and_restarted_is_noticed_in_one_round_trip,
        "assert net.world.now - began == pytest.approx(ROUND_TRIP, abs=0.002)",
    ),
    (
        HasRoomForAllStrangers,
        HOST,
        hosts.test_handshakes_under_way_are_bounded_and_those_who_talk_are_served,
        "assert len(server._peers) <= 1 + 8",
    ),
    (
        HasRoomForAllStrangers,
        HOST,
        many.test_a_flood_from_addresses_that_can_receive_is_bounded_and_forgotten,
        "assert (server._half_open, len(server._peers)) == (limit, limit + 1)",
    ),
    (
        BelievesStrangers,
        MINT,
        many.test_a_flood_of_first_messages_leaves_nothing_and_is_answered_with_less,
        "assert (len(server._peers), server._half_open) == (1, 0)",
    ),
    (
        AnswersWithMore,
        HOST,
        many.test_a_flood_of_first_messages_leaves_nothing_and_is_answered_with_less,
        "assert 20 * stranger.answered < stranger.sent",
    ),
    (
        LetsOneDialReplaceAnother,
        HOST,
        many.test_a_thousand_dial_at_once_and_each_is_served_and_stays,
        "assert len(server._peers) == CONNECTIONS",
    ),
    (
        KeepsTheDead,
        HOST,
        many.test_a_thousand_dial_at_once_and_each_is_served_and_stays,
        "assert not server._alarms",
    ),
    (
        HearsOfOneOnly,
        HOST,
        hosts.test_a_forged_refusal_costs_time_and_not_the_connection,
        'ConnectTimeout: assert await ask(await dial, b"x") == b"x"',
    ),
    (
        NeverForgetsHandshakes,
        HOST,
        hosts.test_a_dial_that_is_called_off_leaves_nothing_on_either_side,
        "assert (server._half_open, len(server._peers)) == (0, 0)",
    ),
    (
        NeverRefuses,
        HOST,
        hosts.test_a_key_that_is_stale_is_answered_and_the_dial_begins_again,
        'ConnectTimeout: peer = await caller.connect(SERVER, service="echo", expect="server")',
    ),
    (
        AnswersShortInitials,
        HOST,
        hosts.test_an_initial_that_is_not_padded_is_not_answered,
        "assert not answers",
    ),
    (
        ResetsWithoutEnd,
        HOST,
        hosts.test_resets_are_rare_and_small_and_never_answer_one_another,
        "assert 1 <= len(answers) <= 110 # a second's allowance, and what came",
    ),
    (
        BelievesAnyReset,
        CONNECTION,
        hosts.test_a_reset_that_is_not_the_peers_changes_nothing,
        'PeerRestarted: assert await ask(peer, b"x") == b"x"',
    ),
    (
        KeepsItselfAlive,
        CONNECTION,
        hosts.test_silence_is_judged_by_what_is_received,
        "assert ended[0][0] - began == pytest.approx(6.0, abs=0.2)",
    ),
    (
        FollowsAnybody,
        HOST,
        moves.test_what_a_thief_has_copied_is_read_and_takes_nothing_over,
        'assert server.counters["challenges"] == 1',
    ),
    (
        AsksForNobody,
        HOST,
        hosts.test_who_answers_must_be_who_was_asked_for,
        'with pytest.raises(PeerRejected, match="is server, not n7"):',
    ),
    (
        RemembersNobody,
        HOST,
        hosts.test_the_first_dial_takes_two_round_trips_and_the_next_one,
        "assert second == pytest.approx(ROUND_TRIP, abs=0.002)",
    ),
    (
        LeavesWithoutAWord,
        HOST,
        hosts.test_a_goodbye_is_heard_at_once,
        "assert [(type(e), e.code) for e in heard] == [(ConnectionClosed, 7)]",
    ),
    (
        WaitsForNoReader,
        STREAM,
        streams.test_a_writer_waits_for_a_reader_that_does_not_read,
        "assert not task.done()",
    ),
    (
        IgnoresTheReadersReset,
        STREAM,
        streams.test_a_writer_that_waits_is_told_when_the_reader_gives_up,
        'with pytest.raises(TransportError, match="code 9"):',
    ),
]


def _id(value: object) -> str:
    return "" if isinstance(value, str) else getattr(value, "__name__", "").strip("<>")


@pytest.mark.parametrize(("bug", "where", "judge", "by"), ZOO, ids=_id)
def test_the_bug_is_caught(bug, where, judge, by, monkeypatch):
    with monkeypatch.context() as planted:
        planted.setattr(where, bug)
        with caught(by):
            judge()
