"""The states of one daemon: what leads where, how long it waits after a crash, when it gives up."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cluster.node import (
    BACKOFF,
    BACKOFF_S_MAX,
    BACKOFF_S_MIN,
    CRASH_WINDOW_S,
    CRASHES_MAX,
    FATAL,
    KILLED,
    PAUSED,
    READY_TIMEOUT_S,
    RUNNING,
    STARTING,
    STOPPED,
    STOPPING,
    IllegalTransition,
    NodeState,
)

ACTIONS = {
    "starting": lambda node: node.starting(7, 100.0),
    "ready": lambda node: node.ready(),
    "paused": lambda node: node.paused(),
    "resumed": lambda node: node.resumed(),
    "killed": lambda node: node.killed(),
    "stopping": lambda node: node.stopping(),
    "exited": lambda node: node.exited(1, 100.0),
}

# What each action makes of each state; "-": it is refused, ".": nobody asks for it.
PICTURE = """
state     starting  ready     paused  resumed  killed  stopping  exited
stopped   starting  stopped   -       -        -       stopped   .
starting  -         running   -       -        killed  stopping  backoff
running   -         running   paused  -        killed  stopping  backoff
backoff   starting  backoff   -       -        -       stopped   .
paused    -         paused    -       running  killed  stopping  backoff
killed    starting  killed    -       -        -       killed    killed
stopping  -         stopping  -       -        killed  stopping  stopped
fatal     starting  fatal     -       -        -       fatal     .
"""
(_, *COLUMNS), *ROWS = (line.split() for line in PICTURE.split("\n") if line)
STATES = [row[0] for row in ROWS]
CELLS = [
    (state, action, wanted)
    for state, *cells in ROWS
    for action, wanted in zip(COLUMNS, cells, strict=True)
    if wanted != "."
]


def node_in(state: str) -> NodeState:
    node = NodeState("n1")
    if state != STOPPED:
        node.starting(7, 0.0)
    if state in (RUNNING, PAUSED):
        node.ready()
    if state == PAUSED:
        node.paused()
    if state == STOPPING:
        node.stopping()
    if state == KILLED:
        node.killed()
    if state == BACKOFF:
        node.exited(1, 0.0)
    if state == FATAL:
        node.exited(2, 0.0)
    assert node.state == state
    return node


def crashed(node: NodeState, now: float, status: int = 1) -> float:
    """Start it, have it exit by itself at `now`; how long it waits for the next start."""
    node.starting(7, now)
    node.ready()
    node.exited(status, now)
    return node.deadline - now if node.deadline is not None else float("inf")


@pytest.mark.parametrize(("state", "action", "wanted"), CELLS)
def test_each_action_leads_where_the_picture_says_or_is_refused(state, action, wanted):
    node = node_in(state)
    if wanted != "-":
        ACTIONS[action](node)
        assert node.state == wanted
        return
    before = repr(node), node.deadline, list(node.crashes)
    with pytest.raises(IllegalTransition, match=f"n1 is {state}"):
        ACTIONS[action](node)
    assert (repr(node), node.deadline, list(node.crashes)) == before


@pytest.mark.parametrize("state", STATES)
def test_a_node_has_a_process_exactly_while_it_starts_runs_stands_still_or_stops(state):
    assert node_in(state).alive == (state in (STARTING, RUNNING, PAUSED, STOPPING))


@pytest.mark.parametrize("state", STATES)
def test_only_starting_and_waiting_have_a_deadline(state):
    assert (node_in(state).deadline is not None) == (state in (STARTING, BACKOFF))


def test_a_start_that_is_too_slow_has_a_limit_that_readiness_lifts():
    node = NodeState("n1")
    node.starting(7, 50.0)
    assert node.deadline == 50.0 + READY_TIMEOUT_S
    node.ready()
    assert node.deadline is None


def test_pauses_between_starts_double_from_one_crash_to_the_next():
    node = NodeState("n1")
    waits = [crashed(node, float(i)) for i in range(CRASHES_MAX - 1)]
    assert waits[0] == pytest.approx(BACKOFF_S_MIN)
    assert all(later == pytest.approx(2 * earlier) for earlier, later in pairwise(waits))


def test_the_pause_has_a_longest(monkeypatch):
    monkeypatch.setattr("cluster.node.CRASHES_MAX", 1000)
    node = NodeState("n1")
    waits = [crashed(node, 0.01 * i) for i in range(100)]
    assert max(waits) == pytest.approx(BACKOFF_S_MAX)
    assert waits[-1] == pytest.approx(BACKOFF_S_MAX)


def test_crashes_that_are_long_ago_are_forgotten_and_the_pause_is_short_again():
    node = NodeState("n1")
    crashed(node, 0.0)
    assert crashed(node, 1.0) > BACKOFF_S_MIN
    assert crashed(node, 1.5 + CRASH_WINDOW_S) == pytest.approx(BACKOFF_S_MIN)
    assert len(node.crashes) == 1


def test_the_last_of_too_many_crashes_within_the_window_is_fatal_and_none_before_it():
    node = NodeState("n1")
    seen = []
    for i in range(CRASHES_MAX):
        crashed(node, i * CRASH_WINDOW_S / CRASHES_MAX)
        seen.append(node.state)
    assert seen == [BACKOFF] * (CRASHES_MAX - 1) + [FATAL]
    assert node.deadline is None


def test_as_many_crashes_over_a_longer_time_are_not_fatal():
    node = NodeState("n1")
    for i in range(3 * CRASHES_MAX):
        crashed(node, i * CRASH_WINDOW_S / (CRASHES_MAX - 1.5))
        assert node.state == BACKOFF


@pytest.mark.parametrize("status", [2, 5])
def test_a_configuration_or_port_that_is_refused_is_fatal_at_once(status):
    node = NodeState("n1")
    crashed(node, 0.0, status)
    assert node.state == FATAL
    assert node.reason == f"exited with status {status}"


def test_an_end_by_itself_with_status_0_is_a_crash_too():
    node = NodeState("n1")
    crashed(node, 0.0, 0)
    assert node.state == BACKOFF


def test_the_reason_names_a_signal_or_a_status_and_goes_with_the_next_start():
    node = NodeState("n1")
    crashed(node, 0.0, -11)
    assert node.reason == "exited with signal 11"
    node.starting(8, 1.0)
    assert node.reason == ""


def test_who_was_killed_on_purpose_counts_no_crash_and_waits_for_nobody():
    node = node_in(RUNNING)
    node.killed()
    node.exited(-9, 1.0)
    assert (node.state, node.deadline, node.pid, len(node.crashes)) == (KILLED, None, 0, 0)
    assert node.reason == "kill -9"


def test_a_stop_that_was_asked_for_is_no_crash_whatever_the_status():
    for status in (0, 1, -9):
        node = node_in(STOPPING)
        node.exited(status, 1.0)
        assert (node.state, node.deadline, len(node.crashes)) == (STOPPED, None, 0)


def test_restarts_are_counted_and_shown():
    node = node_in(RUNNING)
    assert repr(node) == "<NodeState n1 running pid=7 restarts=0>"
    node.exited(1, 0.0)
    node.restarted()
    node.starting(8, 0.2)
    assert repr(node) == "<NodeState n1 starting pid=8 restarts=1>"


class AnyLife(RuleBasedStateMachine):
    """Whatever is asked in whatever order, the state stays one that makes sense."""

    def __init__(self) -> None:
        super().__init__()
        self.node = NodeState("n1")
        self.now = 0.0
        self.process = False
        self.crashed_at: list[float] = []

    @rule(passed_s=st.floats(0, 20))
    def time_passes(self, passed_s):
        self.now += passed_s

    @rule(action=st.sampled_from(["ready", "paused", "resumed", "killed"]))
    def something_is_asked(self, action):
        try:
            ACTIONS[action](self.node)
        except IllegalTransition:
            return

    @rule()
    def it_is_started(self):
        if not self.process:
            self.node.starting(7, self.now)
            self.process = True

    @rule()
    def it_is_told_to_stop(self):
        if self.process:
            self.node.stopping()

    @rule(status=st.sampled_from([-11, -9, 0, 1, 70]))
    def it_exits(self, status):
        if not self.process:
            return
        wanted = self.node.state in (KILLED, STOPPING)
        self.node.exited(status, self.now)
        self.process = False
        if not wanted:
            self.crashed_at.append(self.now)
            window = [at for at in self.crashed_at if at >= self.now - CRASH_WINDOW_S]
            assert self.node.state == (FATAL if len(window) >= CRASHES_MAX else BACKOFF)

    @invariant()
    def a_pid_is_shown_exactly_while_there_is_a_process(self):
        assert (self.node.pid != 0) == self.process

    @invariant()
    def nobody_alive_is_without_a_process(self):
        assert self.process or not self.node.alive

    @invariant()
    def deadlines_are_those_of_starting_and_of_waiting(self):
        assert (self.node.deadline is not None) == (self.node.state in (STARTING, BACKOFF))


TestAnyLife = AnyLife.TestCase
TestAnyLife.settings = settings(
    deadline=None, database=None, max_examples=60, stateful_step_count=30
)
