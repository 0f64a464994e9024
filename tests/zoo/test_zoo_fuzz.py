"""Bugs planted in what reads bytes: each must be found among the inputs that `make test` plays.

Coverage would guide there sooner; here chance must do.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from netstack.transport import frames as f
from netstack.transport import packet
from netstack.transport.errors import PeerRejected
from netstack.transport.handshake import Initiator
from netstack.transport.host import Host
from netstack.transport.packet import Malformed
from netstack.transport.streams import ReceiveStream
from netstack.transport.tokens import TokenMint
from security.errors import HandshakeFailed

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fuzz"))

import fuzz
import fuzz_host  # patched below, so it must be there
from test_fuzz import RUNS


def takes_half_a_frame(data, offset, length):
    return data[offset : offset + length]


def takes_ranges_in_any_order(connection, data, offset, now):
    kind, delay_us, count = f.ACK_HEAD.unpack_from(data, offset)
    offset += f.ACK_HEAD.size
    ranges = [f.RANGE.unpack_from(data, offset + i * f.RANGE.size) for i in range(count)]
    offset += count * f.RANGE.size + (f.ECN_COUNTS.size if kind == f.ACK_ECN else 0)
    if ranges:
        connection.on_ack(ranges, delay_us / 1e6, None, now)
    return offset


def takes_half_an_initial(data):
    try:
        token, message = data[11:].split(bytes(2), 1)
        return packet.SHORT.unpack_from(data)[1], token, message
    except Exception:
        raise Malformed("cut short") from None


class TakesTokensOfYesterday(TokenMint):
    def valid(self, token, host, port, now):
        return len(token) == 24


class GivesUpAtTheFirstDamage(Initiator):
    def receive(self, data, now):
        try:
            super().receive(data, now)
        except HandshakeFailed as error:
            raise PeerRejected(str(error)) from None


class DeliversOverlapsTwice(ReceiveStream):
    def _reassemble(self, offset, data, end):
        if offset < self.next_offset < end:
            self.next_offset = end
            return data
        return super()._reassemble(offset, data, end)


class RaisesOutOfTheLoop(Host):
    def _receive_one(self, data, source, now, mark, fed):
        try:
            super()._receive_one(data, source, now, mark, fed)
        except Malformed as error:
            raise ValueError("a datagram") from error


class DropsInSilence(Host):
    def _receive(self, datagrams, source, mark=0):
        before = self.counters.copy()
        super()._receive(datagrams, source, mark)
        self.counters = before


ZOO = (
    (takes_half_a_frame, "netstack.transport.parser._slice", "frames"),
    (takes_ranges_in_any_order, "netstack.transport.parser._ack", "frames"),
    (takes_half_an_initial, "netstack.transport.packet.parse_initial", "packet"),
    (TakesTokensOfYesterday, "fuzz_parsers.TokenMint", "tokens"),
    (GivesUpAtTheFirstDamage, "fuzz_handshake.Initiator", "handshake"),
    (DeliversOverlapsTwice, "netstack.transport.stream_set.ReceiveStream", "connection"),
    (RaisesOutOfTheLoop, "host_kit.Host", "host"),
    (DropsInSilence, "host_kit.Host", "host"),
)


def _id(value):
    return "" if isinstance(value, str) else value.__name__.strip("<>")


@pytest.mark.parametrize(("bug", "where", "target"), ZOO, ids=_id)
def test_the_bug_is_found(bug, where, target, monkeypatch):
    assert fuzz_host
    monkeypatch.setattr(where, bug)
    with pytest.raises(Exception):  # noqa: B017, PT011 - anything a target lets out is a finding
        fuzz.by_chance(fuzz.make(target), RUNS[target])
