"""Every fault that can be typed takes effect on live nodes, and shows that it does.

One cluster for the whole module, healed after each row. A fault that did not happen proves
nothing, so each is looked for where it bites: in what became of the datagrams of each edge, in
what a disk has failed, in the bytes of its files, in a node's own clocks, in a process that ended
at the named line. Order and counts are asserted, and of times only what they cannot fall below.

Kept elsewhere: kill, pause and a majority that is gone (test_kill9.py), a full disk and a node that
is cut off under load (test_ring.py), a damaged log and its repair (test_repair.py).
"""

from __future__ import annotations

import json
import random
import re
import time
from pathlib import Path

import pytest
from ring_kit import Ring, alive
from test_misfortunes import answers, proc

from cluster.control import Control
from netstack.transport.config import BASE_MTU
from raftd.client import SyncRaftClient

NODES = ("n1", "n2", "n3")
HEALED = ("links", "disk", "clock", "points")


class Watched(Ring):
    """Faults are typed; what comes of them is asked for over the supervisor's socket, as the
    commands do, so that looking often costs little."""

    def status(self) -> dict[str, dict]:
        return {row["name"]: row for row in self._ask("status")["nodes"]}

    def told(self) -> dict[str, dict]:
        """What each node says is wrong with it, and how often that has struck."""
        return self._ask("faults", changes={name: {} for name in self.status()})["faults"]

    def told_by_all(self) -> dict[str, dict] | None:
        """The same, once nobody is about to start."""
        found = self.told()
        return None if any("error" in answer for answer in found.values()) else found

    def _ask(self, what: str, **arguments) -> dict:
        with Control(self.home) as control:
            return control.ask(what, **arguments)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Three nodes that lose at kill -9 what a power cut would take."""
    ring = Watched(tmp_path_factory.mktemp("faults") / "home")
    ring.up("raft=3", "--power-cut")
    yield ring
    pids = ring.pids()
    ring("down")
    assert not [pid for pid in pids if alive(pid)], "daemons were left behind"


@pytest.fixture
def ring(cluster):
    yield cluster
    if any(row["pid"] == 0 for row in cluster.status().values()):
        cluster("restart", "all")
    wrong = cluster.wait(cluster.told_by_all, "answers of all nodes").values()
    commands = {"links": "net", "disk": "disk", "clock": "clock", "points": "crashpoint"}
    for part, command in commands.items():
        if any(set(answer[part]) - {"power_cut"} for answer in wrong):
            cluster(command, "heal")
    assert not any(set(a[p]) - {"power_cut"} for a in cluster.told().values() for p in HEALED)
    cluster.healthy()


def edges(ring) -> dict[tuple[str, str], dict]:
    """What is wrong with each directed edge, and what has become of its datagrams."""
    names = {row["address"]: name for name, row in ring.status().items()}
    return {
        (a, names[address]): link
        for a, answer in ring.told().items()
        for address, link in answer["links"].items()
    }


def both_ways(name: str) -> set[tuple[str, str]]:
    """All edges from and to a node."""
    return {pair for other in NODES if other != name for pair in ((name, other), (other, name))}


def put_takes(ring, *, value: bytes = b"value") -> float:
    """Seconds that a write takes whose leader is known."""
    with SyncRaftClient(ring.home / "cluster.toml") as client:
        client.put(b"warm", b"up", timeout_s=60)
        began = time.monotonic()
        client.put(b"timed", value, timeout_s=60)
        return time.monotonic() - began


def restarts(ring, name: str) -> int:
    return ring.status()[name]["restarts"]


def events_since(ring, name: str, count: int) -> list[dict]:
    """What a node has written down after its first `count` events."""
    return events_of(ring, name)[count:]


def events_of(ring, name: str) -> list[dict]:
    lines = (ring.home / "nodes" / name / "events.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def content(ring, name: str) -> dict[str, bytes]:
    """The files of a node's log, as they lie on its disk."""
    folder = ring.home / "nodes" / name / "data"
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def written(ring, name: str, value: bytes) -> bool:
    """Whether its disk has it."""
    return any(value in data for data in content(ring, name).values())


def word() -> str:
    """A value that is nowhere yet."""
    return f"word-{random.getrandbits(64):x}"


# -- links

# What is typed, with the leader for NODE; the policy that is then shown; and what must become of
# the datagrams of every edge from and to it, both ways.
LINKS = {
    "loss": ("loss NODE 50%", {"loss": 0.5}, ("dropped", "passed")),
    "burst": ("burst NODE 20% 3", {"burst_begin": 0.2, "burst_end": 1 / 3}, ("dropped", "passed")),
    "duplicate": ("duplicate NODE 100%", {"duplicate": 1.0}, ("duplicated",)),
    "reorder": ("reorder NODE 50%", {"reorder": 0.5}, ("reordered",)),
    "corrupt": ("corrupt NODE 50%", {"corrupt": 0.5}, ("corrupted",)),
    "delay": ("delay NODE 40ms --jitter 5ms", {"delay_s": 0.04, "jitter_s": 0.005}, ("passed",)),
}


@pytest.mark.parametrize("name", LINKS)
def test_what_is_wrong_with_links_befalls_their_datagrams_both_ways(ring, name):
    typed, policy, counted = LINKS[name]
    leader = ring.leader()
    ring("net", *typed.replace("NODE", leader).split())

    def happened():
        found = edges(ring)
        assert set(found) == both_ways(leader)
        assert {k: v for k, v in found[min(found)].items() if k != "counts"} == policy
        counts = [link["counts"] for link in found.values()]
        return all(count[what] for count in counts for what in counted) and counts

    counts = ring.wait(happened, f"datagrams that were {' and '.join(counted)}")
    others = {"dropped", "duplicated", "reordered", "corrupted", "marked"} - set(counted)
    assert not any(count[what] for count in counts for what in others)
    if name == "duplicate":
        assert all(count["duplicated"] == count["passed"] for count in counts)
    ring("kv", "put", "still", "served", "--timeout", "60")


def test_a_delay_is_in_every_write_that_crosses_the_link_twice(ring):
    ring("net", "delay", "all", "50ms")
    assert put_takes(ring) >= 2 * 0.05


def test_a_rate_is_in_every_write_that_is_large(ring):
    ring("net", "rate", "all", "400000")
    # One follower has to have it, and the packet that completes it waits for all before it.
    assert put_takes(ring, value=bytes(80_000)) >= 80_000 / 400_000
    shown, leader = edges(ring), ring.leader()
    assert [link["rate_bytes_s"] for link in shown.values()] == 6 * [400_000]
    # Two followers may have nothing to say to each other.
    assert all(shown[edge]["counts"]["passed"] for edge in both_ways(leader))


def test_a_value_for_which_a_link_needs_seconds_goes_over_it_in_small_packets(ring):
    """That the leader stays is for simulation to say, where nothing but the link is slow.

    In packets of 65 kB, each of which the link carries for 0.65 s, no heartbeat would be in time.
    """
    ring("net", "rate", "all", "100000")
    assert put_takes(ring, value=bytes(400_000)) >= 400_000 / 100_000
    passed = [edges(ring)[edge]["counts"]["passed"] for edge in both_ways(ring.leader())]
    assert max(passed) >= 400_000 / BASE_MTU


def test_what_is_wrong_is_shown_as_it_is(ring):
    ring("net", "loss", "n1", "100%")
    ring.wait(lambda: all(link["counts"]["dropped"] for link in edges(ring).values()), "losses")
    shown = json.loads(ring("net", "show", "--json").stdout)
    assert {name: set(answer["links"]) for name, answer in shown.items()} == {
        name: set(answer["links"]) for name, answer in ring.told().items()
    }
    table = ring("net", "show").stdout
    assert sorted(re.findall(r"(n\d) → (n\d)\s+loss=1.0\s+dropped \d+", table)) == sorted(
        both_ways("n1")
    )


GROUPS = {
    "one against two": (["n1"], [("n1",), ("n2", "n3")]),
    "two against one": (["n1,n2"], [("n1", "n2"), ("n3",)]),
    "all apart": (["n1", "n2"], [("n1",), ("n2",), ("n3",)]),
}


def cut_and_silent(ring, wanted: set[tuple[str, str]]):
    """Whether exactly these edges are cut, all have lost something, and none let anything by."""

    def silent():
        found = edges(ring)
        assert set(found) == wanted
        assert all(link["cut"] and not link["counts"]["passed"] for link in found.values())
        return all(link["counts"]["dropped"] for link in found.values())

    ring.wait(silent, f"datagrams lost on each of {sorted(wanted)}")


@pytest.mark.parametrize("name", GROUPS)
def test_between_groups_nothing_passes_either_way(ring, name):
    typed, groups = GROUPS[name]
    ring("net", "partition", *typed)
    between = {
        (a, b) for here in groups for there in groups if here != there for a in here for b in there
    }
    cut_and_silent(ring, between)


def told_cut(done) -> set[tuple[str, str]]:
    return {tuple(edge.split("→")) for edge in re.findall(r"n\d→n\d", done.stderr)}


# How many edges each shape cuts among three; everybody sees a majority there already on a ring.
SHAPES = {"halves": 4, "isolate": 4, "bridge": 2, "chain": 2, "one-way": 2, "ring": 0}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_cuts_the_edges_that_it_tells(ring, shape):
    cut = told_cut(ring("net", "partition", shape))
    assert len(cut) == SHAPES[shape]
    mutual = {(b, a) for a, b in cut} == cut
    assert mutual == (shape != "one-way")
    cut_and_silent(ring, cut)


def test_one_way_means_one_way(ring):
    """The leader is heard by nobody and hears all: it cannot lead, and those who hear may."""
    leader = ring.leader()
    others = [name for name in NODES if name != leader]
    ring("net", "one-way", leader, ",".join(others))
    cut_and_silent(ring, {(leader, other) for other in others})
    ring.wait(lambda: set(ring.roles().get("leader", [])) & set(others), "a leader that is heard")


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["bridge", "ring", "chain"])
def test_shapes_among_five(tmp_path, shape):
    """Where a ring is one: each hears two of four, and with itself a majority."""
    ring = Watched(tmp_path / "home")
    try:
        ring.up("raft=5")
        cut = told_cut(ring("net", "partition", shape))
        assert len(cut) == {"bridge": 8, "ring": 10, "chain": 12}[shape]
        heard = [sum((other, name) not in cut for other in ring.status()) for name in ring.status()]
        assert (
            sorted(heard)
            == {
                "bridge": [3, 3, 3, 3, 5],
                "ring": [3] * 5,
                "chain": [2, 2, 3, 3, 3],
            }[shape]
        )
        cut_and_silent(ring, cut)
    finally:
        ring("down", status=None)


# -- disks


def follower(ring) -> str:
    leader = ring.leader()
    return next(name for name in NODES if name != leader)


def dies_of(ring, name: str, words: str, before: int, seen: int) -> None:
    """It ends with these words rather than go on with a disk that failed, and comes back."""
    ring.wait(lambda: restarts(ring, name) == before + 1, f"the end of {name} and a new start")
    (fatal,) = [e for e in events_since(ring, name, seen) if e["kind"] == "node.fatal"]
    assert fatal["where"] == "wal"
    assert words in fatal["error"]


def test_a_torn_write_ends_the_node_which_repairs_its_log_when_it_starts(ring):
    name, value = follower(ring), word()
    before, seen = restarts(ring, name), len(events_of(ring, name))
    ring("disk", "torn", name)
    ring("kv", "put", "torn", value)
    dies_of(ring, name, "torn write", before, seen)
    # Half of a record was found at the end, kept aside, and cut off; then the others filled it up.
    ring.healthy()
    files = content(ring, name)
    assert files["wal/torn-tail"]
    ring.wait(lambda: written(ring, name, value.encode()), "what was torn, from the others")


def test_an_error_comes_at_the_nth_call_and_not_before(ring):
    name = follower(ring)
    before, seen = restarts(ring, name), len(events_of(ring, name))
    ring("disk", "error", name, "1000")
    ring("kv", "put", "error", "one")
    left = ring.wait(
        lambda: (n := ring.told()[name]["disk"]["eio_at"]) < 1000 and n, "calls that are counted"
    )
    assert 0 < left < 1000
    assert restarts(ring, name) == before
    ring("disk", "error", name, "1")
    ring("kv", "put", "error", "two")
    dies_of(ring, name, "Input/output error", before, seen)


def promise_and_lie(ring, name: str, value: str) -> None:
    """The sync of this write on this node is a lie, and no other one is."""
    before = word()
    ring("kv", "put", "before", before)
    ring.wait(lambda: written(ring, name, before.encode()), "a log without anything to catch up on")
    lies = ring.told()[name]["struck"].get("lies", 0)
    ring("disk", "lie", name, "--once")
    ring("kv", "put", "lie", value)
    ring.wait(lambda: ring.told()[name]["struck"].get("lies") == lies + 1, "one lie")


def test_a_lie_about_one_sync_leaves_the_disk_without_what_was_promised(ring):
    name, value = follower(ring), word()
    promise_and_lie(ring, name, value)
    have = [node for node in NODES if written(ring, node, value.encode())]
    assert name not in have
    assert have, "whoever acknowledged it has it"
    # The power goes: nothing comes later.
    ring("kill", name)
    assert not written(ring, name, value.encode())
    ring("restart", name)
    # Its leader goes by what it promised, and it says that this is not there any more.
    ring.wait(lambda: ring.status()[name]["health"] == "lost entries", "a node that knows")
    assert ring.status()[name]["says"]["last"] < ring.status()[ring.leader()]["says"]["last"]
    shown = ring("status", status=1)
    assert "lost entries" in shown.stdout
    assert f"{name}: it had acknowledged entries up to" in shown.stderr
    (lost,) = [event for event in events_of(ring, name) if event["kind"] == "raft.lost"]
    assert lost["last"] < lost["acknowledged"]
    # Another leader begins with asking what there is.
    ring("restart", ring.leader())
    ring.wait(lambda: written(ring, name, value.encode()), "what was lost, from the others")
    ring.healthy()


def test_who_lost_what_it_acknowledged_is_repaired_by_the_command_that_it_names(ring):
    name, value = follower(ring), word()
    promise_and_lie(ring, name, value)
    ring("kill", name)
    ring("restart", name)
    ring.wait(lambda: ring.status()[name]["health"] == "lost entries", "a node that knows")
    ring("repair", name)
    ring.healthy()
    ring.wait(lambda: written(ring, name, value.encode()), "a new copy")


def test_a_disk_that_always_lies_writes_nothing_until_it_is_healed(ring):
    name, first, second = follower(ring), word(), word()
    ring("disk", "lie", name)
    for value in (first, second):
        ring("kv", "put", "lie", value)
    ring.wait(lambda: ring.told()[name]["struck"].get("lies", 0) >= 2, "lies")
    assert not written(ring, name, first.encode())
    assert not written(ring, name, second.encode())
    ring("disk", "heal")
    ring("kv", "put", "lie", "truth")
    ring.wait(lambda: written(ring, name, second.encode()), "what had been waiting")


def test_a_full_disk_has_no_room_for_the_write_that_is_then_refused(ring):
    ring("disk", "full", "all")
    refused = ring("kv", "put", "full", word(), "--timeout", "2", status=None)
    assert refused.returncode in (2, 3, 4)
    assert all(answer["struck"].get("full") for answer in ring.told().values())


def test_a_slow_disk_is_in_every_write(ring):
    ring("disk", "slow", "all", "60ms")
    assert put_takes(ring) >= 0.06
    ring.wait(
        lambda: all(answer["struck"].get("slow") for answer in ring.told().values()), "slow syncs"
    )


def test_files_of_a_node_that_is_down_are_damaged_as_it_is_typed(ring):
    name = follower(ring)
    ring("kill", name)
    ring("disk", "keep", name)
    kept = content(ring, name)
    ring("disk", "flip", name, "--seed", "3")
    flipped = content(ring, name)
    assert [path for path in kept if kept[path] != flipped[path]] != []
    assert sum(_bits(kept[path], flipped[path]) for path in kept) == 1
    ring("disk", "put-back", name)
    assert content(ring, name) == kept
    ring("disk", "truncate", name, "--seed", "3")
    shorter = content(ring, name)
    (path,) = [path for path in kept if len(shorter[path]) != len(kept[path])]
    assert kept[path].startswith(shorter[path])
    ring("disk", "wipe", name)
    assert content(ring, name) == {}
    ring("disk", "put-back", name)
    assert content(ring, name) == kept


def _bits(a: bytes, b: bytes) -> int:
    """In how many bits two files of one length differ."""
    assert len(a) == len(b)
    return (int.from_bytes(a) ^ int.from_bytes(b)).bit_count()


def test_nobody_damages_the_files_of_a_node_that_runs(ring):
    done = ring("disk", "wipe", "n1", status=None)
    assert done.returncode != 0
    assert "n1 is running; kill it first" in done.stderr
    assert content(ring, "n1")


# -- clocks


def commits(ring, name: str) -> list[dict]:
    """One more write, which each node writes down with both its clocks; all such lines of one."""
    revision = int(ring("kv", "put", "clock", word()).stderr.split()[-1])

    def noted():
        found = [event for event in events_of(ring, name) if event["kind"] == "log.commit"]
        return found if found and found[-1]["revision"] >= revision else None

    return ring.wait(noted, f"revision {revision} in what {name} has written down")


def test_a_wall_clock_that_is_put_back_reads_so_and_the_steady_one_goes_on(ring):
    name = follower(ring)
    before = commits(ring, name)[-1]
    ring("clock", "skew", name, "-1000s")
    after = commits(ring, name)[-1]
    passed = after["mono"] - before["mono"]
    assert passed > 0
    # Both clocks are read for one line, one right after the other.
    assert after["wall"] - before["wall"] == pytest.approx(passed - 1000, abs=5)
    ring("clock", "heal")
    healed = commits(ring, name)[-1]
    assert healed["wall"] > before["wall"]


def test_a_steady_clock_that_drifts_runs_away_from_the_wall(ring):
    """By its own two clocks: twice as many steady seconds as seconds of the wall."""
    name = follower(ring)
    ring("clock", "rate", name, "2")
    first = commits(ring, name)[-1]
    time.sleep(1)  # something to measure; whatever else passes is measured too
    last = commits(ring, name)[-1]
    assert (last["mono"] - first["mono"]) / (last["wall"] - first["wall"]) == pytest.approx(2, 0.05)


# -- processes


def test_a_crashpoint_ends_the_process_at_its_line_without_a_word(ring):
    name, value = follower(ring), word()
    before, seen = restarts(ring, name), len(events_of(ring, name))
    ring("crashpoint", name, "wal.append.before-sync")
    assert ring.told()[name]["points"] == {
        "wal.append.before-sync": {"action": "crash", "after": 1}
    }
    ring("kv", "put", "crash", value)
    ring.wait(lambda: restarts(ring, name) == before + 1, "the end of it and a new start")

    def since() -> list[str]:
        return [event["kind"] for event in events_since(ring, name, seen)]

    ring.wait(lambda: "node.start" in since(), "the beginning of another life")
    assert not {"node.fatal", "node.stop"} & set(since())
    ring.wait(ring.told_by_all, "answers of all nodes")
    assert ring.told()[name]["points"] == {}
    ring.wait(lambda: written(ring, name, value.encode()), "what it died over, from the others")


def test_a_crashpoint_can_stumble_instead_and_says_where(ring):
    name = follower(ring)
    before, seen = restarts(ring, name), len(events_of(ring, name))
    ring("crashpoint", name, "wal.append.before-write", "--action", "error")
    ring("kv", "put", "stumble", word())
    dies_of(ring, name, "failpoint wal.append.before-write", before, seen)


def test_a_crashpoint_that_is_healed_ends_nobody_when_its_line_is_reached(ring):
    """Armed far ahead on one node, and on another so that the next write would end it."""
    far, near = follower(ring), ring.leader()
    before = {name: restarts(ring, name) for name in NODES}
    ring("crashpoint", far, "raft.persisted", "--after", "100000")
    ring("crashpoint", near, "wal.append.before-write", "--after", "3")
    told = ring.told()
    armed = {name: set(told[name]["points"]) for name in NODES if told[name]["points"]}
    assert armed == {far: {"raft.persisted"}, near: {"wal.append.before-write"}}
    healed = ring("crashpoint", "heal")
    assert "✓ points healed on n1, n2, n3" in healed.stderr
    for number in range(5):
        ring("kv", "put", "passes", str(number))
    assert [answer["points"] for answer in ring.told().values()] == [{}, {}, {}]
    assert {name: restarts(ring, name) for name in NODES} == before


def test_who_stands_still_hears_of_crashpoints_when_it_goes_on(ring):
    healed, armed = sorted(name for name in NODES if name != ring.leader())
    before, pids = {name: restarts(ring, name) for name in NODES}, ring.status()
    ring("crashpoint", healed, "wal.append.before-write")
    ring("pause", f"{healed},{armed}")
    ring("crashpoint", "heal")
    ring("crashpoint", armed, "wal.append.before-write")
    ring("resume", "all")
    ring("kv", "put", "after", "the pause")
    ring.wait(lambda: restarts(ring, armed) == before[armed] + 1, "the end of one of them")
    ring.healthy()
    assert ring.status()[healed]["pid"] == pids[healed]["pid"]


def test_who_has_no_process_comes_to_no_line_of_its_code(ring):
    name = follower(ring)
    ring("kill", name)
    refused = ring("crashpoint", name, "wal.append.before-write", status=1).stderr
    assert f"{name} is killed: without a process it comes to no line of its code" in refused
    ring("crashpoint", "heal")


def test_every_point_of_the_list_is_in_the_source_and_the_rest_is_refused(ring):
    shown = re.findall(r"(\S+)\s+(raftd/\w+\.py):(\d+)", ring("crashpoint").stdout)
    assert len(shown) >= 10
    root = Path(__file__).parents[2]
    for name, path, line in shown:
        assert f'"{name}"' in (root / path).read_text().splitlines()[int(line) - 1]
    assert "no point 'nowhere'" in ring("crashpoint", "n1", "nowhere", status=2).stderr


def test_a_slow_node_is_stopped_and_goes_on_again_and_again(ring):
    name = follower(ring)
    pid = ring.status()[name]["pid"]
    ring("slow", name, "30%")
    seen = [False]

    def strobed():
        stopped = b"(stopped)" in proc(pid, "status")
        if stopped != seen[-1]:
            seen.append(stopped)
        return len(seen) >= 9

    try:
        _look(strobed)
        ring("kv", "put", "slow", "node")
    finally:
        ring("slow", name, "100%")
    assert not any(b"(stopped)" in proc(pid, "status") for _ in range(50))


def _look(condition) -> None:
    """Without the pauses of `Ring.wait`, which might keep step with what is looked at."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.003)


def test_who_is_killed_refuses_and_whose_machine_is_lost_is_silent(ring):
    name = follower(ring)
    address = ring.status()[name]["address"]
    ring("kill", name)
    assert answers(address) == "refused"
    ring("restart", name)
    ring.healthy()
    ring("kill", name, "--host")
    row = ring.status()[name]
    assert (row["state"], row["reason"], row["pid"]) == ("killed", "host lost", 0)
    assert answers(address) == "silence"
    ring("kv", "put", "two", "are enough")
