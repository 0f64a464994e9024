"""Is there an order in which a correct system could have done all this, one after the other?

A history is linearizable (Herlihy and Wing 1990) if each operation can be given one moment
between its call and its answer so that the answers are right in the order of the moments.

    p1  ├──── write 1 ────┤                      an order: write 1, read -> 1, write 2
    p2        ├─ read -> 1 ─┤
    p3             ├──── write 2 ────┤

The search is Wing and Gong's (1993) with Lowe's cache (2017). What has been given its moment is
one *configuration* with the state that this led to; the next can be any operation that was called
before the first answer that is still to be explained. A dead end goes back to the last choice, and
no configuration is looked into twice.

    done      all operations below `low`, and of those above it the bits of `window`: a history of
              a hundred thousand operations needs no more bits than were under way at a time
    maybe     which of those that nobody knows of have been done

An operation that nobody knows of (`info`) need not have been done at all. So it is only tried when
nothing else can come next, and a configuration that did with fewer of them makes those with more
superfluous: whatever they can do, it can. That keeps the search small where every time-out would
otherwise double it.

The order in which a set of objects is judged does not matter, so each is judged by itself.
"""

from __future__ import annotations

import functools
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from cluster.verify.history import FAIL, INFO, Operation
from cluster.verify.models import MODELS, REFUSED, Model

VALID, INVALID, UNSURE = "valid", "invalid", "unknown"

# Configurations between two looks at the clock.
STEPS_A_LOOK: Final = 2_000

# Operations that are judged sooner than another process is started.
WORTH_A_PROCESS: Final = 20_000


class Config(NamedTuple):
    """What has been given its moment, and the state that it led to."""

    low: int
    window: int
    maybe: int
    state: Any


@dataclass(slots=True)
class Judgement:
    """What is to be said of one object's operations.

    order
        A right order, if there is one; else the longest that explains a beginning.
    stuck
        If not valid: what was under way then, and could not come next.
    state
        What the longest order led to.
    """

    part: Any
    verdict: str
    operations: int
    order: list[Operation] = field(default_factory=list)
    stuck: list[Operation] = field(default_factory=list)
    state: Any = None
    looked_at: int = 0  # configurations

    @property
    def sentence(self) -> str:
        """Why, in words."""
        where = "" if self.part is None else f" of {self.part!r}"
        if self.verdict == VALID:
            return f"the {self.operations} operations{where} have an order"
        if self.verdict == UNSURE:
            return f"time ran out over the {self.operations} operations{where}"
        asked = ", or ".join(map(repr, self.stuck[:3]))
        return (
            f"after {len(self.order)} of {self.operations} operations{where} the state must be"
            f" {self.state!r}; then nothing that was under way fits: {asked}"
        )


def parts(history: Sequence[Operation], model: Model) -> dict[Any, list[Operation]]:
    """The operations of each object, without those that say nothing."""
    found: dict[Any, list[Operation]] = {}
    for operation in history:
        if operation.outcome == FAIL or (operation.outcome == INFO and operation.f in model.reads):
            continue
        found.setdefault(model.part(operation), []).append(operation)
    return found


def judge_all(
    history: Sequence[Operation], model: Model, *, limit_s: float = 60.0, processes: int = 0
) -> list[Judgement]:
    """A judgement of each object, the worst first; on all cores if there is much to do.

    Args:
        limit_s: after so much time what is not judged is unknown.
        processes: 0: as many as there are cores, or none beside this if there is little to do.
    """
    found = sorted(parts(history, model).items(), key=lambda item: -len(item[1]))
    deadline = time.monotonic() + limit_s
    if not processes:
        processes = (os.cpu_count() or 1) if len(history) > WORTH_A_PROCESS else 1
    if processes == 1 or len(found) == 1:
        judged = [_judge_until(item, model.name, deadline) for item in found]
    else:
        # Longest first, and each goes to whoever is free.
        context = multiprocessing.get_context("fork")
        work = functools.partial(_judge_until, model_name=model.name, deadline=deadline)
        portion = max(1, len(found) // (processes * 16))
        with ProcessPoolExecutor(processes, mp_context=context) as pool:
            judged = list(pool.map(work, found, chunksize=portion))
    severity = {INVALID: 0, UNSURE: 1, VALID: 2}
    return sorted(judged, key=lambda judgement: severity[judgement.verdict])


def _judge_until(item: tuple[Any, list[Operation]], model_name: str, deadline: float) -> Judgement:
    part, operations = item
    return judge(part, operations, MODELS[model_name], lambda: time.monotonic() > deadline)


def judge(
    part: Any, history: Sequence[Operation], model: Model, too_late: Callable[[], bool]
) -> Judgement:
    """Whether the operations of one object can be put in order; UNSURE once it is `too_late`."""
    return _Search(history, model).run(part, too_late)


class _Search:
    """One object's operations, and the way through them."""

    def __init__(self, history: Sequence[Operation], model: Model) -> None:
        known = [op for op in history if op.outcome != INFO]
        self._ops = sorted(known, key=lambda op: op.called)
        self._infos = sorted((op for op in history if op.outcome == INFO), key=lambda o: o.called)
        self._step = model.step
        self._idle = model.idle
        self._initial = model.initial
        # For each (low, window, state) the smallest sets of `maybe` that were looked into.
        self._seen: dict[tuple[int, int, Any], list[int]] = {}

    def run(self, part: Any, too_late: Callable[[], bool]) -> Judgement:
        """Depth first: each step of the way is a configuration, and what else to try from it."""
        start = Config(0, 0, 0, self._initial)
        way = [_Step(start, self._moves(start), None)]
        furthest = way[0]
        depth = 0  # of `furthest`
        looked_at = 0
        verdict = VALID
        while way[-1].config.low < len(self._ops):
            looked_at += 1
            if looked_at % STEPS_A_LOOK == 0 and too_late():
                verdict = UNSURE
                break
            move = next(way[-1].moves, None)
            if move is None:
                if len(way) > depth:
                    # It goes no further from here, and no way came as far.
                    depth, furthest = len(way), way[-1]
                if len(way) == 1:
                    verdict = INVALID
                    break
                way.pop()
            elif self._is_new(move.config):
                trail = (way[-1].trail, move.done)
                way.append(_Step(move.config, self._moves(move.config), trail))
        if verdict == VALID:
            furthest = way[-1]
        last = furthest.config
        stuck = [self._ops[i] for i in self._pending(last)[0]] if verdict == INVALID else []
        total = len(self._ops) + len(self._infos)
        order = _unrolled(furthest.trail)
        return Judgement(part, verdict, total, order, stuck, last.state, looked_at)

    def _is_new(self, config: Config) -> bool:
        """Whether nothing that could do as much has been looked into."""
        key = (config.low, config.window, config.state)
        before = self._seen.get(key)
        if before is None:
            self._seen[key] = [config.maybe]
            return True
        if any(maybe & config.maybe == maybe for maybe in before):
            return False
        before.append(config.maybe)
        return True

    def _pending(self, config: Config) -> tuple[list[int], float]:
        """What may come next, the likeliest first; and the first answer still to be explained.

        A moment in the middle is likelier than one at either end.
        """
        ops, first_answer, at = self._ops, math.inf, config.low
        window = config.window
        pending = []
        while at < len(ops):
            op = ops[at]
            if op.called > first_answer:
                break
            if not window & 1:
                pending.append(at)
                first_answer = min(first_answer, op.returned)
            window >>= 1
            at += 1
        pending = [i for i in pending if ops[i].called <= first_answer]
        if len(pending) > 1:
            pending.sort(key=lambda i: ops[i].called + ops[i].returned)
        return pending, first_answer

    def _moves(self, config: Config) -> Iterator[_Move]:
        """Each known operation that can come next; then those that can after unknown ones."""
        step, ops = self._step, self._ops
        pending, first_answer = self._pending(config)
        after = [(i, step(config.state, ops[i])) for i in pending]
        for i, state in after:
            if state == config.state and self._idle(ops[i]):
                # It fits, and can never change anything: no order is lost if it comes now.
                yield _Move(_after(config, i, state, config.maybe), [ops[i]])
                return
        for i, state in after:
            if state is not REFUSED:
                yield _Move(_after(config, i, state, config.maybe), [ops[i]])
        if not self._infos:
            return
        for state, maybe, done in self._unknown_ones(config, first_answer):
            for i in pending:
                then = step(state, ops[i])
                if then is not REFUSED:
                    yield _Move(_after(config, i, then, maybe), [*done, ops[i]])

    def _unknown_ones(
        self, config: Config, before: float
    ) -> Iterator[tuple[Any, int, list[Operation]]]:
        """The states that unknown operations may have led to, with as few of them as possible."""
        reached: dict[Any, list[int]] = {config.state: [config.maybe]}
        frontier: list[tuple[Any, int, list[Operation]]] = [(config.state, config.maybe, [])]
        while frontier:
            further = []
            for state, maybe, done in frontier:
                for j, op in enumerate(self._infos):
                    if op.called > before:
                        break
                    if maybe >> j & 1:
                        continue
                    after = self._step(state, op)
                    if after is REFUSED:
                        continue
                    used = maybe | 1 << j
                    ways = reached.setdefault(after, [])
                    if any(way & used == way for way in ways):
                        continue
                    ways.append(used)
                    item = (after, used, [*done, op])
                    further.append(item)
                    yield item
            frontier = further


class _Move(NamedTuple):
    config: Config
    done: list[Operation]


# What was done on the way: the last of it, behind all before.
_Trail = tuple[Any, list[Operation]] | None


class _Step(NamedTuple):
    config: Config
    moves: Iterator[_Move]
    trail: _Trail


def _after(config: Config, i: int, state: Any, maybe: int) -> Config:
    """The configuration when the known operation `i` has had its moment too."""
    low, window = config.low, config.window | 1 << i - config.low
    while window & 1:
        window >>= 1
        low += 1
    return Config(low, window, maybe, state)


def _unrolled(trail: _Trail) -> list[Operation]:
    portions = []
    while trail is not None:
        trail, done = trail
        portions.append(done)
    return [op for done in reversed(portions) for op in done]
