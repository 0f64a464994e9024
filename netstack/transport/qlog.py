"""What a connection did, packet by packet, in qlog: the usual viewers draw it.

JSON text sequences (RFC 7464) of qlog 0.3 (draft-ietf-quic-qlog-main-schema-03 and -quic-events-03,
which viewers read): packets sent, received and lost with their frames, from the first of the
handshake on, and after each acknowledgement the round trip, the window and what is in flight.

    INITIAL               initial      a token, the first Noise message as CRYPTO, padding
    RETRY                 retry        a token
    RESPONSE, FINAL       handshake    a Noise message as CRYPTO
    REFUSED               handshake    a frame that QUIC has not
    DATA                  1RTT         its frames
    RESET                 stateless_reset
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from netstack.transport import frames as f
from netstack.transport import packet

if TYPE_CHECKING:
    from netstack.transport.recovery import Recovery

RECORD_SEPARATOR: Final = "\x1e"

# Our states under the names of the schema's simple set.
STATES: Final = {"handshake": "attempted", "open": "handshake_confirmed", "closed": "closed"}

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
        self._numbers: Counter[tuple[str, str]] = Counter()  # of packets that have none on the wire
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
        self.event("connectivity:connection_state_updated", {"new": STATES[state]})

    def handshake_sent(self, datagram: bytes) -> None:
        """A packet of the handshake has left."""
        self._handshake("transport:packet_sent", datagram)

    def handshake_received(self, datagram: bytes) -> None:
        """A packet of the handshake has come and was taken."""
        self._handshake("transport:packet_received", datagram)

    def _handshake(self, name: str, datagram: bytes) -> None:
        data = _handshake_packet(datagram)
        header = data["header"]
        kind = header["packet_type"]
        if kind != "retry":
            header["packet_number"] = self._numbers[name, kind]
            self._numbers[name, kind] += 1
        self.event(name, data)

    def reset(self) -> None:
        """The peer says, by its token, that it does not know this connection any more."""
        header = {"packet_type": "stateless_reset"}
        length = packet.SHORT.size + packet.RESET_TOKEN_BYTES
        self.event("transport:packet_received", {"header": header, "raw": {"length": length}})

    def sent(self, number: int, payload: bytes, size: int) -> None:
        """A packet has left."""
        self.event("transport:packet_sent", _packet(number, payload, size))

    def received(self, number: int, payload: bytes, size: int) -> None:
        """A packet has come and was opened."""
        self.event("transport:packet_received", _packet(number, payload, size))

    def lost(self, number: int, *, overtaken: bool) -> None:
        """A packet is lost: enough later ones arrived, or it is too late."""
        header = {"packet_type": "1RTT", "packet_number": number}
        trigger = "reordering_threshold" if overtaken else "time_threshold"
        self.event("recovery:packet_lost", {"header": header, "trigger": trigger})

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
        }
        known = {name: value for name, value in values.items() if value < float("inf")}
        if congestion.ssthresh < float("inf"):
            known["ssthresh"] = int(congestion.ssthresh)
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


def _handshake_packet(datagram: bytes) -> dict[str, Any]:
    """What a packet of the handshake is to QUIC."""
    kind, first_id = packet.SHORT.unpack_from(datagram)
    rest = len(datagram) - packet.SHORT.size
    header: dict[str, Any] = {"packet_type": "handshake", "dcid": f"{first_id:016x}"}
    data: dict[str, Any] = {"header": header, "raw": {"length": len(datagram)}}
    if kind == packet.RETRY:
        header["packet_type"] = "retry"
        data["retry_token"] = {"type": "retry", "length": rest}
    elif kind in (packet.INITIAL_XX, packet.INITIAL_IK):
        _, token, message = packet.parse_initial(datagram)
        padding = rest - 2 * packet.LENGTH.size - len(token) - len(message)
        header["packet_type"], header["scid"] = "initial", header.pop("dcid")
        header["token"] = {"length": len(token)}
        padded = {"frame_type": "padding", "payload_length": padding}
        data["frames"] = [_crypto(len(message)), padded]
    elif kind == packet.REFUSED:
        data["frames"] = [{"frame_type": "unknown", "raw_frame_type": kind}]
    elif kind == packet.RESPONSE:
        header["scid"] = datagram[packet.SHORT.size :][: packet.ID_BYTES].hex()
        data["frames"] = [_crypto(rest - packet.ID_BYTES)]
    else:
        data["frames"] = [_crypto(rest)]
    return data


def _crypto(length: int) -> dict[str, Any]:
    return {"frame_type": "crypto", "offset": 0, "length": length}


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
    frame: dict[str, Any]
    kind = data[at]
    if kind == f.PADDING:
        return {"frame_type": "padding", "payload_length": len(data) - at}, len(data)
    if kind in (f.STREAM, f.STREAM_FIN):
        _, stream_id, offset, length = f.STREAM_HEAD.unpack_from(data, at)
        frame = {"frame_type": "stream", "stream_id": stream_id, "offset": offset}
        frame["length"] = length
        if kind == f.STREAM_FIN:
            frame["fin"] = True  # the schema has it absent otherwise
        return frame, at + f.STREAM_HEAD.size + length
    if kind in (f.ACK, f.ACK_ECN):
        return _describe_ack(data, at)
    if kind in (f.DATAGRAM, f.NEW_TOKEN):
        _, length = f.BLOB_HEAD.unpack_from(data, at)
        frame = {"frame_type": "datagram", "length": length}
        if kind == f.NEW_TOKEN:
            token = {"type": "resumption", "length": length}
            frame = {"frame_type": "new_token", "token": token}
        return frame, at + f.BLOB_HEAD.size + length
    if kind == f.CLOSE:
        _, code, length = f.CLOSE_HEAD.unpack_from(data, at)
        start = at + f.CLOSE_HEAD.size
        reason = data[start : start + length].decode(errors="replace")
        frame = {"frame_type": "connection_close", "error_code": code, "reason": reason}
        return frame | {"error_space": "application"}, start + length
    layout, name, *fields = _PLAIN[kind]
    values = layout.unpack_from(data, at)[1:]
    frame = {"frame_type": name} | dict(zip(fields, values, strict=False))
    if kind == f.MAX_STREAMS:
        frame["stream_type"] = "bidirectional"  # there are no others
    return frame, at + layout.size


def _describe_ack(data: bytes, at: int) -> tuple[dict[str, Any], int]:
    kind, delay_us, count = f.ACK_HEAD.unpack_from(data, at)
    at += f.ACK_HEAD.size
    pairs = [f.RANGE.unpack_from(data, at + i * f.RANGE.size) for i in range(count)]
    ranges = [[first] if first == last else [first, last] for first, last in pairs]
    at += count * f.RANGE.size
    frame = {"frame_type": "ack", "ack_delay": delay_us / 1000, "acked_ranges": ranges}
    if kind == f.ACK_ECN:
        frame["ect0"], frame["ce"] = f.ECN_COUNTS.unpack_from(data, at)
        at += f.ECN_COUNTS.size
    return frame, at


_PING: Final = struct.Struct(">B")


def _plain_frames() -> dict[int, tuple[Any, ...]]:
    """Of each frame that is no more than its fields: layout, name, names of the fields."""
    return {
        f.PING: (_PING, "ping"),
        f.RESET_STREAM: (f.RESET_HEAD, "reset_stream", "stream_id", "error_code", "final_size"),
        f.STOP: (f.ID_CODE, "stop_sending", "stream_id", "error_code"),
        f.MAX_DATA: (f.CREDIT, "max_data", "maximum"),
        f.MAX_STREAM: (f.ID_CREDIT, "max_stream_data", "stream_id", "maximum"),
        f.MAX_STREAMS: (f.COUNT, "max_streams", "maximum"),
        f.CHALLENGE: (f.SECRET, "path_challenge"),
        f.ANSWER: (f.SECRET, "path_response"),
    }


_PLAIN: Final = _plain_frames()
