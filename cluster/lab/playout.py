"""Experiment about play-out: how many segments must wait, so that none is waited for."""

from __future__ import annotations

import math
import random

from cluster.lab.outcome import Check, Curve, Outcome, Panel
from netstack.presets.datagrams import DatagramSocket
from netstack.presets.jitter import JitterBuffer, Slot, segments_needed
from netstack.presets.media import MediaReceiver, MediaSender
from netstack.runtime.policy import LinkPolicy
from netstack.runtime.runtime import Runtime
from netstack.runtime.simulation.world import EPOCH, World
from security.identity import Authority

CLOCK_RATE = 8_000  # ticks a second, as in telephony
PER_MS = CLOCK_RATE // 1000

# The path: 20 to 80 ms in order, and every fifth segment is held up by 40 ms and overtaken.
PATH = LinkPolicy(delay_s=0.020, jitter_s=0.060, reorder=0.2, reorder_s=0.040)
SHORTEST, LONGEST = 20 * PER_MS, 120 * PER_MS

HEADWAYS_MS = (10, 20, 40)
EXAMPLE_MS = 20  # the one that is shown in full
SHOWN = 40  # its segments
SECONDS = 20.0
LISTENERS = 40  # the same stream, tuned in to at so many moments

PLAYER = ("127.0.0.1", 5004)  # RTP's port

Arrivals = list[tuple[int, int]]  # (sequence number, tick), in the order of arrival


class Recording(JitterBuffer):
    """A buffer that remembers when its segments came."""

    def __init__(self, segments: int, headway: int) -> None:
        super().__init__(segments, headway)
        self.arrivals: Arrivals = []

    def receive(self, index: int, payload: bytes, now: int) -> None:
        """See JitterBuffer."""
        self.arrivals.append((index, now))
        super().receive(index, payload, now)


def over_the_link(seed: int, headway: int, seconds: float) -> Recording:
    """Media over a link whose delays are anything from SHORTEST to LONGEST, and its play-out."""
    rng = random.Random(seed)
    authority = Authority.create("lab", now=EPOCH, entropy=rng.randbytes)
    world = World(seed)
    world.network.base_policy = PATH
    buffer = Recording(segments_needed(LONGEST, SHORTEST, headway), headway)
    count = int(seconds * CLOCK_RATE / headway)
    ready, over = world.loop.create_future(), world.loop.create_future()

    async def socket(runtime: Runtime, port: int) -> DatagramSocket:
        who = authority.issue(runtime.node, "media", now=EPOCH, entropy=rng.randbytes)
        bound = DatagramSocket(runtime, who, service="media")
        await bound.bind((PLAYER[0], port))
        return bound

    def played(slot: Slot) -> None:
        if buffer.played + buffer.concealed == count:
            over.set_result(None)

    async def player(runtime: Runtime) -> None:
        here = await socket(runtime, PLAYER[1])
        MediaReceiver(runtime, here, buffer, clock_rate=CLOCK_RATE, play=played)
        ready.set_result(None)

    async def source(runtime: Runtime) -> None:
        await ready
        here = await socket(runtime, 0)
        await here.reach(PLAYER)
        sender = MediaSender(runtime, here, PLAYER, clock_rate=CLOCK_RATE, headway=headway)
        await sender.stream(bytes(headway) for _ in range(count))

    async def scenario() -> None:
        for name, start in (("player", player), ("source", source)):
            world.add_node(name, start)
            world.restart(name)
        await over

    try:
        world.run(scenario())
    finally:
        world.close()
    return buffer


def listen(arrivals: Arrivals, segments: int, headway: int) -> tuple[list[Slot], int]:
    """What a listener plays who tunes in with the first of these arrivals, and his under-runs."""
    buffer = JitterBuffer(segments, headway)
    slots: list[Slot] = []
    for sequence, now in arrivals:
        slots += buffer.play(now - 1)  # what arrives at the moment it is due is in time
        buffer.receive(sequence, b"a segment", now)
    last = max(sequence for sequence, _ in arrivals)
    while (due := buffer.next_deadline()) is not None and (not slots or slots[-1].sequence < last):
        slots += buffer.play(due)
    # Not all gaps: a segment that was overtaken by the first he heard was never his.
    return slots, buffer.late


def fastest(arrivals: Arrivals, headway: int) -> int:
    """Where in the first half the worst listener tunes in: with a delay that all others exceed."""
    transits = [tick - sequence * headway for sequence, tick in arrivals[: len(arrivals) // 2]]
    return transits.index(min(transits))


def underruns(arrivals: Arrivals, segments: int, headway: int) -> tuple[int, int]:
    """(under-runs, slots) of all listeners together."""
    step = len(arrivals) // (2 * LISTENERS)
    starts = [fastest(arrivals, headway), *range(0, LISTENERS * step, step)]
    heard = [listen(arrivals[start:], segments, headway) for start in starts]
    return sum(late for _, late in heard), sum(len(slots) for slots, _ in heard)


def jitter(seed: int) -> Outcome:
    """Play-out in step: under-runs against the size of the buffer, beside the formula."""
    checks: list[Check] = []
    formula: list[tuple[float, float]] = []
    share = Panel("segments in the buffer", "under-runs in 1,000 segments")
    for headway_ms in HEADWAYS_MS:
        headway = headway_ms * PER_MS
        needed = segments_needed(LONGEST, SHORTEST, headway)
        live = over_the_link(seed, headway, SECONDS)
        found = {n: underruns(live.arrivals, n, headway) for n in range(needed + 3)}
        share.curves.append(
            Curve(
                f"a segment each {headway_ms} ms: the formula says {needed}",
                [(n, 1000 * late / slots) for n, (late, slots) in found.items()],
            )
        )
        formula.append((needed, 0))
        every = f"each {headway_ms} ms, "
        checks += [
            Check(f"{every}{needed} segments by the formula: under-runs",
                  live.late + found[needed][0], most=0),
            Check(f"{every}one less: under-runs", found[needed - 1][0], least=1),
        ]  # fmt: skip
        if headway_ms == EXAMPLE_MS:
            noted = math.ceil((LONGEST - SHORTEST) / ((LONGEST + SHORTEST) / 2))
            checks.append(
                Check(f"{every}{noted} segments, by the mean delay instead of the headway:"
                      " under-runs", found[noted][0], least=1)
            )  # fmt: skip
            story = timeline(live.arrivals, noted, needed, headway)
    share.curves.append(Curve("by the formula", formula, dots=True))
    return Outcome(
        "jitter",
        "If the first segment waits as long as delays can differ, all others come in time: "
        "(longest - shortest) / headway segments, rounded up, are enough, and one less is not.",
        checks,
        [share, story],
    )


def timeline(arrivals: Arrivals, small: int, enough: int, headway: int) -> Panel:
    """Sent, arrived, played: one listener, who happens to tune in with the fastest segment."""
    start = fastest(arrivals, headway)
    heard = arrivals[start : start + SHOWN]
    (first, begin), least = heard[0], SHORTEST / PER_MS

    def at(tick: int) -> float:
        return least + (tick - begin) / PER_MS  # milliseconds since the first was sent

    numbers = range(SHOWN)
    panel = Panel("milliseconds", "segment")
    panel.curves = [
        Curve("sent", [(n * headway / PER_MS, n) for n in numbers], dashed=True),
        Curve("arrived", [(at(tick), n - first) for n, tick in heard], dots=True),
    ]
    for segments in (small, enough):
        slots, _ = listen(heard, segments, headway)
        label = f"played, {segments} segments in the buffer"
        panel.curves.append(Curve(label, [(at(s.due), s.sequence - first) for s in slots]))
        missing = [(at(s.due), s.sequence - first) for s in slots if s.payload is None]
        if missing:
            panel.curves.append(Curve(f"nothing there, {segments} segments", missing, dots=True))
    return panel
