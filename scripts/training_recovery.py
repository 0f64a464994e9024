"""How long an elastic run takes to get over kill -9: `python scripts/training_recovery.py [TRIALS]`

Three ranks on a cluster of three. In each trial a member is killed, then the first (the parameter
server), each started again when the others have gone on; then the leader of raftd. Times are from
the kill, as this process hears of it; medians and worst.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

JOB = {"steps": 1_000_000, "batch": 48, "width": 32, "depth": 1}
NAMES = ("w1", "w2", "w3")
WAIT_S = 90.0


class Run:
    def __init__(self, home: Path):
        self.home = home
        self.events = queue.SimpleQueue()
        self.processes = {}

    def ring(self, *words):
        command = [sys.executable, "-m", "cluster", *words]
        environment = {**os.environ, "RING_HOME": str(self.home)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)

    def start(self, name):
        command = [sys.executable, "-m", "ddp.training", "worker", "--job", json.dumps(JOB)]
        command += ["--config", str(self.home / "cluster.toml"), "--run", "r", "--name", name]
        command += ["--founders", str(len(NAMES))]
        pipe = subprocess.PIPE
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        child = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        self.processes[name] = child
        threading.Thread(target=self._read, args=(name, child), daemon=True).start()

    def _read(self, name, child):
        for line in child.stdout:
            try:
                self.events.put((time.monotonic(), name, json.loads(line)))
            except ValueError:
                break

    def wait(self, wanted):
        """(time, name, event) of the first for which `wanted` is true."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            at, name, event = self.events.get(timeout=WAIT_S)
            if wanted(name, event):
                return at, name, event
        raise SystemExit("nothing came of it")

    def trial(self, victim):
        """Seconds to: the error on all others, the next step, the victim's next life healed."""
        others = set(NAMES) - {victim}
        self.processes[victim].kill()
        began = time.monotonic()
        lost, step = set(), None
        while lost != others or step is None:
            if time.monotonic() - began > WAIT_S:
                raise SystemExit(f"after the death of {victim}: lost told by {lost}, step {step}")
            at, name, event = self.wait(lambda n, e: n in others)
            if event["kind"] == "lost" and event["name"] == victim:
                lost.add(name)
                error = at - began
            elif event["kind"] == "step" and event["members"] == len(others) and step is None:
                step = at - began
        self.start(victim)
        born, _, _ = self.wait(lambda n, e: n == victim and e["kind"] == "started")
        healed, _, _ = self.wait(lambda n, e: n == victim and e["kind"] == "step")
        return error, step, healed - born

    def leader(self):
        while True:
            nodes = json.loads(self.ring("status", "--json").stdout)["nodes"]
            for node in nodes:
                if node["says"].get("role") == "leader":
                    return node["pid"]

    def leader_dies(self):
        """Seconds to the next step after the leader of raftd is killed."""
        pid = self.leader()
        os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        while not self.events.empty():
            self.events.get()
        at, _, _ = self.wait(lambda n, e: e["kind"] == "step")
        return at - began


def whole(name, event):
    return event["kind"] == "step" and event["members"] == len(NAMES)


def main(trials: int) -> None:
    with tempfile.TemporaryDirectory(prefix="ring-recovery-") as folder:
        run = Run(Path(folder) / "home")
        run.ring("up", "--any-port")
        try:
            for name in NAMES:
                run.start(name)
            found = {}
            for number in range(trials):
                for who in ("a member", "the first"):
                    _, _, event = run.wait(whole)
                    others = [name for name in NAMES if name != event["first"]]
                    victim = event["first"] if who == "the first" else others[number % 2]
                    times = run.trial(victim)
                    print(f"{who}, {victim}: {times}", file=sys.stderr, flush=True)
                    for what, seconds in zip(("error", "step", "healed"), times, strict=True):
                        found.setdefault(f"{who}: {what}", []).append(seconds)
                found.setdefault("leader of raftd: step", []).append(run.leader_dies())
                run.ring("restart", "all")
            for what, times in found.items():
                line = (
                    f"{what:24} median {statistics.median(times):6.3f} s  worst {max(times):6.3f}"
                )
                print(f"{line}  ({len(times)} trials)")
            print(f"load {os.getloadavg()[0]:.1f}")
        finally:
            for child in run.processes.values():
                child.kill()
                child.wait()
            run.ring("down")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
