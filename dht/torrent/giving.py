"""Giving: who may ask, what is owed to whom, and how fast it leaves.

Requests queue at the peer that sent them, REQUESTS_MAX at the most; a cancel takes one out, a choke
all of them. Blocks leave in turn: whoever was served goes behind those who were not, so under an
upload limit all unchoked peers get the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dht.torrent import events
from dht.torrent.choker import Candidate, Choker
from dht.torrent.connection import REQUESTS_MAX
from dht.torrent.picker import Ask, Picker
from dht.torrent.rates import Bucket
from dht.torrent.remote import Remote
from dht.torrent.shape import BLOCK

if TYPE_CHECKING:
    import random

BATCH: Final = 64 * BLOCK  # bytes handed to one connection at a time
BURST_S: Final = 0.125  # of the limit that may leave at once
NEVER: Final = float("inf")


class Giving:
    """The uploading half of a swarm.

    Args:
        remotes, dirty: the swarm's own: its peers, and the keys of those who have something to
            be told.
        limit: bytes a second to all peers together; 0: none.
    """

    def __init__(
        self,
        remotes: dict[int, Remote],
        dirty: dict[int, None],
        limit: float,
        *,
        now: float,
        rng: random.Random,
    ) -> None:
        self.choker = Choker(rng)
        self.total = 0  # bytes so far
        self._remotes = remotes
        self._dirty = dirty
        self._bucket = Bucket(limit, max(BLOCK, limit * BURST_S), now)
        self._owing: dict[int, None] = {}  # who has requests queued, in turn

    def __repr__(self) -> str:
        return f"<Giving owing={len(self._owing)} total={self.total}>"

    def request(self, remote: Remote, request: events.Request, picker: Picker | None) -> None:
        """A peer wants a block."""
        piece, begin, length = request.piece, request.begin, request.length
        connection = remote.connection
        if (
            (connection.am_choking and piece not in connection.granted_fast)
            or picker is None
            or not picker.has(piece)
            or len(remote.uploads) >= REQUESTS_MAX
        ):
            connection.reject(piece, begin, length)
            return
        remote.uploads[piece, begin] = length
        self._owing[remote.key] = None

    def cancel(self, remote: Remote, piece: int, begin: int, length: int) -> None:
        """It wants it no more; with the fast extension an answer is owed nevertheless."""
        if remote.uploads.pop((piece, begin), None) is not None:
            remote.connection.reject(piece, begin, length)

    def forget(self, key: int) -> None:
        """A peer is gone."""
        self._owing.pop(key, None)

    def take(self, now: float) -> list[tuple[Remote, list[Ask]]]:
        """Blocks to send now."""
        chosen: dict[int, list[Ask]] = {}
        limited = bool(self._bucket.rate)
        while turn := [key for key in self._owing if not self._remotes[key].held]:
            for key in turn:
                remote = self._remotes[key]
                asks = self._upload(remote, BLOCK if limited else BATCH, now)
                if not asks and remote.uploads:
                    return self._named(chosen)  # the limit
                chosen.setdefault(key, []).extend(asks)
                del self._owing[key]
                if remote.uploads:
                    self._owing[key] = None
            if not limited:
                break
        return self._named(chosen)

    def _named(self, chosen: dict[int, list[Ask]]) -> list[tuple[Remote, list[Ask]]]:
        return [(self._remotes[key], asks) for key, asks in chosen.items() if asks]

    def _upload(self, remote: Remote, most: int, now: float) -> list[Ask]:
        asks: list[Ask] = []
        uploads, size = remote.uploads, 0
        while uploads and size < most:
            key = next(iter(uploads))
            length = uploads[key]
            if not self._bucket.take(length, now):
                break
            del uploads[key]
            asks.append(Ask(*key, length))
            size += length
        remote.takes.add(size)
        self.total += size
        return asks

    @property
    def waiting(self) -> bool:
        """Whether there are blocks to send, to sockets that take them."""
        return any(not self._remotes[key].held for key in self._owing)

    def next_deadline(self) -> float:
        """When the limit lets the next block pass."""
        if not self._bucket.rate or not self.waiting:
            return NEVER
        return self._bucket.ready_at(BLOCK)

    def fill_slots(self) -> None:
        """Unchoke at once whom there is room for; the rest waits for the next round."""
        unchoked = [r for r in self._remotes.values() if not r.connection.am_choking]
        room = self.choker.slots + 1 - sum(r.connection.peer_interested for r in unchoked)
        for remote in self._remotes.values():
            if room <= 0:
                return
            connection = remote.connection
            if connection.open and connection.am_choking and connection.peer_interested:
                connection.choke(False)
                self._dirty[remote.key] = None
                room -= 1

    def rechoke(self, now: float, *, seeding: bool) -> None:
        """A round of the choker."""
        present = [remote for remote in self._remotes.values() if remote.connection.open]
        candidates = [
            Candidate(
                peer=remote.key,
                interested=remote.connection.peer_interested,
                gives=remote.gives.now(now),
                takes=remote.takes.now(now),
                snubs=remote.snubs > 0,
                connected_s=now - remote.connected_at,
            )
            for remote in present
        ]
        chosen = self.choker.round(candidates, seeding=seeding)
        for remote in present:
            if not remote.connection.peer_interested:
                continue  # it stays as it is: unchoked, it could begin at once
            if remote.key in chosen:
                remote.connection.choke(False)
            else:
                self._choke(remote)
            self._dirty[remote.key] = None

    def _choke(self, remote: Remote) -> None:
        """Choke it; what it has asked for is not answered any more, and it is told so."""
        connection = remote.connection
        connection.choke(True)
        for (piece, begin), length in list(remote.uploads.items()):
            if piece not in connection.granted_fast:
                del remote.uploads[piece, begin]
                connection.reject(piece, begin, length)
        if not remote.uploads:
            self._owing.pop(remote.key, None)
