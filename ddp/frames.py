"""Frames between ranks: a fixed head, which says of which call it is part, and a payload.

    ANNOUNCE   I have begun this call                           (unless DATA says so)
    DATA       a piece of one transfer of its schedule
    STATUS     my part of it is done, or has failed; with whom I hold for dead
    SEND       a piece of a message to one rank        TAKEN    the message is here whole
    HELLO      first on every link: who I am
    FENCED     your epoch is over; this is ours
    LEFT       last on a link: I have closed the group in good order

Every head carries epoch, sequence, collective, algorithm, reduction, type, root, count and two
checksums (CRC-32C, of the head and of the payload). Where the link below seals every byte with a
128-bit tag of its own (netstack), the payload's is left out: it would cost more than the
addition. A frame that belongs to another call is noticed when it arrives, whatever it is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

import google_crc32c
import numpy as np

from ddp.call import Call
from ddp.elements import OPS, TYPES
from ddp.errors import Corrupted
from ddp.schedules.catalogue import ALGORITHMS, KINDS

MAGIC: Final = b"RD"
VERSION: Final = 1

# Ranks of one group: the dead are a set of bits in each STATUS.
RANKS_MAX: Final = 64

# Largest payload of a frame: large enough that Python's cost for one does not show.
SEGMENT_BYTES: Final = 1024 * 1024

Payload = bytes | memoryview

_HEAD: Final = struct.Struct("<2sBBQQBBBBHQIIIQIQI")
_CRC: Final = struct.Struct("<I")
HEAD_BYTES: Final = _HEAD.size + _CRC.size

_KINDS: Final = (*KINDS, "message")
_TYPES: Final = tuple(TYPES)


class Type(IntEnum):
    """What a frame is."""

    ANNOUNCE = 0
    DATA = 1
    STATUS = 2
    SEND = 3
    TAKEN = 4
    HELLO = 5
    FENCED = 6
    LEFT = 7


class Frame(NamedTuple):
    """One frame. Of DATA: piece at byte `offset` of chunks from `lo`, of `round`, of `slice`.

    Of STATUS: `dead` is the set of ranks held for dead, `lo` 1 if the part is done. Of SEND: `lo`
    is the tag, `sequence` counts the messages of the pair.
    """

    type: Type
    epoch: int
    sequence: int
    call: Call
    slice: int = 0
    round: int = 0
    lo: int = 0
    offset: int = 0
    dead: int = 0
    payload: Payload = b""

    def owned(self) -> Frame:
        """The same with a payload that nobody can change any more."""
        return self._replace(payload=bytes(self.payload))

    def encode(self) -> bytes:
        """Head and payload."""
        return b"".join((self.head(), self.payload))

    def head(self, *, sealed: bool = False) -> bytes:
        """All but the payload. `sealed`: the link proves its bytes itself."""
        call = self.call
        head = _HEAD.pack(
            MAGIC,
            VERSION,
            self.type,
            self.epoch,
            self.sequence,
            _KINDS.index(call.kind),
            ALGORITHMS.index(call.algorithm),
            OPS.index(call.op),
            _TYPES.index(call.dtype),
            call.root,
            call.count,
            self.slice,
            self.round,
            self.lo,
            self.offset,
            len(self.payload),
            self.dead,
            0 if sealed else google_crc32c.value(bytes(self.payload)),
        )
        return head + _CRC.pack(google_crc32c.value(head))


NO_CALL: Final = Call("barrier", ALGORITHMS[0], OPS[0], _TYPES[0], 0)


class Decoder:
    """Splits the bytes of a link into frames; raises Corrupted at the first that is none.

    A payload that comes in parts is put together in memory of its own, at once: it is copied
    once, and begins where numbers may begin. sealed: the link proves its bytes.
    """

    def __init__(self, *, sealed: bool = False) -> None:
        self._sealed = sealed
        self._head = b""  # the beginning of one
        self._payload = memoryview(b"")  # of the frame whose head is whole
        self._filled = 0

    def feed(self, data: bytes | memoryview) -> Iterator[Frame]:
        """The frames that `data` completes."""
        view, at, end = memoryview(data), 0, len(data)
        while at < end:
            if len(self._head) < HEAD_BYTES:
                count = min(HEAD_BYTES - len(self._head), end - at)
                self._head += view[at : at + count]
                at += count
                if len(self._head) < HEAD_BYTES:
                    return
                length = _payload_length(self._head)
                if length <= end - at:
                    yield self._whole(view[at : at + length])
                    at += length
                    continue
                self._payload, self._filled = np.empty(length, np.uint8).data, 0
            count = min(len(self._payload) - self._filled, end - at)
            self._payload[self._filled : self._filled + count] = view[at : at + count]
            self._filled += count
            at += count
            if self._filled == len(self._payload):
                yield self._whole(self._payload)

    def _whole(self, payload: Payload) -> Frame:
        head, self._head = self._head, b""
        return decode(head, payload, self._sealed)


def _payload_length(head: bytes) -> int:
    """Of a head, which is checked first: a wrong length would be believed for ever."""
    (crc,) = _CRC.unpack_from(head, _HEAD.size)
    if google_crc32c.value(head[: _HEAD.size]) != crc or head[:2] != MAGIC:
        raise Corrupted("a frame's head does not match its checksum")
    length: int = _HEAD.unpack_from(head)[15]
    if length > SEGMENT_BYTES:
        raise Corrupted(f"a frame of {length} bytes")
    return length


def decode(head: bytes | memoryview, payload: Payload, sealed: bool = False) -> Frame:
    """One frame, head already checked; raises Corrupted."""
    fields = _HEAD.unpack_from(head)
    _, version, kind_of_frame, epoch, sequence = fields[:5]
    kind, algorithm, op, dtype, root, count, slice_, round_, lo, offset, _, dead, crc = fields[5:]
    if not sealed and google_crc32c.value(bytes(payload)) != crc:
        raise Corrupted("a frame's payload does not match its checksum")
    if version != VERSION:
        raise Corrupted(f"a frame of version {version}; this is version {VERSION}")
    try:
        call = Call(_KINDS[kind], ALGORITHMS[algorithm], OPS[op], _TYPES[dtype], count, root)
        type_ = Type(kind_of_frame)
    except (IndexError, ValueError):
        raise Corrupted("a frame with a code that means nothing") from None
    return Frame(type_, epoch, sequence, call, slice_, round_, lo, offset, dead, payload)
