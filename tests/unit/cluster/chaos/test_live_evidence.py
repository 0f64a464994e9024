"""How the ends of live processes are read from what the supervisor wrote down."""

from __future__ import annotations

import json

from cluster import topology
from cluster.chaos.raft_live import LiveRaft


def exited(target: str, status: int, state: str) -> str:
    event = {"kind": "process.exit", "target": target, "status": status, "state": state}
    return json.dumps(event) + "\n"


def test_ends_by_themselves_are_counted_by_how_they_were(tmp_path):
    home = tmp_path / "home"
    topology.create(home, {"raft": 3}, any_port=True, power_cut=True)
    live = LiveRaft(home)
    assert live._ended()["n1"] == {}
    log = home / "nodes" / "supervisor" / "events.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        file.write(exited("n1", -9, "backoff") + exited("n1", 1, "backoff"))
        file.write(exited("n2", -9, "killed") + exited("n2", 0, "stopped"))  # as it was wanted
        file.write(json.dumps({"kind": "process.start", "target": "n1"}) + "\n")
        file.write(exited("n1", 1, "fatal")[:20])  # a line that is being written
        file.flush()
        assert live._ended() == {"n1": {"gone": 1, "gave up": 1}, "n2": {}, "n3": {}}
        file.write(exited("n1", 1, "fatal")[20:] + exited("n3", -9, "backoff"))
        file.flush()
    assert live._ended() == {"n1": {"gone": 1, "gave up": 2}, "n2": {}, "n3": {"gone": 1}}
    assert live._ended() == {"n1": {"gone": 1, "gave up": 2}, "n2": {}, "n3": {"gone": 1}}
