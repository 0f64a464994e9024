"""Fixtures for tests of real processes."""

from __future__ import annotations

import os
import time

import pytest
from ring_kit import Ring, alive
from torrent_roles_kit import Roles, make_content

from netstack.runtime.dgram_endpoint import DgramEndpoint
from netstack.runtime.gso_endpoint import GsoEndpoint
from netstack.runtime.runtime import RealRuntime
from netstack.transport.host import Host
from security import keystore
from security.identity import Authority


@pytest.fixture
def ring(tmp_path):
    """`ring` with its own home; afterwards nothing of it runs any more."""
    tool = Ring(tmp_path / "home")
    yield tool
    pids = tool.pids() if (tool.home / "run" / "pids.json").exists() else []
    tool("down", status=None)
    assert not [pid for pid in pids if alive(pid)], "daemons were left behind"


@pytest.fixture
def roles(tmp_path):
    """Starts BitTorrent's roles, and ends them."""
    found = Roles(tmp_path)
    yield found
    found.close()


@pytest.fixture
def content(request, tmp_path):
    """A folder of files to share; a module may say how large, as CONTENT_BYTES."""
    (tmp_path / "source").mkdir()
    size = getattr(request.module, "CONTENT_BYTES", 1 << 20)
    return make_content(tmp_path / "source", size=size)


@pytest.fixture
def home(tmp_path):
    """A folder with the identities of a server and a caller."""
    authority = Authority.create("test", now=time.time(), entropy=os.urandom)
    for name in ("server", "caller"):
        identity = authority.issue(name, "echo", now=time.time(), entropy=os.urandom)
        keystore.save_identity(tmp_path, identity)
    return tmp_path


@pytest.fixture(params=[GsoEndpoint, DgramEndpoint])
async def start_host(home, request, monkeypatch):
    """Starts hosts on either kind of endpoint; `start_host.runtimes` has what they stand on."""

    async def bind_raw(self, address):
        return await request.param.bind(address)

    monkeypatch.setattr(RealRuntime, "bind_raw", bind_raw)
    started = []
    runtimes = {}

    async def start(name, port=0, **options):
        runtime = runtimes[name] = RealRuntime(name, home / name)
        host = Host(runtime, keystore.load_identity(home, name), service="echo", **options)
        await host.start(("127.0.0.1", port))
        started.append((host, runtime))
        return host

    start.runtimes = runtimes
    yield start
    for host, runtime in started:
        await host.close()
        runtime.close()
