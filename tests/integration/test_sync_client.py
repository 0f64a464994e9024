"""The synchronous face of the store's client, as a script would use it."""

from __future__ import annotations

import pytest

from raftd.client import PUT, Refused, SyncRaftClient


def test_a_script_without_await(ring):
    ring.up()
    with SyncRaftClient(ring.home / "cluster.toml") as client:
        first = client.put(b"jobs/1", b"todo")
        assert client.get(b"jobs/1").value == b"todo"
        assert client.compare_and_swap(b"jobs/1", b"todo", b"doing")
        assert not client.compare_and_swap(b"jobs/1", b"todo", b"doing")
        lock = client.txn([("version", "=", b"lock", 0)], [(PUT, b"lock", b"mine", 0, False)], [])
        assert lock.succeeded
        seen = []
        for batch in client.watch(b"jobs/", prefix=True, revision=first.revision):
            seen += [event.pair.value for event in batch.events]
            if len(seen) == 2:
                break
        assert seen == [b"todo", b"doing"]
        lease = client.lease_grant(30)
        client.put(b"alive", b"yes", lease=lease)
        assert client.lease_keep_alive(lease) == 30
        assert client.lease_revoke(lease) == 1
        assert client.get(b"alive") is None
        client.delete(b"jobs/1")
        revision = client.range(b"jobs/", prefix=True).revision
        client.compact(revision)
        with pytest.raises(Refused, match="compacted"):
            client.range(b"jobs/1", revision=first.revision)


def test_what_does_not_fit_one_message(ring):
    ring.up()
    with SyncRaftClient(ring.home / "cluster.toml") as client:
        with pytest.raises(Refused, match="value: 1048577 bytes are over the limit of 1048576"):
            client.put(b"k", bytes(2**20 + 1))
        for i in range(30):
            client.put(b"big/%02d" % i, b"x" * 200_000)
        whole = client.range(b"big/", prefix=True)
        assert [pair.key for pair in whole.pairs] == [b"big/%02d" % i for i in range(30)]
        assert (whole.count, whole.more) == (30, False)
        some = client.range(b"big/", prefix=True, limit=25)
        assert (len(some.pairs), some.count, some.more) == (25, 30, True)
        gone = client.delete(b"big/", b"big0")
        assert gone.deleted == 30
        batch = next(client.watch(b"big/", prefix=True, revision=gone.revision))
        assert len(batch.events) == 30
        assert all(event.previous.value == b"x" * 200_000 for event in batch.events)
