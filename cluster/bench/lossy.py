"""`ring bench transport --lossy`: what arrives over a line of 100 Mbit/s that loses packets.

    sender ──> relay ──(queue, 100 Mbit/s, loss, half the round trip)──> receiver
           <──       <──(the same)────────────────────────────────────

All go through the same relay, a process of its own, with packets of 1,200 bytes. Goodput is what
the receiver has in its hands after so many seconds, handshake and slow start included. A figure is
the median of ROUNDS runs; in each round all take their turn on a line with the same seed.

    python -m cluster.bench.lossy relay PORT LOSS RTT_S SEED        prints its port
    python -m cluster.bench.lossy send KIND CONTROL PORT SECONDS HOME  prints bytes a second
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import importlib.util
import itertools
import json
import random
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cluster.bench.harness import Report, Row
from cluster.bench.transport import BLOCK, make_identities
from cluster.bench.transport_peers import Bytes, dial_aioquic, dial_ours, serve
from netstack.runtime.policy import LinkPolicy, LinkShaper

RATE_BYTES_S: Final = 12_500_000  # 100 Mbit/s
LOSSES: Final = (0.01, 0.02, 0.05)
RTTS_S: Final = (0.01, 0.05, 0.1)

OURS: Final = "ours 1200 trains"
CONTROLS: Final = ("cubic", "bbr")
AIOQUIC: Final = ("aioquic", "-")
ROUNDS: Final = 3
MODE: Final = b"G"


def run(*, peers: bool, seconds: float = 5.0) -> Report:
    """Every loss and round trip, ours with each controller, and aioquic through the same relay."""
    report = Report("transport --lossy")
    kinds = [(OURS, control) for control in CONTROLS]
    if peers and _installed():
        kinds.insert(0, AIOQUIC)
    peer = "aioquic" if peers else "-"
    note = "aioquic is not installed" if peers and AIOQUIC not in kinds else ""
    with tempfile.TemporaryDirectory(prefix="ring-bench-") as folder:
        home = Path(folder)
        make_identities(home)
        for loss, rtt_s in itertools.product(LOSSES, RTTS_S):
            runs: dict[tuple[str, str], list[float]] = {kind: [] for kind in kinds}
            for seed in range(1, ROUNDS + 1):
                for kind, control in kinds:
                    rate = _goodput(kind, control, loss, rtt_s, seconds, home, seed)
                    runs[kind, control].append(rate / 1e6)
            median = {kind: statistics.median(rates) for kind, rates in runs.items()}
            for control in CONTROLS:
                case = f"{loss:.0%} lost, {rtt_s * 1000:.0f} ms, {control}"
                ours, theirs = median[OURS, control], median.get(AIOQUIC)
                report.rows.append(Row(case, "rate", "MB/s", ours, peer, theirs, None, note))
    return report


def _installed() -> bool:
    return importlib.util.find_spec("aioquic") is not None


def _goodput(
    kind: str, control: str, loss: float, rtt_s: float, seconds: float, home: Path, seed: int
) -> float:
    base = [sys.executable, "-m", "cluster.bench.lossy"]
    with (
        _printing([*base, "serve", kind, str(home)]) as port,
        _printing([*base, "relay", port, str(loss), str(rtt_s), str(seed)]) as relayed,
    ):
        done = subprocess.run(
            [*base, "send", kind, control, relayed, str(seconds), str(home)],
            stdout=subprocess.PIPE,
            check=True,
            timeout=seconds + 60,
        )
    return float(done.stdout)


@contextlib.contextmanager
def _printing(command: list[str]) -> Iterator[str]:
    """A process for as long as it is needed, and the port that it prints."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


class Relay:
    """Forwards datagrams between one sender and one receiver over two emulated lines."""

    def __init__(self, receiver: tuple[str, int], policy: LinkPolicy, seed: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._receiver = receiver
        self._sender: tuple[str, int] | None = None
        self._there = LinkShaper(policy, random.Random(f"{seed} there"))
        self._back = LinkShaper(policy, random.Random(f"{seed} back"))
        self._under_way: list[tuple[float, int, bytes, tuple[str, int]]] = []
        self._number = itertools.count()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket.fileno(), self._readable)

    @property
    def port(self) -> int:
        """Where the sender sends to."""
        return int(self._socket.getsockname()[1])

    def close(self) -> None:
        """Forward nothing more."""
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _readable(self) -> None:
        now = self._loop.time()
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            while True:
                data, source = self._socket.recvfrom(65_535)
                if source == self._receiver:
                    shaper, to = self._back, self._sender
                else:
                    shaper, to, self._sender = self._there, self._receiver, source
                if to is None:
                    continue
                for arrives, copy in shaper.shape(data, now):
                    heapq.heappush(self._under_way, (arrives, next(self._number), copy, to))
                    self._loop.call_at(arrives, self._forward)

    def _forward(self) -> None:
        # One a timer, whichever it is: they may come a little early and out of order.
        _, _, data, to = heapq.heappop(self._under_way)
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            self._socket.sendto(data, to)


def line(loss: float, rtt_s: float) -> LinkPolicy:
    """One direction: a queue of one product of rate and round trip, and at least 50 packets."""
    queue = max(60_000, int(RATE_BYTES_S * rtt_s))
    return LinkPolicy(
        loss=loss, delay_s=rtt_s / 2, rate_bytes_s=float(RATE_BYTES_S), queue_bytes=queue
    )


# -- in the three processes


async def count_for_a_while(stream: Bytes) -> None:
    """The receiver's part: the first line says for how long; then tell what has come."""
    data = b""
    while b"\n" not in data:
        data += await stream.read()
    head, _, rest = data.partition(b"\n")
    received = len(rest)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(float(head.removeprefix(MODE))):
            while data := await stream.read():
                received += len(data)
    await stream.write(json.dumps(received).encode() + b"\n")


async def goodput(stream: Bytes, seconds: float) -> float:
    """Bytes a second that the receiver has got."""
    await stream.write(MODE + f"{seconds}\n".encode())

    async def pour() -> None:
        while True:
            await stream.write(BLOCK[: 1 << 16])

    pouring = asyncio.ensure_future(pour())
    told = b""
    while not told.endswith(b"\n"):
        told += await stream.read()
    pouring.cancel()
    return float(json.loads(told)) / seconds


async def _send(kind: str, control: str, port: int, seconds: float, home: Path) -> None:
    if kind == "aioquic":
        opener = await dial_aioquic(home, port)
    else:
        opener = await dial_ours(kind, home, port, control)
    print(await goodput(await opener(), seconds), flush=True)


async def _relay(port: int, loss: float, rtt_s: float, seed: int) -> None:
    relay = Relay(("127.0.0.1", port), line(loss, rtt_s), seed)
    print(relay.port, flush=True)
    await asyncio.Event().wait()


async def _serve(kind: str, home: Path) -> None:
    print(await serve(kind, home, count_for_a_while), flush=True)
    await asyncio.Event().wait()


def main(arguments: list[str]) -> None:
    """Entry of the child processes."""
    import uvloop

    match arguments:
        case ["serve", kind, home]:
            uvloop.run(_serve(kind, Path(home)))
        case ["relay", port, loss, rtt_s, seed]:
            uvloop.run(_relay(int(port), float(loss), float(rtt_s), int(seed)))
        case ["send", kind, control, port, seconds, home]:
            uvloop.run(_send(kind, control, int(port), float(seconds), Path(home)))


if __name__ == "__main__":
    main(sys.argv[1:])
