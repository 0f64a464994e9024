"""Path-MTU discovery through a kernel, on paths narrower than loopback.

What goes out here is really cut by a device of 1,500 bytes: what is larger is refused by the
kernel (the device's own MTU), dropped (a router's), or would be cut into fragments, by which a
search would find any size to "work".
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from namespace_kit import behind_a_router, one_wire, why_there_are_none

from netstack.transport.config import BASE_MTU, MAX_DATAGRAM
from netstack.transport.mtu import PROBES_MAX, STEP_MIN

pytestmark = pytest.mark.skipif(bool(why_there_are_none()), reason=why_there_are_none())

IP_AND_UDP_BYTES = 28
SIZE = 5_000_000

# Nothing here takes a tenth of it, unless it hangs.
PATIENCE_S = 120.0

RECEIVE = """
import asyncio, hashlib, sys
from pathlib import Path
from netstack.runtime.runtime import RealRuntime
from netstack.transport.host import Host
from security import keystore

async def main(home, host, trains):
    def seen(peer):
        def opened(stream):
            digest = hashlib.sha256()
            def receiver(data, fin):
                digest.update(data)
                if fin:
                    stream.push(digest.digest(), fin=True)
            stream.receiver = receiver
        peer.on_stream = opened
    runtime = RealRuntime("server", home / "server", trains=trains)
    identity = keystore.load_identity(home, "server")
    here = Host(runtime, identity, service="echo", on_peer=seen)
    await here.start((host, 0))
    print(here.address[1], flush=True)
    await asyncio.Event().wait()

asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "trains"))
"""

SEND = """
import asyncio, hashlib, json, os, subprocess, sys
os.environ["RING_PURE"] = "1"  # it watches a method, past which a compiled caller would go
from pathlib import Path
from netstack.runtime.runtime import RealRuntime
from netstack.transport.host import Host
from netstack.transport.mtu import MtuDiscovery
from security import keystore

async def send(peer, data):
    stream, arrived = peer.open_stream(), b""
    await stream.write(data, fin=True)
    while part := await stream.read():
        arrived += part
    return arrived == hashlib.sha256(data).digest()

async def main(home, host, port, trains, size, *narrow):
    sizes, probe_arrived = [], MtuDiscovery.probe_arrived
    def watched(mtu, size, now):
        sizes.append(size)
        return probe_arrived(mtu, size, now)
    MtuDiscovery.probe_arrived = watched
    runtime = RealRuntime("caller", home / "caller", trains=trains)
    here = Host(runtime, keystore.load_identity(home, "caller"), service="echo")
    await here.start(("0.0.0.0", 0))
    peer = await here.connect((host, port), service="echo", expect="server")
    whole, more = await send(peer, os.urandom(size)), 0
    # A fast line has carried all before the search is over, which takes a round trip a probe.
    while peer.connection.mtu.searching and more < 100:
        whole, more = whole and await send(peer, os.urandom(100_000)), more + 1
    found = peer.stats()["mtu"]
    if narrow:
        subprocess.run(narrow, check=True)
        whole = whole and await send(peer, os.urandom(size))
    endpoint = here._endpoint._inner
    print(json.dumps({
        "whole": whole,
        "found": found,
        "state": repr(peer.connection.mtu),
        "probes_that_arrived": sizes,
        "trains": getattr(endpoint, "_trains", None),
        "failures": endpoint.send_failures,
        **peer.stats(),
    }))
    await here.close()

asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4] == "trains",
                 int(sys.argv[5]), *sys.argv[6:]))
"""


def transfer(home, path, trains, *narrow):
    """Sends SIZE bytes over a path, and again after `narrow`; what the sender says about it."""
    with path as (sender, receiver, host):
        command = receiver.enter(sys.executable, "-c", RECEIVE, str(home), host, trains)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as receiving:
            try:
                port = receiving.stdout.readline().strip()
                command = [sys.executable, "-c", SEND, str(home), host, port, trains, str(SIZE)]
                done = subprocess.run(
                    sender.enter(*command, *narrow),
                    stdout=subprocess.PIPE,
                    check=True,
                    text=True,
                    timeout=PATIENCE_S,
                )
            finally:
                receiving.kill()
    return json.loads(done.stdout)


@pytest.mark.parametrize("trains", ["trains", "singly"])
def test_a_device_of_1500_bytes_carries_1472_and_all_that_is_sent(home, trains):
    told = transfer(home, one_wire(1500), trains)
    assert told["whole"]
    assert told["mtu"] == 1500 - IP_AND_UDP_BYTES
    assert "complete" in told["state"]
    # The ladder's sizes that fit, and none that the kernel would have had to cut.
    assert told["probes_that_arrived"] == [1452, 1472]
    # Nothing was refused but probes, and nothing lost: each size that does not fit is tried thrice.
    assert 0 < told["failures"] <= 8 * PROBES_MAX
    if trains == "trains":
        assert told["trains"]  # the device's MTU is no reason to send all by one


@pytest.mark.parametrize("trains", ["trains", "singly"])
def test_a_router_that_is_narrower_is_found_out_by_what_it_drops(home, trains):
    told = transfer(home, behind_a_router(1400), trains)
    carried = 1400 - IP_AND_UDP_BYTES
    assert told["whole"]
    assert "complete" in told["state"]
    assert carried - 2 * STEP_MIN < told["mtu"] == max(told["probes_that_arrived"]) <= carried


@pytest.mark.parametrize("trains", ["trains", "singly"])
def test_a_device_that_gets_narrower_under_way_costs_time_and_no_byte(home, trains):
    narrow = ["ip", "link", "set", "lo", "mtu", "1500"]
    told = transfer(home, one_wire(65_536), trains, *narrow)
    assert told["whole"]
    assert told["found"] == MAX_DATAGRAM
    assert told["mtu"] == BASE_MTU  # the next search comes a minute later
    if trains == "trains":
        assert told["trains"]
