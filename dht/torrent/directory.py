"""Where peers are found: trackers, and without any of them a ring that keeps keys and values.

The ring is whatever has this small protocol (`chord_ring.py` is the one that is used): versions,
and a put that fails if the version is not the expected one. Under the key of a swarm lies a list of
its peers, each with the time until which it is good:

    key     torrent/INFO-HASH/SLOT                    SLOTS of them, by the peer's port, so that
    value   bencode [[6 bytes address, until], …]     many peers do not all rewrite one value

Who announces reads the list, puts itself in, and replaces the version that it has read; if somebody
else was first, it begins again. So of two who announce at once neither loses the other. A list has
PEERS_MAX entries at most, the latest; who is alive announces again long before LIFE_S, so what a
killed peer leaves is gone after that, and the whole list with its last peer.
"""

from __future__ import annotations

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

    async def put(self, key: bytes, value: bytes, version: int, life_s: float) -> bool:
        """Replace that version, for `life_s`; False: look again what is there. Raises OSError.

        False is said if the version is not the latest any more, or nobody knows.
        """


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
                if peers.pop(address, 0) == until:
                    return  # it is so already
                if until:
                    peers[address] = until
                latest = sorted(peers.items(), key=lambda peer: -peer[1])[:PEERS_MAX]
                new = encode([[pack(where), end] for where, end in latest])
                if await self._ring.put(key, new, version, LIFE_S):
                    return
        except OSError as error:
            raise TrackerError(f"the ring: {error}") from None
        raise TrackerError(f"the ring: others wrote first, {TRIES} times in a row")

    async def find(self, info_hash: bytes, now: float) -> list[Address]:
        """The peers of a swarm, as far as lists can be read; raises TrackerError if none can."""
        found: list[Address] = []
        failure: OSError | None = None
        for slot in range(SLOTS):
            try:
                value, _ = await self._ring.get(_key(info_hash, slot))
            except OSError as error:
                failure = error
                continue
            found += _read(value, now)
        if failure is not None and not found:
            raise TrackerError(f"the ring: {failure}")
        return found


def _key(info_hash: bytes, slot: int) -> bytes:
    return f"torrent/{info_hash.hex()}/{slot}".encode()


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
        good = isinstance(until, int) and now < until <= now + 2 * LIFE_S
        if good and isinstance(where, bytes) and len(where) == COMPACT.size:
            found[unpack_all(where)[0]] = until
    return found
