"""Which strategy breaks under which fault: the lecture's four ways, tried and not argued.

`ROWS` × `FAULTS` are run by `cell`; `EXPECTED` says what must come of it. A test holds the two
against each other in both directions: what should break does break, what should hold does hold.

    -       each request was executed exactly once
    lost    some never
    twice   some more than once
    both    some never and some more than once

"lost" here means that the request was never executed. Its client then has no answer either: what
it is told is Refused, GaveUp or NotExecuted, never that all went well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from netstack.delivery.fresh_port import FreshPort
from netstack.delivery.restart import STRATEGIES, Cure, ports_for
from netstack.delivery.suppressor import Suppressor
from netstack.delivery.terms import Terms
from netstack.delivery.trials.trial import ONE_WAY_S, TERMS, Fault, Tally, Trial
from netstack.runtime.policy import LinkPolicy

# Later than any receiver remembers.
LATE_S: Final = TERMS.horizon_s + 10 * TERMS.rtt_s
# More than the gap between two requests; with it a round trip is still below the longest.
DETOUR_S: Final = 0.03

# As few as the load allows, so that a number is soon used again.
PORTS_MAX: Final = 48


@dataclass(frozen=True, slots=True)
class Row:
    """A strategy, and how many requests its client has under way."""

    name: str
    strategy: str
    lanes: int

    def make(self, terms: Terms) -> Suppressor:
        """What the server remembers by."""
        if self.strategy == "fresh-port":
            return FreshPort(terms.horizon_s, ports_max=PORTS_MAX)
        return STRATEGIES[self.strategy](terms)


ROWS: Final = (
    Row("nonce table", "nonce-table", 4),
    Row("idempotence", "idempotence", 4),
    Row("monotone, 1 at a time", "monotone", 1),
    Row("monotone, 4 at a time", "monotone", 4),
    Row("fresh port", "fresh-port", 4),
)

LINK: Final = LinkPolicy(delay_s=ONE_WAY_S)

KILLS: Final = (
    ("kill -9", Cure.NONE),
    ("kill, fresh port", Cure.FRESH_PORT),
    ("kill, silence", Cure.SILENCE),
    ("kill, durable table", Cure.DURABLE_TABLE),
)

FAULTS: Final = (
    Fault("none", LINK),
    Fault("loss", replace(LINK, loss=0.05)),
    Fault("duplicate", replace(LINK, duplicate=0.2)),
    Fault("reordering", replace(LINK, reorder=0.06, reorder_s=DETOUR_S)),
    Fault("past the horizon", replace(LINK, reorder=0.1, reorder_s=LATE_S), requests=1600),
    *(Fault(name, LINK, kills=True, cure=cure, requests=800) for name, cure in KILLS),
)

# A row for each of ROWS, a word for each of FAULTS.
EXPECTED: Final[dict[str, tuple[str, ...]]] = {
    #            none  loss     duplicate  order    late     kill     port    silence  table
    ROWS[0].name: ("-", "-",     "-",       "-",     "twice", "twice", "lost", "lost",  "-"),
    ROWS[1].name: ("-", "twice", "twice",   "twice", "twice", "twice", "lost", "lost",  "twice"),
    ROWS[2].name: ("-", "-",     "-",       "-",     "twice", "twice", "-",    "lost",  "-"),
    ROWS[3].name: ("-", "lost",  "-",       "lost",  "both",  "both",  "lost", "lost",  "lost"),
    ROWS[4].name: ("-", "-",     "-",       "-",     "both",  "both",  "lost", "lost",  "-"),
}  # fmt: skip


def cell(row: Row, fault: Fault, seed: int = 1) -> Tally:
    """Run one strategy under one fault."""
    ports = ports_for(row.strategy, fault.cure)
    return Trial(row.make, fault, lanes=row.lanes, seed=seed, ports=ports).run()


def word(tally: Tally) -> str:
    """The cell's word in EXPECTED."""
    if tally.lost and tally.twice:
        return "both"
    return "lost" if tally.lost else "twice" if tally.twice else "-"


def run(seed: int = 1) -> dict[tuple[str, str], Tally]:
    """The whole matrix by (row, fault)."""
    return {(row.name, fault.name): cell(row, fault, seed) for row in ROWS for fault in FAULTS}


def table(tallies: dict[tuple[str, str], Tally]) -> str:
    """The matrix for people: executed exactly once / never / more than once."""
    head = ["", *(fault.name for fault in FAULTS)]
    lines = [head]
    for row in ROWS:
        cells = [tallies[row.name, fault.name] for fault in FAULTS]
        lines.append([row.name, *(f"{t.once}/{t.lost}/{t.twice}" for t in cells)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
