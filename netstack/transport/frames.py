"""What DATA packets carry: frames, one behind the other. Fixed widths, for they are read in Python.

PADDING      0  (one byte; a run of them to the end)
PING         1
ACK          2  delay_us:4  count:2  count × (first:8 last:8), the highest range first
STREAM       3  (4 with fin)  id:4  offset:8  length:4  data
RESET_STREAM 5  id:4  code:4  sent:8         the sender gives up its side, after so many bytes
STOP         6  id:4  code:4                 the receiver wants no more
MAX_DATA     7  bytes:8                      credit for the connection
MAX_STREAM   8  id:4  bytes:8                credit for a stream
MAX_STREAMS  9  count:4                      streams the peer may have opened in all
DATAGRAM    10  length:2  data               unreliable
CLOSE       11  code:4  length:2  reason
NEW_TOKEN   12  length:2  token              skips address validation next time
ACK_ECN     13  as ACK, then ect0:8 ce:8     with the counts of marked packets
CHALLENGE   14  secret:8                     does the connection's peer live at this address?
ANSWER      15  secret:8                     it does
"""

from __future__ import annotations

import struct
from typing import Final

from netstack.transport.ranges import RangeSet

PADDING: Final = 0
PING: Final = 1
ACK: Final = 2
STREAM: Final = 3
STREAM_FIN: Final = 4
RESET_STREAM: Final = 5
STOP: Final = 6
MAX_DATA: Final = 7
MAX_STREAM: Final = 8
MAX_STREAMS: Final = 9
DATAGRAM: Final = 10
CLOSE: Final = 11
NEW_TOKEN: Final = 12
ACK_ECN: Final = 13
CHALLENGE: Final = 14
ANSWER: Final = 15

STREAM_HEAD: Final = struct.Struct(">BIQI")
ACK_HEAD: Final = struct.Struct(">BIH")
RANGE: Final = struct.Struct(">QQ")
ECN_COUNTS: Final = struct.Struct(">QQ")
ACK_ONE: Final = struct.Struct(">BIHQQ")
RESET_HEAD: Final = struct.Struct(">BIIQ")
ACK_ONE_ECN: Final = struct.Struct(">BIHQQQQ")
ID_CODE: Final = struct.Struct(">BII")
CREDIT: Final = struct.Struct(">BQ")
ID_CREDIT: Final = struct.Struct(">BIQ")
COUNT: Final = struct.Struct(">BI")
SECRET: Final = struct.Struct(">B8s")
BLOB_HEAD: Final = struct.Struct(">BH")
CLOSE_HEAD: Final = struct.Struct(">BIH")

STREAM_HEAD_SIZE: Final = STREAM_HEAD.size
ACK_ONE_ECN_SIZE: Final = ACK_ONE_ECN.size

# An acknowledgement names at most this many ranges; older gaps are the sender's time-out's
# business.
ACK_RANGES_MAX: Final = 32


def encode_ack(received: RangeSet, delay_s: float, counts: tuple[int, int] | None = None) -> bytes:
    """An ACK of what was received, the highest ranges first; `counts` of ECT(0) and CE."""
    delay_us = min(int(delay_s * 1e6), 0xFFFFFFFF)
    if (only := received.only) is not None:  # nearly always
        if counts is None:
            return ACK_ONE.pack(ACK, delay_us, 1, only[0], only[1])
        return ACK_ONE_ECN.pack(ACK_ECN, delay_us, 1, only[0], only[1], counts[0], counts[1])
    ranges = received.descending(ACK_RANGES_MAX)
    kind = ACK if counts is None else ACK_ECN
    parts = [ACK_HEAD.pack(kind, delay_us, len(ranges))]
    parts += [RANGE.pack(first, last) for first, last in ranges]
    if counts is not None:
        parts.append(ECN_COUNTS.pack(*counts))
    return b"".join(parts)


def encode_close(code: int, reason: str) -> bytes:
    """A CLOSE; the reason is cut to what fits every packet."""
    text = reason.encode()[:256]
    return CLOSE_HEAD.pack(CLOSE, code, len(text)) + text
