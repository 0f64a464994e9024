"""The group of the present epoch: formed when the record says so, over when it says otherwise.

    epochs = EpochGroup(switchboard, "workers", on_lost, on_over)
    epochs.begin(record, rank)              the one before is over: whoever is in a call is told
    group = await epochs.ready()            once all members have found one another
    epochs.end(error)

Netstack comes first, which also notices deaths (`on_lost`); then shared memory, where all members
are of one host, or between those that are. A group that was not formed, or that fails though nobody
has died, is over (`on_over`): whoever keeps the record has to begin another epoch.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from ddp.card import Card, have_mates, one_host
from ddp.errors import DdpError, Fenced
from ddp.fabric import Fabric
from ddp.group import TIMEOUT_S, Group
from ddp.membership import Member, Record
from ddp.network import NetworkFabric
from ddp.segment import usable
from ddp.shared import SharedFabric, share
from ddp.switchboard import Switchboard

NONE_YET: Final = "no epoch has begun yet"

# From a group that was not formed to the word that it is over: what fails at once fails again.
PAUSE_S: Final = 0.05


class EpochGroup:
    """See above.

    Args:
        name: of the group; epochs of one name follow one another.
        on_lost: a member of the record's epoch is gone, and why.
        on_over: the group of the record's epoch is over, or was never formed, and why.
        timeout_s: of the group's calls.
    """

    def __init__(
        self,
        switchboard: Switchboard,
        name: str,
        on_lost: Callable[[Record, Member, str], None],
        on_over: Callable[[Record, Exception], None],
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.group: Group | None = None
        self.epoch = 0
        self.why_not = NONE_YET  # there is no group
        self._switchboard, self._name = switchboard, name
        self._on_lost, self._on_over, self._timeout_s = on_lost, on_over, timeout_s
        self._runtime = switchboard.node.runtime
        self._network: NetworkFabric | None = None
        self._forming: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    def __repr__(self) -> str:
        return f"<EpochGroup {self._name} epoch={self.epoch} {self.group or self.why_not!r}>"

    def begin(self, record: Record, rank: int | None) -> None:
        """The epoch of `record` begins, and we are this rank of it; None: we are not in it."""
        self.end(Fenced(f"epoch {record.epoch} has begun"))
        self.epoch = record.epoch
        if rank is None:
            self.why_not = f"not a member of epoch {record.epoch}"
            return
        self.why_not = f"epoch {record.epoch} is being formed"
        self._forming = self._runtime.spawn(self._form(record, rank), f"form {self._name}")

    def end(self, error: DdpError) -> None:
        """Who is in a call gets this error; the other members are told."""
        self._ready.clear()
        self.why_not = str(error)
        if self._forming is not None:
            self._forming.cancel()
            self._forming = None
        group, self.group = self.group, None
        network, self._network = self._network, None
        if group is not None and isinstance(group.fabric, SharedFabric):
            self._close(group.fabric, error)
        if network is not None:
            network.close(error)

    async def ready(self) -> Group:
        """The group, once it is formed."""
        await self._ready.wait()
        assert self.group is not None
        return self.group

    # -- inside

    async def _form(self, record: Record, rank: int) -> None:
        cards = [member.card for member in record.members]
        try:
            network = self._network = await NetworkFabric.open(
                self._switchboard,
                cards,
                rank,
                record.epoch,
                group=self._name,
                on_lost=lambda other, why: self._lost(record, other, why),
            )
            group = Group(network, timeout_s=self._timeout_s)
            shared = await self._share(group, cards)
        except (DdpError, OSError) as error:  # OSError: no memory, no descriptors
            self.why_not = str(error)
            self._runtime.events.emit("ddp.not_formed", epoch=record.epoch, cause=str(error))
            await asyncio.sleep(PAUSE_S)
            self._on_over(record, error)
            return
        self.group = group if shared is None else Group(shared, timeout_s=self._timeout_s)
        self.why_not = ""
        self._ready.set()
        fabric = self.group.fabric.name
        self._runtime.events.emit(
            "ddp.group", epoch=record.epoch, rank=rank, size=len(cards), fabric=fabric
        )

    async def _share(self, group: Group, cards: list[Card]) -> Fabric | None:
        """The same ranks over shared memory, in a thread; closed if nobody waits for it."""
        sharing = asyncio.get_running_loop().run_in_executor(None, _share, group, cards)
        try:
            return await asyncio.shield(sharing)
        except asyncio.CancelledError:
            sharing.add_done_callback(_close_unwanted)
            raise

    def _lost(self, record: Record, rank: int, why: str) -> None:
        member = record.members[rank]
        self._runtime.events.emit("ddp.lost", rank=rank, peer=member.name, cause=why)
        if self.group is not None and isinstance(self.group.fabric, SharedFabric):
            self.group.fabric.report(rank, why)
        self._on_lost(record, member, why)

    def _close(self, fabric: Fabric, error: DdpError) -> None:
        """It waits for whoever is in one of its calls; that must not hold up the loop."""

        async def close() -> None:
            await asyncio.to_thread(fabric.close, error)

        self._runtime.spawn(close(), "end of a group")


def _share(group: Group, cards: list[Card]) -> Fabric | None:
    """The same ranks over shared memory, if all are of one host; None if not. It blocks."""
    if group.size == 1 or not usable():
        return None
    fabric = None
    if one_host(cards):
        fabric = share(group.rank, range(group.size), group.epoch, group.exchange)
    elif have_mates(cards) and isinstance(group.fabric, NetworkFabric):
        group.fabric.mix(group.exchange)
    else:
        return None
    try:
        group.barrier()  # nobody's segment goes before all have mapped it
    except BaseException:
        if fabric is not None:
            fabric.close()
        raise
    return fabric


def _close_unwanted(sharing: asyncio.Future[Fabric | None]) -> None:
    with contextlib.suppress(DdpError, asyncio.CancelledError):
        fabric = sharing.result()
        if fabric is not None:
            asyncio.get_running_loop().run_in_executor(None, fabric.close)
