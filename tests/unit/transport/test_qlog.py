"""The log of a connection: every packet with its frames, in the form that viewers read."""

from __future__ import annotations

import json

import pytest
from transport_kit import Pair

from netstack.transport import frames as f
from netstack.transport import qlog
from netstack.transport.config import TransportConfig
from netstack.transport.packet import OVERHEAD


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
    assert all(line[0] == qlog.RECORD_SEPARATOR and line[-1] == "\n" for line in lines)
    return pair, [json.loads(line[1:]) for line in lines]


def of(events, name):
    return [event["data"] for event in events if event.get("name") == name]


def test_it_begins_with_who_writes_and_what():
    _, (head, *events) = traced()
    assert head["qlog_version"] == "0.3"
    assert head["trace"]["vantage_point"] == {"name": "t", "type": "client"}
    times = [event["time"] for event in events]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(events[-1]["time"])


def test_every_packet_is_in_it_with_its_size_and_number():
    pair, (_, *events) = traced()
    sent = of(events, "transport:packet_sent")
    carried = [len(data) for _, data in pair.data_packets("client")]
    assert [p["raw"]["length"] for p in sent] == carried
    assert [p["header"]["packet_number"] for p in sent] == list(range(len(sent)))
    assert all(p["raw"]["length"] == p["raw"]["payload_length"] + OVERHEAD for p in sent)
    received = of(events, "transport:packet_received")
    assert len(received) == pair.client.connection.received_packets


def test_the_frames_tell_the_whole_stream():
    _, (_, *events) = traced(loss=0.05, seed=4)
    pieces = [
        (frame["offset"], frame["length"], frame["fin"])
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
    assert states == ["open", "closed"]
    metrics = of(events, "recovery:metrics_updated")
    assert metrics[0]["congestion_window"] > 0
    assert metrics[0]["smoothed_rtt"] == pytest.approx(20, rel=0.2)
    # Only what has changed.
    assert all(metrics[i] != metrics[i + 1] for i in range(len(metrics) - 1))


@pytest.mark.parametrize(
    ("payload", "frames"),
    [
        (b"\x01\0\0\0", [{"frame_type": "ping"}, {"frame_type": "padding", "length": 3}]),
        (f.ID_CODE.pack(f.STOP, 4, 7), [("stop_sending", 4, 7)]),
        (f.RESET_HEAD.pack(f.RESET_STREAM, 4, 7, 99), [("reset_stream", 4, 7, 99)]),
        (f.CREDIT.pack(f.MAX_DATA, 5), [("max_data", 5)]),
        (f.ID_CREDIT.pack(f.MAX_STREAM, 2, 5), [("max_stream_data", 2, 5)]),
        (f.COUNT.pack(f.MAX_STREAMS, 5), [("max_streams", 5)]),
        (f.SECRET.pack(f.CHALLENGE, bytes(8)), [("path_challenge",)]),
        (f.SECRET.pack(f.ANSWER, bytes(8)), [("path_response",)]),
        (f.BLOB_HEAD.pack(f.DATAGRAM, 3) + b"abc", [("datagram", 3)]),
        (f.BLOB_HEAD.pack(f.NEW_TOKEN, 3) + b"abc", [("new_token", 3)]),
        (f.encode_close(9, "why"), [("connection_close", 9, "why", "application")]),
        (b"\x63\x01", [("unknown", 0x63)]),
        (b"\x03\x00", [("unknown", 3)]),
    ],
)
def test_each_frame_has_its_usual_name(payload, frames):
    found = list(qlog.described(payload))
    if isinstance(frames[0], dict):
        assert found == frames
    else:
        assert [tuple(frame.values()) for frame in found] == frames


def test_counts_of_marks_are_told():
    ranges = Pair(TransportConfig()).server.connection.acks.received
    (frame,) = qlog.described(f.encode_ack(ranges, 0.001, (5, 2)))
    assert (frame["ect0"], frame["ce"], frame["ack_delay"]) == (5, 2, 1.0)
