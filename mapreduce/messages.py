"""What master, workers and their children say to one another; checked at the border.

    worker ──Beat──▶ master      how it goes, every BEAT_S and whenever something happened
    master ──Orders──▶ worker    what to do; says again what a Beat shows was not heard
    worker ──Mission──▶ child    one attempt; the child answers with a Result

Beats and Orders may be lost, repeated or late: each says what is, not what has changed.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, Final

from mapreduce.job import Job
from mapreduce.splits import Split
from netstack.rpc.schema import message

MASTER_SERVICE: Final = "mrmaster"
WORKER_SERVICE: Final = "mapreduce"

MAP: Final = "map"
REDUCE: Final = "reduce"


@message
class JobSpec:
    """A job as it was submitted: with its splits, and where its ranges of keys are cut."""

    job: Job
    splits: list[Split]
    cuts: list[bytes]


@message
class Failure:
    """Why an attempt ended without a result.

    kind: raised   the user's code raised           crashed  the process died by a signal
          hung     no progress for the job's time   memory   the process grew too large
          disk     the worker's disk is full        source   map output of `source` is damaged
          job      the program cannot be run at all lost     the worker is gone
          exited   a command or the process ended with a status
          store    the chunk store could not read or write
    record: number, from 1, of the record or group it was at; 0: not known.
    """

    kind: str
    message: str
    record: int = 0
    excerpt: str = ""
    traceback: str = ""
    last_lines: str = ""
    source: int = -1
    attempt: str = ""
    worker: str = ""


@message
class Result:
    """How an attempt ended. `runs` of a map: for each part [offset, length, count] a run."""

    attempt: str
    job_id: str
    kind: str
    index: int
    path: str = ""
    runs: list[list[list[int]]] = field(default_factory=list)
    counters: dict[str, dict[str, int]] = field(default_factory=dict)
    skipped: list[list[Any]] = field(default_factory=list)
    seconds: float = 0.0
    local_bytes: int = 0
    remote_bytes: int = 0
    failure: Failure | None = None


@message
class Source:
    """Where the output of one finished map lies. `version` orders all that was said of a job."""

    version: int
    index: int
    attempt: str
    worker: str
    path: str
    runs: list[list[list[int]]]


@message
class Start:
    """Run one attempt."""

    attempt: str
    job_id: str
    kind: str
    index: int
    split: Split | None = None
    skip: list[int] = field(default_factory=list)
    careful: bool = False
    maps: int = 0  # how many sources a reduce needs


@message
class Progress:
    """Of one attempt that is running. `sources`: the version up to which a reduce knows them."""

    attempt: str
    job_id: str
    kind: str
    index: int
    phase: str = "queued"  # queued | shuffle | running
    fraction: float = 0.0
    record: int = 0
    status: str = ""
    sources: int = 0


@message
class Complaint:
    """A reduce could not fetch the output of a map; said again until it could."""

    job_id: str
    reduce_attempt: str
    map_index: int
    map_attempt: str
    worker: str
    tries: int


@message
class Beat:
    """A worker's sign of life. `results` are said again until they are acknowledged."""

    worker: str
    incarnation: str
    slots: int
    warm: bool = True
    jobs: list[str] = field(default_factory=list)
    running: list[Progress] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    complaints: list[Complaint] = field(default_factory=list)
    trouble: str = ""


@message
class Orders:
    """What the master wants. `sources`: by job, what a reduce there does not know yet."""

    incarnation: str
    start: list[Start] = field(default_factory=list)
    cancel: list[str] = field(default_factory=list)
    acknowledge: list[str] = field(default_factory=list)
    jobs: dict[str, JobSpec] = field(default_factory=dict)
    sources: dict[str, list[Source]] = field(default_factory=dict)
    forget: list[str] = field(default_factory=list)


@message
class Mission:
    """One attempt, as a child process is told of it.

    runs: [path, offset, length, count, source] each, of a reduce. folder: its working folder.
    out: where the output goes: a local file of map output, or a path of the output's file system.
    """

    start: Start
    job: Job
    cuts: list[bytes]
    folder: str
    out: str
    runs: list[list[Any]] = field(default_factory=list)
