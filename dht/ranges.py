"""Ranges whose owners a client knows: the next request for one of their keys takes one round trip.

Nothing here is trusted: an owner that is none any more says so, and the entry goes.
"""

from __future__ import annotations

from typing import Final

from sortedcontainers import SortedDict

from dht.chord.ring import Contact, within

RANGES_MAX: Final = 16_384


class Ranges:
    """(low, owner] by owner."""

    def __init__(self) -> None:
        self._lows: SortedDict[int, tuple[int, Contact]] = SortedDict()

    def __repr__(self) -> str:
        return f"<Ranges {len(self._lows)}>"

    def owner(self, identifier: int) -> Contact | None:
        """Who owned it when last heard of."""
        if not self._lows:
            return None
        at = self._lows.bisect_left(identifier)
        high = self._lows.keys()[at if at < len(self._lows) else 0]
        low, owner = self._lows[high]
        return owner if within(low, identifier, high) else None

    def learn(self, low: int, owner: Contact) -> None:
        """`owner` has said that its range begins behind `low`."""
        if len(self._lows) >= RANGES_MAX:
            self._lows.clear()
        self._lows[owner.id] = low, owner

    def forget(self, owner: Contact) -> None:
        """It is not, or cannot be reached."""
        self._lows.pop(owner.id, None)

    def forget_process(self, name: str) -> None:
        """It is silent, with all its identifiers."""
        for high in [high for high, (_, owner) in self._lows.items() if owner.name == name]:
            del self._lows[high]

    def contacts(self) -> list[Contact]:
        """All owners known."""
        return [owner for _, owner in self._lows.values()]
