"""Copies where they belong: after a join, a death, a leave, a restart, a meeting of two rings.

    compare   an owner sends each replica sixteen digests of its range; for the parts that differ
              both lists are laid side by side; each side gets what is newer at the other
    give over an owner whose range has shrunk brings the lost part to whoever owns it now
    enter     before a newcomer joins, it copies its future range from its present owner: copy,
              then switch, then compare once more for what was written meanwhile
    leave     before a peer goes, one process more than usual gets its ranges
    offer     a record that no owner has asked about for a while lies here for nothing, or is the
              only copy left: its owner is offered it, and only then is it dropped here

All of it moves whole records, newest stamp wins; doing it twice harms nobody. Pages are bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from dht.chord import wire
from dht.chord.keeper import STORE, Keeper
from dht.chord.member import ASK, Member
from dht.chord.outputs import STATE, State
from dht.chord.records import PARTS, Record
from dht.chord.replicas import Span, followers
from dht.chord.ring import SIZE, Contact, key_id, within
from netstack.rpc.errors import BadRequest, RpcError, brief
from netstack.runtime.runtime import Runtime

DIGEST: Final = "dht.digest"
LIST: Final = "dht.list"
TAKE: Final = "dht.take"
OFFER: Final = "dht.offer"

# Records in one message.
PAGE_BYTES: Final = 1024 * 1024
# Keys in one listing or request: a page of 40-byte keys is below a megabyte.
KEYS_MAX: Final = 10_000

# A comparison may take so much longer than a single question.
BULK: Final = 10

# After a failed comparison, and between a change and the comparison that it causes.
RETRY_S: Final = 0.2
SETTLE_S: Final = 0.02

# A lost range is cut into so many owners', or tried so often, at the most; offers do the rest.
GIVE_TRIES: Final = 64

# An owner that has not asked about a range for so many repair periods is not its owner any more.
KEPT_PERIODS: Final = 3
OFFERS_MAX: Final = 256


class Repair:
    """The upkeep of one process's copies."""

    def __init__(self, runtime: Runtime, keeper: Keeper) -> None:
        self._runtime = runtime
        self._keeper = keeper
        self._wakes: dict[Member, asyncio.Event] = {}
        self._kept: dict[Contact, tuple[int, int, float]] = {}  # owner -> range, when asked last
        self._period_s = keeper.settings.repair_s
        self.moving = 0  # ranges that are being given over
        self._since = runtime.clock.now()

    def __repr__(self) -> str:
        return f"<Repair {len(self._wakes)} ranges, replica of {len(self._kept)}>"

    # -- when

    def add(self, member: Member) -> None:
        """Look after the range of `member` from now on."""
        self._keeper.spans[member] = Span(self._keeper.settings.replicas)
        self._wakes[member] = asyncio.Event()
        self._runtime.spawn(self._look_after(member), f"repair {member.core.me!r}")

    def moved(self, member: Member) -> None:
        """Pointers have changed, or the successor has confirmed this owner."""
        span = self._keeper.spans[member]
        lost = span.moved(member.core, member.taken_in)
        if lost is not None:
            self._runtime.spawn(self._give_over(member, *lost), f"give over {member.core.me!r}")
        if not span.settled(member.core) or not span.complete:
            self._wakes[member].set()

    def start_offers(self) -> None:
        """Offer what lies here for nothing, now and then."""
        self._runtime.spawn(self._offers(), "dht offers")

    async def _look_after(self, member: Member) -> None:
        wake, rng = self._wakes[member], self._runtime.rng
        while True:
            try:
                async with asyncio.timeout(self._period_s * (0.75 + 0.5 * rng.random())):
                    await wake.wait()
            except TimeoutError:
                pass
            wake.clear()
            await asyncio.sleep(SETTLE_S)
            if member.serving and not await self.compare(member):
                await asyncio.sleep(RETRY_S)
                wake.set()

    # -- compare

    async def compare(self, member: Member) -> bool:
        """The member's range with its replicas; whether the owner is settled then."""
        core, span = member.core, self._keeper.spans[member]
        if core.pred is None and not member.alone:
            return True  # it owns nothing yet
        low, high = core.pred.id if core.pred is not None else core.me.id, core.me.id
        wanted = self._keeper.settings.replicas - 1
        targets = followers(core)[:wanted]
        succ = list(core.succ)
        results = await asyncio.gather(
            *(self._compare_with(member, to, low, high) for to in targets)
        )
        span.complete = len(targets) == wanted and all(results)
        if not all(results):
            return False
        if succ == core.succ and (core.pred is None or core.pred.id == low):
            if not span.settled(core):
                self._runtime.events.emit("dht.settled", id=repr(core.me), replicas=len(targets))
            if targets or not core.contacts:
                span.settled_low = low
        else:
            self._wakes[member].set()
        return True

    async def _compare_with(self, member: Member, to: Contact, low: int, high: int) -> bool:
        """Both sides have the newest of both afterwards; False if that did not come about."""
        try:
            me = wire.pack_contact(member.core.me)
            span = [wire.pack_id(low), wire.pack_id(high)]
            digests = self._keeper.store.digest(low, high)
            parts = await self._keeper.peers.call(to, DIGEST, [me, *span, digests], patient=False)
            if not parts:
                return True
            await self._level(to, low, high, parts, push=True, me=me)
        except (RpcError, TypeError, ValueError):
            return False
        return True

    async def _level(
        self, to: Contact, low: int, high: int, parts: Any, *, push: bool, me: Any
    ) -> None:
        """Pull what is newer there, then push what is newer here, page by page."""
        store = self._keeper.store
        theirs: dict[bytes, tuple[int, str]] = {}
        after = b""
        while True:
            body = [wire.pack_id(low), wire.pack_id(high), list(parts), after]
            page, more = await self._call(to, LIST, body)
            theirs.update({key: (version, tag) for key, version, tag in page})
            if not more:
                break
            after = page[-1][0]
        pull = []
        for key, stamp in theirs.items():
            mine = store.get(key)
            if mine is None or stamp > mine.stamp:
                pull.append(key)
        await self._pull(to, pull)
        if push:
            mine_newer = []
            for key, version, tag in store.listing(low, high, parts):
                if (version, tag) > theirs.get(key, (0, "")) and (found := store.get(key)):
                    mine_newer.append(found)
            for records in wire.pages(mine_newer, PAGE_BYTES):
                await self._call(to, STORE, [me, [list(r) for r in records], False])

    async def _pull(self, to: Contact, keys: list[bytes]) -> None:
        wall = self._runtime.clock.wall()
        while keys:
            got = wire.read_records(await self._call(to, TAKE, keys[:KEYS_MAX]))
            if not got:
                return  # forgotten there meanwhile
            self._keeper.check_room(got)
            await self._keeper.writer.keep([r for r in got if not r.expired(wall)])
            self._keeper.counters["repaired"] += len(got)
            have = {record.key for record in got}
            keys = [key for key in keys if key not in have][: len(keys) - 1]

    async def _call(self, to: Contact, method: str, body: Any) -> Any:
        limit_s = BULK * self._keeper.peers.timeout_s
        return await self._keeper.peers.call(to, method, body, timeout_s=limit_s, patient=False)

    async def _give_over(self, member: Member, low: int, high: int) -> None:
        """(low, high] is somebody else's now, or several others'."""
        self.moving += 1
        try:
            for _ in range(GIVE_TRIES):
                lookup = await member.find((low + 1) % SIZE)
                owner = lookup.found.owner if lookup.found is not None else member.core.me
                if owner.name == member.core.me.name:
                    return  # ours again, or another identifier's here: the records are here
                end = owner.id if within(low, owner.id, high) else high
                if await self._compare_with(member, owner, low, end):
                    if end == high:
                        return
                    low = end
                else:
                    await asyncio.sleep(RETRY_S)
        finally:
            self.moving -= 1

    # -- the other side of it

    def digest(self, body: Any) -> list[int]:
        """DIGEST: the parts of a range that differ here; and its owner keeps its copies here."""
        owner, low, high, digests = _fields(body, 4)
        low, high = wire.read_id(low), wire.read_id(high)
        if type(digests) is not list or len(digests) != PARTS:
            raise BadRequest(f"expected {PARTS} digests, not {brief(digests)}")
        self._kept[wire.read_contact(owner)] = (low, high, self._runtime.clock.now())
        mine = self._keeper.store.digest(low, high)
        return [i for i in range(PARTS) if mine[i] != digests[i]]

    def listing(self, body: Any) -> list[Any]:
        """LIST: [[key, version, tag], …] behind a key, and whether there are more."""
        low, high, parts, after = _fields(body, 4)
        if type(parts) is not list or type(after) is not bytes:
            raise BadRequest("list: expected parts and a key")
        found = self._keeper.store.listing(wire.read_id(low), wire.read_id(high), parts)
        if after:
            keys = [key for key, _, _ in found]
            found = found[keys.index(after) + 1 :] if after in keys else []
        return [found[:KEYS_MAX], len(found) > KEYS_MAX]

    def take(self, body: Any) -> list[Record]:
        """TAKE: records of these keys, as many as fit a page."""
        if type(body) is not list:
            raise BadRequest("take: expected keys")
        found = (self._keeper.store.get(wire.read_key(key)) for key in body[:KEYS_MAX])
        return next(iter(wire.pages((r for r in found if r is not None), PAGE_BYTES)), [])

    # -- coming and going

    async def copy_before_join(self, me: Contact, owner: Contact) -> None:
        """What will be ours, from who owns it now; raises RpcError."""
        state = wire.read_state(await self._call(owner, ASK, [owner.vnode, STATE, []]))
        low = state.pred if isinstance(state, State) and state.pred is not None else owner
        await self._level(owner, low.id, me.id, list(range(PARTS)), push=False, me=None)

    async def hand_over(self, member: Member) -> bool:
        """Before leaving: as many others as there should be replicas have all of the range."""
        core = member.core
        if core.pred is None:
            return True
        targets = followers(core)[: self._keeper.settings.replicas]
        results = await asyncio.gather(
            *(self._compare_with(member, to, core.pred.id, core.me.id) for to in targets)
        )
        return bool(targets) and all(results)

    # -- offers

    async def _offers(self) -> None:
        while True:
            await asyncio.sleep(self._period_s * (0.75 + 0.5 * self._runtime.rng.random()))
            await self._forget_what_is_over()
            if self._runtime.clock.now() - self._since > KEPT_PERIODS * self._period_s:
                await self.offer_strays()

    async def _forget_what_is_over(self) -> None:
        over = self._keeper.store.over(self._runtime.clock.wall())
        if over:
            await self._keeper.writer.keep(over)

    def strays(self) -> list[Record]:
        """Records that are neither in a range of ours nor in one that an owner keeps here."""
        limit = self._runtime.clock.now() - KEPT_PERIODS * self._period_s
        self._kept = {owner: kept for owner, kept in self._kept.items() if kept[2] >= limit}
        ranges = [(low, high) for low, high, _ in self._kept.values()]
        for member in self._keeper.members:
            if member.core.pred is not None:
                ranges.append((member.core.pred.id, member.core.me.id))
            elif member.alone:
                return []
        found = []
        for record in self._keeper.store:
            identifier = key_id(record.key)
            if not any(within(low, identifier, high) for low, high in ranges):
                found.append(record)
                if len(found) == OFFERS_MAX:
                    break
        return found

    async def offer_strays(self) -> None:
        """Bring them to their owners; drop what those have."""
        given = []
        for record in self.strays():
            member = next((m for m in self._keeper.members if m.serving), None)
            if member is None:
                return
            lookup = await member.find(key_id(record.key))
            if lookup.found is None:
                continue
            try:
                owner = lookup.found.owner
                taken = await self._call(owner, OFFER, [owner.vnode, list(record)])
            except RpcError:
                continue
            if taken is True:
                given.append(record.key)
        if given:
            self._keeper.counters["given_away"] += len(given)
            await self._keeper.writer.keep(given)

    async def accept(self, body: Any) -> bool:
        """OFFER: as the owner, take a stray record if it is news; True: it is safe here."""
        index, fields = _fields(body, 2)
        record = wire.read_record(fields)
        member = self._keeper.owner_of(key_id(record.key), index)
        if not self._keeper.sure(member):
            return False
        if not self._keeper.store.newer(record):
            return True
        self._keeper.check_room([record])
        holders = await self._keeper.spread(member, record)
        return len(holders) >= self._keeper.settings.copies_min


def _fields(body: Any, count: int) -> Sequence[Any]:
    if type(body) is not list or len(body) != count:
        raise BadRequest(f"expected {count} fields, not {brief(body)}")
    return body
