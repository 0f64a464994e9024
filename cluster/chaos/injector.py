"""Carries a plan out on a system, keeps count of what is wrong, and makes all well in the end.

Each episode is begun and ended by a task of its own; faults of different packages overlap. What
is wrong with links is the union of all episodes that are under way, so that the end of one does
not heal another. A node that is down, stopped or rotten belongs to one episode until that is over.

Of each fault it is written down what showed that it was there (evidence.py): a process that is
gone, datagrams that were dropped, a disk that failed, a clock that is off.

Whoever has lost what it had promised to keep must not speak again: it could vote a second time. So
a node whose files are cut short, old or gone is started on them where nobody hears it; it has to
refuse, or to come up, and is then replaced by a new member, as an operator would do it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from cluster.chaos.catalogue import FAULTS_BY_NAME, FILES, MEMBERS, PAUSE, PROCESS
from cluster.chaos.evidence import Meter, Reading, of_clock, of_disk, of_links, of_point
from cluster.chaos.grudges import GRUDGES, Edge, largest_group
from cluster.chaos.plan import Episode, Plan
from cluster.chaos.system import NoEffect, Refused, System
from cluster.errors import RingError, Usage
from cluster.selectors import NodeView, resolve
from netstack.runtime.policy import LinkPolicy

# Between two attempts to replace a node that cannot be trusted.
REPLACE_AGAIN_S: Final = 1.0

# Between two attempts to begin what has to wait for its turn.
BEGIN_AGAIN_S: Final = 0.5

# What befalls a whole node, which then is no other fault's; and what costs the cluster a copy.
_WHOLE: Final = (PROCESS, PAUSE, FILES, MEMBERS)
_COPY: Final = (FILES, MEMBERS)

_LINKS: Final = ("loss", "burst", "delay", "duplicate", "reorder", "corrupt", "rate")
_DISK: Final = ("full", "slow-disk", "eio", "torn", "lie")
_CLOCK: Final = ("jump", "drift")
_ROT: Final = {"bitflip": "flip", "truncate": "truncate", "wipe": "wipe"}


class NotNow(Refused):
    """Whom it could befall is harmed enough at the moment."""


@dataclass(slots=True)
class Record:
    """What came of one episode.

    `took_effect` is None if it could not be begun, because there was nobody whom it could befall or
    who could be harmed just then; it is False if it was begun, and nothing of it was to be seen.
    """

    fault: str
    target: str
    nodes: list[str]
    values: dict[str, Any]
    begin: float
    end: float | None = None
    took_effect: bool | None = None
    evidence: str = ""
    unseated: bool = False  # a leader, by ending its process
    leader: str = ""  # when it began
    # Of each node: what was seen of it when it began.
    seen: dict[str, str] = field(default_factory=dict)
    meters: dict[str, Meter] = field(default_factory=dict)
    clocks: dict[str, Reading | None] = field(default_factory=dict)
    edges: frozenset[Edge] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """A line of faults.jsonl."""
        return {name: getattr(self, name) for name in _TOLD}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Record:
        """What to_json told; raises TypeError or KeyError."""
        return cls(**{name: told[name] for name in _TOLD})


_TOLD: Final = tuple(
    part.name
    for part in fields(Record)
    if part.name not in ("leader", "seen", "meters", "clocks", "edges")
)


class Injector:
    """Harms one system.

    Args:
        system: it.
        rng: decides what the plan leaves open: which node is "one", which edges "halves" cuts.
        now: seconds since the run began.
        say: told of each beginning and end, a line each.
        patience_s: what costs the cluster a copy waits so long for the copies that were lost before
            to be replaced. Of three nodes one may be lost at a time, and a slow machine takes long.
    """

    def __init__(
        self,
        system: System,
        rng: random.Random,
        now: Callable[[], float],
        say: Callable[[str], None] = lambda line: None,
        *,
        patience_s: float = 0.0,
    ) -> None:
        self._system = system
        self._patience_s = patience_s
        self._rng = rng
        self._now = now
        self._say = say
        self._changing = asyncio.Lock()
        self._active: list[Record] = []
        self._held: dict[str, Record] = {}  # nodes whose process an episode has in hand
        self._broken: dict[str, asyncio.Task[None]] = {}  # being replaced
        self._apart: set[str] = set()  # nobody hears them
        self._healed = False
        self.records: list[Record] = []
        # Times at which the set of nodes changed that are excused from going on, with the set.
        self.harmed: list[tuple[float, frozenset[str]]] = [(0.0, frozenset())]

    async def run(self, plan: Plan) -> None:
        """All episodes; returns when the last is over."""
        await asyncio.gather(*(self._episode(episode) for episode in plan))

    async def _episode(self, episode: Episode) -> None:
        await asyncio.sleep(max(0.0, episode.at - self._now()))
        record = Record(episode.fault, episode.target, [], dict(episode.values), self._now())
        self.records.append(record)
        until = episode.until
        if FAULTS_BY_NAME[episode.fault].needs in _COPY and self._patience_s:
            until += await self._begin_in_turn(record)
        else:
            await self._try_to_begin(record)
        if record.end is not None:
            return
        self._say(f"{self._now():7.2f}  {record.fault} {', '.join(record.nodes)}")
        await asyncio.sleep(max(0.0, until - self._now()))
        async with self._changing:
            await self._finish(record)

    async def _begin_in_turn(self, record: Record) -> float:
        """Begin, as soon as it may within the patience; how long that took."""
        wanted = self._now()
        while await self._try_to_begin(record):
            if self._healed or self._now() - wanted >= self._patience_s:
                break
            await asyncio.sleep(BEGIN_AGAIN_S)
        return self._now() - wanted

    async def _try_to_begin(self, record: Record) -> bool:
        """Whether it was not begun, and might be a little later."""
        async with self._changing:
            record.begin, record.end, record.evidence = self._now(), None, ""
            try:
                if self._healed:
                    raise Refused("by then all had been healed")
                await self._begin(record)
            except NoEffect as error:
                record.took_effect, record.evidence = False, str(error)
                await self._give_up(record)
            except (Refused, RingError, ValueError) as error:
                record.evidence = f"not begun: {error}"
                await self._give_up(record)
                return isinstance(error, NotNow)
        return False

    async def _finish(self, record: Record) -> None:
        if record not in self._active:
            return
        self._active.remove(record)
        try:
            effect = await self._end(record)
            record.took_effect, record.evidence = True, effect
        except NoEffect as error:
            record.took_effect, record.evidence = False, str(error)
        except (Refused, RingError, ValueError) as error:
            record.took_effect, record.evidence = False, f"could not be ended: {error}"
        self._let_go(record)
        self._say(f"{self._now():7.2f}  {record.fault} over: {record.evidence}")

    async def _give_up(self, record: Record) -> None:
        """It could not be begun, or only in part: what was done of it is undone."""
        record.end = self._now()
        if record not in self._active:
            return
        self._active.remove(record)
        if record.fault in GRUDGES or record.fault in _LINKS:
            with contextlib.suppress(Refused, RingError):
                await self._set_links()
        for name in record.nodes:
            with contextlib.suppress(Refused, RingError, ValueError):
                if record.fault in (*_DISK, *_CLOCK, "crashpoint"):
                    await self._mend(record, name)
                await self._wake([name])
        self._let_go(record)

    def _let_go(self, record: Record) -> None:
        """Nothing of it is under way any more."""
        record.end = self._now()
        self._held = {name: held for name, held in self._held.items() if held is not record}
        self._note_harm()

    async def heal(self) -> None:
        """End everything that is under way; all nodes up, all faults gone. Raises RingError.

        Nothing is begun any more.
        """
        async with self._changing:
            self._healed = True
            for record in list(self._active):
                await self._finish(record)
        await asyncio.gather(*self._broken.values())
        nodes = self._system.nodes
        if "faults" in self._system.able:
            for name in nodes:
                await self._system.faults(name, {"heal": ["links", "disk", "clock", "points"]})
        await self._wake(nodes)

    async def _wake(self, nodes: Sequence[str]) -> None:
        """Whichever of them was stopped goes on; raises what kept the first that does not."""
        kept: list[Exception] = []
        for name, view in (await self._system.look()).items():
            if name not in nodes:
                continue
            try:
                if view.state in ("killed", "stopped", "fatal"):
                    await self._system.revive(name)
                elif view.state == "paused":
                    await self._system.resume(name)
            except (Refused, RingError) as error:
                kept.append(error)
        if kept:
            raise kept[0]

    def _note_harm(self) -> None:
        bad = [record for record in self._active if FAULTS_BY_NAME[record.fault].excuses]
        harmed = {name for record in bad for name in record.nodes} | set(self._broken)
        self.harmed.append((self._now(), frozenset(harmed)))

    # -- who

    async def _choose(self, record: Record, *, hold: bool) -> None:
        """The nodes that the target means now; raises Refused if there are none."""
        views = await self._system.look()
        free = [
            NodeView(view.name, "raft", view.role, view.state in ("running", "paused"))
            for view in views.values()
            if not hold or (view.name not in self._held and view.name not in self._broken)
        ]
        # Where there is no leader now, or too few are left, any one will do; but a name is a name.
        words = (record.target,) if record.target in views else (record.target, "one")
        for word in words:
            with contextlib.suppress(Usage):
                record.nodes = resolve(word, free, self._rng)
                break
        if hold:
            record.nodes = [name for name in record.nodes if views[name].state == "running"]
        if not record.nodes:
            raise NotNow("no node is left that it could befall")
        leaders = [v for v in views.values() if v.role == "leader" and v.state == "running"]
        record.leader = max(leaders, key=lambda view: view.term).name if leaders else ""

    # -- begin and end

    async def _begin(self, record: Record) -> None:
        fault, system = record.fault, self._system
        needs = FAULTS_BY_NAME[fault].needs
        holds = needs in _WHOLE or fault == "host"
        if fault in GRUDGES:
            record.edges = GRUDGES[fault](system.nodes, self._rng)
            together = largest_group(system.nodes, record.edges)
            record.nodes = [name for name in system.nodes if name not in together]
        else:
            await self._choose(record, hold=holds)
        if needs in _COPY:
            self._spare_the_majority(record)
        if holds:
            await self._keep_counts(record.nodes)
        self._active.append(record)
        if holds:
            self._held.update(dict.fromkeys(record.nodes, record))
        self._note_harm()
        await self._measure(record)
        if fault in GRUDGES or fault in _LINKS:
            await self._set_links()
        elif fault == "leave":
            await self._dismiss(record)
        else:
            await self._begin_each(record)

    async def _begin_each(self, record: Record) -> None:
        """On each of its nodes; those whom it could not touch are no longer of it."""
        nodes = record.nodes
        outcomes = await asyncio.gather(
            *(self._begin_one(record, name) for name in nodes), return_exceptions=True
        )
        failed = {n: o for n, o in zip(nodes, outcomes, strict=True) if isinstance(o, Exception)}
        for error in failed.values():
            if not isinstance(error, NoEffect) or len(failed) == len(nodes):
                raise error
        takes = FAULTS_BY_NAME[record.fault].unseats
        record.unseated = takes and record.leader in set(nodes) - set(failed)
        if failed:
            record.nodes = [name for name in nodes if name not in failed]
            self._held = {name: held for name, held in self._held.items() if name not in failed}
            with contextlib.suppress(Refused, RingError):
                await self._wake(list(failed))
            self._note_harm()

    async def _measure(self, record: Record) -> None:
        """What there is to be seen of it before it begins."""
        if record.fault in _CLOCK:
            record.clocks = {name: await self._read_clock(name) for name in record.nodes}
        elif record.fault in (*_DISK, *_LINKS, *GRUDGES, "crashpoint"):
            names = [*dict.fromkeys(a for a, _ in self._edges_of(record)), *record.nodes]
            for name in dict.fromkeys(names):
                record.meters[name] = Meter(await self._system.faults(name, {}))

    def _spare_the_majority(self, record: Record) -> None:
        """A majority must never have lost its copies at once: nobody promises to survive that."""
        lost = {n for r in self._active for n in r.nodes if FAULTS_BY_NAME[r.fault].needs in _COPY}
        bearable = (len(self._system.nodes) - 1) // 2 - len(lost | set(self._broken))
        record.nodes = record.nodes[: max(0, bearable)]
        if not record.nodes:
            raise NotNow("as many copies as can be spared are lost already")

    async def _dismiss(self, record: Record) -> None:
        """All in one decision. One that nobody heard of may yet be taken, so all join again."""
        try:
            told = await self._system.leave(record.nodes)
        except Refused:
            self._join_again(record.nodes)
            raise
        record.seen = dict.fromkeys(record.nodes, told)

    async def _begin_one(self, record: Record, name: str) -> None:
        fault, system, values = record.fault, self._system, record.values
        if fault == "kill":
            record.seen[name] = await system.kill(name)
        elif fault == "host":
            record.seen[name] = await system.lose(name)
        elif fault == "pause":
            record.seen[name] = await system.pause(name)
        elif fault == "slow":
            await system.slow(name, values["duty"])
        elif fault in _DISK:
            await system.faults(name, {"disk": values})
        elif fault in _CLOCK:
            await system.faults(name, {"clock": values})
        elif fault == "crashpoint":
            point = {values["point"]: {"action": "crash", "after": values["after"]}}
            await system.faults(name, {"points": point})
        elif fault == "old-copy":
            await system.kill(name)
            await system.damage(name, "keep", 0)
            await system.revive(name)
        else:
            await system.kill(name)
            seed = self._rng.getrandbits(30)
            record.seen[name] = await system.damage(name, _ROT[fault], seed)

    async def _end(self, record: Record) -> str:
        """Mend it; returns what showed that it was there, or raises NoEffect."""
        fault = record.fault
        await self._count(record, record.meters)
        if fault in GRUDGES or fault in _LINKS:
            await self._set_links()
            edges = [(record.meters[a], self._system.address(b)) for a, b in self._edges_of(record)]
            if shown := of_links(fault, edges):
                return shown
            raise NoEffect("none of the datagrams that passed shows it")
        results = await asyncio.gather(*(self._end_one(record, name) for name in record.nodes))
        told = [text for text in results if text]
        if not told:
            raise NoEffect("nothing of it was to be seen")
        return "; ".join(dict.fromkeys(told))

    async def _end_one(self, record: Record, name: str) -> str:
        fault, system = record.fault, self._system
        if fault in ("kill", "host"):
            await system.revive(name)
            return record.seen[name]
        if fault == "pause":
            await system.resume(name)
            return record.seen[name]
        if fault == "slow":
            return await system.slow(name, 1)
        if fault in _DISK:
            await self._mend(record, name)
            return of_disk(fault, name, record.meters[name])
        if fault in _CLOCK:
            after = await self._read_clock(name)
            await self._mend(record, name)
            return of_clock(record.values, name, record.clocks[name], after)
        if fault == "crashpoint":
            await self._mend(record, name)
            return of_point(record.values["point"], name, record.meters[name])
        if fault == "leave":
            self._join_again([name])
            return record.seen[name]
        return await self._end_rot(record, name)

    async def _mend(self, record: Record, name: str) -> None:
        """What was set for it is good again."""
        if record.fault in _DISK:
            change: dict[str, Any] = {"disk": _good(record.values)}
        elif record.fault in _CLOCK:
            good = {"offset_s": 0.0} if "offset_s" in record.values else {"rate": 1.0}
            change = {"clock": good}
        else:
            change = {"points": {record.values["point"]: None}}
        await self._system.faults(name, change)

    async def _keep_counts(self, nodes: Sequence[str]) -> None:
        """A process that ends counts from nothing in its next life."""
        for record in self._active:
            await self._count(record, nodes)

    async def _count(self, record: Record, nodes: Iterable[str]) -> None:
        """What it has come to so far on these nodes; of who does not tell, nothing."""
        for name in sorted(record.meters.keys() & set(nodes)):
            with contextlib.suppress(Refused, RingError):
                record.meters[name].read(await self._system.faults(name, {}))

    async def _read_clock(self, name: str) -> Reading | None:
        try:
            life = (await self._system.look())[name].lives
            answer = await self._system.faults(name, {})
        except (Refused, RingError):
            return None
        return Reading.of(answer, self._now(), life)

    async def _end_rot(self, record: Record, name: str) -> str:
        if record.fault == "bitflip":
            # It must notice by itself; then it is replaced, as an operator would.
            try:
                told = await self._system.revive(name)
            except (Refused, RingError):
                self._join_again([name])  # whatever it would have come to: it is damaged
                raise
            if told == "running":
                raise NoEffect(f"{name} did not need what was damaged: {record.seen[name]}")
            self._join_again([name])
            return f"{name}: {record.seen[name]}; it refused to start on that"
        try:
            if record.fault == "old-copy":
                await self._system.kill(name)
                record.seen[name] = await self._system.damage(name, "put-back", 0)
            return f"{name}: {record.seen[name]}; {await self._try_out(name)}"
        finally:
            self._join_again([name])

    async def _try_out(self, name: str) -> str:
        """Start it on the files that it has now, where nobody hears it."""
        self._apart.add(name)
        try:
            await self._set_links()
            if await self._system.revive(name) == "running":
                return "it started on what was left, apart from the others"
            return "it refused to start on that"
        finally:
            with contextlib.suppress(NoEffect, Refused, RingError):
                await self._system.kill(name)
            self._apart.discard(name)
            await self._set_links()

    def _join_again(self, nodes: Sequence[str]) -> None:
        for name in nodes:
            self._broken[name] = asyncio.create_task(self._replace(name))

    async def _replace(self, name: str) -> None:
        while True:
            try:
                await self._system.replace(name)
            except (Refused, RingError):
                await asyncio.sleep(REPLACE_AGAIN_S)
            else:
                break
        del self._broken[name]
        self._note_harm()

    # -- links

    async def _set_links(self) -> None:
        """Each edge is as wrong as all episodes under way make it."""
        system = self._system
        wrong: dict[Edge, dict[str, Any]] = {}
        for record in self._active:
            if record.fault in GRUDGES:
                for edge in record.edges:
                    wrong.setdefault(edge, {})["cut"] = True
            elif record.fault in _LINKS:
                for edge in self._edges_of(record):
                    wrong.setdefault(edge, {}).update(record.values)
        for edge in self._edges_to(self._apart):
            wrong.setdefault(edge, {})["cut"] = True
        for a in system.nodes:
            links = {
                system.address(b): _policy(wrong.get((a, b), {})) for b in system.nodes if b != a
            }
            await system.faults(a, {"links": links})

    def _edges_of(self, record: Record) -> list[Edge]:
        """The edges that a fault of links befalls, whichever they are."""
        if record.fault in GRUDGES:
            return sorted(record.edges)
        return self._edges_to(record.nodes) if record.fault in _LINKS else []

    def _edges_to(self, chosen: Collection[str]) -> list[Edge]:
        nodes = self._system.nodes
        return [(a, b) for a in nodes for b in nodes if a != b and (a in chosen or b in chosen)]


_PERFECT: Final = asdict(LinkPolicy())


def _policy(wrong: dict[str, Any]) -> dict[str, Any]:
    return _PERFECT | wrong


def _good(values: dict[str, Any]) -> dict[str, Any]:
    """The same fields of a good disk."""
    return {name: type(value)() for name, value in values.items()}
