"""A process as a rank: it makes its card, and with the cards of all it joins the group.

    with Rank("r0", home=folder) as rank:
        cards = …exchange rank.card with the others…
        group = rank.join(cards, number)

How the group is carried is found out from the cards: ranks of one host share memory, others use
netstack, and where there are both, both; `transport` "network" or "shared" insists. The network
runs in a thread with a loop of its own, since training is synchronous code.

As a program (`python -m ddp.rank OUT`) this is the child of launch.py: a job on stdin, a line of
JSON for the card, one for each event, one for the result on descriptor OUT.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine, Generator
from pathlib import Path
from typing import Any, Final, TypeVar

from ddp.card import Card, have_mates, share_memory
from ddp.engine import Engine
from ddp.errors import BadCall
from ddp.group import TIMEOUT_S, Group
from ddp.segment import Segment, usable
from ddp.shared import WINDOW_BYTES, SharedFabric

T = TypeVar("T")

TRANSPORTS: Final = ("auto", "network", "shared")


class LoopThread:
    """An event loop in a thread; `run` waits for a coroutine on it."""

    def __init__(self) -> None:
        import uvloop

        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True, name="ddp loop")
        self._thread.start()

    def __repr__(self) -> str:
        return f"<LoopThread alive={self._thread.is_alive()}>"

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Its result, or its error raised."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def close(self) -> None:
        """Stop and free the loop."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Rank:
    """See above.

    Args:
        name: in the certificate under `home`, which the network needs.
        size: ranks of the group, for which the segment is made.
        host: a part of this host that is to count as one of its own.
    """

    def __init__(
        self,
        name: str,
        size: int,
        *,
        home: Path | None = None,
        transport: str = "auto",
        host: str = "",
    ) -> None:
        if transport not in TRANSPORTS:
            raise BadCall(f"no transport {transport!r}; there are {', '.join(TRANSPORTS)}")
        self.name, self.size, self._transport = name, size, transport
        self._thread: LoopThread | None = None
        self._close_network: Callable[[], Coroutine[Any, Any, None]] | None = None
        self._switchboard: Any = None
        segment = transport != "network" and usable()
        self._segment = Segment.make(size, WINDOW_BYTES) if segment else None
        address = None
        if transport != "shared" and home is not None:
            self._thread = LoopThread()
            try:
                address = self._thread.run(self._listen(home))
            except BaseException:
                self.close()
                raise
        self.card = Card.mine(name, address, self._segment, host)

    def __repr__(self) -> str:
        return f"<Rank {self.name} {self._transport}>"

    def __enter__(self) -> Rank:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def join(
        self, cards: list[Card], rank: int, *, epoch: int = 1, timeout_s: float = TIMEOUT_S
    ) -> Group:
        """The group of `cards`, in their order. Raises RankLost for those not found in time."""
        group = self._join(cards, rank, epoch, timeout_s)
        # Nobody may be done and gone before the last has found everybody.
        group.barrier()
        return group

    def _join(self, cards: list[Card], rank: int, epoch: int, timeout_s: float) -> Group:
        if self._segment is not None and share_memory(cards):
            where = [card.where for card in cards]
            fabric = SharedFabric(Engine(rank, len(cards), epoch), self._segment, where)
            self._segment = None  # it is the fabric's now
            return Group(fabric, timeout_s=timeout_s)
        if self._thread is None:
            raise BadCall(f"{self.name} has no network, and the ranks share no memory")
        from ddp.network import NetworkFabric

        opening = NetworkFabric.open(self._switchboard, cards, rank, epoch)
        network = self._thread.run(opening)
        group = Group(network, timeout_s=timeout_s)
        if self._transport == "auto" and have_mates(cards) and usable():
            network.mix(group.exchange)
        return group

    def close(self) -> None:
        """Release socket, thread and segment. The groups' `close` comes first."""
        if self._segment is not None:
            self._segment.close()
            self._segment = None
        if self._thread is not None:
            if self._close_network is not None:
                self._thread.run(self._close_network())
            self._thread.close()
            self._thread = None

    async def _listen(self, home: Path) -> tuple[str, int]:
        from ddp.switchboard import SERVICE, Switchboard, transport_config
        from netstack.rpc.node import RpcNode
        from netstack.runtime.runtime import RealRuntime
        from security import keystore

        runtime = RealRuntime(self.name, home / "nodes" / self.name)
        identity = keystore.load_identity(home, self.name)
        node = RpcNode(runtime, identity, service=SERVICE, config=transport_config())
        await node.start(("127.0.0.1", 0))
        self._switchboard = Switchboard(node)

        async def close() -> None:
            await self._switchboard.settle()
            await node.close()
            await runtime.cancel_tasks()
            runtime.close()

        self._close_network = close
        return node.host.address


def main(out: int) -> None:
    """The child of launch.py."""
    job = json.loads(sys.stdin.readline())
    sys.setswitchinterval(0.0005)  # the loop's thread must not wait 5 ms for its turn
    module, _, function = job["target"].partition(":")
    try:
        target = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        _tell(out, {"error": f"no {job['target']}: {error}", "kind": type(error).__name__})
        return
    home = Path(job["home"]) if job["home"] else None
    try:
        made = Rank(
            job["name"], job["size"], home=home, transport=job["transport"], host=job["host"]
        )
    except BadCall as error:
        _tell(out, {"error": str(error), "kind": type(error).__name__})
        return
    with made as rank:
        _tell(out, {"card": rank.card.to_wire()})
        cards = [Card.from_wire(card) for card in json.loads(sys.stdin.readline())]
        try:
            with rank.join(cards, job["rank"], timeout_s=job["timeout_s"]) as group:
                result = {"result": _all_of(target(group, **job["arguments"]), out)}
        except Exception as error:
            if not job["quiet"]:
                traceback.print_exc()
            result = {"error": str(error), "kind": type(error).__name__}
    _tell(out, result)


def _all_of(result: Any, out: int) -> Any:
    """The result; of a generator, what it returns, and each thing that it yields is told."""
    if not isinstance(result, Generator):
        return result
    while True:
        try:
            _tell(out, {"event": next(result)})
        except StopIteration as end:
            return end.value


def _tell(out: int, what: dict[str, Any]) -> None:
    data = json.dumps(what).encode() + b"\n"
    while data:
        data = data[os.write(out, data) :]


if __name__ == "__main__":
    main(int(sys.argv[1]))
