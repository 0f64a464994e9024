"""Fuzzes the transport, guided by coverage: `python tests/fuzz/fuzz.py TARGET [FLAGS]`.

    packet, parameters, tokens, frames     the parsers, alone (fuzz_parsers.py)
    handshake                              two sides, and a line that damages (fuzz_handshake.py)
    connection                             one connection and a hostile peer with its keys
    host                                   a host among strangers, and an honest peer of it

FLAGS are libFuzzer's: -max_total_time=60, -runs=N, -seed=N. What was found is left in a file,
and the command that plays it again is its name behind the target's. Inputs that reach something
new are kept in a folder of temporary files, where the next run begins.

A finding becomes a line of `regressions.txt`, which `make test` plays. It also plays some hundred
inputs of each target, always the same ones, without Atheris (test_fuzz.py).
"""

from __future__ import annotations

import hashlib
import importlib
import random
import sys
import tempfile
from pathlib import Path
from typing import NoReturn, Protocol

FOLDER = Path(__file__).parent
REGRESSIONS = FOLDER / "regressions.txt"
CORPUS = Path(tempfile.gettempdir(), "ring-fuzz")

# Where each target is; imported by name, for Atheris must see the import.
TARGETS = {
    "packet": ("fuzz_parsers", "Datagrams"),
    "parameters": ("fuzz_parsers", "TransportParameters"),
    "tokens": ("fuzz_parsers", "Tokens"),
    "frames": ("fuzz_parsers", "Frames"),
    "handshake": ("fuzz_handshake", "HostileLine"),
    "connection": ("fuzz_connection", "HostileConnection"),
    "host": ("fuzz_host", "HostileHost"),
}

# An input that grows without end makes each run slower and reaches nothing new.
INPUT_BYTES_MAX = 4096

# Inputs that are kept and changed again, where coverage does not choose them.
POOL_MAX = 200

# How often an input is changed by units of the target instead of by libFuzzer's bytes.
UNITS_SHARE = 0.5


class Target(Protocol):
    """What is fuzzed. A unit is a frame, or a step of a program."""

    def seeds(self) -> list[bytes]: ...  # inputs to begin with
    def cuts(self, data: bytes) -> list[int]: ...  # where a unit may begin
    def invent(self, rng: random.Random) -> bytes: ...  # a unit that is well-formed
    def run(self, data: bytes) -> None: ...  # raises what is a finding, and nothing else


def make(name: str) -> Target:
    """The target of that name."""
    module, cls = TARGETS[name]
    target: Target = getattr(importlib.import_module(module), cls)()
    return target


def regressions(name: str) -> list[bytes]:
    """Inputs of the target that once went wrong."""
    lines = (line.split() for line in REGRESSIONS.read_text().splitlines())
    return [bytes.fromhex(line[1]) for line in lines if line and line[0] == name]


def changed(target: Target, data: bytes, rng: random.Random) -> bytes:
    """`data` with one thing about it different."""
    cuts = target.cuts(data)
    i, at = rng.randrange(len(cuts)), rng.choice(cuts)
    begin, end = cuts[i], cuts[min(i + 1, len(cuts) - 1)]
    match rng.randrange(8):
        case 0:
            data = data[:begin] + data[end:]
        case 1:
            data = data[:at] + data[begin:end] + data[at:]
        case 2 if data:  # a field that is a little more or less, or has another bit
            width, at = rng.choice((1, 2, 4, 8)), rng.randrange(len(data))
            value = int.from_bytes(data[at : at + width], "big")
            value = rng.choice((value - 1, value + 1, value ^ 1 << rng.randrange(8 * width)))
            field = (value % (1 << 8 * width)).to_bytes(width, "big")
            data = data[:at] + field + data[at + width :]
        case 3:
            data = data[: rng.randrange(len(data) + 1)]
        case _:
            data = data[:at] + target.invent(rng) + data[at:]
    return data[:INPUT_BYTES_MAX]


def by_chance(target: Target, runs: int) -> None:
    """So many inputs, the same each time; coverage guides nothing here."""
    rng, pool = random.Random(type(target).__name__), target.seeds()
    for data in pool:
        target.run(data)
    for _ in range(runs):
        data = changed(target, rng.choice(pool), rng)
        target.run(data)
        pool.append(data)
        if len(pool) > POOL_MAX:
            del pool[rng.randrange(POOL_MAX)]


def main(argv: list[str]) -> NoReturn:
    if not argv or argv[0] not in TARGETS:
        sys.exit(f"{__doc__}\nthe first argument is a target: {', '.join(TARGETS)}")
    try:
        import atheris
    except ImportError:
        sys.exit("Atheris is missing: .venv/bin/python -m pip install -c constraints.txt atheris")
    with atheris.instrument_imports(include=["netstack.transport"]):
        target = make(argv[0])

    def mutate(data: bytes, size_max: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < UNITS_SHARE:
            return changed(target, data, rng)[:size_max]
        return bytes(atheris.Mutate(data, size_max))

    corpus = CORPUS / argv[0]
    corpus.mkdir(parents=True, exist_ok=True)
    for data in target.seeds() + regressions(argv[0]):
        (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    folders = [] if any(Path(argument).is_file() for argument in argv[1:]) else [str(corpus)]
    flags = [f"-max_len={INPUT_BYTES_MAX}", f"-artifact_prefix={CORPUS}/{argv[0]}-", *argv[1:]]
    atheris.Setup([sys.argv[0], *flags, *folders], target.run, custom_mutator=mutate)
    atheris.Fuzz()
    raise SystemExit


if __name__ == "__main__":
    # Run as a file, the root of the repository is not where modules are looked for.
    sys.path.insert(0, str(FOLDER.parents[1]))
    main(sys.argv[1:])
