"""Raw UDP between two processes: what the kernel carries when nothing is asked of it.

The sender blasts, and what the receiver gets is counted; nothing is numbered, acknowledged, sent
again, put in order or encrypted. So this is no transport but the limit of one that is written in
Python on such datagrams, in three sizes as our own:

    udp 1200          a datagram a system call
    udp 1200 trains   as many as the kernel takes in a call, cut and joined by it (GSO, GRO)
    udp mtu           the largest datagrams there are

    python -m cluster.bench.raw_udp sink KIND                prints its port, then a Count as JSON
    python -m cluster.bench.raw_udp blast KIND PORT SECONDS  prints the processor time it took
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Final

from netstack.runtime.gso_endpoint import (
    DATAGRAM_BYTES_MAX,
    SEGMENTS_MAX,
    SOL_UDP,
    TRAIN_BYTES_MAX,
    UDP_GRO,
    UDP_SEGMENT,
    kernel_has_it,
)
from netstack.runtime.sockets import BUFFER_BYTES
from netstack.transport.config import BASE_MTU, MAX_DATAGRAM

# kind -> (bytes a datagram, datagrams a call)
KINDS: Final = {
    "udp 1200": (BASE_MTU, 1),
    "udp 1200 trains": (BASE_MTU, min(SEGMENTS_MAX, TRAIN_BYTES_MAX // BASE_MTU)),
    "udp mtu": (MAX_DATAGRAM, 1),
}

# The end is an empty datagram; it may be lost like any other.
ENDS: Final = 50
END_EVERY_S: Final = 0.01
SILENCE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Count:
    """What has arrived."""

    received: int
    seconds: float  # from the first datagram to the last
    cpu_s: float


def possible(kind: str) -> bool:
    """Whether this kernel has what it takes."""
    return KINDS[kind][1] == 1 or kernel_has_it()


def measure(kind: str, seconds: float) -> Count:
    """Blast for so long; what arrived, and the processor time of both ends."""
    command = [sys.executable, "-m", "cluster.bench.raw_udp"]
    sink = [*command, "sink", kind]
    with subprocess.Popen(sink, stdout=subprocess.PIPE, text=True) as receiver:
        try:
            assert receiver.stdout is not None
            port = receiver.stdout.readline().strip()
            blast = [*command, "blast", kind, port, str(seconds)]
            sent = subprocess.run(blast, stdout=subprocess.PIPE, check=True, timeout=seconds + 60)
            told = receiver.stdout.readline()
        finally:
            receiver.kill()
    if not told:
        raise RuntimeError("nothing has arrived")
    count = Count(**json.loads(told))
    return Count(count.received, count.seconds, count.cpu_s + float(sent.stdout))


# -- in the two processes


def sink(kind: str) -> None:
    """Count what comes, until the end or a long silence."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        if KINDS[kind][1] > 1:
            sock.setsockopt(SOL_UDP, UDP_GRO, 1)
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(SILENCE_S)
        print(sock.getsockname()[1], flush=True)
        buffer = bytearray(DATAGRAM_BYTES_MAX)
        receive = sock.recv_into
        received = receive(buffer)
        began, began_cpu_s = time.perf_counter(), time.process_time()
        while size := receive(buffer):
            received += size
        took_s = time.perf_counter() - began
        count = Count(received, took_s, time.process_time() - began_cpu_s)
    print(json.dumps(asdict(count)), flush=True)


def blast(kind: str, port: int, seconds: float) -> None:
    """Send as fast as the kernel takes it, and then the end."""
    size, each = KINDS[kind]
    datagram = bytes(size)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        sock.connect(("127.0.0.1", port))
        deadline, began_cpu_s = time.perf_counter() + seconds, time.process_time()
        if each > 1:
            train = [datagram] * each
            ancillary = [(SOL_UDP, UDP_SEGMENT, size.to_bytes(2, sys.byteorder))]
            while time.perf_counter() < deadline:
                sock.sendmsg(train, ancillary)
        else:
            while time.perf_counter() < deadline:
                sock.send(datagram)
        cpu_s = time.process_time() - began_cpu_s
        for _ in range(ENDS):
            try:
                sock.send(b"")
            except ConnectionRefusedError:
                break  # the receiver has heard it, and is gone
            time.sleep(END_EVERY_S)
    print(cpu_s)


def main(arguments: list[str]) -> None:
    """Entry of the child processes."""
    verb, kind, *rest = arguments
    if verb == "sink":
        sink(kind)
    else:
        blast(kind, int(rest[0]), float(rest[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
