"""What the store holds is bounded in bytes: its pairs, its past, and the answers it remembers."""

from __future__ import annotations

import random

import pytest
from storage_kit import Applier, restored

from raftd import commands as c
from raftd.sessions import ANSWER_BYTES, FORGOTTEN, SESSION_BYTES, Sessions
from raftd.space import LEASE_BYTES, VERSION_BYTES, Space
from raftd.store import FAILED, OK, Compacted, Store
from raftd.watch import PENDING_BYTES_MAX, WatchCompacted

KIB = 1024


def small(data: int = 64 * KIB, history: int = 16 * KIB) -> Applier:
    return Applier(Store(space=Space(data, history)))


def held(store: Store) -> tuple[int, int]:
    """(bytes of the present, bytes of the past), counted from nothing."""
    present = LEASE_BYTES * len(store.leases)
    past = 0
    for history in store._histories.values():
        for kv in history:
            size = VERSION_BYTES + len(kv.key) + len(kv.value)
            if kv is history[-1] and kv.version:
                present += size
            else:
                past += size
    return present, past


# -- the past


def test_large_values_are_forgotten_before_a_hundred_thousand_revisions_have_gone_by():
    run = small()
    for i in range(100):
        run.put(b"k", b"%d" % i * KIB)
        assert run.store.space.past <= 16 * KIB * 1.01
    assert run.store.revision - run.store.compacted < 20
    assert run.store.get(b"k").value == b"99" * KIB


def test_as_much_of_the_past_is_kept_as_fits():
    run = small()
    for i in range(100):
        run.put(b"k", b"%02d" % i * 500)
    kept = run.store.revision - run.store.compacted
    assert kept == 16 * KIB // (1000 + 1 + VERSION_BYTES)
    oldest = run.store.compacted
    assert run.store.range(b"k", revision=oldest)[0][0].value == b"%02d" % (oldest - 1) * 500
    with pytest.raises(Compacted):
        run.store.range(b"k", revision=oldest - 1)


def test_what_a_deletion_leaves_behind_is_forgotten_too():
    run = small(data=1 << 20)
    for i in range(400):
        run.put(b"%d" % i, bytes(KIB))
    assert run.store.space.past == 0
    assert run.delete(b"\0", c.EVERYTHING)[2] == 400
    assert run.store.space == Space(1 << 20, 16 * KIB, 0, 0)
    assert (len(run.store), run.store.compacted) == (0, run.store.revision)


def test_deletions_weigh_as_much_as_they_free():
    run = small(history=1 << 20)
    for _ in range(200):
        run.put(b"k")
        run.delete(b"k")
    pair = VERSION_BYTES + 1
    assert run.store.space.past == 400 * pair
    run.store.space.past_max = 100 * pair
    run.put(b"other")
    assert run.store.space.past == 100 * pair
    assert run.store.revision - run.store.compacted == 101


def test_a_watch_of_what_was_forgotten_is_told_so():
    run = small()
    watcher = run.store.watches.add(b"k", b"", 1, lambda: None)
    for _ in range(100):
        run.put(b"k", bytes(KIB))
    with pytest.raises(WatchCompacted) as told:
        watcher.take()
    assert told.value.revision == run.store.compacted + 1


# -- the present


def filled() -> Applier:
    """A store into which nothing of a kilobyte goes any more."""
    run = small()
    count = 0
    while run.put(b"k%d" % count, bytes(KIB))[0] == OK:
        count += 1
    assert count == 64 * KIB // (KIB + 3 + VERSION_BYTES)
    return run


def test_a_full_store_refuses_what_would_make_it_larger_and_says_what_to_do():
    run = filled()
    before = run.store.hash()
    answer = run.put(b"new", bytes(KIB))
    assert answer[:2] == [FAILED, "no-space"]
    assert "delete" in answer[2]
    assert "64 KiB" in answer[2]
    assert run.store.hash() == before


def test_a_full_store_serves_reads_and_deletions_and_what_makes_it_no_larger():
    run = filled()
    assert run.store.get(b"k0").value == bytes(KIB)
    assert run.put(b"k0", b"x" * KIB)[0] == OK
    assert run.put(b"k1", b"smaller")[0] == OK
    assert run.delete(b"k2")[2] == 1
    assert run.put(b"new", bytes(KIB))[0] == OK
    assert run(c.COMPACT, run.store.revision)[0] == OK


def test_a_transaction_that_would_not_fit_is_refused_whole():
    run = filled()
    run.delete(b"k0")
    puts = [[c.PUT, key, bytes(KIB), 0, False] for key in (b"x", b"y")]
    before = run.store.hash()
    assert run.txn(*puts)[:2] == [FAILED, "no-space"]
    assert run.txn([c.TXN, [], puts, []])[:2] == [FAILED, "no-space"]
    assert run.store.hash() == before
    assert run.txn(puts[0])[0] == OK


def test_only_the_branch_that_runs_needs_room():
    run = filled()
    put = [c.PUT, b"x", bytes(KIB), 0, False]
    absent = ["version", "=", b"k0", 0]
    assert run(c.TXN, [absent], [put], [])[:3] == [OK, run.store.revision, False]
    assert run(c.TXN, [absent], [], [put])[:2] == [FAILED, "no-space"]


def test_leases_need_room_as_well():
    run = small()
    granted = 0
    while (answer := run(c.LEASE_GRANT, granted + 1, 10))[0] == OK:
        granted += 1
    assert answer[1] == "no-space"
    assert granted == 64 * KIB // LEASE_BYTES
    assert run(c.LEASE_REVOKE, 1)[0] == OK
    assert run(c.LEASE_GRANT, 1, 10)[0] == OK


def test_the_bytes_are_counted_right_whatever_happens_and_are_the_same_in_a_copy():
    dice = random.Random(1)
    run = small(data=8 * KIB, history=4 * KIB)
    refused = 0
    for _ in range(3000):
        key = b"k%d" % dice.randrange(12)
        match dice.randrange(6):
            case 0 | 1 | 2:
                lease = dice.choice([0, 0, *run.store.leases])
                refused += run.put(key, bytes(dice.randrange(2 * KIB)), lease)[0]
            case 3:
                run.delete(key, dice.choice([b"", b"k2", c.EVERYTHING]))
            case 4:
                run(c.LEASE_GRANT, dice.randrange(1, 4), 10)
            case 5:
                run(c.LEASE_REVOKE, dice.randrange(1, 4))
        space = run.store.space
        assert (space.present, space.past) == held(run.store)
        assert space.present <= 8 * KIB
        assert space.past <= 4 * KIB * 1.01
    copy = restored(run.store, of=Store(space=Space(8 * KIB, 4 * KIB)))
    assert copy.space == run.store.space
    assert refused > 10


# -- what a slow watcher holds


def test_a_slow_watcher_holds_no_more_than_so_many_bytes_of_its_own():
    run = Applier(Store(space=Space(1 << 30, 1 << 30)))
    watcher = run.store.watches.add(b"k", b"", 0, lambda: None)
    assert watcher.take() == []
    value = bytes(c.VALUE_BYTES_MAX)
    puts = 3 * PENDING_BYTES_MAX // len(value)
    most = 0
    for _ in range(puts):
        run.put(b"k", value)
        most = max(most, sum(len(e.pair.value) for b in watcher._pending for e in b.events))
    assert 0 < most <= PENDING_BYTES_MAX
    seen, rounds = [], 0
    while (batches := watcher.take()) or watcher._behind:
        rounds += 1
        seen += [batch.revision for batch in batches]
        assert sum(len(e.pair.value) for b in batches for e in b.events) <= PENDING_BYTES_MAX
    assert seen == list(range(1, puts + 1))
    assert rounds > 1


# -- what was answered


def ask(table: Sessions, session: bytes, sequence: int, *, index: int, **how):
    return table.lookup(
        session, sequence, how.get("done", 0), retry=how.get("retry", False), base=0, index=index
    )


def names(count: int) -> list[bytes]:
    return [b"%016d" % i for i in range(count)]


def test_answers_are_bounded_by_bytes_and_the_longest_unused_session_goes_first():
    table = Sessions(bytes_max=10 * KIB)
    for index, name in enumerate(names(20), 1):
        ask(table, name, 1, index=index)
        table.record(name, 1, [OK, index, bytes(KIB)])
        assert table.bytes <= 10 * KIB
    assert len(table) == 10 * KIB // (KIB + SESSION_BYTES + ANSWER_BYTES)
    assert list(table._sessions) == names(20)[-len(table) :]
    assert table.horizon == 20 - len(table)


def test_a_session_that_fills_the_table_alone_is_forgotten_too_and_says_so():
    table = Sessions(bytes_max=10 * KIB)
    for sequence in range(1, 21):
        ask(table, b"a" * 16, sequence, index=sequence)
        table.record(b"a" * 16, sequence, [OK, 1, bytes(KIB)])
        assert table.bytes <= 10 * KIB
    assert ask(table, b"a" * 16, 1, index=21, retry=True) is FORGOTTEN
    assert ask(table, b"a" * 16, 20, index=22, retry=True)[0] == OK


def test_the_bytes_of_answers_are_counted_right_and_are_the_same_in_a_copy():
    dice = random.Random(2)
    table = Sessions(sessions_max=5, bytes_max=6 * KIB)
    first, last = dict.fromkeys(names(8), 1), dict.fromkeys(names(8), 0)
    for index in range(1, 2000):
        name = dice.choice(names(8))
        last[name] += 1
        first[name] = dice.randint(first[name], last[name])
        ask(table, name, last[name], index=index, done=first[name])
        table.record(name, last[name], [OK, index, bytes(dice.randrange(KIB))])
        copy = Sessions(sessions_max=5, bytes_max=6 * KIB)
        copy.load(table.dump())
        assert copy.bytes == table.bytes <= 6 * KIB
        assert copy.dump() == table.dump()
    assert table.bytes > 0
