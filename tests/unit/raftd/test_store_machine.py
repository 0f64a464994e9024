"""The store beside a naive one: nested transactions, every answer, snapshots taken at any moment.

The model is a list of whole states, one a revision. test_store_model.py runs the same idea
through sessions and one watch; here the operations nest, a picture is written out only after the
store has gone on, and the store that applies the next command may be one that was restored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgpack
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from storage_kit import Applier, restored

from raftd import commands as c
from raftd.model import KeyValue
from raftd.store import FAILED, OK, Compacted, Frozen, FutureRevision, Store

KEYS = [b"a", b"a/1", b"a/2", b"a0", b"b", b"\xff"]
KEPT = 6  # revisions: the store compacts by itself within a run
ALL = (b"\0", c.EVERYTHING)

KEY = st.sampled_from(KEYS)
ENDS = st.sampled_from([b"", b"a", c.prefix_end(b"a/"), b"b", c.EVERYTHING])
VALUE = st.sampled_from([b"", b"x", b"y"])
LEASE = st.sampled_from([0, 0, 1, 2])

PUTS = st.builds(lambda *of: [c.PUT, *of], KEY, VALUE, LEASE, st.booleans())
DELETES = st.builds(lambda *of: [c.DELETE, *of], KEY, ENDS, st.booleans())
RANGES = st.builds(
    lambda *of: [c.RANGE, *of],
    KEY,
    ENDS,
    st.one_of(st.just(0), st.integers(0, 12)),
    st.integers(0, 2),
    st.booleans(),
    st.booleans(),
)
OPERATORS = st.sampled_from(c.OPERATORS)
COMPARES = st.one_of(
    st.builds(
        lambda *of: list(of),
        st.sampled_from(["version", "create", "mod", "lease"]),
        OPERATORS,
        KEY,
        st.integers(0, 4),
    ),
    st.builds(lambda *of: ["value", *of], OPERATORS, KEY, VALUE),
)


def txns(ops: st.SearchStrategy) -> st.SearchStrategy:
    few = st.lists(ops, max_size=3)
    return st.builds(lambda *of: [c.TXN, *of], st.lists(COMPARES, max_size=2), few, few)


FLAT = st.one_of(PUTS, DELETES, RANGES)
TXNS = txns(st.one_of(FLAT, txns(st.one_of(FLAT, txns(FLAT)))))


def within(key: bytes, begin: bytes, end: bytes) -> bool:
    return key == begin if not end else key >= begin and (end == c.EVERYTHING or key < end)


class Refused(Exception):
    """The whole command is."""


@dataclass
class Naive:
    """Every state there was; states[r] is that of revision r."""

    states: list[dict[bytes, KeyValue]] = field(default_factory=lambda: [{}])
    leases: dict[int, int] = field(default_factory=dict)
    compacted: int = 0

    @property
    def revision(self) -> int:
        return len(self.states) - 1

    def run(self, op: list[Any]) -> list[Any]:
        """The answer; a new state if anything was changed."""
        self.next: dict[bytes, KeyValue] | None = None
        try:
            self._refuse_unknown_leases(op)
            answer = self._run(op)
        except Refused as refused:
            return [FAILED, *refused.args]
        if self.next is not None:
            self.states.append(self.next)
            if self.revision - self.compacted > KEPT * 1.01:
                self.compacted = self.revision - KEPT
        return answer

    def _refuse_unknown_leases(self, op: list[Any]) -> None:
        if op[0] == c.PUT and op[3] and op[3] not in self.leases:
            raise Refused("no-lease")
        if op[0] == c.TXN:
            for inner in (*op[2], *op[3]):
                self._refuse_unknown_leases(inner)

    @property
    def _now(self) -> dict[bytes, KeyValue]:
        return self.states[-1] if self.next is None else self.next

    @property
    def _at(self) -> int:
        return self.revision + (self.next is not None)

    def _run(self, op: list[Any]) -> list[Any]:
        kind, *of = op
        does = {c.PUT: self._put, c.DELETE: self._delete, c.TXN: self._txn, c.RANGE: self._range}
        return does[kind](*of)

    def _put(self, key: bytes, value: bytes, lease: int, prev: bool) -> list[Any]:
        old, at = self._now.get(key), self.revision + 1
        create, version = (old.create, old.version + 1) if old else (at, 1)
        self.next = {**self._now, key: KeyValue(key, value, create, at, version, lease)}
        return [OK, at, old if prev else None]

    def _delete(self, key: bytes, end: bytes, prev: bool) -> list[Any]:
        gone = [pair for _, pair in sorted(self._now.items()) if within(pair.key, key, end)]
        if gone:
            self.next = {k: pair for k, pair in self._now.items() if pair not in gone}
        return [OK, self._at, len(gone), gone if prev else []]

    def _txn(self, compares: list[Any], then: list[Any], otherwise: list[Any]) -> list[Any]:
        succeeded = all(self._holds(*compare) for compare in compares)
        answers = []
        for op in then if succeeded else otherwise:
            answer = self._run(op)
            if answer[0] == FAILED:
                raise Refused(answer[1])
            answers.append(answer)
        return [OK, self._at, succeeded, answers]

    def _holds(self, target: str, operator: str, key: bytes, operand: Any) -> bool:
        pair = self.states[-1].get(key)  # before the transaction, however deep in it
        if pair is None and target == "value":
            return False
        actual = 0 if pair is None else getattr(pair, target)
        by_name = {"=": actual == operand, "!=": actual != operand, "<": actual < operand}
        return by_name.get(operator, actual > operand)

    def read(
        self, key: bytes, end: bytes, revision: int, limit: int, keys_only: bool, count: bool
    ) -> tuple[list[KeyValue], bool, int]:
        state = self.states[revision] if revision else self._now
        found = [pair for _, pair in sorted(state.items()) if within(pair.key, key, end)]
        if count:
            return [], False, len(found)
        shown = found[:limit] if limit else found
        bare = [pair._replace(value=b"") for pair in shown] if keys_only else shown
        return bare, len(shown) < len(found), len(found)

    def _range(self, key: bytes, end: bytes, revision: int, *how: Any) -> list[Any]:
        if revision > self.revision:
            return [FAILED, "future"]
        if revision and revision < self.compacted:
            return [FAILED, "compacted"]
        return [OK, self.revision, *self.read(key, end, revision, *how)]


def without_texts(answer: Any) -> Any:
    """As a client gets it, without what failures say to people."""
    if isinstance(answer, (list, tuple)):
        if len(answer) == 3 and answer[0] == FAILED and type(answer[2]) is str:
            return [FAILED, answer[1]]
        return [without_texts(part) for part in answer]
    return answer


def is_taken(op: list[Any]) -> bool:
    try:
        c.check_op(op)
    except c.BadCommand:
        return False
    return True


class StoreAndModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.applier = Applier(Store(KEPT))
        self.model = Naive()
        self.pictures: list[tuple[Frozen, Store]] = []

    @property
    def store(self) -> Store:
        return self.applier.store

    # -- commands

    @rule(op=st.one_of(FLAT, TXNS.filter(is_taken), TXNS.filter(is_taken)))
    def command(self, op: list[Any]) -> None:
        assert without_texts(self.applier(*op)) == without_texts(self.model.run(op))

    @rule(lease=st.integers(1, 2), ttl_s=st.integers(1, 9))
    def grant(self, lease: int, ttl_s: int) -> None:
        answer = self.applier(c.LEASE_GRANT, lease, ttl_s)
        if lease in self.model.leases:
            assert answer[:2] == [FAILED, "lease-exists"]
        else:
            assert answer == [OK, self.model.revision, lease, ttl_s]
            self.model.leases[lease] = ttl_s

    @rule(lease=st.integers(1, 2))
    def revoke(self, lease: int) -> None:
        answer = self.applier(c.LEASE_REVOKE, lease)
        if self.model.leases.pop(lease, None) is None:
            assert answer[:2] == [FAILED, "no-lease"]
            return
        held = [k for k, pair in self.model.states[-1].items() if pair.lease == lease]
        self.model.run([c.TXN, [], [[c.DELETE, key, b"", False] for key in held], []])
        assert answer == [OK, self.model.revision, len(held)]

    @rule(back=st.integers(-1, KEPT))
    def compact(self, back: int) -> None:
        revision = max(0, self.model.revision - back)
        answer = self.applier(c.COMPACT, revision)
        if revision <= self.model.compacted:
            assert answer[:2] == [FAILED, "compacted"]
        elif revision > self.model.revision:
            assert answer[:2] == [FAILED, "future"]
        else:
            assert answer == [OK, self.model.revision]
            self.model.compacted = revision

    # -- pictures

    @rule()
    def freeze(self) -> None:
        """To be written out later; what a store restored now is like must be in it then."""
        self.pictures.append((self.store.freeze(), restored(self.store, of=Store(KEPT))))

    @rule()
    def write_the_pictures_out(self) -> None:
        for picture, then in self.pictures:
            later = Store(KEPT)
            later.restore(b"".join(picture.parts()))
            assert_the_same(later, then)
        self.pictures.clear()

    @rule()
    def go_on_as_a_restored_one(self) -> None:
        """Other than the last, it has no past of its own."""
        other = restored(self.store, of=Store(KEPT))
        assert_the_same(other, self.store)
        assert other.applied_index == self.applier.index
        self.applier.store = other

    @rule()
    def go_on_as_one_that_was_something_else(self) -> None:
        other = Applier(Store(KEPT))
        other(c.LEASE_GRANT, 7, 9)
        other.put(b"other", b"x", 7)
        self.applier.store = restored(self.store, of=other.store)

    # -- what holds

    @invariant()
    def every_revision_reads_as_it_was(self) -> None:
        store, model = self.store, self.model
        assert (store.revision, store.compacted) == (model.revision, model.compacted)
        assert store.leases == model.leases
        for revision in range(1, model.revision + 1):
            if revision < model.compacted:
                with pytest.raises(Compacted) as caught:
                    store.range(*ALL, revision)
                assert caught.value.compacted == model.compacted - 1
            else:
                pairs = [pair for _, pair in sorted(model.states[revision].items())]
                assert store.range(*ALL, revision) == (pairs, False, len(pairs))
        with pytest.raises(FutureRevision):
            store.range(*ALL, model.revision + 1)

    @invariant()
    def each_lease_has_its_keys(self) -> None:
        for lease in (1, 2, 7):
            held = {k for k, pair in self.model.states[-1].items() if pair.lease == lease}
            assert self.store.keys_of_lease(lease) == sorted(held)

    @invariant()
    def nothing_is_kept_of_what_is_gone(self) -> None:
        """A key without a version after the compaction takes no room."""
        oldest = self.model.states[max(0, self.model.compacted) :]
        assert len(self.store) == len({key for state in oldest for key in state})


def assert_the_same(one: Store, other: Store) -> None:
    assert one.hash() == other.hash()
    assert (one.revision, one.compacted) == (other.revision, other.compacted)
    assert (one.applied_index, one.leases) == (other.applied_index, other.leases)
    for revision in range(max(1, one.compacted), one.revision + 1):
        assert one.range(*ALL, revision) == other.range(*ALL, revision)
    for lease in one.leases:
        assert one.keys_of_lease(lease) == other.keys_of_lease(lease)
    assert msgpack.packb(one.sessions.dump()) == msgpack.packb(other.sessions.dump())


StoreAndModel.TestCase.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None, database=None
)
TestStoreAndModel = StoreAndModel.TestCase


# -- what the machine does not come upon


def test_the_history_is_shortened_without_being_asked():
    applier = Applier(Store(100))
    for i in range(1, 1001):
        applier.put(b"k%d" % (i % 3), b"%d" % i)
        assert applier.store.revision - applier.store.compacted <= 101
    assert [pair.value for pair in applier.store.range(*ALL)[0]] == [b"999", b"1000", b"998"]


def test_stores_that_applied_the_same_compact_at_the_same_command():
    """One of them took a snapshot's place on the way."""
    one, other = Applier(Store(10)), Applier(Store(10))
    for i in range(1, 60):
        one.put(b"k%d" % (i % 7), b"%d" % i)
        other.put(b"k%d" % (i % 7), b"%d" % i)
        if i % 13 == 0:
            other.store = restored(other.store, of=Store(10))
        assert one.store.hash() == other.store.hash()


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.put(b"a", b"2"),
        lambda a: a.delete(b"a"),
        lambda a: a(c.LEASE_GRANT, 1, 5),
        lambda a: a(c.COMPACT, 1),
    ],
    ids=["put", "delete", "grant", "compact"],
)
def test_the_hash_tells_stores_apart(change):
    one, other = Applier(), Applier()
    for applier in (one, other):
        applier.put(b"a", b"1")
    assert one.store.hash() == other.store.hash()
    change(other)
    assert one.store.hash() != other.store.hash()


def test_a_transaction_that_names_an_unknown_lease_changes_nothing():
    applier = Applier()
    answer = applier.txn([c.PUT, b"a", b"", 0, False], [c.PUT, b"b", b"", 9, False])
    assert answer[:2] == [FAILED, "no-lease"]
    assert "9" in answer[2]
    assert (applier.store.revision, len(applier.store)) == (0, 0)


def test_a_read_in_a_transaction_sees_what_was_written_before_it_and_not_after():
    applier = Applier()
    read = [c.RANGE, b"a", b"", 0, 0, False, False]
    first, _, second, last, gone = applier.txn(
        read, [c.PUT, b"a", b"1", 0, False], read, [c.DELETE, b"z", b"", False], read
    )[3]
    assert first[2] == []
    assert [pair.value for pair in second[2]] == [b"1"]
    assert last == [OK, 1, 0, []]
    assert gone == second


def test_a_snapshot_of_another_version_is_refused_and_changes_nothing():
    applier = Applier()
    applier.put(b"a", b"1")
    before = applier.store.hash()
    with pytest.raises(ValueError, match="version 99"):
        applier.store.restore(msgpack.packb([99, 7, 3, 9, []]))
    assert applier.store.hash() == before
    assert applier.store.applied_index == 1


@pytest.mark.parametrize("missing", [1, 8, 20])
def test_a_snapshot_that_was_cut_short_is_refused(missing):
    applier = Applier()
    for key in KEYS:
        applier.put(key, b"some value")
    whole = applier.store.freeze().encode()
    with pytest.raises(ValueError, match="snapshot"):
        Store().restore(whole[:-missing])


def test_a_store_says_what_it_is():
    applier = Applier()
    applier.put(b"a")
    assert repr(applier.store) == "<Store keys=1 revision=1 compacted=0 applied=1>"
