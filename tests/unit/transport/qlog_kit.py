"""Reading qlog files, and holding each record to the schema.

What each kind of record must and may have, from the CDDL of draft-ietf-quic-qlog-main-schema-03 and
draft-ietf-quic-qlog-quic-events-03: of the events that a connection of ours writes, all fields. A
name that ends in "?" may be missing; no other may, and none may be there that is not named.
"""

from __future__ import annotations

import json
import re

SEPARATOR = "\x1e"


class Invalid(AssertionError):
    """A record that the schema does not allow, and where."""


def uint(bits):
    return lambda value: type(value) is int and 0 <= value < 2**bits


def number(value):
    return type(value) in (int, float) and abs(value) < float("inf")


def text(value):
    return type(value) is str


def hexstring(value):
    return type(value) is str and re.fullmatch("([0-9a-f][0-9a-f])*", value) is not None


def one_of(*names):
    return lambda value: value in names


def exactly(value):
    return one_of(value)


def true(value):
    return value is True


def acked_ranges(value):
    ordered = type(value) is list and value != []
    return ordered and all(
        len(pair) in (1, 2) and all(map(uint(64), pair)) and pair == sorted(set(pair))
        for pair in value
    )


RAW = {"length?": uint(64), "payload_length?": uint(64)}
TOKEN = {"type?": one_of("retry", "resumption"), "length?": uint(32)}
HEADER = {
    "packet_type": one_of("initial", "handshake", "0RTT", "1RTT", "retry", "stateless_reset"),
    "packet_number?": uint(64),
    "token?": TOKEN,
    "scid?": hexstring,
    "dcid?": hexstring,
}
NUMBERED = ("initial", "handshake", "0RTT", "1RTT")

FRAMES = {
    "padding": {"length?": uint(32), "payload_length": uint(32)},
    "ping": {},
    "ack": {
        "ack_delay?": number, "acked_ranges?": acked_ranges, "ect0?": uint(64), "ce?": uint(64),
    },
    "reset_stream": {"stream_id": uint(64), "error_code": uint(32), "final_size": uint(64)},
    "stop_sending": {"stream_id": uint(64), "error_code": uint(32)},
    "crypto": {"offset": uint(64), "length": uint(64)},
    "new_token": {"token": TOKEN},
    "stream": {"stream_id": uint(64), "offset": uint(64), "length": uint(64), "fin?": true},
    "max_data": {"maximum": uint(64)},
    "max_stream_data": {"stream_id": uint(64), "maximum": uint(64)},
    "max_streams": {
        "stream_type": one_of("unidirectional", "bidirectional"), "maximum": uint(64),
    },
    "path_challenge": {},
    "path_response": {},
    "connection_close": {
        "error_space?": one_of("transport", "application"), "error_code?": uint(32),
        "reason?": text,
    },
    "datagram": {"length?": uint(64)},
    "unknown": {"raw_frame_type": uint(64)},
}  # fmt: skip

PACKET = {"header": HEADER, "frames?": list, "retry_token?": TOKEN, "raw?": RAW}
EVENTS = {
    "connectivity:connection_state_updated": {
        "new": one_of("attempted", "handshake_started", "handshake_confirmed", "closed"),
    },
    "transport:packet_sent": PACKET,
    "transport:packet_received": PACKET,
    "recovery:packet_lost": {
        "header?": HEADER,
        "trigger?": one_of("reordering_threshold", "time_threshold", "pto_expired"),
    },
    "recovery:metrics_updated": {
        "min_rtt?": number, "smoothed_rtt?": number, "latest_rtt?": number,
        "rtt_variance?": number, "congestion_window?": uint(64), "bytes_in_flight?": uint(64),
        "ssthresh?": uint(64),
    },
}  # fmt: skip

EVENT = {"time": number, "name": one_of(*EVENTS), "data": dict}
HEAD = {
    "qlog_version": exactly("0.3"),
    "qlog_format": exactly("JSON-SEQ"),
    "title?": text,
    "trace": {
        "vantage_point": {"name?": text, "type": one_of("client", "server")},
        "common_fields": {
            "time_format": exactly("relative"),
            "reference_time": number,
            "protocol_type": list,
        },
    },
}


def hold_to(schema, found, where):
    """Raises Invalid, with where it was found, for what `schema` does not allow."""
    if not isinstance(found, dict):
        raise Invalid(f"{where} is {found!r}, no map")
    known = {name.rstrip("?"): name.endswith("?") for name in schema}
    missing = {name for name, optional in known.items() if not optional} - found.keys()
    if missing or (unknown := found.keys() - known.keys()):
        raise Invalid(f"{where}: {missing or unknown} is {'missing' if missing else 'unknown'}")
    for name, value in found.items():
        rule = schema[name + "?" if known[name] else name]
        if isinstance(rule, dict):
            hold_to(rule, value, f"{where}.{name}")
        elif isinstance(rule, type):
            if type(value) is not rule:
                raise Invalid(f"{where}.{name} is {value!r}, no {rule.__name__}")
        elif not rule(value):
            raise Invalid(f"{where}.{name} is {value!r}")


def validate(records):
    """Raises Invalid for the first record that the schema does not allow."""
    head, *events = records
    hold_to(HEAD, head, "head")
    latest = 0.0
    for at, event in enumerate(events):
        where = f"record {at}"
        hold_to(EVENT, event, where)
        if event["time"] < latest:
            raise Invalid(f"{where}: time goes back")
        latest = event["time"]
        name, data = event["name"], event["data"]
        hold_to(EVENTS[name], data, f"{where}, {name}")
        if name.startswith("transport:packet"):
            validate_packet(data, f"{where}, {name}")


def validate_packet(data, where):
    header = data["header"]
    kind = header["packet_type"]
    if ("packet_number" in header) != (kind in NUMBERED):
        raise Invalid(f"{where}: a {kind} packet, and its number")
    if "token" in header and kind != "initial":
        raise Invalid(f"{where}: a token in a {kind} packet")
    if "retry_token" in data and kind != "retry":
        raise Invalid(f"{where}: a retry token in a {kind} packet")
    for frame in data.get("frames", ()):
        frame_type = frame.get("frame_type")
        if frame_type not in FRAMES:
            raise Invalid(f"{where}: no such frame: {frame}")
        hold_to({"frame_type": text, **FRAMES[frame_type]}, frame, f"{where}, {frame_type}")


def read(written: str) -> list[dict]:
    """The records of a text sequence (RFC 7464); one that is cut short is an error."""
    if not written:
        return []
    assert written[0] == SEPARATOR
    assert written[-1] == "\n", "the last record is cut short"
    records = written[1:].split(SEPARATOR)
    assert all(record[-1] == "\n" for record in records)
    return [json.loads(record) for record in records]


def of(records, name):
    """The data of all events of that name."""
    return [record["data"] for record in records if record.get("name") == name]
