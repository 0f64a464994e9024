"""The state of one daemon under the supervisor, without I/O.

STOPPED ──start──> STARTING ──ready──> RUNNING ──(exits by itself)──> BACKOFF ──(time)──┐
                     ^   │               │ ^                             │               │
                     │   └──(too slow)───┤ │ resume                      └─(too often)─> FATAL
                     │            pause  └─┴──> PAUSED                                   │
                     └───────────────────────────────────────────────────────────────────┘
any of the living ──kill──> KILLED          stays down until asked: that is what was wanted
                  ──stop──> STOPPING ──(exits)──> STOPPED      (from BACKOFF: at once)
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

STOPPED, STARTING, RUNNING, BACKOFF = "stopped", "starting", "running", "backoff"
PAUSED, KILLED, STOPPING, FATAL = "paused", "killed", "stopping", "fatal"

ALIVE: Final = frozenset((STARTING, RUNNING, PAUSED, STOPPING))

BACKOFF_S_MIN, BACKOFF_S_MAX = 0.2, 5.0
# Crashes within this time that are too many: something is wrong that another start will not cure.
CRASHES_MAX: Final = 4
CRASH_WINDOW_S: Final = 30.0
READY_TIMEOUT_S: Final = 20.0


class IllegalTransition(Exception):
    """Asked for something that the node's state does not allow; a plain sentence."""


@dataclass(slots=True)
class NodeState:
    """One daemon."""

    name: str
    state: str = STOPPED
    pid: int = 0
    restarts: int = 0
    reason: str = ""
    deadline: float | None = None  # of STARTING and BACKOFF
    crashes: deque[float] = field(default_factory=deque)

    def __repr__(self) -> str:
        return f"<NodeState {self.name} {self.state} pid={self.pid} restarts={self.restarts}>"

    @property
    def alive(self) -> bool:
        """Whether there is a process."""
        return self.state in ALIVE

    def starting(self, pid: int, now: float) -> None:
        """A process was spawned."""
        if self.alive:
            raise IllegalTransition(f"{self.name} is {self.state} already")
        self.state, self.pid, self.reason = STARTING, pid, ""
        self.deadline = now + READY_TIMEOUT_S

    def ready(self) -> None:
        """The process says that it serves."""
        if self.state == STARTING:
            self.state, self.deadline = RUNNING, None

    def paused(self) -> None:
        """SIGSTOP is sent."""
        if self.state != RUNNING:
            raise IllegalTransition(f"{self.name} is {self.state}; only a running node is paused")
        self.state = PAUSED

    def resumed(self) -> None:
        """SIGCONT is sent."""
        if self.state != PAUSED:
            raise IllegalTransition(f"{self.name} is {self.state}, not paused")
        self.state = RUNNING

    def killed(self) -> None:
        """SIGKILL is sent, on purpose: no restart."""
        if not self.alive:
            raise IllegalTransition(f"{self.name} is {self.state}; there is nothing to kill")
        self.state, self.reason, self.deadline = KILLED, "kill -9", None

    def stopping(self) -> bool:
        """Asked to stop: True if there is a process that should be told (SIGTERM)."""
        self.deadline = None
        if self.alive:
            self.state = STOPPING
            return True
        if self.state == BACKOFF:
            self.state = STOPPED
        return False

    def exited(self, status: int, now: float) -> None:
        """The process is gone; `status` is negative for a signal."""
        self.pid = 0
        if self.state == KILLED:
            return
        if self.state == STOPPING:
            self.state = STOPPED
            return
        died = f"signal {-status}" if status < 0 else f"status {status}"
        self.reason = f"exited with {died}"
        self.crashes.append(now)
        while self.crashes and self.crashes[0] < now - CRASH_WINDOW_S:
            self.crashes.popleft()
        if len(self.crashes) >= CRASHES_MAX or status in (2, 5):
            # 2 and 5: a configuration or a port that another start will not change
            self.state, self.deadline = FATAL, None
            return
        self.state = BACKOFF
        wait_s = min(BACKOFF_S_MIN * 2 ** (len(self.crashes) - 1), BACKOFF_S_MAX)
        self.deadline = now + wait_s

    def restarted(self) -> None:
        """Another start is about to be made."""
        self.restarts += 1

    def restarted_on_request(self) -> None:
        """Another start is about to be made, and what went wrong before does not count."""
        self.crashes.clear()
        self.restarted()
