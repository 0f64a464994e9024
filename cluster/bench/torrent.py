"""`ring bench torrent`: one seed to one leecher and to four, beside libtorrent.

Each peer is a process; the content crosses 127.0.0.1, is hashed and written by each leecher. The
clock of a leecher runs from the first connection to the last verified piece; a case's figure is all
the bytes that leechers got, divided by the slowest one's time. Beside it stands the processor time
that all peers took together, which depends less on what else the machine does. At last the
seed is capped, and the swarm held against the time that none can beat: Kumar and Ross (2006).
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster.bench.harness import Report, Row
from cluster.bench.torrent_peers import HOST, KINDS
from dht.torrent.creation import create
from dht.torrent.metainfo import make_torrent
from dht.torrent.simulation import fluid_bound_s

ROUNDS: Final = 3
# Bytes, by what carries them: over UDP a quarter suffices, and libtorrent's uTP takes its time.
SIZE: Final = {"tcp": 256 << 20, "netstack": 64 << 20, "utp": 64 << 20}
LEECHERS: Final = (1, 4)
CAPPED_LEECHERS: Final = 4
# Bytes a second that the seed gives in the last case, and of what: so few that the machine is not
# what holds the swarm up.
CAP: Final = 8e6
CAPPED_SIZE: Final = 64 << 20
PATIENCE_S: Final = 240.0

# (ours, theirs) -> the least ratio, as this project has set itself.
BARS: Final = {("ours tcp", "libtorrent tcp"): 0.6, ("ours netstack", "libtorrent utp"): 1.0}
FLUID_BAR: Final = 1.5


def run(*, peers: bool, seconds: float = 3.0) -> Report:
    """Take all rounds, each kind in turn. `seconds` is not used: a round is a content."""
    report = Report("torrent")
    installed = importlib.util.find_spec("libtorrent") is not None
    kinds = [k for k in KINDS if k.startswith("ours") or (peers and installed)]
    with tempfile.TemporaryDirectory(prefix="ring-bench-") as name:
        home = Path(name)
        torrents = {size: _content(home, size) for size in set(SIZE.values())}
        for leechers in LEECHERS:
            runs: dict[str, list[Run]] = {kind: [] for kind in kinds}
            for _ in range(ROUNDS):
                for kind in kinds:
                    runs[kind].append(swarm(kind, home, torrents[_size(kind)], leechers))
            report.rows += _rows(leechers, runs, peers)
        bound_s = fluid_bound_s(CAPPED_SIZE, CAP, [float("inf")] * CAPPED_LEECHERS)
        times = [
            swarm("ours tcp", home, torrents[CAPPED_SIZE], CAPPED_LEECHERS, CAP).seconds
            for _ in range(ROUNDS)
        ]
        case = f"1 to {CAPPED_LEECHERS}, seed capped at {CAP / 1e6:g} MB/s: time / fluid bound"
        report.rows.append(
            Row(case, "time", "×", statistics.median(times) / bound_s, bar=FLUID_BAR)
        )
    return report


@dataclass(frozen=True, slots=True)
class Run:
    """One round: what the slowest leecher took, and processor time of all peers together."""

    seconds: float
    cpu_s: float


def _size(kind: str) -> int:
    return SIZE[kind.split()[1]]


def _rows(leechers: int, runs: dict[str, list[Run]], peers: bool) -> list[Row]:
    def rate(kind: str) -> float:
        return leechers * _size(kind) / statistics.median(r.seconds for r in runs[kind]) / 1e6

    def cpu(kind: str) -> float:
        return statistics.median(r.cpu_s for r in runs[kind]) / (leechers * _size(kind) / 1e9)

    rows = []
    for (ours, theirs), bar in BARS.items():
        case = f"{ours}, 1 to {leechers}: all leechers together"
        if not peers:
            rows += [
                Row(case, "rate", "MB/s", rate(ours)),
                Row(case, "time", "CPU s/GB", cpu(ours)),
            ]
        elif theirs in runs:
            rows += [
                Row(case, "rate", "MB/s", rate(ours), theirs, rate(theirs), bar),
                Row(case, "time", "CPU s/GB", cpu(ours), theirs, cpu(theirs)),
            ]
        else:
            note = "libtorrent is not installed"
            rows.append(Row(case, "rate", "MB/s", rate(ours), theirs, None, bar, note))
    return rows


def _content(home: Path, size: int) -> Path:
    (home / "source").mkdir(exist_ok=True)
    block, name = os.urandom(1 << 20), f"content-{size >> 20}"
    with (home / "source" / name).open("wb") as file:
        for number in range(size >> 20):
            file.write(number.to_bytes(8, "big") + block[8:])
    torrent = home / f"{name}.torrent"
    torrent.write_bytes(make_torrent(create(home / "source" / name)))
    return torrent


def swarm(kind: str, home: Path, torrent: Path, leechers: int, limit: float = 0.0) -> Run:
    """One round; raises RuntimeError if what was fetched is not what was given."""
    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory(dir=home) as out:
        seed_port, *ports = _ports(1 + leechers)
        seed = stack.enter_context(
            _peer(home, kind, "seed", torrent, home / "source", seed_port, 0, limit)
        )
        _expect(seed, "ready")
        getters = [
            stack.enter_context(
                _peer(home, kind, "get", torrent, Path(out) / str(port), port, seed_port, 0.0)
            )
            for port in ports
        ]
        for getter in getters:
            _expect(getter, "ready")
        began_s = _cpu_s([seed, *getters])
        for at, getter in enumerate(getters):
            assert getter.stdin is not None
            # Each calls those before it: all know all, and no two call one another at once.
            getter.stdin.write(" ".join(["go", *map(str, ports[:at])]) + "\n")
            getter.stdin.flush()
        took = [float(_expect(getter, "done")) for getter in getters]
        cpu_s = _cpu_s([seed, *getters]) - began_s
        source = home / "source" / torrent.stem
        for port in ports:
            got = Path(out) / str(port) / torrent.stem
            if subprocess.run(["cmp", source, got], check=False).returncode:
                raise RuntimeError(f"{kind}: what was fetched is not what was given")
        return Run(max(took), cpu_s)


def _cpu_s(processes: list[subprocess.Popen[str]]) -> float:
    """Processor time that they have taken, all threads."""
    ticks = 0
    for process in processes:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # utime, stime
    return ticks / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def _peer(
    home: Path, kind: str, verb: str, torrent: Path, folder: Path, port: int,
    seed_port: int, limit: float,
) -> Iterator[subprocess.Popen[str]]:  # fmt: skip
    folder.mkdir(exist_ok=True)
    arguments = [kind, verb, torrent, folder, port, seed_port, limit]
    process = subprocess.Popen(
        [sys.executable, "-m", "cluster.bench.torrent_peers", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"BENCH_HOME": str(home)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        if verb == "get":
            shutil.rmtree(folder, ignore_errors=True)


def _expect(process: subprocess.Popen[str], word: str) -> str:
    """The rest of the line that begins so; raises RuntimeError."""
    import selectors

    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(PATIENCE_S):
            raise RuntimeError(f"no {word!r} within {PATIENCE_S:g} s")
    line = process.stdout.readline()
    if not line.startswith(word):
        raise RuntimeError(f"a peer said {line!r} instead of {word!r}")
    return line.removeprefix(word).strip()


def _ports(count: int) -> list[int]:
    """Free for TCP and UDP."""
    found: list[int] = []
    while len(found) < count:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        ):
            tcp.bind((HOST, 0))
            port = tcp.getsockname()[1]
            with contextlib.suppress(OSError):
                udp.bind((HOST, port))
                if port not in found:
                    found.append(port)
    return found
