"""The paper's experiments (OSDI'04 §5.3 to §5.5) at our scale: what `ring mr lab` can show.

Dean and Ghemawat had 1764 machines, 15,000 maps and a terabyte. Here are twenty workers of two
slots each and 360 maps: as many for each slot as in the paper, within a few. The scheduler is
ours, whole; the machines are a model in virtual time (mapreduce_cores.py), so one seed gives the
same run on any machine, to the last event.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from cluster.lab.mapreduce_cores import (
    DISK_B_S,
    INPUT,
    MB,
    OUTPUT,
    SHUFFLE,
    SPLIT_BYTES,
    Cores,
    Machines,
    rate,
)
from cluster.lab.outcome import Check, Curve, Outcome, Panel
from mapreduce.job import Job

MAPS: Final = 360
REDUCES: Final = 80
STEP_S: Final = 1.0

# One machine in twenty has a disk that reads 4 MB/s where the others' read 20. The paper's example
# of a straggler has one that reads 1 where others read 30 (§3.6).
SLOW: Final = {"w7": 5.0}
# The paper killed 200 of 1746.
KILLED: Final = ("w3", "w12")
KILLED_AT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Ran:
    """One run of one job."""

    cores: Cores
    seconds: float
    tasks: dict[str, int]
    wrong: int  # parts that do not hold every map once, or were committed twice

    def curves(self) -> list[Curve]:
        """Rates of what moved, over time."""
        return [
            Curve(kind, rate(self.cores.spans, kind, STEP_S)) for kind in (INPUT, SHUFFLE, OUTPUT)
        ]

    def most(self, kind: str) -> float:
        """The highest rate, MB/s."""
        return max(value for _, value in rate(self.cores.spans, kind, STEP_S))


def _run(
    seed: int,
    machines: Machines,
    *,
    reduces: int,
    backups: bool = True,
    kills: dict[str, float] | None = None,
) -> Ran:
    cores = Cores(seed, machines)
    job = Job("lab", ["/in"], "/out", reduces=reduces, backups=backups)
    found: dict[str, Any] = cores.run(job, MAPS, kills or {})
    whole = list(range(MAPS))
    if reduces:
        wrong = sum(held != whole for held in cores.outputs.values())
    else:
        wrong = sorted(index for held in cores.outputs.values() for index in held) != whole
    wrong += abs(len(cores.outputs) - (reduces or MAPS)) + abs(cores.commits - len(cores.outputs))
    return Ran(cores, found["seconds"], found["outcome"]["tasks"], int(wrong))


def grep(seed: int) -> Outcome:
    """The rate at which a grep reads: it climbs as workers join, and falls as maps end."""
    machines = Machines(join_s=0.5)
    ran = _run(seed, machines, reduces=0)
    reading = rate(ran.cores.spans, INPUT, STEP_S)
    all_mb_s = machines.count * machines.slots * DISK_B_S / MB
    joined_s = machines.count * machines.join_s
    # While they join, half of them are there on average.
    ideal_s = joined_s / 2 + MAPS * SPLIT_BYTES / MB / all_mb_s
    climbing = [value for at, value in reading if at < joined_s]
    falls = sum(later < before for before, later in pairwise(climbing))
    panel = Panel("seconds", "input read, MB/s")
    panel.curves = [
        Curve("input", reading),
        Curve("all slots busy", [(0, all_mb_s), (ran.seconds, all_mb_s)], dashed=True),
    ]
    checks = [
        Check("highest rate, of all slots'", ran.most(INPUT) / all_mb_s, least=0.9, most=1.1),
        Check("time, of the ideal", ran.seconds / ideal_s, least=1.0, most=1.25),
        Check("seconds in which the rate fell while workers joined", falls, most=2),
        Check("parts that are not as they should be", ran.wrong, most=0),
    ]
    return Outcome(
        "grep",
        "A grep reads as fast as there are workers to read: the rate climbs as they join, stays,"
        " and falls when no map is left to give.",
        checks,
        [panel],
    )


def sort(seed: int) -> Outcome:
    """A sort: normal; without second copies of late tasks; with a tenth of the workers killed."""
    machines = Machines(slow=SLOW)
    runs = {
        "normal": _run(seed, machines, reduces=REDUCES),
        "without backup tasks": _run(seed, machines, reduces=REDUCES, backups=False),
        "two workers killed": _run(
            seed, machines, reduces=REDUCES, kills=dict.fromkeys(KILLED, KILLED_AT_S)
        ),
    }
    normal, without, killed = runs.values()
    panels = [
        Panel("seconds", f"{name}, {ran.seconds:.0f} s: MB/s", ran.curves())
        for name, ran in runs.items()
    ]
    moved = {kind: [s for s in normal.cores.spans if s.kind == kind] for kind in (INPUT, SHUFFLE)}
    early = max(s.end for s in moved[INPUT]) - min(s.start for s in moved[SHUFFLE])
    checks = [
        Check("time without backup tasks, of normal (paper: 1.44)",
              without.seconds / normal.seconds, least=1.2),
        Check("time with workers killed, of normal (paper: 1.05)",
              killed.seconds / normal.seconds, least=1.0, most=1.3),
        Check("copies of late tasks that won", normal.tasks["backups_won"], least=1),
        Check("copies without backup tasks", without.tasks["backups"], most=0),
        Check("maps that ran again for the killed", killed.tasks["map_attempts"] - MAPS, least=1),
        Check("the shuffle begins before the last map ends", early, "s", least=0.0),
        *(
            Check(f"{name}: parts that are not as they should be", ran.wrong, most=0)
            for name, ran in runs.items()
        ),
    ]  # fmt: skip
    return Outcome(
        "sort",
        f"One slow machine of twenty makes a sort {without.seconds / normal.seconds:.1f} times as"
        " long if nobody copies its tasks; killing two in the middle costs"
        f" {killed.seconds / normal.seconds - 1:.0%}.",
        checks,
        panels,
    )


EXPERIMENTS: Final[dict[str, Callable[[int], Outcome]]] = {"grep": grep, "sort": sort}
