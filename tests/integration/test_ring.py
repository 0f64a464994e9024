"""`ring` as a newcomer types it: exit statuses, idempotence, clear errors, nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

from ring_kit import PATIENCE, Ring, alive

from cluster.control import socket_path


def test_the_transcript_of_the_readme(ring):
    ring.up()
    assert sorted(ring.status()) == ["n1", "n2", "n3"]
    ring("kv", "put", "greeting", "hello")
    assert ring("kill", "leader").stderr.startswith("✓ killed n")
    assert ring("kv", "get", "greeting").stdout == "hello\n"
    # The killed one stays killed, so these are two.
    assert "✓ stopped 2 nodes; data stays in" in ring("down").stderr


def test_who_is_killed_stays_so_until_it_is_restarted(ring):
    ring.up()
    killed = ring("kill", "leader").stderr
    status = ring("status", status=1)
    assert "killed" in status.stdout
    ring("restart", "all")
    ring.healthy()
    name = killed.split()[2]
    assert ring.status()[name]["restarts"] == 1
    assert "stopped 3 nodes" in ring("down").stderr


def test_up_twice_changes_nothing(ring):
    ring.up()
    pids = ring.pids()
    again = ring("up", "--any-port")
    assert "nothing was changed" in again.stderr
    assert ring.pids() == pids


def test_down_twice_is_fine_and_data_stays(ring):
    ring.up()
    ring("kv", "put", "k", "v")
    ring("down")
    assert "no cluster is running" in ring("down").stderr
    ring.up()
    assert ring("kv", "get", "k").stdout == "v\n"
    ring("down", "--wipe")
    assert not ring.home.exists()


def test_commands_without_a_cluster_say_so(ring):
    for command in (["status"], ["kill", "n1"], ["net", "heal"]):
        done = ring(*command, status=6)
        assert "ring up" in done.stderr
        assert done.stdout == ""


def test_what_is_typed_wrong_is_told(ring):
    assert "write raft=N" in ring("up", "raft=x", status=2).stderr
    assert "write raft=N" in ring("up", "mars=3", status=2).stderr
    ring.up()
    assert "nodes: n1, n2, n3" in ring("kill", "n9", status=2).stderr
    assert "with its unit" in ring("net", "delay", "n1", "20", status=2).stderr
    assert "not a probability" in ring("net", "loss", "n1", "2", status=2).stderr
    assert "no comparison" in ring("kv", "txn", "--if", "nonsense", status=2).stderr


def test_a_taken_port_is_a_conflict_that_names_its_holder(ring, tmp_path):
    ring.up()
    other = Ring(tmp_path / "other")
    other.home.mkdir()
    text = (ring.home / "cluster.toml").read_text()
    (other.home / "cluster.toml").write_text(text)
    done = other("up", status=5)
    assert "is taken by pid" in done.stderr
    assert "raftd" in done.stderr


def test_two_homes_side_by_side(ring, tmp_path):
    other = Ring(tmp_path / "other")
    try:
        ring.up()
        other.up()
        ring("kv", "put", "k", "here")
        other("kv", "put", "k", "there")
        assert ring("kv", "get", "k").stdout == "here\n"
        assert other("kv", "get", "k").stdout == "there\n"
    finally:
        other("down", status=None)


def test_no_daemon_survives_its_supervisor(ring):
    ring.up()
    pids = ring.pids()
    supervisor = json.loads(ring("status", "--json").stdout)["pid"]
    os.kill(supervisor, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not [pid for pid in pids if alive(pid)]
    ring.up()
    ring("kv", "put", "k", "v")


def test_a_daemon_that_crashes_is_started_again(ring):
    ring.up()
    victim = ring.status()["n1"]["pid"]
    os.kill(victim, signal.SIGSEGV)
    ring.wait(lambda: ring.status()["n1"]["pid"] not in (0, victim), "a new process")
    ring.healthy()
    assert ring.status()["n1"]["restarts"] == 1


def test_a_daemon_that_cannot_start_fails_up_with_its_last_words(ring):
    ring.up()
    ring("down")
    path = ring.home / "cluster.toml"
    path.write_text(path.read_text().replace("power_cut", "powercut"))
    done = ring("up", "--wait", "15", status=4)
    assert "no setting raft.powercut" in done.stderr
    assert (ring.home / "nodes/n1/output.log").exists()


def test_an_unreadable_cluster_file(ring):
    ring.home.mkdir()
    (ring.home / "cluster.toml").write_text("[cluster\n")
    assert "is not TOML" in ring("up", status=2).stderr


def test_the_daemon_itself_refuses_with_one_line(ring):
    ring.up()
    config = str(ring.home / "cluster.toml")

    def raftd(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "raftd", *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    unknown = raftd("--node", "n9", "--config", config)
    assert unknown.returncode == 2
    assert "its nodes are: n1, n2, n3" in unknown.stderr
    assert len(unknown.stderr.splitlines()) == 1
    second = raftd("--node", "n1", "--config", config)
    assert second.returncode == 5
    assert f"n1 is running already, as pid {ring.status()['n1']['pid']}" in second.stderr
    ring("down")
    (ring.home / "nodes/n1/key").chmod(0o644)
    open_key = raftd("--node", "n1", "--config", config)
    assert open_key.returncode == 2
    assert "chmod 600" in open_key.stderr


def test_grow_to_five_and_shrink_to_three(ring):
    ring.up()
    for i in range(5):
        ring("kv", "put", f"key-{i}", str(i))
    ring("up", "raft=5", "--wait", str(PATIENCE))
    status = ring.status()
    assert len(status) == 5
    assert all(len(node["says"]["voters"]) == 5 for node in status.values())
    ring("kill", "minority")
    assert ring("kv", "get", "key-3").stdout == "3\n"
    ring("restart", "all")
    ring.healthy()
    ring("up", "raft=3", "--wait", str(PATIENCE))
    status = ring.status()
    assert len(status) == 3
    assert all(len(node["says"]["voters"]) == 3 for node in status.values())
    assert ring("kv", "get", "key-4").stdout == "4\n"


def test_logs_and_events(ring):
    ring.up()
    kinds = [event["kind"] for event in ring.events("raft.role")]
    assert kinds
    assert set(kinds) == {"raft.role"}
    events = ring("events", "n1", "-n", "3").stdout.splitlines()
    assert len(events) == 3
    assert "n1" in events[0]
    ring("logs")


def test_the_store_from_the_command_line(ring):
    ring.up()
    for key, value in (("a/1", "x"), ("a/2", "y"), ("b", "z")):
        ring("kv", "put", key, value)
    assert ring("kv", "range", "a/", "--prefix").stdout == "a/1\tx\na/2\ty\n"
    pair = json.loads(ring("kv", "get", "a/2", "--json").stdout)
    assert (pair["value"], pair["version"]) == ("y", 1)
    ring("kv", "txn", "--if", "value:b=z", "--then", "put b w")
    ring("kv", "txn", "--if", "value:b=z", "--then", "put b never", status=1)
    assert ring("kv", "get", "b").stdout == "w\n"
    assert "deleted 2" in ring("kv", "del", "a/", "--prefix").stderr
    ring("kv", "get", "a/1", status=1)
    lease = ring("kv", "lease", "grant", "1").stdout.strip()
    ring("kv", "put", "soon", "gone", "--lease", lease)
    ring.wait(lambda: ring("kv", "get", "soon", status=None).returncode == 1, "the lease's end")
    watched = ring("kv", "watch", "b", "--revision", "1", "--count", "2").stdout
    assert [line.split("\t")[1:] for line in watched.splitlines()] == [
        ["put", "b", "z"],
        ["put", "b", "w"],
    ]


def test_faults_of_links_take_effect_and_heal(ring):
    ring.up()
    leader = ring.leader()
    ring("net", "isolate", leader)
    shown = ring("net", "show").stdout
    assert "cut=True" in shown
    ring.wait(lambda: ring.roles().get("leader", [leader]) != [leader], "another leader")
    ring("kv", "put", "k", "v")
    assert "dropped" in ring("net", "show").stdout
    ring("net", "heal")
    ring.healthy()
    assert "all links are good" in ring("net", "show").stderr


def test_a_full_disk_refuses_writes_keeps_serving_and_recovers(ring):
    ring.up()
    ring("kv", "put", "k", "v")
    ring("disk", "full", "all")
    refused = ring("kv", "put", "k", "w", "--timeout", "3", status=None)
    assert refused.returncode in (2, 3, 4)
    assert ring("kv", "get", "k").stdout in ("v\n", "w\n")
    ring("disk", "heal")
    ring("kv", "put", "k", "x")
    assert ring("kv", "get", "k").stdout == "x\n"


def test_garbage_to_a_nodes_port_is_counted_and_harms_nobody(ring):
    ring.up()
    host, port = ring.status()["n1"]["address"].rsplit(":", 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for i in range(2000):
            stranger.sendto(os.urandom(i % 1400), (host, int(port)))
    ring("kv", "put", "k", "v")
    ring.healthy()
    line = r'^ring_transport_(\w+)_total{node="n1"} (\d+)'
    counted = {name: int(n) for name, n in re.findall(line, ring("metrics").stdout, re.M)}
    assert counted["malformed"] > 0
    assert counted["unknown"] > 1000


def test_a_client_of_another_cluster_is_refused(ring, tmp_path):
    ring.up()
    other = Ring(tmp_path / "other")
    try:
        other.up()
    finally:
        other("down", status=None)
    stolen = tmp_path / "stolen"
    stolen.mkdir()
    (stolen / "cluster.toml").write_text((ring.home / "cluster.toml").read_text())
    for folder in ("ca", "nodes"):
        (stolen / folder).symlink_to(other.home / folder)
    # The cluster runs, and is where it is looked for.
    socket_path(stolen).parent.mkdir(exist_ok=True)
    socket_path(stolen).symlink_to(socket_path(ring.home))
    done = Ring(stolen)("kv", "get", "k", "--timeout", "2", status=4)
    assert "no leader was reached" in done.stderr
