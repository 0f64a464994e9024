"""A group whose ranks are threads of one process: to try, to teach, and to test a division.

    losses = run_ranks(4, train_one)           train_one(group) runs in four threads at once

Matrix products leave the interpreter's lock, so ranks do compute at the same time. A sum is made
by whoever comes last, in the order of ranks: its bits do not depend on who that was. A rank that
ends with an error ends the others: whatever they wait for raises PeerLost, which names it.

Where it stops: one process, so nobody can be killed. Ranks that can are in worker.py.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from ddp.training.autograd import Array
from ddp.training.collectives import SINGLE, Collectives, Pending
from ddp.training.errors import PeerLost, TrainingError

T = TypeVar("T")

# A rank that waits longer has met a bug: two ranks that call different things, perhaps.
PATIENCE_S = 60.0
# How often who waits looks whether a rank has failed.
LOOK_S = 0.05


class Hub:
    """Where the threads meet: mailboxes and open sums, by group. One for each run."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.meetings: dict[tuple[tuple[int, ...], int], Meeting] = {}
        self.mail: dict[tuple[tuple[int, ...], int, int], queue.SimpleQueue[Array]] = {}
        self.failed: int | None = None
        self.bytes_sent: Counter[str] = Counter()  # payload that was handed over, by call
        self.wire_bytes = 0  # what rings would send for it: 2(P − 1)/P of a sum's payload, a rank

    def meeting(self, members: tuple[int, ...], number: int) -> Meeting:
        """The `number`-th collective of a group."""
        with self.lock:
            return self.meetings.setdefault((members, number), Meeting())

    def forget(self, members: tuple[int, ...], number: int) -> None:
        """The last has left it."""
        with self.lock:
            self.meetings.pop((members, number), None)

    def mailbox(self, members: tuple[int, ...], source: int, to: int) -> queue.SimpleQueue[Array]:
        """What is under way from one rank of a group to another."""
        with self.lock:
            return self.mail.setdefault((members, source, to), queue.SimpleQueue())

    def check(self, during: str) -> None:
        """Raises PeerLost if a rank has failed."""
        if self.failed is not None:
            raise PeerLost((f"rank {self.failed}",), 0, during)


@dataclass(slots=True)
class Meeting:
    """One collective: what each has brought, and what comes of it."""

    brought: dict[int, Array] = field(default_factory=dict)
    call: str = ""
    result: Array | None = None
    left: int = 0
    done: threading.Event = field(default_factory=threading.Event)


class ThreadGroup:
    """One rank's view of a group of threads."""

    def __init__(self, hub: Hub, members: tuple[int, ...], rank: int) -> None:
        self.hub = hub
        self.members = members
        self.rank = rank
        self._number = 0

    def __repr__(self) -> str:
        return f"<ThreadGroup rank={self.rank}/{self.size}>"

    @property
    def size(self) -> int:
        """Ranks in the group."""
        return len(self.members)

    def allreduce(self, array: Array) -> Array:
        """The sum, in the order of ranks, in place."""
        return self.start_allreduce(array).wait()

    def start_allreduce(self, array: Array) -> Pending:
        """The same, under way."""
        return _Meet(self, f"allreduce of {array.size} {array.dtype}", array, array)

    def reduce_scatter(self, array: Array) -> Array:
        """This rank's part of the flat sum."""
        total = self.allreduce(np.array(array).reshape(-1))
        return np.array_split(total, self.size)[self.rank]

    def all_gather(self, part: Array) -> Array:
        """All parts, flat."""
        for to in range(self.size):
            self._post(part.reshape(-1), to)
        return np.concatenate([self.recv(source) for source in range(self.size)])

    def broadcast(self, array: Array, root: int) -> Array:
        """`array` of the root, in place."""
        if self.rank == root:
            for to in range(self.size):
                if to != root:
                    self._post(array, to)
        else:
            array[...] = self.recv(root)
        return array

    def send(self, array: Array, to: int) -> Pending:
        """A copy is under way at once."""
        self._post(array, to)
        return _Sent(array)

    def recv(self, source: int) -> Array:
        """The next from `source`."""
        box = self.hub.mailbox(self.members, source, self.rank)
        for _ in range(int(PATIENCE_S / LOOK_S)):
            try:
                return box.get(timeout=LOOK_S)
            except queue.Empty:
                self.hub.check(f"recv from rank {source}")
        raise TrainingError(f"rank {self.rank} waits for rank {source}, which sends nothing")

    def barrier(self) -> None:
        """Return when all are here."""
        _Meet(self, "barrier", np.zeros(0), np.zeros(0)).wait()

    def split(self, members: Sequence[int]) -> Collectives:
        """The group of some of these ranks."""
        if len(members) == 1:
            return SINGLE
        whole = tuple(self.members[member] for member in members)
        return ThreadGroup(self.hub, whole, list(members).index(self.rank))

    def _post(self, array: Array, to: int) -> None:
        with self.hub.lock:
            self.hub.bytes_sent["point to point"] += array.nbytes
            self.hub.wire_bytes += array.nbytes
        self.hub.mailbox(self.members, self.rank, to).put(np.array(array))

    def next_number(self) -> int:
        """Of the collective that this rank now takes part in."""
        self._number += 1
        return self._number


class _Sent:
    def __init__(self, array: Array) -> None:
        self._array = array

    def wait(self) -> Array:
        """It was copied when it was sent."""
        return self._array


class _Meet:
    """One rank's part in a meeting."""

    def __init__(self, group: ThreadGroup, call: str, array: Array, into: Array) -> None:
        self._group, self._into = group, into
        self._number = group.next_number()
        self._call = call
        hub = group.hub
        self._meeting = meeting = hub.meeting(group.members, self._number)
        with hub.lock:
            hub.bytes_sent["allreduce"] += array.nbytes
            hub.wire_bytes += 2 * (group.size - 1) * array.nbytes // group.size
            if meeting.call and meeting.call != call:
                other = next(iter(meeting.brought))
                raise TrainingError(
                    f"rank {other} called {meeting.call}, rank {group.rank} called {call}"
                )
            meeting.call = call
            meeting.brought[group.rank] = array
            complete = len(meeting.brought) == group.size
        if complete:
            total = np.array(meeting.brought[0])
            for rank in range(1, group.size):
                total += meeting.brought[rank]
            meeting.result = total
            meeting.done.set()

    def wait(self) -> Array:
        """The sum, when all are here."""
        meeting, hub = self._meeting, self._group.hub
        for _ in range(int(PATIENCE_S / LOOK_S)):
            if meeting.done.wait(LOOK_S):
                break
            hub.check(self._call)
        else:
            raise TrainingError(f"{self._call}: rank {self._group.rank} waits for the others")
        assert meeting.result is not None
        self._into[...] = meeting.result
        with hub.lock:
            meeting.left += 1
            last = meeting.left == self._group.size
        if last:
            hub.forget(self._group.members, self._number)
        return self._into


def run_ranks(size: int, work: Callable[[Collectives], T], hub: Hub | None = None) -> list[T]:
    """What `work` returns on each of `size` ranks; raises the first error of any."""
    if size == 1:
        return [work(SINGLE)]
    hub = hub or Hub()
    results: dict[int, T] = {}
    errors: list[tuple[int, BaseException]] = []
    members = tuple(range(size))

    def run(rank: int) -> None:
        try:
            results[rank] = work(ThreadGroup(hub, members, rank))
        except BaseException as error:
            errors.append((rank, error))
            if hub.failed is None:
                hub.failed = rank

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0][1]
    return [results[rank] for rank in members]
