"""What a process offers: methods by name, who may call them, and how many calls may be open.

A method is one of three things:

    inline    def f(body, call) -> None         answers by `call.reply(...)`, now or later; no task
    unary     async def f(body, call) -> body   one task a call; its return value is the answer
    stream    async def f(body, call)           an async generator; each value is an ITEM

Inline methods are for hot paths: a thousand of them can arrive in one packet train and be answered
in another without a task or a future each.

Whatever a handler does, its caller is told, once, and nobody else is harmed: an RpcError arrives as
what it is; anything else that is raised, and an answer that cannot be encoded, is a bug. It becomes
an event of the log, and Interrupted for the caller.
"""

from __future__ import annotations

import asyncio
import contextlib
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
    brief,
    to_wire,
)
from netstack.rpc.schema import decode, encode

if TYPE_CHECKING:
    from netstack.rpc.connection import RpcConnection

# Calls that one process works on at a time; the next are refused while they can still be retried.
CALLS_MAX = 4096

# Items of a server stream that may be under way before the caller has to ask for more.
STREAM_WINDOW_ITEMS = 256

# What comes out of a handler with a bug; CancelledError, if it looked at a future that was.
BUGS = (Exception, asyncio.CancelledError)

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
        self, service: RpcService, connection: RpcConnection, id_: int, deadline: float
    ) -> None:
        self._service = service
        self._connection = connection
        self._id = id_
        self._key: tuple[bytes, int] | None = None
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

    @property
    def open(self) -> bool:
        """Whether an answer is still wanted."""
        return self._id in self._connection.calls_served

    def reply(self, body: Any) -> None:
        """Answer; ignored after the first (the caller may have been told of a time-out)."""
        self._finish(frames.REPLY, body)

    def fail(self, error: BaseException) -> None:
        """Answer with an error; one that is no RpcError is a bug, and reported."""
        self._finish(frames.ERROR, self._as_wire(error))

    def _as_wire(self, error: BaseException) -> list[Any]:
        if not isinstance(error, RpcError):
            self._connection.report(error)
            error = Interrupted(f"the service met an error of its own: {brief(error)}")
        return to_wire(error)

    def _finish(self, kind: int, body: Any) -> None:
        connection = self._connection
        if connection.calls_served.pop(self._id, None) is None:
            return
        self._service.open_calls -= 1
        try:
            connection.send((kind, self._id, body))
        except Exception as error:
            kind, body = frames.ERROR, self._as_wire(error)
            connection.send((kind, self._id, body))
        if self._key is not None:
            for waiter in self._service.once.finish(*self._key, dedup.Outcome(kind, body)):
                waiter._finish(kind, body)

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
        """One element of a server stream; waits while the caller has no room.

        Raises what `frames.encode` does.
        """
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
        try:
            method.handler(body, connection)
        except BUGS as error:
            connection.report(error)

    def request(self, connection: RpcConnection, fields: list[Any], now: float) -> None:
        """A REQUEST: check it, then run it."""
        _, id_, name, body, timeout_ms, key = fields
        if type(timeout_ms) is not int or type(name) is not str:
            raise frames.ProtocolError(f"malformed request: {brief(fields)}")
        if id_ in connection.calls_served:
            raise frames.ProtocolError(f"request id {id_} is in use")
        call = Call(self, connection, id_, now + timeout_ms / 1000)
        connection.calls_served[id_] = call
        self.open_calls += 1
        try:
            method = self._admit(name, connection)
            if method.request is not None:
                body = decode(method.request, body)
            if key is not None and not self._first_time(method, call, key):
                return
            if method.kind == "inline":
                method.handler(body, call)
                return
        except BUGS as error:
            call.fail(error)
            return
        call.task = connection.spawn(self._run(method, body, call, connection), f"rpc {name}")

    def _admit(self, name: str, connection: RpcConnection) -> Method:
        """The method, if it may be called now; `open_calls` counts this call already."""
        method = self._methods.get(name)
        if method is None or method.kind == "notify":
            raise UnknownMethod(f"no method {name:.100} here")
        if not self._allowed(method, connection):
            raise Forbidden(f"{name} is not for {connection.peer_name}")
        if self.open_calls > self._calls_max:
            raise Overloaded(f"{self._calls_max} calls are open")
        if self.draining and not name.startswith("admin."):
            raise Unavailable("this process is shutting down")
        return method

    @staticmethod
    def _allowed(method: Method, connection: RpcConnection) -> bool:
        return method.allow is None or connection.peer_service in method.allow

    def _first_time(self, method: Method, call: Call, key: Any) -> bool:
        """Whether to run a keyed call; if not, it has been answered or will be."""
        if method.kind == "stream":
            raise BadRequest(f"{method.name} is a stream: there is no outcome to remember")
        try:
            client, sequence, done, incarnation = key
            retry = incarnation is not None
            if retry and incarnation != self.incarnation:
                raise Interrupted("the service was restarted; the first try may have run")
            verdict = self.once.begin(client, sequence, done, retry=retry)
        except (TypeError, ValueError):
            raise BadRequest(f"malformed request key {brief(key)}") from None
        if verdict is dedup.NEW:
            call._key = (client, sequence)
            return True
        if verdict is dedup.RUNNING:
            self.once.wait(client, sequence, call)
        elif verdict is dedup.FULL:
            raise Overloaded("too many keyed calls are open from this caller")
        elif isinstance(verdict, dedup.Outcome):
            call._finish(verdict.kind, verdict.body)
        else:
            raise Interrupted("the outcome of this call is no longer remembered")
        return False

    async def _run(self, method: Method, body: Any, call: Call, connection: RpcConnection) -> None:
        """A call in a task of its own."""
        try:
            if method.kind == "stream":
                async with contextlib.aclosing(method.handler(body, call)) as items:
                    async for item in items:
                        await call.send_item(encode(item))
                call.end_stream()
                return
            limit = asyncio.timeout(max(0.0, call.deadline - connection.now()))
            try:
                async with limit:
                    result = await method.handler(body, call)
            except TimeoutError:
                if not limit.expired():
                    raise
                raise DeadlineExceeded(f"{method.name} took longer than it was given") from None
            call.reply(encode(result))
        except asyncio.CancelledError as error:
            if call.task is None or call.task.cancelling():
                raise  # by the caller, or because this process ends
            call.fail(error)
        except Exception as error:
            call.fail(error)
