"""Planted bugs of whole daemons: each a subclass that overrides one method, and how it must show.

A bug is planted by putting its class in the place of the original, where that is used; then every
node of a cluster has it, as in a build that somebody shipped. Each names the scenario and the plan
of faults under which it must be found, and the budget of seeds.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import raft_core_bugs as core_bugs

from cluster.chaos.plan import Episode, Plan
from netstack.runtime.disk import DiskFile
from netstack.transport.connection import Connection
from raftd.core import Raft
from raftd.outputs import ReadReady
from raftd.sessions import UNKNOWN, Sessions
from raftd.store import Store
from raftd.wal import Wal


@dataclass(frozen=True)
class Bug:
    """One planted bug.

    part: disk, core, reads, sessions, snapshots or transport.
    what: what it does, in a few words.
    where: dotted name of what is replaced.
    by: the replacement.
    plan: the faults under which it must be found.
    scenario: what clients do meanwhile.
    seeds: so many may be needed.
    """

    part: str
    what: str
    where: str
    by: Any
    plan: Plan
    scenario: str = "register"
    seeds: int = 6

    @property
    def name(self) -> str:
        """Of the class."""
        return str(self.by.__name__)


@contextlib.contextmanager
def planted(bug: Bug) -> Iterator[None]:
    """While this lasts, every daemon of this process has the bug."""
    module, _, attribute = bug.where.rpartition(".")
    with mock.patch.object(importlib.import_module(module), attribute, bug.by):
        yield


# -- disk


class NeverSyncsItsLog(Wal):
    """Acknowledges before fsync."""

    def _write(self, payload):
        with mock.patch.object(DiskFile, "sync", _written_is_written):
            super()._write(payload)


def _written_is_written(file):
    if file.path.endswith(".new"):
        _sync(file)


_sync = DiskFile.sync


class ForgetsItsVotes(Wal):
    """Does not write the hard state."""

    def append(self, persists):
        super().append([persist._replace(hard_state=None) for persist in persists])


class IgnoresTruncation(Wal):
    """What was overwritten comes back at the next start."""

    def _apply_item(self, item, entries):
        return super()._apply_item([item[0], None, *item[2:]], entries)


# -- sessions


class AppliesRetriesAgain(Sessions):
    """Replays a session number."""

    def lookup(self, session_id, sequence, done, *, retry, base, index):
        super().lookup(session_id, sequence, done, retry=retry, base=base, index=index)
        return UNKNOWN


# -- the store and its snapshots


class ForgetsAKeyInItsSnapshot(Store):
    """The last key is left out."""

    def restore(self, data):
        super().restore(data)
        if self._keys:
            del self._histories[self._keys.pop()]


class AppliesTheIndexApartFromTheData(Store):
    """After a restart, the index that is remembered runs ahead of the data."""

    def restore(self, data):
        super().restore(data)
        self.revision += 1


# -- transport


class NeverSendsAgain(Connection):
    """Takes loss for the application's problem."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.outgoing._requeue = lambda frames: None


# -- reads


class AnswersReadsByItself(Raft):
    """Every node answers from what it has, and asks nobody."""

    def read_index(self, token, now):
        self.now = now
        self.output(ReadReady(token, self.commit))


# -- how each is found


def again(fault: str, target: str, every_s: float, lasts_s: float, **values: Any) -> Plan:
    """The same fault over and over."""
    times = [1 + every_s * k for k in range(int((SECONDS - 2) / every_s))]
    return [Episode(fault, target, values, t, t + lasts_s) for t in times]


def together(*plans: Plan) -> Plan:
    """All of it."""
    return sorted(itertools.chain(*plans), key=lambda episode: episode.at)


SECONDS = 14.0
POWER_CUTS = again("kill", "all", 1.0, 0.3)
NEW_LEADERS = again("kill", "leader", 0.8, 0.6)
ISOLATION = again("isolate", "all", 1.1, 0.7, grudge="isolate")
LOST_DISKS = again("wipe", "one", 3.0, 0.6)
SLOW_DISKS = [Episode("slow-disk", "all", {"slow_s": 0.2}, 0.5, SECONDS - 1)]
SLOW_LEADERS = again("slow-disk", "leader", 1.5, 1.3, slow_s=0.3)
LOSS = [Episode("loss", "all", {"loss": 0.3}, 0.5, SECONDS - 1)]

ZOO = (
    Bug(
        "disk",
        "acknowledges before fsync",
        "raftd.replica.Wal",
        NeverSyncsItsLog,
        POWER_CUTS,
    ),
    Bug(
        "disk",
        "answers its siblings before its disk has what it promises",
        "raftd.replica.Raft",
        core_bugs.AnswersBeforeItsDisk,
        together(SLOW_DISKS, POWER_CUTS),
    ),
    Bug(
        "disk",
        "a leader counts itself before its own disk",
        "raftd.core.Leader",
        core_bugs.CountsItselfBeforeItsDisk,
        together(SLOW_LEADERS, NEW_LEADERS, ISOLATION),
        seeds=12,
    ),
    Bug(
        "disk",
        "votes twice after a restart: the vote is not on disk",
        "raftd.replica.Wal",
        ForgetsItsVotes,
        together(POWER_CUTS, LOSS),
        seeds=12,
    ),
    Bug(
        "disk",
        "what was overwritten comes back at the next start",
        "raftd.replica.Wal",
        IgnoresTruncation,
        together(ISOLATION, POWER_CUTS),
    ),
    Bug(
        "reads",
        "reads without asking a quorum",
        "raftd.replica.Raft",
        AnswersReadsByItself,
        NEW_LEADERS,
    ),
    Bug(
        "sessions",
        "replays a session number: a retry is applied again",
        "raftd.store.Sessions",
        AppliesRetriesAgain,
        together(NEW_LEADERS, LOSS),
        scenario="versions",
    ),
    Bug(
        "snapshots",
        "a key is missing from what is restored",
        "raftd.replica.Store",
        ForgetsAKeyInItsSnapshot,
        together(LOST_DISKS, NEW_LEADERS),
    ),
    Bug(
        "snapshots",
        "the index runs apart from the data",
        "raftd.replica.Store",
        AppliesTheIndexApartFromTheData,
        together(LOST_DISKS, NEW_LEADERS),
        scenario="versions",
    ),
    Bug(
        "transport",
        "a packet that was lost is not sent again",
        "netstack.transport.host.Connection",
        NeverSendsAgain,
        LOSS,
        seeds=3,
    ),
)
