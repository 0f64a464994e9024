"""Traps that other transports fell into, each with the test that keeps us out of it.

TRAPS is the map: what went wrong, where that is told, and the test of ours. Half of them belong
beside the part they try, and are there; the others are below. The first test here sees to it that
none of them goes away unnoticed.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

import pytest
from transport_kit import Pair

from netstack.transport import events
from netstack.transport import frames as f
from netstack.transport.acks import AckState
from netstack.transport.config import TransportConfig
from netstack.transport.congestion.fixed import SlidingWindow
from netstack.transport.congestion.newreno import NewReno
from netstack.transport.ecn import EcnPath
from netstack.transport.mtu import MtuDiscovery
from netstack.transport.pacing import BURST_PACKETS, Pacer
from netstack.transport.ranges import RangeSet
from netstack.transport.recovery import Recovery, SentPacket
from netstack.transport.rtt import GRANULARITY_S, RTO_S_MIN, RttEstimator
from netstack.transport.streams import ReceiveStream, SendStream

TESTS = Path(__file__).parents[2]
HERE = "unit/transport/test_traps.py"
CONNECTION = "unit/transport/test_connection.py"
PARTS = "unit/transport/test_transport_parts.py"
MARKS = "unit/transport/test_pace_and_marks.py"
HOST = "simulation/test_host_sim.py"
MANY = "simulation/test_many_connections_sim.py"


class Trap(NamedTuple):
    what: str
    told: str  # by whom
    file: str  # of the test that keeps us out of it
    test: str


TRAPS = (
    # What is measured of the path.
    Trap("the deviation is taken from the new average", "RFC 9002 erratum 7539", PARTS,
         "test_later_samples_use_the_old_average_for_the_deviation"),
    Trap("the deviation is taken from the minimum", "aioquic 1.3 recovery.py", HERE,
         "test_the_deviation_is_from_the_average_and_not_from_the_minimum"),
    Trap("an average in whole milliseconds sticks below the truth", "quicly#680", PARTS,
         "test_a_steady_path_is_measured_exactly"),
    Trap("and on its way up to a slower path", "quicly#680", HERE,
         "test_an_average_reaches_a_path_that_got_a_little_slower"),
    Trap("no margin where the deviation is nothing", "quicly#681", HERE,
         "test_a_time_out_leaves_a_margin_where_nothing_deviates"),
    Trap("no round trip is shorter than a millisecond", "aioquic 1.3 recovery.py", HERE,
         "test_a_round_trip_of_microseconds_is_measured_as_one"),
    Trap("the delay of the acknowledgement lowers the minimum", "msquic#5436", PARTS,
         "test_the_minimum_is_not_lowered_by_the_peers_claims"),
    Trap("an answer to a repeat is taken for one to the first", "Karn and Partridge 1987", HERE,
         "test_an_answer_to_a_repeat_is_not_taken_for_one_to_the_first"),
    # What is kept of packets.
    Trap("all packets in flight are sorted at each acknowledgement", "aioquic 1.3; quinn#2720",
         HERE, "test_an_acknowledgement_touches_what_it_names_and_nothing_else"),
    Trap("what has arrived is searched from its beginning", "aioquic 1.3 RangeSet", HERE,
         "test_a_packet_in_order_costs_the_same_behind_any_number_of_gaps"),
    Trap("objects made for each packet carry a dictionary", "speed notes of many stacks", HERE,
         "test_what_is_made_or_asked_for_each_packet_has_slots"),
    Trap("each packet is acknowledged", "aioquic 1.3; neqo#844", CONNECTION,
         "test_a_second_packet_is_acknowledged_at_once"),
    Trap("a train is acknowledged packet by packet", "neqo#844", HERE,
         "test_a_train_gets_one_acknowledgement"),
    Trap("crumbs out of order cost a hundred bytes each", "quinn TooManyChunks", HERE,
         "test_crumbs_end_the_connection_before_they_fill_the_memory"),
    Trap("questions are answered into a queue without end", "quinn path responses", HERE,
         "test_who_asks_and_acknowledges_no_answer_is_cut_off"),
    # Loss and congestion.
    Trap("no persistent congestion", "aioquic 1.3 reno.py", "unit/transport/"
         "test_persistent_congestion.py", "test_nothing_arrived_for_several_time_outs_is"),
    Trap("two losses far apart are taken for it", "RFC 9002 §7.6.2", "unit/transport/"
         "test_persistent_congestion.py",
         "test_losses_with_an_arrival_between_them_are_no_persistent_congestion"),
    Trap("marks are counted and thrown away", "aioquic 1.3", MARKS,
         "test_marks_are_the_growth_of_the_peers_count"),
    Trap("a path that erases marks is believed", "RFC 9000 §13.4.2", MARKS,
         "test_counts_that_do_not_add_up_end_the_marking"),
    Trap("a number acknowledged that was never sent", "RFC 9000 §21.4", CONNECTION,
         "test_an_acknowledgement_of_the_future_ends_the_connection"),
    Trap("loss of a large probe is taken for congestion", "RFC 8899 §3", PARTS,
         "test_a_path_of_1500_bytes_is_never_gone_over_and_probes_are_no_congestion"),
    Trap("packets of 1,200 bytes for ever", "aioquic#421", PARTS,
         "test_loopback_finds_tens_of_kilobytes"),
    Trap("a path that shrank swallows all large packets", "quinn black-hole detector", PARTS,
         "test_a_path_that_shrinks_repairs_itself"),
    Trap("a packet that was overtaken is lost at once", "RFC 9002 §6.1.1", HERE,
         "test_what_was_overtaken_by_two_is_not_lost"),
    Trap("a window leaves at once, and overflows the next queue", "RFC 9002 §7.7", HERE,
         "test_a_window_is_spread_over_the_round_trip"),
    # Life and death.
    Trap("the idle timer is driven by what is sent", "erlang_quic#174", CONNECTION,
         "test_idle_time_out_is_driven_by_what_is_received"),
    Trap("the same, for a whole host", "erlang_quic#174", HOST,
         "test_silence_is_judged_by_what_is_received"),
    Trap("reset tokens of a key that dies with the process", "erlang_quic#202", HOST,
         "test_a_peer_that_was_killed_and_restarted_is_noticed_in_one_round_trip"),
    Trap("the same, with kill -9", "erlang_quic#202", "integration/test_transport_real.py",
         "test_a_server_killed_and_restarted_is_noticed_by_its_reset"),
    Trap("a reset is answered with a reset", "PyTCP#5", HOST,
         "test_resets_are_rare_and_small_and_never_answer_one_another"),
    Trap("one client vanishes and all connections die", "aioquic#219",
         "integration/test_transport_real.py",
         "test_a_peer_that_is_silent_or_gone_harms_no_other_connection"),
    Trap("frames behind a CLOSE are heard", "our own fuzzing", HERE,
         "test_nothing_is_heard_behind_a_goodbye"),
    Trap("drain never waits", "aioquic#250, #328; py-libp2p#1520", "simulation/test_streams_sim.py",
         "test_a_writer_waits_for_a_reader_that_does_not_read"),
    Trap("drain never waits, on sockets", "aioquic#250, #328", "integration/test_transport_real.py",
         "test_a_writer_waits_for_a_reader_that_does_not_read"),
    Trap("a forged refusal ends the dial", "our own fuzzing", HOST,
         "test_a_forged_refusal_costs_time_and_not_the_connection"),
    # What it costs.
    Trap("a datagram a system call", "quiche#993; quinn#1350", "unit/runtime/test_trains.py",
         "test_costs_the_receiver_few_calls"),
    Trap("a device that takes no trains is asked for ever", "quinn-udp", "unit/runtime/"
         "test_trains.py", "test_that_the_device_does_not_take_is_sent_one_by_one"),
    Trap("one socket with much to read starves the timers", "quinn work_limiter",
         "unit/runtime/test_endpoints.py", "test_leaves_the_loop_its_turns"),
    Trap("bytes are copied for each frame", "aioquic 1.3 writer", "unit/transport/"
         "test_packet_trains.py",
         "test_pieces_are_full_and_from_one_write_and_its_last_byte_is_left"),
    Trap("each connection is polled", "kcp: 2,000 connections at 10 ms", MANY,
         "test_time_passes_without_a_look_at_those_for_whom_nothing_is_due"),
    Trap("the clock is read for each packet", "kcp-go", MANY,
         "test_the_clock_is_read_once_for_a_train"),
    Trap("a pace in single packets, finer than any timer", "quinn pacer; webrtc-rs", MARKS,
         "test_a_fast_path_gets_bursts_of_a_timers_length"),
    Trap("idle time is saved up as a burst", "RFC 9002 §7.7", MARKS,
         "test_idle_time_is_not_saved_up"),
    Trap("silent connections cost", "kcp", CONNECTION,
         "test_silence_costs_nothing_but_keep_alives"),
    Trap("strangers are remembered", "SYN floods", MANY,
         "test_a_flood_of_first_messages_leaves_nothing_and_is_answered_with_less"),
)  # fmt: skip


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.what)
def test_each_trap_has_its_test(trap):
    tree = ast.parse((TESTS / trap.file).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    assert trap.test in {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


# -- what is measured of the path


def steady(rtt_s, samples=400):
    rtt = RttEstimator(0.1)
    for _ in range(samples):
        rtt.sample(rtt_s)
    return rtt


def test_the_deviation_is_from_the_average_and_not_from_the_minimum():
    """Once it took 50 ms and since then 100: that is no deviation any more."""
    rtt = RttEstimator(0.1)
    rtt.sample(0.050)
    for _ in range(100):
        rtt.sample(0.100)
    assert rtt.variation < 0.001


def test_an_average_reaches_a_path_that_got_a_little_slower():
    rtt = steady(0.113)
    for _ in range(200):
        rtt.sample(0.120)
    assert rtt.smoothed == pytest.approx(0.120, abs=1e-6)


def test_a_time_out_leaves_a_margin_where_nothing_deviates():
    rtt = steady(0.200)
    assert rtt.variation < 1e-9
    assert rtt.smoothed > RTO_S_MIN
    assert rtt.rto() - rtt.smoothed == pytest.approx(GRANULARITY_S)


def test_a_round_trip_of_microseconds_is_measured_as_one():
    pair = Pair(delay=25e-6)
    stream = pair.client.connection.streams.open()
    for _ in range(60):
        pair.client.connection.write(stream, b"x" * 3000)
        pair.run(0.001)
    rtt = pair.client.connection.rtt
    assert rtt.minimum == pytest.approx(50e-6, rel=0.01)
    assert rtt.smoothed == pytest.approx(50e-6, rel=0.1)


def test_an_answer_to_a_repeat_is_not_taken_for_one_to_the_first():
    """Twenty outages of a packet each: the path still takes 20 ms, whatever was sent again."""
    pair = Pair(TransportConfig(max_mtu=1200), delay=0.010)
    client = pair.client.connection
    stream = client.streams.open()
    for _ in range(20):
        pair.cut = {"client"}
        client.write(stream, b"x" * 500)
        pair.run(0.001)
        pair.cut = set()
        pair.run(1.0, lambda: not client.recovery.in_flight)
        pair.run(0.1)
    assert client.recovery.probes_sent >= 20
    assert client.rtt.smoothed == pytest.approx(0.020, abs=0.005)


# -- what is lost, and what may leave


def test_what_was_overtaken_by_two_is_not_lost():
    pair = Pair(delay=0.010)
    pair.run(1.0)
    client, server = pair.client.connection, pair.server.connection
    before = client.recovery.losses
    late = []
    for _ in range(3):
        client.outgoing.ping()
        late += client.datagrams_to_send(pair.now)
    for datagram in (*late[1:], late[0]):
        server.receive_datagram(datagram, pair.now)
        for answer in server.datagrams_to_send(pair.now):
            client.receive_datagram(answer, pair.now)
    assert client.recovery.losses == before


def test_a_window_is_spread_over_the_round_trip():
    """Forty packets may be in flight, and each tenth of the round trip carries a part of them."""
    pair = Pair(TransportConfig(max_mtu=1200, pacing=True, congestion="sliding:40"), delay=0.050)
    client = pair.client.connection
    client.recovery.congestion.__class__ = Spread
    client.write(client.streams.open(), bytes(2_000_000))
    pair.run(2.0)
    times = [at for at, _ in pair.data_packets("client") if at > 1.0]
    at_once = max(times.count(at) for at in set(times))
    assert at_once <= BURST_PACKETS + 1
    assert len(times) > 300


class Spread(SlidingWindow):
    """A window, and the pace that spreads it."""

    packets = 40

    @property
    def pacing_rate(self):
        return 1.25 * self.cwnd / 0.100


# -- what is kept of packets


class Watched(dict):
    """Packets in flight, and how often one was looked for."""

    looked = 0

    def pop(self, *arguments):
        self.looked += 1
        return super().pop(*arguments)

    def keys(self):
        raise AssertionError("all packets in flight are walked")

    values = items = keys


def test_an_acknowledgement_touches_what_it_names_and_nothing_else():
    rtt = RttEstimator(0.1)
    recovery = Recovery(rtt, NewReno(1200, rtt), 0.025)
    recovery.sent([SentPacket(n, n * 1e-6, 1200, [], 0) for n in range(10_000)])
    recovery.in_flight = Watched(recovery.in_flight)
    recovery.acknowledge([(0, 9)], 0.0, 0.1)
    assert recovery.in_flight.looked == 10
    recovery.acknowledge([(9990, 9999)], 0.0, 0.1)
    assert recovery.in_flight.looked == 20
    recovery.acknowledge([(9990, 9999), (0, 10)], 0.0, 0.1)
    assert recovery.in_flight.looked == 31  # of what was named before, only what is in flight


def test_a_packet_in_order_costs_the_same_behind_any_number_of_gaps():
    class Counted(list):
        looks = 0

        def __getitem__(self, index):
            Counted.looks += 1
            return super().__getitem__(index)

    def looks(gaps):
        received = RangeSet()
        for value in range(0, 2 * gaps, 2):
            received.add(value)
        received._lasts = Counted(received._lasts)
        Counted.looks = 0
        assert received.add(received.highest + 1)
        return Counted.looks

    assert looks(60) == looks(2)


@pytest.mark.parametrize(
    "cls",
    [SentPacket, Recovery, RangeSet, AckState, EcnPath, Pacer, MtuDiscovery, RttEstimator,
     SendStream, ReceiveStream],
    ids=lambda cls: cls.__name__,
)  # fmt: skip
def test_what_is_made_or_asked_for_each_packet_has_slots(cls):
    assert "__slots__" in vars(cls)
    assert "__dict__" not in {name for base in cls.__mro__ for name in vars(base)}


def test_a_train_gets_one_acknowledgement():
    """Forty packets that come together, as a train brings them: one answer, at the turn's end."""
    pair = Pair()
    pair.run(1.0)
    client, server = pair.client.connection, pair.server.connection
    train = [client.outgoing.seal(b"\x01") for _ in range(40)]
    for datagram in train:
        server.receive_datagram(datagram, pair.now)
    assert len(server.datagrams_to_send(pair.now)) == 1


# -- what a peer may make us hold


def told(connection):
    return [type(event) for event in connection.take_events()]


def hostile(frames, times=1, **config):
    """A client whose server, with the right keys, sends such packets and acknowledges nothing."""
    pair = Pair(TransportConfig(**config))
    pair.run(1.0)
    client, server = pair.client.connection, pair.server.connection
    for i in range(times):
        client.receive_datagram(server.outgoing.seal(frames(i)), pair.now)
        client.datagrams_to_send(pair.now)
    return client


def test_crumbs_end_the_connection_before_they_fill_the_memory():
    def crumbs(number):
        return b"".join(
            f.STREAM_HEAD.pack(f.STREAM, 1, 2 * (number * 60 + i) + 1, 1) + b"x" for i in range(60)
        )

    client = hostile(crumbs, 400)
    assert client.state == "closed"
    assert "too many pieces" in str(client.error)


def test_who_asks_and_acknowledges_no_answer_is_cut_off():
    client = hostile(lambda number: f.SECRET.pack(f.CHALLENGE, bytes(8)) * 120, 400)
    assert client.state == "closed"
    assert "more is asked" in str(client.error)


def test_nothing_is_heard_behind_a_goodbye():
    goodbye = f.encode_close(7, "enough")
    more = f.STREAM_HEAD.pack(f.STREAM, 1, 0, 1) + b"x"
    client = hostile(lambda number: goodbye + more)
    assert told(client)[-1] is events.Closed
