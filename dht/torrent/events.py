"""What a connection tells of its peer, one object a fact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from dht.torrent.bencode import Value
from dht.torrent.messages import Handshake


@dataclass(slots=True)
class Shook:
    """The handshake has come."""

    handshake: Handshake


@dataclass(slots=True)
class Block:
    """A block that was asked for. `data` is valid until the connection is given more bytes."""

    piece: int
    begin: int
    data: memoryview


@dataclass(slots=True)
class Choked:
    """It answers no requests from now on; `dropped` will not be answered."""

    dropped: list[tuple[int, int]]


@dataclass(slots=True)
class Unchoked:
    """It answers requests."""


@dataclass(slots=True)
class Interest:
    """Whether it wants something of ours."""

    interested: bool


@dataclass(slots=True)
class Has:
    """It has one piece more."""

    piece: int


@dataclass(slots=True)
class HasMap:
    """It has told all that it has; `PeerConnection.have` says what."""


@dataclass(slots=True)
class Request:
    """It wants a block, and may have it if it is not choked."""

    piece: int
    begin: int
    length: int


@dataclass(slots=True)
class Cancel:
    """It wants that block no more."""

    piece: int
    begin: int
    length: int


@dataclass(slots=True)
class Rejected:
    """It will not answer this request."""

    piece: int
    begin: int


@dataclass(slots=True)
class ExtensionHandshake:
    """What its extension handshake says (BEP 10)."""

    says: dict[bytes, Value]


@dataclass(slots=True)
class Extension:
    """A message of an extension that we have offered, by our name for it."""

    name: bytes
    payload: bytes


Event: TypeAlias = (
    Shook
    | Block
    | Choked
    | Unchoked
    | Interest
    | Has
    | HasMap
    | Request
    | Cancel
    | Rejected
    | ExtensionHandshake
    | Extension
)
