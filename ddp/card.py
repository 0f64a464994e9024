"""Who a rank is, as the others must know it before they can talk: its card.

Cards are exchanged once, before a group begins: through whoever started the ranks (launch.py), a
rendezvous store (torch_backend.py), or the members' entries in raftd (membership.py).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ddp.errors import BadCall
from ddp.segment import Segment, Where, host_id


@dataclass(frozen=True, slots=True)
class Card:
    """One rank: its name in its certificate, where it listens, and how its host-mates find it."""

    name: str
    host: str  # host_id(), or what is said to be one
    pid: int
    address: tuple[str, int] | None = None  # of its netstack socket; None: it has none
    descriptor: int = -1  # of its segment; -1: it has none

    @classmethod
    def mine(
        cls,
        name: str,
        address: tuple[str, int] | None,
        segment: Segment | None,
        host: str = "",
    ) -> Card:
        """This process's. host: a part of this host that is to count as one of its own."""
        descriptor = segment.descriptor if segment else -1
        return cls(name, host_id() + host, os.getpid(), address, descriptor)

    def to_wire(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_wire(cls, data: dict[str, Any]) -> Card:
        """Raises BadCall for what is none."""
        try:
            address = data["address"]
            at = (str(address[0]), int(address[1])) if address else None
            pid, descriptor = int(data["pid"]), int(data["descriptor"])
            return cls(str(data["name"]), str(data["host"]), pid, at, descriptor)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise BadCall(f"not a card of a rank: {data!r:.200} ({error!r})") from None

    @property
    def is_here(self) -> bool:
        """Whether it is of this host, so that its process can be watched."""
        return self.host.startswith(host_id())

    @property
    def where(self) -> Where:
        """Of its segment."""
        return Where(self.pid, self.descriptor, self.host)


def one_host(cards: Sequence[Card]) -> bool:
    """Whether all are of one host."""
    return all(card.host == cards[0].host for card in cards)


def share_memory(cards: Sequence[Card]) -> bool:
    """Whether all are of one host and have a segment."""
    return one_host(cards) and all(card.descriptor >= 0 for card in cards)


def mates(cards: Sequence[Card], rank: int) -> list[int]:
    """The other ranks of the host of `rank`."""
    here = cards[rank].host
    return [other for other, card in enumerate(cards) if other != rank and card.host == here]


def have_mates(cards: Sequence[Card]) -> bool:
    """Whether some share a host, and not all."""
    return 1 < len({card.host for card in cards}) < len(cards)
