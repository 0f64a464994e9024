"""How a connection fails.

TransportError
├── ConnectTimeout      nobody answered the handshake in time
├── PeerRejected        somebody answered, and is not who was asked for
├── ConnectionClosed    the connection is over; `code` and `reason` as the closing side gave them
│   ├── IdleTimeout     nothing was received for too long
│   ├── PeerRestarted   the peer does not know this connection any more (stateless reset)
│   └── NobodyThere     no socket is bound where the peer is sought: its process is dead
├── BufferFull          more was pushed than the stream's hard bound; nothing of it was taken
└── ProtocolViolation   the peer broke the protocol (an authenticated peer: a bug, or malice)
"""

from __future__ import annotations


class TransportError(Exception):
    """Base of all errors of a connection."""


class ConnectTimeout(TransportError):
    """No handshake within the time given."""


class PeerRejected(TransportError):
    """The peer's identity is not acceptable, or not the one expected."""


class ConnectionClosed(TransportError):
    """The connection has ended."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class IdleTimeout(ConnectionClosed):
    """Nothing was received from the peer for the idle time-out."""


class PeerRestarted(ConnectionClosed):
    """The peer answered with a valid stateless reset."""


class NobodyThere(ConnectionClosed):
    """The address refuses datagrams: no process listens there, or none any more."""


class BufferFull(TransportError):
    """The stream's send buffer is at its bound; wait with `drain`."""


class ProtocolViolation(TransportError):
    """A frame that the protocol does not allow."""
