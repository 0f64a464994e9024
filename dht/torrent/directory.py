"""Where peers are found: trackers, and without any of them a ring that keeps keys and values.

The ring is whatever has this small protocol (our Chord peers do): versions, and a put that fails
if the version is not the expected one. Under the key of a swarm lies a list of its peers, each with
the time until which it is good:

    key     SHA-1("torrent:" + info-hash + slot)         SLOTS of them, by the peer's port, so that
    value   bencode [[6 bytes address, until], …]        many peers do not all rewrite one value
"""

from __future__ import annotations

import hashlib
from typing import Final, Protocol

from dht.torrent.addresses import COMPACT, Address, pack, unpack_all
from dht.torrent.bencode import decode, encode
from dht.torrent.errors import Malformed, TrackerError

SLOTS: Final = 4
LIFE_S: Final = 150.0
PEERS_MAX: Final = 50  # of a slot
TRIES: Final = 8


class Ring(Protocol):
    """A store of small values, each with a version; 0: there is none."""

    async def get(self, key: bytes) -> tuple[bytes, int]:
        """(value, version); (b"", 0) if there is none. Raises OSError if it cannot be known."""

    async def put(self, key: bytes, value: bytes, version: int) -> bool:
        """Replace that version; False if it is not the latest any more. Raises OSError."""


class RingDirectory:
    """Peers of swarms, kept in a ring.

    `now` is wall time: it is compared with what other machines wrote.
    """

    def __init__(self, ring: Ring) -> None:
        self._ring = ring

    def __repr__(self) -> str:
        return f"<RingDirectory {self._ring!r}>"

    async def announce(self, info_hash: bytes, address: Address, now: float) -> None:
        """Say that there is a peer; raises TrackerError."""
        await self._change(info_hash, address, int(now + LIFE_S), now)

    async def withdraw(self, info_hash: bytes, address: Address, now: float) -> None:
        """Say that it is gone; raises TrackerError."""
        await self._change(info_hash, address, 0, now)

    async def _change(self, info_hash: bytes, address: Address, until: int, now: float) -> None:
        key = _key(info_hash, address[1] % SLOTS)
        try:
            for _ in range(TRIES):
                value, version = await self._ring.get(key)
                peers = _read(value, now)
                peers.pop(address, None)
                if until:
                    peers[address] = until
                latest = sorted(peers.items(), key=lambda peer: -peer[1])[:PEERS_MAX]
                new = encode([[pack(where), end] for where, end in latest])
                if await self._ring.put(key, new, version):
                    return
        except OSError as error:
            raise TrackerError(f"the ring: {error}") from None
        raise TrackerError(f"the ring: others wrote first, {TRIES} times in a row")

    async def find(self, info_hash: bytes, now: float) -> list[Address]:
        """The peers of a swarm; raises TrackerError."""
        found: list[Address] = []
        try:
            for slot in range(SLOTS):
                value, _ = await self._ring.get(_key(info_hash, slot))
                found += _read(value, now)
        except OSError as error:
            raise TrackerError(f"the ring: {error}") from None
        return found


def _key(info_hash: bytes, slot: int) -> bytes:
    text = b"torrent:" + info_hash + bytes((slot,))
    return hashlib.sha1(text, usedforsecurity=False).digest()


def _read(value: bytes, now: float) -> dict[Address, int]:
    """The peers that are still good; what is no list of peers holds none."""
    try:
        listed = decode(value) if value else []
    except Malformed:
        return {}
    found: dict[Address, int] = {}
    for entry in listed if isinstance(listed, list) else []:
        if not isinstance(entry, list) or len(entry) != 2:
            continue
        where, until = entry
        good = isinstance(until, int) and until > now
        if good and isinstance(where, bytes) and len(where) == COMPACT.size:
            found[unpack_all(where)[0]] = until
    return found
