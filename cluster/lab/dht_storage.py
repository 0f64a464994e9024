"""How evenly the load lies, and what is lost when many die: virtual nodes and replicas.

With v identifiers a process and many keys, a process's share of the circle is the sum of v of the
gaps between random points; in units of the mean it follows Erlang(v) / v. That holds for any
number of processes, so the paper's figure for 10⁴ nodes has a formula to be held against.
"""

from __future__ import annotations

import math
import random

from cluster.lab.dht_rings import ideal_ring, random_contacts
from cluster.lab.outcome import Check, Curve, Outcome, Panel, percentile
from dht.chord.options import ChordOptions
from dht.chord.replicas import followers
from dht.chord.ring import SIZE, key_id

VNODES = (1, 2, 5, 10, 20)
# The first percentile of the shares is the loosest to find: so many make its standard deviation
# 3 %, a third of the bound.
PROCESSES = 100_000
PERCENTS = (1, 50, 99)

REPLICAS = (1, 2, 3, 4)
DEATHS = (0.1, 0.2, 0.3, 0.4, 0.5)
MEMBERS = 1_000
RINGS = 5
DRAWS = 100  # of the dead, for each ring


def shares(vnodes: int, seed: int) -> list[float]:
    """Each process's share of the circle, in units of the mean."""
    places = sorted(
        (key_id(f"10.{seed}.{p >> 8}.{p & 255}:7400/{v}".encode()), p)
        for p in range(PROCESSES)
        for v in range(vnodes)
    )
    owned = [0.0] * PROCESSES
    before = places[-1][0] - SIZE
    for place, process in places:
        owned[process] += (place - before) / SIZE * PROCESSES
        before = place
    return owned


def erlang_quantile(k: int, share: float) -> float:
    """Below which `share` of Erlang(k) / k lies: its distribution function, halved in on."""
    low, high = 0.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        x = middle * k
        tail = math.exp(-x) * sum(x**n / math.factorial(n) for n in range(k))
        low, high = (middle, high) if 1 - tail < share else (low, middle)
    return low


def load(seed: int) -> Outcome:
    """Load of a process with 1, 2, 5, 10 and 20 virtual nodes, beside the Erlang quantiles."""
    checks = []
    panel = Panel("virtual nodes a process", "share of the circle, mean = 1", log_y=True)
    found: dict[int, list[tuple[float, float]]] = {percent: [] for percent in PERCENTS}
    for vnodes in VNODES:
        owned = shares(vnodes, seed % 256)
        for percent, curve in found.items():
            measured = percentile(owned, percent)
            curve.append((vnodes, measured))
            ratio = measured / erlang_quantile(vnodes, percent / 100)
            claim = f"{vnodes} virtual nodes: {percent}. percentile, in units of Erlang's"
            checks.append(Check(claim, ratio, least=0.9, most=1.1))
    for percent, curve in found.items():
        theory = [(v, erlang_quantile(v, percent / 100)) for v in VNODES]
        panel.curves += [
            Curve(f"{percent}. percentile", curve),
            Curve(f"Erlang, {percent}.", theory, dashed=True),
        ]
    return Outcome(
        "load",
        "With one identifier a process the fullest in a hundred has four and a half times the mean"
        " and the emptiest nothing; with twenty, one and a half times and half.",
        checks,
        [panel],
    )


def lost(replicas: int, fraction: float, rng: random.Random) -> float:
    """The share of the circle, and so of the keys, whose owner and replicas are all dead."""
    gone = 0
    for _ in range(RINGS):
        members = random_contacts(MEMBERS, rng)
        nodes = ideal_ring(members, ChordOptions(successors=max(REPLICAS)))
        at = {member: place for place, member in enumerate(members)}
        ranges = [
            (
                (members[place].id - members[place - 1].id) % SIZE,
                [place, *(at[c] for c in followers(nodes[members[place]])[: replicas - 1])],
            )
            for place in range(MEMBERS)
        ]
        for _ in range(DRAWS):
            dead = set(rng.sample(range(MEMBERS), int(fraction * MEMBERS)))
            gone += sum(size for size, holders in ranges if dead.issuperset(holders))
    return gone / SIZE / RINGS / DRAWS


def expected_loss(replicas: int, fraction: float) -> float:
    """p to the power of r, drawn without putting back: all of r given members are dead."""
    dead = int(fraction * MEMBERS)
    return math.prod((dead - k) / (MEMBERS - k) for k in range(replicas))


def loss_deviation(replicas: int, fraction: float) -> float:
    """The standard deviation of `lost`.

    A draw is a sum over ranges, each lost or not. Their sizes are exponential: the squares add up
    to 2/N of the circle, the products of neighbours k apart to 1/N; such two are lost together if
    r + k members in a row are dead, which is what makes losses come in clusters.
    """
    p, share = fraction, fraction**replicas
    alone = 2 * (share - share**2)
    together = 2 * sum(p ** (replicas + k) - share**2 for k in range(1, replicas))
    return math.sqrt((alone + together) / MEMBERS / (RINGS * DRAWS))


def replicas(seed: int) -> Outcome:
    """Keys lost when 10 to 50 % die at once, with 1 to 4 replicas: p to the power of r."""
    rng = random.Random(seed)
    panel = Panel("share of members that die at once", "share of keys lost", log_y=True)
    checks = []
    for count in REPLICAS:
        curve = [(fraction, lost(count, fraction, rng)) for fraction in DEATHS]
        panel.curves.append(Curve(f"{count} replicas", [p for p in curve if p[1] > 0]))
        panel.curves.append(Curve(f"p^{count}", [(p, p**count) for p in DEATHS], dashed=True))
        for fraction, share in curve:
            # Four deviations: of twenty such checks one fails by chance once in 800 runs.
            off = (share - expected_loss(count, fraction)) / loss_deviation(count, fraction)
            claim = f"{count} replicas, {fraction:.0%} die: keys lost, distance from p^{count}"
            checks.append(Check(claim, abs(off), "deviations", most=4.0))
    return Outcome(
        "replicas",
        "A key is lost only if its owner and all its replicas die at once: p to the power of r.",
        checks,
        [panel],
    )
