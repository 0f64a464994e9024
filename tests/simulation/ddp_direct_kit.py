"""Every order of events of direct sums: their steps and their rules, on counters instead of memory.

A state is what all ranks have shown, where each is in its program, who is dead and who knows it.
`explore` goes from it to all that can come next: a step of a rank, a death, the news of a death, a
rank that gives up, is suspected, or runs out of patience. It raises where a rank reads what is not
what it waited for, where nothing can move though a rank is not through, where survivors disagree,
and where one returns what came from a vector that was its owner's again, or a dead one's.
"""

from __future__ import annotations

from typing import NamedTuple

from ddp import direct
from ddp.direct import LAST_MARK, Mark, Verb, Way

CALLED = -1  # the counter of calls, beside the marks

RUNS, SUM, ERROR, UNKNOWN, DEAD = "runs", "sum", "error", "unknown", "dead"


class Wrong(Exception):
    """A state that must not be."""


class Rank(NamedTuple):
    at: int = 0
    called: int = 0
    shown: tuple[int, int, int] = (0, 0, 0)  # by mark
    holds: tuple[int, int] = (0, 0)  # the windows whose numbers lie in the two areas
    took: frozenset[int] = frozenset()  # whose sums are in the vector
    tainted: bool = False  # something in the vector is nobody's numbers
    done: int = 0  # calls that gave a sum
    fate: str = RUNS
    knows: frozenset[int] = frozenset()  # who is dead
    suspects: frozenset[int] = frozenset()  # who is said to be


class Await(NamedTuple):
    """With what `hopeless` is asked meanwhile: the window and the mark that end the call."""

    mark: int
    window: int
    of: int
    last: int
    last_mark: Mark


def steps_of(rank, size, windows, ways, program, fills_early):
    """The program in the smallest steps that others can tell apart, with the meetings before."""
    others = [r for r in range(size) if r != rank]
    steps, first, before = [], 0, None
    for number, way in enumerate(ways, 1):
        count = 1 if way is Way.REACH else windows
        early = way is not Way.REACH and fills_early(way, before)
        if early:
            steps.append(("write", (first + 1) % 2 if way is Way.EXCHANGE else 0, first + 1))
            steps += [("show", Mark.FILLED, first + 1)] * (way is Way.SHARDS)
        steps.append(("show", CALLED, number))
        steps += [("await", Await(CALLED, number, r, first + 1, Mark.REDUCED)) for r in others]
        for verb, relative, mark, of in program(rank, size, count, way):
            window = first + relative
            area = window % 2 if way is Way.EXCHANGE else 0
            if verb is Verb.AWAIT:
                last = first + count
                steps.append(("await", Await(mark, window, of, last, LAST_MARK[way])))
            elif verb is Verb.TAKE:
                steps.append(
                    ("take", window, of) if way is Way.REACH else ("read", 1, window, [of])
                )
            elif verb is Verb.FILL:
                steps += [("write", area, window)] * (relative > early and way is not Way.REACH)
                steps.append(("show", mark, window))
            elif verb is Verb.CHECK:
                steps += [("check",), ("show", mark, window)]
            elif way is Way.REACH:
                steps += [*(("add", r) for r in others), ("show", mark, window)]
            else:
                steps.append(("read", area, window, others))
                if way is Way.SHARDS:
                    steps += [("write", 1, window), ("show", mark, window)]
        steps.append(("return",))
        first, before = first + count, before if way is Way.REACH else way
    return steps


class Exploration:
    """See above.

    Args:
        ways: of one call after the other.
        deaths: how many may die.
        suspicions: how many living may be held for dead, as a stopped one is.
        impatient: whoever waits may give up.
    """

    def __init__(
        self, size, windows=1, *, ways=(Way.SHARDS,), deaths=0, suspicions=0, impatient=False,
        program=direct.program, hopeless=direct.hopeless, fills_early=direct.fills_early,
    ):  # fmt: skip
        self.size, self.deaths, self.suspicions = size, deaths, suspicions
        self.impatient, self.hopeless = impatient, hopeless
        self.steps = [steps_of(r, size, windows, ways, program, fills_early) for r in range(size)]
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
        left = [r for i, r in enumerate(state) if i not in suspected]
        fates = {(r.fate, r.done) for r in left if r.fate not in (DEAD, UNKNOWN)}
        if len(fates) > 1:
            raise Wrong(f"survivors disagree: {state}")
        self.ends |= {fate for fate, _ in fates}

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
        verb, *rest = self.steps[i][rank.at]
        on = {"at": rank.at + 1}
        if verb == "await":
            return self.waits(state, i, rank, rest[0])
        if verb in ("add", "take"):
            return self.far(state, i, rank, verb, rest[-1])
        if verb == "return":
            if rank.tainted:
                raise Wrong(f"rank {i} returns what is nobody's: {state}")
            end = SUM if on["at"] == len(self.steps[i]) else RUNS
            done = rank.done + 1
            return [self.with_(state, i, fate=end, done=done, took=frozenset(), **on)]
        if verb == "check":
            others = [other.fate for j, other in enumerate(state) if j != i]
            if {ERROR, UNKNOWN, DEAD} & set(others):
                return [self.with_(state, i, fate=ERROR)]
        elif verb == "show":
            mark, window = rest
            if mark == CALLED:
                on["called"] = window
            else:
                on["shown"] = (*rank.shown[:mark], window, *rank.shown[mark + 1 :])
        elif verb == "write":
            area, window = rest
            on["holds"] = (window, rank.holds[1]) if area == 0 else (rank.holds[0], window)
        else:
            area, window, whose = rest
            for of in whose:
                if state[of].holds[area] != window:
                    raise Wrong(f"rank {i} reads of rank {of} what is not there: {state}")
        return [self.with_(state, i, **on)]

    def far(self, state, i, rank, verb, of):
        """Out of another one's vector: to add, or to take sums."""
        owner, on = state[of], {"at": rank.at + 1}
        if verb == "take":
            on["took"] = rank.took | {of}
        if owner.fate in (ERROR, UNKNOWN):  # it may write what it likes
            return [self.with_(state, i, tainted=True, **on)]
        if owner.fate == DEAD:  # its memory is gone, or its number is another process's
            return [
                self.with_(state, i, tainted=True, **on),
                self.with_(state, i, fate=ERROR),
            ]
        if owner.done > rank.done:
            raise Wrong(f"rank {i} reads the vector of rank {of}, who has returned: {state}")
        if verb == "add" and i in owner.took:
            raise Wrong(f"rank {i} adds what rank {of} has overwritten: {state}")
        if verb == "take" and owner.shown[Mark.REDUCED] <= rank.shown[Mark.TAKEN]:
            raise Wrong(f"rank {i} takes what rank {of} has not added: {state}")
        return [self.with_(state, i, tainted=rank.tainted or owner.tainted, **on)]

    def waits(self, state, i, rank, step):
        of = state[step.of]
        if (of.called if step.mark == CALLED else of.shown[step.mark]) >= step.window:
            return [self.with_(state, i, at=rank.at + 1)]
        gave_up = {j for j, other in enumerate(state) if other.fate in (ERROR, UNKNOWN)}
        frozen = gave_up | rank.knows
        own = rank.shown[step.last_mark]
        if frozen or rank.suspects:
            left = [j for j in range(self.size) if j not in rank.knows | rank.suspects | {i}]
            shown = [state[j].shown[step.last_mark] for j in frozen]
            if self.hopeless(step.last, own, shown, alone=not left):
                return [self.with_(state, i, fate=ERROR)]
        # One is stopped for ever if it is suspected: then only patience ends the wait for it.
        if self.impatient or rank.suspects:
            return [self.with_(state, i, fate=UNKNOWN if own >= step.last else ERROR)]
        return []

    @staticmethod
    def with_(state, i, **changes):
        return (*state[:i], state[i]._replace(**changes), *state[i + 1 :])
