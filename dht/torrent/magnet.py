"""Magnet links (BEP 9): the name of a swarm, and where to begin.

magnet:?xt=urn:btih:<40 hex digits, or 32 of base 32>&dn=NAME&tr=TRACKER&x.pe=HOST:PORT
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

from dht.torrent.errors import BadTorrent
from dht.torrent.metainfo import HASH, TRACKERS_MAX

PREFIX: Final = "urn:btih:"


@dataclass(frozen=True, slots=True)
class Magnet:
    """What a link says."""

    info_hash: bytes
    name: str = ""
    trackers: tuple[str, ...] = ()
    peers: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        parts = [f"xt={PREFIX}{self.info_hash.hex()}"]
        if self.name:
            parts.append(f"dn={quote(self.name)}")
        parts += [f"tr={quote(url, safe='')}" for url in self.trackers]
        parts += [f"x.pe={host}:{port}" for host, port in self.peers]
        return "magnet:?" + "&".join(parts)


def parse(text: str) -> Magnet:
    """Read a link; raises BadTorrent."""
    if not text.startswith("magnet:?"):
        raise BadTorrent("a magnet link begins with magnet:?")
    fields = parse_qsl(urlsplit(text).query)
    hashes = [value[len(PREFIX) :] for key, value in fields if _is_topic(key, value)]
    if not hashes:
        raise BadTorrent("the magnet link names no version 1 swarm (xt=urn:btih:…)")
    name = next((value for key, value in fields if key == "dn"), "")
    trackers = tuple(value for key, value in fields if key == "tr" or key.startswith("tr."))
    peers = tuple(_peer(value) for key, value in fields if key == "x.pe")
    return Magnet(_hash(hashes[0]), name, trackers[:TRACKERS_MAX], peers[:TRACKERS_MAX])


def _is_topic(key: str, value: str) -> bool:
    return (key == "xt" or key.startswith("xt.")) and value.startswith(PREFIX)


def _hash(text: str) -> bytes:
    try:
        found = bytes.fromhex(text) if len(text) == 2 * HASH else base64.b32decode(text.upper())
    except (ValueError, binascii.Error):
        found = b""
    if len(found) != HASH:
        raise BadTorrent(f"{text!r} is no info-hash: 40 hex digits, or 32 of base 32")
    return found


def _peer(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise BadTorrent(f"{text!r} is no HOST:PORT")
    return host, int(port)
