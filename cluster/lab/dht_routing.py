"""How far a look-up goes, and what sudden deaths and churn do to it: Chord's own figures.

Stoica et al., "Chord: a scalable peer-to-peer lookup service", SIGCOMM 2001, §6. Its sizes are
kept where they are cheap; its dimensionless axes always.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence

from cluster.lab.dht_rings import LivingRing, ideal_ring, look_up, owner, random_contacts
from cluster.lab.outcome import Check, Curve, Outcome, Panel, percentile
from dht.chord.options import ChordOptions
from dht.chord.ring import BITS

EXPONENTS = range(3, 15)
LOOKUPS = 4_000
SHOWN = 12  # the ring whose distribution is drawn: 2^12
WALK_MOST = 9  # a walk round a larger ring shows nothing new
RINGS = 40  # of the smallest ones, which differ much from one another

DEATHS = (0.1, 0.2, 0.3, 0.4, 0.5)
MEMBERS = 1_000

CHURN_MEMBERS = 500
ROUND_S = 30.0  # between two stabilisations, as in the paper
ROUNDS = 12
FAILURES_A_ROUND = (1 / 3, 1.0, 3.0)
LOOKUPS_A_SECOND = 8


def hops(exponent: int, successors: int, rng: random.Random, *, walk: bool = False) -> list[int]:
    """Steps from whoever asks to the owner's predecessor, if it is not the owner who asks."""
    rings = max(1, RINGS >> (exponent - min(EXPONENTS)))
    found = []
    for _ in range(rings):
        members = random_contacts(1 << exponent, rng)
        nodes = ideal_ring(members, ChordOptions(successors=successors))
        for _ in range((LOOKUPS if not walk else LOOKUPS // 8) // rings):
            start = rng.choice(members)
            answer, lookup = look_up(nodes, start, rng.getrandbits(BITS), walk=walk)
            if answer != start:
                found.append(len(lookup.path) - 2)  # without who asks, and without the owner
    return found


def ones(bits: int, mean: float) -> dict[int, float]:
    """The binomial of so many bits, each of which costs a hop as often as the mean tells."""
    p = mean / bits
    return {n: math.comb(bits, n) * p**n * (1 - p) ** (bits - n) for n in range(bits + 1)}


def misfit(found: Sequence[int], expected: Mapping[int, float]) -> tuple[float, float]:
    """Pearson's chi-square, and what it exceeds once in 100,000 by chance.

    Numbers of hops that fewer than five look-ups should have are put together with their
    neighbours; the mean was taken from the same look-ups, which costs one more degree of freedom.
    The bound is as wide as that because the hops are not binomial to the last digit: members at
    random places make them spread a little less, which adds about as much as chance does.
    """
    counted, total = Counter(found), len(found)
    value, bins, seen, wanted = 0.0, 0, 0.0, 0.0
    left = float(total)
    for n, share in expected.items():
        seen, wanted, left = seen + counted[n], wanted + share * total, left - share * total
        if wanted >= 5 and (left >= 5 or n == max(expected)):
            value, bins = value + (seen - wanted) ** 2 / wanted, bins + 1
            seen = wanted = 0.0
    if wanted > 0:  # the tail
        value, bins = value + (seen - wanted) ** 2 / wanted, bins + 1
    free = bins - 2
    # Wilson and Hilferty: the cube root of chi-square is nearly normal; 4.26 deviations.
    return value, free * (1 - 2 / (9 * free) + 4.26 * math.sqrt(2 / (9 * free))) ** 3


def path_length(seed: int) -> Outcome:
    """Hops of a look-up for 2^3 to 2^14 members: half of log2 N, and how they are spread."""
    rng = random.Random(seed)
    means, longest, listed, walked, worst = [], [], [], [], 0.0
    share: dict[int, float] = {}
    binomial: dict[int, float] = {}
    chi = critical = 0.0
    for exponent in EXPONENTS:
        found = hops(exponent, 1, rng)
        mean = sum(found) / len(found)
        worst = max(worst, abs(mean - exponent / 2))
        means.append((2.0**exponent, mean))
        longest.append((2.0**exponent, percentile(found, 99)))
        with_list = hops(exponent, 8, rng)
        listed.append((2.0**exponent, sum(with_list) / len(with_list)))
        if exponent <= WALK_MOST:
            steps = hops(exponent, 1, rng, walk=True)
            walked.append((2.0**exponent, sum(steps) / len(steps)))
        if exponent == SHOWN:
            share = {n: count / len(found) for n, count in sorted(Counter(found).items())}
            binomial = ones(SHOWN, mean)
            chi, critical = misfit(found, binomial)
    size, steps_mean = walked[-1]
    theory = [(2.0**e, e / 2) for e in EXPONENTS]
    lengths = Panel("members", "hops", log_x=True)
    lengths.curves = [
        Curve("mean, by fingers", means),
        Curve("99th percentile", longest),
        Curve("mean, fingers and a list of 8 successors", listed),
        Curve("½ log₂ N", theory, dashed=True),
    ]
    spread = Panel(f"hops in a ring of 2^{SHOWN}", "share of look-ups")
    spread.curves = [
        Curve("look-ups", list(share.items())),
        Curve(
            f"ones among {SHOWN} bits, of the same mean: binomial",
            list(binomial.items()),
            dashed=True,
        ),
    ]
    walk = Panel("members", "hops", log_x=True, log_y=True)
    walk.curves = [
        Curve("successor by successor", walked),
        Curve("by fingers", means[: len(walked)]),
        Curve("½ N", [(x, x / 2) for x, _ in walked], dashed=True),
    ]
    return Outcome(
        "path-length",
        "A look-up takes half of log2 N hops: each finger halves the way, and half of the bits of"
        " the way are zeros already. Successor by successor it takes half of N.",
        [
            Check("largest distance from ½ log₂ N, N = 2^3 to 2^14", worst, "hops", most=0.3),
            Check(f"2^{SHOWN}: the most frequent number of hops", max(share, key=share.__getitem__),
                  "hops", least=5, most=6),
            Check(f"2^{SHOWN}: chi-square of the hops, against a binomial of their mean", chi,
                  most=round(critical, 1)),
            Check("a walk, in shares of N", steps_mean / size, least=0.45, most=0.55),
        ],
        [lengths, spread, walk],
    )  # fmt: skip


def sudden_deaths(seed: int) -> Outcome:
    """Half of all members die at once: no look-up fails, thanks to successor lists of 2·log2 N."""
    rng = random.Random(seed)
    length = 2 * math.ceil(math.log2(MEMBERS))
    wrong: dict[int, list[tuple[float, float]]] = {8: [], length: []}
    lost, hop_means, timeouts = [], [], []
    checks = []
    for fraction in DEATHS:
        members = random_contacts(MEMBERS, rng)
        dead = set(rng.sample(members, int(fraction * MEMBERS)))
        alive = [member for member in members if member not in dead]
        ids = [member.id for member in alive]
        for successors, curve in wrong.items():
            nodes = ideal_ring(members, ChordOptions(successors=successors))
            for gone in dead:
                del nodes[gone]
            failed, counted, silent = 0, 0, 0
            for _ in range(LOOKUPS):
                target = rng.getrandbits(BITS)
                found, lookup = look_up(nodes, rng.choice(alive), target)
                failed += found != alive[owner(ids, target)]
                counted += len(lookup.path)
                silent += len(lookup.dead)
            curve.append((fraction, failed / LOOKUPS))
            if successors == length:
                hop_means.append((fraction, counted / LOOKUPS))
                timeouts.append((fraction, silent / LOOKUPS))
                checks.append(
                    Check(f"{fraction:.0%} die, {length} successors: look-ups that fail",
                          float(failed), most=0)
                )  # fmt: skip
        all_ids = [member.id for member in members]
        keys = [rng.getrandbits(BITS) for _ in range(10 * LOOKUPS)]
        gone_keys = sum(members[owner(all_ids, key)] in dead for key in keys) / len(keys)
        lost.append((fraction, gone_keys))
    # The share of the circle that so many members own differs from p by chance.
    spread = 3 * math.sqrt(2 * 0.25 / MEMBERS)
    off = max(abs(share - fraction) for fraction, share in lost)
    checks.append(Check("lost keys without replicas, distance from p", off, most=spread))
    losses = Panel("share of members that die at once", "share")
    losses.curves = [
        Curve("keys lost without replicas", lost),
        Curve("p", [(p, p) for p in DEATHS], dashed=True),
        Curve("look-ups that fail, 8 successors", wrong[8]),
        Curve(f"look-ups that fail, {length} successors", wrong[length]),
    ]
    cost = Panel("share of members that die at once", "a look-up")
    cost.curves = [Curve("hops", hop_means), Curve("time-outs", timeouts)]
    return Outcome(
        "sudden-deaths",
        "Before anything is repaired, look-ups find a way round the dead, by the next best finger"
        " or along the successor list; what is lost is only what the dead held.",
        checks,
        [losses, cost],
    )


def stale_share(failures_a_round: float) -> float:
    """Look-ups that should meet a dead node.

    A contact is a round old on average: half of one since it was asked for, half of one that who
    named it had it. So one of N/rate that are asked is dead, and half of log2 N are, and the owner.
    """
    asked = math.log2(CHURN_MEMBERS) / 2 + 1
    return asked * failures_a_round / CHURN_MEMBERS


def stale_deviation(failures_a_round: float, lookups: int) -> float:
    """How far the measured share lies from `stale_share` by chance.

    Chance is in the deaths, not in the look-ups: a dead member is met in proportion to the part of
    the circle that others point to it for, which is exponential. A sum of D such counts of mean m
    has the variance D(2m² + m).
    """
    deaths = failures_a_round * (ROUNDS - 2)
    each = stale_share(failures_a_round) * lookups / deaths
    return math.sqrt(deaths * (2 * each**2 + each)) / lookups


def churn(seed: int) -> Outcome:
    """Members fail and join all the time: look-ups that meet a dead one, and those that fail."""
    met, failing = [], []
    checks = []
    for rate in FAILURES_A_ROUND:
        hit, failed, total = _live(rate, random.Random(f"{seed}/{rate}"))
        met.append((rate, hit / total))
        failing.append((rate, failed / total))
        checks.append(
            Check(f"{rate:.2g} failures a round: look-ups that fail", 100 * failed / total, "%",
                  most=0.1)
        )  # fmt: skip
        most = stale_share(rate) + 3 * stale_deviation(rate, total)
        checks.append(
            Check(f"{rate:.2g} failures a round: look-ups that meet a dead node",
                  100 * hit / total, "%", most=round(100 * most, 2))
        )  # fmt: skip
    expected = [(rate, stale_share(rate)) for rate in FAILURES_A_ROUND]
    panel = Panel("failures in one round of stabilisation, 500 members", "share of look-ups")
    panel.curves = [
        Curve("meet a dead node: failed, in the paper, which did not try again", met),
        Curve("fail, with the next best as fall-back", failing),
        Curve("every contact a round old", expected, dashed=True),
    ]
    return Outcome(
        "churn",
        "A dead finger costs a time-out, not the look-up: with fall-back along fingers and"
        " successor lists hardly any look-up fails while members come and go.",
        checks,
        [panel],
    )


def _live(failures_a_round: float, rng: random.Random) -> tuple[int, int, int]:
    """(look-ups that met a dead node, that failed, all) in a living ring."""
    options = ChordOptions(
        successors=9,
        stabilise_s=(ROUND_S, ROUND_S),
        finger_s=(ROUND_S / 9, ROUND_S / 9),  # all nine that differ, once a round
        probe_s=ROUND_S,
    )
    ring = LivingRing(CHURN_MEMBERS, options, rng)
    pace_s = ROUND_S / failures_a_round
    fail_at, join_at = rng.expovariate(1 / pace_s), rng.expovariate(1 / pace_s)
    hit = failed = total = 0
    end = ROUNDS * ROUND_S
    now = 0.0
    while now < end:
        now += rng.expovariate(LOOKUPS_A_SECOND)
        while min(fail_at, join_at) < now:
            ring.run(min(fail_at, join_at))
            if fail_at < join_at:
                ring.kill()
                fail_at += rng.expovariate(1 / pace_s)
            else:
                ring.join()
                join_at += rng.expovariate(1 / pace_s)
        ring.run(now)
        if now < 2 * ROUND_S:
            continue  # until the churn is in the pointers
        target = rng.getrandbits(BITS)
        found, lookup = look_up(ring.nodes, ring.anyone(), target)
        total += 1
        hit += bool(lookup.dead)
        failed += found is None or not ring.rightly(found, target)
    return hit, failed, total
