"""Planted bugs of whole daemons: each a subclass that overrides one method, and how it must show.

A bug is planted by putting its class in the place of the original, where that is used; then every
node of a cluster has it, as in a build that somebody shipped. Each names the check that must catch
it, the scenario and the plan of faults under which it must, and the budget of seeds.
"""

from __future__ import annotations

import contextlib
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import daemon_store_bugs as store_bugs
import raft_core_bugs as core_bugs
import transport_bugs
from daemon_plans import (
    DAMAGE,
    ISOLATION,
    LAST_DEATH,
    LONELY_LEADERS,
    LOSS,
    LOST_DISKS,
    LOST_QUORUM,
    NEW_LEADERS,
    PAUSES,
    POWER_CUTS,
    SECONDS,
    SLOW_DISKS,
    SPLITS,
    SPLITS_AND_DEATHS,
    UNSYNCED,
    together,
)

from cluster.chaos.plan import Plan
from cluster.chaos.simulate import SimulatedRun, simulate
from cluster.chaos.system import Refused
from cluster.verify.verdict import Verdict
from netstack.runtime.disk import DiskFile
from raftd.core import Raft
from raftd.leader import Leader
from raftd.outputs import ReadReady
from raftd.replica import Replica
from raftd.wal import Wal


@dataclass(frozen=True)
class Bug:
    """One planted bug.

    part: disk, core, membership, reads, sessions, store, snapshots, watches, leases, service,
        client or transport.
    what: what it does, in a few words.
    where: dotted name of what is replaced.
    by: the replacement.
    check: the one that must say so.
    plan: the faults under which it must be found.
    scenario: what clients do meanwhile.
    seeds: so many may be needed.
    live: whether it must be found on real processes too.
    quick: it shows at the first seed; these are tried with every change.
    nodes: how many, where it does not show with any number of them.
    settings: of the `[raft]` table, where it does not show with any.
    """

    part: str
    what: str
    where: str
    by: Any
    check: str
    plan: Plan
    scenario: str = "register"
    seeds: int = 6
    live: bool = False
    quick: bool = False
    nodes: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the class."""
        return str(self.by.__name__)

    @property
    def campaign(self) -> tuple[str, Plan, int | None, dict[str, Any]]:
        """All that a run without the bug depends on, but its seed."""
        return self.scenario, self.plan, self.nodes, dict(self.settings)


def campaigns(bugs: Sequence[Bug]) -> list[Bug]:
    """One bug of each campaign."""
    found: list[Bug] = []
    for bug in bugs:
        if all(bug.campaign != other.campaign for other in found):
            found.append(bug)
    return found


@contextlib.contextmanager
def planted(bug: Bug) -> Iterator[None]:
    """While this lasts, every daemon of this process has the bug."""
    holder, _, attribute = bug.where.rpartition(".")
    with mock.patch.object(pkgutil.resolve_name(holder), attribute, bug.by):
        yield


def plant(name: str) -> None:
    """From now on every daemon of this process has the bug."""
    (bug,) = (bug for bug in ZOO if bug.name == name)
    holder, _, attribute = bug.where.rpartition(".")
    setattr(pkgutil.resolve_name(holder), attribute, bug.by)


def run(bug: Bug, seed: int) -> SimulatedRun:
    """A campaign that must find it, as it is now: with the bug where it is planted."""
    return simulate(
        bug.scenario, seed, seconds=SECONDS, plan=bug.plan, nodes=bug.nodes, settings=bug.settings
    )


def shows(bug: Bug, verdict: Verdict) -> bool:
    """Whether the check that the bug names has caught it."""
    return any(f.verdict == "invalid" and f.check.startswith(bug.check) for f in verdict.findings)


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
        last = entries[-1].index if entries and item[0] is None else 0
        kept = [fields for fields in item[2] if fields[0] > last]
        return super()._apply_item([item[0], None, kept, *item[3:]], entries)


class CutsWhateverIsDamaged(Wal):
    """Takes a damaged middle for the end."""

    def _judge_end(self, path, data, offset, *, is_last):
        """Whatever is behind it goes."""


# -- core and membership


class StandsUnasked(Raft):
    """Ignores PreVote."""

    def campaign(self, *, pre, forced=False):
        super().campaign(pre=False, forced=forced)


class ReadsUnderALeaseForEver(Leader):
    """Does not look at the clock."""

    def _has_lease(self):
        return self._raft.options.lease_reads


# -- reads


class AnswersReadsByItself(Raft):
    """Every node answers from what it has, and asks nobody."""

    def read_index(self, token, now):
        self.now = now
        self.output(ReadReady(token, self.commit))


# -- service


class StumblesNowAndThen(Replica):
    """A handler raises what nobody expects there; whoever asked is told that something failed."""

    def propose(self, command, answered, request=None, *, again=False):
        self._asked_for = getattr(self, "_asked_for", 0) + 1
        if self._asked_for % 50 == 0:
            raise LookupError("a key that nobody has")
        super().propose(command, answered, request, again=again)


# -- how each is found

# The check that must say so, by the beginning of its name (cluster/verify, chaos/judge.py):
# no other counts, however red the rest may be.
LINEARIZABLE, BANK, COUNTER = "linearizable", "bank", "counter"
WATCHES, LEASES = "watches", "leases"
ELECTION_SAFETY, COMPLETENESS = "election safety", "leader completeness"
ELECTIONS, EQUAL_STORES = "elections are asked for", "equal stores"
NO_CODE_FAILS, WELL_AGAIN = "no code fails", "all was well again"

ZOO = (
    Bug(
        "disk",
        "acknowledges before fsync",
        "raftd.replica.Wal",
        NeverSyncsItsLog,
        LINEARIZABLE,
        POWER_CUTS,
        live=True,
    ),
    Bug(
        "disk",
        "answers its siblings before its disk has what it promises",
        "raftd.replica.Raft",
        core_bugs.AnswersBeforeItsDisk,
        COMPLETENESS,
        together(SLOW_DISKS, POWER_CUTS),
    ),
    Bug(
        "disk",
        "a leader counts itself before its own disk",
        "raftd.core.Leader",
        core_bugs.CountsItselfBeforeItsDisk,
        COMPLETENESS,
        UNSYNCED,
        nodes=3,
        seeds=12,
    ),
    Bug(
        "disk",
        "votes twice after a restart: the vote is not on disk",
        "raftd.replica.Wal",
        ForgetsItsVotes,
        ELECTION_SAFETY,
        together(POWER_CUTS, LOSS),
        seeds=30,
    ),
    Bug(
        "disk",
        "what was overwritten comes back at the next start",
        "raftd.replica.Wal",
        IgnoresTruncation,
        EQUAL_STORES,
        together(ISOLATION, POWER_CUTS),
    ),
    Bug(
        "core",
        "what conflicts with the leader is kept",
        "raftd.replica.Raft",
        core_bugs.KeepsWhatConflicts,
        EQUAL_STORES,
        ISOLATION,
        seeds=12,
    ),
    Bug(
        "core",
        "votes for any log, also a shorter one",
        "raftd.core.RaftLog",
        core_bugs.VotesForAnyLog,
        COMPLETENESS,
        together(ISOLATION, LOSS),
        seeds=12,
    ),
    Bug(
        "disk",
        "cuts a damaged middle silently",
        "raftd.replica.Wal",
        CutsWhateverIsDamaged,
        COMPLETENESS,
        DAMAGE,
        nodes=3,
        seeds=12,
    ),
    Bug(
        "core",
        "ignores PreVote",
        "raftd.replica.Raft",
        StandsUnasked,
        ELECTIONS,
        ISOLATION,
        seeds=3,
        live=True,
        quick=True,
    ),
    Bug(
        "membership",
        "half of a joint majority is enough to commit",
        "raftd.leader.joint_committed_index",
        core_bugs.needs_the_new_majority_only,
        COMPLETENESS,
        SPLITS,
        nodes=5,
        seeds=24,
    ),
    Bug(
        "membership",
        "half of a joint majority is enough to be elected",
        "raftd.quorum.has_joint_majority",
        core_bugs.is_elected_by_the_new_majority_only,
        ELECTION_SAFETY,
        SPLITS_AND_DEATHS,
        nodes=5,
        seeds=24,
    ),
    Bug(
        "membership",
        "a configuration counts only when it is committed",
        "raftd.replica.Raft",
        core_bugs.WaitsForTheCommitOfAChange,
        WELL_AGAIN,
        SPLITS_AND_DEATHS,
        nodes=5,
        seeds=12,
    ),
    Bug(
        "reads",
        "a lease outlives its time",
        "raftd.core.Leader",
        ReadsUnderALeaseForEver,
        LINEARIZABLE,
        LONELY_LEADERS,
        settings={"lease_reads": True},
        seeds=24,
    ),
    Bug(
        "sessions",
        "a snapshot forgets who has asked what",
        "raftd.store.Sessions",
        store_bugs.ForgetsSessionsInSnapshots,
        LINEARIZABLE,
        POWER_CUTS,
        scenario="versions",
        settings={"snapshot_every": 1},
        seeds=12,
    ),
    Bug(
        "watches",
        "of a history that was compacted, what is left is told without a word",
        "raftd.store.WatchHub",
        store_bugs.TellsWhatIsLeft,
        WATCHES,
        NEW_LEADERS,
        scenario="watch",
        seeds=12,
    ),
    Bug(
        "reads",
        "reads without asking a quorum",
        "raftd.replica.Raft",
        AnswersReadsByItself,
        LINEARIZABLE,
        NEW_LEADERS,
        live=True,
        quick=True,
    ),
    Bug(
        "sessions",
        "replays a session number: a retry is applied again",
        "raftd.store.Sessions",
        store_bugs.AppliesRetriesAgain,
        LINEARIZABLE,
        together(NEW_LEADERS, LOSS),
        scenario="versions",
    ),
    Bug(
        "store",
        "takes every comparison of revisions for true",
        "raftd.replica.Store",
        store_bugs.IgnoresGuards,
        LINEARIZABLE,
        NEW_LEADERS,
        scenario="lock",
        seeds=3,
        live=True,
        quick=True,
    ),
    Bug(
        "store",
        "compares with the oldest version of a key",
        "raftd.replica.Store",
        store_bugs.ComparesWithTheOldest,
        LINEARIZABLE,
        NEW_LEADERS,
        seeds=3,
        live=True,
    ),
    Bug(
        "store",
        "makes only the first change of a transaction",
        "raftd.replica.Store",
        store_bugs.CommitsHalfATransaction,
        BANK,
        NEW_LEADERS,
        scenario="bank",
        seeds=3,
        live=True,
        quick=True,
    ),
    Bug(
        "store",
        "says that it has deleted",
        "raftd.replica.Store",
        store_bugs.DeletesNothing,
        LINEARIZABLE,
        NEW_LEADERS,
        scenario="versions",
        seeds=3,
        live=True,
        quick=True,
    ),
    Bug(
        "snapshots",
        "a key is missing from what is restored",
        "raftd.replica.Store",
        store_bugs.ForgetsAKeyInItsSnapshot,
        EQUAL_STORES,
        together(LOST_DISKS, NEW_LEADERS, LAST_DEATH),
        settings={"snapshot_every": 1},
        seeds=3,
    ),
    Bug(
        "snapshots",
        "the index runs apart from the data",
        "raftd.replica.Store",
        store_bugs.AppliesTheIndexApartFromTheData,
        LINEARIZABLE,
        together(LOST_DISKS, NEW_LEADERS),
        scenario="versions",
        quick=True,
    ),
    Bug(
        "watches",
        "a watch that is taken up again begins with now",
        "raftd.watch.Watcher",
        store_bugs.MissesWhatCameWhileItWasAway,
        WATCHES,
        NEW_LEADERS,
        scenario="watch",
        seeds=3,
    ),
    Bug(
        "watches",
        "the first revision that was asked for is left out",
        "raftd.store.WatchHub",
        store_bugs.BeginsOneTooLate,
        WATCHES,
        NEW_LEADERS,
        scenario="watch",
        seeds=3,
        live=True,
    ),
    Bug(
        "watches",
        "a revision is told twice",
        "raftd.watch.Watcher",
        store_bugs.TellsARevisionTwice,
        WATCHES,
        POWER_CUTS,
        scenario="watch",
    ),
    Bug(
        "watches",
        "what was done at once is told in parts",
        "raftd.store.WatchHub",
        store_bugs.SplitsWhatBelongsTogether,
        WATCHES,
        NEW_LEADERS,
        scenario="watch",
        seeds=3,
        live=True,
    ),
    Bug(
        "watches",
        "after a restart nobody is told of what was deleted before",
        "raftd.store.WatchHub",
        store_bugs.ForgetsDeletesInItsHistory,
        WATCHES,
        POWER_CUTS,
        scenario="watch",
    ),
    Bug(
        "leases",
        "a new leader ends all leases",
        "raftd.replica.LeaseKeeper",
        store_bugs.NewLeadersEndAllLeases,
        LEASES,
        NEW_LEADERS,
        scenario="lease",
        seeds=3,
        live=True,
        quick=True,
    ),
    Bug(
        "leases",
        "a new leader gives half of the time",
        "raftd.replica.LeaseKeeper",
        store_bugs.NewLeadersGiveHalfTheTime,
        LEASES,
        ISOLATION,
        scenario="lease",
    ),
    Bug(
        "leases",
        "leases end after half of their time",
        "raftd.replica.LeaseKeeper",
        store_bugs.EndsLeasesEarly,
        LEASES,
        PAUSES,
        scenario="lease",
        seeds=3,
        live=True,
    ),
    Bug(
        "client",
        "a retry is a new request",
        "cluster.chaos.raft_sim.RaftClient",
        store_bugs.RetriesUnderANewNumber,
        COUNTER,
        NEW_LEADERS,
        scenario="counter",
        seeds=12,
    ),
    Bug(
        "client",
        "what was not answered is taken for refused",
        "cluster.chaos.raft_client._told",
        store_bugs.silence_refuses(Refused),
        LINEARIZABLE,
        LOST_QUORUM,
        seeds=3,
    ),
    Bug(
        "service",
        "a handler raises now and then",
        "raftd.server.Replica",
        StumblesNowAndThen,
        NO_CODE_FAILS,
        NEW_LEADERS,
        seeds=3,
        live=True,
        quick=True,
    ),
    Bug(
        "transport",
        "a packet that was lost is not sent again",
        "netstack.transport.host.Connection",
        transport_bugs.NeverSendsAgain,
        WELL_AGAIN,
        LOSS,
        seeds=3,
    ),
    Bug(
        "transport",
        "acknowledges packets that it dropped",
        "netstack.transport.host.Connection",
        transport_bugs.AcknowledgesWhatItDropped,
        WELL_AGAIN,
        LOSS,
    ),
    Bug(
        "transport",
        "does not look where in a stream a frame belongs",
        "netstack.transport.stream_set.ReceiveStream",
        store_bugs.TakesWhatComesForTheNext,
        NO_CODE_FAILS,
        together(LOST_DISKS, LOSS),
        seeds=12,
    ),
)
