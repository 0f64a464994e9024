"""Keeping caches coherent: what a bus that all snoop costs, and what a directory costs.

Caches hold lines in one of four states (MESI; without E it is MSI):

    Modified    the only copy, newer than the memory's        Shared     one of several, clean
    Exclusive   the only copy, clean                          Invalid

A read that misses, and a write to a line that is not ours alone, must find and stop other copies.

    snoop       ask on a bus: P − 1 caches look, whoever they are         P − 1 messages a miss
    directory   ask the line's home, which knows who has it               1 + holders + answers

The states are the same either way: only the messages differ. That is why snooping does not scale
(the lecture's point), and why a directory costs memory instead: `directory_bits`, P + 1 a line.

Invariants (`check`): a line that is M or E somewhere is I everywhere else; a clean copy equals the
memory; a read returns the last write.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

MODIFIED, EXCLUSIVE, SHARED, INVALID = "M", "E", "S", "I"
READ: Final = "read"
WRITE: Final = "write"


class Access(NamedTuple):
    """What a core does."""

    core: int
    kind: str
    line: int


@dataclass(slots=True)
class Copy:
    """A line in a cache."""

    state: str
    value: int


@dataclass(slots=True)
class Machine:
    """Cores with a cache each, one memory, and a count of all messages under both ways.

    exclusive: False: MSI, which has no E, and asks before the first write to a line of its own.
    """

    cores: int
    exclusive: bool = True
    memory: dict[int, int] = field(default_factory=dict)
    caches: list[dict[int, Copy]] = field(default_factory=list)
    snoop: Counter[str] = field(default_factory=Counter)
    directory: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.caches = [{} for _ in range(self.cores)]

    def __repr__(self) -> str:
        kind = "MESI" if self.exclusive else "MSI"
        return f"<Machine {self.cores} cores {kind} snoop={self.snoop.total()} " + (
            f"directory={self.directory.total()}>"
        )

    def read(self, core: int, line: int) -> int:
        """The line's value, as this core sees it."""
        own = self.caches[core].get(line)
        if own is not None:
            return own.value
        holders = self._holders(line, core)
        self._count("read miss", line, holders, only_owner=True)
        for holder in holders:
            copy = self.caches[holder][line]
            if copy.state == MODIFIED:
                self.memory[line] = copy.value  # it is written back as it is handed over
            copy.state = SHARED
        alone = self.exclusive and not holders
        value = self.memory.get(line, 0)
        self.caches[core][line] = Copy(EXCLUSIVE if alone else SHARED, value)
        return value

    def write(self, core: int, line: int, value: int) -> None:
        """Change the line."""
        own = self.caches[core].get(line)
        if own is None or own.state == SHARED:
            holders = self._holders(line, core)
            kind = "write miss" if own is None else "upgrade"
            self._count(kind, line, holders, only_owner=False)
            for holder in holders:
                copy = self.caches[holder].pop(line)
                if copy.state == MODIFIED:
                    self.memory[line] = copy.value
        self.caches[core][line] = Copy(MODIFIED, value)

    def evict(self, core: int, line: int) -> None:
        """The core needs the room."""
        copy = self.caches[core].pop(line, None)
        if copy is not None and copy.state == MODIFIED:
            self.memory[line] = copy.value
            self.snoop["write back"] += 1
        if copy is not None:  # a directory that is not told would ask those who have nothing
            self.directory["write back" if copy.state == MODIFIED else "gone"] += 1

    def _count(self, kind: str, line: int, holders: list[int], *, only_owner: bool) -> None:
        """A snoop reaches all others, and one answers. A directory asks home, and the holders."""
        self.snoop[kind] += self.cores - 1
        self.snoop["data"] += kind != "upgrade"
        self.directory[kind] += 1
        self.directory["data"] += kind != "upgrade"
        if only_owner:
            states = [self.caches[holder][line].state for holder in holders]
            self.directory["forward"] += sum(state != SHARED for state in states)
        else:
            self.directory["invalidate"] += len(holders)
            self.directory["acknowledge"] += len(holders)

    def _holders(self, line: int, but: int) -> list[int]:
        return [i for i, cache in enumerate(self.caches) if i != but and line in cache]

    @property
    def directory_bits(self) -> int:
        """That the directory takes for each line: who has it, and whether it is changed."""
        return self.cores + 1

    def check(self) -> None:
        """Raises AssertionError with the line that breaks an invariant."""
        for line in {line for cache in self.caches for line in cache}:
            copies = [cache[line] for cache in self.caches if line in cache]
            states = "".join(sorted(copy.state for copy in copies))
            if len(copies) > 1 and states != SHARED * len(copies):
                raise AssertionError(f"line {line} is {states} at once")
            for copy in copies:
                if copy.state != MODIFIED and copy.value != self.memory.get(line, 0):
                    raise AssertionError(f"line {line}: a clean copy is not what memory has")


def traffic(machine: Machine, accesses: Iterable[Access]) -> Machine:
    """Let it all happen; each write writes another value."""
    for number, access in enumerate(accesses, 1):
        if access.kind == READ:
            machine.read(access.core, access.line)
        else:
            machine.write(access.core, access.line, number)
    return machine


def counter_shared_by_all(cores: int, rounds: int) -> list[Access]:
    """Each core in turn adds to one counter: a line that travels."""
    return [
        Access(core, kind, 0)
        for _ in range(rounds)
        for core in range(cores)
        for kind in (READ, WRITE)
    ]


def own_lines(cores: int, rounds: int) -> list[Access]:
    """Each core adds to a counter of its own: after the first miss nobody needs anybody."""
    return [
        Access(core, kind, core)
        for _ in range(rounds)
        for core in range(cores)
        for kind in (READ, WRITE)
    ]


def read_mostly(cores: int, rounds: int) -> list[Access]:
    """All read one line, which core 0 writes once a round: all hold it, so all must be told."""
    return [
        Access(core, kind, 0)
        for _ in range(rounds)
        for core, kind in ((0, WRITE), *((core, READ) for core in range(1, cores)))
    ]


PATTERNS: Final = {
    "one counter": counter_shared_by_all,
    "a counter each": own_lines,
    "one writes, all read": read_mostly,
}


def compare(cores: int, rounds: int = 20) -> list[tuple[str, int, int]]:
    """(pattern, messages by snooping, messages by directory) for MESI."""
    found = []
    for name, pattern in PATTERNS.items():
        machine = traffic(Machine(cores), pattern(cores, rounds))
        found.append((name, machine.snoop.total(), machine.directory.total()))
    return found
