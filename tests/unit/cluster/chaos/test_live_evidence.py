"""How the ends of live processes are read: from the supervisor's log, and from the nodes' own."""

from __future__ import annotations

import json

import pytest

from cluster import topology
from cluster.chaos.raft_live import LiveRaft


@pytest.fixture
def live(tmp_path):
    home = tmp_path / "home"
    topology.create(home, {"raft": 3}, any_port=True, power_cut=True)
    for name in ("supervisor", "n1", "n2", "n3"):
        (home / "nodes" / name).mkdir(parents=True, exist_ok=True)
    return LiveRaft(home)


def log_of(live, name):
    return (live.home / "nodes" / name / "events.jsonl").open("a")


def exited(target: str, status: int, state: str) -> str:
    event = {"kind": "process.exit", "target": target, "status": status, "state": state}
    return json.dumps(event) + "\n"


def fatal(error: str) -> str:
    return json.dumps({"kind": "node.fatal", "where": "wal", "error": error}) + "\n"


def test_who_is_gone_without_a_word_is_counted_if_nobody_wanted_it(live):
    assert live._ended()["n1"] == {}
    with log_of(live, "supervisor") as file:
        file.write(exited("n1", -9, "backoff") + exited("n1", 1, "backoff"))
        file.write(exited("n2", -9, "killed") + exited("n2", 0, "stopped"))  # as it was wanted
        file.write(json.dumps({"kind": "process.start", "target": "n1"}) + "\n")
        file.write(exited("n1", -9, "fatal")[:20])  # a line that is being written
        file.flush()
        assert live._ended() == {"n1": {"gone": 1}, "n2": {}, "n3": {}}
        file.write(exited("n1", -9, "fatal")[20:] + exited("n3", -9, "backoff"))
        file.flush()
    assert live._ended() == {"n1": {"gone": 2}, "n2": {}, "n3": {"gone": 1}}
    assert live._ended() == {"n1": {"gone": 2}, "n2": {}, "n3": {"gone": 1}}


def test_who_gives_up_says_over_which_fault_of_its_disk(live):
    with log_of(live, "n1") as file:
        file.write(fatal("Fatal: the log cannot be written: [Errno 5] torn write"))
        file.write(fatal("Fatal: the log cannot be written: [Errno 5] Input/output error"))
        file.write(fatal("Fatal: the log cannot be written: [Errno 5] Input/output error"))
    with log_of(live, "n2") as file:
        file.write(fatal("Fatal: [Errno 5] Input/output error (failpoint wal.append.before-write)"))
        file.write(fatal("InvariantViolated: n1 and n2 led term 4"))
    assert live._ended() == {"n1": {"torn": 1, "eio": 2}, "n2": {}, "n3": {}}
    with log_of(live, "n3") as file:
        file.write(fatal("Fatal: the log cannot be written: [Errno 5] torn write"))
    assert live._ended() == {"n1": {"torn": 1, "eio": 2}, "n2": {}, "n3": {"torn": 1}}


def test_a_log_in_the_place_of_another_is_read_from_its_beginning(live):
    """Who was replaced writes a new one."""
    torn = fatal("Fatal: the log cannot be written: [Errno 5] torn write")
    with log_of(live, "n1") as file:
        file.write(torn * 3)
    assert live._ended()["n1"] == {"torn": 3}
    (live.home / "nodes" / "n1" / "events.jsonl").write_text(torn)
    assert live._ended()["n1"] == {"torn": 4}
