"""What can go wrong with a job.

MapReduceError
├── BadJob          it makes no sense, or its input or output does not suit it; nothing was run
├── JobFailed       it ran, and a task could not be finished; `failures` says why
├── JobCancelled    somebody asked for its end
├── NotReached      no master answered in time; nothing is known to have begun
│   └── MasterGone  and at once: no process has its port
├── DamagedRun      intermediate data is not what was written; the map that made it runs again
├── RecordTooLong   one record is larger than a task may hold
└── CommandFailed   a command ended with a status other than 0, by a signal, or not even began
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class MapReduceError(Exception):
    """Base of all."""


class BadJob(MapReduceError):
    """The job cannot be run as it is described; the message says what would be right."""


class JobFailed(MapReduceError):
    """A task failed too often. `failures`: a map an attempt (see master_core.Failure)."""

    def __init__(self, message: str, failures: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(message)
        self.failures = list(failures)


class JobCancelled(MapReduceError):
    """The job was ended on request."""


class NotReached(MapReduceError):
    """No master was reached in time."""


class MasterGone(NotReached):
    """No process listens where the master should be; `master` is its name."""

    def __init__(self, master: str) -> None:
        super().__init__(f"the master {master} is not running")
        self.master = master


class DamagedRun(MapReduceError):
    """A block of intermediate data does not bear its checksum; `source` is the map's index."""

    def __init__(self, message: str, source: int = -1) -> None:
        super().__init__(message)
        self.source = source


class RecordTooLong(MapReduceError):
    """A record is larger than RECORD_BYTES_MAX."""


class CommandFailed(MapReduceError):
    """A mapper or its like that is a command has failed; what it wrote to stderr says why."""
