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
