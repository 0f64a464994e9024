"""When a cluster is healthy: every node answers, and all follow one leader that is there."""

from __future__ import annotations

import pytest

from cluster.cli.lifecycle import _healthy


def row(name: str, role: str, leader: str, health: str = "ok", service: str = "raft"):
    says = {"role": role, "leader": leader} if service == "raft" else {}
    return {"name": name, "service": service, "health": health, "says": says}


LED_BY_N1 = (row("n1", "leader", "n1"), row("n2", "follower", "n1"))


@pytest.mark.parametrize(
    "rows",
    [LED_BY_N1, (row("n1", "leader", "n1"),), (row("d1", "", "", service="dht"),)],
    ids=["two that agree", "one alone", "a service without leaders"],
)
def test_healthy(rows):
    assert _healthy({"nodes": list(rows)})


@pytest.mark.parametrize(
    "rows",
    [
        (),
        (row("n1", "leader", "n1"), row("n2", "follower", "n1", health="silent")),
        (row("n1", "follower", "n3"), row("n2", "follower", "n3")),
        (row("n1", "leader", "n1"), row("n2", "leader", "n2")),
        (row("n1", "leader", "n1"), row("n2", "follower", "n2")),
        (*LED_BY_N1, row("d1", "", "", health="down", service="dht")),
    ],
    ids=["nobody", "silent", "led by who is gone", "two leaders", "disagree", "another is down"],
)
def test_not_healthy(rows):
    assert not _healthy({"nodes": list(rows)})
