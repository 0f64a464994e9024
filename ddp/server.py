"""The worker: `python -m ddp --node r1 --config …`. One rank of a group that mends itself.

    ddp.run   unary    {job, id, arguments} -> {rank, epoch, result}    on all at once
    ddp.why   unary    {} -> what this rank is and waits for

Membership is in raftd (roster.py). With each new record the old group is over: whoever is in one
of its calls gets an error that names who is gone; and the new one is formed: over netstack first,
which also notices deaths, and over shared memory where all members are of one host. Until then a
job waits.

Calls block, as training does, so jobs run in a thread; the loop carries frames and membership.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from ddp import jobs
from ddp.card import Card
from ddp.errors import DdpError, Fenced, RankLost
from ddp.fabric import Fabric
from ddp.group import Group
from ddp.membership import Record
from ddp.network import SERVICE, NetworkFabric, Switchboard, transport_config
from ddp.roster import Roster
from ddp.segment import host_id, usable
from ddp.shared import SharedFabric, share
from netstack.rpc.admin import offer_admin
from netstack.rpc.errors import Failed
from netstack.rpc.node import RpcNode
from netstack.rpc.schema import message
from netstack.rpc.service import Call
from netstack.runtime.config import ClusterConfig, ConfigError
from netstack.runtime.runtime import Runtime
from security.identity import Identity

GROUP: Final = "workers"

# How long a job waits for a group that is being formed.
READY_S: Final = 15.0


@message
class RunRequest:
    """A job for all workers."""

    job: str
    id: str
    arguments: dict[str, Any]


class WorkerService:
    """See above."""

    def __init__(self) -> None:
        self.node: RpcNode
        self.roster: Roster
        self._runtime: Runtime
        self._group: Group | None = None
        self._network: NetworkFabric | None = None
        self._epoch = 0
        self._forming: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._busy = asyncio.Lock()
        self._job = ""
        self._why_not = "no epoch has begun yet"
        self._counts = {"jobs": 0, "failed": 0, "epochs": 0}

    def __repr__(self) -> str:
        return f"<WorkerService epoch={self._epoch} {self._group!r}>"

    async def start(self, runtime: Runtime, identity: Identity, config: ClusterConfig) -> None:
        """Bind, come alive in raftd, and wait for an epoch."""
        self._runtime = runtime
        me = config.node(runtime.node)
        raft = {n.name: n.address for n in config.of_service("raft")}
        if not raft:
            raise ConfigError("ddp workers keep their membership in raft nodes, and there are none")
        self.node = RpcNode(
            runtime, identity, service=SERVICE, config=transport_config(config.suite)
        )
        self._switchboard = Switchboard(self.node)
        service = self.node.service
        service.add("ddp.run", self._run, request=RunRequest, allow={"client", "supervisor"})
        service.add("ddp.why", self._why)
        offer_admin(self.node, self)
        await self.node.start(me.address)
        card = Card.mine(me.name, me.address, None)
        self.roster = Roster(self.node, raft, card, self._new_record)
        self.roster.start()

    # -- epochs

    def _new_record(self, record: Record, life: str) -> None:
        """An epoch has begun: the group before it is over."""
        self._end_group(Fenced(f"epoch {record.epoch} has begun"))
        self._epoch = record.epoch
        if self._forming is not None:
            self._forming.cancel()
        rank = record.rank_of(life)
        if rank is None:
            self._why_not = f"not a member of epoch {record.epoch}"
            return
        self._why_not = f"epoch {record.epoch} is being formed"
        self._forming = asyncio.ensure_future(self._form(record, rank))

    async def _form(self, record: Record, rank: int) -> None:
        cards = [member.card for member in record.members]
        try:
            network = await NetworkFabric.open(
                self._switchboard, cards, rank, record.epoch, group=GROUP
            )
        except DdpError as error:
            self._why_not = str(error)
            self._runtime.events.emit("ddp.not_formed", epoch=record.epoch, cause=str(error))
            self.roster.renew(record.epoch)
            return
        self._network = network
        network.on_lost = lambda other, why: self._lost(record, other, why)
        group = Group(network)
        try:
            shared = await _in_thread(lambda: _share(group, cards))
        except DdpError as error:
            self._why_not = str(error)
            self.roster.renew(record.epoch)
            return
        self._group = Group(shared) if shared is not None else group
        self._why_not = ""
        self._counts["epochs"] += 1
        self._ready.set()
        self._runtime.events.emit(
            "ddp.group", epoch=record.epoch, rank=rank, size=len(cards), fabric=self.fabric
        )

    def _lost(self, record: Record, rank: int, why: str) -> None:
        member = record.members[rank]
        self._runtime.events.emit("ddp.lost", rank=rank, peer=member.name, cause=why)
        if self._group is not None and isinstance(self._group.fabric, SharedFabric):
            self._group.fabric.report(rank, why)
        self.roster.evict(member)

    def _end_group(self, error: DdpError) -> None:
        self._ready.clear()
        group, self._group = self._group, None
        network, self._network = self._network, None
        if group is not None and isinstance(group.fabric, SharedFabric):
            fabric = group.fabric
            # It waits for whoever is in one of its calls; that must not hold up the loop.
            self._runtime.spawn(_in_thread(lambda: fabric.close(error)), "end of a group")
        if network is not None:
            network.close(error)

    # -- calls

    async def _run(self, body: RunRequest, call: Call) -> dict[str, Any]:
        async with self._busy:
            try:
                async with asyncio.timeout(READY_S):
                    await self._ready.wait()
            except TimeoutError:
                raise Failed("not-ready", f"no group: {self._why_not}") from None
            group = self._group
            assert group is not None
            self._job = body.job
            try:
                result = await _in_thread(
                    lambda: jobs.run(group, body.job, body.id, body.arguments)
                )
            except DdpError as error:
                self._counts["failed"] += 1
                if group.broken is not None:
                    self.roster.renew(group.epoch)
                raise Failed(type(error).__name__, str(error)) from None
            finally:
                self._job = ""
            self._counts["jobs"] += 1
            return {"rank": group.rank, "epoch": group.epoch, "result": result}

    async def _why(self, body: Any, call: Call) -> dict[str, Any]:
        group = self._group
        if group is None:
            return {"epoch": self._epoch, "why": [f"no group: {self._why_not}"]}
        found = {"epoch": group.epoch, "rank": group.rank, "size": group.size, "why": group.why()}
        return found | {"recorder": group.fabric.dump()}

    # -- Service

    @property
    def fabric(self) -> str:
        """What carries the group now."""
        return self._group.fabric.name if self._group is not None else "-"

    def status(self) -> dict[str, Any]:
        """See Service."""
        group = self._group
        return {
            "trouble": "" if group is not None and self.roster.reached else self._trouble(),
            "role": f"rank {group.rank}" if group is not None else "outside",
            "rank": group.rank if group is not None else None,
            "size": group.size if group is not None else None,
            "epoch": self._epoch,
            "fabric": self.fabric,
            "job": self._job or "-",
            "calls": group.counters["calls"] if group is not None else 0,
        }

    def _trouble(self) -> str:
        return self._why_not if self.roster.reached else "raftd does not answer"

    def metrics(self) -> dict[str, float]:
        """See Service."""
        found = {f"ring_ddp_{name}_total": float(n) for name, n in self._counts.items()}
        found["ring_ddp_epoch"] = float(self._epoch)
        if self._group is not None:
            counters = self._group.counters
            found["ring_ddp_sent_bytes_total"] = float(counters["sent_bytes"])
            found["ring_ddp_stale_frames_total"] = float(counters["stale"])
        return found

    def trust(self, identity: Identity) -> None:
        """See Service."""
        self.node.trust(identity)

    async def drain(self) -> None:
        """Let the job end."""
        async with self._busy:
            pass

    async def stop(self) -> None:
        """Leave the group and the list of the living."""
        if self._forming is not None:
            self._forming.cancel()
        self._end_group(RankLost(f"{self._runtime.node} was stopped"))
        await self._switchboard.settle()
        await self.roster.leave()
        await self.node.close()


async def _in_thread(work: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(work)


def _share(group: Group, cards: list[Card]) -> Fabric | None:
    """The same ranks over shared memory, if all are of this host; None if not. It blocks."""
    here = host_id()
    if group.size == 1 or not usable() or any(card.host != here for card in cards):
        return None
    fabric = share(group.rank, range(group.size), group.epoch, group.exchange)
    group.barrier()  # nobody's segment goes before all have mapped it
    return fabric
