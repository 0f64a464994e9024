"""Fuzz target: a host that strangers write to, and an honest peer that it must go on serving.

An input is a program for the strangers, steps of

    kind:1  argument:1  length:2  body

    STRANGER  body to the server, from a stranger's address
    FORGED    the same, as if from the honest peer; or (odd) to that peer, as if from the server
    COPY      a datagram that the two have exchanged, the body XORed into it, from anybody
    KNOCK     an INITIAL with the body as its message; with (odd) the token that it takes
    TIME      2^argument milliseconds pass

Whatever it is: no exception, what does not belong is counted, a stranger is not sent more than
three times what he sent (RFC 9000 §8.1), his state is bounded, and the honest peer is answered.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from fuzz_connection import step, step_cuts, steps

from netstack.transport import packet

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "simulation"))
from host_kit import FIRST_MESSAGE, ROUND_TRIP, SERVER, Net, ask, overhear

STRANGER, FORGED, COPY, KNOCK, TIME = range(5)
KINDS = 5
HALF_OPEN_MAX = 4
AMPLIFICATION_MAX = 3


class Scene:
    """The server, its honest peer, a stranger, and what they have exchanged."""

    def __init__(self, net: Net) -> None:
        self.net = net

    async def begin(self) -> None:
        net = self.net
        self.server, self.caller = await net.server(), await net.host("caller")
        self.heard = overhear(self.server)
        self.peer = await self.caller.connect(SERVER, service="echo", expect="server")
        assert await ask(self.peer, b"before") == b"before"
        self.stranger = await net.host("stranger")
        self.answers = overhear(self.stranger, lambda data: None)
        self.sent = 0

    async def do(self, kind: int, argument: int, body: bytes) -> None:
        stranger, honest = self.stranger.address, self.caller.address
        if kind == STRANGER:
            self.from_stranger(body)
        elif kind == FORGED and argument & 1:
            self.caller._receive((body,), SERVER)
        elif kind == FORGED:
            self.server._receive((body,), honest)
        elif kind == COPY:
            datagram = bytearray(self.heard[(argument >> 1) % len(self.heard)])
            for at, mask in enumerate(body[: len(datagram)]):
                datagram[at] ^= mask
            self.server._receive((bytes(datagram),), honest if argument & 1 else stranger)
            self.sent += len(datagram)
        elif kind == KNOCK:
            retries = [data for data in self.answers if data[0] == packet.RETRY]
            token = retries[-1][packet.SHORT.size :] if retries and argument & 1 else b""
            what = packet.INITIAL_IK if argument & 2 else packet.INITIAL_XX
            self.from_stranger(packet.initial(what, argument >> 2, token, body[:1100], 1200))
        elif kind == TIME:
            await asyncio.sleep(2 ** (argument % 13) / 1000)
        await asyncio.sleep(ROUND_TRIP)
        self.check()

    def from_stranger(self, data: bytes) -> None:
        counted = sum(self.server.counters.values())
        self.server._receive((data,), self.stranger.address)
        self.sent += len(data)
        if data[:1] not in (bytes([packet.INITIAL_XX]), bytes([packet.INITIAL_IK])):
            assert sum(self.server.counters.values()) > counted, "dropped, and not counted"

    def check(self) -> None:
        server = self.server
        assert server._half_open <= HALF_OPEN_MAX, "too many strangers are waited for"
        assert len(server._peers) <= 1 + HALF_OPEN_MAX, "strangers are remembered"
        assert len(server._by_initial) == server._half_open, "a handshake is lost count of"
        answered = sum(map(len, self.answers))
        assert answered <= AMPLIFICATION_MAX * self.sent, "a stranger is answered with too much"

    async def end(self) -> None:
        assert not self.peer.closed, "strangers have ended an honest peer's connection"
        assert await ask(self.peer, b"after") == b"after"
        await asyncio.sleep(6)
        assert self.server._half_open == 0, "half-open handshakes are never forgotten"


class HostileHost:
    """`host.Host`."""

    def seeds(self) -> list[bytes]:
        knocks = step(KNOCK, 0) + step(KNOCK, 1, FIRST_MESSAGE) + step(KNOCK, 5, FIRST_MESSAGE)
        copies = b"".join(step(COPY, 2 * i) for i in range(8))
        kinds = b"".join(step(STRANGER, 0, bytes([kind]) + bytes(40)) for kind in range(9))
        return [b"\0" + program for program in (knocks, copies, kinds)]

    def cuts(self, data: bytes) -> list[int]:
        return step_cuts(data)

    def invent(self, rng: random.Random) -> bytes:
        kind, argument = rng.randrange(KINDS), rng.randrange(256)
        body = rng.randbytes(rng.choice((0, 1, 9, 32, 40)))
        if kind in (STRANGER, FORGED) and body:
            first = rng.choice((*range(1, 8), packet.DATA, packet.DATA | packet.PHASE_BIT))
            body = bytes([first]) + body[1:]
        elif kind == KNOCK and rng.random() < 0.7:
            body = FIRST_MESSAGE
        elif kind == COPY:
            body = bytes(rng.randrange(40)) + body[:1]
        return step(kind, argument, body)

    def run(self, data: bytes) -> None:
        async def scenario(net: Net) -> None:
            scene = Scene(net)
            await scene.begin()
            for kind, argument, body in steps(data):
                await scene.do(kind % KINDS, argument, body)
            await scene.end()

        Net(max_half_open=HALF_OPEN_MAX).run(scenario)
