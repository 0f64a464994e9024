"""Experiments about requests: the storm that a fixed timer makes, and what duplicates do."""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import dataclass
from functools import partial
from typing import Final

from cluster.lab.outcome import Check, Curve, Outcome, Panel
from netstack.delivery.back_off import EXPONENTIAL, NONE, WITHOUT_JITTER, BackOff
from netstack.delivery.client import Answered, Client, Send
from netstack.delivery.idempotence import Idempotence
from netstack.delivery.ledger import Ledger
from netstack.delivery.server import SendTo, Server
from netstack.delivery.terms import Terms
from netstack.delivery.trials import matrix
from netstack.delivery.trials.timeline import Alarm, Timeline
from netstack.delivery.trials.trial import Tally
from netstack.transport.rtt import ESTIMATORS

CLIENTS: Final = 300
SERVICE_S: Final = 0.01  # a hundred requests a second
QUEUE_MAX: Final = 200
ONE_WAY_S: Final = 0.005
# A client thinks for 1 to 11 s between two requests: in peace half of what the server can do.
THINK_S: Final = (1.0, 11.0)
# Twenty times an idle server's answer, and a fifth of one behind a full queue.
TIMER_S: Final = 0.4
RUN_S: Final = 120.0
TICK_S: Final = 0.1
SETTLED_S: Final = 10.0


class SlowServer:
    """One request at a time; the others wait in a queue that drops what it has no room for."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._server = Server[Office](Ledger(), Idempotence())
        self._queue: deque[tuple[bytes, Office]] = deque()
        self.arrivals: list[float] = []
        self.busy_s = 0.0

    def take(self, datagram: bytes, source: Office) -> None:
        """A copy of a request has arrived."""
        self.arrivals.append(self._timeline.now)
        if len(self._queue) < QUEUE_MAX:
            self._queue.append((datagram, source))
            if len(self._queue) == 1:
                self._begin()

    def _begin(self) -> None:
        self._timeline.at(self._timeline.now + SERVICE_S, self._finish)

    def _finish(self) -> None:
        now = self._timeline.now
        self.busy_s += SERVICE_S
        self._server.receive(*self._queue.popleft(), now)
        if self._queue:
            self._begin()
        for output in self._server.take_outputs():
            if isinstance(output, SendTo):
                output.destination.hear(output.datagram, now + ONE_WAY_S)


class Office:
    """A client that asks, waits, thinks, and asks again; at once, if it had to give up."""

    def __init__(
        self, timeline: Timeline, server: SlowServer, rng: random.Random, client: Client
    ) -> None:
        self._timeline = timeline
        self._server = server
        self._rng = rng
        self._client = client
        self._alarm = Alarm(timeline, self._wake)
        self.answers: list[float] = []
        self.gave_up = 0

    def ask(self) -> None:
        """The next request."""
        self._client.ask(b"deposit 1", self._timeline.now)
        self._after()

    def hear(self, datagram: bytes, when: float) -> None:
        """The server's answer will be here at `when`."""
        self._timeline.at(when, partial(self._receive, datagram))

    def _receive(self, datagram: bytes) -> None:
        self._client.receive(datagram, self._timeline.now)
        self._after()

    def _wake(self) -> None:
        self._client.on_deadline(self._timeline.now)
        self._after()

    def _after(self) -> None:
        now = self._timeline.now
        for output in self._client.take_outputs():
            if isinstance(output, Send):
                arrival = partial(self._server.take, output.datagram, self)
                self._timeline.at(now + ONE_WAY_S, arrival)
            elif isinstance(output, Answered):
                self.answers.append(now)
                self._timeline.at(now + self._rng.uniform(*THINK_S), self.ask)
            else:
                self.gave_up += 1
                self._timeline.at(now, self.ask)
        self._alarm.set(self._client.next_deadline())


@dataclass(frozen=True, slots=True)
class Storm:
    """What was seen of one kind of client."""

    answers: list[float]
    arrivals: list[float]
    executions: int
    gave_up: int

    def goodput(self, since: float, until: float) -> float:
        """Requests a second that were answered to clients which still waited."""
        return sum(since <= at < until for at in self.answers) / (until - since)

    def wave(self, since: float) -> int:
        """The most copies that arrived in one tick from then on."""
        return max(Counter(int(at / TICK_S) for at in self.arrivals if at >= since).values())


# Estimator, back-off, tries. Four tries of a fixed timer last 1.6 s, and 6 s with back-off. A
# timer that has learnt that an idle server answers in 20 ms would be through with four in 0.3 s,
# and its client back with the next request: it gets eight, which last 5 s.
KINDS: Final[dict[str, tuple[str, BackOff, int]]] = {
    "fixed timer": ("fixed", NONE, 4),
    "back-off": ("fixed", WITHOUT_JITTER, 4),
    "back-off with jitter": ("fixed", EXPONENTIAL, 4),
    "RFC 6298": ("rfc6298", WITHOUT_JITTER, 8),
}


def run_storm(kind: str, seed: int) -> Storm:
    """All clients ask at the same moment, as at the hour or after a power cut."""
    rng = random.Random(seed)
    timeline = Timeline()
    server = SlowServer(timeline)
    estimator, back_off, tries = KINDS[kind]
    # An estimator that has seen nothing waits three times what it is told (RFC 6298 (2.2)).
    offices = [
        Office(timeline, server, rng, Client(
            n.to_bytes(2, "big"), Terms(rtt_s=RUN_S, tries_max=tries), rng,
            estimator=ESTIMATORS[estimator](TIMER_S / 3), back_off=back_off,
        )) for n in range(CLIENTS)
    ]  # fmt: skip
    for office in offices:
        timeline.at(0.0, office.ask)
    timeline.run(RUN_S)
    answers = sorted(at for office in offices for at in office.answers)
    gave_up = sum(office.gave_up for office in offices)
    return Storm(answers, server.arrivals, round(server.busy_s / SERVICE_S), gave_up)


def storm(seed: int) -> Outcome:
    """A fixed timer brings a server down with questions that nobody asks any more."""
    found = {kind: run_storm(kind, seed) for kind in KINDS}
    # A request every (think + answer) seconds from each client, if the server is not in the way.
    offered = CLIENTS / (sum(THINK_S) / 2)
    good = {kind: s.goodput(SETTLED_S, RUN_S) / offered for kind, s in found.items()}
    fixed, waves, spread = (found[kind] for kind in list(KINDS)[:3])
    return Outcome(
        "storm",
        "Who asks again sooner than a loaded server can answer keeps it loaded with questions "
        "that nobody waits for any more; back-off gives it time, jitter keeps it from waves.",
        [
            Check("fixed timer: answered of what is asked", good["fixed timer"], "", most=0.02),
            Check("and yet the server is at work", fixed.executions * SERVICE_S / RUN_S,
                  "of the time", least=0.99),
            Check("copies a request with back-off and jitter",
                  len(spread.arrivals) / len(spread.answers), "", most=1.3),
            *(Check(f"{kind}: answered of what is asked", good[kind], "", least=0.9)
              for kind in list(KINDS)[1:]),
            Check("waves: the highest after the first second, without jitter over with",
                  waves.wave(1.0) / spread.wave(1.0), "times", least=2),
        ],
        [
            Panel("seconds", "answers a second", [
                *(Curve(kind, [(t, s.goodput(t, t + 1)) for t in range(int(RUN_S))])
                  for kind, s in found.items()),
                Curve("what the server can do", [(0, 1 / SERVICE_S), (RUN_S, 1 / SERVICE_S)],
                      dashed=True),
            ]),
            Panel("seconds", "copies that arrive in 0.1 s", [
                _arrivals(kind, found[kind]) for kind in list(KINDS)[:3]
            ]),
        ],
    )  # fmt: skip


def _arrivals(kind: str, seen: Storm, until: float = 6.0) -> Curve:
    ticks = Counter(int(at / TICK_S) for at in seen.arrivals)
    return Curve(kind, [(t * TICK_S, ticks[t]) for t in range(int(until / TICK_S))])


def delivery(seed: int) -> Outcome:
    """The four ways to at-most-once under every fault."""
    found = matrix.run(seed)
    checks = [
        check
        for row in matrix.ROWS
        for fault, word in zip(matrix.FAULTS, matrix.EXPECTED[row.name], strict=True)
        for check in _cell_checks(f"{row.name} / {fault.name}", found[row.name, fault.name], word)
    ]
    untold = sum(tally.untold for tally in found.values())
    checks.append(Check("never executed, though the client was told so", untold, "", most=0))
    numbered = ", ".join(f"{n} {fault.name}" for n, fault in enumerate(matrix.FAULTS))
    panels = []
    for label, count in (("more than once", "twice"), ("never", "lost")):
        panel = Panel(numbered, f"executed {label} (% of requests)")
        for place, row in enumerate(matrix.ROWS):
            points = [
                (n + 0.12 * (place - 2), _percent(found[row.name, fault.name], count))
                for n, fault in enumerate(matrix.FAULTS)
            ]
            panel.curves.append(Curve(row.name, points, dots=True))
        panels.append(panel)
    return Outcome(
        "delivery",
        "No way to at-most-once survives everything: what is forgotten too early, or in a crash, "
        "is executed again; what only counts upwards loses what was overtaken.",
        checks,
        panels,
    )


def _cell_checks(where: str, tally: Tally, word: str) -> list[Check]:
    twice, lost = (_percent(tally, count) for count in ("twice", "lost"))
    if word == "-":
        return [Check(f"{where}: not exactly once", twice + lost, "%", most=0)]
    bounds = {True: {"least": 0.05}, False: {"most": 0.0}}
    return [
        Check(f"{where}: more than once", twice, "%", **bounds[word in ("twice", "both")]),
        Check(f"{where}: never", lost, "%", **bounds[word in ("lost", "both")]),
    ]


def _percent(tally: Tally, count: str) -> float:
    total = tally.once + tally.lost + tally.twice
    return 100.0 * float(getattr(tally, count)) / total
