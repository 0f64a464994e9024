"""Planted bugs of the state machine, and the test that catches each."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from raftd import commands as c
from raftd import store
from raftd.sessions import UNKNOWN, Sessions
from raftd.store import Store
from raftd.watch import WatchHub

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "raftd"))
model = importlib.import_module("test_store_model")
once = importlib.import_module("test_exactly_once")

CAUGHT = (AssertionError, pytest.fail.Exception)


def the_machine():
    run_state_machine_as_test(
        model.StoreMachine,
        settings=settings(
            max_examples=1_000,
            stateful_step_count=40,
            deadline=None,
            database=None,
            derandomize=True,
            phases=(Phase.generate,),
            report_multiple_bugs=False,
        ),
    )


class KeepsCountingAfterADelete(Store):
    def _put(self, key, value, lease, prev):
        before = self._histories.get(key)
        answer = super()._put(key, value, lease, prev)
        if before and len(before) > 1 and not before[-2].version:
            before[-1] = before[-1]._replace(version=2)
        return answer


class CompactsOneTooFar(Store):
    def _compact_to(self, revision):
        super()._compact_to(min(revision + 1, self.revision))
        self.compacted = revision


class NeverCompacts(Store):
    def _compact_to(self, revision):
        """Memory is cheap."""


class ARevisionAnOperation(Store):
    def _txn(self, compares, then, otherwise):
        answer = super()._txn(compares, then, otherwise)
        self.revision += max(0, len(self._changes) - 1)
        return answer


class RunsBothBranches(Store):
    def _txn(self, compares, then, otherwise):
        return super()._txn(compares, [*then, *otherwise][: len(then) + 1], otherwise)


class LosesTheLeasesOfKeys(Store):
    def restore(self, data):
        super().restore(data)
        self._lease_keys = {}


class RevokesTheLeaseAndKeepsTheKeys(Store):
    def _lease_revoke(self, lease_id):
        self._lease_keys.pop(lease_id, None)
        return super()._lease_revoke(lease_id)


class ForgetsToMoveAKeyToItsNewLease(Store):
    def _put(self, key, value, lease, prev):
        old = self.get(key)
        answer = super()._put(key, value, lease, prev)
        if old is not None and old.lease and old.lease != lease:
            self._lease_keys.setdefault(old.lease, {})[key] = None
        return answer


class EndIsInTheRange(Store):
    def _pairs_in(self, key, range_end, revision):
        yield from super()._pairs_in(key, range_end, revision)
        last = self.get(range_end) if range_end not in (b"", c.EVERYTHING) else None
        if last is not None and key < range_end:
            yield last


class SkipsARevision(WatchHub):
    def since(self, revision):
        return super().since(revision)[1:]


class TellsAfterCompaction(WatchHub):
    def since(self, revision):
        return super().since(max(revision, self._store.compacted + 1))


class ForgetsWhatItAnswered(Sessions):
    def lookup(self, session_id, sequence, done, *, retry, base, index):
        super().lookup(session_id, sequence, done, retry=retry, base=base, index=index)
        return UNKNOWN


class HasNoHorizon(Sessions):
    @property
    def horizon(self):
        return 0

    @horizon.setter
    def horizon(self, index):
        """Not kept."""


class StaysBehind(Sessions):
    def dump(self):
        return [self.horizon, []]


class ForgetsTheOldest(Sessions):
    def lookup(self, session_id, sequence, done, *, retry, base, index):
        order = list(self._sessions)
        found = super().lookup(session_id, sequence, done, retry=retry, base=base, index=index)
        for known in order:
            if known in self._sessions:
                self._sessions.move_to_end(known)
        if session_id not in order and session_id in self._sessions:
            self._sessions.move_to_end(session_id)
        return found


STORE, HUB, TABLE = "test_store_model.Store", "raftd.store.WatchHub", "raftd.store.Sessions"
ZOO = [
    (KeepsCountingAfterADelete, STORE, the_machine),
    (CompactsOneTooFar, STORE, the_machine),
    (NeverCompacts, STORE, the_machine),
    (ARevisionAnOperation, STORE, the_machine),
    (RunsBothBranches, STORE, the_machine),
    (LosesTheLeasesOfKeys, STORE, the_machine),
    (RevokesTheLeaseAndKeepsTheKeys, STORE, the_machine),
    (ForgetsToMoveAKeyToItsNewLease, STORE, the_machine),
    (EndIsInTheRange, STORE, the_machine),
    (SkipsARevision, HUB, the_machine),
    (TellsAfterCompaction, HUB, the_machine),
    (
        ForgetsWhatItAnswered,
        TABLE,
        once.test_a_repeated_command_is_applied_once_and_answered_as_before,
    ),
    (HasNoHorizon, TABLE, once.test_a_retry_of_a_forgotten_session_is_not_applied_again),
    (StaysBehind, TABLE, once.test_the_table_goes_through_a_snapshot),
    (ForgetsTheOldest, TABLE, once.test_the_session_heard_of_last_is_the_last_to_be_forgotten),
]


def _id(value: object) -> str:
    return "" if isinstance(value, str) else getattr(value, "__name__", "")


@pytest.mark.parametrize(("bug", "where", "judge"), ZOO, ids=_id)
def test_the_bug_is_caught(bug, where, judge, monkeypatch):
    with monkeypatch.context() as planted:
        planted.setattr(where, bug)
        for code, operation in store._OPERATIONS.items():
            if operation.__name__ in vars(bug):
                planted.setitem(store._OPERATIONS, code, vars(bug)[operation.__name__])
        with pytest.raises(CAUGHT):
            judge()
