"""What is on the wire: five messages, each a msgpack list in one datagram.

    client                                  server
      OPEN     client nonce            ──►           which port may this request go to?
                                       ◄──  OPENED   client nonce port
      REQUEST  client nonce port body  ──►
                                       ◄──  REPLY    client nonce body
                                       ◄──  REFUSED  client nonce reason

`client` names the sender, `nonce` the request among his: all its copies carry the same one, so
(client, nonce) is what a duplicate is known by. Nonces rise by one; only the monotone receiver
needs that they rise, the others only that none is used twice.

`port` is a number of our own inside one UDP port: 65,536 real sockets would show nothing more.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any, Final

import msgpack

from netstack.delivery.errors import BadMessage

# Fits the 1,200 bytes that every path carries, head included.
BODY_BYTES_MAX: Final = 1024
CLIENT_BYTES_MAX: Final = 16
NUMBER_MAX: Final = 2**63 - 1

# Where a server listens that changes its port neither by life nor by request.
WELL_KNOWN: Final = 0

# Why a copy is not executed.
CLOSED: Final = "the port is closed"
NOT_ABOVE: Final = "a number as high or higher was seen before"
REASONS: Final = (CLOSED, NOT_ABOVE)


@dataclass(frozen=True, slots=True)
class Open:
    """Asks for a port."""

    client: bytes
    nonce: int


@dataclass(frozen=True, slots=True)
class Opened:
    """Grants one."""

    client: bytes
    nonce: int
    port: int


@dataclass(frozen=True, slots=True)
class Request:
    """One copy of a request."""

    client: bytes
    nonce: int
    port: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What executing it gave."""

    client: bytes
    nonce: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Refusal:
    """This copy is not executed; `reason` is one of REASONS."""

    client: bytes
    nonce: int
    reason: str


Message = Open | Opened | Request | Reply | Refusal

KINDS: Final[tuple[type[Message], ...]] = (Open, Opened, Request, Reply, Refusal)


def encode(message: Message) -> bytes:
    """The datagram."""
    return bytes(msgpack.packb([KINDS.index(type(message)), *astuple(message)]))


def decode(datagram: bytes) -> Message:
    """The message; raises BadMessage."""
    try:
        fields = msgpack.unpackb(datagram)
        kind, *values = fields
        message: Message = KINDS[kind](*values)
    except Exception as error:
        raise BadMessage(f"not a message of this protocol: {error}") from None
    if kind < 0 or not all(_right(name, getattr(message, name)) for name in message.__slots__):
        raise BadMessage(f"a {KINDS[kind].__name__} with a wrong field: {values!r:.80}")
    return message


def _right(name: str, value: Any) -> bool:
    match name:
        case "client":
            return type(value) is bytes and 0 < len(value) <= CLIENT_BYTES_MAX
        case "body":
            return type(value) is bytes and len(value) <= BODY_BYTES_MAX
        case "reason":
            return value in REASONS
        case _:
            return type(value) is int and 0 <= value <= NUMBER_MAX
