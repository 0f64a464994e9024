"""The tracker protocol over UDP (BEP 15): packets, and the tracker's side of them, without I/O.

    ──> connect    u64 0x41727101980 | u32 0 | u32 transaction
    <──            u32 0 | u32 transaction | u64 connection id
    ──> announce   u64 connection id | u32 1 | u32 transaction | …                98 bytes
    <──            u32 1 | u32 transaction | interval, leeches, seeds | 6 bytes a peer

A source address in UDP may be forged. So nothing is told, or remembered, before the caller has
shown that it gets our packets: by the connection id, a keyed hash of its address and the time, for
which the tracker keeps nothing. It is good for two slots of a minute.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

from dht.torrent.addresses import Address, pack_all, unpack_all
from dht.torrent.errors import TrackerError
from dht.torrent.metainfo import HASH
from dht.torrent.tracker import EVENTS, SCRAPE_MAX, Announce, Scrape, Tracker
from dht.torrent.tracker_http import INTERVAL_MAX_S, INTERVAL_MIN_S, Reply

CONNECT, ANNOUNCE, SCRAPE, ERROR = range(4)
MAGIC: Final = 0x41727101980
HEAD: Final = struct.Struct("!QII")
CONNECTED: Final = struct.Struct("!IIQ")
ANNOUNCED: Final = struct.Struct("!IIIII")
ANSWER: Final = struct.Struct("!II")
BODY: Final = struct.Struct("!20s20sQQQIIIiH")
COUNTS: Final = struct.Struct("!III")
SLOT_S: Final = 60.0


class UdpTracker:
    """Answers packets."""

    def __init__(self, tracker: Tracker, secret: bytes) -> None:
        self._tracker = tracker
        self._secret = secret

    def __repr__(self) -> str:
        return f"<UdpTracker {self._tracker!r}>"

    def answer(self, packet: bytes, source: Address, now: float) -> bytes | None:
        """The answer, never longer than twelve times what was asked; None to what is no query."""
        if len(packet) < HEAD.size:
            return None
        connection, action, transaction = HEAD.unpack_from(packet)
        if action == CONNECT and connection == MAGIC:
            return CONNECTED.pack(CONNECT, transaction, self._id(source, now, 0))
        if connection not in (self._id(source, now, 0), self._id(source, now, -1)):
            return _error(transaction, "the connection id is not, or no more, valid")
        try:
            if action == ANNOUNCE:
                return self._announce(packet, transaction, source, now)
            if action == SCRAPE:
                return self._scrape(packet, transaction)
        except TrackerError as error:
            return _error(transaction, str(error))
        return _error(transaction, "there is no such action")

    def _id(self, source: Address, now: float, shift: int) -> int:
        slot = int(now // SLOT_S) + shift
        text = f"{source[0]}:{source[1]}:{slot}".encode()
        digest = hashlib.blake2b(text, key=self._secret, digest_size=8).digest()
        return int.from_bytes(digest, "big")

    def _announce(self, packet: bytes, transaction: int, source: Address, now: float) -> bytes:
        if len(packet) < HEAD.size + BODY.size:
            raise TrackerError("a packet of 98 bytes was expected")
        body = BODY.unpack_from(packet, HEAD.size)
        info_hash, peer_id, downloaded, left, uploaded, event, _, _, wanted, port = body
        if event >= len(EVENTS):
            raise TrackerError("there is no such event")
        address = (source[0], port)
        call = Announce(
            info_hash, peer_id, address, left, EVENTS[event], wanted, uploaded, downloaded
        )
        found = self._tracker.announce(call, now)
        head = ANNOUNCED.pack(
            ANNOUNCE, transaction, self._tracker.interval_s, found.leeches, found.seeds
        )
        return head + pack_all(address for _, address in found.peers)

    def _scrape(self, packet: bytes, transaction: int) -> bytes:
        rest = packet[HEAD.size :]
        hashes = [rest[at : at + HASH] for at in range(0, len(rest) - HASH + 1, HASH)]
        counts = self._tracker.scrape(hashes[:SCRAPE_MAX])
        return ANSWER.pack(SCRAPE, transaction) + b"".join(
            COUNTS.pack(*counts[info_hash]) for info_hash in hashes[:SCRAPE_MAX]
        )


def _error(transaction: int, why: str) -> bytes:
    return ANSWER.pack(ERROR, transaction) + why.encode()


# -- the caller's side


def connect(transaction: int) -> bytes:
    """Ask for a connection id."""
    return HEAD.pack(MAGIC, CONNECT, transaction)


def announce(connection: int, transaction: int, call: Announce, key: int) -> bytes:
    """Call the tracker."""
    return HEAD.pack(connection, ANNOUNCE, transaction) + BODY.pack(
        call.info_hash,
        call.peer_id,
        call.downloaded,
        call.left,
        call.uploaded,
        EVENTS.index(call.event),
        0,
        key,
        call.wanted,
        call.address[1],
    )


def scrape(connection: int, transaction: int, info_hash: bytes) -> bytes:
    """Ask for counts."""
    return HEAD.pack(connection, SCRAPE, transaction) + info_hash


def body(packet: bytes, action: int, transaction: int) -> bytes | None:
    """What an answer says after its head; None if it answers something else.

    Raises TrackerError if the tracker has said no.
    """
    if len(packet) < ANSWER.size:
        return None
    theirs, number = ANSWER.unpack_from(packet)
    if number != transaction:
        return None
    if theirs == ERROR:
        raise TrackerError(f"the tracker says: {packet[ANSWER.size :].decode(errors='replace')}")
    return packet[ANSWER.size :] if theirs == action else None


def read_connected(rest: bytes) -> int:
    """The connection id; raises TrackerError."""
    if len(rest) < 8:
        raise TrackerError("the tracker's packet is too short")
    return int.from_bytes(rest[:8], "big")


def read_announced(rest: bytes) -> Reply:
    """The answer to an announce; raises TrackerError."""
    if len(rest) < COUNTS.size:
        raise TrackerError("the tracker's packet is too short")
    interval_s, leeches, seeds = COUNTS.unpack_from(rest)
    return Reply(
        max(INTERVAL_MIN_S, min(INTERVAL_MAX_S, interval_s)),
        unpack_all(rest[COUNTS.size :]),
        seeds,
        leeches,
    )


def read_scraped(rest: bytes) -> Scrape:
    """The answer to a scrape of one swarm; raises TrackerError."""
    if len(rest) < COUNTS.size:
        raise TrackerError("the tracker's packet is too short")
    return Scrape(*COUNTS.unpack_from(rest))
