"""The daemon's service: one process of the ring, with several identifiers.

    chord.ask      inline   [index, question, arguments]     the protocol among peers (member.py)
    chord.step     inline   [index, id, walk]      -> [final, contacts]    one hop, for whoever asks
    chord.find     stream   [index, id, path, skip, left_s]      a look-up handed on (recursion.py)
    chord.hello    inline   whether this process is in the ring
    dht.get        inline   [index, key]           -> [value or nil, version, range's low, sure]
    dht.put        inline   [index, key, value or nil, expect or nil, ttl_s]
                            -> [version, [who holds it], range's low]
    dht.nodes      inline   what each identifier here sees
    dht.keys       inline   [after] -> [[[key, version, size, owner?], …], more]
    dht.fetch, store, digest, list, take, offer                among peers (requests.py, repair.py)

A peer that starts asks some others of the cluster file. If one is a member already, it joins
through it. If none is, they are all starting: they begin as one ring of all in the file, who know
each other, as the corrected protocol wants it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

from dht.chord import wire
from dht.chord.errors import NotMember
from dht.chord.journal import Journal
from dht.chord.keeper import FETCH, STORE, Keeper
from dht.chord.member import ASK, Member
from dht.chord.node import MEMBER, ChordNode
from dht.chord.outputs import STEP
from dht.chord.peers import Peers
from dht.chord.records import Record, RecordStore
from dht.chord.recursion import FIND, Recursion, read_question
from dht.chord.repair import DIGEST, LIST, OFFER, TAKE, Repair
from dht.chord.replicas import followers
from dht.chord.ring import Contact, key_id
from dht.chord.writer import Writer
from dht.config import ACK_DELAY_S, SERVICE, DhtSettings, contacts_of
from dht.requests import Requests
from netstack.rpc.admin import offer_admin
from netstack.rpc.errors import BadRequest, RpcError, Unavailable, brief
from netstack.rpc.node import RpcNode
from netstack.rpc.service import Call
from netstack.runtime.config import ClusterConfig
from netstack.runtime.runtime import Fatal, Runtime
from netstack.transport.config import TransportConfig
from security.identity import Identity

HELLO: Final = "chord.hello"

# How many others a starting peer asks, and how long it waits until all of these have answered. They
# are started one after the other; Python takes a third of a second each.
BOOT_S: Final = 4.0
ASKED: Final = 6
BOOT_PAUSE_S: Final = 0.05
JOIN_PAUSE_S: Final = 0.05

# A peer of a large ring is connected to all whom a look-up or a probe ever led it to, and needs
# most of them once in minutes. To dial anew costs 5 ms of both sides' time, a PING 0.1 ms; and
# whether the other lives, the protocol's own questions tell.
KEEP_ALIVE_S: Final = 40.0
IDLE_S: Final = 130.0

# A peer that leaves hands its ranges over for so long; the others repair what is missing then.
HAND_OVER_S: Final = 3.0

KEYS_PAGE: Final = 1000


class DhtService:
    """One process of the ring."""

    core: type[ChordNode] = ChordNode
    keeping: type[Keeper] = Keeper
    handing_on: type[Recursion] = Recursion

    def __init__(self, turns: asyncio.Semaphore | None = None) -> None:
        """`turns`: see Peers."""
        self._turns = turns
        self.node: RpcNode
        self.keeper: Keeper
        self.requests: Requests
        self.repair: Repair
        self.recursion: Recursion
        self.members: list[Member] = []
        self._runtime: Runtime
        self._leaving = False

    def __repr__(self) -> str:
        return f"<DhtService {self.members!r}>"

    async def start(self, runtime: Runtime, identity: Identity, config: ClusterConfig) -> None:
        """Bring the keys back from the disk, bind, and set out for the ring."""
        self._runtime = runtime
        settings = DhtSettings.of(config)
        runtime.disk.faults.power_cut |= settings.power_cut
        transport = TransportConfig(
            suite=config.suite,
            idle_timeout_s=IDLE_S,
            keep_alive_s=KEEP_ALIVE_S,
            max_ack_delay_s=ACK_DELAY_S,
        )
        self.node = RpcNode(runtime, identity, service=SERVICE, config=transport)
        peers = Peers(self.node, self._local, settings.timeout_s, self._turns)
        store, writer = self._recover(settings)
        self.keeper = self.keeping(runtime, settings, peers, store, writer)
        self.requests = Requests(runtime, self.keeper)
        self.repair = Repair(runtime, self.keeper)
        self.recursion = self.handing_on(runtime, peers, self.members)
        contacts = contacts_of(config, settings)
        for me in contacts[runtime.node]:
            core = self.core(me, settings.chord, runtime.rng)
            core.remember(c for others in contacts.values() for c in others[:1])
            self.members.append(Member(runtime, core, peers, self.repair.moved))
        self.keeper.members = self.members
        for member in self.members:
            self.repair.add(member)
        self._offer()
        await self.node.start(config.node(runtime.node).address)
        runtime.spawn(self._enter(contacts), "enter the ring")
        self.repair.start_offers()

    def _recover(self, settings: DhtSettings) -> tuple[RecordStore, Writer]:
        store = RecordStore(settings.quota_bytes)
        try:
            journal, items, lost = Journal.open(self._runtime.disk)
        except OSError as error:
            raise Fatal(f"the log cannot be read: {error}") from None
        for item in items:
            if isinstance(item, Record):
                store.put(item)
            else:
                store.forget(item)
        if lost:
            self._runtime.events.emit("dht.log_cut", bytes=lost, kept="chord.log.damaged")
        return store, Writer(self._runtime, journal, store)

    def _offer(self) -> None:
        service, peers = self.node.service, {SERVICE}
        service.add(ASK, lambda body, call: call.reply(self._answer(body)), allow=peers)
        service.add("chord.step", self._step)
        service.add(HELLO, self._hello)
        service.add(FIND, self._find)
        service.add("dht.get", self.requests.get)
        service.add("dht.put", self.requests.put)
        service.add("dht.nodes", self._nodes)
        service.add("dht.keys", self._keys)
        service.add(FETCH, self.requests.fetch, allow=peers)
        service.add(STORE, self.requests.store, allow=peers)
        service.add(DIGEST, lambda body, call: call.reply(self.repair.digest(body)), allow=peers)
        service.add(LIST, lambda body, call: call.reply(self.repair.listing(body)), allow=peers)
        service.add(TAKE, lambda body, call: call.reply(self.repair.take(body)), allow=peers)
        service.add(OFFER, self._accept, allow=peers)
        offer_admin(self.node, self)

    # -- into the ring, and out

    async def _enter(self, contacts: dict[str, list[Contact]]) -> None:
        """Bootstrap with those who start too, or join those who are there.

        Only some are asked: of N peers that start at once, each asking all would be N² handshakes.
        """
        everybody = [c for ids in contacts.values() for c in ids]
        others = [ids[0] for name, ids in contacts.items() if name != self._runtime.node]
        deadline = self._runtime.clock.now() + BOOT_S
        asked = self._runtime.rng.sample(others, min(ASKED, len(others)))
        while True:
            states = await asyncio.gather(*(self._ask_state(to) for to in asked))
            there = [to for to, state in zip(asked, states, strict=True) if state == MEMBER]
            if there:
                await asyncio.gather(*(self._join(member, there) for member in self.members))
                return
            if None not in states or self._runtime.clock.now() > deadline:
                # Nobody is in a ring. Who does not come after all is soon found to be dead.
                for member in self.members:
                    member.core.bootstrap(everybody, member.now)
                    member.confirmed_at = member.now
                    member.confirmed_by = member.core.succ[0]
                    member.run()
                self._runtime.events.emit("dht.bootstrap", peers=len(contacts))
                return
            await asyncio.sleep(BOOT_PAUSE_S)

    async def _ask_state(self, to: Contact) -> str | None:
        try:
            answer = await self.keeper.peers.call(to, HELLO, None)
        except RpcError:
            return None
        return answer if isinstance(answer, str) else None

    async def _join(self, member: Member, there: list[Contact]) -> None:
        """Copy the range, then switch; as often as it takes."""
        core = member.core
        while core.state != MEMBER and not self._leaving:
            contact = self._runtime.rng.choice(there)
            lookup = await member.find(core.me.id, start=[contact])
            owner = lookup.found.owner if lookup.found is not None else core.me
            if owner.name != core.me.name:
                try:
                    await self.repair.copy_before_join(core.me, owner)
                except (RpcError, TypeError, ValueError):
                    await asyncio.sleep(JOIN_PAUSE_S)
                    continue
            core.join(contact, member.now)
            member.run()
            while core.state == "joining":  # noqa: ASYNC110 - its look-up tells nobody else
                await asyncio.sleep(JOIN_PAUSE_S / 4)
            await asyncio.sleep(JOIN_PAUSE_S * self._runtime.rng.random())
        self._runtime.events.emit("dht.joined", id=repr(core.me), behind=repr(core.pred))

    def _hello(self, body: Any, call: Call) -> None:
        states = {member.core.state for member in self.members}
        call.reply(MEMBER if MEMBER in states else "starting")

    # -- the protocol

    async def _local(self, method: str, body: Any) -> Any:
        """A call among identifiers of this process."""
        if method == ASK:
            return self._answer(body)
        if method == OFFER:
            return await self.repair.accept(body)
        raise BadRequest(f"{method} is not for ourselves")

    def _member(self, index: Any) -> Member:
        if type(index) is not int or not 0 <= index < len(self.members):
            raise BadRequest(f"there is no identifier {brief(index)} here")
        return self.members[index]

    def _answer(self, body: Any) -> Any:
        if type(body) is not list or len(body) != 3:
            raise BadRequest("ask: expected an index, a question and its arguments")
        try:
            return self._member(body[0]).answer(body[1], body[2])
        except NotMember as error:
            raise Unavailable(str(error)) from None

    def _step(self, body: Any, call: Call) -> None:
        if type(body) is not list or len(body) != 3:
            raise BadRequest("step: expected an index, an identifier and whether to walk")
        call.reply(self._answer([body[0], STEP, body[1:]]))

    async def _find(self, body: Any, call: Call) -> AsyncIterator[Any]:
        index, question = read_question(body)
        async with contextlib.aclosing(
            self.recursion.serve(self._member(index), question)
        ) as items:
            async for item in items:
                yield item

    # -- records

    async def _accept(self, body: Any, call: Call) -> bool:
        return await self.repair.accept(body)

    # -- for people

    def _nodes(self, body: Any, call: Call) -> None:
        found = []
        for member in self.members:
            core = member.core
            found.append(
                {
                    "contact": wire.pack_contact(core.me),
                    "state": core.state,
                    "pred": wire.pack_contact(core.pred),
                    "succ": [wire.pack_contact(c) for c in core.succ],
                    "fingers": len(set(core.fingers.values())),
                    "keys": self.keeper.keys(member),
                    "settled": self.keeper.spans[member].settled(core),
                    "serving": member.serving,
                }
            )
        call.reply(found)

    def _keys(self, body: Any, call: Call) -> None:
        after = body[0] if type(body) is list and len(body) == 1 else b""
        if type(after) is not bytes:
            raise BadRequest("keys: expected the key to go on behind")
        wall = self._runtime.clock.wall()
        alive = sorted(r for r in self.keeper.store if r.alive(wall) and r.key > after)
        first = alive[:KEYS_PAGE]
        page = [[r.key, r.version, len(r.value or b""), self._owned(r.key)] for r in first]
        call.reply([page, len(alive) > KEYS_PAGE])

    def _owned(self, key: bytes) -> bool:
        return any(member.core.owns(key_id(key)) for member in self.members)

    # -- Administered

    def status(self) -> dict[str, Any]:
        """What `ring status` shows."""
        cores = [member.core for member in self.members]
        inside = [core for core in cores if core.state == MEMBER]
        spans = [self.keeper.spans[m] for m in self.members]
        settled = sum(s.settled(m.core) for s, m in zip(spans, self.members, strict=True))
        return {
            "role": "peer",
            "ids": len(inside),
            "successors": _names(core.succ[0] for core in inside),
            "predecessors": _names(core.pred for core in inside),
            "keys": sum(self.keeper.keys(member) for member in self.members),
            "records": len(self.keeper.store),
            "bytes": self.keeper.store.used_bytes,
            "settled": settled,
            "followers": min((len(followers(core)) for core in inside), default=0),
            "trouble": self._trouble(inside),
        }

    def _trouble(self, inside: list[ChordNode]) -> str:
        if self._leaving:
            return "leaving"
        if len(inside) < len(self.members):
            return f"joining: {len(inside)} of {len(self.members)} identifiers"
        if any(not followers(core) and core.contacts for core in inside):
            return "alone: no other peer follows"
        unready = sum(not member.serving for member in self.members)
        return f"taking over {unready} ranges" if unready else ""

    def metrics(self) -> dict[str, float]:
        """Counters and gauges."""
        keeper = self.keeper
        counted = {f"ring_dht_{name}_total": float(n) for name, n in keeper.counters.items()}
        return {
            **counted,
            "ring_dht_records": float(len(keeper.store)),
            "ring_dht_bytes": float(keeper.store.used_bytes),
            "ring_dht_syncs_total": float(keeper.writer.syncs),
            "ring_dht_rounds_total": float(sum(m.core.rounds for m in self.members)),
        }

    def trust(self, identity: Identity) -> None:
        """The certificates have changed: a new one of this node, or one that was revoked."""
        self.node.trust(identity)

    async def drain(self) -> None:
        """Leave: hand over, then go."""
        self._leaving = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HAND_OVER_S):
                going = [member for member in self.members if member.serving]
                done = await asyncio.gather(*(self.repair.hand_over(m) for m in going))
                self._runtime.events.emit("dht.handed_over", ranges=sum(done), of=len(done))
        for member in self.members:
            member.core.leave(member.now)
            member.run()
        await asyncio.sleep(BOOT_PAUSE_S)  # for the farewells to leave

    async def stop(self) -> None:
        """Release socket and files."""
        for member in self.members:
            member.close()
        await self.node.close()
        await self._runtime.cancel_tasks()
        self.keeper.writer.close()


def _names(contacts: Any) -> list[str]:
    """Names of processes, each once, in order."""
    found = dict.fromkeys(c.name for c in contacts if c is not None and c.real)
    return list(found)
