"""Services and callers in a simulated world, where time is exact and datagrams can be counted."""

from __future__ import annotations

import asyncio
import functools
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from netstack.rpc import frames
from netstack.rpc.client import RpcClient
from netstack.rpc.errors import Failed
from netstack.rpc.node import RpcNode
from netstack.rpc.schema import message
from netstack.runtime.policy import LinkPolicy
from netstack.runtime.runtime import Runtime
from netstack.runtime.simulation.world import EPOCH, World
from netstack.transport.peer import Peer, Stream
from security.identity import Authority

SERVER = ("127.0.0.1", 7000)
DELAY_S = 0.010  # one way, on every link
ROUND_TRIP = 2 * DELAY_S

_entropy = random.Random("keys").randbytes
_authority = Authority.create("test", now=EPOCH, entropy=_entropy)


@functools.cache
def identity(name: str, service: str):
    """A node's certificate and keys, the same in all its lives."""
    return _authority.issue(name, service, now=EPOCH, entropy=_entropy)


@message
class Greeting:
    name: str
    times: int


def offer(service) -> None:
    """A method of each kind; `service.seen` counts what they did."""
    seen = service.seen = Counter()
    service.news = []

    def echo(body, call):
        call.reply(body)

    async def slow(body, call):
        seen["ran"] += 1
        try:
            await asyncio.sleep(body)
        except asyncio.CancelledError:
            seen["cancelled"] += 1
            raise
        return body

    async def count(body, call):
        try:
            for i in range(body):
                seen["items"] += 1
                yield i
        finally:
            seen["cancelled"] += 1

    async def refuse(body, call):
        raise Failed("no-such-thing", "there is no such thing", {"asked": body})

    async def break_down(body, call):
        raise ZeroDivisionError("a bug")

    async def greet(body, call):
        return f"hello {body.name}" * body.times

    async def whoami(body, call):
        return call.caller

    service.add("echo", echo)
    service.add("slow", slow)
    service.add("count", count)
    service.add("refuse", refuse)
    service.add("break", break_down)
    service.add("greet", greet, request=Greeting)
    service.add("whoami", whoami)
    service.add("secret", echo, allow={"raft"})
    service.add("news", lambda body, _: service.news.append(body), notify=True)
    service.add("rumour", lambda body, _: service.news.append(body), notify=True, allow={"raft"})


class Stranger:
    """A member of the cluster that speaks the frames by hand, and need not mean well."""

    def __init__(self, peer: Peer, *, deaf: bool) -> None:
        self.peer = peer
        self.lane = peer.open_stream()
        self.bulk = peer.open_stream()
        self.heard: list[list[Any]] = []
        for stream in (self.lane, self.bulk):
            if not deaf:
                stream.receiver = self._listen(frames.Decoder())
            self.say((frames.HELLO, b"stranger"), stream)

    def _listen(self, decoder: frames.Decoder) -> Callable[[bytes, bool], None]:
        return lambda data, fin: self.heard.extend(decoder.feed(data))

    def say(self, message: Any, stream: Stream | None = None) -> None:
        """One message, or what claims to be one."""
        data = message if isinstance(message, bytes) else frames.encode(message)
        (stream or self.lane).push(data)

    def answers(self, id_: int) -> list[list[Any]]:
        """What came back under this id."""
        return [m for m in self.heard if len(m) > 1 and m[0] != frames.HELLO and m[1] == id_]


class Town:
    """A world with one server, offering what `offer(service)` adds, and callers at will."""

    def __init__(self, offer: Callable[[Any], None], **limits: int) -> None:
        self.world = World(seed=1)
        self.world.network.base_policy = LinkPolicy(delay_s=DELAY_S)
        self.offer = offer
        self.limits = limits
        self.server: RpcNode = None  # of its present life
        self.callers: dict[str, RpcNode] = {}

    async def _serve(self, runtime: Runtime) -> None:
        self.server = RpcNode(runtime, identity("server", "echo"), service="echo")
        for name, value in self.limits.items():
            setattr(self.server.service, name, value)
        self.offer(self.server.service)
        await self.server.start(SERVER)

    def run(self, scenario: Callable[[Town], Any]) -> Any:
        """`await scenario(town)` in virtual time, the server up."""
        self.world.add_node("server", self._serve)
        self.world.restart("server")

        async def main() -> Any:
            await asyncio.sleep(0.001)  # the server binds its socket
            return await scenario(self)

        try:
            return self.world.run(main())
        finally:
            self.world.close()

    async def caller(self, name: str = "caller", service: str = "client") -> RpcClient:
        """A client of the server, connected, on a node of its own."""
        return (await self.node(name, service)).client(SERVER, "echo", "server")

    async def node(self, name: str, service: str) -> RpcNode:
        made: asyncio.Future[RpcNode] = asyncio.get_running_loop().create_future()

        async def start(runtime: Runtime) -> None:
            node = RpcNode(runtime, identity(name, service), service=service)
            await node.start(("127.0.0.1", 0))
            made.set_result(node)

        self.world.add_node(name, start)
        self.world.restart(name)
        node = self.callers[name] = await made
        return node

    async def stranger(self, name: str = "stranger", *, deaf: bool = False) -> Stranger:
        """A member that has said hello on both lanes; a deaf one reads nothing."""
        peer = await (await self.node(name, "client")).host.connect(SERVER, service="echo")
        stranger = Stranger(peer, deaf=deaf)
        await asyncio.sleep(10 * DELAY_S)
        return stranger

    def cut_off(self, name: str) -> None:
        """The server ends its connections to `name`, whatever is under way on them."""
        for connection in list(self.server.connections):
            if connection.peer_name == name:
                self.server.host.end(connection._peer, 1, "cut off")

    def packets(self) -> dict[str, int]:
        """Packets that each side has sent on its connections."""
        nodes = {"server": self.server, **self.callers}
        return {
            name: sum(peer.connection.sent_packets for peer in node.host._peers.values())
            for name, node in nodes.items()
        }

    @property
    def now(self) -> float:
        return self.world.now


def in_town(scenario, offer=offer, **limits):
    """Run `scenario(town)`; `limits` are set on the server's RpcService."""
    return Town(offer, **limits).run(scenario)
