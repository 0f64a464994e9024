"""Planted bugs of hosts, and the test that catches each.

A judge is a test of tests/simulation, where it passes; here it must fail.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest

from netstack.transport import packet
from netstack.transport.connection import Connection
from netstack.transport.errors import TransportError
from netstack.transport.host import Host
from netstack.transport.peer import Stream
from netstack.transport.tokens import TokenMint

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "simulation"))
hosts = importlib.import_module("test_host_sim")
many = importlib.import_module("test_many_connections_sim")
moves = importlib.import_module("test_moves_sim")
streams = importlib.import_module("test_streams_sim")

CAUGHT = (AssertionError, TransportError, TimeoutError, pytest.fail.Exception)


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
    def _send(self, datagrams, destination, mark=0):
        if datagrams[0][0] == packet.RETRY:
            datagrams = [data.ljust(1200, b"\0") for data in datagrams]
        super()._send(datagrams, destination, mark)


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
        HasRoomForAllStrangers,
        HOST,
        many.test_a_flood_from_addresses_that_can_receive_is_bounded_and_forgotten,
    ),
    (
        BelievesStrangers,
        MINT,
        many.test_a_flood_of_first_messages_leaves_nothing_and_is_answered_with_less,
    ),
    (
        AnswersWithMore,
        HOST,
        many.test_a_flood_of_first_messages_leaves_nothing_and_is_answered_with_less,
    ),
    (
        LetsOneDialReplaceAnother,
        HOST,
        many.test_a_thousand_dial_at_once_and_each_is_served_and_stays,
    ),
    (KeepsTheDead, HOST, many.test_a_thousand_dial_at_once_and_each_is_served_and_stays),
    (HearsOfOneOnly, HOST, hosts.test_a_forged_refusal_costs_time_and_not_the_connection),
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
