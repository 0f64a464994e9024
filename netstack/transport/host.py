"""The shell: one UDP socket and all connections on it; their asyncio faces are in peer.py.

    host = Host(runtime, identity, service="raft", config=TransportConfig(), on_peer=accept)
    await host.start(("127.0.0.1", 7401))
    peer = await host.connect(("127.0.0.1", 7402), service="raft", expect="n2")
    stream = peer.open_stream()
    await stream.write(b"hello")                 # really waits when the peer does not keep up
    print(await stream.read())

What is pushed in one turn of the loop leaves together at its end: `_flush` runs once, for the
connections that something happened to. One timer serves all connections, over a heap of alarms: an
alarm is set when a deadline moves nearer, never when it moves away; when it goes off it is set
again, if there was nothing to do. A thousand silent connections cost nothing.

A datagram of nobody we know costs a stranger a validated address before it costs us memory.
Nothing that arrives raises out of here: it is counted in `counters`, by what was wrong with it. A
callback that raises costs its own connection.
"""

from __future__ import annotations

import asyncio
import hmac
from collections import Counter
from collections.abc import Callable, Sequence
from heapq import heappop, heappush

from netstack.runtime.endpoint import NOT_ECT, Address, Endpoint
from netstack.runtime.runtime import Runtime
from netstack.transport import events, packet
from netstack.transport.config import BASE_MTU, TransportConfig
from netstack.transport.connection import CLOSED, HANDSHAKE, OPEN, Connection
from netstack.transport.errors import (
    ConnectionClosed,
    ConnectTimeout,
    NobodyThere,
    PeerRejected,
)
from netstack.transport.handshake import Context, Initiator, Parameters, Responder
from netstack.transport.packet import Malformed
from netstack.transport.peer import NEVER, Challenge, InitialKey, Peer
from netstack.transport.qlog_file import open_trace
from netstack.transport.tokens import TokenMint
from security.errors import HandshakeFailed, SecurityError
from security.identity import Identity, PeerIdentity, is_revoked

# Stateless resets a second: enough to tell every sibling of a restart, too few to be worth
# provoking.
RESETS_PER_S = 100

# Code of the CLOSE of a connection whose callback raised.
APPLICATION_BUG = 3

# Peers whose static key and token are remembered, for a shorter handshake next time.
KNOWN_PEERS_MAX = 1024


class Host:
    """All connections of one socket, as client and as server."""

    def __init__(
        self,
        runtime: Runtime,
        identity: Identity,
        *,
        service: str,
        config: TransportConfig | None = None,
        on_peer: Callable[[Peer], None] | None = None,
    ) -> None:
        self.identity = identity
        self.counters: Counter[str] = Counter()
        self._runtime = runtime
        self._service = service
        self._config = config or TransportConfig()
        self._on_peer = on_peer
        self._now = runtime.clock.now
        self._mint = TokenMint(identity.static_key.private_bytes_raw())
        self._endpoint: Endpoint | None = None
        self._loop = asyncio.get_running_loop()
        self._peers: dict[int, Peer] = {}  # by our connection id
        self._by_initial: dict[InitialKey, Peer] = {}
        self._by_remote: dict[tuple[Address, int], Peer] = {}  # its address, its connection id
        self._known: dict[Address, tuple[bytes, bytes]] = {}  # static key, token
        self._dirty: dict[Peer, None] = {}
        self._flushing = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = NEVER
        self._alarms: list[tuple[float, int]] = []  # (when, our connection id), a heap
        self._half_open = 0
        self._resets_left = float(RESETS_PER_S)
        self._resets_at = 0.0

    def __repr__(self) -> str:
        return f"<Host {self.identity.name} connections={len(self._peers)}>"

    @property
    def address(self) -> Address:
        """Where the socket is bound."""
        assert self._endpoint is not None, "the host is not started"
        return self._endpoint.address

    async def start(self, address: Address) -> None:
        """Bind the socket; raises PortTaken or EndpointError."""
        self._endpoint = await self._runtime.bind(address)
        self._endpoint.set_receiver(self._receive)

    async def connect(
        self,
        address: Address,
        *,
        service: str,
        expect: str | None = None,
        timeout_s: float = 5.0,
    ) -> Peer:
        """A connection to the `service` at `address`; its certificate must bear `expect`.

        Raises NobodyThere, ConnectTimeout, PeerRejected, or ConnectionClosed when the peer ended
        it at once.
        """
        assert self._endpoint is not None, "the host is not started"
        if self._endpoint.refuses(address):
            raise NobodyThere(f"nobody listens at {address[0]}:{address[1]}")
        now = self._now()
        local_id = self._new_id()
        static_key, token = self._known.get(address, (None, b""))
        context = self._context(service, local_id)
        initiator = Initiator(context, remote_static=static_key, token=token, now=now)
        peer = Peer(self, Connection(self._config, initiator, local_id, now), address)
        self._trace(peer, "client")
        peer.established = self._loop.create_future()
        self._peers[local_id] = peer
        self.touch(peer)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(peer.established)
        except TimeoutError:
            peer.established.cancel()  # nobody waits for its outcome any more
            self.end(peer, 1, "no answer in time")
            raise ConnectTimeout(f"no answer from {address[0]}:{address[1]}") from None
        except asyncio.CancelledError:
            peer.established.cancel()
            self.end(peer, 1, "the caller gave up")
            raise
        if peer.closed:
            assert peer.connection.error is not None
            raise peer.connection.error
        if expect is not None and peer.identity.name != expect:
            found = peer.identity.name
            self.end(peer, 1, "not who was asked for")
            raise PeerRejected(f"{address[0]}:{address[1]} is {found}, not {expect}")
        if peer.identity.service != service:
            self.end(peer, 1, "not the service that was asked for")
            raise PeerRejected(f"{address[0]}:{address[1]} is {peer.identity}, not a {service}")
        return peer

    def trust(self, identity: Identity) -> None:
        """Be `identity` from now on, and judge by its list of the revoked: they are cut off."""
        self.identity = identity
        for peer in list(self._peers.values()):
            if peer.known and is_revoked(peer.identity.serial, identity.revocations):
                self._runtime.events.emit("transport.revoked", peer=str(peer.identity))
                self.end(peer, 1, "your certificate was revoked")

    async def close(self) -> None:
        """End all connections, telling the peers, and release the socket."""
        for peer in list(self._peers.values()):
            peer.connection.close(0, "goodbye", self._now())
            self._settle(peer)
        self._flush()
        if self._timer is not None:
            self._timer.cancel()
        if self._endpoint is not None:
            self._endpoint.close()

    def touch(self, peer: Peer) -> None:
        """Something was queued for `peer`: send it at the end of this turn of the loop."""
        self._dirty[peer] = None
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    # -- datagrams in

    def _receive(self, datagrams: Sequence[bytes], source: Address, mark: int = NOT_ECT) -> None:
        """A train: every datagram goes to its connection, which is then heard once."""
        now = self._now()
        fed: dict[Peer, None] = {}
        for data in datagrams:
            try:
                if len(data) >= packet.OVERHEAD and data[0] & packet.DATA:
                    peer = self._peers.get(packet.SHORT.unpack_from(data)[1])
                    if peer is not None and peer.address == source:
                        peer.connection.receive_data(data, now, mark)
                        fed[peer] = None
                        continue
                self._receive_one(data, source, now, mark, fed)
            except Malformed:
                self.counters["malformed"] += 1
            except SecurityError as error:
                self.counters[type(error).__name__.lower()] += 1
        for peer in fed:
            if peer.initial_key is not None and peer.connection.state != HANDSHAKE:
                self._handshake_over(peer)
            self._settle(peer)
            self.touch(peer)

    def _receive_one(
        self, data: bytes, source: Address, now: float, mark: int, fed: dict[Peer, None]
    ) -> None:
        """Whatever is not sealed, or comes from where its connection does not send to."""
        if not data:
            self.counters["knocks"] += 1  # who asks this wants the kernel's answer, not ours
            return
        kind = data[0]
        if kind in (packet.INITIAL_XX, packet.INITIAL_IK):
            self._receive_initial(data, source, now)
            return
        connection_id = packet.destination_id(data)
        if kind == packet.RESET:
            self._receive_reset(data, connection_id, source)
            return
        peer = self._peers.get(connection_id)
        if peer is None:
            self._answer_unknown(data, connection_id, source, now)
            return
        if peer.address != source:
            if not kind & packet.DATA or peer.connection.state != OPEN:
                self.counters["foreign"] += 1
                return
            peer.connection.receive_datagram(data, now, mark)  # raises, unless the peer sealed it
            fed[peer] = None
            self._settle(peer)  # it may be the answer to a challenge: then this is its address
            if peer.address == source:
                return
            if packet.number(data) == peer.connection.acks.received.highest:
                self._challenge(peer, source, now)
            return
        if kind & packet.DATA or kind in (
            packet.RETRY,
            packet.RESPONSE,
            packet.FINAL,
            packet.REFUSED,
        ):
            peer.connection.receive_datagram(data, now, mark)
            fed[peer] = None
        else:
            raise Malformed("no such packet")

    def _challenge(self, peer: Peer, source: Address, now: float) -> None:
        """The peer's newest packet came from elsewhere: has it moved, or has somebody copied it?

        Until it answers a challenge sent there, everything else goes where it always went.
        """
        challenged = peer.challenge
        if challenged is not None and challenged.address == source and now < challenged.until:
            return
        until = now + peer.connection.recovery.probe_timeout()
        peer.challenge = challenged = Challenge(source, self._runtime.entropy(8), until)
        self._send((peer.connection.challenge(challenged.secret),), source)
        self.counters["challenges"] += 1

    def _answered(self, peer: Peer, secret: bytes) -> None:
        challenged = peer.challenge
        if challenged is None or not hmac.compare_digest(secret, challenged.secret):
            return
        self._unlist(peer)
        before, peer.address, peer.challenge = peer.address, challenged.address, None
        self._by_remote[peer.address, peer.connection.remote_id] = peer
        if before[0] != peer.address[0]:
            peer.connection.outgoing.new_path()
        self._runtime.events.emit(
            "transport.moved", peer=str(peer.identity), before=before[1], port=peer.address[1]
        )
        self.touch(peer)

    def _receive_initial(self, data: bytes, source: Address, now: float) -> None:
        if len(data) < BASE_MTU:
            raise Malformed("an INITIAL that is not padded")
        source_id, token, _ = packet.parse_initial(data)
        key = (source, source_id, data[0])
        known = self._by_initial.get(key)
        if known is not None:
            known.connection.repeated_initial(data)
            self.touch(known)
            return
        wall = self._runtime.clock.wall()
        if not self._mint.valid(token, *source, wall):
            retry = packet.SHORT.pack(packet.RETRY, source_id) + self._mint.retry(*source, wall)
            self._send((retry,), source)
            self.counters["retries"] += 1
            return
        if self._half_open >= self._config.max_half_open:
            self.counters["half_open_refused"] += 1
            return
        local_id = self._new_id()
        try:
            responder = Responder(self._context(self._service, local_id), data, now)
        except HandshakeFailed:
            if data[0] == packet.INITIAL_IK:
                self._send((packet.SHORT.pack(packet.REFUSED, source_id),), source)
            raise
        peer = Peer(self, Connection(self._config, responder, local_id, now), source)
        self._trace(peer, "server")
        if peer.connection.outgoing.trace is not None:
            peer.connection.outgoing.trace.handshake_received(data)
        peer.connection.new_token = self._mint.new(source[0], wall)
        peer.initial_key = key
        self._peers[local_id] = peer
        self._by_initial[key] = peer
        self._half_open += 1
        self.touch(peer)

    def _receive_reset(self, data: bytes, connection_id: int, source: Address) -> None:
        """`connection_id` is the sender's: it says that it does not know it any more."""
        token = data[packet.SHORT.size :]
        peer = self._by_remote.get((source, connection_id))
        if peer is None:
            self.counters["unknown"] += 1
        elif peer.connection.receive_reset(token):
            self._settle(peer)
        else:
            self.counters["false_resets"] += 1

    def _answer_unknown(self, data: bytes, connection_id: int, source: Address, now: float) -> None:
        """Tell the sender of DATA for a connection that is gone; never larger than what it sent."""
        self.counters["unknown"] += 1
        if not data[0] & packet.DATA or len(data) < packet.OVERHEAD:
            return
        self._resets_left = min(
            RESETS_PER_S, self._resets_left + (now - self._resets_at) * RESETS_PER_S
        )
        self._resets_at = now
        if self._resets_left >= 1:
            self._resets_left -= 1
            token = self._mint.reset(connection_id)
            self._send((packet.SHORT.pack(packet.RESET, connection_id) + token,), source)

    # -- connections

    def _context(self, service: str, local_id: int) -> Context:
        return Context(
            identity=self.identity,
            service=service,
            config=self._config,
            entropy=self._runtime.entropy,
            wall=self._runtime.clock.wall(),
            local_id=local_id,
            parameters=Parameters.of(self._config, self._mint.reset(local_id), local_id),
        )

    def _trace(self, peer: Peer, role: str) -> None:
        connection = peer.connection
        opened = open_trace(self._runtime, self.identity.name, role, connection.local_id)
        if opened is not None:
            trace, close = opened
            connection.outgoing.trace = trace
            trace.state(connection.state)
            peer.on_close.append(lambda error: close())

    def _new_id(self) -> int:
        while True:
            candidate = int.from_bytes(self._runtime.entropy(8), "big")
            if candidate not in self._peers:
                return candidate

    def end(self, peer: Peer, code: int, reason: str) -> None:
        """Close a connection from this side."""
        peer.connection.close(code, reason, self._now())
        self.touch(peer)
        self._settle(peer)

    def _handshake_over(self, peer: Peer) -> None:
        if peer.initial_key is not None:
            self._half_open -= 1
            self._by_initial.pop(peer.initial_key, None)
            peer.initial_key = None

    def _settle(self, peer: Peer) -> None:
        """Hand the connection's events to its face, and forget it when it is over."""
        for event in peer.connection.take_events():
            try:
                if type(event) is events.Handshaken:
                    self._handshaken(peer, event.peer)
                elif type(event) is events.TokenReceived:
                    self._remember(peer, event.token)
                elif type(event) is events.PathAnswered:
                    self._answered(peer, event.secret)
                else:
                    peer.handle(event)
            except Exception as error:
                self._failed(peer, error)
        peer.wake_writers()
        if peer.connection.state == CLOSED:
            self._forget(peer)

    def _failed(self, peer: Peer, error: Exception) -> None:
        """A callback of the application raised: that connection ends, and no other."""
        self.counters["callback_errors"] += 1
        self._runtime.events.emit(
            "transport.callback_error", peer=str(peer.identity), error=repr(error)
        )
        peer.connection.close(APPLICATION_BUG, "a bug on the other side", self._now())
        self.touch(peer)

    def _handshaken(self, peer: Peer, identity: PeerIdentity) -> None:
        peer.identity = identity
        self._by_remote[peer.address, peer.connection.remote_id] = peer
        self._runtime.events.emit("transport.open", peer=str(identity), port=peer.address[1])
        if peer.established is not None:
            self._remember(peer, self._known.get(peer.address, (b"", b""))[1])
            if not peer.established.done():
                peer.established.set_result(None)
        elif self._on_peer is not None:
            self._on_peer(peer)

    def _remember(self, peer: Peer, token: bytes) -> None:
        if len(self._known) >= KNOWN_PEERS_MAX:
            del self._known[next(iter(self._known))]
        self._known[peer.address] = (peer.identity.static_key, token)

    def _forget(self, peer: Peer) -> None:
        if self._peers.pop(peer.connection.local_id, None) is None:
            return
        self._handshake_over(peer)
        self._unlist(peer)
        error = peer.connection.error or ConnectionClosed("the handshake failed")
        if peer.established is not None and not peer.established.done():
            peer.established.set_exception(error)
        if peer.known:
            self._runtime.events.emit("transport.closed", peer=str(peer.identity), cause=str(error))
        self.touch(peer)  # its last datagram may still wait
        peer.ended(error)

    def _unlist(self, peer: Peer) -> None:
        """No reset is for it any more."""
        key = (peer.address, peer.connection.remote_id)
        if self._by_remote.get(key) is peer:
            del self._by_remote[key]

    # -- datagrams out, and time

    def _send(self, datagrams: Sequence[bytes], destination: Address, mark: int = NOT_ECT) -> None:
        if self._endpoint is not None:
            self._endpoint.send(datagrams, destination, mark)

    def refuses(self, address: Address) -> bool:
        """Whether the machine at `address` says that no socket is bound there."""
        return self._endpoint is not None and self._endpoint.refuses(address)

    def _flush(self) -> None:
        self._flushing = False
        dirty, self._dirty = self._dirty, {}
        now = self._now()
        for peer in dirty:
            connection = peer.connection
            datagrams = connection.datagrams_to_send(now)
            if datagrams:
                self._send(datagrams, peer.address, connection.outgoing.ecn.codepoint)
                if len(datagrams) >= connection.outgoing.burst:
                    self.touch(peer)
            deadline = connection.next_deadline()
            peer.deadline = NEVER if deadline is None else deadline
            if peer.deadline < peer.alarm_at:
                self._set_alarm(peer)
        if self._alarms and self._alarms[0][0] < self._timer_at:
            self._arm(self._alarms[0][0])

    def _set_alarm(self, peer: Peer) -> None:
        peer.alarm_at = peer.deadline
        heappush(self._alarms, (peer.deadline, peer.connection.local_id))

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._runtime.call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer, self._timer_at = None, NEVER
        now = self._now()
        alarms, due = self._alarms, []
        while alarms and alarms[0][0] <= now:
            at, local_id = heappop(alarms)
            peer = self._peers.get(local_id)
            if peer is None or at != peer.alarm_at:
                continue  # it is gone, or has an alarm that went off before this one
            peer.alarm_at = NEVER
            if peer.deadline <= now:
                due.append(peer)
            else:
                self._set_alarm(peer)
        for peer in due:
            peer.connection.on_deadline(now)
            if peer.connection.patience_is_over and self.refuses(peer.address):
                peer.connection.nobody_there()
            self._settle(peer)
            self.touch(peer)
        if alarms:
            self._arm(alarms[0][0])
