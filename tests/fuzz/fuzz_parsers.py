"""Fuzz targets for what reads bytes: datagrams, transport parameters, tokens, frames.

Each must return, or raise the error that its module documents; and what it made of the bytes,
written again, must read the same.
"""

from __future__ import annotations

import random
import struct
from typing import Any

from netstack.transport import frames as f
from netstack.transport import packet
from netstack.transport.errors import ProtocolViolation
from netstack.transport.handshake import Parameters
from netstack.transport.packet import Malformed
from netstack.transport.parser import parse_frames
from netstack.transport.ranges import RangeSet
from netstack.transport.tokens import TokenMint
from security.errors import HandshakeFailed

NOW = 1_800_000_000.0

# What follows the kind, for each frame: written down a second time, so that a parser that reads
# too much or too little cannot agree with itself. "*" is a length of data to come.
LAYOUTS = {
    f.PING: "",
    f.STREAM: "IQI*",
    f.STREAM_FIN: "IQI*",
    f.RESET_STREAM: "IIQ",
    f.STOP: "II",
    f.MAX_DATA: "Q",
    f.MAX_STREAM: "IQ",
    f.MAX_STREAMS: "I",
    f.DATAGRAM: "H*",
    f.CLOSE: "IH*",
    f.NEW_TOKEN: "H*",
    f.CHALLENGE: "8s",
    f.ANSWER: "8s",
}


def frame_end(data: bytes, at: int) -> int | None:
    """Where the frame at `at` ends; None if it is none, or cut short."""
    kind = data[at]
    if kind == f.PADDING:
        return at + 1
    if kind in (f.ACK, f.ACK_ECN):
        if len(data) < at + 7:
            return None
        (count,) = struct.unpack_from(">H", data, at + 5)
        end = at + 7 + 16 * count + (16 if kind == f.ACK_ECN else 0)
    elif kind in LAYOUTS:
        layout = LAYOUTS[kind]
        head = struct.Struct(">B" + layout.rstrip("*"))
        if len(data) < at + head.size:
            return None
        end = at + head.size + (head.unpack_from(data, at)[-1] if layout[-1:] == "*" else 0)
    else:
        return None
    return end if end <= len(data) else None


def frame_cuts(data: bytes) -> list[int]:
    """Where frames begin, and where the last that is whole ends."""
    cuts = [0]
    while cuts[-1] < len(data) and (end := frame_end(data, cuts[-1])) is not None:
        cuts.append(end)
    return cuts


def some_frame(rng: random.Random) -> bytes:
    """Any frame, mostly with numbers that mean something."""
    kind = rng.choice((*LAYOUTS, f.ACK, f.ACK_ECN, *[f.STREAM] * 8, f.STREAM_FIN))
    if kind in (f.ACK, f.ACK_ECN):
        count, below, ranges = rng.choice((0, 1, 2, 5)), rng.randrange(60), b""
        for _ in range(count):
            last = max(0, below - rng.randrange(4))
            below = max(0, last - rng.randrange(4))
            ranges += f.RANGE.pack(below, last)
        counts = f.ECN_COUNTS.pack(rng.randrange(40), rng.randrange(4)) * (kind == f.ACK_ECN)
        return f.ACK_HEAD.pack(kind, rng.randrange(1 << 20), count) + ranges + counts
    out, body = bytes([kind]), b""
    layout = LAYOUTS[kind]
    if layout[-1:] == "*":
        body = rng.randbytes(rng.choice((0, 0, 1, 2, 7, 40, 300)))
    for i, letter in enumerate(layout.rstrip("*")):
        width = {"I": 4, "Q": 8, "H": 2}.get(letter, 0)
        if letter in "8s":
            out += rng.randbytes(8) if letter == "8" else b""
        elif i + 1 == len(layout) - 1 and layout[-1] == "*":
            out += len(body).to_bytes(width, "big")
        else:
            # Mostly within limits: what breaks them ends a connection, and nothing comes after.
            small = rng.randrange(rng.choice((3, 6, 6, 6, 40, 40, 400, 5000)))
            out += small.to_bytes(width, "big")
    return out + body


class Recorder:
    """Takes what the parser tells a connection, and can write it down again."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.streams = self

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *arguments: self.calls.append((name, *arguments))

    def encoded(self) -> bytes:
        """Frames that say the same."""
        return b"".join(_encode(*call) for call in self.calls)


def _encode(name: str, *a: Any) -> bytes:
    if name == "on_stream":
        kind = f.STREAM_FIN if a[3] else f.STREAM
        return f.STREAM_HEAD.pack(kind, a[0], a[1], len(a[2])) + a[2]
    if name == "on_ack":
        ranges, delay_s, counts, _ = a
        kind = f.ACK if counts is None else f.ACK_ECN
        head = f.ACK_HEAD.pack(kind, round(delay_s * 1e6), len(ranges))
        tail = b"" if counts is None else f.ECN_COUNTS.pack(*counts)
        return head + b"".join(f.RANGE.pack(*r) for r in ranges) + tail
    if name == "on_close":
        text = a[1].encode()
        return f.CLOSE_HEAD.pack(f.CLOSE, a[0], len(text)) + text
    kind, head = {
        "on_max_data": (f.MAX_DATA, f.CREDIT),
        "on_max_stream": (f.MAX_STREAM, f.ID_CREDIT),
        "on_max_streams": (f.MAX_STREAMS, f.COUNT),
        "on_reset": (f.RESET_STREAM, f.RESET_HEAD),
        "on_stop": (f.STOP, f.ID_CODE),
        "on_datagram": (f.DATAGRAM, f.BLOB_HEAD),
        "on_new_token": (f.NEW_TOKEN, f.BLOB_HEAD),
        "on_challenge": (f.CHALLENGE, f.SECRET),
        "on_answer": (f.ANSWER, f.SECRET),
    }[name]
    if head is f.BLOB_HEAD:
        return head.pack(kind, len(a[0])) + a[0]
    return head.pack(kind, *a)


def parsed(data: bytes) -> Recorder:
    """What the parser makes of frames; raises ProtocolViolation."""
    recorder = Recorder()
    eliciting = parse_frames(recorder, data, 0.0)  # type: ignore[arg-type]
    told = [call for call in recorder.calls if call[0] not in ("on_ack", "on_close")]
    assert eliciting or not told, "frames that ask for no acknowledgement, and do"
    return recorder


class Frames:
    """`parser.parse_frames`, with a recorder for a connection."""

    def seeds(self) -> list[bytes]:
        rng = random.Random(type(self).__name__)
        return [b"", bytes(9), *(some_frame(rng) for _ in range(60))]

    def cuts(self, data: bytes) -> list[int]:
        return frame_cuts(data)

    def invent(self, rng: random.Random) -> bytes:
        return some_frame(rng)

    def run(self, data: bytes) -> None:
        try:
            first = parsed(data)
        except ProtocolViolation:
            # What is cut short stays so: the frames before it are whole.
            whole = data[: frame_cuts(data)[-1]]
            assert whole != data or any(k in data for k in (f.ACK, f.ACK_ECN)), (
                "whole frames are refused"
            )
            return
        assert frame_cuts(data)[-1] == len(data) or self._closes(data), "half a frame is taken"
        written = first.encoded()
        assert parsed(written).calls == first.calls, "frames read otherwise the second time"
        for call in first.calls:
            if call[0] == "on_ack":
                self._acknowledgement(call[1], call[3])

    def _closes(self, data: bytes) -> bool:
        """Nothing counts behind a CLOSE."""
        return any(data[at] == f.CLOSE for at in frame_cuts(data) if at < len(data))

    def _acknowledgement(self, ranges: list[tuple[int, int]], counts: Any) -> None:
        """What `encode_ack` makes of a set of packets names the same packets."""
        if sum(last - first + 1 for first, last in ranges) > 500:
            return
        received = RangeSet()
        for first, last in reversed(ranges):
            for number in range(first, last + 1):
                received.add(number)
        named = parsed(f.encode_ack(received, 0.01, counts)).calls[0]
        assert named[1] == received.descending(f.ACK_RANGES_MAX), "an ACK names other packets"
        assert named[3] == counts, "an ACK has other counts"


class Datagrams:
    """`packet`: the parts of a datagram that are not sealed."""

    def seeds(self) -> list[bytes]:
        rng = random.Random(type(self).__name__)
        short = [bytes([kind]) + rng.randbytes(8) for kind in (*range(9), packet.DATA, 0xFF)]
        return [b"", *short, *(self.invent(rng) for _ in range(6))]

    def cuts(self, data: bytes) -> list[int]:
        return [min(len(data), n) for n in (0, 1, 9, 11, len(data))]

    def invent(self, rng: random.Random) -> bytes:
        kind = rng.choice((packet.INITIAL_XX, packet.INITIAL_IK))
        token, message = rng.randbytes(rng.choice((0, 24))), rng.randbytes(rng.choice((0, 32)))
        return packet.initial(kind, rng.getrandbits(64), token, message, rng.choice((0, 60)))

    def run(self, data: bytes) -> None:
        for read in (packet.destination_id, packet.number):
            try:
                assert 0 <= read(data) < 1 << 64
            except Malformed:
                assert len(data) < packet.HEADER.size, f"{read.__name__} refuses what is whole"
        try:
            source_id, token, message = packet.parse_initial(data)
        except Malformed:
            return
        again = packet.initial(data[0], source_id, token, message, len(data))
        assert packet.parse_initial(again) == (source_id, token, message), "another INITIAL"
        assert data.startswith(again.rstrip(b"\0")), "an INITIAL is written otherwise"


class TransportParameters:
    """`handshake.Parameters`: msgpack, from a peer that has shown its certificate."""

    def seeds(self) -> list[bytes]:
        return [self.invent(random.Random(seed)) for seed in range(4)] + [b"", b"\x90", b"\xc0"]

    def cuts(self, data: bytes) -> list[int]:
        return [min(len(data), n) for n in (0, 1, 3, 19, 28, len(data))]

    def invent(self, rng: random.Random) -> bytes:
        numbers = [rng.choice((0, 7, 1200, 1 << 22, (1 << 62) - 1)) for _ in range(4)]
        return Parameters(rng.randbytes(16), rng.getrandbits(64), *numbers).pack()

    def run(self, data: bytes) -> None:
        try:
            parameters = Parameters.unpack(data)
        except HandshakeFailed:
            return
        assert Parameters.unpack(parameters.pack()) == parameters, "other parameters"


class Tokens:
    """`tokens.TokenMint`: nothing is valid but what it made."""

    def __init__(self) -> None:
        self._mint = TokenMint(b"fuzz")
        self._genuine = {
            self._mint.retry("127.0.0.1", 7000, NOW),
            self._mint.new("127.0.0.1", NOW),
        }

    def seeds(self) -> list[bytes]:
        return [*sorted(self._genuine), b"", bytes(24), self._mint.new("127.0.0.2", NOW)]

    def cuts(self, data: bytes) -> list[int]:
        return [min(len(data), n) for n in (0, 8, len(data))]

    def invent(self, rng: random.Random) -> bytes:
        """A time, with no tag."""
        times = (NOW, NOW + 5, NOW + 1e6, float("inf"), float("nan"), -0.0)
        return struct.pack(">d", rng.choice(times))

    def run(self, data: bytes) -> None:
        valid = self._mint.valid(data, "127.0.0.1", 7000, NOW)
        assert valid == (data in self._genuine), "a token that was never given is taken"
