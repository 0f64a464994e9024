"""What a connection tells its application, in the order in which it happened."""

from __future__ import annotations

from dataclasses import dataclass

from netstack.transport.errors import TransportError
from netstack.transport.streams import COPIED_MAX
from security.identity import PeerIdentity


@dataclass(frozen=True, slots=True)
class Handshaken:
    """The peer is who its certificate says, and can be talked to."""

    peer: PeerIdentity


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The peer opened a stream."""

    stream_id: int


class StreamData:
    """Bytes in order; `fin` on the last. Call `consume` when the application has taken them."""

    __slots__ = ("fin", "parts", "stream_id")

    def __init__(self, stream_id: int, parts: list[bytes | memoryview], fin: bool) -> None:
        self.stream_id = stream_id
        self.parts = parts  # as packets brought them
        self.fin = fin

    def __repr__(self) -> str:
        return f"StreamData({self.stream_id}, {self.data!r}, fin={self.fin})"

    @property
    def data(self) -> bytes | memoryview:
        """All of them."""
        return self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)

    def pieces(self) -> list[bytes | memoryview]:
        """All of them, joined unless they are large: then that costs more than to take each."""
        return self.parts if len(self.parts[0]) > COPIED_MAX else [self.data]


@dataclass(frozen=True, slots=True)
class StreamReset:
    """The peer gave up sending on this stream."""

    stream_id: int
    code: int


@dataclass(frozen=True, slots=True)
class StreamStopped:
    """The peer does not want what we send on this stream."""

    stream_id: int
    code: int


@dataclass(frozen=True, slots=True)
class StreamOver:
    """Both directions of this stream are over; no event of it follows."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class DatagramReceived:
    """An unreliable datagram."""

    data: bytes


@dataclass(frozen=True, slots=True)
class TokenReceived:
    """For the next connection to this peer: its address validation can be skipped."""

    token: bytes


@dataclass(frozen=True, slots=True)
class PathAnswered:
    """The peer has answered a challenge: it lives where that was sent."""

    secret: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection is over; no event follows."""

    error: TransportError
