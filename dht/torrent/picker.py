"""The picker: what to ask of whom, so that every block comes once and the rarest come soon.

    piece      open ──begin──> started ──last block──> checking ──hash right──> have
                 ^                |                        │
                 └── all left ────┘        <──hash wrong───┘  (blocks are asked again)

    block      free ──pick──> asked ──received──> got       a choke, a reject, a disconnection:
                 ^──── release ─┘                           free again

A block is asked of one peer at a time. Only in the endgame, when every missing block is asked of
somebody, may a second be asked for it too, ENDGAME_MAX of them a peer at the most: so the last
piece waits for no slow peer, and what comes twice is bounded by the blocks that were missing then.
The first to come cancels the other.

After a wrong hash nobody can tell which of several peers has lied. Who sent what is remembered
(`suspects`), the piece is fetched again from one peer alone, and the right bytes then show it.

`peer` is any hashable that stands for a connection; the order of calls and the dice are the
caller's, so the same calls give the same picks.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from dht.torrent.shape import BLOCK, Shape
from dht.torrent.strategies import RANDOM_FIRST, STRATEGIES, Strategy

if TYPE_CHECKING:
    import random

OPEN, STARTED, CHECKING, HAVE = range(4)

ENDGAME_MAX: Final = 16  # blocks that a peer is asked for second
ASKED_MAX: Final = 2  # peers that are asked for one block


class Ask(NamedTuple):
    """One request to send."""

    piece: int
    begin: int
    length: int


class Arrival(NamedTuple):
    """What a block that came means.

    new: it was missing. whole: it was the last of its piece. cancel: who was asked for it, too.
    """

    new: bool
    whole: bool
    cancel: tuple[Hashable, ...]


NOTHING: Final = Arrival(False, False, ())


@dataclass(slots=True)
class Progress:
    """A piece on its way; blocks by the offset at which they begin."""

    free: list[int]  # descending, so that the last is the next
    asked: dict[int, list[Hashable]] = field(default_factory=dict)
    got: dict[int, Hashable] = field(default_factory=dict)
    owners: dict[Hashable, None] = field(default_factory=dict)  # who fetches it now
    alone: bool = False  # from one peer only: its hash was wrong before


class Picker:
    """What is missing and who was asked for it.

    Args:
        have: one byte a piece: what is there already, verified.
    """

    def __init__(
        self, shape: Shape, rng: random.Random, strategy: Strategy, have: bytearray | None = None
    ) -> None:
        self.shape = shape
        self.strategy = strategy
        self.state = bytearray(have.translate(_AS_STATE) if have else shape.count)
        self.copies = [0] * shape.count  # how many peers have each, besides the seeds
        self.left = self.state.count(OPEN)  # pieces that are not verified
        self.suspects: dict[int, dict[int, Hashable]] = {}  # of a piece whose hash was wrong
        self.duplicates = 0  # blocks that came twice
        self._rng = rng
        self._order = strategy.order()
        self._maps: dict[Hashable, bytearray] = {}
        self._seeds: set[Hashable] = set()  # counted once, not at every piece
        self._started: dict[int, Progress] = {}
        self._with_free: dict[int, None] = {}  # those with blocks to ask for
        self._current: dict[Hashable, int] = {}  # the piece that a peer fetches
        self._second: dict[Hashable, int] = {}  # blocks it was asked for in the endgame
        for piece in range(shape.count):
            if self.state[piece] == OPEN:
                self._order.add(piece, 0)

    def __repr__(self) -> str:
        return (
            f"<Picker {self.strategy.name} {self.shape.count - self.left}/{self.shape.count} "
            f"started={len(self._started)}>"
        )

    @property
    def have(self) -> bytearray:
        """One byte a piece: whether it is verified."""
        return self.state.translate(_AS_HAVE)

    @property
    def started(self) -> int:
        """Pieces that have begun and are not checked."""
        return len(self._started)

    def has(self, piece: int) -> bool:
        """Whether it is verified."""
        return self.state[piece] == HAVE

    # -- who has what

    def join(self, peer: Hashable, have: bytearray) -> None:
        """A peer has told what it has."""
        assert peer not in self._maps, "a peer joins once"
        have = self._maps[peer] = bytearray(have)
        if 0 not in have:
            self._seeds.add(peer)
        else:
            for piece, has in enumerate(have):
                if has:
                    self._count(piece, +1)

    def has_more(self, peer: Hashable, piece: int) -> bool:
        """It has one piece more; False if we knew."""
        have = self._maps[peer]
        if have[piece]:
            return False
        have[piece] = 1
        if 0 in have:
            self._count(piece, +1)
            return True
        self._seeds.add(peer)
        for other in range(self.shape.count):
            if other != piece:
                self._count(other, -1)
        return True

    def leave(self, peer: Hashable) -> None:
        """It is gone, and with it what it was asked for."""
        self.release_all(peer)
        have = self._maps.pop(peer, None)
        if peer in self._seeds:
            self._seeds.discard(peer)
        elif have is not None:
            for piece, has in enumerate(have):
                if has:
                    self._count(piece, -1)

    def _count(self, piece: int, change: int) -> None:
        before = self.copies[piece]
        self.copies[piece] = before + change
        if self.state[piece] == OPEN:
            self._order.move(piece, before, before + change)

    def wants(self, have: bytearray) -> int:
        """How many of these pieces we lack."""
        return sum(1 for has, state in zip(have, self.state, strict=True) if has and state != HAVE)

    # -- asking

    def pick(self, peer: Hashable, count: int, only: Iterable[int] | None = None) -> list[Ask]:
        """Up to `count` blocks to ask of it; with `only`, of these pieces: it chokes us."""
        have = self._maps.get(peer)
        if have is None or not self.left:
            return []
        if only is not None:
            narrowed = bytearray(len(have))
            for allowed in only:
                narrowed[allowed] = have[allowed]
            have = narrowed
        asks: list[Ask] = []
        while len(asks) < count:
            piece = self._next_piece(peer, have)
            if piece is None:
                break
            self._take(peer, piece, count - len(asks), asks)
        if len(asks) < count and not self._with_free:
            self._endgame(peer, have, count - len(asks), asks)
        return asks

    def _take(self, peer: Hashable, piece: int, count: int, asks: list[Ask]) -> None:
        """Ask for free blocks of a piece."""
        progress, free = self._started[piece], self._started[piece].free
        size, asked = self.shape.piece_size(piece), progress.asked
        while free and count:
            begin = free.pop()
            asked[begin] = [peer]
            asks.append(Ask(piece, begin, min(BLOCK, size - begin)))
            count -= 1
        if not free:
            self._with_free.pop(piece, None)

    def _next_piece(self, peer: Hashable, have: bytearray) -> int | None:
        current = self._current.get(peer)
        if current is not None and current in self._with_free and have[current]:
            return current
        if self.strategy.strict and (piece := self._begun(peer, have, join=False)) is not None:
            return self._fetch(peer, piece)
        first = self.shape.count - self.left < RANDOM_FIRST
        if (piece := self._order.pick(have, self._rng, first=first)) is not None:
            self._begin(piece)
            return self._fetch(peer, piece)
        if (piece := self._begun(peer, have, join=True)) is not None:
            return self._fetch(peer, piece)
        return None

    def _begun(self, peer: Hashable, have: bytearray, *, join: bool) -> int | None:
        """A started piece with free blocks; `join`: also one that another peer fetches."""
        join = join or self.strategy.shared
        for piece in self._with_free:
            progress = self._started[piece]
            taken = progress.owners and peer not in progress.owners
            if have[piece] and not (taken and (progress.alone or not join)):
                return piece
        return None

    def _begin(self, piece: int) -> None:
        self._order.remove(piece, self.copies[piece])
        self.state[piece] = STARTED
        blocks = range(0, self.shape.piece_size(piece), BLOCK)
        self._started[piece] = Progress(list(reversed(blocks)), alone=piece in self.suspects)
        self._with_free[piece] = None

    def _fetch(self, peer: Hashable, piece: int) -> int:
        self._disown(peer)
        self._current[peer] = piece
        self._started[piece].owners[peer] = None
        return piece

    def _disown(self, peer: Hashable) -> None:
        before = self._started.get(self._current.pop(peer, -1))
        if before is not None and not any(peer in peers for peers in before.asked.values()):
            before.owners.pop(peer, None)

    def _endgame(self, peer: Hashable, have: bytearray, count: int, asks: list[Ask]) -> None:
        """Ask a second peer, now that every missing block is asked of one."""
        if OPEN in self.state:
            return
        count = min(count, ENDGAME_MAX - self._second.get(peer, 0))
        for piece, progress in self._started.items():
            if not have[piece] or progress.alone:
                continue
            size = self.shape.piece_size(piece)
            for begin, peers in progress.asked.items():
                if count <= 0:
                    return
                if len(peers) < ASKED_MAX and peer not in peers:
                    peers.append(peer)
                    progress.owners[peer] = None
                    self._second[peer] = self._second.get(peer, 0) + 1
                    asks.append(Ask(piece, begin, min(BLOCK, size - begin)))
                    count -= 1

    # -- what becomes of it

    def received(self, peer: Hashable, piece: int, begin: int) -> Arrival:
        """A block has come."""
        progress = self._started.get(piece)
        if progress is None or begin in progress.got:
            self.duplicates += 1
            return NOTHING
        peers = progress.asked.pop(begin, None)
        if peers is None:
            # Taken back and free again; it has come nevertheless.
            progress.free.remove(begin)
            if not progress.free:
                self._with_free.pop(piece, None)
            peers = []
        progress.got[begin] = peer
        if len(peers) > 1:
            self._second_over(peers[1])
        whole = not progress.asked and not progress.free
        if whole:
            self.state[piece] = CHECKING
            for owner in progress.owners:
                if self._current.get(owner) == piece:
                    del self._current[owner]
        return Arrival(True, whole, tuple(other for other in peers if other != peer))

    def release(self, peer: Hashable, piece: int, begin: int) -> None:
        """It will not answer this request."""
        progress = self._started.get(piece)
        peers = progress.asked.get(begin) if progress else None
        if progress is None or peers is None or peer not in peers:
            return
        if len(peers) > 1:
            self._second_over(peers[1])
        peers.remove(peer)
        if not peers:
            del progress.asked[begin]
            progress.free.append(begin)
            progress.free.sort(reverse=True)
            self._with_free[piece] = None
        if not any(peer in asked for asked in progress.asked.values()):
            progress.owners.pop(peer, None)
            if self._current.get(peer) == piece:
                del self._current[peer]
        if not progress.asked and not progress.got:
            self._forget(piece)

    def release_all(self, peer: Hashable) -> None:
        """It will answer nothing any more."""
        for piece, progress in list(self._started.items()):
            for begin in [begin for begin, peers in progress.asked.items() if peer in peers]:
                self.release(peer, piece, begin)
            progress.owners.pop(peer, None)
        self._current.pop(peer, None)
        self._second.pop(peer, None)

    def _second_over(self, peer: Hashable) -> None:
        self._second[peer] = max(0, self._second.get(peer, 0) - 1)

    def _forget(self, piece: int) -> None:
        """Nothing has come of it: it is as if it had not begun."""
        del self._started[piece]
        self._with_free.pop(piece, None)
        self.state[piece] = OPEN
        self._order.add(piece, self.copies[piece])

    def verified(self, piece: int) -> None:
        """Its hash is right, and it is on disk."""
        assert self.state[piece] == CHECKING, f"piece {piece} was not being checked"
        del self._started[piece]
        self.suspects.pop(piece, None)
        self.state[piece] = HAVE
        self.left -= 1

    def failed(self, piece: int) -> dict[int, Hashable]:
        """Its hash is wrong, or it was lost: all of it is missing again. Who sent which block."""
        assert self.state[piece] == CHECKING, f"piece {piece} was not being checked"
        sent = self._started[piece].got
        self.suspects[piece] = sent
        self._forget(piece)
        return sent

    def check(self) -> None:
        """What must be true at any time; raises AssertionError."""
        for piece, state in enumerate(self.state):
            progress = self._started.get(piece)
            assert (progress is not None) == (state in (STARTED, CHECKING)), f"{piece}: {state}"
            if progress is None:
                continue
            blocks = sorted([*progress.free, *progress.asked, *progress.got])
            assert blocks == list(range(0, self.shape.piece_size(piece), BLOCK)), f"{piece}"
            assert bool(progress.free) == (piece in self._with_free), f"{piece}: free blocks"
            for begin, peers in progress.asked.items():
                assert 1 <= len(set(peers)) == len(peers) <= ASKED_MAX, f"{piece}+{begin}: {peers}"
            assert (state == CHECKING) == (not progress.free and not progress.asked)
        for piece, copies in enumerate(self.copies):
            holders = [p for p, have in self._maps.items() if have[piece] and p not in self._seeds]
            assert copies == len(holders), f"{piece}: {copies} copies, {len(holders)} holders"
        assert self.left == self.shape.count - self.state.count(HAVE)


_AS_STATE: Final = bytes([OPEN, HAVE, *range(2, 256)])
_AS_HAVE: Final = bytes([0, 0, 0, 1, *range(4, 256)])


def picker(shape: Shape, rng: random.Random, strategy: str, have: bytearray) -> Picker:
    """A picker by the name of its strategy."""
    return Picker(shape, rng, STRATEGIES[strategy], have)
