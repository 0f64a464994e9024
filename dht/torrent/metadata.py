"""The metadata exchange (BEP 9): the info dictionary from peers, for who has only a magnet link.

    ──> {msg_type: 0, piece: i}                              request
    <── {msg_type: 1, piece: i, total_size: n} 16 KiB        data
    <── {msg_type: 2, piece: i}                              reject

It is fetched from one peer at a time: so a wrong hash says who has lied. If that one is slow, the
next is asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from typing import Any, Final

from dht.torrent.bencode import decode_prefix, encode
from dht.torrent.errors import Malformed, ProtocolViolation
from dht.torrent.shape import BLOCK

METADATA_MAX: Final = 16 << 20  # checked before anything is allocated
PATIENCE_S: Final = 10.0
REQUEST, DATA, REJECT = range(3)


def answer(info: bytes | None, payload: bytes) -> bytes | None:
    """Our answer to a message of a peer, if it is a request; raises ProtocolViolation."""
    says, _ = _read(payload)
    if says.get(b"msg_type") != REQUEST:
        return None
    piece = says[b"piece"]
    start = piece * BLOCK
    if info is None or start >= len(info):
        return encode({b"msg_type": REJECT, b"piece": piece})
    head = {b"msg_type": DATA, b"piece": piece, b"total_size": len(info)}
    return encode(head) + info[start : start + BLOCK]


def _read(payload: bytes) -> tuple[dict[bytes, Any], bytes]:
    try:
        says, end = decode_prefix(payload)
    except Malformed as error:
        raise ProtocolViolation(f"a metadata message: {error}") from None
    piece = says.get(b"piece") if isinstance(says, dict) else None
    if not isinstance(says, dict) or not isinstance(piece, int) or not 0 <= piece < METADATA_MAX:
        raise ProtocolViolation("a metadata message without a piece")
    return says, payload[end:]


class MetadataFetch:
    """Fetches the info dictionary whose SHA-1 is `info_hash`."""

    def __init__(self, info_hash: bytes) -> None:
        self._info_hash = info_hash
        self._offers: dict[Hashable, int] = {}  # size that a peer has told
        self._from: Hashable | None = None
        self._parts: dict[int, bytes] = {}
        self._deadline: float | None = None
        self._done = False

    def __repr__(self) -> str:
        return f"<MetadataFetch {len(self._parts)} parts from={self._from} of {len(self._offers)}>"

    def offer(self, peer: Hashable, size: object) -> None:
        """A peer's extension handshake has told how long it is."""
        if isinstance(size, int) and 0 < size <= METADATA_MAX:
            self._offers[peer] = size

    def forget(self, peer: Hashable) -> None:
        """It is gone, or has said no."""
        self._offers.pop(peer, None)
        if self._from == peer:
            self._from, self._deadline = None, None

    def requests(self, now: float) -> list[tuple[Hashable, bytes]]:
        """What to send to whom."""
        if self._deadline is not None and now >= self._deadline:
            # Slow, and perhaps the only one: it goes to the end of the queue.
            late, size = self._from, self._offers.get(self._from, 0)
            self.forget(late)
            if size:
                self._offers[late] = size
        if self._done or self._from is not None or not self._offers:
            return []
        self._from, size = next(iter(self._offers.items()))
        self._parts = {}
        self._deadline = now + PATIENCE_S
        count = -(-size // BLOCK)
        return [
            (self._from, encode({b"msg_type": REQUEST, b"piece": piece})) for piece in range(count)
        ]

    def next_deadline(self) -> float | None:
        """When to ask somebody else."""
        return self._deadline

    def receive(self, peer: Hashable, payload: bytes, now: float) -> bytes | None:
        """A message; the info dictionary, if that was the last part. Raises ProtocolViolation."""
        says, data = _read(payload)
        kind, piece = says.get(b"msg_type"), says[b"piece"]
        if peer != self._from:
            return None
        if kind == REJECT:
            self.forget(peer)
        if kind != DATA:
            return None
        size = self._offers[peer]
        if len(data) != min(BLOCK, size - piece * BLOCK):
            raise ProtocolViolation(f"{len(data)} bytes of metadata at part {piece}")
        self._parts[piece] = data
        self._deadline = now + PATIENCE_S
        if len(self._parts) < -(-size // BLOCK):
            return None
        info = b"".join(self._parts[number] for number in sorted(self._parts))
        self.forget(peer)
        if hashlib.sha1(info, usedforsecurity=False).digest() != self._info_hash:
            raise ProtocolViolation("its metadata has the wrong hash")
        self._done = True
        return info
