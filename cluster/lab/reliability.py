"""Experiments about sending again: what a window is worth, and what a receiver keeps.

The path is the lecture's (20, item 3): 500 KB/s behind a round trip of 70 ms, in segments of half
a kilobyte; so 70 segments fill it. Segments carry heads besides, for which the line has room.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from cluster.lab.outcome import Check, Curve, Outcome, Panel
from netstack.arq import formulas
from netstack.arq.fixed_window import FixedWindowSender
from netstack.arq.flushing import FlushingReceiver
from netstack.arq.in_order import InOrderReceiver
from netstack.arq.link import Link, Result, transfer
from netstack.arq.lock_step import LockStepSender
from netstack.arq.nak import NakReceiver
from netstack.arq.receiver import Receiver
from netstack.arq.segment import OVERHEAD, cut
from netstack.arq.sender import Sender
from netstack.arq.sliding_window import SlidingWindowSender
from netstack.arq.strategies import RECEIVERS
from netstack.runtime.policy import LinkPolicy
from netstack.transport.rtt import FixedTimer

SEGMENT = 500  # bytes of payload
RATE = 500_000.0  # bytes of payload a second
RTT_S = 0.07
SEGMENT_S = SEGMENT / RATE
KNEE = round(formulas.window_for(SEGMENT, RTT_S, RATE))

SEGMENTS = 4_200
MESSAGE = bytes(SEGMENT * SEGMENTS)
WINDOWS = (1, *range(5, 65, 5), *range(65, 76), *range(80, 141, 10))

LOSSES = (0.002, 0.005, 0.01, 0.02, 0.05)
OVERTAKEN = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
RUNS = 3

Points = list[tuple[float, float]]

# Half a window, so that a loss at the beginning of one overflows it.
FLUSH_BYTES = KNEE // 2 * SEGMENT
# Far more tries than a transfer needs: these paths are lossy, not dead.
TRIES_MAX = 20


def path(dice: str, loss: float = 0.0, overtaken: float = 0.0) -> Link:
    """The lecture's path; both directions lose `loss`, segments are overtaken at random."""
    delay_s = (RTT_S - SEGMENT_S) / 2
    there = LinkPolicy(
        delay_s=delay_s,
        loss=loss,
        reorder=overtaken,
        reorder_s=10 * SEGMENT_S,
        rate_bytes_s=RATE * (SEGMENT + OVERHEAD) / SEGMENT,
        queue_bytes=1 << 20,
    )
    return Link(there, LinkPolicy(delay_s=delay_s, loss=loss), random.Random(dice))


# -- the window


def window(seed: int) -> Outcome:
    """Throughput of the three senders, beside the formulas."""
    segments = cut(914, MESSAGE, SEGMENT)

    def rate(sender: Sender) -> float:
        return transfer(sender, InOrderReceiver(), path(f"window {seed}")).throughput

    fixed: Points = [(w, rate(FixedWindowSender(segments, w))) for w in WINDOWS]
    sliding: Points = [(w, rate(SlidingWindowSender(segments, w))) for w in WINDOWS]
    lock_step = rate(LockStepSender(segments))
    fixed_paper: Points = [
        (w, formulas.fixed_window(SEGMENT, RTT_S, w, SEGMENT_S)) for w in WINDOWS
    ]
    sliding_paper: Points = [(w, formulas.sliding_window(SEGMENT, RTT_S, w, RATE)) for w in WINDOWS]
    best = max(y for _, y in sliding)
    knee = next(w for w, y in sliding if y >= 0.995 * best)
    twice = SlidingWindowSender(segments, 2 * KNEE)
    rate(twice)
    lossy, lossy_paper = _lock_step_under_loss(seed)
    return Outcome(
        "window",
        "One segment a round trip leaves the line idle; a window of RTT × rate, here 70 "
        "segments, fills it if it slides, and more only waits in the queue.",
        [
            Check("the knee of the sliding window", knee, "segments", KNEE - 1, KNEE + 1),
            Check("lock-step, of its formula",
                  lock_step / formulas.lock_step(SEGMENT, RTT_S), "", 0.98, 1.02),
            Check("fixed window, off its formula: at most", furthest(fixed, fixed_paper), "",
                  most=0.02),
            Check("sliding window, off its formula: at most", furthest(sliding, sliding_paper), "",
                  most=0.02),
            Check("a window of 70 that slides, over one that does not",
                  dict(sliding)[KNEE] / dict(fixed)[KNEE], "times", 1.9, 2.1),
            Check("with twice the window the round trip grows", twice.timer.smoothed / RTT_S,
                  "times", 1.9, 2.1),
            Check("lock-step under loss, off its formula: at most", furthest(lossy, lossy_paper),
                  "", most=0.05),
        ],
        [
            Panel("window (segments)", "bytes a second", [
                Curve("sliding window", sliding),
                Curve("fixed window", fixed),
                Curve("lock-step", [(1, lock_step)], dots=True),
                Curve("min(rate, W S / RTT)", sliding_paper, dashed=True),
                Curve("W S / (RTT + (W - 1) t)", fixed_paper, dashed=True),
                Curve("RTT × rate", [(KNEE, 0), (KNEE, RATE)], dashed=True),
            ]),
            Panel("segments or answers lost", "lock-step: bytes a second", [
                Curve("measured", lossy, dots=True),
                Curve("S / (RTT + RTO p / (1 - p))", lossy_paper, dashed=True),
            ]),
        ],
    )  # fmt: skip


def _lock_step_under_loss(seed: int) -> tuple[Points, Points]:
    """With a fixed time-out, as the formula has it: (measured, on paper)."""
    segments, rto_s = cut(914, MESSAGE, SEGMENT), 0.1
    measured: Points = []
    paper: Points = []
    for loss in (0.0, 0.02, 0.05, 0.1, 0.2, 0.3):
        timer = FixedTimer(rto_s / 3)
        sender = LockStepSender(segments, timer=timer, tries_max=TRIES_MAX)
        one_way = 1 - (1 - loss) ** 0.5  # either direction loses the same share
        result = transfer(sender, InOrderReceiver(), path(f"lock-step {seed}", one_way))
        measured.append((loss, result.throughput))
        paper.append((loss, formulas.lock_step(SEGMENT, RTT_S, loss, rto_s)))
    return measured, paper


def furthest(measured: Points, paper: Points) -> float:
    """The largest deviation from a formula, as a part of it."""
    return max(abs(y / z - 1) for (_, y), (_, z) in zip(measured, paper, strict=True))


# -- the receivers


@dataclass(frozen=True, slots=True)
class Mean:
    """Of several transfers of the same kind."""

    again: float  # bytes sent again, in messages
    high_water: int  # bytes, the highest of all
    throughput: float  # bytes a second


def mean(make: Callable[[], Receiver], seed: int, loss: float, overtaken: float = 0.0) -> Mean:
    """Send the message a few times, by a window that just fills the path."""
    segments = cut(914, MESSAGE, SEGMENT)
    results: list[Result] = []
    for run in range(RUNS):
        sender = SlidingWindowSender(segments, KNEE, tries_max=TRIES_MAX)
        results.append(transfer(sender, make(), path(f"{seed} {run}", loss, overtaken)))
    return Mean(
        sum(r.bytes_sent_again for r in results) / RUNS / len(MESSAGE),
        max(r.high_water_bytes for r in results),
        sum(r.throughput for r in results) / RUNS,
    )


def receivers(seed: int) -> Outcome:
    """The four receivers: memory, and what is sent again."""
    kinds: dict[str, Callable[[], Receiver]] = {
        **RECEIVERS,
        "flush": partial(FlushingReceiver, FLUSH_BYTES),
    }
    found = {name: [mean(make, seed, loss) for loss in LOSSES] for name, make in kinds.items()}
    lost = [formulas.sent_again(1, loss) for loss in LOSSES]
    overtaken = {
        stops: [mean(partial(NakReceiver, stops=stops), seed, 0.0, o) for o in OVERTAKEN]
        for stops in (True, False)
    }

    def curves(what: Callable[[Mean], float], dots: str = "") -> list[Curve]:
        return [
            Curve(name, [(p, what(m)) for p, m in zip(LOSSES, means, strict=True)], name == dots)
            for name, means in found.items()
        ]

    return Outcome(
        "receivers",
        "What comes before its turn: who keeps nothing is sent a window again for each loss, who "
        "keeps a window only what was lost, and who asks for it need not wait for the timer.",
        [
            *_claims({name: means[LOSSES.index(0.01)] for name, means in found.items()}),
            Check("NAK where every fifth is overtaken: sent again", overtaken[False][-1].again,
                  "messages", least=0.1),
            Check("NAK that stops at duplicates: sent again", overtaken[True][-1].again,
                  "messages", most=0.02),
        ],
        [
            Panel("segments and answers lost", "sent again (messages)",
                  [*curves(lambda m: m.again),
                   Curve("p / (1 - p)", list(zip(LOSSES, lost, strict=True)), dashed=True)],
                  log_x=True, log_y=True),
            Panel("segments and answers lost", "memory at most (bytes)",
                  curves(lambda m: m.high_water, dots="buffer"), log_x=True),
            Panel("segments and answers lost", "bytes a second",
                  curves(lambda m: m.throughput), log_x=True),
            Panel("segments overtaken", "sent again (messages)", [
                Curve("NAK that stops" if stops else "NAK that does not",
                      [(o, m.again) for o, m in zip(OVERTAKEN, means, strict=True)])
                for stops, means in overtaken.items()
            ]),
        ],
    )  # fmt: skip


def _claims(at: dict[str, Mean]) -> list[Check]:
    """What each receiver promises, at 1 % loss."""
    window, lost = KNEE * SEGMENT, formulas.sent_again(1, 0.01)
    return [
        Check("in order: memory", at["in-order"].high_water, "bytes", most=0),
        Check("in order: sent again, of what was lost", at["in-order"].again / lost, "times",
              least=20),
        Check("buffer: memory", at["buffer"].high_water, "bytes", window / 2, window),
        Check("buffer: sent again, of what was lost", at["buffer"].again / lost, "times", 0.7, 1.3),
        Check("flush: memory", at["flush"].high_water, "bytes", most=FLUSH_BYTES),
        Check("flush: sent again, of in order", at["flush"].again / at["in-order"].again,
              "", 0.2, 0.95),
        Check("NAK: sent again, of what was lost", at["nak"].again / lost, "times", 0.7, 1.3),
        Check("NAK: throughput, of the buffer's", at["nak"].throughput / at["buffer"].throughput,
              "times", least=1.2),
    ]  # fmt: skip
