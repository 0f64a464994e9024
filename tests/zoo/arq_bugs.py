"""Senders and receivers with one mistake each, and the check that is to catch it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "arq"))

import arq_kit as kit

from netstack.arq.buffering import BufferingReceiver
from netstack.arq.fixed_window import FixedWindowSender
from netstack.arq.flushing import FlushingReceiver
from netstack.arq.in_order import InOrderReceiver
from netstack.arq.lock_step import LockStepSender
from netstack.arq.nak import NakReceiver
from netstack.arq.segment import Ack, Nak
from netstack.arq.sliding_window import SlidingWindowSender


class WindowOffByOne(SlidingWindowSender):
    """One more than the receiver has room for."""

    def _limit(self):
        return self.next_index + self.window + 1


class DoesNotWaitForTheBatch(FixedWindowSender):
    """Slides."""

    def _limit(self):
        return self.next_index + self.window


class ForgetsKarn(LockStepSender):
    """Takes an answer to a repeat for a measurement."""

    def _measure(self, index, now):
        flight = self._flights.get(index)
        if flight is not None:
            flight.tries = 1
        super()._measure(index, now)


class ForgetsToBackOff(LockStepSender):
    """Takes progress for a measurement: Karn's second half."""

    def _acknowledged(self, ack, now):
        self.back_off = 0
        super()._acknowledged(ack, now)


class TriesForEver(LockStepSender):
    """Never counts."""

    def on_deadline(self, now):
        self.tries = 1
        super().on_deadline(now)


class OneTryTooMany(LockStepSender):
    """Counts from 0."""

    def on_deadline(self, now):
        if self.timeouts == 0:
            self.tries = 0
        super().on_deadline(now)


class TrustsWhatIsHeld(SlidingWindowSender):
    """Never sends again what a receiver once held: it may throw it away."""

    _trusted = frozenset()

    def receive(self, answer, now):
        super().receive(answer, now)
        self._held = self._trusted = self._trusted | self._held


class IndexWraps(SlidingWindowSender):
    """Counts segments in a byte."""

    def _put(self, segment):
        super()._put(replace(segment, index=segment.index & 0xFF))


class NoTimerBehindTheNak(SlidingWindowSender):
    """Relies on being asked; but a NAK may be lost, and after the last segment there is no gap."""

    def on_deadline(self, now):
        self._restart_timer(now)
        self.tries += 1
        if self.tries > self.tries_max:
            super().on_deadline(self._deadline)


class AcknowledgesWhatItDropped(InOrderReceiver):
    """Acknowledges the highest that it has seen."""

    _highest = -1

    def _answer(self, index):
        self._highest = max(self._highest, index)
        self._outputs.append(Ack(self.message, self._answers, index, self._highest + 1))
        self._answers += 1


class AcknowledgesWhatItRefused(BufferingReceiver):
    """A full buffer takes one more, in words."""

    def _out_of_order(self, segment):
        if not self._has_room(segment):
            self._held[segment.index] = b""
        else:
            super()._out_of_order(segment)


class BufferWithoutLimit(BufferingReceiver):
    """Takes all the memory there is."""

    def _has_room(self, segment):
        return True


class DeliversTwice(InOrderReceiver):
    """Hands a duplicate over again."""

    def receive(self, segment):
        if segment.index == self.next_index - 1:
            self._delivered.append(segment.payload)
        super().receive(segment)


class SilentOnDuplicates(InOrderReceiver):
    """What it has, it does not answer: the first answer may have been lost."""

    def receive(self, segment):
        if segment.index >= self.next_index:
            super().receive(segment)


class DeliversAsItComes(BufferingReceiver):
    """In any order."""

    def _hold(self, segment):
        super()._hold(segment)
        self._delivered.append(segment.payload)
        self._held[segment.index] = b""
        self.held_bytes -= len(segment.payload)


class NakStorm(NakReceiver):
    """Never stops asking."""

    def __init__(self, buffer_bytes=1 << 20):
        super().__init__(buffer_bytes, stops=False)


class AsksAgainAndAgain(NakReceiver):
    """With every segment behind the hole."""

    def _out_of_order(self, segment):
        self._end = self.next_index
        super()._out_of_order(segment)


class AsksForWhatItHas(NakReceiver):
    """Off by one at the near end of the gap."""

    def _out_of_order(self, segment):
        before = len(self._outputs)
        super()._out_of_order(segment)
        for i in range(before, len(self._outputs)):
            if isinstance(self._outputs[i], Nak):
                missing = self._outputs[i].missing
                self._outputs[i] = Nak(segment.message, (missing[0] - 1, *missing))


@dataclass(frozen=True)
class Check:
    """A check, the honest implementation that passes it, and those that must not."""

    holds: Callable[[type], None]
    honest: type
    bugs: tuple[type, ...]


def carries_with_sender(receiver: type, kind: type) -> None:
    """Several hostile links, behind a receiver with little room."""
    for seed in range(4):
        kit.carries_everything(partial(kind, window=20, tries_max=30), partial(receiver, 200), seed)


def carries_with_receiver(kind: type) -> None:
    """The same, by senders that are right."""
    for seed in range(4):
        for sender, window in ((SlidingWindowSender, 20), (LockStepSender, 1)):
            carries = partial(sender, window=window, tries_max=30)
            kit.carries_everything(carries, partial(kind, 200), seed)


def keeps_a_window_of_five(kind: type) -> None:
    """Five, neither four nor six."""
    kit.keeps_its_window(kind, 5)


CHECKS = (
    Check(keeps_a_window_of_five, SlidingWindowSender, (WindowOffByOne,)),
    Check(kit.waits_for_the_whole_batch, FixedWindowSender, (DoesNotWaitForTheBatch,)),
    Check(kit.measures_only_what_is_certain, LockStepSender, (ForgetsKarn,)),
    Check(kit.measures_a_path_that_became_slow, LockStepSender, (ForgetsToBackOff,)),
    Check(kit.gives_up, LockStepSender, (TriesForEver, OneTryTooMany)),
    Check(
        partial(carries_with_sender, FlushingReceiver),
        SlidingWindowSender,
        (TrustsWhatIsHeld, IndexWraps),
    ),
    Check(partial(carries_with_sender, NakReceiver), SlidingWindowSender, (NoTimerBehindTheNak,)),
    Check(
        carries_with_receiver,
        InOrderReceiver,
        (AcknowledgesWhatItDropped, DeliversTwice, SilentOnDuplicates),
    ),
    Check(
        carries_with_receiver,
        BufferingReceiver,
        (AcknowledgesWhatItRefused, BufferWithoutLimit, DeliversAsItComes),
    ),
    Check(kit.stops_asking, NakReceiver, (NakStorm,)),
    Check(kit.asks_once, NakReceiver, (AsksAgainAndAgain, AsksForWhatItHas)),
)
