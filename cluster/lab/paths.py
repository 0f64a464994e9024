"""Experiments about paths on which the usual assumptions do not hold."""

from __future__ import annotations

import math

from cluster.lab.congestion import GOODPUT, PRODUCT, RATE, RTT_S, rates
from cluster.lab.dumbbell import MTU, Dumbbell
from cluster.lab.outcome import Check, Curve, Outcome, Panel, jain, percentile
from cluster.lab.port import Line

LOSSES = (0.0001, 0.001, 0.01, 0.05)


def wireless(seed: int) -> Outcome:
    """Loss that is not congestion."""
    share: dict[tuple[str, float], float] = {}
    for name in ("newreno", "cubic", "bbr"):
        for loss in LOSSES:
            lab = Dumbbell(Line(RATE, int(PRODUCT), loss=loss), seed=seed)
            flow = lab.add(name, rtt_s=RTT_S)
            lab.run(14.0)
            share[name, loss] = flow.between(4, 14) / RATE / GOODPUT
    # Mathis et al. (1997): rate = MSS / RTT × sqrt(3/2) / sqrt(p); the queue is empty here.
    theory = MTU / RTT_S * math.sqrt(1.5) / math.sqrt(0.01) / RATE
    panel = Panel("packets lost by the line", "share of the line", log_x=True)
    for name in ("newreno", "cubic", "bbr"):
        panel.curves.append(Curve(name, [(p, share[name, p]) for p in LOSSES]))
    return Outcome(
        "wireless",
        "Who takes every loss for congestion slows down where there is none.",
        [
            Check("at 1 % Reno gets what the formula says", share["newreno", 0.01] / theory,
                  "of it", 0.7, 1.4),
            Check("at 1 % BBR gets", share["bbr", 0.01], "of the line", least=0.9),
            Check("at 5 % BBR gets", share["bbr", 0.05], "of the line", least=0.75),
            Check("at 1 % Reno gets", share["newreno", 0.01], "of the line", most=0.4),
        ],
        [panel],
    )  # fmt: skip


def bufferbloat(seed: int) -> Outcome:
    """A buffer of a second delays everybody by a second."""
    delays = {}
    panel = Panel("seconds", "round trip (ms)")
    for name in ("newreno", "bbr"):
        lab = Dumbbell(Line(RATE, int(RATE)), seed=seed)
        flow = lab.add(name, rtt_s=RTT_S)
        lab.run(30.0)
        late = [s.rtt_s for s in flow.samples if s.at > 10]
        delays[name] = percentile(late, 90)
        panel.curves.append(Curve(name, [(s.at, s.rtt_s * 1000) for s in flow.samples]))
    return Outcome(
        "bufferbloat",
        "Loss tells of a full buffer only when it is full; a model of the path keeps it short.",
        [
            Check("Reno's round trip grows", delays["newreno"] / RTT_S, "times", least=6),
            Check("BBR's stays within", delays["bbr"] / RTT_S, "times", most=2.5),
        ],
        [panel],
    )


def selfish(seed: int) -> Outcome:
    """A sender that does not cooperate, and a router that does not care for that."""
    shares: dict[bool, list[float]] = {}
    panel = Panel("seconds", "bytes a second")
    for fair in (False, True):
        lab = Dumbbell(Line(RATE, int(PRODUCT)), seed=seed, fair=fair)
        polite = lab.add("newreno", rtt_s=RTT_S, name="polite" + ", fair queueing" * fair)
        rude = lab.add("sliding:200", rtt_s=RTT_S, start_s=5.0,
                       name="selfish" + ", fair queueing" * fair)  # fmt: skip
        lab.run(40.0)
        shares[fair] = [flow.between(15, 40) for flow in (polite, rude)]
        panel.curves += [rates(flow) for flow in (polite, rude)]
    return Outcome(
        "selfish",
        "Congestion control assumes that all cooperate; queues of their own need no such trust.",
        [
            Check("first come, first served: the polite one keeps", shares[False][0] / RATE,
                  "of the line", most=0.1),
            Check("a queue a flow: the polite one gets", shares[True][0] / RATE, "of the line",
                  least=0.4),
            Check("and Jain's index is", jain(shares[True]), "", least=0.95),
        ],
        [panel],
    )  # fmt: skip
