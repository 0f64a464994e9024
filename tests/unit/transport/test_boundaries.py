"""What is sent, kept and read: exactly at each limit it is accepted, one more is refused.

The clocks' limits are in test_boundaries_time.py, those of a whole host in
tests/simulation/test_boundaries_sim.py. A constant that looks like a limit and stands in none of
the three tables is found by the test at the end.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import re
from collections import deque
from pathlib import Path

from boundaries_kit import Limit, pair_of, reads, table
from transport_kit import CLIENT, NOW, Pair, entropy

import netstack.transport
from netstack.transport import frames as f
from netstack.transport import handshake, packet
from netstack.transport.acks import ACK_EVERY, APART_S, AckState
from netstack.transport.config import BASE_MTU, MAX_DATAGRAM, TransportConfig
from netstack.transport.connection import CONTROL_WAITING_MAX
from netstack.transport.controllers import controller
from netstack.transport.ecn import EcnPath
from netstack.transport.errors import BufferFull, ProtocolViolation, TransportError
from netstack.transport.flow import ReceiveCredit, SendCredit
from netstack.transport.outgoing import (
    BURST_BYTES_MAX,
    BURST_PACKETS_MAX,
    DATAGRAMS_WAITING_MAX,
    STREAM_OVERHEAD,
)
from netstack.transport.packet import OVERHEAD, RESET_TOKEN_BYTES, Malformed
from netstack.transport.ranges import RANGES_MAX, RangeSet
from netstack.transport.stream_set import StreamSet
from netstack.transport.streams import PIECE_BYTES, PIECES_MAX, ReceiveStream
from netstack.transport.tokens import TokenMint
from security.errors import HandshakeFailed, SecurityError
from security.replay import WINDOW

# Such that fewer of these fill a burst by their bytes than by their number.
BIG_MTU = 60_000


def refuses(*errors):
    """Makes a call one that says whether it was let through."""

    def decorated(call):
        def accepts(value):
            try:
                call(value)
            except errors:
                return False
            return True

        return accepts

    return decorated


# -- credit, streams, buffers


def stream_window(end):
    return reads(f.STREAM_HEAD.pack(f.STREAM, 1, end - 1, 1) + b"x", stream_window=4096)


def connection_window(count):
    frame = f.STREAM_HEAD.pack(f.STREAM, 1, 0, count) + bytes(count)
    return reads(frame, stream_window=9000, connection_window=5000)


def sums_of_streams_fit_the_connection(count):
    frames = f.STREAM_HEAD.pack(f.STREAM, 1, 0, 2500) + bytes(2500)
    frames += f.STREAM_HEAD.pack(f.STREAM, 3, 0, count) + bytes(count)
    return reads(frames, stream_window=9000, connection_window=5000)


def streams_of_the_peer(count):
    return reads(f.STREAM_HEAD.pack(f.STREAM, 2 * count - 1, 0, 1) + b"x", max_streams=4)


@refuses(TransportError)
def streams_of_our_own(count):
    streams = pair_of(max_streams=4).client.connection.streams
    for _ in range(count):
        streams.open()


def no_word_of_more_streams(closed):
    """They are given back by halves: one that is over is not worth a frame of its own."""
    control = deque()
    streams = StreamSet(TransportConfig(max_streams=8), True, [], control)
    for i in range(closed):
        stream_id = 2 * i + 1
        streams.on_stream(stream_id, 0, b"", True)
        streams.reset(stream_id, 0)
    return not [frame for frame in control if frame[0] == f.MAX_STREAMS]


@refuses(BufferFull)
def stream_buffer(count):
    connection = pair_of(stream_buffer=1000).client.connection
    connection.write(connection.streams.open(), bytes(count))


def no_word_of_more_credit(count):
    credit = ReceiveCredit(1000)
    credit.receive(count)
    return not credit.consume(count)


def no_word_of_more_credit_for_a_stream(count):
    control = deque()
    config = TransportConfig(stream_window=1000, connection_window=9000)
    streams = StreamSet(config, True, [], control)
    streams.on_stream(1, 0, bytes(count), False)
    streams.consume(1, count)
    return not control


def sent_within_credit(count):
    credit = SendCredit(500)
    credit.used = count
    return credit.room() >= 0


@refuses(ProtocolViolation)
def received_within_credit(count):
    ReceiveCredit(500).receive(count)


@refuses(ProtocolViolation)
def bytes_up_to_the_end(end):
    stream = ReceiveStream(1000)
    stream.receive(90, bytes(10), True)
    stream.receive(0, bytes(end), False)


@refuses(ProtocolViolation)
def reset_at(final_size):
    ReceiveStream(100).reset(final_size)


def copies_are_left_as_they_are(count):
    """Out of order: up to a window of them is kept without looking for what overlaps."""
    stream = ReceiveStream(100)
    stream.receive(40, bytes(50), False)
    stream.receive(40, bytes(count), False)
    return stream.buffered == 50 + count


def crumbs(count, window=100_000):
    """Pieces of one byte with a gap before each."""
    stream = ReceiveStream(window)
    try:
        for i in range(count):
            stream.receive(2 * i + 1, b"x", False)
    except ProtocolViolation:
        return False
    return stream.buffered == count


def crumbs_of_a_wide_window(count):
    return crumbs(count, 4000 * PIECE_BYTES)


def questions(count):
    """CHALLENGEs in one packet; the window is full, so the answers wait."""
    pair = pair_of()
    client = pair.client.connection
    client.recovery.bytes_in_flight = client.recovery.congestion.cwnd
    asked = f.SECRET.pack(f.CHALLENGE, bytes(8)) * count
    server = pair.server.connection
    client.receive_datagram(server.outgoing.seal(asked), pair.now)
    return client.state == "open"


# -- packets and frames


def datagram_fits(count):
    connection = pair_of(max_mtu=1200).client.connection
    try:
        connection.send_datagram(bytes(count))
    except TransportError:
        return False
    (sealed,) = connection.datagrams_to_send(1.0)
    assert len(sealed) == OVERHEAD + f.BLOB_HEAD.size + count <= BASE_MTU
    return True


def one_packet_carries(count):
    connection = pair_of(max_mtu=1200).client.connection
    connection.write(connection.streams.open(), bytes(count))
    sealed = connection.datagrams_to_send(1.0)
    assert max(map(len, sealed)) <= BASE_MTU
    return len(sealed) == 1


def leave_in_one_turn(packets):
    connection = pair_of(max_mtu=1200, congestion="sliding:1000").client.connection
    room = BASE_MTU - OVERHEAD - STREAM_OVERHEAD
    connection.write(connection.streams.open(), bytes(packets * room))
    return len(connection.datagrams_to_send(1.0)) == packets


def leave_in_one_turn_by_size(packets):
    connection = pair_of(max_mtu=BIG_MTU, congestion="sliding:1000").client.connection
    connection.mtu.current = BIG_MTU  # as if it had been found
    connection.outgoing.path_rate.bytes_per_s = float("inf")
    room = BIG_MTU - OVERHEAD - STREAM_OVERHEAD
    connection.write(connection.streams.open(), bytes(packets * room))
    return len(connection.datagrams_to_send(1.0)) == packets


def the_first_datagram_still_leaves(waiting):
    pair = pair_of()
    for i in range(waiting):
        pair.client.connection.send_datagram(b"%d" % i)
    pair.run(1.0)
    return pair.server.events[0].data == b"0"


def a_data_packet_of(size):
    """Shorter than its own header and tag it is no packet; else it is one that does not open."""
    try:
        pair_of().client.connection.receive_datagram(bytes([packet.DATA]) + bytes(size - 1), 1.0)
    except Malformed:
        return False
    except SecurityError:
        return True


def opens_as_new(age):
    """A packet that is overtaken by `age` later ones."""
    pair = pair_of()
    client, server = pair.client.connection, pair.server.connection
    old, *_, newest = [client.outgoing.seal(b"\x01") for _ in range(age + 1)]
    server.receive_datagram(newest, 1.0)
    try:
        server.receive_datagram(old, 1.0)
    except SecurityError:
        return False
    return True


def stream_frame_says(length):
    return reads(f.STREAM_HEAD.pack(f.STREAM, 1, 0, length) + bytes(20))


def datagram_frame_says(length):
    return reads(f.BLOB_HEAD.pack(f.DATAGRAM, length) + bytes(20))


def token_frame_says(length):
    return reads(f.BLOB_HEAD.pack(f.NEW_TOKEN, length) + bytes(20))


def close_frame_says(length):
    pair = pair_of()
    server = pair.server.connection
    frame = f.CLOSE_HEAD.pack(f.CLOSE, 7, length) + bytes(20)
    server._out.append(server.outgoing.seal(frame))
    pair.run(0.1)
    return pair.client.connection.error.code == 7  # else it is our own PROTOCOL_VIOLATION


def frame_that_is_whole(kind_and_cut):
    frame, cut = kind_and_cut
    return reads(frame[: len(frame) - cut])


def reason_that_is_told_whole(length):
    return f.encode_close(0, "x" * length)[f.CLOSE_HEAD.size :] == b"x" * length


def kind_of_frame(kind):
    return reads(bytes([kind]) + f.SECRET.pack(0, bytes(8))[1:])


# -- acknowledgements


def acknowledged_up_to(beyond):
    """`beyond` the number of the last packet that was sent."""
    pair = pair_of()
    last = pair.client.connection.outgoing.next_number - 1
    ack = f.ACK_ONE.pack(f.ACK, 0, 1, 0, last + beyond)
    server = pair.server.connection
    server._out.append(server.outgoing.seal(ack))
    pair.run(0.01)
    return pair.client.connection.state == "open"


def range_that_ends_at(last):
    return reads(f.ACK_HEAD.pack(f.ACK, 0, 1) + f.RANGE.pack(1, last))


def second_range_that_ends_at(last):
    ranges = f.RANGE.pack(1, 1) + f.RANGE.pack(0, last)
    return reads(f.ACK_HEAD.pack(f.ACK, 0, 2) + ranges)


def gaps(count):
    ranges = RangeSet()
    for i in range(count):
        ranges.add(2 * i)
    return ranges


def the_oldest_is_remembered(ranges):
    return 0 in gaps(ranges)


def the_oldest_is_acknowledged(ranges):
    return f.encode_ack(gaps(ranges), 0.0)[-f.RANGE.size :] == f.RANGE.pack(0, 0)


def delay_that_is_told_exactly(microseconds):
    ack = f.encode_ack(gaps(1), microseconds / 1e6)
    return f.ACK_HEAD.unpack_from(ack)[1] == microseconds


def acknowledgement_that_may_wait(packets):
    acks = AckState(0.025)
    for number in range(packets):
        acks.arrived(number, 0, 0.0, eliciting=True)
    return not acks.due_now


def spared_after(apart_s):
    acks = AckState(0.025)
    acks.sent(0.0)
    acks.arrived(0, 0, 0.0, eliciting=True)
    return not acks.rides(apart_s)


def counts_that_add_up(missing):
    path = EcnPath(wanted=True)
    path.acknowledged(10, (10 - missing, 0))
    return path.codepoint != 0


# -- the handshake


def parameters(*fields):
    return handshake.msgpack.packb(list(fields))


@refuses(HandshakeFailed)
def reset_token_of(length):
    handshake.Parameters.unpack(parameters(bytes(length), 7, 1, 1, 1, 1200))


@refuses(HandshakeFailed)
def parameter(value):
    handshake.Parameters.unpack(parameters(bytes(RESET_TOKEN_BYTES), 7, value, 1, 1, 1200))


@refuses(HandshakeFailed)
def numbers_of_parameters(count):
    handshake.Parameters.unpack(parameters(bytes(RESET_TOKEN_BYTES), 7, *[1] * count))


def dialling():
    context = Pair(connect=False).context(CLIENT, 11)
    return handshake.Initiator(context, remote_static=None, token=b"", now=0.0)


def the_last_retry_is_taken(count):
    initiator = dialling()
    for i in range(count):
        initiator.receive(packet.SHORT.pack(packet.RETRY, 11) + b"token %d" % i, 0.0)
    return packet.parse_initial(initiator.take()[-1])[1] == b"token %d" % (count - 1)


@refuses(handshake.PeerRejected)
def answers_that_do_not_open(count):
    initiator = dialling()
    for _ in range(count):
        with contextlib.suppress(HandshakeFailed):
            initiator.receive(packet.SHORT.pack(packet.RESPONSE, 11) + bytes(500), 0.0)


def the_last_first_message_is_answered(count):
    def initial(number):
        context = dataclasses.replace(dialling()._context, entropy=entropy(number))
        return handshake.Initiator(context, remote_static=None, token=b"", now=0.0).take()[0]

    responder = handshake.Responder(Pair(connect=False).context(CLIENT, 22), initial(0), 0.0)
    for number in range(1, count):
        responder.take()
        responder.repeated(initial(number))
    return len(responder.take()) == 1


@refuses(Malformed)
def message_of(missing):
    """An INITIAL that ends with its message, of which so many bytes are missing."""
    whole = packet.initial(packet.INITIAL_XX, 1, b"token", b"message", 0)
    packet.parse_initial(whole[: len(whole) - missing])


def address_token_of(length):
    token = TokenMint(b"secret").new("127.0.0.1", NOW)
    token = token[:length].ljust(length, b"\0")
    return TokenMint(b"secret").valid(token, "127.0.0.1", 1, NOW)


@refuses(ValueError)
def configured_mtu(size):
    TransportConfig(max_mtu=size)


@refuses(ValueError)
def window_by_name(packets):
    controller(f"sliding:{packets}")


WHOLE = {
    "PING": b"\x01",
    "RESET_STREAM": f.RESET_HEAD.pack(f.RESET_STREAM, 1, 0, 0),
    "STOP": f.ID_CODE.pack(f.STOP, 1, 0),
    "MAX_DATA": f.CREDIT.pack(f.MAX_DATA, 0),
    "MAX_STREAM": f.ID_CREDIT.pack(f.MAX_STREAM, 0, 0),
    "MAX_STREAMS": f.COUNT.pack(f.MAX_STREAMS, 0),
    "CHALLENGE": f.SECRET.pack(f.CHALLENGE, bytes(8)),
    "ACK": f.ACK_ONE.pack(f.ACK, 0, 1, 0, 0),
    "ACK_ECN": f.ACK_ONE_ECN.pack(f.ACK_ECN, 0, 1, 0, 0, 0, 0),
}


@table(
    Limit("stream window", "TransportConfig.stream_window", stream_window, 4096, 4097),
    Limit("connection window", "TransportConfig.connection_window", connection_window, 5000, 5001),
    Limit("sum of streams", "", sums_of_streams_fit_the_connection, 2500, 2501),
    Limit("streams of the peer", "TransportConfig.max_streams", streams_of_the_peer, 4, 5),
    Limit("streams of our own", "TransportConfig.max_streams", streams_of_our_own, 4, 5),
    Limit("half of the streams", "", no_word_of_more_streams, 3, 4),
    Limit("stream buffer", "TransportConfig.stream_buffer", stream_buffer, 1000, 1001),
    Limit("half of the credit", "", no_word_of_more_credit, 499, 500),
    Limit("half of a stream's credit", "", no_word_of_more_credit_for_a_stream, 499, 500),
    Limit("credit to send", "", sent_within_credit, 500, 501),
    Limit("credit to receive", "", received_within_credit, 500, 501),
    Limit("end of a stream", "", bytes_up_to_the_end, 100, 101),
    Limit("reset of a stream", "", reset_at, 100, 101),
    Limit("bytes out of order", "", copies_are_left_as_they_are, 50, 51),
    Limit("pieces out of order", "streams.PIECES_MAX", crumbs, PIECES_MAX, PIECES_MAX + 1),
    Limit("the same, wide", "streams.PIECE_BYTES", crumbs_of_a_wide_window, 4000, 4001),
    Limit("answers waiting", "connection.CONTROL_WAITING_MAX", questions, CONTROL_WAITING_MAX,
          CONTROL_WAITING_MAX + 1),
)  # fmt: skip
def test_credit_streams_and_buffers(accepts, value, accepted):
    assert accepts(value) == accepted


@table(
    Limit("datagram", "packet.TAG_BYTES", datagram_fits, BASE_MTU - OVERHEAD - 3,
          BASE_MTU - OVERHEAD - 2),
    Limit("packet", "", one_packet_carries, BASE_MTU - OVERHEAD - STREAM_OVERHEAD,
          BASE_MTU - OVERHEAD - STREAM_OVERHEAD + 1),
    Limit("packets of a turn", "outgoing.BURST_PACKETS_MAX", leave_in_one_turn,
          BURST_PACKETS_MAX, BURST_PACKETS_MAX + 1),
    Limit("bytes of a turn", "outgoing.BURST_BYTES_MAX", leave_in_one_turn_by_size,
          BURST_BYTES_MAX // BIG_MTU, BURST_BYTES_MAX // BIG_MTU + 1),
    Limit("datagrams waiting", "outgoing.DATAGRAMS_WAITING_MAX", the_first_datagram_still_leaves,
          DATAGRAMS_WAITING_MAX, DATAGRAMS_WAITING_MAX + 1),
    Limit("shortest packet", "", a_data_packet_of, OVERHEAD, OVERHEAD - 1),
    Limit("replay window", "", opens_as_new, WINDOW - 1, WINDOW),
    Limit("length of STREAM", "", stream_frame_says, 20, 21),
    Limit("length of DATAGRAM", "", datagram_frame_says, 20, 21),
    Limit("length of NEW_TOKEN", "", token_frame_says, 20, 21),
    Limit("length of CLOSE", "", close_frame_says, 20, 21),
    Limit("reason of CLOSE", "", reason_that_is_told_whole, 256, 257),
    Limit("kinds of frames", "", kind_of_frame, f.ANSWER, f.ANSWER + 1),
    *(Limit(f"width of {name}", "", frame_that_is_whole, (frame, 0), (frame, 1))
      for name, frame in WHOLE.items() if len(frame) > 1),
)  # fmt: skip
def test_packets_and_frames(accepts, value, accepted):
    assert accepts(value) == accepted


@table(
    Limit("last number", "", acknowledged_up_to, 0, 1),
    Limit("order in a range", "", range_that_ends_at, 1, 0),
    Limit("order of ranges", "", second_range_that_ends_at, 0, 1),
    Limit("ranges kept", "ranges.RANGES_MAX", the_oldest_is_remembered, RANGES_MAX, RANGES_MAX + 1),
    Limit("ranges told", "frames.ACK_RANGES_MAX", the_oldest_is_acknowledged, f.ACK_RANGES_MAX,
          f.ACK_RANGES_MAX + 1),
    Limit("delay told", "", delay_that_is_told_exactly, 0xFFFFFFFF, 0xFFFFFFFF + 1),
    Limit("packets without an answer", "acks.ACK_EVERY", acknowledgement_that_may_wait,
          ACK_EVERY - 1, ACK_EVERY),
    Limit("acknowledgements apart", "acks.APART_S", spared_after, APART_S / 2, APART_S),
    Limit("counts of marks", "", counts_that_add_up, 0, 1),
)  # fmt: skip
def test_acknowledgements(accepts, value, accepted):
    assert accepts(value) == accepted


@table(
    Limit("reset token, long", "packet.RESET_TOKEN_BYTES", reset_token_of, 16, 17),
    Limit("reset token, short", "", reset_token_of, 16, 15),
    Limit("parameter, large", "", parameter, 2**62 - 1, 2**62),
    Limit("parameter, small", "", parameter, 0, -1),
    Limit("parameters, many", "", numbers_of_parameters, 4, 5),
    Limit("parameters, few", "", numbers_of_parameters, 4, 3),
    Limit("retries", "handshake.RETRIES_MAX", the_last_retry_is_taken, handshake.RETRIES_MAX,
          handshake.RETRIES_MAX + 1),
    Limit("bad answers", "handshake.BAD_RESPONSES_MAX", answers_that_do_not_open,
          handshake.BAD_RESPONSES_MAX - 1, handshake.BAD_RESPONSES_MAX),
    Limit("first messages", "handshake.TRIES_MAX", the_last_first_message_is_answered,
          handshake.TRIES_MAX, handshake.TRIES_MAX + 1),
    Limit("end of an INITIAL", "", message_of, 0, 1),
    Limit("address token, long", "tokens._TAG_BYTES", address_token_of, 24, 25),
    Limit("address token, short", "", address_token_of, 24, 23),
    Limit("smallest max_mtu", "TransportConfig.max_mtu config.BASE_MTU", configured_mtu, BASE_MTU,
          BASE_MTU - 1),
    Limit("largest max_mtu", "config.MAX_DATAGRAM", configured_mtu, MAX_DATAGRAM,
          MAX_DATAGRAM + 1),
    Limit("smallest window by name", "", window_by_name, 1, 0),
)  # fmt: skip
def test_handshake_and_configuration(accepts, value, accepted):
    assert accepts(value) == accepted


# -- nothing is forgotten

LOOKS_LIKE_A_LIMIT = re.compile(
    r"_(MAX|MIN|BYTES|S|EVERY|THRESHOLD|PACKETS|TIMEOUTS|LOSSES|ROUNDS)$|^(BASE_MTU|MAX_DATAGRAM)$"
)

# Constants that bound nothing that comes from outside, or are tested where their file is.
NO_LIMITS = {
    "streams.COPIED_MAX": "how a packet is copied, not whether",
    "peer.UNCUT_MAX": "how a write is queued, not whether",
    "packet.ID_BYTES": "a field of the wire",
    "path_rate.HOLD_S": "test_path_rate.py has both sides of it",
    "path_rate.TELLING_BYTES": "the same",
    "outgoing.CAPPED_PACKETS_MIN": "the same",
    "TransportConfig.queue_s_max": "the same",
    "outgoing.RTT_S_MIN": "a divisor that is not zero",
    "qlog_file.BUFFER_BYTES": "how often a file is written to",
    "qlog_file.FLUSH_S": "the same; integration/test_qlog_real.py kills the writer",
    "bbr.BANDWIDTH_ROUNDS": "test_congestion.py plays the model's rounds",
    "bbr.FULL_ROUNDS": "the same",
    "bbr.RTT_EXPIRES_S": "the same",
    "bbr.PROBE_RTT_S": "the same",
}


def test_every_constant_that_looks_like_a_limit_has_its_row():
    transport = Path(netstack.transport.__file__).parent
    found = set()
    for path in transport.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", 0)]
            names = [t.id for t in targets if isinstance(t, ast.Name)]
            found |= {f"{path.stem}.{n}" for n in names if LOOKS_LIKE_A_LIMIT.search(n)}
    fields = dataclasses.fields(TransportConfig)
    found |= {f"TransportConfig.{f.name}" for f in fields if f.type in ("int", "float")}
    tests = Path(__file__).parents[2]
    files = [*tests.glob("unit/transport/test_boundaries*.py")]
    files += tests.glob("simulation/test_boundaries*.py")
    covered = set(NO_LIMITS)
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Limit":
                covered |= set(ast.literal_eval(node.args[1]).split())
    assert found - covered == set()
    assert covered - found == set()
