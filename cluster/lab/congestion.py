"""Experiments about the window: how it grows, where it ends, who gets what."""

from __future__ import annotations

from cluster.lab.dumbbell import MTU, Dumbbell, Flow
from cluster.lab.outcome import Check, Curve, Outcome, Panel, jain, percentile
from cluster.lab.port import Line

RATE = 1_250_000.0  # 10 Mbit/s
RTT_S = 0.05
PRODUCT = RATE * RTT_S  # what the line itself holds

# Headers and tags: the best that an application can get of the line.
GOODPUT = 0.958


def windows(flow: Flow) -> Curve:
    """The window in packets over time."""
    return Curve(flow.name, [(s.at, s.cwnd / MTU) for s in flow.samples])


def saw_tooth(seed: int) -> Outcome:
    """Slow start, the saw, and what is lost under it."""
    flows: dict[str, Flow] = {}
    for name in ("newreno", "aimd", "cubic"):
        lab = Dumbbell(Line(RATE, int(PRODUCT)), seed=seed)
        flows[name] = lab.add(name, rtt_s=RTT_S)
        lab.run(30.0)
    reno, taught = flows["newreno"], flows["aimd"]
    late = [s.cwnd / MTU for s in reno.samples if s.at > 10]
    full = PRODUCT / MTU
    started = next(s.at for s in reno.samples if s.cwnd / MTU >= full)
    crawled = next(s.at for s in taught.samples if s.cwnd / MTU >= full)
    return Outcome(
        "saw-tooth",
        "Slow start finds the path in a few round trips; then the window saws between what the "
        "path holds and what the queue holds besides.",
        [
            Check("slow start fills the line in round trips", started / RTT_S, "RTT", most=8),
            Check("one packet a round trip takes", crawled / RTT_S, "RTT", least=40),
            Check("a loss halves: top over bottom of the saw", max(late) / min(late), "", 1.8, 2.3),
            Check("with a queue of one product the line is never idle",
                  reno.between(10, 30) / RATE / GOODPUT, "of the line", least=0.98),
        ],
        [
            Panel("seconds", "window (packets)", [
                *(windows(flow) for flow in flows.values()),
                Curve("what the line holds", [(0, full), (30, full)], dashed=True),
            ])
        ],
    )  # fmt: skip


def dctcp(seed: int) -> Outcome:
    """DCTCP follows the best window; Reno saws around it."""
    rate, rtt_s = 12_500_000.0, 0.004  # 100 Mbit/s in a data centre of the emulated kind
    mark = int(rate * rtt_s / 7) + 10 * MTU  # K > C × RTT / 7 (the paper's condition)
    queue = int(4 * rate * rtt_s)
    found: dict[str, tuple[Flow, list[float]]] = {}
    for name in ("dctcp", "newreno"):
        marks = mark if name == "dctcp" else None
        lab = Dumbbell(Line(rate, queue, marks), seed=seed)
        flow = lab.add(name, rtt_s=rtt_s)
        lab.run(4.0, sample_s=0.002)
        found[name] = flow, [s.backlog / MTU for s in flow.samples if s.at > 1]
    queues = {name: percentile(backlog, 99) for name, (_, backlog) in found.items()}
    rates = {name: flow.between(1, 4) / rate / GOODPUT for name, (flow, _) in found.items()}
    return Outcome(
        "dctcp",
        "Marks at a short queue, answered in proportion, keep the line full and the queue short.",
        [
            Check("DCTCP's share of the line", rates["dctcp"], "", least=0.97),
            Check("Reno's", rates["newreno"], "", least=0.97),
            Check("DCTCP's queue, 99th percentile", queues["dctcp"], "packets",
                  most=1.5 * mark / MTU),
            Check("Reno's is longer by", queues["newreno"] / queues["dctcp"], "times", least=3),
        ],
        [
            Panel("seconds", "queue (packets)", [
                *(
                    Curve(name, [(s.at, s.backlog / MTU) for s in flow.samples])
                    for name, (flow, _) in found.items()
                ),
                Curve("K", [(0, mark / MTU), (4, mark / MTU)], dashed=True),
            ]),
            Panel("seconds", "window (packets)", [windows(flow) for flow, _ in found.values()]),
        ],
    )  # fmt: skip


def fairness(seed: int) -> Outcome:
    """Chiu and Jain's plane: two flows, four ways to step up and down."""
    panels = Panel("flow 1 (packets)", "flow 2 (packets)", square=True)
    checks = []
    for name, bound in (("aimd", 0.95), ("aiad", 0.8), ("mimd", 0.95), ("miad", 0.8)):
        # Both are told of a queue at the same time, as in the model: by marks for a round trip.
        line = Line(RATE, 10**9, mark_bytes=int(PRODUCT / 4), mark_hold_s=1.25 * RTT_S)
        lab = Dumbbell(line, seed=seed)
        pair = [lab.add(name, rtt_s=RTT_S) for _ in range(2)]
        lab.run(1.0)
        for flow, packets in zip(pair, (4, 44), strict=True):
            assert flow.sender.connection is not None
            flow.sender.connection.recovery.congestion.cwnd = packets * MTU
        lab.run(40.0)
        shares = [sum(s.cwnd for s in flow.samples if s.at > 25) for flow in pair]
        fair = jain(shares)
        limit = {"least": bound} if name == "aimd" else {"most": bound}
        checks.append(Check(f"{name.upper()}: Jain's index at the end", fair, "", **limit))
        both = zip(*(flow.samples for flow in pair), strict=True)
        path = [(a.cwnd / MTU, b.cwnd / MTU) for a, b in both if a.at > 1][::5]
        panels.curves.append(Curve(name.upper(), path))
    most = PRODUCT / MTU
    panels.curves.append(Curve("fair", [(0, 0), (most, most)], dashed=True))
    panels.curves.append(Curve("efficient", [(0, most), (most, 0)], dashed=True))
    return Outcome(
        "fairness",
        "Only additive increase with multiplicative decrease leads two unequal flows to y = x.",
        checks,
        [panels],
    )


def rtt_bias(seed: int) -> Outcome:
    """Who is nearer gets more."""
    ratios = {}
    panel = Panel("seconds", "bytes a second")
    for name in ("newreno", "cubic"):
        lab = Dumbbell(Line(RATE, int(PRODUCT / 4)), seed=seed)
        near = lab.add(name, rtt_s=0.02, name=f"{name}, 20 ms")
        far = lab.add(name, rtt_s=0.08, name=f"{name}, 80 ms")
        lab.run(90.0)
        ratios[name] = near.between(30, 90) / far.between(30, 90)
        panel.curves += [rates(flow) for flow in (near, far)]
    return Outcome(
        "rtt-bias",
        "A window that grows by a packet a round trip grows faster on a short one.",
        [
            Check("Reno: near over far", ratios["newreno"], "times", 3, 8),
            Check("CUBIC's is smaller", ratios["cubic"] / ratios["newreno"], "of Reno's", most=0.9),
        ],
        [panel],
    )


def rates(flow: Flow, step_s: float = 1.0) -> Curve:
    """What the application got, a second at a time."""
    end = flow.samples[-1].at
    count = int((end - flow.start_s) / step_s)
    points = [
        (flow.start_s + i * step_s, flow.between(flow.start_s + (i - 1) * step_s,
                                                 flow.start_s + i * step_s))
        for i in range(1, count + 1)
    ]  # fmt: skip
    return Curve(flow.name, points)
