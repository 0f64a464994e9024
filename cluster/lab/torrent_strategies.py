"""Experiment about BitTorrent: a slow seed dies early. Which way to choose pieces saves the file?

One seed, PEERS peers that give a quarter of what the seed does, one after the other. Everything is
real but the sockets and the clock: dht/torrent/simulation.py.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cluster.lab.outcome import Check, Curve, Outcome, Panel
from dht.torrent.shape import BLOCK
from dht.torrent.simulation import World, fluid_bound_s, make_content
from dht.torrent.strategies import STRATEGIES

PIECES: Final = 128
PIECE_LENGTH: Final = 2 * BLOCK
PEERS: Final = 8
SEED_RATE: Final = 256 << 10
PEER_RATE: Final = SEED_RATE // 4
DEATHS: Final = (1.0, 1.25, 1.5)  # contents' worth that the seed has sent before it dies
RUNS: Final = 3
LIMIT_S: Final = 2000.0


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one swarm: pieces that nobody has any more, and when each peer was complete."""

    lost: int
    completed_s: Sequence[float]


def swarm(seed: int, strategy: str, death: float | None) -> Run:
    """One swarm; the seed dies once it has sent `death` times the content, or never."""
    info, content = make_content(PIECES, PIECE_LENGTH)
    world = World(seed, info, content)
    source = world.add("seed", seed=True, upload_limit=SEED_RATE)
    peers = [
        world.add(f"peer{number}", strategy=strategy, upload_limit=PEER_RATE)
        for number in range(PEERS)
    ]
    world.introduce()
    if death is not None:
        world.run(lambda: source.swarm.giving.total >= death * len(content), LIMIT_S)
        source.kill()
        lost = sum(world.holders(piece) == 0 for piece in range(PIECES))
        # What the living have between them must come to all of them.
        there = PIECES - lost
        world.run(lambda: all(len(peer.pieces) >= there for peer in peers), LIMIT_S)
        lost = sum(world.holders(piece) == 0 for piece in range(PIECES))
        return Run(lost, [])
    world.run(lambda: all(peer.completed_at is not None for peer in peers), LIMIT_S)
    return Run(0, sorted(peer.completed_at or LIMIT_S for peer in peers))


def strategies(seed: int) -> Outcome:
    """A slow seed dies early: pieces lost and time to complete, by strategy."""
    length = PIECES * PIECE_LENGTH
    bound_s = fluid_bound_s(length, SEED_RATE, [PEER_RATE] * PEERS)
    lost = Panel("contents' worth that the seed had sent when it died", "pieces lost, %")
    time = Panel("seconds", "peers that are complete")
    mean: dict[str, list[float]] = {}
    last_s: dict[str, float] = {}
    for name in STRATEGIES:
        mean[name] = [
            statistics.mean(swarm(seed + run, name, death).lost for run in range(RUNS))
            for death in DEATHS
        ]
        points = [(x, 100 * y / PIECES) for x, y in zip(DEATHS, mean[name], strict=True)]
        lost.curves.append(Curve(name, points))
        whole = swarm(seed, name, None).completed_s
        last_s[name] = whole[-1]
        time.curves.append(Curve(name, [(at, n) for n, at in enumerate(whole, 1)]))
    time.curves.append(Curve("fluid bound", [(bound_s, 0), (bound_s, PEERS)], dashed=True))
    late = f"{DEATHS[-1]:g} contents sent, then dead"
    checks = [
        Check(f"{late}: pieces lost, rarest first", mean["rarest"][-1], most=PIECES * 0.03),
        Check(f"{late}: lost at random / rarest first",
              mean["random"][-1] / max(mean["rarest"][-1], 1), least=2),
        *(
            Check(f"{death:g} contents sent, then dead: lost in order, beyond rarest first",
                  mean["sequential"][at] - mean["rarest"][at], least=PIECES * 0.25)
            for at, death in enumerate(DEATHS)
        ),
        *(
            Check(f"the seed lives: last peer / fluid bound, {name}",
                  last_s[name] / bound_s, most=1.5)
            for name in ("random", "rarest", "strict", "parallel")
        ),
        Check("the seed lives: last peer / fluid bound, sequential",
              last_s["sequential"] / bound_s, least=1.5),
    ]  # fmt: skip
    return Outcome(
        "strategies",
        "While a slow seed lives, any order but the front-to-back one does; once it dies early, "
        "only rarest first has saved nearly all of the file: what it sent was new each time.",
        checks,
        [lost, time],
    )


EXPERIMENTS: Final = {"strategies": strategies}
