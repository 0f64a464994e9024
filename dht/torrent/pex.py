"""Peer exchange (BEP 11): peers tell one another whom they are connected to.

At most one message a minute to a peer, with what has changed since the last: up to 50 added and 50
dropped. The swarm then grows without the tracker. Never in a private torrent (BEP 27).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from dht.torrent.addresses import Address, pack_all, unpack_all
from dht.torrent.bencode import decode, encode
from dht.torrent.errors import Malformed, ProtocolViolation

INTERVAL_S: Final = 60.0
CHANGES_MAX: Final = 50
HEARD_MAX: Final = 200  # of one message: the first may be longer
SEED: Final = 0x02


def message(known: set[Address], connected: Mapping[Address, bool]) -> bytes | None:
    """What a peer that knows `known` is told of `connected` (address -> whether it is a seed).

    `known` is brought up to date; None if there is nothing to tell.
    """
    added = [address for address in connected if address not in known][:CHANGES_MAX]
    dropped = sorted(known - connected.keys())[:CHANGES_MAX]
    if not added and not dropped:
        return None
    known.update(added)
    known.difference_update(dropped)
    return encode(
        {
            b"added": pack_all(added),
            b"added.f": bytes(SEED if connected[address] else 0 for address in added),
            b"dropped": pack_all(dropped),
        }
    )


def read(payload: bytes) -> Iterable[Address]:
    """The peers that a message adds; raises ProtocolViolation."""
    try:
        says = decode(payload)
    except Malformed as error:
        raise ProtocolViolation(f"a peer exchange: {error}") from None
    added = says.get(b"added", b"") if isinstance(says, dict) else None
    if not isinstance(added, bytes):
        raise ProtocolViolation("a peer exchange without addresses")
    return unpack_all(added)[:HEARD_MAX]
