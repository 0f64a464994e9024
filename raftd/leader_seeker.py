"""How a client's requests find the leader, and what is done when they do not.

A request goes to whoever is thought to lead. While none is answered the others are asked whether
somebody else leads by now; what waits for an old leader is sent to the new one, which the request
ids allow. So a client notices a new leader within a tenth of a second, however the old one fails.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Any, Final

from netstack.rpc.client import RpcClient
from netstack.rpc.errors import (
    BadRequest,
    Definite,
    Failed,
    Forbidden,
    Indefinite,
    Overloaded,
    RpcError,
    Unavailable,
)
from netstack.rpc.node import RpcNode
from netstack.runtime.endpoint import Address
from raftd import commands as c
from raftd.results import NotReached, OutcomeUnknown, Refused
from raftd.sessions import ANSWERS_MAX

SERVICE: Final = "raft"

# One attempt's limit. It bounds how long a request can hang on a node that was paused.
ATTEMPT_S = 2.0
# Without any answer for this long, the other nodes are asked whether there is a new leader.
SUSPECT_S = 0.06
HELLO_S = 0.3
# Between attempts while there is no leader: an election takes 150 to 300 ms.
PAUSE_S = 0.01
# Writes from the oldest that is open to the newest. The store keeps the answers to all of these,
# twice as many at the most (sessions.py); the next wait for their turn here.
OPEN_MAX: Final = ANSWERS_MAX // 2


class LeaderSeeker:
    """Requests of one session, to whoever leads.

    Args:
        node: a started RpcNode to call from.
        members: name -> address of the nodes known at first; others are learnt.
    """

    def __init__(self, node: RpcNode, members: dict[str, Address]) -> None:
        self._node = node
        self._runtime = node.runtime
        self._now = node.runtime.clock.now
        self._clients = {name: node.client(at, SERVICE, name) for name, at in members.items()}
        self._leader: str | None = None
        self._term = 0
        self._base = 0
        self._session = node.runtime.entropy(c.SESSION_BYTES)
        self._sequence = 0
        self._open: dict[int, None] = {}
        self._queue: deque[asyncio.Future[int]] = deque()  # writes that wait for their turn
        self._finding: asyncio.Task[None] | None = None
        self._waiting = 0
        self._answered_at = 0.0
        self._watchdog: asyncio.TimerHandle | None = None
        self._turn = 0

    def close(self) -> None:
        """Stop looking for leaders; the node is the caller's to close."""
        if self._watchdog is not None:
            self._watchdog.cancel()
        if self._finding is not None:
            self._finding.cancel()

    async def leader(self, *, timeout_s: float = 5.0) -> str:
        """Who leads; raises NotReached."""
        deadline = self._now() + timeout_s
        while True:
            await self._find_leader()
            if self._leader is not None:
                return self._leader
            if self._now() > deadline:
                raise NotReached("no leader was found in time")
            await asyncio.sleep(PAUSE_S)

    async def _execute(self, op: list[Any], timeout_s: float) -> list[Any]:
        """A write, exactly once."""
        deadline = self._now() + timeout_s
        sequence = await self._turn_to_write(timeout_s)
        sent_before = False

        def command() -> bytes:
            done = next(iter(self._open))
            return c.pack_command(
                self._session, sequence, done, retry=sent_before, base=self._base, op=op
            )

        try:
            while True:
                client = await self._leader_client(deadline, sent_before)
                try:
                    limit_s = min(ATTEMPT_S, deadline - self._now())
                    answer: list[Any] = await self._call(client, "kv.propose", command(), limit_s)
                except Indefinite:
                    sent_before = True
                    await self._move_on(None)
                except (Unavailable, Overloaded) as error:
                    await self._move_on(error)
                except Failed as error:
                    if sent_before and error.reason != "not-leader":
                        await self._move_on(error)  # an earlier attempt may still come about
                    else:
                        await self._not_leader(error)
                except Definite as error:
                    raise Refused(error.code, error.message) from None
                else:
                    if answer[0] == 0:
                        return answer
                    if answer[1] == "session-expired":
                        raise OutcomeUnknown(answer[2])
                    raise Refused(answer[1], answer[2])
        finally:
            self._written(sequence)

    async def _turn_to_write(self, timeout_s: float) -> int:
        """The number of a write that may begin; `_written` ends it."""
        if not self._queue and self._has_room():
            return self._begin()
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            async with asyncio.timeout(timeout_s):
                return await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._written(turn.result())
            if isinstance(error, TimeoutError):
                message = f"{OPEN_MAX} writes of this client are open already"
                raise NotReached(message) from None
            raise

    def _has_room(self) -> bool:
        return self._sequence - next(iter(self._open), self._sequence) < OPEN_MAX - 1

    def _begin(self) -> int:
        self._sequence += 1
        self._open[self._sequence] = None
        return self._sequence

    def _written(self, sequence: int) -> None:
        del self._open[sequence]
        while self._queue and self._has_room():
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(self._begin())

    async def _ask_leader(
        self, method: str, body: Any, timeout_s: float, attempt_s: float = ATTEMPT_S
    ) -> Any:
        """A request that may be repeated."""
        deadline = self._now() + timeout_s
        while True:
            client = await self._leader_client(deadline, False)
            try:
                limit_s = min(attempt_s, deadline - self._now())
                return await self._call(client, method, body, limit_s)
            except (Indefinite, Unavailable, Overloaded) as error:
                await self._move_on(error)
            except Failed as error:
                await self._not_leader(error)
            except Definite as error:
                raise Refused(error.code, error.message) from None

    async def _ask_one(self, name: str, method: str, body: Any, timeout_s: float) -> Any:
        """A read of one node; raises NotReached for whatever keeps it from answering."""
        if name not in self._clients:
            raise NotReached(f"there is no node {name!r}")
        try:
            return await self._clients[name].call(method, body, timeout_s=timeout_s)
        except Failed as error:
            if error.reason == "not-leader":
                raise NotReached(str(error)) from None
            raise Refused(error.reason, error.message, error.details) from None
        except (BadRequest, Forbidden) as error:
            raise Refused(error.code, error.message) from None
        except RpcError as error:
            raise NotReached(str(error)) from None

    async def _call(self, client: RpcClient, method: str, body: Any, timeout_s: float) -> Any:
        self._waiting += 1
        if self._watchdog is None:
            self._answered_at = self._now()
            self._watch_leader()
        try:
            answer = await client.call(method, body, timeout_s=timeout_s)
            self._answered_at = self._now()
            return answer
        finally:
            self._waiting -= 1

    def _watch_leader(self) -> None:
        """While requests wait and nothing is answered, ask whether somebody else leads by now."""
        self._watchdog = None
        if not self._waiting:
            return
        if self._now() - self._answered_at > SUSPECT_S and self._finding is None:
            self._finding = asyncio.ensure_future(self._find_leader())
            self._finding.add_done_callback(self._found)
        loop = asyncio.get_running_loop()
        self._watchdog = loop.call_later(SUSPECT_S / 2, self._watch_leader)

    def _found(self, task: asyncio.Task[None]) -> None:
        self._finding = None

    async def _find_leader(self) -> None:
        """Ask all nodes; follow whoever knows the leader of the highest term."""

        async def hello(client: RpcClient) -> dict[str, Any] | None:
            try:
                answer = await client.call("kv.hello", None, timeout_s=HELLO_S)
            except RpcError:
                return None
            return answer if isinstance(answer, dict) else None

        asked = [asyncio.ensure_future(hello(client)) for client in self._clients.values()]
        try:
            for next_answer in asyncio.as_completed(asked):
                answer = await next_answer
                if answer is not None and self._learn(answer):
                    return
        finally:
            for task in asked:
                task.cancel()

    def _learn(self, answer: dict[str, Any]) -> bool:
        """Take in what a node says; True if it names a leader of a term as new as we know."""
        for name, (host, port) in (answer.get("members") or {}).items():
            if name not in self._clients:
                self._clients[name] = self._node.client((host, port), SERVICE, name)
        leader, term = answer.get("leader"), answer.get("term", 0)
        self._base = self._base or answer.get("applied", 0)
        if leader is None or term < self._term or leader not in self._clients:
            return False
        previous = self._leader
        newer = term > self._term
        self._leader, self._term = leader, term
        if newer and previous not in (None, leader):
            # What still waits for the old leader is sent to the new one: the request ids allow it.
            old = self._clients[str(previous)]
            self._runtime.spawn(old.drop_connection(), "leave the old leader")
        return True

    async def _leader_client(self, deadline: float, sent_before: bool) -> RpcClient:
        while True:
            if self._leader is not None and self._now() < deadline:
                return self._clients[self._leader]
            if self._now() >= deadline:
                if sent_before:
                    raise OutcomeUnknown("no answer in time; the request may have been applied")
                raise NotReached("no leader was reached in time")
            if self._finding is None:
                self._finding = asyncio.ensure_future(self._find_leader())
                self._finding.add_done_callback(self._found)
            await asyncio.wait([self._finding], timeout=max(0.0, deadline - self._now()))
            if self._leader is None:
                await asyncio.sleep(PAUSE_S)

    async def _any_client(self) -> RpcClient:
        """The leader's if it is known, else the nodes in turn: a watch may stand anywhere."""
        if self._leader is None:
            with contextlib.suppress(NotReached):
                await self.leader(timeout_s=1.0)
        if self._leader is not None:
            return self._clients[self._leader]
        self._turn += 1
        names = sorted(self._clients)
        return self._clients[names[self._turn % len(names)]]

    async def _move_on(self, error: RpcError | None) -> None:
        """An attempt failed: look again who leads, after a moment."""
        if not isinstance(error, Overloaded):
            self._leader = None
        await asyncio.sleep(PAUSE_S * (0.5 + self._runtime.rng.random()))

    async def _not_leader(self, error: Failed) -> None:
        if error.reason != "not-leader":
            raise Refused(error.reason, error.message, error.details) from None
        told = error.details if isinstance(error.details, dict) else {}
        self._leader = None
        if not self._learn(told):
            await asyncio.sleep(PAUSE_S)
