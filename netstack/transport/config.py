"""The knobs of a connection, with the reason for each default."""

from __future__ import annotations

from dataclasses import dataclass

from netstack.transport.controllers import controller
from netstack.transport.rtt import ESTIMATORS

# Every IPv4 path carries this much (RFC 9000 §14), and it leaves no room for amplification.
BASE_MTU = 1200

# 65,535 less the IPv4 and UDP headers: the largest datagram that exists.
MAX_DATAGRAM = 65_507


@dataclass(frozen=True, slots=True)
class TransportConfig:
    """Settings of all connections of one host.

    suite
        "AESGCM" or "ChaChaPoly"; fixed for a cluster, never negotiated.
    idle_timeout_s
        Silence after which the peer is given up. Driven by what is *received*: a sender into a
        black hole must not keep itself alive. Longer rides out pauses; shorter frees memory
        sooner.
    keep_alive_s
        A PING after this much silence, so that a living peer is never taken for idle. A third of
        the time-out leaves two PINGs to be lost. 0: none.
    handshake_timeout_s
        A half-open connection of a stranger is forgotten after this.
    max_ack_delay_s
        How long an acknowledgement may wait for something to ride on (RFC 9000 §13.2.1).
    probe_max_s
        However long a peer has been silent, it is asked again after this. Time-outs double (RFC
        6298 §5.5), so that by themselves they notice a host that is back as late as it was away:
        shorter where siblings on a short path must find each other again soon.
    initial_rtt_s
        Before the first sample. RFC 9002 says 333 ms for the Internet; a neighbour on one machine
        answers in 1 ms, and a lost first packet should not cost a second.
    stream_window, connection_window
        Bytes a peer may have under way. Window >= rate × RTT: 4 MiB sustain 400 MB/s at 10 ms.
    stream_buffer
        Bytes that `push` takes before BufferFull; `drain` waits for half of it.
    max_streams
        Streams that the peer may have open at a time.
    max_mtu
        Datagram size at which path-MTU discovery stops.
    congestion
        The controller, as in controllers.py.
    queue_s_max
        How long the path's queues may be made by this connection, as far as its rate is known. A
        controller that looks for loss fills them to the brim, and all that leaves later waits: on a
        link of 100 kB/s with 64 KiB of queue for 0.65 s. Who has heartbeats to send may want less
        than their time-out; none of a fast path's rate is lost by it.
    pacing
        Whether packets are spread over the round trip. A router's short queue is grateful; between
        processes of one machine there is none, and bursts cost less.
    ecn
        Whether packets say that they may be marked instead of dropped.
    timer
        How long to wait for an answer: "rfc6298", "lecture" or "fixed" (rtt.py).
    max_half_open
        Handshakes of strangers under way at a time; their addresses are validated before.
    """

    suite: str = "AESGCM"
    idle_timeout_s: float = 15.0
    keep_alive_s: float = 5.0
    handshake_timeout_s: float = 5.0
    max_ack_delay_s: float = 0.025
    probe_max_s: float = float("inf")
    initial_rtt_s: float = 0.05
    stream_window: int = 4 * 1024 * 1024
    connection_window: int = 16 * 1024 * 1024
    stream_buffer: int = 16 * 1024 * 1024
    max_streams: int = 1024
    max_mtu: int = MAX_DATAGRAM
    congestion: str = "newreno"
    queue_s_max: float = float("inf")
    pacing: bool = False
    ecn: bool = True
    timer: str = "rfc6298"
    max_half_open: int = 256

    def __post_init__(self) -> None:
        if not BASE_MTU <= self.max_mtu <= MAX_DATAGRAM:
            raise ValueError(f"max_mtu must be between {BASE_MTU} and {MAX_DATAGRAM}")
        if self.timer not in ESTIMATORS:
            known = ", ".join(ESTIMATORS)
            raise ValueError(f"no timer {self.timer!r}; there are {known}")
        controller(self.congestion)
        if not self.queue_s_max > 0:
            raise ValueError("queue_s_max must be more than 0; infinity: as the controller likes")
        if self.keep_alive_s and self.keep_alive_s >= self.idle_timeout_s:
            raise ValueError("keep_alive_s must be below idle_timeout_s, or it comes too late")
