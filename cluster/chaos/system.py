"""What a campaign needs of the system it judges. Anybody's store can be put behind this.

    Client   what workloads ask: a key-value store with revisions, in text
    System   what is done to it: processes started, killed and paused, faults set, files damaged

A client says of each request what became of it. An answer: it was done. `Refused`: it was not, and
never will be. `Unsure`: nobody knows. Saying Refused of what may yet be done makes a correct
system look broken; saying Unsure of everything makes a broken one look correct.

A system says which kinds of fault it is able to suffer; those that it is not are left out of its
plans. Whatever it does, it says in a few words how one can tell that it was really so, and raises
NoEffect if it was not: a fault that did not happen proves nothing.

To judge a system of your own, write both and add it to `SYSTEMS` in systems.py; etcd.py is an
example of a foreign system.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol


class Refused(Exception):
    """It was not done, and never will be."""


class Unsure(Exception):
    """It may have been done, or may yet be."""


class Forgotten(Refused):
    """What a watch was to begin with was compacted; `oldest` is the first revision that is left."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"what was before revision {oldest} was compacted")
        self.oldest = oldest


class NoEffect(Exception):
    """The fault was not there; the sentence says how one can tell."""


class Pair(NamedTuple):
    """A key's value, the revision of its last change, and how often it has been changed."""

    value: str
    mod: int
    version: int


class Change(NamedTuple):
    """One event of a watch; `value` is None if the key was deleted."""

    revision: int
    key: str
    value: str | None


class Client(Protocol):
    """One client's requests, one at a time. All raise Refused or Unsure."""

    async def get(self, key: str) -> Pair | None:
        """The pair, linearizably."""

    async def put(self, key: str, value: str) -> int:
        """Set it; the revision of that."""

    async def delete(self, key: str) -> tuple[bool, int]:
        """Whether it was there, and the revision."""

    async def swap(self, key: str, old: str | None, new: str) -> tuple[bool, int]:
        """Set it if it holds `old` (None: if it is not there); whether, and the revision."""

    async def read(self, keys: Sequence[str]) -> dict[str, Pair | None]:
        """Several at one moment."""

    async def commit(self, guards: Mapping[str, int], puts: Mapping[str, str]) -> tuple[bool, int]:
        """Set all if each guarded key's `mod` is as given (0: it is not there); and whether."""

    async def range(self, prefix: str) -> dict[str, Pair]:
        """All keys that begin so, at one moment."""

    def watch(self, prefix: str, revision: int) -> AsyncGenerator[list[Change]]:
        """Changes of such keys from `revision` on, a list a revision, without end.

        Raises Forgotten.
        """

    async def compact(self, revision: int) -> None:
        """Forget what was overwritten or deleted at or before it."""

    async def grant(self, ttl_s: int) -> int:
        """A lease."""

    async def keep_alive(self, lease: int) -> None:
        """Its full time again."""

    async def revoke(self, lease: int) -> None:
        """End it, and with it the keys under it."""

    async def claim(self, key: str, value: str, lease: int) -> int | None:
        """Set it under a lease if it is not there: the revision of that, or None."""


@dataclass(frozen=True, slots=True)
class View:
    """One node, as it is now. `lives` counts the starts of its process."""

    name: str
    state: str  # running, paused, starting, backoff, killed, stopped, fatal
    role: str = "-"
    term: int = 0
    health: str = "down"  # ok, silent, down, no leader, lost entries
    lives: int = 0


class System(Protocol):
    """A cluster that can be harmed."""

    name: str
    nodes: tuple[str, ...]
    able: frozenset[str]  # of catalogue.PROCESS, PAUSE, FAULTS, FILES, MEMBERS
    patience: float  # how many times as long as our store it may take to go on: its elections

    async def start(self) -> None:
        """All nodes up and healthy; raises RingError."""

    async def stop(self) -> None:
        """Nothing of it is left but what it wrote."""

    def client(self) -> AbstractAsyncContextManager[Client]:
        """A new client with a session of its own."""

    async def look(self) -> dict[str, View]:
        """All nodes, in order."""

    async def kill(self, node: str) -> str:
        """kill -9."""

    async def revive(self, node: str) -> str:
        """Start it, if it is down."""

    async def pause(self, node: str) -> str:
        """SIGSTOP."""

    async def resume(self, node: str) -> str:
        """SIGCONT."""

    async def lose(self, node: str) -> str:
        """The machine is gone, without a word."""

    async def slow(self, node: str, share: float) -> str:
        """It runs for so much of the time; 1: all of it."""

    async def faults(self, node: str, change: dict[str, Any]) -> dict[str, Any]:
        """As netstack.runtime.faults; the description afterwards.

        With what its clocks show, `wall` and `steady`, if it can be asked; and with `ends`: how
        often its processes have ended by themselves so far, without a word (evidence.GONE) or
        over a fault of their disk (by its name).
        """

    def address(self, node: str) -> str:
        """host:port, as in the links of `faults`."""

    async def damage(self, node: str, how: str, seed: int) -> str:
        """Harm the files of a node that is down (netstack.runtime.rot)."""

    async def leave(self, nodes: Sequence[str]) -> str:
        """They belong to the cluster no more, and run on; raises Refused: nobody knows yet."""

    async def replace(self, node: str) -> str:
        """A new member in the place of one that left, or that cannot be trusted; raises Refused."""
