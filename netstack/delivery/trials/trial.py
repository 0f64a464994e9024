"""One strategy under one fault, in virtual time: how often was each request executed?

    lanes of a client ──► link there ──► server, killed now and then ──► link back ──► client
    `ask`, wait, `ask` …   loss, copies, detours       image kept            the same faults

Half of the requests are deposits, half set the register; all differ, so an execution can be
counted by its body, whatever the server believes.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from netstack.delivery.back_off import BackOff
from netstack.delivery.client import Answered, Client, Failed, Ports, Send
from netstack.delivery.ledger import Ledger
from netstack.delivery.restart import Cure, start
from netstack.delivery.server import Persist
from netstack.delivery.suppressor import Suppressor
from netstack.delivery.terms import Terms
from netstack.delivery.trials.timeline import Alarm, Timeline
from netstack.runtime.policy import LinkPolicy, LinkShaper
from netstack.transport.rtt import RttEstimator

TERMS: Final = Terms(rtt_s=0.1, patience_rtts=12, tries_max=5)
ONE_WAY_S: Final = 0.04

# A lane rests for up to so long between two requests.
PAUSE_S: Final = 0.05

# A client is awake for one half of it and silent for the other: long enough to be forgotten.
DAY_S: Final = 8 * TERMS.horizon_s

# A killed server is back so soon that copies of what it executed are still under way.
DOWN_S: Final = 0.01

# The timer doubles once and no more: the terms leave room for a few tries only.
BACK_OFF: Final = BackOff(level_max=1)


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong: on the links in both directions, and to the server."""

    name: str
    link: LinkPolicy
    kills: bool = False  # every few executions, after the image is stable and before the reply
    cure: Cure = Cure.NONE
    requests: int = 400


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the requests."""

    once: int
    lost: int  # never executed
    twice: int  # more than once
    answered: int  # their clients know
    unsure: int  # their clients were told that nobody knows
    untold: int  # never executed, though their clients were told that they were
    money: int  # in the account beyond what was asked to be deposited
    undone: int  # times that a repeated `set` changed the register
    memory_max: int  # entries


class Counted(Ledger):
    """A ledger whose executions are counted by who watches, across all its lives."""

    def __init__(self, executions: Counter[bytes]) -> None:
        super().__init__()
        self.executions = executions
        self.undone = 0

    def execute(self, body: bytes) -> bytes:
        """See Ledger."""
        before = self.register
        reply = super().execute(body)
        self.executions[body] += 1
        if body.startswith(b"set") and self.executions[body] > 1 and self.register != before:
            self.undone += 1
        return reply


class Trial:
    """`fault.requests` by `lanes` that each ask one at a time."""

    def __init__(
        self,
        make: Callable[[Terms], Suppressor],
        fault: Fault,
        *,
        lanes: int,
        seed: int,
        ports: Ports = Ports.WELL_KNOWN,
    ) -> None:
        self._make = make
        self._fault = fault
        self._rng = random.Random(seed)
        self._timeline = Timeline()
        self._there = LinkShaper(fault.link, self._rng)
        self._back = LinkShaper(fault.link, self._rng)
        self._client = Client(
            b"client",
            TERMS,
            self._rng,
            estimator=RttEstimator(2 * ONE_WAY_S),
            back_off=BACK_OFF,
            ports=ports,
        )
        self._alarm = Alarm(self._timeline, self._wake)
        self._image: bytes | None = None
        self._memory_max = 0
        self._executions: Counter[bytes] = Counter()
        self._ledger = Counted(self._executions)
        self._undone = 0
        self._asked: dict[int, bytes] = {}
        self._left = fault.requests
        self._outcomes: dict[int, Answered | Failed] = {}
        self._up = False
        self._restart()
        for _ in range(lanes):
            self._timeline.at(self._rng.random() * PAUSE_S, self._ask)

    def run(self) -> Tally:
        """Until every request has its outcome and nothing is under way any more."""
        self._timeline.run()
        self._undone += self._ledger.undone
        self._note_memory()
        assert len(self._outcomes) == len(self._asked), "a request without an outcome"
        times = {nonce: self._executions[body] for nonce, body in self._asked.items()}
        answered = {n for n, o in self._outcomes.items() if isinstance(o, Answered)}
        deposits = [b for b in self._asked.values() if self._executions[b] and b[:1] == b"d"]
        return Tally(
            once=sum(count == 1 for count in times.values()),
            lost=sum(count == 0 for count in times.values()),
            twice=sum(count > 1 for count in times.values()),
            answered=len(answered),
            unsure=len(times) - len(answered),
            untold=sum(times[nonce] == 0 for nonce in answered),
            money=self._ledger.balance - sum(int(body.split()[1]) for body in deposits),
            undone=self._undone,
            memory_max=self._memory_max,
        )

    # -- the client

    def _ask(self) -> None:
        if not self._left:
            return
        now = self._timeline.now
        if now % DAY_S > DAY_S / 2:
            morning = now - now % DAY_S + DAY_S
            self._timeline.at(morning + self._rng.random() * PAUSE_S, self._ask)
            return
        self._left -= 1
        number = len(self._asked) + 1
        body = b"%s %d" % (b"deposit" if number % 2 else b"set", number)
        self._asked[self._client.ask(body, now)] = body
        self._after_client()

    def _wake(self) -> None:
        self._client.on_deadline(self._timeline.now)
        self._after_client()

    def _to_client(self, datagram: bytes) -> None:
        self._client.receive(datagram, self._timeline.now)
        self._after_client()

    def _after_client(self) -> None:
        self._client.check()
        for output in self._client.take_outputs():
            if isinstance(output, Send):
                self._carry(self._there, output.datagram, self._to_server)
            else:
                self._outcomes[output.nonce] = output
                self._timeline.at(self._timeline.now + self._rng.random() * PAUSE_S, self._ask)
        self._alarm.set(self._client.next_deadline())

    # -- the server

    def _restart(self) -> None:
        self._undone += self._ledger.undone
        self._ledger = Counted(self._executions)
        self._server = start(
            self._ledger,
            self._make(TERMS),
            self._fault.cure,
            TERMS,
            self._image,
            self._timeline.now,
        )
        self._up = True
        self._lives_for = self._rng.randint(1, 6) if self._fault.kills else -1
        self._after_server()

    def _to_server(self, datagram: bytes) -> None:
        if self._up:
            self._server.receive(datagram, None, self._timeline.now)
            self._after_server()

    def _after_server(self) -> None:
        for output in self._server.take_outputs():
            if isinstance(output, Persist):
                self._image = output.image
                if self._server.executions == self._lives_for:
                    self._kill()
                    return
            else:
                self._carry(self._back, output.datagram, self._to_client)

    def _kill(self) -> None:
        self._up = False
        self._note_memory()
        self._timeline.at(self._timeline.now + DOWN_S, self._restart)

    def _note_memory(self) -> None:
        self._memory_max = max(self._memory_max, self._server.memory_max)

    def _carry(self, link: LinkShaper, datagram: bytes, to: Callable[[bytes], None]) -> None:
        for arrives, copy in link.shape(datagram, self._timeline.now):
            self._timeline.at(arrives, partial(to, copy))
