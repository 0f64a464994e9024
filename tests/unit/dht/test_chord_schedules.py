"""Every message, timer, death and join in any order: Zave's invariant after each single step."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from rehearsal_kit import Rehearsal, contact

SMALL = {"bits": 6, "successors": 2}
FIRST = (3, 13, 23, 33, 43, 53)


def scheduled(seed: int, steps: int, *, successors: int = 2, most: int = 9) -> Rehearsal:
    ring = Rehearsal(bits=6, successors=successors, seed=seed)
    ring.bootstrap(*FIRST, *((8,) if successors > 2 else ()))
    for _ in range(steps):
        ring.chance(most)
    ring.quiet()
    ring.until_ideal()
    return ring


@pytest.mark.parametrize("seed", range(8))
def test_the_invariant_holds_after_every_step_and_the_ring_becomes_ideal(seed):
    scheduled(seed, 400, successors=2 + seed % 2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("block", range(8))
def test_a_hundred_thousand_steps(block):
    for seed in range(50):
        scheduled(1000 * block + seed, 300, successors=2 + block % 2)


def test_all_look_ups_are_right_once_the_ring_is_ideal():
    ring = scheduled(77, 500)
    order = sorted(c.id for c in ring.ring())
    for target in range(64):
        right = next((n for n in order if n >= target), order[0])
        for start in order:
            assert ring.look_up(target, start).found.owner.id == right


@pytest.mark.parametrize("seed", range(3))
def test_all_fingers_are_right_soon_after_the_ring_is_ideal(seed):
    ring = scheduled(seed, 300)
    ring.turn(ring.bits + 1)  # one entry a round
    assert ring.stale_fingers() == []


def test_two_rings_that_meet_become_one():
    for seed in range(4):
        ring = Rehearsal(bits=7, successors=2, seed=seed, judged=False)
        ring.bootstrap(*range(0, 120, 10))
        sides = {n: ring.rng.randrange(2) for n in ring.nodes}
        ring.cuts = sides
        ring.turn(12)
        for side in (0, 1):
            members = [n for n, of in sides.items() if of == side]
            assert {c.id for n in members for c in ring.nodes[n].succ if c.real} <= set(members)
        ring.cuts = {}
        ring.until_ideal(40)


def test_a_ring_wound_twice_becomes_one():
    """Successors of successors go round twice: each member is content, the ring is not one."""
    ring = Rehearsal(bits=7, successors=2, judged=False)
    ring.bootstrap(0, 20, 40, 60, 80, 100)
    for first, then in ((0, 40), (40, 80), (80, 20), (20, 60), (60, 100), (100, 0)):
        node = ring.nodes[first]
        node.succ = node._padded([contact(then)])
        ring.nodes[then].pred = contact(first)
    assert ring.flaws()
    ring.until_ideal(40)


class RingMachine(RuleBasedStateMachine):
    """What the schedules above do by dice, by hypothesis, who makes failures small."""

    def __init__(self) -> None:
        super().__init__()
        self.ring = Rehearsal(**SMALL)
        self.ring.bootstrap(*FIRST)

    @precondition(lambda self: self.ring.flying)
    @rule(data=st.data())
    def deliver(self, data):
        self.ring.deliver(data.draw(st.integers(0, len(self.ring.flying) - 1)))

    @rule(which=st.integers(0, 63), what=st.sampled_from(("stabilise", "fix_finger", "probe")))
    def act(self, which, what):
        inside = sorted(c.id for c in self.ring.ring())
        node = self.ring.nodes[inside[which % len(inside)]]
        getattr(node, what)(self.ring.now)
        self.ring.collect(node)

    @rule(number=st.integers(0, 63), through=st.integers(0, 63))
    def join(self, number, through):
        inside = sorted(c.id for c in self.ring.ring())
        if number not in self.ring.nodes and len(self.ring.nodes) < 10:
            self.ring.join(number, inside[through % len(inside)])

    @rule(which=st.integers(0, 63))
    def die(self, which):
        number = sorted(self.ring.nodes)[which % len(self.ring.nodes)]
        if self.ring.may_kill(number):
            self.ring.kill(number)

    @invariant()
    def judged(self):
        self.ring.judge()

    def teardown(self):
        self.ring.quiet()
        self.ring.until_ideal()


TestRingMachine = RingMachine.TestCase
TestRingMachine.settings = settings(
    max_examples=15,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
