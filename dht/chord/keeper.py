"""Reads and writes of one process, for the ranges that its identifiers own.

    write    owner of the key? ► newest version known ► expected version? ► room?
             ► its own disk and the replicas' at the same time ► enough copies? ► answer: who

    read     owner, settled, and its successor has confirmed it lately: from memory
             else: ask the replicas, the newest wins; *absent* only if none is left to ask

The writes of one key come one after the other. A replica that believes that it owns the key itself
refuses the write: then this owner was thought dead meanwhile, and must not acknowledge. A write
that reached fewer than `copies_min` processes is not acknowledged either; it may survive, and the
caller is told just that (Interrupted, which is indefinite).

Where it stops: this is no consensus. Two halves of a cut ring both accept writes if each can make
enough copies; when they meet, the greater (version, tag) wins, and the other is gone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from dht.chord import wire
from dht.chord.copies import Copies
from dht.chord.lookup import Route
from dht.chord.member import Member
from dht.chord.node import ChordNode
from dht.chord.peers import Begun, Peers
from dht.chord.records import Record, RecordStore
from dht.chord.replicas import Span, followers
from dht.chord.ring import Contact, key_id
from dht.chord.turns import Turns
from dht.chord.writer import Writer, settling
from dht.config import DhtSettings
from netstack.rpc.errors import Failed, Interrupted, RpcError, Unavailable
from netstack.runtime.runtime import Runtime

# A deletion is remembered so long; a copy that was away for longer could bring the key back.
TOMBSTONE_S: Final = 3600.0

# An owner whose successor confirmed it longer ago may have been replaced: it asks before it reads.
# So many of the longest pauses between two rounds: two, with their jitter. By the pause that is
# set, not by what is measured: where all is slow an old answer must not live the longer for it.
CONFIRMED_PAUSES: Final = 2.5

FETCH: Final = "dht.fetch"
STORE: Final = "dht.store"

Written = Callable[[Record, list[str], Exception | None], None]
"""What was written, who holds it, and why that is not acknowledged, if it is not."""


class Write(NamedTuple):
    """What is asked of a key. value: None deletes it; expect: the version that it must have; ttl_s:
    0: for ever."""

    key: bytes
    value: bytes | None
    expect: int | None
    ttl_s: float


class Gathered(NamedTuple):
    """What the replicas say of a key."""

    record: Record | None
    silent: tuple[str, ...]  # who could not be asked


class Keeper:
    """The data of one process."""

    def __init__(
        self,
        runtime: Runtime,
        settings: DhtSettings,
        peers: Peers,
        store: RecordStore,
        writer: Writer,
    ) -> None:
        self.settings = settings
        self.store = store
        self.writer = writer
        self.peers = peers
        self.members: list[Member] = []
        self.spans: dict[Member, Span] = {}
        self.counters: Counter[str] = Counter()
        self._runtime = runtime
        self._turns = Turns()
        self._counted: dict[Member, tuple[int, int, int]] = {}

    def __repr__(self) -> str:
        return f"<Keeper {self.store!r} ids={len(self.members)}>"

    # -- whose key

    def owner_of(self, identifier: int, index: Any = -1) -> Member:
        """Our identifier that owns it; raises Failed("not-owner") with who might."""
        if type(index) is int and 0 <= index < len(self.members):
            hinted = self.members[index]
            if hinted.serving and hinted.core.owns(identifier):
                return hinted
        for member in self.members:
            if member.core.owns(identifier) and member.core.state == "member":
                if member.serving:
                    return member
                raise Unavailable(f"{member.core.me!r} is taking over its range: ask again")
        raise Failed("not-owner", "this key is not ours", self._hints(index))

    def _hints(self, index: Any) -> list[Any]:
        """Somebody has come before the identifier that was asked, perhaps; or look anew."""
        if type(index) is int and 0 <= index < len(self.members):
            core = self.members[index].core
            if core.state == "member" and core.pred is not None:
                return wire.pack_route(Route(True, (core.pred, core.me)))
        return wire.pack_route(Route(False, ()))

    def sure(self, member: Member) -> bool:
        """Whether what this process holds is all there is of the member's range."""
        if not self.spans[member].settled(member.core):
            return False
        if member.alone:
            return True
        longest_s = member.core.options.stabilise_s[1]
        return member.now - member.confirmed_at < CONFIRMED_PAUSES * longest_s

    # -- reads

    def read_now(self, member: Member, key: bytes) -> Record | None:
        """From memory; only if `sure`."""
        self.counters["reads"] += 1
        return self.store.get(key)

    async def read(self, member: Member, key: bytes) -> Gathered:
        """What is known of the key here and at the replicas; a newer copy is kept here too."""
        self.counters["careful_reads"] += 1
        mine = self.store.get(key)
        gathered = await self._gather(member, key)
        newest = gathered.record
        if newest is not None and (mine is None or newest.stamp > mine.stamp):
            if self.store.room_for(newest):
                await self.writer.keep([newest])
            return gathered
        return Gathered(mine, gathered.silent)

    async def _gather(self, member: Member, key: bytes) -> Gathered:
        targets = followers(member.core)[: max(1, self.settings.replicas - 1)]
        answers = await asyncio.gather(*(self._fetch(to, key) for to in targets))
        newest: Record | None = None
        silent = [to.name for to, ok, _ in answers if not ok]
        for _, _, record in answers:
            if record is not None and (newest is None or record.stamp > newest.stamp):
                newest = record
        if not targets and member.core.contacts:
            silent.append("the rest of the ring")
        return Gathered(newest, tuple(silent))

    async def _fetch(self, to: Contact, key: bytes) -> tuple[Contact, bool, Record | None]:
        try:
            found = await self.peers.call(to, FETCH, [key], patient=False)
            record = wire.read_record(found[0]) if found else None
        except (RpcError, IndexError, TypeError):
            return to, False, None
        return to, True, record

    # -- writes

    def write_now(self, member: Member, write: Write, done: Written) -> bool:
        """Begin a write and return, if nothing has to be waited for first; else False: `write`.

        Raises what is wrong with it from the start; `done` is told the rest.
        """
        if not self.sure(member) or not self._turns.take(write.key):
            return False
        try:
            record = self._next(member, write, self.store.get(write.key))
            copies = self.begin(member, record)
        except BaseException:
            self._turns.end(write.key)
            raise

        def over() -> None:
            holders = copies.holders()
            if holders is None:
                self._runtime.spawn(self._end(member, record, copies, done), "dht write")
                return
            self._turns.end(write.key)
            done(record, holders, self._too_few(holders))

        copies.when_over(over)
        return True

    async def _end(self, member: Member, record: Record, copies: Copies, done: Written) -> None:
        """Somebody did not take it: see who does instead, and tell."""
        holders: list[str] = []
        error: Exception | None = None
        try:
            holders = await self._gathered(member, record, copies)
            error = self._too_few(holders)
        except Exception as failure:
            error = failure
        finally:
            self._turns.end(record.key)
        done(record, holders, error)

    async def write(self, member: Member, write: Write) -> tuple[Record, list[str]]:
        """A new version, and who holds it; see the head of this file for what it raises."""
        await self._turns.wait(write.key)
        try:
            current = await self._current(member, write.key)
            record = self._next(member, write, current)
            holders = await self.spread(member, record)
        finally:
            self._turns.end(write.key)
        error = self._too_few(holders)
        if error is not None:
            raise error
        return record, holders

    async def _current(self, member: Member, key: bytes) -> Record | None:
        if self.sure(member):
            return self.store.get(key)
        gathered = await self.read(member, key)
        if gathered.record is None and gathered.silent:
            raise Unavailable(f"{', '.join(gathered.silent)} could not be asked for the key")
        return gathered.record

    def _next(self, member: Member, write: Write, current: Record | None) -> Record:
        """The version after `current`; raises Failed."""
        key, value, expect, ttl_s = write
        wall = self._runtime.clock.wall()
        version = current.version if current is not None and current.alive(wall) else 0
        if expect is not None and expect != version:
            raise Failed("conflict", f"the key has version {version}, not {expect}", version)
        lasts = TOMBSTONE_S if value is None else ttl_s
        record = Record(
            key,
            value,
            (current.version if current is not None else 0) + 1,
            member.tag,
            wall + lasts if lasts else 0.0,
        )
        if not self.store.room_for(record):
            raise Failed("full", f"the quota of {self.settings.quota_bytes} bytes is used up")
        self.counters["writes"] += 1
        return record

    def _too_few(self, holders: list[str]) -> Interrupted | None:
        """A write that ended so is not acknowledged, for want of copies."""
        if len(holders) >= self.settings.copies_min:
            return None
        return Interrupted(
            f"only {', '.join(holders)} kept it; {self.settings.copies_min} are wanted:"
            " it may survive or not"
        )

    async def spread(self, member: Member, record: Record) -> list[str]:
        """Keep the record here and at the replicas, at the same time; returns who holds it."""
        return await self._gathered(member, record, self.begin(member, record))

    def begin(self, member: Member, record: Record) -> Copies:
        """The same, under way: r-1 others are asked, and the own disk."""
        loop = asyncio.get_running_loop()
        own: asyncio.Future[None] = loop.create_future()
        # The replicas' copies leave first: a sync may hold up the loop.
        loop.call_soon(self.writer.submit, [record], settling(own))
        wanted = self.settings.replicas - 1
        targets = followers(member.core)
        begun = self._ask(member, record, targets[:wanted])
        return Copies(member.core.me.name, own, begun, targets[wanted:])

    def _ask(self, member: Member, record: Record, targets: Sequence[Contact]) -> list[Begun]:
        body = [wire.pack_contact(member.core.me), [list(record)], True]
        return [self.peers.begin(to, STORE, body) for to in targets]

    async def _gathered(self, member: Member, record: Record, copies: Copies) -> list[str]:
        """Who holds it in the end; who is silent is replaced by the next along the list."""
        own, begun, rest = copies.own, copies.begun, copies.rest
        wanted = len(begun)
        holders: list[str] = []
        try:
            while begun:
                try:
                    holders += [c.to.name for c in begun if await self._stored(c, member)]
                except asyncio.CancelledError:
                    for copy in begun:
                        copy.cancel()
                    raise
                missing = wanted - len(holders)
                begun, rest = self._ask(member, record, rest[:missing]), rest[missing:]
        finally:
            if not own.done():
                await asyncio.wait((own,))
        own.result()
        return [copies.owner, *holders]

    async def _stored(self, copy: Begun, member: Member) -> bool:
        try:
            await copy.answer()
        except Failed as error:
            if error.reason == "mine":
                member.core.suspect(member.core.succ[0], member.now)
                member.run()
                raise Interrupted(
                    f"{copy.to.name} owns this key by now; it may be kept or not"
                ) from None
            return False
        except RpcError:
            return False
        return True

    # -- as a replica of others

    def check_fence(self, owner: Contact, records: Sequence[Record]) -> None:
        """Refuse a write by somebody whom we have replaced."""
        for record in records:
            identifier = key_id(record.key)
            for member in self.members:
                core: ChordNode = member.core
                if core.me != owner and member.serving and core.pred and core.owns(identifier):
                    raise Failed("mine", f"{core.me!r} owns this key")

    def check_room(self, records: Sequence[Record]) -> None:
        """Refuse what the quota does not allow."""
        for record in records:
            if self.store.newer(record) and not self.store.room_for(record):
                raise Failed("full", f"the quota of {self.settings.quota_bytes} bytes is used up")

    def keys(self, member: Member) -> int:
        """Records in the member's own range that a reader would see."""
        core, wall = member.core, self._runtime.clock.wall()
        if core.state != "member" or (core.pred is None and not member.alone):
            return 0
        low = core.pred.id if core.pred is not None else core.me.id
        known = self._counted.get(member)
        if known is None or known[:2] != (self.store.changes, low):
            # Counted again only after a change: whoever watches a ring asks ten times a second.
            count = sum(1 for r in self.store.within(low, core.me.id) if r.alive(wall))
            known = self._counted[member] = self.store.changes, low, count
        return known[2]
