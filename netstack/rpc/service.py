"""What a process offers: methods by name, who may call them, and how many calls may be open.

A method is one of three things:

    inline    def f(body, call) -> None         answers by `call.reply(...)`, now or later; no task
    unary     async def f(body, call) -> body   one task a call; its return value is the answer
    stream    async def f(body, call)           an async generator; each value is an ITEM

Inline methods are for hot paths: a thousand of them can arrive in one packet train and be answered
in another without a task or a future each.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netstack.rpc import dedup, frames
from netstack.rpc.errors import (
    BadRequest,
    DeadlineExceeded,
    Forbidden,
    Interrupted,
    Overloaded,
    RpcError,
    Unavailable,
    UnknownMethod,
    to_wire,
)
from netstack.rpc.schema import decode, encode

if TYPE_CHECKING:
    from netstack.rpc.connection import RpcConnection

# Calls that one process works on at a time; the next are refused while they can still be retried.
CALLS_MAX = 4096

# Items of a server stream that may be under way before the caller has to ask for more.
STREAM_WINDOW_ITEMS = 256

Inline = Callable[[Any, "Call"], None]
Unary = Callable[[Any, "Call"], Awaitable[Any]]
Streaming = Callable[[Any, "Call"], AsyncIterator[Any]]


@dataclass(frozen=True, slots=True)
class Method:
    """One entry of the registry."""

    name: str
    kind: str  # "inline" | "unary" | "stream" | "notify"
    handler: Callable[..., Any]
    request: type | None  # message type of the body; None: handed over as it came
    allow: frozenset[str] | None  # services whose certificates may call; None: all of the cluster


class Call:
    """One request being answered. Exactly one of reply, fail or a finished stream ends it."""

    __slots__ = ("_connection", "_credit", "_id", "_key", "_room", "_service", "deadline", "task")

    def __init__(
        self,
        service: RpcService,
        connection: RpcConnection,
        id_: int,
        deadline: float,
        key: tuple[bytes, int] | None,
    ) -> None:
        self._service = service
        self._connection = connection
        self._id = id_
        self._key = key
        self.deadline = deadline
        self.task: asyncio.Task[None] | None = None
        self._credit = STREAM_WINDOW_ITEMS
        self._room: asyncio.Event | None = None

    def __repr__(self) -> str:
        return f"<Call {self._id} from {self.caller}>"

    @property
    def caller(self) -> str:
        """Name in the caller's certificate."""
        return self._connection.peer_name

    def reply(self, body: Any) -> None:
        """Answer; ignored after the first (the caller may have been told of a time-out)."""
        self._finish(frames.REPLY, body)

    def fail(self, error: RpcError) -> None:
        """Answer with an error."""
        self._finish(frames.ERROR, to_wire(error))

    def _finish(self, kind: int, body: Any) -> None:
        connection = self._connection
        if connection.calls_served.pop(self._id, None) is None:
            return
        self._service.open_calls -= 1
        if self._key is not None:
            for waiter in self._service.once.finish(*self._key, dedup.Outcome(kind, body)):
                waiter._finish(kind, body)
        connection.send((kind, self._id, body))

    def connection_lost(self) -> None:
        """Nobody can be answered here. A keyed call goes on: its caller may ask again elsewhere."""
        if self._key is None:
            self.abandon()

    def abandon(self) -> None:
        """The caller cancelled: stop working, send nothing."""
        if self._connection.calls_served.pop(self._id, None) is None:
            return
        self._service.open_calls -= 1
        if self._key is not None:
            # Whoever retries must learn that this copy was stopped half-way.
            outcome = dedup.Outcome(frames.ERROR, to_wire(Interrupted("the call was cancelled")))
            for waiter in self._service.once.finish(*self._key, outcome):
                waiter._finish(outcome.kind, outcome.body)
        if self.task is not None:
            self.task.cancel()

    async def send_item(self, body: Any) -> None:
        """One element of a server stream; waits while the caller has no room."""
        while self._credit <= 0:
            self._room = self._room or asyncio.Event()
            self._room.clear()
            await self._room.wait()
        self._credit -= 1
        self._connection.send((frames.ITEM, self._id, body))
        if self._connection.congested:
            await self._connection.drain()

    def add_credit(self, count: int) -> None:
        """The caller made room for more items."""
        self._credit += count
        if self._room is not None:
            self._room.set()

    def end_stream(self) -> None:
        """The server stream is complete."""
        if self._connection.calls_served.pop(self._id, None) is not None:
            self._service.open_calls -= 1
            self._connection.send((frames.END, self._id))


class RpcService:
    """The registry and its limits; one a process, shared by all its connections."""

    def __init__(self, incarnation: bytes, *, calls_max: int = CALLS_MAX) -> None:
        self.incarnation = incarnation
        self.once = dedup.OnceTable()
        self.open_calls = 0
        self.draining = False
        self._calls_max = calls_max
        self._methods: dict[str, Method] = {}

    def __repr__(self) -> str:
        state = "draining" if self.draining else "serving"
        return f"<RpcService {state} methods={len(self._methods)} open={self.open_calls}>"

    def add(
        self,
        name: str,
        handler: Callable[..., Any],
        *,
        request: type | None = None,
        allow: set[str] | None = None,
        notify: bool = False,
    ) -> None:
        """Offer `handler` as `name`; its kind follows from how it is written."""
        if name in self._methods:
            raise ValueError(f"method {name} is registered twice")
        if notify:
            kind = "notify"
        elif inspect.isasyncgenfunction(handler):
            kind = "stream"
        elif inspect.iscoroutinefunction(handler):
            kind = "unary"
        else:
            kind = "inline"
        permitted = frozenset(allow) if allow is not None else None
        self._methods[name] = Method(name, kind, handler, request, permitted)

    # -- called by a connection

    def notified(self, connection: RpcConnection, name: str, body: Any) -> None:
        """A one-way message: run its handler, tell nobody if there is none."""
        method = self._methods.get(name)
        if method is None or method.kind != "notify" or not self._allowed(method, connection):
            connection.counters["notify_dropped"] += 1
            return
        method.handler(body, connection)

    def request(self, connection: RpcConnection, fields: list[Any], now: float) -> None:
        """A REQUEST: check it, then run it."""
        _, id_, name, body, timeout_ms, key = fields
        if type(id_) is not int or type(timeout_ms) is not int or type(name) is not str:
            raise frames.ProtocolError(f"malformed request: {fields!r:.100}")
        if id_ in connection.calls_served:
            raise frames.ProtocolError(f"request id {id_} is in use")
        method = self._methods.get(name)
        refusal = self._refusal(method, name, connection)
        if refusal is not None:
            connection.send((frames.ERROR, id_, to_wire(refusal)))
            return
        assert method is not None
        if method.request is not None:
            try:
                body = decode(method.request, body)
            except BadRequest as error:
                connection.send((frames.ERROR, id_, to_wire(error)))
                return
        call = Call(self, connection, id_, now + timeout_ms / 1000, None)
        connection.calls_served[id_] = call
        self.open_calls += 1
        if key is not None and not self._first_time(call, key):
            return
        if method.kind == "inline":
            try:
                method.handler(body, call)
            except RpcError as error:
                call.fail(error)
            except Exception as error:
                call.fail(Interrupted(f"{name}: {type(error).__name__}: {error}"))
                connection.report(error)
        else:
            run = self._run_stream if method.kind == "stream" else self._run_unary
            call.task = connection.spawn(run(method, body, call, connection), f"rpc {name}")

    def _refusal(
        self, method: Method | None, name: str, connection: RpcConnection
    ) -> RpcError | None:
        if method is None or method.kind == "notify":
            return UnknownMethod(f"no method {name} here")
        if not self._allowed(method, connection):
            return Forbidden(f"{name} is not for {connection.peer_name}")
        if self.open_calls >= self._calls_max:
            return Overloaded(f"{self.open_calls} calls are open")
        if self.draining and not name.startswith("admin."):
            return Unavailable("this process is shutting down")
        return None

    @staticmethod
    def _allowed(method: Method, connection: RpcConnection) -> bool:
        return method.allow is None or connection.peer_service in method.allow

    def _first_time(self, call: Call, key: Any) -> bool:
        """Whether to run a keyed call; if not, it has been answered or will be."""
        try:
            client, sequence, done, incarnation = key
            retry = incarnation is not None
            if retry and incarnation != self.incarnation:
                call.fail(Interrupted("the service was restarted; the first try may have run"))
                return False
            verdict = self.once.begin(client, sequence, done, retry=retry)
        except (TypeError, ValueError):
            call.fail(BadRequest(f"malformed request key {key!r:.100}"))
            return False
        if verdict is dedup.NEW:
            call._key = (client, sequence)
            return True
        if verdict is dedup.RUNNING:
            self.once.wait(client, sequence, call)
        elif verdict is dedup.FULL:
            call.fail(Overloaded("too many keyed calls are open from this caller"))
        elif isinstance(verdict, dedup.Outcome):
            call._finish(verdict.kind, verdict.body)
        else:
            call.fail(Interrupted("the outcome of this call is no longer remembered"))
        return False

    async def _run_unary(
        self, method: Method, body: Any, call: Call, connection: RpcConnection
    ) -> None:
        try:
            async with asyncio.timeout(max(0.0, call.deadline - connection.now())):
                result = await method.handler(body, call)
        except TimeoutError:
            call.fail(DeadlineExceeded(f"{method.name} took longer than the caller gave it"))
        except RpcError as error:
            call.fail(error)
        except Exception as error:
            call.fail(Interrupted(f"{method.name}: {type(error).__name__}: {error}"))
            connection.report(error)
        else:
            call.reply(encode(result))

    async def _run_stream(
        self, method: Method, body: Any, call: Call, connection: RpcConnection
    ) -> None:
        try:
            async for item in method.handler(body, call):
                await call.send_item(encode(item))
        except RpcError as error:
            call.fail(error)
        except Exception as error:
            call.fail(Interrupted(f"{method.name}: {type(error).__name__}: {error}"))
            connection.report(error)
        else:
            call.end_stream()
