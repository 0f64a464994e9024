"""A connected peer as the swarm sees it: its connection, and what we know and owe beside that."""

from __future__ import annotations

from typing import Final

from dht.torrent.addresses import Address
from dht.torrent.connection import REQUESTS_MAX, PeerConnection
from dht.torrent.rates import Rate
from dht.torrent.shape import BLOCK

# How many blocks are asked for ahead. A pipe that runs dry costs a round trip each block; one that
# is too full commits us to pieces that others fetch at the same time, unseen: with a slow seed,
# it then sends the same piece to several. So: what comes in QUEUE_S at the present rate (libtorrent
# takes 3), and until that is known one more for each block that comes (as TCP's slow start).
QUEUE_S: Final = 1.0
DEPTH_FIRST: Final = 8
DEPTH_MIN: Final = 4
DEPTH_MAX: Final = 250  # what peers take without saying so (BEP 10's `reqq`)
SNUB_S: Final = 20.0  # without any of the blocks that we have asked for
SNUBS_MAX: Final = 3  # in a row; then it is left


class Remote:
    """One of them."""

    def __init__(
        self, key: int, connection: PeerConnection, address: Address, *, now: float
    ) -> None:
        self.key = key
        self.connection = connection
        self.address = address  # of this connection
        # Where it accepts others: known if we called, or if it says so.
        self.listens: Address | None = address if connection.caller else None
        self.joined = False  # it has told what it has
        self.wanted = 0  # how many of its pieces we lack
        self.uploads: dict[tuple[int, int], int] = {}  # (piece, begin) -> length: in order
        self.held = False  # its socket takes nothing more for now
        self.gives = Rate(now)
        self.takes = Rate(now)
        self.depth = DEPTH_FIRST
        self.slow_start = True
        self.waiting_since = now  # for a block
        self.snubs = 0
        self.connected_at = now
        self.choked_since = now
        self.pex_known: set[Address] = set()
        self.pex_at = now

    def __repr__(self) -> str:
        where = f"{self.address[0]}:{self.address[1]}"
        return f"<Remote {self.key} {where} {self.connection!r} owes={len(self.uploads)}>"

    @property
    def is_seed(self) -> bool:
        """Whether it has everything."""
        return self.joined and 0 not in self.connection.have

    @property
    def room(self) -> int:
        """How many more blocks to ask it for."""
        return self.depth - len(self.connection.outstanding)

    def block_came(self, size: int, now: float) -> None:
        """It gave us a block."""
        self.gives.add(size)
        self.waiting_since = now
        self.snubs = 0
        if self.slow_start and self.depth < self._depth_max:
            self.depth += 1

    def measure(self, now: float) -> None:
        """Fit the depth to its rate: now and then."""
        rate = self.gives.now(now)
        self.takes.now(now)
        if now - self.connected_at < QUEUE_S or self.snubs:
            return
        fits = int(rate * QUEUE_S / BLOCK)
        if self.depth >= fits:
            self.slow_start = False
        if not self.slow_start:
            self.depth = min(self._depth_max, max(DEPTH_MIN, fits))

    @property
    def _depth_max(self) -> int:
        takes = self.connection.says.get(b"reqq")
        return min(REQUESTS_MAX, takes) if isinstance(takes, int) and takes > 0 else DEPTH_MAX

    def snubbed(self, now: float) -> bool:
        """Whether it owes us blocks and has given none for long."""
        return bool(self.connection.outstanding) and now - self.waiting_since > SNUB_S
