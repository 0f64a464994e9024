"""What a connection did, packet by packet, in qlog: the usual viewers draw it.

JSON text sequences (RFC 7464) of qlog 0.3 (draft-ietf-quic-qlog-main-schema-03 and -quic-events-02,
which viewers read): packets sent, received and lost with their frames, and after each
acknowledgement the round trip, the window and what is in flight.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from netstack.transport import frames as f

if TYPE_CHECKING:
    from netstack.transport.recovery import Recovery

RECORD_SEPARATOR: Final = "\x1e"

_encode = json.JSONEncoder(separators=(",", ":")).encode


class Trace:
    """The log of one connection.

    Args:
        write: takes text.
        now: the connection's clock, in seconds.
        wall: Unix seconds of now, for people who compare files.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        now: Callable[[], float],
        wall: float,
        *,
        title: str,
        role: str,
    ) -> None:
        self._write = write
        self._now = now
        self._began = now()
        self._last: dict[str, float] = {}
        head = {
            "qlog_version": "0.3",
            "qlog_format": "JSON-SEQ",
            "title": title,
            "trace": {
                "vantage_point": {"name": title, "type": role},
                "common_fields": {
                    "time_format": "relative",
                    "reference_time": wall * 1000,
                    "protocol_type": ["RINGLEADER"],
                },
            },
        }
        self._record(head)

    def __repr__(self) -> str:
        return f"<Trace since {self._began:.3f}>"

    def _record(self, record: dict[str, Any]) -> None:
        self._write(f"{RECORD_SEPARATOR}{_encode(record)}\n")

    def event(self, name: str, data: dict[str, Any]) -> None:
        """Anything; times are in milliseconds since the trace began."""
        time_ms = round((self._now() - self._began) * 1000, 6)
        self._record({"time": time_ms, "name": name, "data": data})

    def state(self, state: str) -> None:
        """The connection is in another state."""
        self.event("connectivity:connection_state_updated", {"new": state})

    def sent(self, number: int, payload: bytes, size: int) -> None:
        """A packet has left."""
        self.event("transport:packet_sent", _packet(number, payload, size))

    def received(self, number: int, payload: bytes, size: int) -> None:
        """A packet has come and was opened."""
        self.event("transport:packet_received", _packet(number, payload, size))

    def lost(self, number: int, size: int) -> None:
        """A packet is lost."""
        header = {"packet_type": "1RTT", "packet_number": number}
        self.event("recovery:packet_lost", {"header": header, "raw": {"length": size}})

    def metrics(self, recovery: Recovery) -> None:
        """What has changed of what the sender knows."""
        rtt, congestion = recovery.rtt, recovery.congestion
        values = {
            "smoothed_rtt": rtt.smoothed * 1000,
            "min_rtt": rtt.minimum * 1000,
            "latest_rtt": rtt.latest * 1000,
            "rtt_variance": rtt.variation * 1000,
            "congestion_window": congestion.cwnd,
            "bytes_in_flight": recovery.bytes_in_flight,
            "ssthresh": congestion.ssthresh,
        }
        known = {name: value for name, value in values.items() if value < float("inf")}
        changed = {name: v for name, v in known.items() if self._last.get(name) != v}
        if changed:
            self._last.update(changed)
            self.event("recovery:metrics_updated", changed)


def _packet(number: int, payload: bytes, size: int) -> dict[str, Any]:
    return {
        "header": {"packet_type": "1RTT", "packet_number": number},
        "raw": {"length": size, "payload_length": len(payload)},
        "frames": list(described(payload)),
    }


def described(payload: bytes) -> Iterator[dict[str, Any]]:
    """The frames of a payload under QUIC's names; what makes no sense ends the list as such."""
    offset = 0
    try:
        while offset < len(payload):
            frame, offset = _describe(payload, offset)
            yield frame
    except (struct.error, KeyError):
        yield {"frame_type": "unknown", "raw_frame_type": payload[offset]}


def _describe(data: bytes, at: int) -> tuple[dict[str, Any], int]:
    """The frame at an offset, and the offset behind it."""
    kind = data[at]
    if kind == f.PADDING:
        return {"frame_type": "padding", "length": len(data) - at}, len(data)
    if kind in (f.STREAM, f.STREAM_FIN):
        _, stream_id, offset, length = f.STREAM_HEAD.unpack_from(data, at)
        frame = {"frame_type": "stream", "stream_id": stream_id, "offset": offset}
        return frame | {
            "length": length,
            "fin": kind == f.STREAM_FIN,
        }, at + f.STREAM_HEAD.size + length
    if kind in (f.ACK, f.ACK_ECN):
        return _describe_ack(data, at)
    if kind in (f.DATAGRAM, f.NEW_TOKEN):
        _, length = f.BLOB_HEAD.unpack_from(data, at)
        name = "datagram" if kind == f.DATAGRAM else "new_token"
        return {"frame_type": name, "length": length}, at + f.BLOB_HEAD.size + length
    if kind == f.CLOSE:
        _, code, length = f.CLOSE_HEAD.unpack_from(data, at)
        start = at + f.CLOSE_HEAD.size
        reason = data[start : start + length].decode(errors="replace")
        frame = {"frame_type": "connection_close", "error_code": code, "reason": reason}
        return frame | {"error_space": "application"}, start + length
    layout, name, *fields = _PLAIN[kind]
    values = layout.unpack_from(data, at)[1:]
    frame = dict(zip(fields, values, strict=False))
    return {"frame_type": name} | frame, at + layout.size


def _describe_ack(data: bytes, at: int) -> tuple[dict[str, Any], int]:
    kind, delay_us, count = f.ACK_HEAD.unpack_from(data, at)
    at += f.ACK_HEAD.size
    ranges = [list(f.RANGE.unpack_from(data, at + i * f.RANGE.size)) for i in range(count)]
    at += count * f.RANGE.size
    frame = {"frame_type": "ack", "ack_delay": delay_us / 1000, "acked_ranges": ranges}
    if kind == f.ACK_ECN:
        frame["ect0"], frame["ce"] = f.ECN_COUNTS.unpack_from(data, at)
        at += f.ECN_COUNTS.size
    return frame, at


_PING: Final = struct.Struct(">B")
_PLAIN: Final[dict[int, tuple[Any, ...]]] = {
    f.PING: (_PING, "ping"),
    f.RESET_STREAM: (f.RESET_HEAD, "reset_stream", "stream_id", "error_code", "final_size"),
    f.STOP: (f.ID_CODE, "stop_sending", "stream_id", "error_code"),
    f.MAX_DATA: (f.CREDIT, "max_data", "maximum"),
    f.MAX_STREAM: (f.ID_CREDIT, "max_stream_data", "stream_id", "maximum"),
    f.MAX_STREAMS: (f.COUNT, "max_streams", "maximum"),
    f.CHALLENGE: (f.SECRET, "path_challenge"),
    f.ANSWER: (f.SECRET, "path_response"),
}
