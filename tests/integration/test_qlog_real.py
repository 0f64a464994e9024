"""`RING_QLOG=dir`, end to end: what a killed process leaves, and what a full disk costs."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from pathlib import Path

import pytest
from test_transport_real import Server, ask, until

from netstack.runtime.runtime import RealRuntime
from netstack.transport.host import Host
from netstack.transport.qlog_file import FLUSH_S, FOLDER_VARIABLE
from security import keystore

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "transport"))
qlog = importlib.import_module("qlog_kit")

SIZE = 200_000


@pytest.fixture
def logs(tmp_path, monkeypatch):
    folder = tmp_path / "logs" / "of this run"  # made when it is needed
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    return folder


@pytest.fixture
def server(home, logs):
    server = Server(home)
    yield server
    server.kill()


@pytest.fixture
def runtime(home):
    runtime = RealRuntime("caller", home / "caller")
    yield runtime
    runtime.close()


@pytest.fixture
async def caller(home, logs, runtime):
    host = Host(runtime, keystore.load_identity(home, "caller"), service="echo")
    await host.start(("127.0.0.1", 0))
    yield host
    await host.close()


def log_of(logs, role):
    """What the only file of that role holds now; "" if there is none yet."""
    paths = list(logs.glob(f"*-{role}-*.sqlog"))
    assert len(paths) <= 1
    return paths[0].read_text() if paths else ""


def bytes_in(records, way):
    """How much of stream 0 the packets carried, first and again."""
    frames = [f for p in qlog.of(records, f"transport:packet_{way}") for f in p["frames"]]
    pieces = {(f["offset"], f["length"]) for f in frames if f["frame_type"] == "stream"}
    return sum(length for _, length in pieces)


def records_if_whole(written):
    return qlog.read(written) if written.endswith("\n") else []


async def test_a_process_killed_with_9_leaves_a_log_up_to_a_moment_before(server, caller, logs):
    peer = await caller.connect(("127.0.0.1", server.start()), service="echo")
    # The little that was said is in the file soon, though the connection lives and is silent.
    assert await ask(peer, b"x") == b"x"
    await until(lambda: bytes_in(records_if_whole(log_of(logs, "server")), "sent") == 1)
    data = os.urandom(SIZE)
    asking = asyncio.create_task(ask(peer, data))
    before = peer.connection.received_packets
    await until(lambda: peer.connection.received_packets > before)
    server.kill()
    asking.cancel()
    records = qlog.read(log_of(logs, "server"))  # no record is cut short
    qlog.validate(records)
    states = [state["new"] for state in qlog.of(records, "connectivity:connection_state_updated")]
    assert states == ["attempted", "handshake_confirmed"]
    assert records[0]["trace"]["vantage_point"]["type"] == "server"


async def test_both_sides_tell_the_same_handshake_and_how_it_ended(server, caller, logs):
    peer = await caller.connect(("127.0.0.1", server.start()), service="echo")
    assert await ask(peer, b"x") == b"x"
    await peer.close()
    await until(lambda: '"closed"' in log_of(logs, "server"))
    ours, theirs = (records_if_whole(log_of(logs, role)) for role in ("client", "server"))
    qlog.validate(ours)
    qlog.validate(theirs)

    def sizes(records, way, *types):
        packets = qlog.of(records, f"transport:packet_{way}")
        return [
            (p["header"]["packet_type"], p["raw"]["length"])
            for p in packets
            if p["header"]["packet_type"] in types
        ]

    hello, again, final = sizes(ours, "sent", "initial", "handshake")
    assert (hello, again[0], final[0]) == (("initial", 1200), "initial", "handshake")
    retry, response = sizes(ours, "received", "retry", "handshake")
    assert retry[0] == "retry"
    # Of the first INITIAL the server keeps nothing: its log begins with the one that had a token.
    assert sizes(theirs, "received", "initial", "handshake") == [again, final]
    assert sizes(theirs, "sent", "initial", "handshake") == [response]
    for records in (ours, theirs):
        states = qlog.of(records, "connectivity:connection_state_updated")
        assert [s["new"] for s in states] == ["attempted", "handshake_confirmed", "closed"]


async def test_a_folder_that_cannot_be_written_costs_the_log_and_no_connection(
    server, caller, logs, monkeypatch, runtime
):
    port = server.start()
    monkeypatch.setenv(FOLDER_VARIABLE, "/proc/nowhere")
    told = []
    monkeypatch.setattr(runtime.events, "emit", lambda kind, **fields: told.append((kind, fields)))
    peer = await caller.connect(("127.0.0.1", port), service="echo")
    assert await ask(peer, b"x") == b"x"
    failed = [fields["error"] for kind, fields in told if kind == "transport.qlog_failed"]
    assert len(failed) == 1
    assert failed[0].startswith("/proc/nowhere/")


async def test_a_disk_that_is_full_costs_the_log_and_no_connection(
    server, caller, logs, monkeypatch, runtime
):
    port = server.start()
    told = []
    monkeypatch.setattr(runtime.events, "emit", lambda kind, **fields: told.append((kind, fields)))
    monkeypatch.setattr(Path, "open", lambda *_, **__: open("/dev/full", "wb", buffering=0))  # noqa: SIM115
    peer = await caller.connect(("127.0.0.1", port), service="echo")
    data = os.urandom(SIZE)
    assert await ask(peer, data) == data

    def failed():
        return [fields["error"] for kind, fields in told if kind == "transport.qlog_failed"]

    await until(failed)  # what is written waits a moment for more
    await asyncio.sleep(2 * FLUSH_S)
    assert len(failed()) == 1
    assert failed()[0].endswith("No space left on device")
