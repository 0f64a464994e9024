"""The small parts: ranges, RTT, recovery's formulas, MTU discovery, streams, tokens."""

from __future__ import annotations

import random
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transport_kit import Pair

from netstack.transport.config import TransportConfig
from netstack.transport.errors import ProtocolViolation
from netstack.transport.events import StreamData
from netstack.transport.mtu import MtuDiscovery
from netstack.transport.peer import Peer
from netstack.transport.ranges import RangeSet
from netstack.transport.rtt import RTO_S_MAX, RTO_S_MIN, LectureEwma, RttEstimator
from netstack.transport.stream_set import StreamSet
from netstack.transport.streams import ReceiveStream
from netstack.transport.tokens import NEW_TOKEN_S, RETRY_S, TokenMint

NOW = 1_800_000_000.0


class TestRanges:
    @given(values=st.lists(st.integers(0, 80), max_size=60))
    def test_agrees_with_a_set(self, values):
        ranges, model = RangeSet(), set()
        for value in values:
            ranges.add(value)
            model.add(value)
            assert ranges.highest == max(model)
        assert all((v in ranges) == (v in model) for v in range(82))
        listed = [v for first, last in ranges.descending() for v in range(last, first - 1, -1)]
        assert listed == sorted(model, reverse=True)

    def test_in_order_arrival_is_told_from_a_gap(self):
        ranges = RangeSet()
        assert ranges.add(0)
        assert ranges.add(1)
        assert not ranges.add(3)
        assert not ranges.add(2)
        assert repr(ranges) == "<RangeSet 0-3>"

    def test_forgetting(self):
        ranges = RangeSet()
        for value in (1, 2, 3, 7, 8, 12):
            ranges.add(value)
        ranges.drop_below(8)
        assert ranges.descending() == [(12, 12), (8, 8)]

    def test_the_number_of_gaps_is_bounded(self):
        ranges = RangeSet()
        for value in range(0, 1000, 2):
            ranges.add(value)
        assert len(ranges.descending()) == 64
        assert ranges.highest == 998


class TestRtt:
    def test_the_first_sample_sets_both(self):
        """RFC 6298 (2.2)."""
        rtt = RttEstimator(0.333)
        rtt.sample(0.1)
        assert (rtt.smoothed, rtt.variation) == (0.1, 0.05)
        assert rtt.rto() == pytest.approx(0.1 + 4 * 0.05)

    def test_later_samples_use_the_old_average_for_the_deviation(self):
        """RFC 6298 (2.3): RTTVAR before SRTT."""
        rtt = RttEstimator(0.333)
        rtt.sample(0.100)
        rtt.sample(0.200)
        assert rtt.variation == pytest.approx(0.75 * 0.05 + 0.25 * 0.100)
        assert rtt.smoothed == pytest.approx(0.1125)

    def test_the_lecture_takes_the_deviation_from_the_new_average(self):
        rfc, lecture = RttEstimator(0.333), LectureEwma(0.333)
        for estimator in (rfc, lecture):
            estimator.sample(0.100)
            estimator.sample(0.200)
        assert lecture.smoothed == rfc.smoothed
        assert lecture.variation == pytest.approx(0.75 * 0.05 + 0.25 * (0.200 - 0.1125))
        # The deviation is 7/8 of the RFC's: the average has moved an eighth of the way.
        fresh_rfc, fresh_lecture = rfc.variation - 0.0375, lecture.variation - 0.0375
        assert fresh_lecture / fresh_rfc == pytest.approx(7 / 8)

    def test_a_steady_path_is_measured_exactly(self):
        """No sticking below: quicly#680 kept an average 7 ms low for ever in integers."""
        rtt = RttEstimator(0.1)
        for _ in range(200):
            rtt.sample(0.120)
        assert rtt.smoothed == pytest.approx(0.120, abs=1e-6)

    def test_the_time_out_is_bounded_on_both_sides_and_backs_off(self):
        rtt = RttEstimator(0.1)
        for _ in range(100):
            rtt.sample(0.0001)
        assert rtt.rto() == RTO_S_MIN
        assert rtt.rto(1) == 2 * RTO_S_MIN
        assert rtt.rto(30) == RTO_S_MAX

    def test_the_minimum_is_not_lowered_by_the_peers_claims(self):
        """msquic#5436."""
        rtt = RttEstimator(0.1)
        rtt.sample(0.050)
        rtt.sample(0.060, ack_delay_s=0.055)
        assert rtt.minimum == 0.050
        assert rtt.smoothed > 0.050


class TestMtu:
    def search(self, carries: int, maximum: int = 65_507) -> MtuDiscovery:
        mtu = MtuDiscovery(maximum)
        mtu.packet_was_full(0.0)
        for _ in range(200):
            size = mtu.next_probe()
            if not size:
                break
            assert size <= maximum
            if size <= carries:
                mtu.probe_arrived(size, 0.0)
            else:
                mtu.probe_lost(size, 0.0)
        return mtu

    @pytest.mark.parametrize("carries", [1200, 1201, 1400, 1472, 1500, 9000, 40_000, 65_507])
    def test_the_search_ends_just_below_what_the_path_carries(self, carries):
        found = self.search(carries).current
        assert carries - 64 < found <= carries

    def test_nothing_is_probed_until_there_is_a_use_for_it(self):
        assert MtuDiscovery(65_507).next_probe() == 0

    def test_no_search_again_before_the_raise_timer(self):
        mtu = self.search(1500)
        mtu.packet_was_full(599.0)
        assert mtu.next_probe() == 0
        mtu.packet_was_full(600.1)
        assert mtu.next_probe() > 1472

    def test_a_black_hole_falls_back_to_what_everything_carries(self):
        mtu = self.search(9000)
        assert not mtu.timed_out(2, 1.0)
        assert mtu.timed_out(3, 1.0)
        assert mtu.current == 1200

    def test_large_packets_lost_three_times_in_a_row_are_a_black_hole(self):
        mtu = self.search(9000)
        before = mtu.current
        assert not mtu.lost(before, 1.0)
        assert not mtu.lost(1200, 1.5)  # a small one says nothing of it
        assert not mtu.lost(before, 2.0)
        assert mtu.current == before
        assert mtu.lost(before, 3.0)
        assert mtu.current == 1200

    def test_a_burst_that_a_full_queue_dropped_is_none(self):
        mtu = self.search(9000)
        before = mtu.current
        for at in (1.0, 2.0):
            assert not any(mtu.lost(before, at) for _ in range(100))
        mtu.large_arrived()
        for at in (3.0, 4.0):
            assert not any(mtu.lost(before, at) for _ in range(100))
        assert mtu.current == before

    def test_loopback_finds_tens_of_kilobytes(self):
        pair = Pair(delay=0.001)
        stream = pair.client.connection.streams.open()
        pair.client.connection.write(stream, bytes(8_000_000), fin=True)
        pair.run(20.0, lambda: pair.server.fins)
        assert pair.client.connection.mtu.current > 30_000

    def test_a_path_of_1500_bytes_is_never_gone_over_and_probes_are_no_congestion(self):
        pair = Pair(delay=0.001, mtu=1472)
        connection = pair.client.connection
        stream = connection.streams.open()
        connection.write(stream, bytes(2_000_000), fin=True)
        pair.run(30.0, lambda: pair.server.fins)
        assert 1400 < connection.mtu.current <= 1472
        assert len(pair.server.received[stream]) == 2_000_000
        assert connection.recovery.losses == 0  # lost probes speak of size only

    def test_a_path_that_shrinks_repairs_itself(self):
        pair = Pair(delay=0.001)
        connection = pair.client.connection
        stream = connection.streams.open()
        connection.write(stream, bytes(8_000_000))
        pair.run(10.0, lambda: len(pair.server.received.get(stream, b"")) == 8_000_000)
        pair.mtu = 1300
        connection.write(stream, bytes(100_000), fin=True)
        assert pair.run(60.0, lambda: pair.server.fins)
        assert connection.mtu.current == 1200


class TestReassembly:
    @given(seed=st.integers(0, 2**32))
    def test_any_order_any_overlap(self, seed):
        dice = random.Random(seed)
        whole = dice.randbytes(dice.randint(1, 400))
        pieces = [(i, i + 1) for i in range(len(whole))]
        for _ in range(30):
            a = dice.randrange(len(whole))
            pieces.append((a, dice.randint(a, len(whole))))
        dice.shuffle(pieces)
        stream, out = ReceiveStream(1000), b""
        for a, b in pieces:
            out += stream.receive(a, whole[a:b], b == len(whole))
            assert stream.buffered >= 0
        assert out == whole
        assert stream.finished

    def test_copies_do_not_pile_up(self):
        stream = ReceiveStream(1000)
        for _ in range(50):
            for offset in range(100, 900, 10):
                stream.receive(offset, bytes(100), False)
        assert stream.buffered <= 2000

    def test_a_reset_tells_how_many_bytes_will_not_be_handed_over(self):
        stream = ReceiveStream(100)
        stream.receive(0, bytes(10), False)
        stream.receive(30, bytes(10), False)
        assert stream.reset(60) == 50
        assert stream.finished
        assert (stream.highest, stream.buffered) == (60, 0)

    @pytest.mark.parametrize("end", [39, 101])
    def test_a_reset_that_contradicts_what_came_is_a_violation(self, end):
        stream = ReceiveStream(100)
        stream.receive(30, bytes(10), False)
        with pytest.raises(ProtocolViolation, match="reset beyond its end"):
            stream.reset(end)

    def test_an_end_does_not_move(self):
        stream = ReceiveStream(100)
        stream.receive(30, bytes(10), True)
        with pytest.raises(ProtocolViolation, match="reset beyond its end"):
            stream.reset(50)
        assert stream.reset(40) == 40

    def test_limits_and_ends_are_held(self):
        stream = ReceiveStream(100)
        with pytest.raises(ProtocolViolation, match="more stream data than"):
            stream.receive(90, bytes(11), False)
        stream.receive(10, bytes(10), True)
        with pytest.raises(ProtocolViolation, match="beyond its end"):
            stream.receive(15, bytes(10), False)
        with pytest.raises(ProtocolViolation, match="beyond its end"):
            stream.receive(10, bytes(5), True)


class TestTokens:
    mint = TokenMint(b"secret")

    def test_a_retry_token_is_for_its_address_and_its_time(self):
        token = self.mint.retry("127.0.0.1", 5000, NOW)
        assert self.mint.valid(token, "127.0.0.1", 5000, NOW + RETRY_S - 0.1)
        assert not self.mint.valid(token, "127.0.0.1", 5001, NOW)
        assert not self.mint.valid(token, "127.0.0.2", 5000, NOW)
        assert not self.mint.valid(token, "127.0.0.1", 5000, NOW + RETRY_S)

    def test_a_new_token_is_for_its_host(self):
        token = self.mint.new("127.0.0.1", NOW)
        assert self.mint.valid(token, "127.0.0.1", 1, NOW + NEW_TOKEN_S - 1)
        assert not self.mint.valid(token, "127.0.0.1", 1, NOW + NEW_TOKEN_S)
        assert not self.mint.valid(token, "127.0.0.9", 1, NOW)

    @pytest.mark.parametrize("token", [b"", b"x", bytes(24), b"\xff" * 24, bytes(100)])
    def test_forged_tokens(self, token):
        assert not self.mint.valid(token, "127.0.0.1", 5000, NOW)

    def test_another_node_makes_other_tokens(self):
        other = TokenMint(b"other")
        assert not self.mint.valid(other.new("127.0.0.1", NOW), "127.0.0.1", 1, NOW)
        assert other.reset(1) != self.mint.reset(1) != self.mint.reset(2)

    def test_a_reset_token_outlives_the_process(self):
        """erlang_quic#202: a key of the process makes the survivor wait for the idle time-out."""
        assert TokenMint(b"secret").reset(7) == self.mint.reset(7)


def test_the_end_of_a_stream_is_told_once_however_often_it_comes():
    """The frame that bears it may be sent again while the other direction is still open."""
    events = []
    streams = StreamSet(TransportConfig(), True, events, deque())
    for _ in range(3):
        streams.on_stream(1, 0, b"all", True)
    streams.on_stream(1, 3, b"", True)
    assert [(e.data, e.fin) for e in events if isinstance(e, StreamData)] == [(b"all", True)]


class Nobody:
    """A host that sends nothing."""

    def touch(self, peer):
        pass


class TestLargeFrames:
    """They are handed on as views of their packets."""

    SIZES = (3000, 2500)

    @pytest.fixture
    async def stream(self):
        pair = Pair()
        return Peer(Nobody(), pair.client.connection, ("127.0.0.1", 7401)).open_stream()

    def arrives(self, stream):
        parts = [memoryview(bytes([size % 251]) * size) for size in self.SIZES]
        stream.peer.handle(StreamData(stream.id, parts, True))
        return b"".join(parts)

    async def test_come_one_by_one_and_the_last_bears_the_end(self, stream):
        told = []
        stream.receiver = lambda data, fin: told.append((len(data), fin))
        self.arrives(stream)
        assert told == [(3000, False), (2500, True)]

    async def test_are_bytes_for_who_reads(self, stream):
        sent = self.arrives(stream)
        read = [await stream.read(), await stream.read()]
        assert [type(data) for data in read] == [bytes, bytes]
        assert b"".join(read) == sent
        assert await stream.read() == b""

    def test_small_ones_are_joined(self):
        assert StreamData(0, [b"ab", b"c"], False).pieces() == [b"abc"]

    def test_what_must_wait_for_others_keeps_no_packet_alive(self):
        stream, packet = ReceiveStream(1 << 20), bytearray(b"x" * 4000)
        assert not stream.receive(3000, memoryview(packet)[1000:], False)
        packet[:] = b"y" * 4000
        assert stream.receive(0, bytes(3000), False) == bytes(3000) + b"x" * 3000
