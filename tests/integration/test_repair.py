"""A log with a damaged middle: its node refuses, the others go on, and give it a new copy."""

from __future__ import annotations


def _damage(ring, name: str) -> None:
    segment = sorted((ring.home / "nodes" / name / "data/wal").glob("*.seg"))[0]
    content = bytearray(segment.read_bytes())
    position = content.find(b"value-3")
    assert position > 0
    content[position] ^= 1
    segment.write_bytes(content)


def test_a_damaged_node_refuses_with_one_line_and_is_repaired_from_the_others(ring):
    ring.up()
    for i in range(8):
        ring("kv", "put", f"key-{i}", f"value-{i}")
    victim = ring.roles()["follower"][0]
    ring("kill", victim)
    _damage(ring, victim)
    ring("restart", victim)
    words = ring.wait(lambda: ring.status()[victim].get("output"), "a refusal")[-1]
    assert "is damaged at byte" in words
    assert "ring repair" in words
    ring("kv", "put", "meanwhile", "served")
    ring("repair", victim)
    ring.healthy()
    status = ring.wait(_level(ring), "the same state everywhere")
    assert status[victim]["says"]["keys"] == 9
    assert sorted(status[victim]["says"]["voters"]) == ["n1", "n2", "n3"]
    assert (ring.home / "nodes" / victim / "data.damaged-1/wal").exists()
    # It counts again: with it and without another one there is a majority.
    other = next(n for n in ("n1", "n2", "n3") if n not in (victim, ring.leader()))
    ring("kill", other)
    ring("kv", "put", "still", "served")
    assert ring("kv", "get", "key-3").stdout == "value-3\n"


def test_no_repair_without_a_majority_of_the_others(ring):
    ring.up()
    victim, other, *_ = ring.roles()["follower"]
    ring("kill", other)
    done = ring("repair", victim, status=1)
    assert "no majority" in done.stderr
    assert ring.status()[victim]["state"] == "running"


def _level(ring):
    def level():
        status = ring.status()
        applied = {node["says"].get("applied") for node in status.values()}
        return status if len(applied) == 1 and None not in applied else None

    return level
