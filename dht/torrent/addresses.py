"""Addresses of peers: on this machine only, and as the six bytes that compact lists hold (BEP 23).

Nothing here leaves 127.0.0.0/8. A stranger's torrent, tracker or peer may name any address, and a
client that would dial them all is a way to knock on doors inside somebody's network.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable
from typing import Final

from dht.torrent.errors import TorrentError

Address = tuple[str, int]

COMPACT: Final = struct.Struct("!4sH")
HOST: Final = "127.0.0.1"


def is_ours(address: Address) -> bool:
    """Whether it is a port of this machine, by number and not by name."""
    try:
        here = ipaddress.IPv4Address(address[0]).is_loopback
    except ValueError:
        return False
    return here and 0 < address[1] < 1 << 16


def parse_address(text: str) -> Address:
    """`PORT`, or `127.0.0.1:PORT`; raises TorrentError."""
    host, _, port = text.rpartition(":")
    host = {"": HOST, "localhost": HOST}.get(host, host)
    address = (host, int(port) if port.isdecimal() else 0)
    if not is_ours(address):
        raise TorrentError(f"{text!r} is no address here: say PORT, or 127.0.0.1:PORT")
    return address


def pack(address: Address) -> bytes:
    """Six bytes; raises ValueError for what is not IPv4."""
    return COMPACT.pack(ipaddress.IPv4Address(address[0]).packed, address[1])


def pack_all(addresses: Iterable[Address]) -> bytes:
    """Six bytes each."""
    return b"".join(map(pack, addresses))


def unpack_all(data: bytes) -> list[Address]:
    """The addresses of a compact list; a rest of less than six bytes is ignored."""
    whole = len(data) - len(data) % COMPACT.size
    return [
        (str(ipaddress.IPv4Address(host)), port) for host, port in COMPACT.iter_unpack(data[:whole])
    ]
