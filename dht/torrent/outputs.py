"""What a swarm wants done, one object a deed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from dht.torrent.addresses import Address
from dht.torrent.metainfo import Metainfo


@dataclass(slots=True)
class Dial:
    """Connect there."""

    address: Address


@dataclass(slots=True)
class Close:
    """End this connection."""

    key: int
    reason: str


@dataclass(slots=True)
class Check:
    """Hash the piece, write it if the hash is right, then call `Swarm.checked`.

    again: it was wrong before: the SHA-1 of each block is wanted, too, to tell who has lied.
    """

    piece: int
    data: memoryview
    expected: bytes
    again: bool


@dataclass(slots=True)
class Learned:
    """The metadata has come: there is content to write now."""

    metainfo: Metainfo


@dataclass(slots=True)
class Told:
    """Something worth an event."""

    kind: str
    fields: dict[str, Any]


Output: TypeAlias = Dial | Close | Check | Learned | Told
