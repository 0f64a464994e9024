"""`make fast`: compile the modules on the hot paths with mypyc, beside the sources, not in place.

    python scripts/compile.py            compile, unless nothing has changed since the last time
    python scripts/compile.py --remove   back to plain Python

mypyc makes a C extension of an annotated module as it stands; what it computes stays the same, and
takes a third or a quarter of the time where much is done in Python for few bytes. The twins go
into the virtual environment; `compiled_finder.py`, put there too, serves them as long as their
sources are unchanged. It takes a C compiler and Python's headers (Debian: gcc, python3-dev);
without them everything works as before.
"""

from __future__ import annotations

import argparse
import ast
import json
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import compiled_finder

ROOT = Path(__file__).resolve().parents[1]
HOME = Path(compiled_finder.HOME)
SITE = Path(sysconfig.get_path("purelib"))

# Of each group one extension is made: within it, calls and attributes are C's. What runs once in a
# while stays Python, and so do async generators, which mypyc does not know.
GROUPS: dict[str, list[str]] = {
    "transport": [
        "security/channel.py",
        "security/replay.py",
        "netstack/runtime/busy_poll.py",
        "netstack/runtime/clock.py",
        "netstack/runtime/disk.py",
        "netstack/runtime/dgram_endpoint.py",
        "netstack/runtime/executor.py",
        "netstack/runtime/faulty_endpoint.py",
        "netstack/runtime/gso_endpoint.py",
        "netstack/runtime/os_disk.py",
        "netstack/runtime/sockets.py",
        "netstack/transport/acks.py",
        "netstack/transport/congestion/aimd.py",
        "netstack/transport/congestion/base.py",
        "netstack/transport/congestion/bbr.py",
        "netstack/transport/congestion/cubic.py",
        "netstack/transport/congestion/dctcp.py",
        "netstack/transport/congestion/fixed.py",
        "netstack/transport/congestion/hystart.py",
        "netstack/transport/congestion/newreno.py",
        "netstack/transport/connection.py",
        "netstack/transport/controllers.py",
        "netstack/transport/ecn.py",
        "netstack/transport/events.py",
        "netstack/transport/flow.py",
        "netstack/transport/frames.py",
        "netstack/transport/host.py",
        "netstack/transport/mtu.py",
        "netstack/transport/outgoing.py",
        "netstack/transport/pacing.py",
        "netstack/transport/packet.py",
        "netstack/transport/parser.py",
        "netstack/transport/path_rate.py",
        "netstack/transport/peer.py",
        "netstack/transport/ranges.py",
        "netstack/transport/recovery.py",
        "netstack/transport/rtt.py",
        "netstack/transport/stream_set.py",
        "netstack/transport/streams.py",
        "netstack/rpc/client.py",
        "netstack/rpc/connection.py",
        "netstack/rpc/dedup.py",
        "netstack/rpc/frames.py",
        "netstack/rpc/node.py",
        "netstack/rpc/service.py",
    ],
    "raft": [
        "raftd/commands.py",
        "raftd/core.py",
        "raftd/leader.py",
        "raftd/lease.py",
        "raftd/log.py",
        "raftd/membership.py",
        "raftd/messages.py",
        "raftd/model.py",
        "raftd/outputs.py",
        "raftd/progress.py",
        "raftd/quorum.py",
        "raftd/reads.py",
        "raftd/replica.py",
        "raftd/sessions.py",
        "raftd/space.py",
        "raftd/store.py",
        "raftd/unsaved.py",
        "raftd/wal.py",
        "raftd/watch.py",
    ],
    "ring": [
        "dht/chord/copies.py",
        "dht/chord/journal.py",
        "dht/chord/keeper.py",
        "dht/chord/lookup.py",
        "dht/chord/member.py",
        "dht/chord/node.py",
        "dht/chord/outputs.py",
        "dht/chord/peers.py",
        "dht/chord/records.py",
        "dht/chord/replicas.py",
        "dht/chord/ring.py",
        "dht/chord/turns.py",
        "dht/chord/wire.py",
        "dht/chord/writer.py",
        "dht/client.py",
        "dht/ranges.py",
        "dht/requests.py",
        "dht/seeker.py",
    ],
    "torrent": [
        "dht/torrent/connection.py",
    ],
    "collectives": [
        "ddp/call.py",
        "ddp/engine.py",
        "ddp/execution.py",
        "ddp/frames.py",
        "ddp/messages.py",
        "ddp/network.py",
        "ddp/operation.py",
        "ddp/recorder.py",
        "ddp/switchboard.py",
    ],
}


def compile_groups(build: Path) -> None:
    """All groups, into `build`/lib."""
    from mypyc.build import mypycify
    from setuptools import setup

    flags = ["--config-file", str(ROOT / "pyproject.toml")]
    paths = [path for group in GROUPS.values() for path in group]
    extensions = mypycify(
        [*flags, *paths],
        opt_level="1",
        separate=[(group, name) for name, group in GROUPS.items()],
        target_dir=str(build / "c"),
    )
    for extension in extensions:
        extension.extra_compile_args = [*extension.extra_compile_args, "-w"]
    places = ["--build-lib", str(build / "lib"), "--build-temp", str(build / "o")]
    setup(
        name="ringleader-compiled",
        packages=[],
        ext_modules=extensions,
        script_args=["--quiet", "build_ext", *places, "--parallel", "2"],
    )


def install(built: Path, sources: dict[str, str]) -> None:
    """Put the twins of these sources and their finder into the virtual environment."""
    shutil.rmtree(HOME, ignore_errors=True)
    shutil.copytree(built, HOME)
    (HOME / "manifest.json").write_text(json.dumps(manifest(sources), indent=1))
    shutil.copy(compiled_finder.__file__, SITE / "ringleader_compiled.py")
    (SITE / "ringleader_compiled.pth").write_text("import ringleader_compiled\n")


def remove() -> None:
    """Back to plain Python."""
    shutil.rmtree(HOME, ignore_errors=True)
    for name in ("ringleader_compiled.py", "ringleader_compiled.pth"):
        (SITE / name).unlink(missing_ok=True)


def possible() -> bool:
    """Whether this machine can compile an extension."""
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    return headers.exists() and shutil.which("cc") is not None


def digests() -> dict[str, str]:
    """Of each source that the twins were made of, as it is now.

    That is more than those that have a twin: mypyc writes what is Final in one module into all
    that use it.
    """
    waiting = {path for group in GROUPS.values() for path in group}
    found: dict[str, str] = {}
    while waiting:
        path = waiting.pop()
        found[path] = compiled_finder.digest(str(ROOT / path))
        waiting |= imported(path) - found.keys()
    return dict(sorted(found.items()))


def imported(path: str) -> set[str]:
    """The project's files that this one imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    files = {name.replace(".", "/") + ".py" for name in names}
    return {file for file in files if (ROOT / file).is_file()}


def manifest(sources: dict[str, str]) -> dict:
    """Of the twins that are in place, made of these sources."""
    files = sorted(str(path.relative_to(HOME)) for path in HOME.rglob("*.so"))
    modules = {file.partition(".")[0].replace("/", "."): file for file in files}
    return {"root": str(ROOT), "python": sys.version, "modules": modules, "sources": sources}


def up_to_date() -> bool:
    """Whether the twins in place are of these sources, this list and this Python."""
    try:
        found = json.loads((HOME / "manifest.json").read_text())
    except (OSError, ValueError):
        return False
    return bool(found == manifest(digests()))


def main() -> None:
    parser = argparse.ArgumentParser(description="Compile the modules on the hot paths.")
    parser.add_argument("--remove", action="store_true", help="back to plain Python")
    if parser.parse_args().remove:
        remove()
        print("fast: removed; everything is plain Python again")
        return
    if up_to_date():
        print("fast: up to date")
        return
    if not possible():
        print(
            "fast: no C compiler, or no headers of this Python: everything runs as plain Python "
            "(Debian: apt-get install gcc python3-dev)",
            file=sys.stderr,
        )
        sys.exit(2)
    print("fast: compiling takes a few minutes")
    # As they are before: what is edited meanwhile must not pass for what was compiled.
    sources = digests()
    with tempfile.TemporaryDirectory(prefix="ring-fast-") as folder:
        compile_groups(Path(folder))
        install(Path(folder) / "lib", sources)
    count = sum(map(len, GROUPS.values()))
    print(f"fast: {count} modules compiled into {HOME}; RING_PURE=1 runs without them")


if __name__ == "__main__":
    main()
