"""Watches: the changes of a range of keys, from a revision on, in order, each once.

A watcher that starts in the past is given what it missed from the history, then what happens; the
two join without a gap because both come from the same log of revisions. All events of one
revision are handed over together. A watcher that does not keep up is not buffered for without
end: beyond PENDING_MAX events, or their bytes, it is parked, and served from the history again
when it has room.
If its revision is compacted meanwhile, it is told so.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from raftd.commands import in_range
from raftd.space import weight

if TYPE_CHECKING:
    from raftd.model import KeyValue
    from raftd.store import Store

# A watch that nothing happens to is told this often how far it is. Longer than that without a word,
# and its client asks another node: this one was killed, perhaps, and nobody answers in its place.
PROGRESS_S: Final = 1.0
SILENCE_S: Final = 2.5 * PROGRESS_S

# Events that wait for a slow watcher in memory of its own.
PENDING_MAX: Final = 10_000
PENDING_BYTES_MAX: Final = 8 * 1024 * 1024


class Event(NamedTuple):
    """A change: the pair after it (version 0: deleted), and before it (None: there was none)."""

    pair: KeyValue
    previous: KeyValue | None


class Batch(NamedTuple):
    """All events of one revision that a watcher wants."""

    revision: int
    events: list[Event]


class WatchCompacted(Exception):
    """What the watcher should get next is gone; it may begin again at `revision`."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"the history before revision {revision} was compacted")
        self.revision = revision


class Watcher:
    """One watch. `take` gives what is due; `wake` is called when there is something."""

    def __init__(
        self, hub: WatchHub, key: bytes, range_end: bytes, revision: int, wake: Callable[[], None]
    ) -> None:
        self._hub = hub
        self._key = key
        self._end = range_end
        self._next = revision  # the next revision it has not been given
        self._pending: deque[Batch] = deque()
        self._waiting = self._waiting_bytes = 0
        self._behind = True  # to be served from the history
        self._wake = wake

    def __repr__(self) -> str:
        return f"<Watcher {self._key!r} next={self._next} waiting={self._waiting}>"

    @property
    def position(self) -> int:
        """The revision up to which nothing is missing, once all that is due was taken."""
        return self._next - 1

    def wants(self, key: bytes) -> bool:
        """Whether the key lies in the range."""
        return in_range(key, self._key, self._end)

    def take(self) -> list[Batch]:
        """What is due, in order; raises WatchCompacted."""
        if self._behind:
            self._catch_up()
        batches = list(self._pending)
        self._pending.clear()
        self._waiting = self._waiting_bytes = 0
        if self._behind:
            self._wake()  # there is more than fits at once: come again
        return batches

    def offer(self, revision: int, events: list[Event]) -> None:
        """A new revision has been applied."""
        if self._behind:
            self._wake()
            return
        if revision < self._next:
            return
        self._next = revision + 1
        wanted = [event for event in events if self.wants(event.pair.key)]
        if not wanted:
            return
        if not self._keep(Batch(revision, wanted)):
            self._behind, self._next = True, revision
        self._wake()

    def lost_touch(self) -> None:
        """The store was replaced by a snapshot: go on from the history."""
        self._behind = True
        self._wake()

    def _keep(self, batch: Batch, *, whatever_it_weighs: bool = False) -> bool:
        """Put a batch where it is taken from; False if there is no room."""
        nbytes = sum(weight(kv) for event in batch.events for kv in event if kv is not None)
        count, held = self._waiting + len(batch.events), self._waiting_bytes + nbytes
        if not whatever_it_weighs and (count > PENDING_MAX or held > PENDING_BYTES_MAX):
            return False
        self._pending.append(batch)
        self._waiting, self._waiting_bytes = count, held
        return True

    def _catch_up(self) -> None:
        for revision, events in self._hub.since(self._next):
            wanted = [event for event in events if self.wants(event.pair.key)]
            first = not self._pending  # or a revision that is too large would never be told
            if wanted and not self._keep(Batch(revision, wanted), whatever_it_weighs=first):
                return  # the rest when this has been taken
            self._next = revision + 1
        self._behind = False
        self._next = max(self._next, self._hub.revision + 1)


class WatchHub:
    """The history of revisions, and who watches."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._history: list[tuple[int, list[Event]]] = []
        self._watchers: dict[Watcher, None] = {}

    def __repr__(self) -> str:
        return f"<WatchHub watchers={len(self._watchers)} history={len(self._history)}>"

    def __len__(self) -> int:
        return len(self._watchers)

    @property
    def revision(self) -> int:
        """The newest revision."""
        return self._store.revision

    def add(self, key: bytes, range_end: bytes, revision: int, wake: Callable[[], None]) -> Watcher:
        """A watcher from `revision` on (0: from the next change)."""
        watcher = Watcher(self, key, range_end, revision or self.revision + 1, wake)
        self._watchers[watcher] = None
        return watcher

    def remove(self, watcher: Watcher) -> None:
        """Nobody takes from it any more."""
        self._watchers.pop(watcher, None)

    def publish(self, revision: int, events: list[Event]) -> None:
        """A revision has been applied."""
        self._history.append((revision, events))
        for watcher in self._watchers:
            watcher.offer(revision, events)

    def since(self, revision: int) -> list[tuple[int, list[Event]]]:
        """The revisions from `revision` on; raises WatchCompacted."""
        if revision <= self._store.compacted:
            raise WatchCompacted(self._store.compacted + 1)
        return self._history[bisect_left(self._history, revision, key=_revision_of) :]

    def until(self, revision: int) -> list[tuple[int, list[Event]]]:
        """The revisions up to `revision` that are not compacted yet."""
        return self._history[: bisect_left(self._history, revision + 1, key=_revision_of)]

    def compact(self, revision: int) -> None:
        """Forget revisions up to `revision`."""
        del self._history[: bisect_left(self._history, revision + 1, key=_revision_of)]

    def rebuild(self, versions: Iterable[Event]) -> None:
        """The store was restored: the history is what its keys still remember."""
        by_revision: dict[int, list[Event]] = {}
        compacted = self._store.compacted
        for event in versions:
            if event.pair.mod > compacted:
                by_revision.setdefault(event.pair.mod, []).append(event)
        self._history = sorted(by_revision.items())
        for _, events in self._history:
            events.sort(key=lambda event: event.pair.key)
        for watcher in self._watchers:
            watcher.lost_touch()


def _revision_of(item: tuple[int, Any]) -> int:
    return item[0]
