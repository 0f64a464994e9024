"""Reads the frames of an opened packet and tells the connection of each.

The peer has authenticated this packet, so a frame that makes no sense is its bug or its malice,
not the network's: ProtocolViolation, and the connection ends.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from netstack.transport import frames as f
from netstack.transport.errors import ProtocolViolation
from netstack.transport.streams import COPIED_MAX

if TYPE_CHECKING:
    from netstack.transport.connection import Connection

COUNT_AT: Final = 5  # in an ACK
ONE_RANGE: Final = b"\0\1"


def parse_frames(connection: Connection, data: bytes, now: float) -> bool:
    """Dispatch every frame; returns whether the packet asks for an acknowledgement."""
    offset, end = 0, len(data)
    eliciting = False
    streams = connection.streams
    try:
        while offset < end:
            kind = data[offset]
            if kind == f.STREAM or kind == f.STREAM_FIN:
                _, stream_id, position, length = f.STREAM_HEAD.unpack_from(data, offset)
                begin = offset + f.STREAM_HEAD_SIZE
                offset = begin + length
                if offset > end:
                    raise ProtocolViolation("a frame is cut short")
                body: bytes | memoryview
                if length <= COPIED_MAX:
                    body = data[begin:offset]
                else:
                    body = memoryview(data)[begin:offset]
                streams.on_stream(stream_id, position, body, kind == f.STREAM_FIN)
                eliciting = True
            elif kind == f.ACK or kind == f.ACK_ECN:
                offset = _ack(connection, kind, data, offset, now)
            elif kind == f.PADDING:
                # A run of zeros; whatever follows it is a frame again.
                rest = data[offset:].lstrip(b"\0")
                offset = end - len(rest)
            else:
                offset = _rare(connection, kind, data, offset)
                eliciting = True
    except struct.error:
        raise ProtocolViolation("a frame is cut short") from None
    return eliciting


def _slice(data: bytes, offset: int, length: int) -> bytes:
    body = data[offset : offset + length]
    if len(body) != length:
        raise ProtocolViolation("a frame is cut short")
    return body


def _ack(connection: Connection, kind: int, data: bytes, offset: int, now: float) -> int:
    if kind == f.ACK_ECN and data.startswith(ONE_RANGE, offset + COUNT_AT):  # nearly always
        _, delay_us, _, first, last, ect0, ce = f.ACK_ONE_ECN.unpack_from(data, offset)
        if first > last:
            raise ProtocolViolation("acknowledgement ranges out of order")
        connection.on_ack([(first, last)], delay_us / 1e6, (ect0, ce), now)
        return offset + f.ACK_ONE_ECN_SIZE
    _, delay_us, count = f.ACK_HEAD.unpack_from(data, offset)
    offset += f.ACK_HEAD.size
    ranges = []
    below = 1 << 64
    for _ in range(count):
        first, last = f.RANGE.unpack_from(data, offset)
        if first > last or last >= below:
            raise ProtocolViolation("acknowledgement ranges out of order")
        ranges.append((first, last))
        below = first
        offset += f.RANGE.size
    counts = None
    if kind == f.ACK_ECN:
        counts = f.ECN_COUNTS.unpack_from(data, offset)
        offset += f.ECN_COUNTS.size
    if ranges:
        connection.on_ack(ranges, delay_us / 1e6, counts, now)
    return offset


def _rare(connection: Connection, kind: int, data: bytes, offset: int) -> int:
    """All frames that are not on the hot path; returns the offset behind."""
    if kind == f.PING:
        return offset + 1
    if kind == f.MAX_DATA:
        connection.streams.on_max_data(f.CREDIT.unpack_from(data, offset)[1])
        return offset + f.CREDIT.size
    if kind == f.MAX_STREAM:
        _, stream_id, limit = f.ID_CREDIT.unpack_from(data, offset)
        connection.streams.on_max_stream(stream_id, limit)
        return offset + f.ID_CREDIT.size
    if kind == f.MAX_STREAMS:
        connection.streams.on_max_streams(f.COUNT.unpack_from(data, offset)[1])
        return offset + f.COUNT.size
    if kind == f.RESET_STREAM:
        _, stream_id, code, sent = f.RESET_HEAD.unpack_from(data, offset)
        connection.streams.on_reset(stream_id, code, sent)
        return offset + f.RESET_HEAD.size
    if kind == f.STOP:
        _, stream_id, code = f.ID_CODE.unpack_from(data, offset)
        connection.streams.on_stop(stream_id, code)
        return offset + f.ID_CODE.size
    if kind in (f.DATAGRAM, f.NEW_TOKEN):
        _, length = f.BLOB_HEAD.unpack_from(data, offset)
        offset += f.BLOB_HEAD.size
        body = _slice(data, offset, length)
        (connection.on_datagram if kind == f.DATAGRAM else connection.on_new_token)(body)
        return offset + len(body)
    if kind in (f.CHALLENGE, f.ANSWER):
        _, secret = f.SECRET.unpack_from(data, offset)
        (connection.on_challenge if kind == f.CHALLENGE else connection.on_answer)(secret)
        return offset + f.SECRET.size
    if kind == f.CLOSE:
        _, code, length = f.CLOSE_HEAD.unpack_from(data, offset)
        offset += f.CLOSE_HEAD.size
        body = _slice(data, offset, length)
        connection.on_close(code, body.decode(errors="replace"))
        return len(data)  # nothing counts behind it
    raise ProtocolViolation(f"no frame of kind {kind}")
