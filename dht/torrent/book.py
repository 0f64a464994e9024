"""The address book: whom one could connect to, when to try again, and with whom never.

An address that does not answer is tried again after 2, 4, 8 … s, FAILURES_MAX times; one that a
tracker or a peer names anew afterwards starts afresh. The book is bounded: a tracker or a peer that
names thousands pushes out nobody who is known already.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dht.torrent.addresses import Address, is_ours

if TYPE_CHECKING:
    import random

KNOWN_MAX: Final = 1000
BANNED_MAX: Final = 1000
FAILURES_MAX: Final = 8
RETRY_S: Final = 2.0
RETRY_MAX_S: Final = 120.0


@dataclass(slots=True)
class _Entry:
    due: float
    failures: int = 0
    busy: bool = False  # dialled, or connected


class AddressBook:
    """All addresses of a swarm that we have heard of."""

    def __init__(self, ours: Address) -> None:
        self.ours = ours
        self._known: dict[Address, _Entry] = {}
        self._banned: dict[Address, None] = {}
        self._banned_ids: dict[bytes, None] = {}

    def __repr__(self) -> str:
        busy = sum(entry.busy for entry in self._known.values())
        return f"<AddressBook known={len(self._known)} busy={busy} banned={len(self._banned)}>"

    def __len__(self) -> int:
        return len(self._known)

    def learn(self, addresses: Iterable[Address], now: float) -> None:
        """Somebody says that there are peers."""
        for address in addresses:
            if address == self.ours or address in self._banned or not is_ours(address):
                continue
            entry = self._known.get(address)
            if entry is None:
                if len(self._known) < KNOWN_MAX:
                    self._known[address] = _Entry(now)
            elif entry.failures >= FAILURES_MAX:
                entry.failures, entry.due = 0, now

    def due(self, count: int, now: float, rng: random.Random) -> list[Address]:
        """Up to `count` to dial now; they are busy until `ended` or `failed`."""
        ready = [
            address
            for address, entry in self._known.items()
            if not entry.busy and entry.due <= now and entry.failures < FAILURES_MAX
        ]
        chosen = rng.sample(ready, min(count, len(ready)))
        for address in chosen:
            self._known[address].busy = True
        return chosen

    def connected(self, address: Address) -> None:
        """We are connected to it, whoever called."""
        if address in self._known or len(self._known) < KNOWN_MAX:
            entry = self._known.setdefault(address, _Entry(0.0))
            entry.busy = True

    def answered(self, address: Address) -> None:
        """It spoke the protocol: it is a peer."""
        if (entry := self._known.get(address)) is not None:
            entry.failures = 0

    def ended(self, address: Address, now: float) -> None:
        """The connection is over, or there never was one: try again later each time."""
        entry = self._known.get(address)
        if entry is None:
            return
        entry.busy = False
        entry.due = now + min(RETRY_MAX_S, RETRY_S * 2**entry.failures)
        entry.failures = min(entry.failures + 1, FAILURES_MAX)

    def give_up(self, address: Address) -> None:
        """There is no use in it, unless somebody names it anew."""
        if (entry := self._known.get(address)) is not None:
            entry.failures = FAILURES_MAX

    def ban(self, address: Address | None, peer_id: bytes) -> None:
        """Never again: by its address and by its name, as peers on one machine share a host."""
        if address is not None and len(self._banned) < BANNED_MAX:
            self._known.pop(address, None)
            self._banned[address] = None
        if peer_id and len(self._banned_ids) < BANNED_MAX:
            self._banned_ids[peer_id] = None

    def is_banned(self, address: Address, peer_id: bytes = b"") -> bool:
        """Whether to have nothing to do with it."""
        return address in self._banned or peer_id in self._banned_ids
