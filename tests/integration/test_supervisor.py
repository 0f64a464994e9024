"""The supervisor over real processes: who is started again, who stays down, and that none is lost.

The daemons are stand-ins that crash, hang or refuse to end as a test orders.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

import pytest
from supervisor_kit import supervised, supervised_apart

from cluster import node, supervisor, topology
from cluster.control import socket_path

START = ("start", "ready")
NAMES = ("n1", "n2", "n3")


@pytest.fixture
async def kept(tmp_path, monkeypatch):
    async with supervised(tmp_path / "home", monkeypatch) as running:
        yield running


@pytest.fixture
async def apart(tmp_path):
    async with supervised_apart(tmp_path / "home") as running:
        yield running


async def up(kept, *names: str) -> None:
    await kept.ask("reload")
    for name in names or NAMES:
        await kept.told(name, *START)


# -- ends that nobody asked for


async def test_who_is_killed_from_outside_is_started_again_and_the_restart_is_counted(kept):
    await up(kept)
    for crash in (1, 2):
        os.kill((await kept.rows())["n1"]["pid"], signal.SIGKILL)
        await kept.told("n1", *START, *["exit -9 backoff", *START] * crash)
    rows = await kept.rows()
    assert [rows[name]["restarts"] for name in NAMES] == [2, 0, 0]
    assert Counter(kept.processes().values()) == dict.fromkeys(NAMES, 1)


async def test_who_crashes_too_often_is_given_up_with_its_last_words_and_the_others_serve(kept):
    kept.orders("n2", "crash")
    await up(kept, "n1", "n3")
    crash = ["start", "ready", "exit 1 backoff"]
    await kept.told("n2", *crash * (node.CRASHES_MAX - 1), "start", "ready", "exit 1 fatal")
    row = (await kept.rows())["n2"]
    assert (row["state"], row["restarts"]) == ("fatal", node.CRASHES_MAX - 1)
    assert row["reason"] == "exited with status 1"
    assert row["output"] == ["n2 crash"] * node.CRASHES_MAX
    assert kept.story("n1") == kept.story("n3") == [*START]


@pytest.mark.parametrize("status", [2, 5])
async def test_who_refuses_its_configuration_or_port_is_not_started_again(kept, status):
    kept.orders("n3", f"exit {status}", "serve")
    await up(kept, "n1", "n2")
    await kept.told("n3", "start", f"exit {status} fatal")
    # Nobody tries until it is asked for: then the cause may be gone.
    assert (await kept.ask("reload"))["started"] == ["n3"]
    await kept.told("n3", *START)


async def test_who_is_not_ready_in_time_is_killed_and_counts_as_crashed(kept, monkeypatch):
    monkeypatch.setattr(node, "READY_TIMEOUT_S", 0.3)
    kept.orders("n1", "mute")
    await kept.ask("reload")
    failure = ["start", "not_ready", "exit -9 backoff"]
    await kept.told("n1", *failure * (node.CRASHES_MAX - 1), *failure[:2], "exit -9 fatal")
    assert "exit -9 fatal" in kept.story("n1")


# -- ends that were asked for


async def test_who_was_killed_on_purpose_stays_down_until_it_is_asked_for(kept):
    await up(kept)
    await kept.ask("kill", "n1")
    # A crash that comes after it is long cured, and it has still not been started.
    os.kill((await kept.rows())["n2"]["pid"], signal.SIGKILL)
    await kept.told("n2", "exit -9 backoff", *START)
    assert kept.story("n1") == [*START, "exit -9 killed"]
    assert await kept.states() == {"n1": "killed", "n2": "running", "n3": "running"}
    await kept.ask("restart", "n1")
    await kept.told("n1", *START)
    assert (await kept.rows())["n1"]["restarts"] == 1


async def test_who_is_paused_stays_so_until_it_is_resumed_and_is_the_same_process(kept):
    await up(kept)
    pid = (await kept.rows())["n1"]["pid"]
    await kept.ask("pause", "n1")
    assert await kept.refused("pause", "n1") == "n1 is paused; only a running node is paused"
    assert (await kept.ask("reload"))["started"] == []
    row = (await kept.rows())["n1"]
    assert (row["state"], row["health"], row["pid"]) == ("paused", "silent", pid)
    await kept.ask("resume", "n1")
    assert await kept.refused("resume", "n1") == "n1 is running, not paused"
    assert kept.story("n1") == [*START]


async def test_a_paused_node_still_ends_by_itself_when_it_is_stopped(kept):
    await up(kept)
    await kept.ask("pause", "n1")
    await kept.ask("restart", "n1")
    await kept.told("n1", *START, "exit 0 stopped", *START)


async def test_who_does_not_end_when_told_to_is_killed_after_a_while(kept, monkeypatch):
    monkeypatch.setattr(supervisor, "STOP_S", 0.3)
    kept.orders("n1", "stubborn")
    await up(kept)
    await kept.ask("stop", *NAMES)
    assert kept.story("n1")[-1:] != ["exit 0 stopped"]
    await kept.told("n1", *START, "exit -9 stopped")
    await kept.told("n2", *START, "exit 0 stopped")
    assert not kept.processes()


async def test_who_is_no_longer_in_the_file_is_stopped_and_forgotten(kept):
    await up(kept)
    config = topology.load(kept.home)
    topology.write(kept.home, topology.resize(kept.home, config, "raft", 2))
    assert (await kept.ask("reload"))["stopped"] == ["n3"]
    assert sorted(await kept.states()) == ["n1", "n2"]
    assert "there is no node 'n3' here" in await kept.refused("kill", "n3")
    assert sorted(kept.processes().values()) == ["n1", "n2"]


async def test_a_second_reload_changes_nothing(kept):
    await up(kept)
    before = kept.processes()
    assert await kept.ask("reload") == {"ok": True, "started": [], "stopped": []}
    assert kept.processes() == before


async def test_down_ends_all_whatever_state_they_are_in(kept):
    kept.orders("n3", "exit 2")
    await up(kept, "n1", "n2")
    await kept.ask("pause", "n1")
    await kept.told("n3", "exit 2 fatal")
    assert (await kept.ask("down"))["stopped"] == ["n1", "n2"]
    assert not kept.processes()
    await kept.until(lambda: not socket_path(kept.home).exists(), "the end of the supervisor")


# -- two things asked at once


async def test_two_restarts_at_once_leave_one_process(apart):
    apart.orders("n1", "slow")
    await up(apart)
    await apart.at_once(("restart", "n1"), ("restart", "n1"))
    await apart.until(lambda: apart.story("n1").count("ready") > 1, "a new start")
    await apart.until(lambda: "n1" in apart.processes().values(), "its process")
    assert Counter(apart.processes().values())["n1"] == 1


async def test_a_restart_during_a_kill_leaves_one_process(apart):
    await up(apart)
    await apart.at_once(("kill", "n1"), ("restart", "n1"))
    await apart.until(lambda: apart.story("n1").count("ready") > 1, "a new start")
    assert apart.story("n1") == [*START, "exit -9 killed", *START]
    assert Counter(apart.processes().values()) == dict.fromkeys(NAMES, 1)


async def test_killing_all_kills_those_that_run_though_one_is_down(kept):
    await up(kept)
    await kept.ask("kill", "n2")
    await kept.send(b'{"do": "kill", "nodes": ["n1", "n2", "n3"]}')
    assert await kept.states() == dict.fromkeys(NAMES, "killed")


async def test_a_stop_holds_for_who_waits_to_be_started_again_too(kept, monkeypatch):
    monkeypatch.setattr("cluster.node.BACKOFF_S_MIN", 0.5)
    await up(kept)
    os.kill((await kept.rows())["n1"]["pid"], signal.SIGKILL)
    await kept.told("n1", "exit -9 backoff")
    await kept.ask("stop", "n1")
    assert (await kept.rows())["n1"]["state"] == "stopped"


# -- requests that make no sense


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"x", b"[]", b"null", b"\xff\xfe", b'{"do": "fly"}', b'{"do": ["kill"]}'),
        *(b'{"do": "kill"}', b'{"do": "kill", "nodes": [["n1"]]}', b'{"do": "pause", "nodes": 3}'),
    ],
)
async def test_a_request_that_makes_no_sense_is_told_so_and_the_next_is_served(kept, line):
    answer = await kept.send(line)
    assert answer["ok"] is False
    assert answer["error"]
    assert (await kept.ask("status"))["home"] == str(kept.home)


@pytest.mark.parametrize(
    "line",
    [b'{"do": "faults", "changes": []}', b'{"do": "status", "x": "' + b"x" * 100_000 + b'"}'],
    ids=["faults", "long"],
)
async def test_a_request_of_a_wrong_shape_or_a_long_one_is_answered_too(kept, line):
    assert "ok" in await kept.send(line)


async def test_an_unknown_node_is_named(kept):
    await up(kept)
    for verb in ("kill", "pause", "resume", "restart", "stop"):
        assert await kept.refused(verb, "n9") == "there is no node 'n9' here"
    assert [kept.story(name) for name in NAMES] == [[*START]] * 3
