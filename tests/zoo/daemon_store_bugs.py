"""Bugs of the store, its sessions, watches and leases, and of its clients; in whole daemons.

What `_OPERATIONS` of the store calls is not looked up on the instance, so a bug of one operation
overrides `_run`, which is.
"""

from __future__ import annotations

from netstack.transport.streams import ReceiveStream
from raftd import commands as c
from raftd.client import NotReached, OutcomeUnknown, RaftClient
from raftd.client import Refused as SaidNo
from raftd.lease import LeaseKeeper
from raftd.sessions import UNKNOWN, Sessions
from raftd.store import Store
from raftd.watch import Event, Watcher, WatchHub

# -- sessions


class AppliesRetriesAgain(Sessions):
    """Replays a session number."""

    def lookup(self, session_id, sequence, done, *, retry, base, index):
        super().lookup(session_id, sequence, done, retry=retry, base=base, index=index)
        return UNKNOWN


class ForgetsSessionsInSnapshots(Sessions):
    """Who asked before the snapshot is a stranger after it."""

    def load(self, dumped):
        super().load([dumped[0], []])


# -- commands


class IgnoresGuards(Store):
    """Takes every comparison of revisions for true."""

    def _holds(self, target, op, key, operand):
        return target == "mod" or super()._holds(target, op, key, operand)


class ComparesWithTheOldest(Store):
    """Compares with the first version of a key that it remembers."""

    def _holds(self, target, op, key, operand):
        history = self._histories.get(key)
        if not history:
            return super()._holds(target, op, key, operand)
        self._histories[key] = history[:1]
        try:
            return super()._holds(target, op, key, operand)
        finally:
            self._histories[key] = history


class CommitsHalfATransaction(Store):
    """Makes only the first of two changes."""

    def _run(self, op):
        if op[0] == c.TXN and len(op[2]) == 2 and op[2][0][0] == c.PUT:
            op = [*op[:2], op[2][:1], *op[3:]]
        return super()._run(op)


class DeletesNothing(Store):
    """Says that it has deleted, and publishes that."""

    def _delete_one(self, old):
        self._changes.append(Event(old, old))


# -- snapshots


class ForgetsAKeyInItsSnapshot(Store):
    """The last key is left out."""

    def restore(self, data):
        super().restore(data)
        if self._keys:
            key = self._keys.pop()
            del self._histories[key]
            self._live.discard(key)


class AppliesTheIndexApartFromTheData(Store):
    """After a restart, the index that is remembered runs ahead of the data."""

    def restore(self, data):
        super().restore(data)
        self.revision += 1


# -- watches


class MissesWhatCameWhileItWasAway(Watcher):
    """A watch that is taken up again begins with now."""

    def _catch_up(self):
        self._behind, self._next = False, self._hub.revision + 1


class BeginsOneTooLate(WatchHub):
    """The first revision that was asked for is left out."""

    def since(self, revision):
        return super().since(revision)[1:]


class TellsARevisionTwice(Watcher):
    """Does not look whether it has told a revision already."""

    def offer(self, revision, events):
        self._next = min(self._next, revision)
        super().offer(revision, events)


class TellsWhatIsLeft(WatchHub):
    """Of a history that was compacted, without a word."""

    def since(self, revision):
        return super().since(max(revision, self._store.compacted + 1))


class SplitsWhatBelongsTogether(WatchHub):
    """Publishes the changes of one revision one after the other."""

    def publish(self, revision, events):
        for event in events:
            super().publish(revision, [event])


class ForgetsDeletesInItsHistory(WatchHub):
    """After a restart nobody is told of what was deleted before."""

    def rebuild(self, versions):
        super().rebuild(version for version in versions if version.pair.version)


# -- leases


class NewLeadersEndAllLeases(LeaseKeeper):
    """A new leader takes what it knows nothing of for over."""

    def start(self, leases, now):
        super().start(leases, now)
        for lease_id in leases:
            self._set(lease_id, now)


class NewLeadersGiveHalfTheTime(LeaseKeeper):
    """As if half of it had passed under the one before."""

    def start(self, leases, now):
        super().start(leases, now)
        for lease_id, ttl_s in leases.items():
            self._set(lease_id, now + ttl_s / 2)


class EndsLeasesEarly(LeaseKeeper):
    """Gives half of the time that it promises."""

    def keep(self, lease_id, ttl_s, now):
        return super().keep(lease_id, ttl_s / 2, now)


# -- clients and their streams


class RetriesUnderANewNumber(RaftClient):
    """What was not answered is asked for again, as if it were something else."""

    async def _execute(self, op, timeout_s):
        try:
            return await super()._execute(op, 0.6)
        except OutcomeUnknown:
            return await super()._execute(op, timeout_s)


def silence_refuses(refused):
    """What was not answered was not done."""

    async def takes_silence_for_refusal(request):
        try:
            return await request
        except (OutcomeUnknown, NotReached, SaidNo) as error:
            raise refused(str(error)) from None

    return takes_silence_for_refusal


class TakesWhatComesForTheNext(ReceiveStream):
    """Does not look where in the stream a frame belongs."""

    __slots__ = ()

    def receive(self, offset, data, fin):
        return super().receive(self.next_offset, data, fin)
