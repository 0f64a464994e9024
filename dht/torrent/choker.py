"""The choker: whom we give to (Cohen 2003, §3).

Every ROUND_S those SLOTS of the interested peers are unchoked that have given us the most; and one
more, the optimistic unchoke, at random: so that a newcomer has something to give, and a better
partner can be found. It changes every third round, and newcomers are three times as likely.
A seed, to whom nobody gives, unchokes those that take the fastest. Who has owed us a block
for SNUB_S is no partner, whatever it gave before.

It decides on figures that it is handed, so a round can be worked out on paper.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random

ROUND_S: Final = 10.0
OPTIMISTIC_ROUNDS: Final = 3
SLOTS: Final = 4
NEWCOMER_S: Final = 60.0  # connected for less
NEWCOMER_WEIGHT: Final = 3


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is known of a peer at a round: bytes a second each way."""

    peer: Hashable
    interested: bool
    gives: float
    takes: float
    snubs: bool
    connected_s: float


class Choker:
    """Decides who is unchoked."""

    def __init__(self, rng: random.Random, slots: int = SLOTS) -> None:
        self.slots = slots
        self.optimistic: Hashable | None = None
        self._rng = rng
        self._round = 0

    def __repr__(self) -> str:
        return f"<Choker slots={self.slots} round={self._round}>"

    def round(self, candidates: Sequence[Candidate], *, seeding: bool) -> set[Hashable]:
        """Who is unchoked for the next ROUND_S."""
        wanting = [candidate for candidate in candidates if candidate.interested]
        if seeding:
            ranked = sorted(wanting, key=lambda c: -c.takes)
        else:
            ranked = sorted((c for c in wanting if not c.snubs), key=lambda c: -c.gives)
        unchoked = {candidate.peer for candidate in ranked[: self.slots]}
        rest = [candidate for candidate in wanting if candidate.peer not in unchoked]
        stays = any(candidate.peer == self.optimistic for candidate in rest)
        if self._round % OPTIMISTIC_ROUNDS == 0 or not stays:
            self.optimistic = self._draw(rest)
        self._round += 1
        if self.optimistic is not None:
            unchoked.add(self.optimistic)
        return unchoked

    def _draw(self, rest: Sequence[Candidate]) -> Hashable | None:
        if not rest:
            return None
        weights = [NEWCOMER_WEIGHT if c.connected_s < NEWCOMER_S else 1 for c in rest]
        return self._rng.choices(rest, weights)[0].peer
