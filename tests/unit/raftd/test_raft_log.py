"""The log in memory against a plain list of all entries there ever were."""

from __future__ import annotations

import pytest
from core_kit import Desk, append, entries
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from raftd import messages as m
from raftd.log import COMMAND, Entry, RaftLog

# -- by example


def test_an_empty_log():
    log = RaftLog()
    assert (log.first_index, log.last_index, log.last_term, len(log)) == (1, 0, 0, 0)
    assert (log.term_at(0), log.term_at(1), log.term_at(-1)) == (0, None, None)
    assert repr(log) == "<RaftLog 1..0 last_term=0>"


def test_a_log_behind_a_snapshot():
    log = RaftLog(entries("3 3 4", 11), 10, 2)
    assert (log.first_index, log.last_index, log.last_term, len(log)) == (11, 13, 4, 3)
    assert [log.term_at(index) for index in (9, 10, 11, 13, 14)] == [None, 2, 3, 4, None]
    assert repr(log) == "<RaftLog 11..13 last_term=4>"


def test_a_log_that_does_not_begin_behind_its_snapshot_is_refused():
    with pytest.raises(ValueError, match="begins at 12, its snapshot ends at 10"):
        RaftLog(entries("1", 12), 10, 1)


def test_entries_leave_no_gap():
    log = RaftLog(entries("1 1"))
    for first in (2, 4):
        with pytest.raises(AssertionError, match="a gap"):
            log.append(entries("1", first))
    assert log.last_index == 2


def test_a_snapshot_is_not_truncated():
    log = RaftLog(entries("3 3 4", 11), 10, 2)
    with pytest.raises(AssertionError, match="cannot be truncated"):
        log.truncate_from(10)
    log.truncate_from(11)
    assert (log.last_index, log.last_term) == (10, 2)


@pytest.mark.parametrize(
    ("index", "term", "found"),
    [(9, 9, 9), (9, 4, 6), (9, 3, 5), (9, 2, 5), (9, 1, 3), (9, 0, 0), (4, 4, 4), (99, 9, 9)],
)
def test_where_a_log_may_agree_with_another(index, term, found):
    """§5.3, end: back over all entries of terms that the other cannot have."""
    assert RaftLog(entries("1 1 1 2 2 4 6 6 6")).last_at_or_below(index, term) == found


def test_where_a_log_may_agree_is_never_before_its_snapshot():
    log = RaftLog(entries("4 4", 11), 10, 3)
    assert [log.last_at_or_below(index, 1) for index in (12, 11, 10)] == [10, 10, 10]


# -- against the model

TERMS_AHEAD = st.integers(0, 2)


class LogMachine(RuleBasedStateMachine):
    """`model` has every entry from 1 on; `base` is how far it is compacted."""

    def __init__(self) -> None:
        super().__init__()
        self.log = RaftLog()
        self.model: list[Entry] = []
        self.base = 0

    def term_of(self, index: int) -> int:
        return self.model[index - 1].term if index else 0

    @rule(ahead=TERMS_AHEAD, count=st.integers(0, 4))
    def append(self, ahead, count):
        last = len(self.model)
        term = self.term_of(last) + ahead
        fresh = [Entry(last + 1 + i, term, COMMAND, b"%d" % i) for i in range(count)]
        self.log.append(fresh)
        self.model += fresh

    @precondition(lambda self: len(self.model) > self.base)
    @rule(place=st.integers(0, 99))
    def truncate(self, place):
        index = self.base + 1 + place % (len(self.model) - self.base)
        self.log.truncate_from(index)
        del self.model[index - 1 :]

    @rule(place=st.integers(0, 99))
    def compact(self, place):
        self.base += place % (len(self.model) - self.base + 1)
        self.log.compact(self.base, self.term_of(self.base))

    @rule()
    def restart(self):
        kept = self.log.slice(self.log.first_index, self.log.last_index)
        self.log = RaftLog(kept, self.base, self.term_of(self.base))

    @rule(first=st.integers(0, 99), size=st.integers(0, 5))
    def cut(self, first, size):
        first = self.base + 1 + first % (len(self.model) - self.base + 1)
        assert self.log.slice(first, first + size) == self.model[first - 1 : first + size]

    @rule(index=st.integers(0, 30), term=st.integers(0, 12))
    def compare(self, index, term):
        log = self.log
        mine = (self.term_of(len(self.model)), len(self.model))
        assert log.is_up_to_date(index, term) == ((term, index) >= mine)
        if index >= self.base:
            fitting = [i for i in range(self.base, len(self.model) + 1) if i <= index]
            agreed = [i for i in fitting if self.term_of(i) <= term]
            assert log.last_at_or_below(index, term) == max(agreed, default=self.base)

    @invariant()
    def what_is_held_is_the_end_of_the_model(self):
        log = self.log
        assert log.slice(log.first_index, log.last_index) == self.model[self.base :]
        assert (log.snapshot_index, log.first_index) == (self.base, self.base + 1)
        assert log.last_index == len(self.model)
        assert log.last_term == self.term_of(len(self.model))
        for index in range(self.base - 1, len(self.model) + 2):
            known = self.base <= index <= len(self.model)
            assert log.term_at(index) == (self.term_of(index) if known else None)


LogMachine.TestCase.settings = settings(
    deadline=None, database=None, max_examples=60, stateful_step_count=25
)
test_a_log_is_a_list_that_forgets_its_beginning = LogMachine.TestCase


# -- in use: the parts that go to disk

LEADERS = st.lists(
    st.tuples(
        st.integers(0, 9),  # what the leader has in common with the follower
        st.integers(0, 4),  # what it adds
        st.integers(0, 5).map(lambda n: n == 5),  # as a snapshot
        st.sampled_from(("", "save", "save and restart")),
    ),
    max_size=12,
)


@settings(deadline=None, database=None, max_examples=300)
@given(LEADERS)
@example([(0, 4, False, "save"), (3, 1, False, ""), (1, 1, False, "")])
@example([(0, 4, False, "save"), (1, 3, False, ""), (2, 1, False, "")])
def test_what_is_saved_adds_up_to_the_log_in_memory(leaders):
    """Leader after leader overwrites the end of a follower's log, often before it is saved."""
    desk = Desk()
    packed = desk.membership.pack()
    terms: list[int] = []
    base = floor = 0  # compacted, committed
    for term, (common, added, as_snapshot, then) in enumerate(leaders, start=1):
        common = max(floor, min(common, len(terms)))
        before = terms[common - 1] if common else 0
        message = append(term, f"{common}/{before}", f"{term} " * added)
        if as_snapshot:
            last_term = term if added else before
            message = m.InstallSnapshot(term, common + added, last_term, packed, 0, 1, b"x")
            floor = common + added
        if added:
            terms = terms[:common] + [term] * added
            base = floor if as_snapshot else base
        desk.raft.receive(message, "n2", 0.0)
        if then:
            desk.pump()
        if then == "save and restart":
            desk.restart()
    desk.pump()
    for _ in range(2):
        assert desk.terms == " ".join(map(str, terms[base:]))
        assert desk.raft.log.snapshot_index == base
        desk.restart()


def test_a_node_restarts_from_any_prefix_of_what_it_was_writing():
    """outputs.py: "or (after a crash) a prefix in this order"; the term is written last."""
    desk = Desk()
    desk.slow_disk = True
    desk.hear(append(5, new="1 5"))
    (persist,) = desk.disk.pending
    desk.disk.write(persist._replace(hard_state=None))
    desk.restart()
    desk.raft.check()
    assert desk.raft.term >= 5
