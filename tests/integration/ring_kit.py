"""A cluster of real processes in a temporary home, as a user would run it. Ends all it started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

# Real processes on a shared machine: generous, and scaled by what the machine is busy with.
PATIENCE = 20.0 * max(1.0, os.getloadavg()[0] / 2)


class Ring:
    """`ring` with a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(
        self, *arguments: str, status: int | None = 0, lasts_s: float = 0.0
    ) -> subprocess.CompletedProcess[str]:
        """`lasts_s`: what it is told to take."""
        done = subprocess.run(
            [sys.executable, "-m", "cluster", *arguments],
            env={**os.environ, "RING_HOME": str(self.home), "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=lasts_s + 6 * PATIENCE,
        )
        if status is not None:
            assert done.returncode == status, f"ring {arguments}: {done.returncode}\n{done.stderr}"
        return done

    def up(self, *arguments: str) -> None:
        self("up", "--any-port", "--wait", str(PATIENCE), *arguments)

    def status(self) -> dict[str, dict]:
        done = self("status", "--json", status=None)
        return {node["name"]: node for node in json.loads(done.stdout)["nodes"]}

    def leader(self) -> str:
        return self.wait(lambda: next(iter(self.roles().get("leader", [])), None), "a leader")

    def roles(self) -> dict[str, list[str]]:
        roles: dict[str, list[str]] = {}
        for name, node in self.status().items():
            roles.setdefault(node["says"].get("role", "-"), []).append(name)
        return roles

    def healthy(self) -> None:
        self.wait(lambda: all(n["health"] == "ok" for n in self.status().values()), "health")

    def wait(self, condition, what: str):
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            time.sleep(0.05)
        raise AssertionError(f"{what} did not come about: {self.status()}")

    def pids(self) -> list[int]:
        path = self.home / "run" / "pids.json"
        return [entry["pid"] for entry in json.loads(path.read_text()).values()]

    def events(self, kind: str = "") -> list[dict]:
        done = self("events", "--json", "--kind", kind)
        return [json.loads(line) for line in done.stdout.splitlines()]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
