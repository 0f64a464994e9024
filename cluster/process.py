"""A child process that cannot outlive its supervisor, and whose pid cannot be mistaken.

The kernel sends it SIGKILL when the supervisor dies (PR_SET_PDEATHSIG), however that happens. It
is signalled through a pidfd, which names the process and not a number that may have been given to
another since.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Final

from netstack.runtime.parent import die_with

PR_SET_CHILD_SUBREAPER: Final = 36

# The kernel's letter for a process that SIGSTOP has stopped.
STOPPED: Final = "T"

_libc = ctypes.CDLL(None, use_errno=True)


class Process:
    """One daemon's process."""

    def __init__(self, popen: subprocess.Popen[bytes], ready_fd: int) -> None:
        self._popen = popen
        self.pid = popen.pid
        self.pidfd = os.pidfd_open(popen.pid)
        self.ready_fd = ready_fd
        self.started = start_time(popen.pid)

    def __repr__(self) -> str:
        return f"<Process {self.pid}>"

    @classmethod
    def spawn(cls, command: list[str], log: Path, settings: dict[str, str]) -> Process:
        """Start `command`, its output appended to `log`. From the main thread only: prctl(2).

        `settings` are for its environment, beside what is in ours.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        reading, writing = os.pipe()
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **settings}
        environment["RING_READY_FD"] = str(writing)
        try:
            with log.open("ab") as output:
                popen = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    pass_fds=(writing,),
                    start_new_session=True,
                    preexec_fn=partial(die_with, os.getpid()),
                )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        os.set_blocking(reading, False)
        return cls(popen, reading)

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens if it is gone already."""
        if self.pidfd < 0:
            return
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return

    def reap(self) -> int:
        """The exit status, once the pidfd is readable; negative for a signal."""
        return self._popen.wait()

    def close(self) -> None:
        """Release the descriptors."""
        for descriptor in (self.pidfd, self.ready_fd):
            if descriptor >= 0:
                os.close(descriptor)
        self.pidfd = self.ready_fd = -1


def daemon_command(module: str, node: str, config: Path) -> list[str]:
    """`python -m MODULE --node NODE --config FILE` with this interpreter.

    `module` may be followed by a word of its own, as in "mapreduce worker".
    """
    return [sys.executable, "-m", *module.split(), "--node", node, "--config", str(config)]


def become_subreaper() -> None:
    """Grandchildren whose parents die become ours, and can be ended."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1)


def start_time(pid: int) -> int:
    """When the process began, in ticks since boot; with the pid it names it for good."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[19])


def state_of(pid: int) -> str:
    """The kernel's letter for it; empty if there is no such process (or only its remains)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    state = text.rpartition(")")[2].split()[0]
    return "" if state == "Z" else state
