"""Which piece next: the lecture's four ways, and in order. An order is a small class.

    strategy      new pieces          a piece that was begun
    random        at random           whoever began it fetches it; left alone, it is as any other
    rarest        the rarest first    the same
    strict        at random           left alone, it comes before any new one (strict priority)
    parallel      the rarest first    comes first, and all who have it fetch its blocks at once
    sequential    in order            as strict

Under all of them several peers are asked at once, each for several blocks (pipelining); and where
nothing new is left for a peer, it helps with what others have begun: else the slowest would decide
when the last piece is there. Cohen, "Incentives build robustness in BitTorrent" (2003), §2.4.

An order holds the open pieces, those that nobody has begun. All its steps but `pick` take constant
time; `pick` looks at pieces until the peer has one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import random

# Rarest first begins with this many pieces at random: a rare piece is slow, and who has nothing
# to give gets nothing (Cohen §2.4.3; libtorrent's `initial_picker_threshold`).
RANDOM_FIRST: Final = 4
PROBES: Final = 8


class Order(Protocol):
    """The open pieces, in the order in which they are to be begun."""

    def add(self, piece: int, copies: int) -> None:
        """A piece is open, and so many peers have it."""

    def remove(self, piece: int, copies: int) -> None:
        """It is open no more."""

    def move(self, piece: int, before: int, after: int) -> None:
        """An open piece has another number of copies."""

    def pick(self, have: bytearray, rng: random.Random, *, first: bool) -> int | None:
        """The next one of those that a peer has; `first`: we have next to nothing yet."""


class _Bag:
    """Pieces in no order: add, remove and draw in constant time."""

    def __init__(self) -> None:
        self.pieces: list[int] = []
        self._where: dict[int, int] = {}

    def add(self, piece: int) -> None:
        self._where[piece] = len(self.pieces)
        self.pieces.append(piece)

    def remove(self, piece: int) -> None:
        at, last = self._where.pop(piece), self.pieces.pop()
        if last != piece:
            self.pieces[at] = last
            self._where[last] = at

    def draw(self, have: bytearray, rng: random.Random) -> int | None:
        """One that `have` has."""
        pieces = self.pieces
        if not pieces:
            return None
        for _ in range(PROBES):
            piece = pieces[int(rng.random() * len(pieces))]
            if have[piece]:
                return piece
        # It has few of them: one of those.
        found = [piece for piece in pieces if have[piece]]
        return rng.choice(found) if found else None


class RandomOrder:
    """Any, with the same chance."""

    def __init__(self) -> None:
        self._bag = _Bag()

    def add(self, piece: int, copies: int) -> None:
        """See Order."""
        self._bag.add(piece)

    def remove(self, piece: int, copies: int) -> None:
        """See Order."""
        self._bag.remove(piece)

    def move(self, piece: int, before: int, after: int) -> None:
        """See Order."""

    def pick(self, have: bytearray, rng: random.Random, *, first: bool) -> int | None:
        """See Order."""
        return self._bag.draw(have, rng)


class RarestOrder:
    """Those with the fewest copies first, and among them any."""

    def __init__(self) -> None:
        self._bags: dict[int, _Bag] = {}
        self._all = _Bag()

    def add(self, piece: int, copies: int) -> None:
        """See Order."""
        self._all.add(piece)
        self._bags.setdefault(copies, _Bag()).add(piece)

    def remove(self, piece: int, copies: int) -> None:
        """See Order."""
        self._all.remove(piece)
        self._take(piece, copies)

    def move(self, piece: int, before: int, after: int) -> None:
        """See Order."""
        self._take(piece, before)
        self._bags.setdefault(after, _Bag()).add(piece)

    def _take(self, piece: int, copies: int) -> None:
        bag = self._bags[copies]
        bag.remove(piece)
        if not bag.pieces:
            del self._bags[copies]

    def pick(self, have: bytearray, rng: random.Random, *, first: bool) -> int | None:
        """See Order."""
        if first:
            return self._all.draw(have, rng)
        for copies in sorted(self._bags):
            if (piece := self._bags[copies].draw(have, rng)) is not None:
                return piece
        return None


class SequentialOrder:
    """From the front: for who watches while it comes."""

    def __init__(self) -> None:
        self._open: set[int] = set()
        self._front = 0  # nothing before it is open

    def add(self, piece: int, copies: int) -> None:
        """See Order."""
        self._open.add(piece)
        self._front = min(self._front, piece)

    def remove(self, piece: int, copies: int) -> None:
        """See Order."""
        self._open.remove(piece)

    def move(self, piece: int, before: int, after: int) -> None:
        """See Order."""

    def pick(self, have: bytearray, rng: random.Random, *, first: bool) -> int | None:
        """See Order."""
        while self._open and self._front not in self._open:
            self._front += 1
        if not self._open:
            return None
        for piece in range(self._front, len(have)):
            if have[piece] and piece in self._open:
                return piece
        return None


@dataclass(frozen=True, slots=True)
class Strategy:
    """One row of the table above.

    strict: what was begun and left comes before anything new.
    shared: all who have a piece fetch its blocks at once.
    """

    name: str
    order: Callable[[], Order]
    strict: bool = False
    shared: bool = False


STRATEGIES: Final = {
    strategy.name: strategy
    for strategy in (
        Strategy("random", RandomOrder),
        Strategy("rarest", RarestOrder),
        Strategy("strict", RandomOrder, strict=True),
        Strategy("parallel", RarestOrder, strict=True, shared=True),
        Strategy("sequential", SequentialOrder, strict=True),
    )
}
DEFAULT: Final = "rarest"
