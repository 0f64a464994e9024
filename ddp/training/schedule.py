"""Pipeline schedules as data: which stage does what in which order, and a proof that it works.

    gpipe            F0 F1 F2 F3 . . . B0 B1 B2 B3      all forward, then all backward
    one_f_one_b      F0 F1 . B0 F2 B1 F3 B2 . B3        backward as soon as it can be

A schedule is a list of actions a stage. `check` proves that it ends (no deadlock), that each
micro-batch goes forward and backward through each stage once, in the order in which its neighbour
sends it, and how many activations a stage holds at the most. `timeline` lays it out in virtual
time.

With p stages, m micro-batches and equal stages of tF and tB, both take (m + p − 1)(tF + tB): the
bubble is (p − 1)(tF + tB) a stage, (p − 1)/m of the *ideal* time m(tF + tB) (the lecture's and
Megatron's figure), (p − 1)/(m + p − 1) of the *whole* (GPipe's). What 1F1B saves is memory: stage i
holds min(p − i, m) activations, GPipe m. (Huang et al. 2019; Narayanan et al. 2021, §2.2.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from ddp.training.errors import InvalidSchedule

FORWARD: Final = "F"
BACKWARD: Final = "B"


class Action(NamedTuple):
    """One micro-batch through one stage, in one direction."""

    kind: str
    micro: int

    def __str__(self) -> str:
        return f"{self.kind}{self.micro}"


# schedule[stage] is what that stage does, in order.
Schedule: TypeAlias = Sequence[Sequence[Action]]


def gpipe(stages: int, micros: int) -> Schedule:
    """All forward, then all backward."""
    forward = [Action(FORWARD, i) for i in range(micros)]
    backward = [Action(BACKWARD, i) for i in range(micros)]
    return [forward + backward for _ in range(stages)]


def one_f_one_b(stages: int, micros: int) -> Schedule:
    """Stage s goes forward min(p − s − 1, m) times, then forward and backward in turn."""
    schedule = []
    for stage in range(stages):
        warm_up = min(stages - stage - 1, micros)
        actions = [Action(FORWARD, i) for i in range(warm_up)]
        for i in range(micros - warm_up):
            actions += [Action(FORWARD, warm_up + i), Action(BACKWARD, i)]
        actions += [Action(BACKWARD, i) for i in range(micros - warm_up, micros)]
        schedule.append(actions)
    return schedule


SCHEDULES: Final[dict[str, Callable[[int, int], Schedule]]] = {
    "gpipe": gpipe,
    "1f1b": one_f_one_b,
}


class Span(NamedTuple):
    """An action in virtual time."""

    stage: int
    action: Action
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """A schedule laid out, and what it costs."""

    spans: list[Span]
    stages: int
    held: list[int]  # most activations that a stage holds at once

    @property
    def total(self) -> float:
        """From the first action to the end of the last."""
        return max(span.end for span in self.spans)

    def busy(self, stage: int) -> float:
        """What a stage computes; the ideal time, if nobody ever waited."""
        return sum(span.end - span.begin for span in self.spans if span.stage == stage)

    @property
    def bubble(self) -> float:
        """Idle over ideal time, of the stage that has most to do."""
        ideal = max(self.busy(stage) for stage in range(self.stages))
        return (self.total - ideal) / ideal

    def draw(self, unit: float) -> list[str]:
        """A line a stage, a cell a `unit` of time: digits forward, letters backward."""
        lines = []
        for stage in range(self.stages):
            cells = ["·"] * round(self.total / unit)
            for span in self.spans:
                if span.stage == stage:
                    first = "0" if span.action.kind == FORWARD else "a"
                    mark = chr(ord(first) + span.action.micro % 10)
                    begin, end = round(span.begin / unit), round(span.end / unit)
                    cells[begin:end] = mark * (end - begin)
            lines.append("".join(cells))
        return lines


def check(schedule: Schedule, micros: int, held_max: Sequence[int] | None = None) -> Timeline:
    """The schedule in units of one action; raises InvalidSchedule with the rule that it breaks.

    held_max: of each stage, how many activations it may hold.
    """
    whole = {Action(kind, i) for kind in (FORWARD, BACKWARD) for i in range(micros)}
    for stage, actions in enumerate(schedule):
        for action in actions:
            if actions.count(action) > 1:
                raise InvalidSchedule(f"stage {stage} does {action} {actions.count(action)} times")
        if missing := sorted(whole - set(actions)):
            raise InvalidSchedule(f"stage {stage} never does {missing[0]}")
        if strange := sorted(set(actions) - whole):
            raise InvalidSchedule(f"stage {stage} does {strange[0]} of {micros} micro-batches")
        for kind in (FORWARD, BACKWARD):
            order = [a.micro for a in actions if a.kind == kind]
            first = [a.micro for a in schedule[0] if a.kind == kind]
            if order != first:
                raise InvalidSchedule(f"stage {stage} takes {kind} in another order than it comes")
    found = timeline(schedule, lambda *_: 1.0)
    for stage, most in enumerate(held_max or ()):
        if found.held[stage] > most:
            raise InvalidSchedule(
                f"stage {stage} holds {found.held[stage]} activations; it may hold {most}"
            )
    return found


def timeline(schedule: Schedule, duration: Callable[[int, Action], float]) -> Timeline:
    """Each action as early as its stage, its own forward and its neighbour allow.

    duration: of an action in a stage, in seconds. Raises InvalidSchedule on a deadlock.
    """
    stages = len(schedule)
    ended: dict[tuple[int, Action], float] = {}
    free, at, spans = [0.0] * stages, [0] * stages, list[Span]()
    moved = True
    while moved:
        moved = False
        for stage, actions in enumerate(schedule):
            while at[stage] < len(actions):
                action = actions[at[stage]]
                needs = _needs(stage, action, stages)
                if any(need not in ended for need in needs):
                    break
                begin = max([free[stage], *(ended[need] for need in needs)])
                end = free[stage] = begin + duration(stage, action)
                ended[stage, action] = end
                spans.append(Span(stage, action, begin, end))
                at[stage] += 1
                moved = True
    stuck = [(s, schedule[s][at[s]]) for s in range(stages) if at[s] < len(schedule[s])]
    if stuck:
        waits = "; ".join(f"stage {stage} waits to do {action}" for stage, action in stuck)
        raise InvalidSchedule(f"deadlock: {waits}")
    return Timeline(spans, stages, [_held(actions) for actions in schedule])


def _needs(stage: int, action: Action, stages: int) -> list[tuple[int, Action]]:
    if action.kind == FORWARD:
        return [(stage - 1, action)] if stage else []
    needs = [(stage, Action(FORWARD, action.micro))]
    return [*needs, (stage + 1, action)] if stage + 1 < stages else needs


def _held(actions: Sequence[Action]) -> int:
    now = most = 0
    for action in actions:
        now += 1 if action.kind == FORWARD else -1
        most = max(most, now)
    return most
