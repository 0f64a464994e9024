"""Every order of events of a direct sum: its steps and its rule, on counters instead of memory.

A state is what all ranks have shown, where each is in its program, who is dead and who knows it.
`explore` goes from it to all that can come next: a step of a rank, a death, the news of a death, a
rank that gives up, is suspected, or runs out of patience. It raises where a rank reads what is not
what it waited for, where nothing can move though a rank is not through, and where survivors
disagree.
"""

from __future__ import annotations

from typing import NamedTuple

from ddp import direct
from ddp.direct import Mark, Verb

CALLED = -1  # the counter of calls, beside the two marks

RUNS, SUM, ERROR, UNKNOWN, DEAD = "runs", "sum", "error", "unknown", "dead"


class Wrong(Exception):
    """A state that must not be."""


class Rank(NamedTuple):
    at: int = 0
    called: int = 0
    shown: tuple[int, int] = (0, 0)  # FILLED, REDUCED
    holds: tuple[int, int] = (0, 0)  # the windows whose numbers lie in the two areas
    fate: str = RUNS
    knows: frozenset[int] = frozenset()  # who is dead
    suspects: frozenset[int] = frozenset()  # who is said to be


def steps_of(rank, size, windows, exchange, program):
    """The program in the smallest steps that others can tell apart, with the meeting before it."""
    others = [r for r in range(size) if r != rank]
    steps = [("show", CALLED, 1), *(("await", CALLED, 1, other) for other in others)]
    for verb, window, mark, of in program(rank, size, windows, exchange):
        area = window % 2 if exchange else 0
        if verb is Verb.AWAIT:
            steps.append(("await", mark, window, of))
        elif verb is Verb.TAKE:
            steps.append(("read", 1, window, [of]))
        elif verb is Verb.FILL:
            steps += [("write", area, window), ("show", mark, window)]
        else:
            steps.append(("read", area, window, others))
            if not exchange:
                steps += [("write", 1, window), ("show", mark, window)]
    return steps


class Exploration:
    """See above.

    Args:
        deaths: how many may die.
        suspicions: how many living may be held for dead, as a stopped one is.
        impatient: whoever waits may give up.
    """

    def __init__(
        self, size, windows=1, *, exchange=False, deaths=0, suspicions=0, impatient=False,
        program=direct.program, hopeless=direct.hopeless,
    ):  # fmt: skip
        self.size, self.deaths, self.suspicions = size, deaths, suspicions
        self.impatient, self.hopeless = impatient, hopeless
        self.last = windows
        self.steps = [steps_of(r, size, windows, exchange, program) for r in range(size)]
        self.ends = set()  # the outcomes of survivors that were seen
        self.states = 0

    def run(self):
        start = (Rank(),) * self.size
        seen, todo = {start}, [start]
        while todo:
            state = todo.pop()
            following = self.moves(state)
            if all(rank.fate != RUNS for rank in state):
                self.judge(state)
            elif not following:
                raise Wrong(f"nothing moves: {state}")
            for found in following:
                if found not in seen:
                    seen.add(found)
                    todo.append(found)
        self.states = len(seen)
        return self

    def judge(self, state):
        suspected = frozenset().union(*(rank.suspects for rank in state))
        fates = {r.fate for i, r in enumerate(state) if i not in suspected} - {DEAD, UNKNOWN}
        if len(fates) > 1:
            raise Wrong(f"survivors disagree: {state}")
        self.ends |= fates

    def moves(self, state):
        found = []
        dead = frozenset(i for i, rank in enumerate(state) if rank.fate == DEAD)
        suspected = frozenset().union(*(rank.suspects for rank in state))
        for i, rank in enumerate(state):
            if rank.fate == DEAD:
                continue
            if len(dead) < self.deaths:
                found.append(self.with_(state, i, fate=DEAD))
            if rank.fate != RUNS:
                continue
            found += [self.with_(state, i, knows=rank.knows | {d}) for d in dead - rank.knows]
            for j in range(self.size):
                may = j in suspected or len(suspected) < self.suspicions
                if may and j != i and j not in dead | rank.suspects:
                    found.append(self.with_(state, i, suspects=rank.suspects | {j}))
            found += self.step(state, i, rank)
        return found

    def step(self, state, i, rank):
        if rank.at == len(self.steps[i]):
            return [self.with_(state, i, fate=SUM)]
        verb, what, window, *rest = self.steps[i][rank.at]
        on = {"at": rank.at + 1}
        if verb == "show" and what == CALLED:
            return [self.with_(state, i, called=1, **on)]
        if verb == "show":
            shown = (rank.shown[0], window) if what is Mark.REDUCED else (window, rank.shown[1])
            return [self.with_(state, i, shown=shown, **on)]
        if verb == "write":
            holds = (window, rank.holds[1]) if what == 0 else (rank.holds[0], window)
            return [self.with_(state, i, holds=holds, **on)]
        if verb == "read":
            for of in rest[0]:
                if state[of].holds[what] != window:
                    raise Wrong(f"rank {i} reads of rank {of} what is not there: {state}")
            return [self.with_(state, i, **on)]
        of = state[rest[0]]
        if (of.called if what == CALLED else of.shown[what]) >= window:
            return [self.with_(state, i, **on)]
        return self.waiting(state, i, rank)

    def waiting(self, state, i, rank):
        gave_up = {j for j, other in enumerate(state) if other.fate in (ERROR, UNKNOWN)}
        frozen = gave_up | rank.knows
        if frozen or rank.suspects:
            left = [j for j in range(self.size) if j not in rank.knows | rank.suspects | {i}]
            reduced = [state[j].shown[Mark.REDUCED] for j in frozen]
            if self.hopeless(self.last, rank.shown[Mark.REDUCED], reduced, alone=not left):
                return [self.with_(state, i, fate=ERROR)]
        # One is stopped for ever if it is suspected: then only patience ends the wait for it.
        if self.impatient or rank.suspects:
            shown = rank.shown[Mark.REDUCED] >= self.last
            return [self.with_(state, i, fate=UNKNOWN if shown else ERROR)]
        return []

    @staticmethod
    def with_(state, i, **changes):
        return (*state[:i], state[i]._replace(**changes), *state[i + 1 :])
