"""Fixtures for tests of real processes."""

from __future__ import annotations

import pytest
from ring_kit import Ring, alive


@pytest.fixture
def ring(tmp_path):
    """`ring` with its own home; afterwards nothing of it runs any more."""
    tool = Ring(tmp_path / "home")
    yield tool
    pids = tool.pids() if (tool.home / "run" / "pids.json").exists() else []
    tool("down", status=None)
    assert not [pid for pid in pids if alive(pid)], "daemons were left behind"
