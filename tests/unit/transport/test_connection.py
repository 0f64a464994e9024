"""One connection against another over a fake link, with exact times."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from transport_kit import SERVER, Pair

from netstack.transport.config import BASE_MTU, TransportConfig
from netstack.transport.errors import (
    BufferFull,
    ConnectionClosed,
    ConnectTimeout,
    IdleTimeout,
    PeerRestarted,
    TransportError,
)
from netstack.transport.events import (
    Closed,
    DatagramReceived,
    StreamOver,
    StreamReset,
    StreamStopped,
)
from netstack.transport.mtu import BLACK_HOLE_TIMEOUTS
from netstack.transport.packet import DATA, FINAL, INITIAL_IK, INITIAL_XX, RESPONSE, SHORT

RTT = 0.02  # twice the default delay of a Pair


def server_static() -> bytes:
    return SERVER.static_key.public_key().public_bytes_raw()


class TestHandshake:
    def test_xx_takes_one_and_a_half_round_trips(self):
        pair = Pair()
        assert pair.now == pytest.approx(1.5 * RTT)
        kinds = [d[0] for _, _, d in pair.carried[:3]]
        assert kinds == [INITIAL_XX, RESPONSE, FINAL]

    def test_ik_saves_half_a_round_trip_and_a_message(self):
        pair = Pair(known_static=server_static())
        assert pair.carried[0][2][0] == INITIAL_IK
        assert not any(d[0] == FINAL for _, _, d in pair.carried)
        assert pair.open

    def test_the_first_flight_is_padded_and_its_answer_is_smaller(self):
        pair = Pair()
        assert len(pair.carried[0][2]) == 1200
        assert len(pair.carried[1][2]) < 1200

    @pytest.mark.parametrize("lost", range(6))
    def test_each_packet_lost_in_turn(self, lost):
        pair = Pair(connect=False)
        count = iter(range(1000))
        pair.filter = lambda source, data: next(count) != lost
        assert pair.run(5.0, lambda: pair.open)

    @pytest.mark.parametrize("seed", range(20))
    def test_thirty_percent_loss_both_ways(self, seed):
        config = TransportConfig(handshake_timeout_s=60.0, idle_timeout_s=60.0)
        pair = Pair(config, seed=seed, loss=0.3, connect=False)
        assert pair.run(60.0, lambda: pair.open)

    def test_nobody_answers(self):
        pair = Pair(connect=False)
        pair.cut = {"client"}
        pair.run(30.0, lambda: pair.client.connection.state == "closed")
        assert isinstance(pair.client.connection.error, ConnectTimeout)
        sent = [t for t, _, _ in pair.carried]
        gaps = [b - a for a, b in itertools.pairwise(sent)]
        # Twice the initial RTT, then doubled each time.
        assert gaps[:4] == pytest.approx([0.1, 0.2, 0.4, 0.8])

    def test_a_half_open_connection_is_forgotten(self):
        pair = Pair(connect=False)
        pair.filter = lambda source, data: data[0] != FINAL and not data[0] & DATA
        pair.run(6.0)
        assert pair.server.connection.state == "closed"

    def test_both_know_who_the_other_is(self):
        pair = Pair()
        assert repr(pair.client.connection).startswith("<Connection 000000000000000b open ")


class TestStreams:
    def test_bytes_arrive_in_order_with_their_end(self):
        pair = Pair()
        stream = pair.client.connection.streams.open()
        pair.client.connection.write(stream, b"hello ")
        pair.client.connection.write(stream, b"world", fin=True)
        pair.run(1.0)
        assert pair.server.received == {0: b"hello world"}
        assert pair.server.fins == {0}

    def test_many_writes_of_one_turn_leave_in_one_packet(self):
        pair = Pair()
        pair.run(1.0)
        before = len(pair.data_packets("client"))
        stream = pair.client.connection.streams.open()
        for i in range(50):
            pair.client.connection.write(stream, b"%02d" % i)
        pair.flush()
        assert len(pair.data_packets("client")) == before + 1

    def test_ids_tell_who_opened(self):
        pair = Pair()
        assert [pair.client.connection.streams.open() for _ in range(3)] == [0, 2, 4]
        assert [pair.server.connection.streams.open() for _ in range(3)] == [1, 3, 5]

    def test_a_stalled_stream_does_not_hold_up_another(self):
        config = TransportConfig(stream_window=4096, connection_window=65536)
        pair = Pair(config)
        slow, fast = (pair.client.connection.streams.open() for _ in range(2))
        pair.collect = lambda side: None  # nobody reads: credit does not return
        pair.client.connection.write(slow, bytes(100_000))
        pair.client.connection.write(fast, b"quick")
        pair.run(1.0)
        del pair.collect
        pair.flush()
        assert len(pair.server.received[slow]) == 4096
        assert pair.server.received[fast] == b"quick"

    def test_no_more_is_sent_than_the_peer_allows_and_all_once_it_reads(self):
        config = TransportConfig(stream_window=10_000, connection_window=20_000)
        pair = Pair(config)
        stream = pair.client.connection.streams.open()
        pair.client.connection.write(stream, bytes(100_000), fin=True)
        pair.run(10.0, lambda: pair.server.fins)
        assert len(pair.server.received[stream]) == 100_000

    def test_the_buffer_is_bounded_and_a_refused_write_takes_nothing(self):
        config = TransportConfig(stream_buffer=1000)
        pair = Pair(config)
        stream = pair.client.connection.streams.open()
        pair.client.connection.write(stream, bytes(900))
        with pytest.raises(BufferFull):
            pair.client.connection.write(stream, bytes(101))
        assert pair.client.connection.streams.buffered(stream) == 900
        pair.run(1.0)
        assert pair.client.connection.streams.buffered(stream) == 0

    def test_streams_are_limited_and_come_back(self):
        config = TransportConfig(max_streams=4)
        pair = Pair(config)
        client, server = pair.client.connection, pair.server.connection
        for _ in range(3):
            ids = [client.streams.open() for _ in range(client.streams.allowed)]
            for stream in ids:
                client.write(stream, b"x", fin=True)
            with pytest.raises(TransportError, match="allows no more"):
                client.streams.open()
            pair.run(1.0)
            for stream in ids:
                server.write(stream, b"y", fin=True)
            pair.run(1.0)
        assert len(server.streams) == 0

    def test_reset_and_stop(self):
        pair = Pair()
        stream = pair.client.connection.streams.open()
        pair.client.connection.write(stream, b"x")
        pair.run(1.0)
        pair.client.connection.streams.reset(stream, 7)
        pair.client.connection.streams.stop(stream, 8)
        pair.run(1.0)
        assert pair.server.events == [StreamReset(0, 7), StreamStopped(0, 8), StreamOver(0)]

    def test_a_write_after_the_end_is_refused(self):
        pair = Pair()
        stream = pair.client.connection.streams.open()
        pair.client.connection.write(stream, b"x", fin=True)
        with pytest.raises(TransportError, match="closed for writing"):
            pair.client.connection.write(stream, b"y")

    def test_unreliable_datagrams(self):
        pair = Pair()
        pair.client.connection.send_datagram(b"ping")
        pair.run(0.1)
        assert pair.server.events == [DatagramReceived(b"ping")]
        with pytest.raises(TransportError, match="fits no packet"):
            pair.client.connection.send_datagram(bytes(70_000))

    def test_a_datagram_that_fits_no_packet_any_more_holds_up_none_behind_it(self):
        pair = Pair(mtu=1472)
        client = pair.client.connection
        client.write(client.streams.open(), bytes(300_000))
        assert pair.run(20.0, lambda: client.mtu.current == 1472 and not client.recovery.in_flight)
        client.send_datagram(bytes(1400))
        client.send_datagram(b"the next")
        client.mtu.timed_out(BLACK_HOLE_TIMEOUTS, pair.now)  # the path carries 1,200 from now on
        assert client.mtu.current == BASE_MTU
        pair.run(1.0)
        assert pair.server.events == [DatagramReceived(b"the next")]


class TestAcknowledgements:
    def test_a_lone_packet_is_acknowledged_after_the_delay(self):
        pair = Pair()
        pair.run(2.0)
        sent_at = pair.now
        stream = pair.client.connection.streams.open()
        pair.client.connection.write(stream, b"x")
        pair.run(1.0)
        answers = [t for t, _ in pair.data_packets("server") if t > sent_at]
        assert answers[0] == pytest.approx(sent_at + RTT / 2 + 0.025)

    def test_a_second_packet_is_acknowledged_at_once(self):
        pair = Pair()
        pair.run(2.0)
        sent_at = pair.now
        stream = pair.client.connection.streams.open()
        pair.client.connection.write(stream, bytes(2000))
        pair.run(1.0)
        answers = [t for t, _ in pair.data_packets("server") if t > sent_at]
        assert answers[0] == pytest.approx(sent_at + RTT / 2)

    def test_a_reply_carries_the_acknowledgement(self):
        pair = Pair()
        pair.run(2.0)
        client, server = pair.client.connection, pair.server.connection
        stream = client.streams.open()
        before = len(pair.data_packets("server"))
        client.write(stream, b"ping")
        pair.run(RTT / 2 + 0.001)
        server.write(stream, b"pong")
        pair.run(0.5)
        assert len(pair.data_packets("server")) == before + 1
        assert client.recovery.bytes_in_flight == 0

    def test_silence_costs_nothing_but_keep_alives(self):
        pair = Pair()
        pair.run(1.0)
        before = len(pair.carried)
        pair.run(60.0)
        per_second = (len(pair.carried) - before) / 60
        assert per_second < 1
        assert pair.open


class TestRecovery:
    def test_a_lost_packet_is_noticed_after_three_later_ones(self):
        pair = Pair(delay=0.05)
        pair.run(2.0)
        stream = pair.client.connection.streams.open()
        lost = []

        def drop_first(source, data):
            if source == "client" and data[0] & DATA and not lost:
                lost.append(data)
                return False
            return True

        pair.filter = drop_first
        started = pair.now
        pair.client.connection.write(stream, bytes(8000), fin=True)
        pair.run(1.0, lambda: pair.server.fins)
        # One way, an acknowledgement back, the repeat: no time-out was waited for.
        assert pair.now - started == pytest.approx(0.15, abs=0.005)
        assert pair.client.connection.recovery.losses == 1
        assert pair.client.connection.recovery.probes_sent == 0

    def test_the_last_packet_lost_needs_a_probe(self):
        pair = Pair(delay=0.05)
        pair.run(2.0)
        stream = pair.client.connection.streams.open()
        expected = pair.client.connection.recovery.probe_timeout()
        pair.cut = {"client"}
        started = pair.now
        pair.client.connection.write(stream, b"x", fin=True)
        pair.run(expected * 0.99)
        pair.cut = set()
        pair.run(1.0, lambda: pair.server.fins)
        assert pair.now - started == pytest.approx(expected + 0.05, rel=0.01)

    def test_a_probe_tells_again_what_has_come(self):
        """Or a lost acknowledgement is not made good before the other side's probe arrives."""
        pair = Pair(delay=0.01)
        pair.run(2.0)
        client, server = pair.client.connection, pair.server.connection
        stream = client.streams.open()
        client.write(stream, b"question")
        pair.cut = {"server"}  # nothing of the acknowledgement and of the answer arrives
        pair.run(0.1, lambda: pair.server.received)
        server.write(stream, b"answer")
        pair.run(0.05)
        pair.cut = {"client"}  # and nothing that could ask for them again
        (question, *_) = client.recovery.in_flight
        pair.run(2.0, lambda: pair.client.received)
        assert pair.client.received == {stream: b"answer"}
        assert question not in client.recovery.in_flight

    def test_time_outs_back_off_and_recover(self):
        pair = Pair(delay=0.001)
        pair.run(2.0)
        pair.cut = {"client", "server"}
        pair.client.connection.write(pair.client.connection.streams.open(), b"x")
        start = pair.now
        pair.run(6.0)
        times = [t - start for t, _ in pair.data_packets("client") if t > start]
        gaps = [b - a for a, b in itertools.pairwise(times)]
        assert all(b == pytest.approx(2 * a, rel=0.01) for a, b in itertools.pairwise(gaps))
        assert len(gaps) >= 4
        pair.cut = set()
        pair.run(5.0, lambda: pair.server.received)
        assert pair.server.received == {0: b"x"}

    def test_packet_numbers_are_never_reused(self):
        pair = Pair(loss=0.2, seed=5)
        stream = pair.client.connection.streams.open()
        pair.client.connection.write(stream, bytes(200_000), fin=True)
        pair.run(60.0, lambda: pair.server.fins)
        numbers = [int.from_bytes(d[9:17], "big") for _, d in pair.data_packets("client")]
        assert numbers == sorted(set(numbers))
        assert pair.client.connection.recovery.losses > 0

    def test_spurious_probes_do_no_harm(self):
        pair = Pair(delay=0.01)
        pair.run(1.0)
        stream = pair.client.connection.streams.open()
        pair.delay = 1.0  # the path grows a hundredfold: everything times out and yet arrives
        pair.client.connection.write(stream, bytes(5000), fin=True)
        pair.run(20.0, lambda: pair.server.fins)
        assert bytes(pair.server.received[stream]) == bytes(5000)

    def test_congestion_window_halves_once_a_round_trip(self):
        pair = Pair(TransportConfig(max_mtu=1200), delay=0.05)
        stream = pair.client.connection.streams.open()
        pair.client.connection.write(stream, bytes(3_000_000))
        pair.run(0.6)
        congestion = pair.client.connection.recovery.congestion
        before = congestion.cwnd
        drops = iter([False] * 5)
        pair.filter = lambda s, d: next(drops, True) if s == "client" else True
        pair.run(0.3)
        # Five packets of one window were lost: halving for each would leave a thirty-second.
        assert before // 2 <= congestion.ssthresh < float("inf")


class TestEnds:
    def test_close_tells_the_peer(self):
        pair = Pair()
        pair.client.connection.close(3, "enough", pair.now)
        pair.run(1.0)
        (closed,) = pair.server.events
        assert isinstance(closed, Closed)
        assert closed.error.code == 3
        assert str(closed.error) == "closed by the peer: enough"
        with pytest.raises(ConnectionClosed):
            pair.client.connection.write(0, b"x")

    def test_idle_time_out_is_driven_by_what_is_received(self):
        """A sender into a black hole must not keep itself alive."""
        config = TransportConfig(idle_timeout_s=6.0, keep_alive_s=2.0)
        pair = Pair(config)
        pair.run(10.0)
        assert pair.open
        pair.cut = {"server"}
        last_received = pair.now
        pair.run(20.0, lambda: pair.client.connection.state == "closed")
        assert isinstance(pair.client.connection.error, IdleTimeout)
        assert pair.now - last_received <= 6.0 + 0.1

    def test_a_stateless_reset_ends_it_and_a_false_one_does_not(self):
        pair = Pair()
        client = pair.client.connection
        assert not client.receive_reset(b"\0" * 16)
        assert client.state == "open"
        assert client.receive_reset(bytes([22]) * 16)
        assert isinstance(client.error, PeerRestarted)

    def test_rekeying_in_the_middle_of_a_transfer(self):
        pair = Pair()
        pair.run(1.0)
        client = pair.client.connection
        client._session._rekey_after = 20
        stream = client.streams.open()
        client.write(stream, bytes(3_000_000), fin=True)
        pair.run(60.0, lambda: pair.server.fins)
        assert len(pair.server.received[stream]) == 3_000_000
        assert client._session.phase_began > 0
        assert pair.server.dropped == 0


class TestBadPackets:
    def test_an_acknowledgement_of_the_future_ends_the_connection(self):
        pair = Pair()
        server = pair.server.connection
        from netstack.transport import frames

        ack = frames.ACK_ONE.pack(frames.ACK, 0, 1, 0, 10_000)
        server._out.append(server.outgoing.seal(ack))
        pair.run(1.0)
        assert pair.client.connection.state == "closed"
        assert "never sent" in str(pair.client.connection.error)

    @pytest.mark.parametrize(
        "payload",
        [
            b"\x63",
            b"\x03\x00",
            b"\x03" + bytes(12) + b"\xff" * 4,
            b"\x02" + bytes(4) + b"\x00\x01" + (5).to_bytes(8, "big") + (4).to_bytes(8, "big"),
            b"\x03" + (0).to_bytes(4, "big") + (1 << 40).to_bytes(8, "big") + b"\x00\x00\x00\x01x",
            b"\x03" + (4098).to_bytes(4, "big") + bytes(8) + b"\x00\x00\x00\x01x",
        ],
        ids=["kind", "short", "long", "range", "beyond credit", "too many streams"],
    )
    def test_frames_that_make_no_sense_end_the_connection(self, payload):
        pair = Pair()
        server = pair.server.connection
        server._out.append(server.outgoing.seal(payload))
        pair.run(1.0)
        assert pair.client.connection.state == "closed"
        assert pair.client.connection.error.code == 2

    def test_garbage_of_any_length_is_dropped(self):
        pair = Pair()
        for length in (1, 2, 8, 9, 16, 17, 32, 33, 34, 100, 1200):
            for first in (0, 1, 3, 4, 5, 6, 7, 0x40, 0x41, 0xFF):
                pair.deliver("server", bytes([first]) + bytes(length - 1))
        pair.run(0.5)
        assert pair.open
        assert pair.client.dropped == 33  # all that claim to be DATA; the rest has no meaning now

    def test_every_bit_of_a_data_packet_matters(self):
        pair = Pair()
        pair.run(1.0)
        client = pair.client.connection
        client.write(client.streams.open(), b"secret")
        (packet,) = client.datagrams_to_send(pair.now)
        for bit in range(len(packet) * 8):
            if SHORT.size * 8 > bit >= 8:
                continue  # the connection id only says whose it is
            damaged = bytearray(packet)
            damaged[bit // 8] ^= 1 << bit % 8
            pair.deliver("client", bytes(damaged))
        assert pair.server.received == {}
        pair.deliver("client", packet)
        pair.flush()
        assert pair.server.received == {0: b"secret"}


def test_configuration_mistakes_are_plain_sentences():
    with pytest.raises(ValueError, match="max_mtu must be between 1200 and 65507"):
        TransportConfig(max_mtu=100)
    with pytest.raises(ValueError, match="keep_alive_s must be below idle_timeout_s"):
        dataclasses.replace(TransportConfig(), keep_alive_s=20.0)
