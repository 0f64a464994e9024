"""Real ranks of an elastic run: processes on a real cluster, and what they have said."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time

from ring_kit import PATIENCE

# Shared machine: long enough not to put out who is merely late.
SILENCE_S = 0.5


class Rank:
    """One process; `said` grows as it speaks."""

    def __init__(self, config, job, run, name, founders, silence=SILENCE_S, **flags):
        role = "server" if name.startswith("ps") else "worker"
        self.name = name
        command = [sys.executable, "-m", "ddp.training", "worker", "--job", json.dumps(job)]
        command += ["--config", str(config), "--run", run, "--name", name]
        command += ["--founders", str(founders), "--silence", str(silence), "--role", role]
        command += [f"--{flag}={value}" for flag, value in flags.items()]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
        self.said = []
        self._lines = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self._lines.put((time.monotonic(), json.loads(line)))

    def update(self):
        while True:
            try:
                at, said = self._lines.get_nowait()
            except queue.Empty:
                return self.said
            self.said.append(said | {"at": at})

    def of(self, kind):
        return [said for said in self.update() if said["kind"] == kind]

    def steps(self):
        return [said["step"] for said in self.of("step")]

    def signal(self, number):
        os.kill(self.process.pid, number)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.wait()

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.stdin.close()
            try:
                self.process.wait(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            pipe.close()


def wait(condition, what, ranks=()):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    for rank in ranks:
        code = rank.process.poll()
        tail = rank.process.stderr.read()[-2000:] if code is not None else ""
        print(rank.name, code, rank.update()[-4:], tail)
    raise AssertionError(f"{what} did not come about")
