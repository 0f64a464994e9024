"""A group of ranks and what they can do together. All training stands on this face.

    group = …                                   local.make_local, launch.join, or a worker's
    group.allreduce(gradients, op="mean")       in place; every rank has the same bits after it
    work = group.start("allreduce", bucket)     goes on meanwhile; several may be under way
    …
    work.wait()

**Arrays** are numpy arrays of float16/32/64, int32/64, uint32/64, or uint16 with dtype="bfloat16";
uint8 may be carried (broadcast, all_gather, send …), not reduced. Any size: 0, 1, not divisible
by the ranks. One that is not contiguous is copied in and out.

**Guaranteed**
- All ranks get the same bits, and the same again in the next run if the algorithm is the same:
  additions have an order that is the schedule's, not the network's. Name the algorithm where bits
  must repeat: over netstack "auto" chooses by measured costs (not over shared memory).
  "parameter-server", "sharded-server" and the naive ones add in the order of ranks, as
  `functools.reduce(np.add, [rank 0, rank 1, …])` does.
- All ranks must make the same calls in the same order. Those that do not get a Mismatch that
  names both.
- A call ends on all ranks or fails on all living ranks; it never gives a wrong number. After an
  error the contents of the array are undefined and the group is over: every later call raises the
  same error.
- Nothing waits for ever: a call has a time limit, after which RankLate names who has not come.
- A dead rank is named by all others in RankLost.
- `start` does not change the rules: calls are numbered when they are started. The array of a call
  that is under way belongs to it until `wait` returns.

One thread at a time may call; `wait` may be called from any.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np

from ddp.call import Call
from ddp.elements import Array, check_reduction, type_of
from ddp.errors import BadCall, DdpError
from ddp.fabric import Fabric
from ddp.schedules.catalogue import ALLREDUCE, SINGLE
from ddp.schedules.schedule import bounds
from ddp.work import Work

# A collective of healthy ranks takes milliseconds; of one that is stuck people want to hear soon.
TIMEOUT_S: Final = 30.0

TAG_MAX: Final = 2**32 - 1

# Overrides "auto" of groups that are made from then on, as NCCL_ALGO does: a name, or ^name for all
# but that.
ALGORITHM_VARIABLE: Final = "RING_DDP_ALGORITHM"


class Group:
    """One rank's membership.

    Args:
        fabric: what carries it.
        timeout_s: of calls that name none.
    """

    def __init__(self, fabric: Fabric, *, timeout_s: float = TIMEOUT_S) -> None:
        self.fabric = fabric
        self.timeout_s = timeout_s
        self._parts: list[Group] = []
        self._wanted = os.environ.get(ALGORITHM_VARIABLE, "auto")

    def __repr__(self) -> str:
        return f"<Group rank={self.rank}/{self.size} epoch={self.epoch} over {self.fabric.name}>"

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def rank(self) -> int:
        """This rank's number, from 0."""
        return self.fabric.engine.rank

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return self.fabric.engine.size

    @property
    def epoch(self) -> int:
        """Number of this membership; a rank of an older one is fenced off."""
        return self.fabric.engine.epoch

    @property
    def broken(self) -> DdpError | None:
        """Why the group is over; None while it is not."""
        return self.fabric.engine.broken

    @property
    def counters(self) -> Counter[str]:
        """calls, failed, sent_bytes, received_bytes, stale, …

        memory_bytes: of those sent, to ranks of one's host in a group that spans several.
        """
        return self.fabric.counters

    # -- collectives

    def allreduce(
        self,
        array: Array,
        op: str = "sum",
        algorithm: str = "auto",
        *,
        dtype: str | None = None,
        timeout_s: float | None = None,
    ) -> Array:
        """Reduce over all ranks, in place; returns `array`."""
        return self._do(
            "allreduce", array, op=op, algorithm=algorithm, dtype=dtype, timeout_s=timeout_s
        )

    def reduce_scatter(self, array: Array, op: str = "sum", **options: Any) -> Array:
        """Chunk `rank` of the reduction, new: [n·r/P, n·(r+1)/P) of the flat n elements."""
        return self._do("reduce-scatter", array, op=op, **options)

    def all_gather(self, array: Array, **options: Any) -> Array:
        """All ranks' arrays in the order of ranks, flat, new. They must be of one size."""
        return self._do("all-gather", array, **options)

    def broadcast(self, array: Array, root: int = 0, **options: Any) -> Array:
        """The root's array into everybody's, in place; returns `array`."""
        return self._do("broadcast", array, root=root, **options)

    def reduce(self, array: Array, root: int = 0, op: str = "sum", **options: Any) -> Array:
        """The reduction, in place at the root; other ranks' arrays stay as they are."""
        return self._do("reduce", array, root=root, op=op, **options)

    def all_to_all(self, array: Array, **options: Any) -> Array:
        """Chunk b of rank a becomes chunk a of rank b; new, flat. P must divide the size."""
        return self._do("all-to-all", array, **options)

    def barrier(self, timeout_s: float | None = None) -> None:
        """Until all have come."""
        self._do("barrier", np.empty(0, np.uint8), timeout_s=timeout_s)

    def start(
        self,
        kind: str,
        array: Array,
        *,
        op: str = "sum",
        algorithm: str = "auto",
        root: int = 0,
        dtype: str | None = None,
        timeout_s: float | None = None,
    ) -> Work:
        """Begin a collective; `wait` gives what the method of that name would.

        Args:
            kind: allreduce, reduce-scatter, all-gather, broadcast, reduce, all-to-all or barrier.
            algorithm: of an allreduce: a name of `schedules.catalogue.ALLREDUCE`, or "auto".

        Raises BadCall; Mismatch, RankLost, … if the group is over. Errors of the call itself come
        from `wait`.
        """
        work, finish = self._begin(
            kind,
            array,
            ahead=True,
            op=op,
            algorithm=algorithm,
            root=root,
            dtype=dtype,
            timeout_s=timeout_s,
        )
        return Waiting.of(work, self.fabric).finally_give(finish)

    def _do(self, kind: str, array: Array, **options: Any) -> Array:
        """Begin, and wait for it."""
        work, finish = self._begin(kind, array, ahead=False, **options)
        self.fabric.wait(work)
        result: Array = finish()
        return result

    def _begin(
        self,
        kind: str,
        array: Array,
        *,
        ahead: bool,
        op: str = "sum",
        algorithm: str = "auto",
        root: int = 0,
        dtype: str | None = None,
        timeout_s: float | None = None,
    ) -> tuple[Work, Callable[[], Array]]:
        name = type_of(array, dtype)
        if kind in ("allreduce", "reduce", "reduce-scatter"):
            check_reduction(op, name)
        elif kind not in SINGLE:
            raise BadCall(f"no collective {kind!r}; there are allreduce, {', '.join(SINGLE)}")
        if not 0 <= root < self.size:
            raise BadCall(f"root {root} is no rank of this group of {self.size}")
        algorithm = self._algorithm(kind, algorithm, array.nbytes)
        vector, finish = self._prepare(kind, array, root)
        call = _call(kind, algorithm, op, name, len(vector), root)
        return self.fabric.call(call, vector, self._limit(timeout_s), ahead=ahead), finish

    # -- between two ranks

    def send(self, array: Array, dst: int, tag: int = 0, **options: Any) -> None:
        """To rank `dst`; returns once it is there, asked for or not."""
        self.fabric.wait(self.start_send(array, dst, tag, **options))

    def recv(self, array: Array, src: int, tag: int = 0, **options: Any) -> Array:
        """From rank `src` into `array`, which must have the type and size of what is sent."""
        return self._array(self.start_recv(array, src, tag, **options))

    def start_send(
        self,
        array: Array,
        dst: int,
        tag: int = 0,
        *,
        dtype: str | None = None,
        timeout_s: float | None = None,
    ) -> Work:
        """Begin to send."""
        vector = np.ascontiguousarray(array).reshape(-1)
        name = type_of(vector, dtype)
        work = self.fabric.send(vector, name, dst, _tag(tag), self._limit(timeout_s))
        return Waiting.of(work, self.fabric)

    def start_recv(
        self,
        array: Array,
        src: int,
        tag: int = 0,
        *,
        dtype: str | None = None,
        timeout_s: float | None = None,
    ) -> Work:
        """Begin to receive."""
        vector, finish = _in_place(array)
        name = type_of(vector, dtype)
        work = self.fabric.receive(vector, name, src, _tag(tag), self._limit(timeout_s))
        return Waiting.of(work, self.fabric).finally_give(finish)

    # -- groups of some

    def exchange(self, data: bytes) -> list[bytes]:
        """Everybody's bytes, of any length, in the order of ranks."""
        lengths = self.all_gather(np.array([len(data)]))
        room = int(lengths.max())
        padded = np.frombuffer(data.ljust(room, b"\0"), np.uint8)
        found = self.all_gather(padded).reshape(self.size, room)
        return [row[:n].tobytes() for row, n in zip(found, lengths.tolist(), strict=True)]

    def split(self, members: Sequence[int]) -> Group:
        """The group of some of these ranks, numbered in this order, over the same kind of fabric.

        All ranks call it, each with a list that it is in itself; those in one list give the same.
        The part ends with this group at the latest: `close` closes it. A rank that dies is missed
        in each group that it is in.
        """
        chosen = list(members)
        known = all(0 <= member < self.size for member in chosen)
        if not known or len(set(chosen)) != len(chosen) or self.rank not in chosen:
            raise BadCall(f"{chosen} are no ranks of {self.size} with rank {self.rank} among them")
        part = Group(
            self.fabric.split(chosen, len(self._parts), self.exchange), timeout_s=self.timeout_s
        )
        self._parts.append(part)
        self.barrier()  # nobody may be done with it and gone before all have found it
        return part

    # -- about it

    def explain(self, nbytes: int) -> str:
        """What `auto` expects of each algorithm for such a vector, and so which it takes."""
        model, choices = self.fabric.model, self.fabric.choices(nbytes)
        if len(choices) == 1:
            return f"{choices[0]}: over {self.fabric.name} there is nothing to choose"
        if model is None:
            return "nothing is measured yet: the first `auto` will"
        return f"{model}: {model.explain(self.size, nbytes, choices)}"

    def why(self) -> list[str]:
        """What is open, for whom it waits, who came last: sentences of the flight recorder."""
        return self.fabric.why()

    def close(self) -> None:
        """End the group here, and its parts; others that still want something of it are told."""
        for part in self._parts:
            part.close()
        self.fabric.close()

    # -- inside

    def _array(self, work: Work) -> Array:
        result: Array = work.wait()
        return result

    def _limit(self, timeout_s: float | None) -> float:
        return self.timeout_s if timeout_s is None else timeout_s

    def _algorithm(self, kind: str, wanted: str, nbytes: int) -> str:
        if kind != "allreduce":
            if wanted not in ("auto", SINGLE[kind]):
                raise BadCall(f"{kind} is done by {SINGLE[kind]}; there is no {wanted!r} for it")
            return SINGLE[kind]
        if wanted == "auto":
            wanted = self._wanted
        if wanted != "auto" and not wanted.startswith("^"):
            if wanted not in ALLREDUCE:
                raise BadCall(f"no algorithm {wanted!r}; there are auto, {', '.join(ALLREDUCE)}")
            return wanted
        choices = self.fabric.choices(nbytes)
        if wanted != "auto":
            choices = tuple(c for c in choices if f"^{c}" != wanted)
        if len(choices) == 1:
            return choices[0]
        if self.fabric.model is None and self.size > 1:
            from ddp.calibration import calibrate

            calibrate(self)
        model = self.fabric.model
        return choices[0] if model is None else model.choose(self.size, nbytes, choices)

    def _prepare(self, kind: str, array: Array, root: int) -> tuple[Array, Callable[[], Array]]:
        """The vector that the schedule works on, and what makes the result of it."""
        size, rank = self.size, self.rank
        if kind in ("allreduce", "broadcast") or (kind == "reduce" and rank == root):
            return _in_place(array)
        flat = np.ascontiguousarray(array).reshape(-1)
        if kind == "all-gather":
            vector = np.empty(len(flat) * size, flat.dtype)
            vector[len(flat) * rank : len(flat) * (rank + 1)] = flat
            return vector, lambda: vector
        if kind == "all-to-all" and len(flat) % size:
            raise BadCall(f"all_to_all of {len(flat)} elements on {size} ranks: not divisible")
        vector = flat.copy()
        if kind == "reduce-scatter":
            starts = bounds(len(vector), size)
            return vector, lambda: vector[starts[rank] : starts[rank + 1]].copy()
        return vector, lambda: array if kind == "reduce" else vector


class Waiting(Work):
    """A work whose waiting is the fabric's, which may make progress only while somebody waits."""

    fabric: Fabric
    work: Work

    @classmethod
    def of(cls, work: Work, fabric: Fabric) -> Waiting:
        """`work`, waited for through `fabric`."""
        waiting = cls(work.what)
        waiting.fabric, waiting.work = fabric, work
        work.then(lambda ended: waiting.end(ended.error))
        return waiting

    def wait(self) -> Any:
        """See Work."""
        if not self.done:
            self.fabric.wait(self.work)
        return self.result()


@lru_cache(maxsize=1024)
def _call(kind: str, algorithm: str, op: str, dtype: str, count: int, root: int) -> Call:
    """Most calls are made many times."""
    return Call(kind, algorithm, op, dtype, count, root)


def _in_place(array: Array) -> tuple[Array, Callable[[], Array]]:
    """A contiguous vector of the elements, and what gives the array with the result in it."""
    if not array.flags.writeable:
        raise BadCall("the array is read-only, and the result goes into it")
    if array.flags.c_contiguous:
        return array.reshape(-1), lambda: array
    vector = np.ascontiguousarray(array).reshape(-1)

    def back() -> Array:
        array[...] = vector.reshape(array.shape)
        return array

    return vector, back


def _tag(tag: int) -> int:
    if not 0 <= tag <= TAG_MAX:
        raise BadCall(f"a tag is 0 to {TAG_MAX}, not {tag}")
    return tag
