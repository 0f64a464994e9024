"""Fuzz target: a handshake whose messages are damaged, repeated, forged and late.

The first byte says whether the server's key is known (IK) or not (XX). Then follow steps of

    kind:1  argument:1  length:2  body

    TO_SERVER  a datagram that the client has sent, the body XORed into it; the argument says which
    TO_CLIENT  the same the other way
    FORGED     body to the server, or (odd) to the client
    TIME       10 × argument milliseconds pass

Damage is refused by the errors that handshake.py documents. Whoever ends up with keys has the
other's, under the other's name; and after a little damage whole copies still lead there.
"""

from __future__ import annotations

import random

from fuzz_connection import context, identities, step, step_cuts, steps

from netstack.transport import packet
from netstack.transport.errors import TransportError
from netstack.transport.handshake import TRIES_MAX, Initiator, Responder
from netstack.transport.packet import Malformed
from security.errors import SecurityError

TO_SERVER, TO_CLIENT, FORGED, TIME = range(4)
KINDS = 4

# Damaged messages after which whole ones must still do: one try is the true one's.
DAMAGED_MAX = TRIES_MAX - 1
RESENDS_MAX = 4

# Whoever has waited longer may give up meanwhile.
PATIENCE_S = 1.0


class Dial:
    """One dial, and all that either side has sent."""

    def __init__(self, *, key_known: bool) -> None:
        client, self.identity = identities()
        known = self.identity.static_key.public_key().public_bytes_raw() if key_known else None
        self.client = Initiator(context(client, 11), remote_static=known, token=b"", now=0.0)
        self.servers: dict[int, Responder] = {}  # by the kind of INITIAL
        self.now = 0.0
        self.harmed = 0
        self.over = False
        self.sent: dict[str, list[bytes]] = {"client": [], "server": []}
        self.collect()

    def collect(self) -> None:
        self.sent["client"] += self.client.take()
        for server in self.servers.values():
            self.sent["server"] += server.take()

    def to_server(self, data: bytes) -> None:
        """What host.py does with it, the token's address aside."""
        if not data:
            return
        kind = data[0]
        known = self.servers.get(kind)
        try:
            if known is not None:
                known.repeated(data)
            elif kind in (packet.INITIAL_XX, packet.INITIAL_IK):
                self.servers[kind] = Responder(context(self.identity, 22), data, self.now)
            elif packet.INITIAL_XX in self.servers:
                self.servers[packet.INITIAL_XX].receive(data, self.now)
        except (Malformed, SecurityError):
            pass
        except TransportError:
            self.over = True
        self.collect()

    def to_client(self, data: bytes) -> None:
        if data:
            try:
                self.client.receive(data, self.now)
            except SecurityError:
                pass
            except TransportError:
                self.over = True
        self.collect()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for side in (self.client, *self.servers.values()):
            try:
                side.on_deadline(self.now)
            except TransportError:
                self.over = True
        self.collect()

    def do(self, kind: int, argument: int, body: bytes) -> None:
        if kind in (TO_SERVER, TO_CLIENT):
            to_server = kind == TO_SERVER
            sent = self.sent["client" if to_server else "server"]
            if sent:
                data = bytearray(sent[argument % len(sent)])
                for at, mask in enumerate(body[: len(data)]):
                    data[at] ^= mask
                # The same answer time and again is what another cluster's is taken for.
                self.harmed += any(body) or not to_server
                (self.to_server if to_server else self.to_client)(bytes(data))
        elif kind == FORGED:
            self.harmed += 1
            (self.to_client if argument & 1 else self.to_server)(body)
        else:
            self.pass_time(argument / 100)
        self.agree()

    def agree(self) -> bool:
        """Keys are the other's, and names are true; whether both sides have them."""
        client = self.client
        agreed = False
        if client.session is not None:
            assert client.peer is not None
            assert client.peer.name == "server", "the client takes somebody for the server"
        for server in self.servers.values():
            if server.session is not None:
                assert server.peer is not None
                assert server.peer.name == "client", "the server takes somebody for the client"
                if client.session is not None:
                    agreed |= client.session._send_key == server.session._receive_key
        return agreed

    def end(self) -> None:
        """Whole copies, as a line that is good again carries them."""
        began = self.now
        for _ in range(RESENDS_MAX):
            for _ in range(2):
                self.to_server(self.sent["client"][-1])
                for data in self.sent["server"][-1:]:
                    self.to_client(data)
            self.agree()
            if not self.over and self.client.session is None:
                self.pass_time(0.4)
        if began < PATIENCE_S and self.harmed <= DAMAGED_MAX:
            assert not self.over, "a little damage ends the dial"
            assert self.agree(), "the dial does not get through"


class HostileLine:
    """`handshake.Initiator` and `handshake.Responder`."""

    def seeds(self) -> list[bytes]:
        whole = step(TO_SERVER, 0) + step(TO_CLIENT, 0) + step(TO_SERVER, 1)
        damaged = b"".join(
            step(kind, 0, bytes(at) + b"\1")
            for kind in (TO_SERVER, TO_CLIENT)
            for at in (3, 12, 20, 60)
        )
        return [bytes([ik]) + program for ik in (0, 1) for program in (whole, damaged, b"")]

    def cuts(self, data: bytes) -> list[int]:
        return step_cuts(data)

    def invent(self, rng: random.Random) -> bytes:
        kind = rng.randrange(KINDS)
        if kind in (TO_SERVER, TO_CLIENT):
            damage = bytes(rng.choice((0, 4, 9, 12, 20, 50, 100))) + b"\x10"
            return step(kind, rng.randrange(4), rng.choice((b"", damage)))
        body = bytes([rng.randrange(1, 8)]) + rng.randbytes(rng.choice((0, 8, 40, 100)))
        return step(kind, rng.randrange(30), body if kind == FORGED else b"")

    def run(self, data: bytes) -> None:
        dial = Dial(key_known=bool(data and data[0] & 1))
        for kind, argument, body in steps(data):
            dial.do(kind % KINDS, argument, body)
        dial.end()
