"""Bugs planted in collectives: each must be caught by the test that claims to catch its kind."""

from __future__ import annotations

from collections import deque

from ddp import direct
from ddp.direct import Mark, Verb
from ddp.elements import combine
from ddp.engine import Engine
from ddp.execution import Execution
from ddp.operation import Operation
from ddp.schedules.double_tree import both_trees
from ddp.schedules.ring import ring
from ddp.schedules.schedule import Action, Schedule, Transfer


def ring_off_by_one(size):
    """The all-gather half begins one chunk too early."""
    good = ring(size)
    rounds = [
        tuple(
            t._replace(lo=(t.lo - 1) % size, hi=(t.lo - 1) % size + 1)
            if t.action is Action.COPY
            else t
            for t in transfers
        )
        for transfers in good.rounds
    ]
    return Schedule("ring", size, size, tuple(rounds))


def tree_with_a_leaf_counted_twice(size):
    """A leaf sends to its parent and to its grandparent."""
    tree = both_trees(size)[0]
    leaf = next(r for r in range(size) if tree.depth(r) == tree.height)
    parent = tree.parent[leaf]
    rounds = [
        (Transfer(leaf, parent, 0, 1, Action.REDUCE),),
        (Transfer(leaf, tree.parent[parent], 0, 1, Action.REDUCE),),
        (Transfer(parent, tree.parent[parent], 0, 1, Action.REDUCE),),
    ]
    return Schedule("double-tree", size, 1, tuple(rounds))


class LendsEverything(Execution):
    """Sends from the vector itself, whoever overwrites it."""

    def _lasting(self):
        return {
            (number, t.dst, t.lo)
            for number, transfers in enumerate(self.schedule.rounds)
            for t in transfers
        }


class AddsAsItComes(Execution):
    """Does not wait for its turn: adds whatever of the current round has arrived."""

    def receive(self, src, round_, lo, offset, data):
        for transfer in list(self._due):
            here = (transfer.src, transfer.lo) == (src, lo) and transfer is not self._due[0]
            if here and self._turns[self._at].round == round_ and not self._got:
                self._due = deque([transfer, *(t for t in self._due if t is not transfer)])
        super().receive(src, round_, lo, offset, data)

    def _fold(self):
        for lo, by_source in self._kept.items():  # in the order in which it came
            mine = self.vector[self._starts[lo] : self._starts[lo + 1]]
            for values in by_source.values():
                combine(self.call.op, self.call.dtype, mine, values, mine)
        self._kept.clear()


class TakesStaleEpochs(Engine):
    """A frame is a frame, whenever it was sent."""

    def receive(self, src, frame, now):
        super().receive(src, frame._replace(epoch=self.epoch), now)


class ReturnsWhenItsOwnPartIsDone(Engine):
    """Does not ask whether the others can finish."""

    def _decide(self, operation, now):
        if not operation.ended and operation.error is None and operation.part_done:
            self._end(operation, None, now)
        else:
            super()._decide(operation, now)


class ForgetsWhatItHeld(Engine):
    """A piece that waited for its receiver to begin is never sent."""

    def _of_call(self, operation, src, frame, now):
        operation.held.pop(src, None)
        super()._of_call(operation, src, frame, now)


class TakesSlicesAsTheyCome(Operation):
    """A piece goes into the slice that is under way, whichever it is of."""

    def receive(self, src, frame):
        running = min(self.running, default=frame.slice)
        return super().receive(src, frame._replace(slice=running))


class DoesNotCompareCalls(Engine):
    """The head of a frame is not looked at."""

    def _of_call(self, operation, src, frame, now):
        super()._of_call(operation, src, frame._replace(call=operation.call), now)


class DropsAPiece(Execution):
    """Forgets that a piece came, and goes on."""

    def _apply(self, t, offset, data):
        if t.action is not Action.REDUCE or self.rank:
            super()._apply(t, offset, data)


def fails_when_anybody_is_dead(last, own, frozen, *, alone):
    """Does not ask how far the dead had come."""
    return True


def takes_the_suspected_for_frozen(last, own, frozen, *, alone):
    """Who is said to be dead cannot show anything any more, it thinks."""
    return alone or not list(frozen) or direct.hopeless(last, own, frozen, alone=alone)


def never_hopeless(last, own, frozen, *, alone):
    """Waits for the dead, too."""
    return False


def adds_before_all_have_filled(rank, size, windows, way):
    """Waits for all but the last."""
    steps = direct.program(rank, size, windows, way)
    left_out = next(s for s in reversed(steps) if s.verb is Verb.AWAIT and s.mark is Mark.FILLED)
    return tuple(step for step in steps if step is not left_out)


def without_windows(rank, size, windows, way):
    """A vector without elements needs no step, it thinks."""
    return ()


def returns_before_all_have_taken(rank, size, windows, way):
    """It has all that it needs, it thinks."""
    steps = direct.program(rank, size, windows, way)
    return tuple(s for s in steps if not (s.verb is Verb.AWAIT and s.mark is Mark.TAKEN))


def trusts_what_it_has_read(rank, size, windows, way):
    """Does not look whose it was."""
    steps = direct.program(rank, size, windows, way)
    return tuple(s._replace(verb=Verb.FILL) if s.verb is Verb.CHECK else s for s in steps)


def takes_before_it_was_read(rank, size, windows, way):
    """Takes sums without waiting for them, over what others have still to add."""
    steps = direct.program(rank, size, windows, way)
    return tuple(s for s in steps if not (s.verb is Verb.AWAIT and s.mark is Mark.REDUCED))


def fills_at_once(way, before):
    """Whatever was staged last."""
    return True
