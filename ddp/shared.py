"""The fabric between ranks of one host: shared memory (segment.py), and one another's vectors.

    sharded-server   directly: each rank adds up its shard from all ranks in order, and all copy
                     the sums. No byte is sent twice and none goes through a ring. Large vectors
                     are read where they lie (reach.py) if the kernel allows it and it is faster
                     (ways.py). Others go through the staging areas: each rank puts the shards of
                     others where they can see them, and later its sums.
    recursive-       between two ranks, directly too: each shows all it has, and both add. One wait
    doubling         instead of two.
    all others       the engine's frames, through a ring of bytes for each pair.

What is staged goes through in windows that fit into a cache; direct.py has the steps, why two waits
a window keep it right, and what a death means in the middle. A rank that fills window w + 1 has
copied window w; so who sees that all have filled w + 1 may overwrite its sums of w.

Before either, all ranks meet over what they called (`_meet`), so that a mismatch is seen even
between a call that goes directly and one that does not. Whoever waits spins, giving way to others
at each turn, and after a while sleeps; it looks for deaths and for others' reasons to give up
meanwhile. What a dead rank has written stays readable, and its counters are frozen: so either all
survivors find its sums there, or none does. A reason is written only by who has no direct sum under
way, so that it means the same.

Calls make progress while somebody waits for one, and, once `start` was used, in a thread.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from ddp.call import Call
from ddp.deaths import Deaths
from ddp.direct import (
    LAST_MARK,
    Area,
    ExchangeSum,
    ShardSum,
    Sum,
    Verb,
    Way,
    fills_early,
    hopeless,
    program,
)
from ddp.elements import Array, quiet
from ddp.engine import OPERATIONS_MAX, Engine
from ddp.errors import (
    BadCall,
    DdpError,
    GroupClosed,
    Mismatch,
    RankLate,
    RankLost,
    from_wire,
    to_wire,
)
from ddp.fabric import Fabric, bind
from ddp.frames import HEAD_BYTES, Frame, Type, decode
from ddp.operation import Operation
from ddp.reach import Place, ReachSum, Reader, Unreachable, address_of
from ddp.recorder import Record
from ddp.rings import Rings
from ddp.segment import (
    ADDRESS,
    CALLS,
    FILLED,
    REDUCED,
    SEES,
    STATE,
    TAKEN,
    Segment,
    Where,
    values,
)
from ddp.ways import Ways
from ddp.work import Work

# Bytes of a staging area (direct.py has what goes in at a time): two of them fit into a core's
# cache, and the waits cost little beside them.
WINDOW_BYTES: Final = 1024 * 1024

# Where the counters of direct.py are in a segment, by Mark.
MARKS: Final = (FILLED, REDUCED, TAKEN)

SHARDED: Final = "sharded-server"
EXCHANGE: Final = "recursive-doubling"

# From here on a vector may be read where it is: what one more wait costs is little beside it.
REACH_BYTES_MIN: Final = 2 * 1024 * 1024

# Said with a call: where the vector is, and, by rank 0, which way it goes.
_GOING: Final = struct.Struct("!QB")

# Where a segment is to be found: process and descriptor.
_PLACE: Final = struct.Struct("!qi")

# Turns of a wait between looks at the clock, at deaths and at reasons.
TURNS_BETWEEN_LOOKS: Final = 64

# Turns of a wait before it gives way to others: some tens of microseconds.
TURNS_ALONE: Final = 200

# Calls that are kept encoded.
CALLS_KEPT: Final = 256

# Turns that give way to other processes before a wait begins to sleep, and for how long it does.
TURNS_AWAKE: Final = 20_000
# The same where ranks outnumber cores: who stays awake there keeps those from work it waits for.
TURNS_AWAKE_CROWDED: Final = 200
SLEEP_S: Final = 50e-6


class _Said(NamedTuple):
    """A call as it is written down, and as ranks compare it; its number is its place."""

    text: str
    head: bytes


class SharedFabric(Fabric):
    """One rank's end.

    Args:
        own: this rank's segment.
        where: of all ranks, in their order (this rank's is not used).

    Raises RankLost if one is gone already.
    """

    name = "shared memory"

    def __init__(self, engine: Engine, own: Segment, where: list[Where]) -> None:
        super().__init__(engine)
        self.model = None
        self._own = own
        self._deaths = Deaths()
        self._reader = Reader()
        self._ways = Ways()
        self._pids = [place.pid for place in where]
        self._segments = self._map(where)
        self._others = [r for r in range(engine.size) if r != engine.rank]
        self._rings = Rings(engine.rank, self._segments)
        self._number = 0  # of the next call
        self._window = 0  # windows so far
        self._last: int | None = None  # of the direct call under way, its last window,
        self._last_mark = REDUCED  # and the counter that says how far it is
        self._gone: set[int] = set()  # processes that have ended
        self._jobs: deque[tuple[int, Call, Array, float, Work]] = deque()
        self._pumping = threading.Lock()
        self._stirred = threading.Condition()
        self._thread: threading.Thread | None = None
        self._works: set[Work] = set()
        self._closed = False
        self._said: dict[Call, _Said] = {}
        self._areas: dict[str, list[Area]] = {}  # by type of element
        self._staged_last: Way | None = None
        # A turn without giving way is worth it only where everybody has a core.
        roomy = engine.size <= len(os.sched_getaffinity(0))
        self._turns_alone = TURNS_ALONE if roomy else 0
        self._turns_awake = TURNS_AWAKE if roomy else TURNS_AWAKE_CROWDED
        self._ending: DdpError | None = None
        self._reported: deque[tuple[int, str]] = deque()

    def _map(self, where: list[Where]) -> list[Segment]:
        segments, sees = [], True
        for rank, place in enumerate(where):
            if rank == self.engine.rank:
                segments.append(self._own)
                continue
            try:
                segments.append(Segment.of(place, len(where), self._own.window))
                alive = self._deaths.watch(rank, place.pid) is not None
            except OSError as error:
                raise RankLost(f"rank {rank}'s memory is gone: {error}") from None
            if not alive:
                raise RankLost(f"rank {rank}'s process {place.pid} is gone")
            address = segments[rank].counters[ADDRESS]  # of itself
            sees = sees and self._reader.reaches(place.pid, address, address)
        self._own.counters[SEES] = sees
        return segments

    # -- Fabric

    def choices(self, nbytes: int) -> tuple[str, ...]:
        """There is no fan-in to pay in shared memory: a direct sum is always the best."""
        small = nbytes < REACH_BYTES_MIN
        return (EXCHANGE,) if self.engine.size == 2 and small else (SHARDED,)

    def call(self, call: Call, vector: Array, timeout_s: float, *, ahead: bool = False) -> Work:
        """See Fabric. `ahead`: begin at once, in a thread."""
        if self.engine.broken is not None:
            raise self.engine.broken
        if len(self._works) >= OPERATIONS_MAX:
            raise BadCall(f"{OPERATIONS_MAX} calls are open: wait for one of them")
        work = Work(self._spoken(call).text)
        number, self._number = self._number, self._number + 1
        self._track(work)
        self._jobs.append((number, call, vector, time.monotonic() + timeout_s, work))
        if ahead:
            self._stir()
        return work

    def send(self, vector: Array, dtype: str, dst: int, tag: int, timeout_s: float) -> Work:
        """See Fabric."""
        with self._pumping:
            deadline = time.monotonic() + timeout_s
            message = self.engine.messages.send(vector, dtype, dst, tag, deadline)
            work = bind(Work(f"send to {dst}"), message)
            self._track(work)
            self._poll()
        return work

    def receive(self, vector: Array, dtype: str, src: int, tag: int, timeout_s: float) -> Work:
        """See Fabric."""
        with self._pumping:
            now = time.monotonic()
            message = self.engine.messages.ask(vector, dtype, src, tag, now + timeout_s)
            work = bind(Work(f"receive from {src}"), message)
            self._track(work)
            self.engine.messages.match(src, tag, now)
        return work

    def wait(self, work: Work) -> Any:
        """Make progress until it is over, unless the thread does."""
        while not work.done:
            if self._pumping.acquire(timeout=0.001):
                try:
                    self._pump(lambda: work.done)
                finally:
                    self._pumping.release()
        return work.result()

    def close(self, error: DdpError | None = None) -> None:
        """See Fabric."""
        if self._closed:
            return
        self._closed = True
        self._ending = error or GroupClosed(f"rank {self.engine.rank} has closed the group")
        with self._stirred:
            self._stirred.notify_all()
        if self._thread is not None:
            self._thread.join()
        with self._pumping:
            self._fail(self._ending)
            self._poll()
            self._rings.close()
            self._areas.clear()
            for segment in self._segments:
                segment.close()
        self._deaths.close()

    def split(
        self, members: Sequence[int], number: int, exchange: Callable[[bytes], list[bytes]]
    ) -> Fabric:
        """See Fabric."""
        return share(list(members).index(self.engine.rank), members, self.engine.epoch, exchange)

    def report(self, rank: int, why: str) -> None:
        """Somebody else, from any thread, says that `rank` is dead."""
        self._reported.append((rank, why))

    # -- progress

    def _track(self, work: Work) -> None:
        self._works.add(work)
        work.then(self._works.discard)

    def _stir(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work_ahead, daemon=True, name="ddp calls")
            self._thread.start()
        with self._stirred:
            self._stirred.notify_all()

    def _work_ahead(self) -> None:
        while not self._closed:
            with self._stirred:
                if not self._jobs and not self._closed:
                    self._stirred.wait()
            with self._pumping:
                self._pump(lambda: self._closed or not self._works)

    def _pump(self, until: Callable[[], bool]) -> None:
        turns = 0
        while not until():
            if self._jobs:
                self._run(*self._jobs.popleft())
                turns = 0
            elif self._poll():
                turns = 0
            else:
                turns += 1
                self._rest(turns)

    def _poll(self) -> bool:
        """Move what there is to move; whether there was anything."""
        heard, now = False, time.monotonic()
        for rank, frame in self._rings.pull():
            heard = True
            self.engine.receive(rank, frame, now)
        self._gather()
        moved, gone = self._rings.push()
        for payload in gone:
            self.engine.sent(payload, now)
        return heard or moved

    def _gather(self) -> None:
        for dst, frame in self.engine.take_outputs():
            self._rings.put(dst, frame)

    def _ended(self, work: Work, operation: Operation) -> None:
        """The vector is its owner's again: no frame may point into it any more."""
        self._gather()
        work.end(operation.error)

    def _rest(self, turns: int) -> None:
        """Between two looks at what others have written."""
        if turns % TURNS_BETWEEN_LOOKS == 0:
            self._look()
        if turns < self._turns_alone:
            return
        if turns < self._turns_awake:
            os.sched_yield()
        else:
            time.sleep(SLEEP_S)

    def _look(self) -> None:
        """Deaths, others' reasons, deadlines."""
        now = time.monotonic()
        if self._ending is not None:
            self._fail(self._ending)  # so that who is in a call lets `close` in
        # Why a rank gave up is worth more than that it is gone since.
        for rank in self._others:
            if self._segments[rank].counters[STATE] and not self.engine.dead >> rank & 1:
                self._poll()  # what it wrote before it gave up counts
                if self.engine.broken is None:
                    self._fail(from_wire(self._segments[rank].reason))
        for rank in self._deaths.look():
            self._gone.add(rank)
            self.engine.lost(rank, "its process ended", now)
        while self._reported:
            self.engine.lost(*self._reported.popleft(), now)
        self.engine.expire(now)
        if self.engine.broken is not None:
            self._fail(self.engine.broken)

    def _fail(self, error: DdpError) -> None:
        """The group is over: for us, for whoever waits here, and for the others."""
        if self.engine.broken is None:
            self.engine.fail(error, time.monotonic())
        assert self.engine.broken is not None
        if self._last is None:  # who has said why has nothing under way that may yet end well
            self._own.reason = to_wire(self.engine.broken)
        while self._jobs:
            self._jobs.popleft()[-1].end(self.engine.broken)

    # -- one call

    def _run(self, number: int, call: Call, vector: Array, deadline: float, work: Work) -> None:
        record = Record(number, work.what, time.monotonic())
        try:
            if self.engine.broken is not None:
                raise self.engine.broken
            if self._is_direct(call):
                self.engine.recorder.records.append(record)
                self._directly(number, call, vector, deadline, record)
                record.outcome, record.ended = "done", time.monotonic()
                work.end()
            else:
                self._meet(number, call, deadline, record)
                now = time.monotonic()
                operation = self.engine.start(call, vector, now, deadline - now)
                if operation.ended:
                    self._ended(work, operation)
                else:
                    operation.on_end = partial(self._ended, work)
        except DdpError as error:
            record.outcome, record.ended = str(error), time.monotonic()
            self._fail(error)
            work.end(error)
        except BaseException:  # a signal: who reads the vector must know that it changes from here
            self._fail(GroupClosed(f"rank {self.engine.rank} was interrupted in {call}"))
            raise
        if self.engine.broken is not None:
            self._fail(self.engine.broken)  # the sum came in spite of it: no other will

    def _meet(
        self, number: int, call: Call, deadline: float, record: Record, going: bytes = b""
    ) -> None:
        """All ranks have called the same; raises Mismatch, RankLost or RankLate."""
        own = self._spoken(call).head
        self._own.write_call(number, own + going)
        for rank in self._others:
            self._until(CALLS, rank, number + 1, deadline, record)
            record.arrived[rank] = time.monotonic()
            theirs = self._segments[rank].read_call(number, HEAD_BYTES)
            if theirs != own:
                other = decode(memoryview(theirs), b"").call
                raise Mismatch(
                    f"call #{number}: rank {self.engine.rank} called {call}, "
                    f"rank {rank} called {other}"
                )

    def _spoken(self, call: Call) -> _Said:
        """The last calls are kept encoded."""
        said = self._said.get(call)
        if said is None:
            if len(self._said) >= CALLS_KEPT:
                self._said.clear()
            head = Frame(Type.ANNOUNCE, self.engine.epoch, 0, call).encode()
            said = self._said[call] = _Said(str(call), head)
        return said

    def _until(self, counter: int, rank: int, value: int, deadline: float, record: Record) -> None:
        """Wait for a counter of another rank."""
        counters = self._segments[rank].counters
        if counters[counter] >= value:
            return
        turns = 0
        while counters[counter] < value:
            turns += 1
            self._rest(turns)
            if turns % TURNS_BETWEEN_LOOKS == 0 and counters[counter] < value:
                self._poll()
                if self.engine.broken is not None and self._hopeless():
                    raise self.engine.broken
                if time.monotonic() > deadline:
                    raise self._late(counter, rank, record)

    def _hopeless(self) -> bool:
        """Whether a call that waits fails, given that the group does (direct.py)."""
        if self._last is None or self._ending is not None:
            return True
        ended = [r for r in self._others if r in self._gone or self._segments[r].counters[STATE]]
        shown = [self._segments[r].counters[self._last_mark] for r in ended]
        own = self._own.counters[self._last_mark]
        return hopeless(self._last, own, shown, alone=not self.engine.others)

    def _late(self, counter: int, rank: int, record: Record) -> RankLate:
        what = "begun it" if counter == CALLS else "done its part"
        shown = self._last is not None and self._own.counters[self._last_mark] >= self._last
        unsure = "; its outcome is unknown" if shown else ""
        return RankLate(
            f"call #{record.sequence} {record.call}: rank {rank} has not {what} "
            f"after {time.monotonic() - record.began:.2f} s{unsure}"
        )

    # -- a direct sum

    def _is_direct(self, call: Call) -> bool:
        size = self.engine.size
        return call.kind == "allreduce" and (
            (call.algorithm == SHARDED and size > 1) or (call.algorithm == EXCHANGE and size == 2)
        )

    def _directly(
        self, number: int, call: Call, vector: Array, deadline: float, record: Record
    ) -> None:
        """See direct.py."""
        first = self._window
        # While they meet, nobody can have shown anything of this call's end.
        self._last, self._last_mark = first + 1, REDUCED
        mine = None if self._may_reach(call) else self._staged(call, vector, record)
        early = mine is not None and self._fill_early(mine, first)
        try:
            self._meet(number, call, deadline, record, self._going(call, vector))
            mine = mine or self._sum(number, call, vector, record)
            self._window = self._last = first + mine.windows
            self._last_mark = MARKS[LAST_MARK[mine.way]]
            if mine.way is not Way.REACH:
                self._staged_last = mine.way
            began = time.monotonic()
            with quiet():
                self._go(mine, first, deadline, record, filled=int(early))
            self._ways.took(call, mine.way, time.monotonic() - began)
        finally:
            self._last = None
            if mine is not None:
                mine.close()
        self.engine.counters["calls"] += 1
        self.engine.counters["sent_bytes"] += record.sent
        self.engine.counters["received_bytes"] += mine.received

    def _may_reach(self, call: Call) -> bool:
        return call.algorithm == SHARDED and call.nbytes >= REACH_BYTES_MIN

    def _going(self, call: Call, vector: Array) -> bytes:
        """What is said beside a call, if it may go either way."""
        if not self._may_reach(call):
            return b""
        way = Way.SHARDS
        if self.engine.rank == 0 and all(s.counters[SEES] for s in self._segments):
            way = self._ways.choose(call)
        return _GOING.pack(address_of(vector), way)

    def _sum(self, number: int, call: Call, vector: Array, record: Record) -> Sum:
        """The way that rank 0 has said, once all have met."""
        said = [_GOING.unpack(s.read_call(number, _GOING.size, HEAD_BYTES)) for s in self._segments]
        if said[0][1] != Way.REACH:
            return self._staged(call, vector, record)
        places = [Place(pid, at) for pid, (at, _) in zip(self._pids, said, strict=True)]
        return ReachSum(call, vector, self.engine.rank, places, self._reader, record)

    def _staged(self, call: Call, vector: Array, record: Record) -> Sum:
        if call.dtype not in self._areas:
            self._areas[call.dtype] = [
                Area(values(s.filled, vector), values(s.reduced, vector)) for s in self._segments
            ]
        kind = ExchangeSum if call.algorithm == EXCHANGE else ShardSum
        areas, rank = self._areas[call.dtype], self.engine.rank
        return kind(call, vector, rank, areas, self._window, record)

    def _fill_early(self, mine: Sum, first: int) -> bool:
        """Show one's part with the call itself, so that to meet is to have filled."""
        if not fills_early(mine.way, self._staged_last):
            return False
        mine.fill(1)
        if mine.way is Way.SHARDS:  # the other way it would say that we have met already
            self._own.counters[FILLED] = first + 1
        return True

    def _go(self, mine: Sum, first: int, deadline: float, record: Record, *, filled: int) -> None:
        """The steps of one's own program, of which some windows are filled."""
        counters = self._own.counters
        try:
            for verb, window, mark, rank in program(mine.rank, mine.size, mine.windows, mine.way):
                if verb is Verb.AWAIT:
                    self._until(MARKS[mark], rank, first + window, deadline, record)
                    mine.heard(window, mark)
                    continue
                if verb is Verb.TAKE:
                    mine.take(window, rank)
                    continue
                if verb is Verb.FILL:
                    if window > filled:
                        mine.fill(window)
                elif verb is Verb.ADD:
                    mine.add(window)
                else:
                    self._check()
                counters[MARKS[mark]] = first + window
        except Unreachable as error:
            self._look()  # it may have said why
            self.engine.lost(error.rank, str(error), time.monotonic())
            assert self.engine.broken is not None
            raise self.engine.broken from None

    def _check(self) -> None:
        """All whose vectors were read live, and none had given up; raises why not."""
        self._look()
        if self.engine.broken is not None:
            raise self.engine.broken


def share(
    rank: int, members: Sequence[int], epoch: int, exchange: Callable[[bytes], list[bytes]]
) -> SharedFabric:
    """Rank `rank` of a new fabric between `members`, who are all of this host.

    `exchange` gives the bytes of all ranks, of which the members are some. Before anybody may close
    the fabric, all must have come back from here.
    """
    segment = Segment.make(len(members), WINDOW_BYTES)
    try:
        mine = segment.where
        places = exchange(_PLACE.pack(mine.pid, mine.descriptor))
        found = [_PLACE.unpack(places[m]) for m in members]
        where = [Where(pid, descriptor, mine.host) for pid, descriptor in found]
        return SharedFabric(Engine(rank, len(members), epoch), segment, where)
    except BaseException:
        segment.close()
        raise
