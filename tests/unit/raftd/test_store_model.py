"""The store beside a naive one that keeps every revision whole, under random commands.

The model is a list of dictionaries, one a revision. Whatever the store says of any revision that
is not compacted must be what the model has; and a store that was frozen and restored at any
moment must be the same store.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from raftd import commands as c
from raftd.model import KeyValue
from raftd.store import FAILED, OK, Compacted, FutureRevision, Store
from raftd.watch import WatchCompacted, Watcher

KEYS = [b"a", b"b", b"ba", b"c", b"d"]
KEY = st.sampled_from(KEYS)
ENDS = st.sampled_from([b"", b"b", b"bb", b"d", b"\xff", c.EVERYTHING])
VALUES = st.sampled_from([b"", b"x", b"y"])
LEASES = st.integers(1, 3)
# Few are kept, so that the store compacts by itself within a run.
KEPT = 8


class Pair(NamedTuple):
    value: bytes
    create: int
    mod: int
    version: int
    lease: int


State = dict[bytes, Pair]


def within(key: bytes, begin: bytes, end: bytes) -> bool:
    if not end:
        return key == begin
    return key >= begin and (end == c.EVERYTHING or key < end)


class Model:
    """Every revision, whole."""

    def __init__(self) -> None:
        self.states: list[State] = [{}]
        self.leases: set[int] = set()

    @property
    def revision(self) -> int:
        return len(self.states) - 1

    @property
    def now(self) -> State:
        return self.states[-1]

    def run(self, ops: list[list]) -> bool:
        """Apply puts and deletes as one revision; False if nothing changed."""
        state = dict(self.now)
        changed = False
        for op in ops:
            if op[0] == c.PUT:
                _, key, value, lease, _ = op
                old = state.get(key)
                create = old.create if old else self.revision + 1
                version = old.version + 1 if old else 1
                state[key] = Pair(value, create, self.revision + 1, version, lease)
                changed = True
            elif op[0] == c.DELETE:
                for key in [k for k in state if within(k, op[1], op[2])]:
                    del state[key]
                    changed = True
        if changed:
            self.states.append(state)
        return changed


OPS = st.lists(
    st.one_of(
        st.builds(lambda k, v: [c.PUT, k, v, 0, False], KEY, VALUES),
        st.builds(lambda k, e: [c.DELETE, k, e, False], KEY, ENDS),
    ),
    max_size=4,
)
COMPARES = st.lists(
    st.tuples(
        st.sampled_from(["version", "create", "mod"]),
        st.sampled_from(["=", "!=", "<", ">"]),
        KEY,
        st.integers(0, 6),
    ),
    max_size=2,
)


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = Store(KEPT)
        self.model = Model()
        self.index = 0
        self.wakes = 0
        self.watcher = self._watch(1)
        self.told_to = 0  # the last revision that the watcher was given

    def _watch(self, revision: int) -> Watcher:
        def wake() -> None:
            self.wakes += 1

        return self.store.watches.add(b"\x01", c.EVERYTHING, revision, wake)

    def _apply(self, op: list) -> list:
        self.index += 1
        command = c.pack_command(bytes(16), self.index, self.index, retry=False, base=0, op=op)
        c.check_command(command)
        return self.store.apply(self.index, command)

    # -- writing

    @rule(key=KEY, value=VALUES, lease=st.sampled_from([0, 0, 1, 2, 3]))
    def put(self, key: bytes, value: bytes, lease: int) -> None:
        op = [c.PUT, key, value, lease, True]
        before = self.model.now.get(key)
        answer = self._apply(op)
        if lease and lease not in self.model.leases:
            assert answer[:2] == [FAILED, "no-lease"]
            return
        self.model.run([op])
        assert answer == [OK, self.model.revision, _pair(key, before)]

    @rule(key=KEY, end=ENDS)
    def delete(self, key: bytes, end: bytes) -> None:
        gone = [_pair(k, p) for k, p in sorted(self.model.now.items()) if within(k, key, end)]
        answer = self._apply([c.DELETE, key, end, True])
        self.model.run([[c.DELETE, key, end, False]])
        assert answer == [OK, self.model.revision, len(gone), gone]

    @rule(compares=COMPARES, then=OPS, otherwise=OPS)
    def txn(self, compares: list, then: list, otherwise: list) -> None:
        then, otherwise = _written_once(then), _written_once(otherwise)
        succeeded = all(self._holds(*compare) for compare in compares)
        answer = self._apply([c.TXN, [list(x) for x in compares], then, otherwise])
        self.model.run(then if succeeded else otherwise)
        assert answer[:3] == [OK, self.model.revision, succeeded]

    def _holds(self, target: str, op: str, key: bytes, operand: int) -> bool:
        pair = self.model.now.get(key)
        actual = getattr(pair, target) if pair else 0
        return {"=": actual == operand, "!=": actual != operand}.get(
            op, actual < operand if op == "<" else actual > operand
        )

    # -- leases

    @rule(lease=LEASES)
    def grant(self, lease: int) -> None:
        answer = self._apply([c.LEASE_GRANT, lease, 10])
        assert answer[0] == (FAILED if lease in self.model.leases else OK)
        self.model.leases.add(lease)

    @rule(lease=LEASES)
    def revoke(self, lease: int) -> None:
        answer = self._apply([c.LEASE_REVOKE, lease])
        if lease not in self.model.leases:
            assert answer[:2] == [FAILED, "no-lease"]
            return
        self.model.leases.discard(lease)
        hanging = [k for k, p in self.model.now.items() if p.lease == lease]
        self.model.run([[c.DELETE, key, b"", False] for key in hanging])
        assert answer == [OK, self.model.revision, len(hanging)]

    # -- the past

    @precondition(lambda self: self.model.revision > 1)
    @rule(back=st.integers(0, KEPT))
    def compact(self, back: int) -> None:
        revision = self.model.revision - back
        before = self.store.compacted
        answer = self._apply([c.COMPACT, max(revision, 0)])
        if revision <= before:
            assert answer[:2] == [FAILED, "compacted"]
        else:
            assert answer[0] == OK
            assert self.store.compacted == revision

    @rule(key=KEY, end=ENDS, back=st.integers(0, 2 * KEPT), limit=st.integers(0, 3))
    def read(self, key: bytes, end: bytes, back: int, limit: int) -> None:
        revision = self.model.revision - back
        if revision < 1:
            return
        if revision < self.store.compacted:
            with pytest.raises(Compacted):
                self.store.range(key, end, revision)
            return
        state = self.model.states[revision]
        expected = [_pair(k, p) for k, p in sorted(state.items()) if within(k, key, end)]
        pairs, more, count = self.store.range(key, end, revision, limit)
        assert count == len(expected)
        assert pairs == (expected[:limit] if limit else expected)
        assert more == (bool(limit) and len(expected) > limit)

    @rule(key=KEY)
    def the_future_cannot_be_read(self, key: bytes) -> None:
        with pytest.raises(FutureRevision):
            self.store.range(key, b"", self.model.revision + 1)

    @rule()
    def freeze_and_restore(self) -> None:
        copy = Store(KEPT)
        copy.restore(self.store.freeze().encode())
        assert copy.hash() == self.store.hash()
        assert (copy.applied_index, copy.compacted) == (self.index, self.store.compacted)
        for revision in range(max(1, self.store.compacted), self.model.revision + 1):
            whole = (b"\x01", c.EVERYTHING, revision)
            assert copy.range(*whole) == self.store.range(*whole)
        for lease in self.model.leases:
            assert copy.keys_of_lease(lease) == self.store.keys_of_lease(lease)

    @rule()
    def become_ones_own_snapshot(self) -> None:
        """What a follower does that was far behind; the watcher lives on."""
        self.store.restore(self.store.freeze().encode())

    @rule()
    def look_at_the_watch(self) -> None:
        """Each revision once, in order, none left out; or told that it was compacted."""
        try:
            batches = self.watcher.take()
        except WatchCompacted:
            assert self.store.compacted >= self.told_to + 1
            self.store.watches.remove(self.watcher)
            self.told_to = self.model.revision
            self.watcher = self._watch(self.told_to + 1)
            return
        expected = range(self.told_to + 1, self.model.revision + 1)
        assert [batch.revision for batch in batches] == list(expected)
        self.told_to = self.model.revision
        for batch in batches:
            before, after = self.model.states[batch.revision - 1 : batch.revision + 1]
            changed = {k for k in {*before, *after} if before.get(k) != after.get(k)}
            assert {event.pair.key for event in batch.events} == changed
            for event in batch.events:
                pair = event.pair if event.pair.version else None
                assert pair == _pair(event.pair.key, after.get(event.pair.key))

    @invariant()
    def now_is_now(self) -> None:
        assert self.store.revision == self.model.revision
        for key in KEYS:
            assert self.store.get(key) == _pair(key, self.model.now.get(key))
        assert self.store.revision - self.store.compacted <= KEPT * 1.01 + 1

    @invariant()
    def the_oldest_past_is_whole(self) -> None:
        revision = max(1, self.store.compacted)
        if revision <= self.model.revision:
            pairs, _, _ = self.store.range(b"\x01", c.EVERYTHING, revision)
            assert pairs == [_pair(k, p) for k, p in sorted(self.model.states[revision].items())]


def _written_once(ops: list[list]) -> list[list]:
    """Without the puts of keys that another operation of the same revision writes."""
    kept: list[list] = []
    for op in ops:
        puts = [k[1] for k in kept if k[0] == c.PUT]
        deletes = [(k[1], k[2]) for k in kept if k[0] == c.DELETE]
        if op[0] == c.PUT:
            clash = op[1] in puts or any(within(op[1], *ends) for ends in deletes)
        else:
            clash = any(within(key, op[1], op[2]) for key in puts)
        if not clash:
            kept.append(op)
    return kept


def _pair(key: bytes, pair: Pair | None) -> KeyValue | None:
    return None if pair is None else KeyValue(key, *pair)


StoreMachine.TestCase.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, database=None
)
TestStoreMachine = StoreMachine.TestCase


def test_a_watcher_far_behind_is_woken_until_it_has_all(monkeypatch):
    """More than fits its buffer lies in the past: it must be told to come again."""
    monkeypatch.setattr("raftd.watch.PENDING_MAX", 10)
    store = Store()
    for i in range(1, 36):
        command = c.pack_command(
            bytes(16), i, i, retry=False, base=0, op=[c.PUT, b"k", b"%d" % i, 0, False]
        )
        store.apply(i, command)
    woken = [True]
    watcher = store.watches.add(b"k", b"", 1, lambda: woken.append(True))
    seen = []
    while woken:
        woken.clear()
        seen += [int(event.pair.value) for batch in watcher.take() for event in batch.events]
    assert seen == list(range(1, 36))


def test_a_slow_watcher_is_parked_and_told_everything_later(monkeypatch):
    monkeypatch.setattr("raftd.watch.PENDING_MAX", 5)
    store = Store()
    woken: list[bool] = []
    watcher = store.watches.add(b"k", b"", 0, lambda: woken.append(True))
    assert watcher.take() == []
    for i in range(1, 51):
        op = [c.PUT, b"k", b"%d" % i, 0, False]
        store.apply(i, c.pack_command(bytes(16), i, i, retry=False, base=0, op=op))
    assert watcher._waiting <= 5
    seen = []
    while woken:
        woken.clear()
        seen += [int(event.pair.value) for batch in watcher.take() for event in batch.events]
    assert seen == list(range(1, 51))
