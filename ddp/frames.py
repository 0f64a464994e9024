"""Frames between ranks: a fixed head, which says of which call it is part, and a payload.

    ANNOUNCE   I have begun this call                           (to everybody, first)
    DATA       a piece of one transfer of its schedule
    STATUS     my part of it is done, or has failed; with whom I hold for dead
    SEND       a piece of a message to one rank        TAKEN    the message is here whole
    HELLO      first on every link: who I am
    FENCED     your epoch is over; this is ours

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

from ddp.call import Call
from ddp.elements import OPS, TYPES
from ddp.errors import Corrupted
from ddp.schedules.catalogue import ALGORITHMS, KINDS

MAGIC: Final = b"RD"
VERSION: Final = 1

# Ranks of one group: the dead are a set of bits in each STATUS.
RANKS_MAX: Final = 64

# Largest payload of a frame: large enough that Python's cost for one does not show.
SEGMENT_BYTES: Final = 256 * 1024

# Of elements: a piece of a payload that ends at such a place ends with a whole element.
ALIGN: Final = 8

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

    sealed: the link proves its bytes. Then DATA need not be whole to be believed, and is handed on
    as it comes, in several frames with one head, whose payloads are multiples of `ALIGN` bytes.
    """

    def __init__(self, *, sealed: bool = False) -> None:
        self._sealed = sealed
        self._rest = b""
        self._open: Frame | None = None  # a frame of which a part has been handed on
        self._left = 0  # bytes of it that are still to come

    def feed(self, data: bytes | memoryview) -> Iterator[Frame]:
        """The frames that `data` completes, and what there is of the next."""
        view = memoryview(self._rest + bytes(data) if self._rest else data)
        at = 0
        while True:
            if self._open is None:
                if len(view) - at < HEAD_BYTES:
                    break
                head = view[at : at + HEAD_BYTES]
                length = _payload_length(head)
                end = at + HEAD_BYTES + length
                if end <= len(view):
                    yield decode(head, view[at + HEAD_BYTES : end], self._sealed)
                    at = end
                    continue
                frame = decode(head, b"", sealed=True)
                if not self._sealed or frame.type is not Type.DATA:
                    break
                self._open, self._left = frame, length
                at += HEAD_BYTES
            count = min(self._left, len(view) - at)
            if count < self._left:
                count -= count % ALIGN
            if not count:
                break
            yield self._open._replace(payload=view[at : at + count])
            at += count
            self._left -= count
            self._open = (
                self._open._replace(offset=self._open.offset + count) if self._left else None
            )
        self._rest = bytes(view[at:])


def _payload_length(head: memoryview) -> int:
    """Of a head, which is checked first: a wrong length would be believed for ever."""
    (crc,) = _CRC.unpack_from(head, _HEAD.size)
    if google_crc32c.value(bytes(head[: _HEAD.size])) != crc or bytes(head[:2]) != MAGIC:
        raise Corrupted("a frame's head does not match its checksum")
    length: int = _HEAD.unpack_from(head)[15]
    if length > SEGMENT_BYTES:
        raise Corrupted(f"a frame of {length} bytes")
    return length


def decode(head: memoryview, payload: Payload, sealed: bool = False) -> Frame:
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
