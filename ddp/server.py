"""The worker: `python -m ddp --node r1 --config …`. One rank of a group that mends itself.

    ddp.run   unary    {job, id, arguments} -> {rank, epoch, result}    on all at once
    ddp.why   unary    {} -> what this rank is and waits for

Membership is in raftd (roster.py). With each new record the old group is over: whoever is in one
of its calls gets an error that names who is gone; and the new one is formed (epoch_group.py). Until
then a job waits.

Calls block, as training does, so jobs run in a thread; the loop carries frames and membership.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from ddp import jobs
from ddp.card import Card
from ddp.epoch_group import EpochGroup
from ddp.errors import DdpError, RankLost
from ddp.membership import Member, Record
from ddp.roster import GROUP, Roster
from ddp.switchboard import SERVICE, Switchboard, transport_config
from netstack.rpc.admin import offer_admin
from netstack.rpc.errors import Failed
from netstack.rpc.node import RpcNode
from netstack.rpc.schema import message
from netstack.rpc.service import Call
from netstack.runtime.config import ClusterConfig, ConfigError
from netstack.runtime.runtime import Runtime
from security.identity import Identity

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
        self.epochs: EpochGroup
        self._runtime: Runtime
        self._busy = asyncio.Lock()
        self._job = ""
        self._counts = {"jobs": 0, "failed": 0, "epochs": 0}

    def __repr__(self) -> str:
        return f"<WorkerService {self.epochs!r}>"

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
        self.epochs = EpochGroup(self._switchboard, GROUP, self._lost, self._over)
        card = Card.mine(me.name, me.address, None)
        self.roster = Roster(self.node, raft, card, self._new_record)
        self.roster.start()

    # -- epochs

    def _new_record(self, record: Record, life: str) -> None:
        self._counts["epochs"] += 1
        self.epochs.begin(record, record.rank(life))

    def _lost(self, record: Record, member: Member, why: str) -> None:
        self.roster.evict(member)

    def _over(self, record: Record, error: Exception) -> None:
        self.roster.renew(record.epoch)

    # -- calls

    async def _run(self, body: RunRequest, call: Call) -> dict[str, Any]:
        async with self._busy:
            try:
                async with asyncio.timeout(READY_S):
                    group = await self.epochs.ready()
            except TimeoutError:
                raise Failed("not-ready", f"no group: {self.epochs.why_not}") from None
            self._job = body.job
            try:
                result = await asyncio.to_thread(jobs.run, group, body.job, body.id, body.arguments)
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
        group = self.epochs.group
        if group is None:
            return {"epoch": self.epochs.epoch, "why": [f"no group: {self.epochs.why_not}"]}
        found = {"epoch": group.epoch, "rank": group.rank, "size": group.size, "why": group.why()}
        return found | {"recorder": group.fabric.dump()}

    # -- Service

    @property
    def fabric(self) -> str:
        """What carries the group now."""
        return self.epochs.group.fabric.name if self.epochs.group is not None else "-"

    def status(self) -> dict[str, Any]:
        """See Service."""
        group = self.epochs.group
        return {
            "trouble": "" if group is not None and self.roster.reached else self._trouble(),
            "role": f"rank {group.rank}" if group is not None else "outside",
            "rank": group.rank if group is not None else None,
            "size": group.size if group is not None else None,
            "epoch": self.epochs.epoch,
            "fabric": self.fabric,
            "job": self._job or "-",
            "calls": group.counters["calls"] if group is not None else 0,
        }

    def _trouble(self) -> str:
        return self.epochs.why_not if self.roster.reached else "raftd does not answer"

    def metrics(self) -> dict[str, float]:
        """See Service."""
        found = {f"ring_ddp_{name}_total": float(n) for name, n in self._counts.items()}
        found["ring_ddp_epoch"] = float(self.epochs.epoch)
        if self.epochs.group is not None:
            counters = self.epochs.group.counters
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
        self.epochs.end(RankLost(f"{self._runtime.node} was stopped"))
        await self._switchboard.settle()
        await self.roster.leave()
        await self.node.close()
