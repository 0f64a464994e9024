"""Pieces between the loop and the disk: hashed, written and read in threads, many at a time.

checks    whatever has gathered goes to the thread as one call, while the next gather: a hand-
          over to a thread costs as much as hashing 256 KiB
reads     whole pieces, kept while they are likely to be asked for again; as soon as a request
          names a piece it is on its way, before its turn comes
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from dht.torrent.errors import StorageError
from dht.torrent.journal import Journal
from dht.torrent.outputs import Check
from dht.torrent.storage import Storage, block_hashes, sha1
from netstack.runtime.executor import Executor

CACHE: Final = 64 << 20  # bytes of pieces that were read
CACHED_MIN: Final = 4  # pieces, however long
BATCH_MAX: Final = 32 << 20  # bytes that are checked in one call

Checked = Callable[[int, bool, dict[int, bytes]], None]


class PieceWriter:
    """Verifies pieces and writes those that are right.

    Args:
        checked: told the piece, whether it is right, and the hashes of its blocks if it was ever
            wrong.
        failed: told why the disk does not take what is right; nothing goes on after that.
    """

    def __init__(
        self,
        storage: Storage,
        journal: Journal | None,
        executor: Executor,
        checked: Checked,
        failed: Callable[[StorageError], None],
    ) -> None:
        self._storage, self._journal = storage, journal
        self._executor = executor
        self._checked, self._failed = checked, failed
        self._waiting: list[Check] = []
        self._busy = False

    def __repr__(self) -> str:
        return f"<PieceWriter waiting={len(self._waiting)}>"

    def add(self, check: Check) -> None:
        """A piece is whole."""
        self._waiting.append(check)
        if not self._busy:
            self._begin()

    def _begin(self) -> None:
        batch: list[Check] = []
        size = 0
        while self._waiting and size < BATCH_MAX:
            batch.append(self._waiting.pop(0))
            size += len(batch[-1].data)
        self._busy = True
        self._executor.submit(lambda: self._work(batch), self._done)

    def _work(self, batch: list[Check]) -> list[tuple[int, bool, dict[int, bytes]]]:
        """In the thread."""
        found, right = [], []
        for check in batch:
            ok = sha1(check.data) == check.expected
            if ok:
                self._storage.write(check.piece, check.data)
                right.append(check.piece)
            hashes = block_hashes(check.data) if check.again or not ok else {}
            found.append((check.piece, ok, hashes))
        if self._journal is not None and right:
            self._journal.add(right)
        return found

    def _done(
        self,
        found: list[tuple[int, bool, dict[int, bytes]]] | None,
        error: BaseException | None,
    ) -> None:
        self._busy = False
        if error is not None or found is None:
            if not isinstance(error, StorageError):
                raise error or AssertionError("a check without an answer")
            self._failed(error)
            return
        if self._waiting:
            self._begin()
        for piece, ok, hashes in found:
            self._checked(piece, ok, hashes)


class PieceReader:
    """Pieces to give away, from memory if they are there.

    Args:
        ready: told that a piece that was not there has come.
        failed: told of a piece that cannot be read any more.
    """

    def __init__(
        self,
        storage: Storage,
        executor: Executor,
        ready: Callable[[], None],
        failed: Callable[[int, StorageError], None],
    ) -> None:
        self._storage = storage
        self._at_once = Storage(storage.metainfo, storage.folder)
        self._executor = executor
        self._ready, self._failed = ready, failed
        self._capacity = max(CACHED_MIN, CACHE // storage.metainfo.piece_length)
        self._cache: OrderedDict[int, memoryview] = OrderedDict()
        self._coming: set[int] = set()
        self._wanted: list[int] = []
        self._busy = False

    def __repr__(self) -> str:
        return f"<PieceReader cached={len(self._cache)} coming={len(self._coming)}>"

    def get(self, piece: int) -> memoryview | None:
        """The piece; None: it is on its way, and `ready` will tell."""
        found = self._cache.get(piece)
        if found is not None:
            self._cache.move_to_end(piece)
            return found
        if piece not in self._coming:
            if (data := self._at_once.read_now(piece)) is not None:
                return self._keep(piece, memoryview(data))
            self._coming.add(piece)
            self._wanted.append(piece)
            if not self._busy:
                self._begin()
        return None

    def _keep(self, piece: int, data: memoryview) -> memoryview:
        self._cache[piece] = data
        if len(self._cache) > self._capacity:
            self._cache.popitem(last=False)
        return data

    def close(self) -> None:
        """Close the files."""
        self._storage.close()
        self._at_once.close()

    def _begin(self) -> None:
        batch, self._wanted = self._wanted[:8], self._wanted[8:]
        self._busy = True
        self._executor.submit(lambda: self._work(batch), self._done)

    def _work(self, batch: list[int]) -> list[tuple[int, bytes | StorageError]]:
        """In the thread."""
        found: list[tuple[int, bytes | StorageError]] = []
        for piece in batch:
            try:
                found.append((piece, self._storage.read(piece)))
            except StorageError as error:
                found.append((piece, error))
        return found

    def _done(
        self, found: list[tuple[int, bytes | StorageError]] | None, error: BaseException | None
    ) -> None:
        self._busy = False
        if error is not None or found is None:
            raise error or AssertionError("a read without an answer")
        for piece, data in found:
            self._coming.discard(piece)
            if isinstance(data, StorageError):
                self._failed(piece, data)
                continue
            self._keep(piece, memoryview(data))
        if self._wanted:
            self._begin()
        self._ready()
