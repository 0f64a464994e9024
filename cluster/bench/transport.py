"""`ring bench transport`: bulk, many streams, latency and small messages, beside QUIC and TCP.

Sender and receiver are two processes on 127.0.0.1, as in life. A figure counts what has arrived:
the receiver tells how many bytes it got, and both must agree. The limit of each of our kinds, raw
UDP in datagrams of the same size (raw_udp.py), is taken in the same rounds.

How long a request takes depends more on where the two processes run than on anything they do: the
kernel moves TCP's two, which sleep in turn, to one core or leaves them on two, and then a wake-up
costs a few microseconds or fifty. So for latency all kinds are held to the same cores, once a core
each and once both on one, in short rounds that alternate.

    python -m cluster.bench.transport serve KIND HOME CORE                  prints its port
    python -m cluster.bench.transport load KIND PORT WORKLOAD SECONDS HOME CORE
                                                                            prints a Run as JSON
CORE is a number, or "any".
"""

from __future__ import annotations

import asyncio
import datetime
import importlib.util
import ipaddress
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cluster.bench import raw_udp
from cluster.bench.harness import Report, Row
from cluster.bench.transport_peers import OURS, Bytes, dial, serve
from security import keystore
from security.identity import Authority

ROUNDS: Final = 3
LATENCY_ROUNDS: Final = 5
# A round of latency is so much shorter: there are more of them, for two placements.
LATENCY_SHARE: Final = 1 / 3
WARM_UP_TRIPS: Final = 200
PEERS: Final = ("aioquic", "kcp", "tls", "tcp")
# What each of ours stands on: the limit of `bulk`.
LIMITS: Final = {"ours 1200": "udp 1200", "ours 1200 trains": "udp 1200 trains",
                 "ours mtu": "udp mtu"}  # fmt: skip
STREAMS: Final = 16
MESSAGE: Final = 64

ANY: Final = "any"

# What is sent; END occurs in it nowhere, and ends a stream.
BLOCK: Final = bytes(i * 7 % 255 for i in range(1 << 18))
END: Final = b"\xff"

# workload -> (what is counted, unit)
WORKLOADS: Final = {
    "bulk": ("one stream", "MB/s"),
    "many": (f"{STREAMS} streams", "MB/s"),
    "messages": (f"{MESSAGE} B messages", "/s"),
    "latency": (f"{MESSAGE} B request and response, a core each", "µs"),
    "latency, one core": (f"{MESSAGE} B request and response, both on one core", "µs"),
}

# (workload, ours, peer) -> the least ratio, as this project has set itself.
BARS: Final = {
    ("bulk", "ours 1200", "aioquic"): 3.0,
    ("bulk", "ours 1200 trains", "aioquic"): 10.0,
    ("bulk", "ours mtu", "aioquic"): 30.0,
    ("bulk", "ours mtu", "tls"): 0.5,
    ("latency", "ours 1200 trains", "tcp"): 1 / 1.5,
    ("latency, one core", "ours 1200 trains", "tcp"): 1 / 1.5,
}


@dataclass(frozen=True, slots=True)
class Run:
    """What one round gave: bytes that arrived, and for `latency` each round trip in seconds."""

    received: int
    seconds: float
    cpu_s: float  # of both processes
    trips_s: list[float]


def run(*, peers: bool, seconds: float = 3.0) -> Report:
    """Take all rounds, each kind in turn; raises RuntimeError if bytes were lost on the way."""
    report = Report("transport")
    kinds = [*OURS, *(kind for kind in PEERS if peers and _installed(kind))]
    with tempfile.TemporaryDirectory(prefix="ring-bench-") as folder:
        home = Path(folder)
        make_identities(home)
        for workload in WORKLOADS:
            runs: dict[str, list[Run]] = {kind: [] for kind in kinds}
            limits = [kind for kind in LIMITS.values() if peers and raw_udp.possible(kind)]
            latency = workload.startswith("latency")
            for _ in range(LATENCY_ROUNDS if latency else ROUNDS):
                for kind in kinds:
                    # One conversation is all that kcp has.
                    if not (workload == "many" and kind == "kcp"):
                        length_s = seconds * LATENCY_SHARE if latency else seconds
                        runs[kind].append(_round(kind, workload, length_s, home))
                for kind in limits if workload == "bulk" else ():
                    count = raw_udp.measure(kind, seconds)
                    run = Run(count.received, count.seconds, count.cpu_s, [])
                    runs.setdefault(kind, []).append(run)
            for ours in OURS:
                report.rows += _rows(workload, ours, runs, peers)
    return report


def _installed(kind: str) -> bool:
    return kind not in ("aioquic", "kcp") or importlib.util.find_spec(kind) is not None


def _rows(workload: str, ours: str, runs: dict[str, list[Run]], peers: bool) -> list[Row]:
    case, unit = f"{ours}: {WORKLOADS[workload][0]}", WORKLOADS[workload][1]
    metric = "p50" if workload.startswith("latency") else "rate"
    mine = _figure(workload, runs[ours])
    rows = []
    for peer in PEERS if peers else ("-",):
        theirs = _figure(workload, runs[peer]) if runs.get(peer) else None
        note = "" if theirs is not None or peer == "-" else f"{peer} is not installed"
        if workload == "many" and peer == "kcp":
            continue
        bar = BARS.get((workload, ours, peer))
        rows.append(Row(case, metric, unit, mine, peer, theirs, bar, note))
    if workload == "bulk":
        limit = LIMITS[ours]
        most = runs.get(limit)
        if most:
            rows.append(Row(case, metric, unit, mine, limit, _figure(workload, most)))
        cpu_s = _cpu_s_per_gb(most) if most else None
        rows.append(Row(case, "time", "CPU s/GB", _cpu_s_per_gb(runs[ours]), limit, cpu_s))
    return rows


def _figure(workload: str, runs: list[Run]) -> float:
    """The median of the rounds, in the workload's unit."""
    if workload.startswith("latency"):
        return statistics.median(statistics.median(run.trips_s) for run in runs) * 1e6
    rate = statistics.median(run.received / run.seconds for run in runs)
    return rate / MESSAGE if workload == "messages" else rate / 1e6


def _cpu_s_per_gb(runs: list[Run]) -> float:
    return statistics.median(run.cpu_s / (run.received / 1e9) for run in runs)


def make_identities(home: Path) -> None:
    """Keys for both ends: our own, and a certificate for TLS and QUIC."""
    authority = Authority.create("bench", now=time.time(), entropy=os.urandom)
    for name in ("server", "caller"):
        identity = authority.issue(name, "bench", now=time.time(), entropy=os.urandom)
        keystore.save_identity(home, identity)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    (home / "tls.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (home / "tls.key").touch(0o600)
    (home / "tls.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def _round(kind: str, workload: str, seconds: float, home: Path) -> Run:
    command = [sys.executable, "-m", "cluster.bench.transport"]
    here, there = _cores(workload)
    serve = [*command, "serve", kind, str(home), there]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = server.stdout.readline().strip()
            answer = subprocess.run(
                [*command, "load", kind, port, workload, str(seconds), str(home), here],
                stdout=subprocess.PIPE,
                check=True,
                timeout=seconds + 60,
            )
        finally:
            server.kill()
    return Run(**json.loads(answer.stdout))


def _cores(workload: str) -> tuple[str, str]:
    """Where the caller and the server run: any core, but for latency always the same."""
    if not workload.startswith("latency"):
        return ANY, ANY
    cores = sorted(os.sched_getaffinity(0))
    return str(cores[0]), str(cores[0] if workload == "latency, one core" else cores[-1])


# -- in the two processes


def _stay_on(core: str) -> None:
    if core != ANY:
        os.sched_setaffinity(0, {int(core)})


async def answer(stream: Bytes) -> None:
    """The server's part: count what comes until its end, or send it back."""
    began_s = time.process_time()
    data = await stream.read()
    mode, data = data[:1], data[1:]
    if mode == b"E":
        while True:
            if data:
                await stream.write(data)
            if not (data := await stream.read()):
                return
    received = 0
    while not data.endswith(END):
        received += len(data)
        if not (data := await stream.read()):
            return
    counted = {"received": received + len(data) - 1, "cpu_s": time.process_time() - began_s}
    await stream.write(json.dumps(counted).encode() + b"\n")


async def _load(kind: str, port: int, workload: str, seconds: float, home: Path) -> Run:
    opener = await dial(kind, home, port)
    cpu_s, began = time.process_time(), time.perf_counter()
    trips_s: list[float] = []
    received, server_s = 0, 0.0
    if workload.startswith("latency"):
        trips_s = await round_trips(await opener(), seconds)
        received = len(trips_s) * MESSAGE
    else:
        portion = BLOCK[:MESSAGE] if workload == "messages" else BLOCK
        streams = [await opener() for _ in range(STREAMS if workload == "many" else 1)]
        counts = await asyncio.gather(*(pour(s, portion, seconds) for s in streams))
        received = sum(count[0] for count in counts)
        server_s = max(count[1] for count in counts)
    elapsed = time.perf_counter() - began
    return Run(received, elapsed, time.process_time() - cpu_s + server_s, trips_s)


async def pour(stream: Bytes, portion: bytes, seconds: float) -> tuple[int, float]:
    """Write for so long; (bytes that arrived, CPU seconds of the receiver)."""
    deadline = time.perf_counter() + seconds
    await stream.write(b"B")
    sent = 0
    while time.perf_counter() < deadline:
        await stream.write(portion)
        sent += len(portion)
    await stream.write(END)
    told = b""
    while not told.endswith(b"\n"):
        if not (data := await stream.read()):
            raise RuntimeError("the receiver went away")
        told += data
    counted = json.loads(told)
    if counted["received"] != sent:
        raise RuntimeError(f"{sent} bytes were sent, and {counted['received']} arrived")
    return sent, counted["cpu_s"]


async def round_trips(stream: Bytes, seconds: float) -> list[float]:
    """Requests one after the other; how long each answer took, once they are under way."""
    await stream.write(b"E")
    trips_s: list[float] = []
    deadline = time.perf_counter() + seconds
    while (began := time.perf_counter()) < deadline:
        await stream.write(BLOCK[:MESSAGE])
        left = MESSAGE
        while left:
            left -= len(await stream.read())
        trips_s.append(time.perf_counter() - began)
    return trips_s[WARM_UP_TRIPS:] or trips_s


async def _serve(kind: str, home: Path) -> None:
    print(await serve(kind, home, answer), flush=True)
    await asyncio.Event().wait()


def main(arguments: list[str]) -> None:
    """Entry of the child processes."""
    import uvloop

    verb, kind, *rest, core = arguments
    _stay_on(core)
    if verb == "serve":
        uvloop.run(_serve(kind, Path(rest[0])))
    else:
        port, workload, seconds, home = rest
        found = uvloop.run(_load(kind, int(port), workload, float(seconds), Path(home)))
        json.dump(asdict(found), sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
