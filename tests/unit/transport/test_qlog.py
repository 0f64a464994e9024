"""The log of a connection: every packet with its frames, in the form that viewers read."""

from __future__ import annotations

import copy

import pytest
from qlog_kit import EVENTS, FRAMES, Invalid, hold_to, of, read, text, validate
from transport_kit import Pair

from netstack.transport import frames as f
from netstack.transport import qlog
from netstack.transport.config import TransportConfig
from netstack.transport.packet import (
    DATA,
    ID_BYTES,
    INITIAL_XX,
    OVERHEAD,
    REFUSED,
    RETRY,
    SHORT,
    initial,
    parse_initial,
)


def traced(**given) -> tuple[Pair, list[dict]]:
    pair = Pair(connect=False, **given)
    lines: list[str] = []
    trace = qlog.Trace(lines.append, lambda: pair.now, 0.0, title="t", role="client")
    pair.client.connection.outgoing.trace = trace
    pair.run(5.0, lambda: pair.open)
    client = pair.client.connection
    stream = client.streams.open()
    client.write(stream, bytes(40_000), fin=True)
    assert pair.run(20.0, lambda: stream in pair.server.fins)
    pair.run(1.0)
    client.close(0, "enough", pair.now)
    pair.flush()
    records = read("".join(lines))
    validate(records)
    return pair, records


def of_type(packets, *types):
    return [packet for packet in packets if packet["header"]["packet_type"] in types]


def test_it_begins_with_who_writes_and_what():
    _, (head, *events) = traced()
    assert head["qlog_version"] == "0.3"
    assert head["trace"]["vantage_point"] == {"name": "t", "type": "client"}
    times = [event["time"] for event in events]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(events[-1]["time"])


def test_every_packet_is_in_it_with_its_size_and_number():
    pair, (_, *events) = traced()
    sent = of_type(of(events, "transport:packet_sent"), "1RTT")
    carried = [len(data) for _, data in pair.data_packets("client")]
    assert [p["raw"]["length"] for p in sent] == carried
    assert [p["header"]["packet_number"] for p in sent] == list(range(len(sent)))
    assert all(p["raw"]["length"] == p["raw"]["payload_length"] + OVERHEAD for p in sent)
    received = of_type(of(events, "transport:packet_received"), "1RTT")
    assert len(received) == pair.client.connection.received_packets


def handshake_in(records, name):
    """(type, number, bytes of the Noise message, size) of each packet of the handshake."""
    packets = of_type(of(records, name), "initial", "handshake")
    return [
        (
            packet["header"]["packet_type"],
            packet["header"]["packet_number"],
            packet["frames"][0]["length"],
            packet["raw"]["length"],
        )
        for packet in packets
    ]


def test_the_handshake_is_in_it():
    pair, records = traced()
    hello, final = [d for _, source, d in pair.carried if source == "client" and d[0] < DATA]
    (response,) = [d for _, source, d in pair.carried if source == "server" and d[0] < DATA]
    message = parse_initial(hello)[2]
    assert handshake_in(records, "transport:packet_sent") == [
        ("initial", 0, len(message), len(hello)),
        ("handshake", 0, len(final) - SHORT.size, len(final)),
    ]
    assert handshake_in(records, "transport:packet_received") == [
        ("handshake", 0, len(response) - SHORT.size - ID_BYTES, len(response))
    ]
    first = of(records, "transport:packet_sent")[0]
    answer = of(records, "transport:packet_received")[0]
    assert first["header"]["scid"] == f"{pair.client.connection.local_id:016x}"
    unpadded = initial(INITIAL_XX, 11, b"", message, 0)
    assert first["frames"][1]["payload_length"] == len(hello) - len(unpadded)
    assert answer["header"]["scid"] == f"{pair.server.connection.local_id:016x}"


def test_what_the_handshake_sends_again_is_in_it_each_time():
    lost = []

    def filter_(source, data):
        if source == "client" and data[0] < DATA and len(lost) < 3:
            lost.append(data)
            return False
        return True

    pair = Pair(connect=False)
    pair.filter = filter_
    lines: list[str] = []
    trace = qlog.Trace(lines.append, lambda: pair.now, 0.0, title="t", role="client")
    pair.client.connection.outgoing.trace = trace
    assert pair.run(5.0, lambda: pair.open)
    sent = handshake_in(read("".join(lines)), "transport:packet_sent")
    assert [packet[:2] for packet in sent][:4] == [("initial", n) for n in range(4)]


def of_handshake(datagram):
    """What is written of one datagram, which must be as the schema says."""
    lines: list[str] = []
    trace = qlog.Trace(lines.append, lambda: 0.0, 0.0, title="t", role="client")
    trace.handshake_received(datagram)
    records = read("".join(lines))
    validate(records)
    return records[1]["data"]


def test_the_rarer_packets_are_in_it():
    retry = of_handshake(SHORT.pack(RETRY, 11) + bytes(40))
    assert retry["header"] == {"packet_type": "retry", "dcid": f"{11:016x}"}
    assert retry["retry_token"] == {"type": "retry", "length": 40}
    refused = of_handshake(SHORT.pack(REFUSED, 11))
    assert refused["header"]["packet_type"] == "handshake"
    assert refused["frames"] == [{"frame_type": "unknown", "raw_frame_type": REFUSED}]
    again = of_handshake(initial(INITIAL_XX, 11, b"a token", bytes(32), 1200))
    assert again["header"]["token"] == {"length": 7}


def test_a_restart_of_the_peer_is_in_it():
    pair = Pair()
    lines: list[str] = []
    trace = qlog.Trace(lines.append, lambda: pair.now, 0.0, title="t", role="client")
    pair.client.connection.outgoing.trace = trace
    assert not pair.client.connection.receive_reset(bytes(16))  # not the peer's token
    assert pair.client.connection.receive_reset(bytes([22]) * 16)
    records = read("".join(lines))
    validate(records)
    (reset,) = of(records, "transport:packet_received")
    assert reset["header"] == {"packet_type": "stateless_reset"}
    assert of(records, "connectivity:connection_state_updated") == [{"new": "closed"}]


# Each is what an earlier version wrote, or what a careless one would.
AGAINST_THE_SCHEMA = {
    "no version": lambda head, _: head.pop("qlog_version"),
    "no role": lambda head, _: head["trace"]["vantage_point"].pop("type"),
    "a state of our own": lambda _, events: events[0]["data"].update(new="open"),
    "time goes back": lambda _, events: events[-1].update(time=0.0),
    "an event of our own": lambda _, events: events[-1].update(name="transport:done"),
    "a field of our own": lambda _, events: events[0]["data"].update(size=3),
    "no packet number": lambda _, events: packet_of(events, "1RTT")["header"].pop("packet_number"),
    "a packet type of our own": lambda _, events: packet_of(events, "1RTT")["header"].update(
        packet_type="DATA"
    ),
    "the padding's length under another name": lambda _, events: frame_of(events, "padding").update(
        length=frame_of(events, "padding").pop("payload_length")
    ),
    "an end that is none": lambda _, events: frame_of(events, "stream").update(fin=False),
    "a range that is none": lambda _, events: frame_of(events, "ack").update(acked_ranges=[[1, 1]]),
    "no offset": lambda _, events: frame_of(events, "stream").pop("offset"),
    "half a byte": lambda _, events: frame_of(events, "stream").update(length=0.5),
}


def packet_of(events, kind):
    names = ("transport:packet_sent", "transport:packet_received")
    packets = [event["data"] for event in events if event["name"] in names]
    return of_type(packets, kind)[0]


def frame_of(events, kind):
    frames = [frame for event in events for frame in event["data"].get("frames", ())]
    return next(frame for frame in frames if frame["frame_type"] == kind)


@pytest.fixture(scope="module")
def records():
    return traced()[1]


@pytest.mark.parametrize("change", AGAINST_THE_SCHEMA.values(), ids=AGAINST_THE_SCHEMA)
def test_what_the_schema_does_not_allow_is_caught(change, records):
    changed = copy.deepcopy(records)
    change(changed[0], changed[1:])
    with pytest.raises(Invalid):
        validate(changed)


def test_every_event_is_met():
    met = {record["name"] for record in traced(loss=0.1, seed=3)[1][1:]}
    assert met == set(EVENTS)


def test_the_frames_tell_the_whole_stream():
    _, (_, *events) = traced(loss=0.05, seed=4)
    pieces = [
        (frame["offset"], frame["length"], frame.get("fin", False))
        for packet in of(events, "transport:packet_sent")
        for frame in packet["frames"]
        if frame["frame_type"] == "stream"
    ]
    covered = 0
    for offset, length, _ in sorted(pieces):
        assert offset <= covered
        covered = max(covered, offset + length)
    assert covered == 40_000
    assert any(fin for *_, fin in pieces)


def test_losses_states_and_what_the_sender_knows_are_told():
    pair, (_, *events) = traced(loss=0.1, seed=3)
    assert len(of(events, "recovery:packet_lost")) == pair.client.connection.recovery.losses > 0
    states = [s["new"] for s in of(events, "connectivity:connection_state_updated")]
    assert states == ["handshake_confirmed", "closed"]
    metrics = of(events, "recovery:metrics_updated")
    assert metrics[0]["congestion_window"] > 0
    assert metrics[0]["smoothed_rtt"] == pytest.approx(20, rel=0.2)
    # Only what has changed.
    assert all(metrics[i] != metrics[i + 1] for i in range(len(metrics) - 1))


@pytest.mark.parametrize(
    ("payload", "frames"),
    [
        (b"\x01\0\0\0", [{"frame_type": "ping"}, {"frame_type": "padding", "payload_length": 3}]),
        (f.ID_CODE.pack(f.STOP, 4, 7), [("stop_sending", 4, 7)]),
        (f.RESET_HEAD.pack(f.RESET_STREAM, 4, 7, 99), [("reset_stream", 4, 7, 99)]),
        (f.CREDIT.pack(f.MAX_DATA, 5), [("max_data", 5)]),
        (f.ID_CREDIT.pack(f.MAX_STREAM, 2, 5), [("max_stream_data", 2, 5)]),
        (f.COUNT.pack(f.MAX_STREAMS, 5), [("max_streams", 5, "bidirectional")]),
        (f.SECRET.pack(f.CHALLENGE, bytes(8)), [("path_challenge",)]),
        (f.SECRET.pack(f.ANSWER, bytes(8)), [("path_response",)]),
        (f.BLOB_HEAD.pack(f.DATAGRAM, 3) + b"abc", [("datagram", 3)]),
        (
            f.BLOB_HEAD.pack(f.NEW_TOKEN, 3) + b"abc",
            [("new_token", {"type": "resumption", "length": 3})],
        ),
        (f.encode_close(9, "why"), [("connection_close", 9, "why", "application")]),
        (b"\x63\x01", [("unknown", 0x63)]),
        (b"\x03\x00", [("unknown", 3)]),
    ],
)
def test_each_frame_has_its_usual_name(payload, frames):
    found = list(qlog.described(payload))
    for frame in found:
        hold_to({"frame_type": text, **FRAMES[frame["frame_type"]]}, frame, "frame")
    if isinstance(frames[0], dict):
        assert found == frames
    else:
        assert [tuple(frame.values()) for frame in found] == frames


def test_counts_of_marks_are_told():
    ranges = Pair(TransportConfig()).server.connection.acks.received
    (frame,) = qlog.described(f.encode_ack(ranges, 0.001, (5, 2)))
    assert (frame["ect0"], frame["ce"], frame["ack_delay"]) == (5, 2, 1.0)
