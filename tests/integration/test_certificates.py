"""Certificates of a running cluster: a revoked node is cut off at once, new keys let it back in."""

from __future__ import annotations

import json


def test_a_revoked_node_is_cut_off_and_comes_back_with_new_keys(ring):
    ring.up()
    leader = ring.leader()
    ring("cert", "revoke", leader)
    # Without the revoked one, the other two elect a leader of their own and serve.
    others = {"n1", "n2", "n3"} - {leader}
    ring.wait(lambda: set(ring.roles().get("leader", [])) & others, "another leader")
    ring("kv", "put", "k", "v")
    cut = {event["node"] for event in ring.events("transport.revoked")}
    assert cut >= others
    assert ring.status()[leader]["health"] == "silent"
    ring("cert", "reissue", leader)
    ring("restart", leader)
    ring.healthy()
    ring.wait(lambda: len({n["says"]["applied"] for n in ring.status().values()}) == 1, "level")


def test_renewed_certificates_are_taken_without_a_restart(ring):
    ring.up()
    before = {
        row["name"]: row["serial"] for row in json.loads(ring("cert", "show", "--json").stdout)
    }
    pids = {name: node["pid"] for name, node in ring.status().items()}
    ring("cert", "renew")
    after = {
        row["name"]: row["serial"] for row in json.loads(ring("cert", "show", "--json").stdout)
    }
    assert all(after[name] != serial for name, serial in before.items())
    ring.wait(lambda: len(ring.events("node.certificate")) == 3, "all have read them")
    ring("kv", "put", "k", "v")
    assert {name: node["pid"] for name, node in ring.status().items()} == pids


def test_metrics_in_the_text_format(ring):
    ring.up()
    ring("kv", "put", "k", "v")
    lines = ring("metrics").stdout.splitlines()
    values = {}
    for line in lines:
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            values[name] = float(value)
    assert {values[f'ring_store_keys{{node="{n}"}}'] for n in ("n1", "n2", "n3")} == {1.0}
    assert sum(values[f'ring_raft_is_leader{{node="{n}"}}'] for n in ("n1", "n2", "n3")) == 1
    assert "# TYPE ring_raft_commands_total counter" in lines
    for name in ("syncs", "sync_seconds", "bytes"):
        assert values[f'ring_wal_{name}_total{{node="n1"}}'] > 0
