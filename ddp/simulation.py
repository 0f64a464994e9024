"""All ranks of a group in one thread, without time or sockets: every order of events is a seed.

    world = Simulation(size=4, seed=7)
    operations = world.all_call(call, vectors)
    world.run(kill={2: 17})             # rank 2 dies after 17 deliveries
    outcomes = [op.error for op in operations]

A link keeps its order and nothing else: which link delivers next is the dice's choice. A death
cuts what the dead had under way on each link at some place, and is noticed by each survivor at a
time of its own.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from ddp.call import Call
from ddp.elements import Array
from ddp.engine import Engine
from ddp.errors import DdpError
from ddp.frames import Decoder, Frame
from ddp.operation import Operation

# Beyond every deadline.
LATER: Final = 1e9


class Simulation:
    """See above. `make`: what each rank's engine is, for bugs planted on purpose."""

    def __init__(self, size: int, seed: int, *, epoch: int = 1, make: Any = Engine) -> None:
        self.rng = random.Random(seed)
        self.engines: list[Engine] = [make(rank, size, epoch) for rank in range(size)]
        # What they carry is read when it arrives: a payload that was overwritten meanwhile shows.
        self.links: dict[tuple[int, int], deque[Frame]] = {
            (a, b): deque() for a in range(size) for b in range(size) if a != b
        }
        self.dead: set[int] = set()
        self.delivered = 0
        self._unaware: list[tuple[int, int]] = []  # (survivor, dead)
        self._decoders = {link: Decoder() for link in self.links}

    def __repr__(self) -> str:
        return f"<Simulation ranks={len(self.engines)} dead={sorted(self.dead)}>"

    def all_call(self, call: Call, vectors: Sequence[Array]) -> list[Operation | DdpError]:
        """Every living rank makes the call; where it cannot, why not."""
        return [self.call(rank, call, vector) for rank, vector in enumerate(vectors)]

    def call(self, rank: int, call: Call, vector: Array) -> Operation | DdpError:
        """One rank makes the call."""
        try:
            return self.engines[rank].start(call, vector, 0.0, LATER / 2)
        except DdpError as error:
            return error

    def run(self, kill: dict[int, int] | None = None, steps_max: int = 1_000_000) -> None:
        """Until nothing moves; `kill`: rank -> after how many deliveries."""
        left = dict(kill or {})
        for _ in range(steps_max):
            for rank, after in list(left.items()):
                if self.delivered >= after:
                    del left[rank]
                    self.kill(rank)
            self._collect()
            moves = [link for link, frames in self.links.items() if frames]
            choices = len(moves) + len(self._unaware)
            if not choices:
                if not left:
                    return
                self.delivered = min(left.values())  # it dies when all is quiet
                continue
            pick = self.rng.randrange(choices)
            if pick < len(moves):
                self._deliver(moves[pick])
            else:
                survivor, dead = self._unaware.pop(pick - len(moves))
                if survivor not in self.dead:
                    self.engines[survivor].lost(dead, "it was killed", 0.0)
        raise AssertionError(f"{self!r} does not come to rest")

    def kill(self, rank: int) -> None:
        """kill -9: on each link some of what it sent still arrives."""
        self._collect()
        self.dead.add(rank)
        for (src, dst), frames in self.links.items():
            if dst == rank:
                frames.clear()
            elif src == rank:
                for _ in range(self.rng.randint(0, len(frames))):
                    frames.pop()
        self._unaware += [(r, rank) for r in range(len(self.engines)) if r not in self.dead]

    def _collect(self) -> None:
        for src, engine in enumerate(self.engines):
            for dst, frame in engine.take_outputs():
                if src not in self.dead and dst not in self.dead:
                    self.links[src, dst].append(frame)
                engine.sent(len(frame.payload), 0.0)

    def _deliver(self, link: tuple[int, int]) -> None:
        src, dst = link
        self.delivered += 1
        data = self.links[link].popleft().encode()
        for frame in self._decoders[link].feed(data):
            self.receive(src, dst, frame)

    def receive(self, src: int, dst: int, frame: Frame) -> None:
        """Hand over one frame."""
        if dst not in self.dead:
            self.engines[dst].receive(src, frame, 0.0)
