"""The records of a process: newest stamp wins, ranges, digests, quota; against a naive model."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dht.chord.records import PARTS, Record, RecordStore, arcs, part_of
from dht.chord.ring import SIZE, key_id, within


def record(key: bytes, version: int = 1, tag: str = "a", value: bytes | None = b"v") -> Record:
    return Record(key, value, version, tag)


def test_the_newest_stamp_wins_in_any_order():
    one, two, other = record(b"k", 1), record(b"k", 2), record(b"k", 2, "b")
    for order in ([one, two, other], [other, two, one], [two, other, one]):
        store = RecordStore(10_000)
        for item in order:
            store.put(item)
        assert store.get(b"k") == other


def test_a_deletion_keeps_an_old_copy_from_coming_back():
    store = RecordStore(10_000)
    store.put(record(b"k", 2, value=None))
    assert store.put(record(b"k", 1)) is False
    assert not store.get(b"k").alive(0.0)


def test_the_quota_counts_what_is_there():
    store = RecordStore(1_000)
    first = record(b"k", value=bytes(500))
    assert store.room_for(first)
    store.put(first)
    assert not store.room_for(record(b"other", value=bytes(500)))
    assert store.room_for(record(b"k", 2, value=bytes(600)))
    assert not store.room_for(record(b"k", 2, value=bytes(900)))
    assert store.room_for(record(b"k", 2, value=None))
    store.forget(b"k")
    assert store.used_bytes == 0


def test_time_to_live():
    item = Record(b"k", b"v", 1, "a", 100.0)
    assert item.alive(99.0)
    assert not item.alive(100.0)
    store = RecordStore(10_000)
    store.put(item)
    store.put(record(b"for ever"))
    assert store.over(101.0) == [b"k"]


def test_an_arc_over_zero_is_two_intervals():
    assert arcs(5, 9) == [(6, 9)]
    assert arcs(SIZE - 3, 2) == [(SIZE - 2, SIZE - 1), (0, 2)]
    assert arcs(7, 7) == [(0, SIZE - 1)]
    assert arcs(SIZE - 1, 4) == [(0, 4)]


def test_the_parts_of_an_arc_are_sixteen_and_in_order():
    low, high = SIZE - 1000, 600
    found = [part_of((low + 1 + i) % SIZE, low, high) for i in range(1600)]
    assert found == [i * PARTS // 1600 for i in range(1600)]


def test_digests_differ_just_where_the_records_do():
    mine, theirs = RecordStore(1 << 20), RecordStore(1 << 20)
    for i in range(100):
        mine.put(record(b"k%d" % i))
        theirs.put(record(b"k%d" % i))
    assert mine.digest(5, 5) == theirs.digest(5, 5)
    theirs.put(record(b"k7", 2))
    mine.put(record(b"new"))
    wrong = {i for i in range(PARTS) if mine.digest(5, 5)[i] != theirs.digest(5, 5)[i]}
    assert wrong == {part_of(key_id(k), 5, 5) for k in (b"k7", b"new")}
    listed = {key for key, _, _ in mine.listing(5, 5, wrong)}
    assert {b"k7", b"new"} <= listed
    assert repr(mine) == f"<RecordStore 101 records {mine.used_bytes}/1048576 B>"


KEYS = st.sampled_from([b"key %d" % i for i in range(8)])
PLACES = st.sampled_from([key_id(b"key %d" % i) + d for i in range(8) for d in (-1, 0)])


class StoreMachine(RuleBasedStateMachine):
    """Beside a dict that knows nothing of indexes."""

    def __init__(self) -> None:
        super().__init__()
        self.store = RecordStore(1 << 20)
        self.naive: dict[bytes, Record] = {}

    @rule(key=KEYS, version=st.integers(1, 4), tag=st.sampled_from("ab"), size=st.integers(0, 9))
    def put(self, key, version, tag, size):
        item = record(key, version, tag, bytes(size))
        old = self.naive.get(key)
        news = old is None or (item.version, item.tag) > (old.version, old.tag)
        assert self.store.newer(item) == news
        assert self.store.put(item) == news
        if news:
            self.naive[key] = item

    @rule(key=KEYS)
    def forget(self, key):
        self.store.forget(key)
        self.naive.pop(key, None)

    @rule(low=PLACES, high=PLACES)
    def ranges(self, low, high):
        inside = {r for r in self.naive.values() if within(low, key_id(r.key), high)}
        assert set(self.store.within(low, high)) == inside
        other = RecordStore(1 << 20)
        for item in inside:
            other.put(item)
        assert self.store.digest(low, high) == other.digest(low, high)

    @invariant()
    def same(self):
        assert {r.key: r for r in self.store} == self.naive
        assert self.store.used_bytes == sum(r.size for r in self.naive.values())
        assert len(self.store) == len(self.naive)


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
