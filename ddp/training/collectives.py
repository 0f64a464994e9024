"""What training asks of a group of ranks: a small part of what a collectives library has.

Training is written against this protocol, and does not know what carries it. Arrays are numpy's;
calls return when they are done, and `start_…` hands out something to wait for, so that the
sum of one bucket travels while the next is computed. All ranks of a group make the same calls in
the same order; a call that meets a dead rank raises PeerLost on all that are left.

What must hold for ranks to stay equal: a sum has the same bits on every rank. `sums_in_rank_order`
is more, the same bits as adding up in the order of ranks, and is what makes data parallel
training equal to one process that adds its parts in that order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from ddp.training.autograd import Array


class Pending(Protocol):
    """Something under way."""

    def wait(self) -> Array:
        """The result, when it is there; raises what the call would have raised."""


class Collectives(Protocol):
    """One rank's view of its group."""

    @property
    def rank(self) -> int:
        """Ours, from 0."""

    @property
    def size(self) -> int:
        """Ranks in the group."""

    def allreduce(self, array: Array) -> Array:
        """The sum over all ranks, in place, and returned."""

    def start_allreduce(self, array: Array) -> Pending:
        """The same, under way; `array` belongs to it until `wait`."""

    def reduce_scatter(self, array: Array) -> Array:
        """This rank's part of the sum: of np.array_split(flat sum, size) the one numbered rank."""

    def all_gather(self, part: Array) -> Array:
        """All ranks' parts, flat, one behind the other."""

    def broadcast(self, array: Array, root: int) -> Array:
        """`array` of the root, in place, and returned."""

    def send(self, array: Array, to: int) -> Pending:
        """A copy of `array` is under way to a rank; messages of a pair stay in order."""

    def recv(self, source: int) -> Array:
        """The next array that `source` sent here."""

    def barrier(self) -> None:
        """Return when all are here."""

    def split(self, members: Sequence[int]) -> Collectives:
        """The group of some of these ranks, numbered in this order; all of them call it."""


class Done:
    """Pending, and over already."""

    def __init__(self, array: Array) -> None:
        self._array = array

    def wait(self) -> Array:
        """The result."""
        return self._array


class Single:
    """A group of one: everything is there already."""

    rank = 0
    size = 1

    def __repr__(self) -> str:
        return "<Single>"

    def allreduce(self, array: Array) -> Array:
        """The sum over one rank."""
        return array

    def start_allreduce(self, array: Array) -> Pending:
        """The same."""
        return Done(array)

    def reduce_scatter(self, array: Array) -> Array:
        """All of it."""
        return array.reshape(-1)

    def all_gather(self, part: Array) -> Array:
        """The one part."""
        return part.reshape(-1)

    def broadcast(self, array: Array, root: int) -> Array:
        """Nobody else is there."""
        return array

    def send(self, array: Array, to: int) -> Pending:
        """Raises ValueError: to whom?"""
        raise ValueError("a group of one has nobody to send to")

    def recv(self, source: int) -> Array:
        """Raises ValueError: from whom?"""
        raise ValueError("a group of one has nobody to receive from")

    def barrier(self) -> None:
        """All are here."""

    def split(self, members: Sequence[int]) -> Collectives:
        """Itself."""
        return self


SINGLE: Final[Collectives] = Single()
