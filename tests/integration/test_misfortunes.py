"""What the supervisor does to daemons beyond ending them: it takes effect, and it ends."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import pytest
from ring_kit import PATIENCE
from supervisor_kit import supervised

START = ("start", "ready")


@pytest.fixture
async def kept(tmp_path, monkeypatch):
    async with supervised(tmp_path / "home", monkeypatch) as running:
        await running.ask("reload")
        for name in ("n1", "n2", "n3"):
            await running.told(name, *START)
        yield running


async def request(kept, **fields):
    return await kept.send(json.dumps(fields).encode())


def proc(pid: int, file: str) -> bytes:
    """What the kernel says of a process."""
    return Path(f"/proc/{pid}/{file}").read_bytes()


def answers(address: str) -> str:
    """What a datagram to a port of this machine comes to."""
    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, int(port)))
        probe.settimeout(0.2)
        try:
            for _ in range(3):
                probe.send(b"anybody?")
                probe.recv(100)
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "silence"
    return "an answer"


async def test_a_killed_process_is_refused_for_and_a_lost_machine_is_silent(kept):
    address = (await kept.rows())["n1"]["address"]
    await kept.ask("kill", "n1")
    assert answers(address) == "refused"
    await kept.ask("lose", "n1")
    assert answers(address) == "silence"
    row = (await kept.rows())["n1"]
    assert (row["state"], row["reason"]) == ("killed", "host lost")


async def test_a_lost_machine_has_its_port_again_when_it_comes_back(kept):
    address = (await kept.rows())["n1"]["address"]
    await kept.ask("lose", "n1")
    await kept.told("n1", "exit -9 killed")
    await kept.ask("restart", "n1")
    await kept.told("n1", "exit -9 killed", *START)
    assert answers(address) == "refused"  # stand-ins bind nothing: nobody holds it now


async def test_a_daemon_that_keeps_crashing_stays_down_when_its_machine_is_lost(kept):
    kept.orders("n1", "crash")
    await kept.ask("restart", "n1")
    await kept.until(lambda: "exit 1 backoff" in kept.story("n1"), "a crash")
    await kept.ask("lose", "n1")
    assert (await kept.rows())["n1"]["pid"] == 0
    await asyncio.sleep(0.1)  # what happened before is written down by then
    story = kept.story("n1")
    await asyncio.sleep(0.2)
    assert kept.story("n1") == story


async def test_a_slow_node_stands_still_some_of_the_time_and_goes_on_when_that_ends(kept):
    pid = (await kept.rows())["n2"]["pid"]
    await request(kept, do="slow", nodes=["n2"], share=0.5)
    seen = [False]
    async with asyncio.timeout(PATIENCE):
        while len(seen) < 5:  # stopped, and on, and stopped, and on
            stopped = b"(stopped)" in proc(pid, "status")
            if stopped != seen[-1]:
                seen.append(stopped)
            await asyncio.sleep(0.003)
    turns = (await request(kept, do="slow", nodes=["n2"], share=1))["turns"]
    assert turns["n2"] > 0
    await asyncio.sleep(0.05)
    assert not any(b"(stopped)" in proc(pid, "status") for _ in range(20))


@pytest.mark.parametrize("verb", ["kill", "restart", "pause", "stop"])
async def test_what_happens_to_a_slow_node_ends_its_slowness(kept, verb):
    await request(kept, do="slow", nodes=["n2"], share=0.5)
    assert (await kept.ask(verb, "n2"))["nodes"] == ["n2"]
    turns = (await request(kept, do="slow", nodes=["n2"], share=1))["turns"]
    assert turns == {"n2": 0}


@pytest.mark.parametrize(("share", "why"), [(0, "between 0 and 1"), (1.5, "between 0 and 1")])
async def test_a_share_that_makes_no_sense_is_refused(kept, share, why):
    answer = await request(kept, do="slow", nodes=["n2"], share=share)
    assert why in answer["error"]


async def test_who_is_down_cannot_be_slow(kept):
    await kept.ask("kill", "n1")
    answer = await request(kept, do="slow", nodes=["n1"], share=0.5)
    assert answer["error"] == "n1 is killed; only a running node is slowed"


async def test_files_are_damaged_only_while_nobody_uses_them(kept):
    data = kept.home / "nodes" / "n1" / "data" / "log"
    data.parent.mkdir()
    data.write_bytes(b"what was promised")
    answer = await request(kept, do="damage", nodes=["n1"], how="wipe")
    assert answer["error"] == "n1 is running; kill it first"
    await kept.ask("kill", "n1")
    before = data.read_bytes()
    for how, left in (("keep", before), ("wipe", None), ("put-back", before)):
        assert (await request(kept, do="damage", nodes=["n1"], how=how))["ok"]
        assert (data.read_bytes() if data.exists() else None) == left
    assert (await request(kept, do="damage", nodes=["n1"], how="flip", seed=3))["ok"]
    assert sum(a != b for a, b in zip(data.read_bytes(), before, strict=True)) == 1


async def test_a_copy_that_was_never_kept_cannot_be_put_back_and_nothing_is_lost(kept):
    data = kept.home / "nodes" / "n1" / "data" / "log"
    data.parent.mkdir()
    data.write_bytes(b"promises")
    await kept.ask("kill", "n1")
    answer = await request(kept, do="damage", nodes=["n1"], how="put-back")
    assert "no copy of this node's files is kept" in answer["error"]
    assert data.read_bytes() == b"promises"


async def test_faults_of_a_machine_meet_the_next_process_at_its_start(kept):
    await kept.ask("kill", "n1")
    wrong = {"links": {"127.0.0.1:7402": {"loss": 0.5}}, "disk": {"full": True, "eio_at": 3}}
    answer = await request(kept, do="faults", changes={"n1": wrong})
    assert answer["faults"]["n1"]["disk"] == {"full": True, "eio_at": 3}
    await kept.ask("restart", "n1")
    await kept.told("n1", *START)
    pid = (await kept.rows())["n1"]["pid"]
    variables = proc(pid, "environ").split(b"\0")
    (faults,) = [v for v in variables if v.startswith(b"RING_FAULTS=")]
    assert json.loads(faults.partition(b"=")[2]) == {
        "links": {"127.0.0.1:7402": {"loss": 0.5}},
        "disk": {"full": True},
        "clock": {},
    }


async def test_faults_that_make_no_sense_are_refused_for_who_is_down_too(kept):
    await kept.ask("kill", "n1")
    answer = await request(kept, do="faults", changes={"n1": {"disk": {"hungry": True}}})
    assert "no fault 'hungry'" in answer["faults"]["n1"]["error"]
