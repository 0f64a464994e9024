"""The master's state in raftd: master and leader are killed, and nothing done is done again."""

from __future__ import annotations

import pytest
from test_mr_real import Under, act, gated, open_gate, pid_of, same_as_alone, work

__all__ = ["work"]


@pytest.fixture
def in_raft(ring):
    ring.up("raft=3", "mapreduce=2")
    return ring


@pytest.mark.slow
def test_master_and_leader_are_killed_and_the_job_goes_on(in_raft, work):
    ring = in_raft
    assert ring.status()["m1"]["says"]["state_in"] == "raft"
    under = Under(ring, gated(work))
    under.when(lambda state: state["maps"]["done"] >= 4 and state["maps"]["running"] >= 2)
    before = pid_of(ring, "m1")
    act(ring, "kill", "m1", ring.leader())
    act(ring, "restart", "m1")
    assert pid_of(ring, "m1") != before
    under.states.clear()
    under.when(lambda state: state["maps"]["running"] >= 2)
    open_gate(work)
    outcome = under.end()
    same_as_alone(work, gated(work))
    # Eight maps, each begun once: of those that were done, none again. Counted over both lives.
    assert outcome.tasks["map_attempts"] == 8
