"""Fixtures for tests of what a user runs."""

from __future__ import annotations

import pytest
from cli_kit import Typed


@pytest.fixture
def ring(monkeypatch, capsys, tmp_path) -> Typed:
    """`ring` with a home of its own, in which there is nothing yet."""
    monkeypatch.setenv("RING_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    return Typed(monkeypatch, capsys)
