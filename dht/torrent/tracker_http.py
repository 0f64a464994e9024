"""The tracker protocol over HTTP (BEP 3, 7, 23, 48): queries and answers as text and bencode.

    GET /announce?info_hash=%12%AB…&peer_id=…&port=6881&uploaded=0&downloaded=0&left=9&compact=1
    d8:completei1e10:incompletei2e8:intervali60e5:peers12:…e

Keys and values are bytes with %-escapes: an info-hash is no text. An address is the caller's own,
whatever `ip` says: else a tracker could be made to send a swarm against a stranger.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes

from dht.torrent.addresses import Address, pack_all, unpack_all
from dht.torrent.bencode import decode, encode
from dht.torrent.errors import Malformed, TrackerError
from dht.torrent.tracker import Announce, Found, Scrape

Fields = dict[bytes, list[bytes]]

INTERVAL_MIN_S, INTERVAL_MAX_S = 5, 7200
PEERS_HEARD_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class Reply:
    """What a tracker has answered to an announce."""

    interval_s: int
    peers: list[Address]
    seeds: int = 0
    leeches: int = 0
    warning: str = ""


def fields_of(query: str) -> Fields:
    """The fields of a query string; each may come several times."""
    found: Fields = {}
    for part in query.split("&")[:256]:
        key, _, value = part.partition("=")
        found.setdefault(unquote_to_bytes(key), []).append(unquote_to_bytes(value))
    return found


def read_announce(query: str, host: str) -> tuple[Announce, bool]:
    """(the call, whether its answer may be compact); raises TrackerError."""
    fields = fields_of(query)

    def one(name: bytes, default: bytes = b"") -> bytes:
        return fields.get(name, [default])[0]

    def number(name: bytes, default: int) -> int:
        text = one(name)
        if not text:
            return default
        if not text.removeprefix(b"-").isdigit() or len(text) > 20:
            raise TrackerError(f"{name.decode()} is no number")
        return int(text)

    call = Announce(
        info_hash=one(b"info_hash"),
        peer_id=one(b"peer_id"),
        address=(host, number(b"port", 0)),
        left=number(b"left", 1),
        event={"empty": ""}.get(name := one(b"event").decode("latin-1"), name),
        wanted=number(b"numwant", -1),
        uploaded=number(b"uploaded", 0),
        downloaded=number(b"downloaded", 0),
    )
    return call, one(b"compact", b"1") != b"0"


def write_found(found: Found, interval_s: int, *, compact: bool) -> bytes:
    """The answer to an announce."""
    peers: Any = pack_all(address for _, address in found.peers)
    if not compact:
        peers = [
            {b"peer id": peer_id, b"ip": host.encode(), b"port": port}
            for peer_id, (host, port) in found.peers
        ]
    return encode(
        {
            b"interval": interval_s,
            b"complete": found.seeds,
            b"incomplete": found.leeches,
            b"peers": peers,
        }
    )


def write_scrape(counts: dict[bytes, Scrape]) -> bytes:
    """The answer to a scrape."""
    files = {
        info_hash: {
            b"complete": count.seeds,
            b"downloaded": count.completed,
            b"incomplete": count.leeches,
        }
        for info_hash, count in counts.items()
    }
    return encode({b"files": files})


def write_failure(why: str) -> bytes:
    """The answer to what cannot be answered."""
    return encode({b"failure reason": why.encode()})


def announce_url(url: str, call: Announce, key: int) -> str:
    """Where to ask."""
    fields = [
        ("info_hash", quote(call.info_hash, safe="")),
        ("peer_id", quote(call.peer_id, safe="")),
        ("port", str(call.address[1])),
        ("uploaded", str(call.uploaded)),
        ("downloaded", str(call.downloaded)),
        ("left", str(call.left)),
        ("compact", "1"),
        ("key", f"{key:08x}"),
    ]
    if call.event:
        fields.append(("event", call.event))
    if call.wanted >= 0:
        fields.append(("numwant", str(call.wanted)))
    query = "&".join(f"{name}={value}" for name, value in fields)
    return f"{url}{'&' if '?' in url else '?'}{query}"


def scrape_url(url: str, info_hash: bytes) -> str:
    """BEP 48: `announce` in the last part of the path becomes `scrape`; raises TrackerError."""
    front, slash, last = url.rpartition("/")
    if not last.startswith("announce"):
        raise TrackerError(f"{url} has no scrape")
    last = "scrape" + last.removeprefix("announce")
    return f"{front}{slash}{last}{'&' if '?' in last else '?'}info_hash={quote(info_hash, safe='')}"


def read_reply(data: bytes) -> Reply:
    """What a tracker has answered; raises TrackerError, also if it has said no."""
    says = _read(data)
    interval = says.get(b"interval")
    if not isinstance(interval, int):
        raise TrackerError("the tracker names no interval")
    warning = says.get(b"warning message", b"")
    return Reply(
        interval_s=max(INTERVAL_MIN_S, min(INTERVAL_MAX_S, interval)),
        peers=_peers(says.get(b"peers", b""))[:PEERS_HEARD_MAX],
        seeds=_count(says.get(b"complete")),
        leeches=_count(says.get(b"incomplete")),
        warning=warning.decode(errors="replace") if isinstance(warning, bytes) else "",
    )


def read_scrape(data: bytes, info_hash: bytes) -> Scrape:
    """The counts of one swarm; raises TrackerError."""
    files = _read(data).get(b"files")
    says = files.get(info_hash, {}) if isinstance(files, dict) else {}
    if not isinstance(says, dict):
        raise TrackerError("a scrape without counts")
    keys = (b"complete", b"downloaded", b"incomplete")
    return Scrape(*(_count(says.get(key)) for key in keys))


def _read(data: bytes) -> dict[bytes, Any]:
    try:
        says = decode(data)
    except Malformed as error:
        raise TrackerError(f"the tracker's answer is no bencode: {error}") from None
    if not isinstance(says, dict):
        raise TrackerError("the tracker's answer is no dictionary")
    why = says.get(b"failure reason")
    if isinstance(why, bytes):
        raise TrackerError(f"the tracker says: {why.decode(errors='replace')}")
    return says


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def _peers(value: Any) -> list[Address]:
    """Compact, or one dictionary a peer: both must be read (BEP 23)."""
    if isinstance(value, bytes):
        return unpack_all(value)
    found: list[Address] = []
    for peer in value if isinstance(value, list) else ():
        if isinstance(peer, dict):
            host, port = peer.get(b"ip"), peer.get(b"port")
            if isinstance(host, bytes) and isinstance(port, int):
                found.append((host.decode("latin-1"), port))
    return found
