"""Watches beside a list of all changes: in order, each once, whole, and never forgotten about.

A watcher here does what the server does: it takes when it was woken, and only then.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from storage_kit import Applier, restored

from netstack.rpc.errors import Unavailable
from raftd import client as client_module
from raftd import commands as c
from raftd import watch
from raftd.model import KeyValue
from raftd.store import Store
from raftd.watch import SILENCE_S, Batch, Event, WatchCompacted

KEYS = [b"a", b"b", b"b/1", b"b/2", b"c"]
KEY = st.sampled_from(KEYS)
RANGES = [(b"a", b""), (b"b", b""), (b"b", b"c"), (b"b/", b"b0"), (b"b", b"\0"), (b"\0", b"\0")]
KEPT, PENDING, WATCHERS = 10, 2, 4

Change = dict[bytes, Event]


class Consumer:
    """One who watches, and what it is owed."""

    def __init__(self, store: Store, key: bytes, end: bytes, revision: int) -> None:
        self.key, self.end = key, end
        self.woken = True  # to take for the first time
        self.told_to = (revision or store.revision + 1) - 1
        self.watcher = store.watches.add(key, end, revision, self.wake)

    def wake(self) -> None:
        self.woken = True

    def wants(self, change: Change) -> Change:
        return {k: event for k, event in change.items() if c.in_range(k, self.key, self.end)}

    def owed(self, changes: list[Change]) -> Iterator[tuple[int, Change]]:
        for revision in range(self.told_to + 1, len(changes)):
            if wanted := self.wants(changes[revision]):
                yield revision, wanted

    def take(self, changes: list[Change]) -> None:
        """What is given is the beginning of what is owed; all of it, if no more is due."""
        self.woken = False
        batches = self.watcher.take()
        owed = list(self.owed(changes))
        given = [(batch.revision, {e.pair.key: e for e in batch.events}) for batch in batches]
        assert [len(b.events) for b in batches] == [len(change) for _, change in given]
        if self.woken:
            assert given == owed[: len(given)] != []
            self.told_to = given[-1][0]
        else:
            assert given == owed
            self.told_to = max(self.told_to, len(changes) - 1)


class WatchMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pending_max, watch.PENDING_MAX = watch.PENDING_MAX, PENDING
        self.applier = Applier(Store(KEPT))
        self.store = self.applier.store
        self.changes: list[Change] = [{}]  # by revision
        self.pairs: dict[bytes, KeyValue] = {}
        self.consumers: list[Consumer] = []

    def teardown(self) -> None:
        watch.PENDING_MAX = self.pending_max

    # -- changes

    def _note(self, change: Change) -> None:
        if change:
            self.changes.append(change)
            for key, event in change.items():
                if event.pair.version:
                    self.pairs[key] = event.pair
                else:
                    del self.pairs[key]

    def _put_event(self, key: bytes) -> Event:
        old, at = self.pairs.get(key), len(self.changes)
        if old is None:
            return Event(KeyValue(key, b"v", at, at, 1, 0), None)
        return Event(KeyValue(key, b"v", old.create, at, old.version + 1, 0), old)

    @rule(key=KEY)
    def put(self, key: bytes) -> None:
        self.applier.put(key, b"v")
        self._note({key: self._put_event(key)})

    @rule(keys=st.sets(KEY, min_size=3))
    def put_several(self, keys: set[bytes]) -> None:
        self.applier.txn(*[[c.PUT, key, b"v", 0, False] for key in sorted(keys, reverse=True)])
        self._note({key: self._put_event(key) for key in keys})

    @rule(span=st.sampled_from(RANGES))
    def delete(self, span: tuple[bytes, bytes]) -> None:
        self.applier.delete(*span)
        at = len(self.changes)
        gone = [pair for key, pair in self.pairs.items() if c.in_range(key, *span)]
        self._note({p.key: Event(KeyValue(p.key, b"", 0, at, 0, 0), p) for p in gone})

    @precondition(lambda self: len(self.changes) > 2)
    @rule(back=st.integers(0, 4))
    def compact(self, back: int) -> None:
        self.applier(c.COMPACT, max(0, len(self.changes) - 1 - back))

    @rule(keys=st.lists(KEY, max_size=4))
    def fall_behind_and_be_given_a_snapshot(self, keys: list[bytes]) -> None:
        """Its own store stands still while the others go on."""
        leader = restored(self.store, of=Store(KEPT))
        self.applier.store = leader
        for key in keys:
            self.put(key)
        self.store.restore(leader.freeze().encode())
        self.applier.store = self.store

    # -- those who watch

    @precondition(lambda self: len(self.consumers) < WATCHERS)
    @rule(span=st.sampled_from(RANGES), ahead=st.integers(-6, 3), now=st.booleans())
    def begin(self, span: tuple[bytes, bytes], ahead: int, now: bool) -> None:
        revision = 0 if now else max(1, self.store.revision + ahead)
        self.consumers.append(Consumer(self.store, *span, revision))

    @precondition(lambda self: any(consumer.woken for consumer in self.consumers))
    @rule(who=st.sets(st.integers(0, WATCHERS - 1), min_size=2))
    def take(self, who: set[int]) -> None:
        """Some of those who were woken; the others are slow."""
        for number, consumer in enumerate(list(self.consumers)):
            if number in who and consumer.woken:
                try:
                    consumer.take(self.changes)
                except WatchCompacted as error:
                    self._begin_again(consumer, error.revision)

    def _begin_again(self, consumer: Consumer, revision: int) -> None:
        assert revision == self.store.compacted + 1
        assert consumer.told_to < self.store.compacted, "it was told without need"
        self.store.watches.remove(consumer.watcher)
        self.consumers.remove(consumer)
        self.consumers.append(Consumer(self.store, consumer.key, consumer.end, revision))

    @precondition(lambda self: len(self.consumers) == WATCHERS)
    @rule()
    def end(self) -> None:
        self.store.watches.remove(self.consumers.pop(0).watcher)

    # -- what holds

    @invariant()
    def who_is_owed_something_was_woken(self) -> None:
        for consumer in self.consumers:
            assert consumer.woken or not list(consumer.owed(self.changes)), consumer.watcher

    @invariant()
    def what_waits_is_bounded(self) -> None:
        for consumer in self.consumers:
            waiting = sum(len(batch.events) for batch in consumer.watcher._pending)
            assert waiting <= PENDING
        assert len(self.store.watches) == len(self.consumers)
        assert len(self.store.watches._history) <= KEPT * 1.01 + 1


WatchMachine.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    database=None,
)
TestWatchMachine = WatchMachine.TestCase


# -- one at a time


class Watched:
    """A store with one watcher, and how often it was woken."""

    def __init__(self, key: bytes = b"k", end: bytes = b"l", revision: int = 0, *, puts: int = 0):
        self.applier = Applier()
        self.wakes = 0
        for i in range(puts):
            self.applier.put(b"k%d" % i)
        self.watcher = self.applier.store.watches.add(key, end, revision, self._wake)

    def _wake(self) -> None:
        self.wakes += 1

    def take(self) -> list[Batch]:
        self.wakes = 0
        return self.watcher.take()


def test_a_revision_larger_than_the_buffer_wakes_as_any_other(monkeypatch):
    """A prefix is deleted; nothing else happens for a day."""
    monkeypatch.setattr(watch, "PENDING_MAX", 5)
    watched = Watched(puts=7)
    assert watched.take() == []
    watched.applier.delete(b"k", b"l")
    assert watched.wakes
    [batch] = watched.take()
    assert len(batch.events) == 7


def test_a_change_of_another_key_wakes_nobody():
    watched = Watched()
    assert watched.take() == []
    watched.applier.put(b"j")
    watched.applier.put(b"l")
    watched.applier(c.LEASE_GRANT, 1, 5)
    assert watched.wakes == 0
    watched.applier.put(b"kk")
    assert watched.wakes == 1


def test_all_of_a_transaction_comes_in_one_batch_and_only_what_is_watched():
    watched = Watched()
    watched.take()
    puts = [[c.PUT, key, b"", 0, False] for key in (b"a", b"k2", b"k1", b"z")]
    watched.applier.txn(*puts)
    [batch] = watched.take()
    assert batch.revision == 1
    assert sorted(event.pair.key for event in batch.events) == [b"k1", b"k2"]


def test_what_a_lease_takes_with_it_comes_in_one_batch():
    watched = Watched()
    watched.applier(c.LEASE_GRANT, 1, 5)
    for key in (b"k1", b"k2", b"x"):
        watched.applier.put(key, b"v", 1)
    watched.applier(c.LEASE_REVOKE, 1)
    *_, last = watched.take()
    assert [(e.pair.key, e.pair.version, e.previous.value) for e in last.events] == [
        (b"k1", 0, b"v"),
        (b"k2", 0, b"v"),
    ]


def test_a_watch_of_the_past_and_one_from_before_it_are_told_the_same():
    early = Watched(revision=1)
    store = early.applier.store
    for i in range(20):
        early.applier.put(b"k%d" % (i % 3), b"%d" % i)
        if i % 4 == 3:
            early.applier.delete(b"k0")
    late = store.watches.add(b"k", b"l", 1, lambda: None)
    assert early.take() == late.take() != []


@pytest.mark.parametrize("begin", [1, 5, 10])
def test_a_watch_goes_on_where_another_ended(begin):
    watched = Watched(puts=10)
    later = watched.applier.store.watches.add(b"k", b"l", begin, lambda: None)
    assert [batch.revision for batch in later.take()] == list(range(begin, 11))


def test_a_watch_of_the_future_is_not_told_of_the_present():
    watched = Watched(revision=4)
    for value in (b"1", b"2", b"3", b"4", b"5"):
        watched.applier.put(b"k", value)
    assert [batch.revision for batch in watched.take()] == [4, 5]


def test_the_previous_pair_is_that_of_before_even_from_a_snapshot():
    watched = Watched()
    watched.applier.put(b"k", b"old")
    watched.applier(c.COMPACT, 1)
    watched.applier.put(b"k", b"new")
    store = restored(watched.applier.store)
    [batch] = store.watches.add(b"k", b"", 2, lambda: None).take()
    assert batch.events[0].previous == KeyValue(b"k", b"old", 1, 1, 1, 0)


def test_compacted_history_is_refused_with_the_revision_to_begin_again_at():
    watched = Watched(puts=10)
    watched.applier(c.COMPACT, 6)
    watches = watched.applier.store.watches
    for revision in (1, 6):
        with pytest.raises(WatchCompacted) as caught:
            watches.add(b"k", b"l", revision, lambda: None).take()
        assert caught.value.revision == 7
        assert "before revision 7" in str(caught.value)
    assert [b.revision for b in watches.add(b"k", b"l", 7, lambda: None).take()] == [7, 8, 9, 10]


def test_a_snapshot_wakes_whoever_watches():
    watched = Watched(puts=2)
    watched.take()
    leader = restored(watched.applier.store)
    watched.applier.store, follower = leader, watched.applier.store
    watched.applier.put(b"k9")
    follower.restore(leader.freeze().encode())
    assert watched.wakes
    assert [batch.revision for batch in watched.take()] == [3]


def test_who_was_removed_is_not_woken():
    watched = Watched()
    watched.take()
    watched.applier.store.watches.remove(watched.watcher)
    watched.applier.store.watches.remove(watched.watcher)
    watched.applier.put(b"k")
    assert watched.wakes == 0
    assert len(watched.applier.store.watches) == 0


def test_watchers_say_what_they_are():
    watched = Watched(puts=1)
    watched.take()
    watched.applier.put(b"k1")
    watched.applier.put(b"k2")
    assert repr(watched.watcher) == "<Watcher b'k' next=4 waiting=2>"
    assert repr(watched.applier.store.watches) == "<WatchHub watchers=1 history=3>"


# -- the client's side of it


class BreaksOff:
    """A node that says where the watch stands and is gone; the next one answers from there."""

    def __init__(self, revision: int) -> None:
        self.revision, self.asked = revision, []

    async def stream(self, method, body, *, timeout_s):
        assert (method, timeout_s) == ("kv.watch", SILENCE_S)
        self.asked.append(body[2])
        yield [body[2] - 1 if body[2] else self.revision, [], False]
        if len(self.asked) == 1:
            raise Unavailable("the connection has ended")
        for at in range(body[2] or self.revision + 1, self.revision + 2):
            yield [at, [[KeyValue(b"k", b"%d" % at, 1, at, at, 0), None]], False]


async def first_batch(node: BreaksOff, monkeypatch, revision: int):
    client = object.__new__(client_module.RaftClient)
    client._leader = None

    async def any_client():
        return node

    client._any_client = any_client
    monkeypatch.setattr(client_module, "PAUSE_S", 0)
    watching = client.watch(b"k", revision=revision)
    try:
        return await anext(watching)
    finally:
        await watching.aclose()


async def test_a_watch_of_the_past_that_breaks_off_at_once_has_missed_nothing(monkeypatch):
    node = BreaksOff(revision=100)
    batch = await first_batch(node, monkeypatch, revision=5)
    assert node.asked == [5, 5]
    assert batch.revision == 5


async def test_a_watch_from_now_on_keeps_its_now_when_it_breaks_off(monkeypatch):
    node = BreaksOff(revision=100)
    batch = await first_batch(node, monkeypatch, revision=0)
    assert node.asked == [0, 101]
    assert batch.revision == 101
