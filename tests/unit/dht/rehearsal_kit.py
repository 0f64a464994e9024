"""A ring of bare cores: each message, timer, death and join is a step that a schedule chooses."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from dht.chord import oracle
from dht.chord.errors import NotMember
from dht.chord.lookup import Lookup
from dht.chord.node import MEMBER, ChordNode
from dht.chord.options import ChordOptions
from dht.chord.outputs import Ask, State
from dht.chord.ring import Contact


def contact(number: int) -> Contact:
    return Contact(number, f"N{number}")


@dataclass
class Rehearsal:
    """Nodes by number, the questions and answers on their way, and the oracle."""

    bits: int = 7
    successors: int = 3
    seed: int = 0
    kind: type[ChordNode] = ChordNode
    judged: bool = True
    nodes: dict[int, ChordNode] = field(default_factory=dict)
    flying: deque[tuple[str, ChordNode, Any]] = field(default_factory=deque)
    now: float = 0.0
    steps: int = 0
    cuts: dict[int, int] = field(default_factory=dict)  # number -> side; both sides differ: lost

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.options = ChordOptions(bits=self.bits, successors=self.successors)

    # -- what a scenario does

    def make(self, number: int) -> ChordNode:
        dice = random.Random(f"{self.seed}/{number}")
        self.nodes[number] = self.kind(contact(number), self.options, dice)
        return self.nodes[number]

    def bootstrap(self, *numbers: int) -> None:
        for number in numbers:
            self.make(number).bootstrap([contact(n) for n in numbers], self.now)
        self.judge()

    def join(self, number: int, through: int) -> None:
        self.make(number).join(contact(through), self.now)
        self.collect(self.nodes[number])

    def kill(self, number: int) -> None:
        del self.nodes[number]

    def may_kill(self, number: int) -> bool:
        """Zave's rule, for the ring as it is and as it is once the answers under way are in.

        In the proof an answer takes no time; here a node may die between its answer and the step
        that it leads to.
        """
        rings = [ring := self.ring()]
        for kind, asker, what in self.flying:
            if kind == "answer" and what[1] is not None and isinstance(what[1][1], State):
                succ = (what[2], *what[1][1].succ[:-1])
                rings.append({**ring, asker.me: oracle.View(asker.pred, succ)})
        return all(oracle.may_fail(one, contact(number), self.successors) for one in rings)

    def ring(self) -> oracle.Ring:
        return {
            n.me: oracle.View(n.pred, tuple(n.succ))
            for n in self.nodes.values()
            if n.state == MEMBER
        }

    def judge(self) -> None:
        for node in self.nodes.values():
            node.check()
        if self.judged:
            found = oracle.violations(self.ring(), self.successors)
            assert not found, f"seed {self.seed}, step {self.steps}: {found}"

    def flaws(self) -> list[str]:
        return oracle.flaws(self.ring(), self.successors)

    # -- the messenger

    def collect(self, node: ChordNode) -> None:
        for output in node.take_outputs():
            if isinstance(output, Ask):
                self.flying.append(("question", node, output))

    def deliver(self, index: int = 0) -> None:
        """Bring one message where it goes."""
        self.flying.rotate(-index)
        kind, source, what = self.flying.popleft()
        self.flying.rotate(index)
        if kind == "question":
            target = self.nodes.get(what.to.id)
            cut = self.cuts.get(source.me.id, 0) != self.cuts.get(what.to.id, 0)
            answer: Any = None
            if target is not None and not cut:
                try:
                    answer = ("yes", target.receive(what.what, what.body, self.now))
                except NotMember:
                    answer = None
                self.collect(target)
            self.flying.append(("answer", source, (what.token, answer, what.to)))
        else:
            token, answer, _ = what
            if self.nodes.get(source.me.id) is source:  # and not another life of it
                if answer is None:
                    source.failed(token, self.now)
                else:
                    source.answered(token, answer[1], self.now)
                self.collect(source)
        self.steps += 1

    def quiet(self) -> None:
        """Deliver all that is on its way, in order."""
        while self.flying:
            self.deliver()
            self.judge()

    def turn(self, rounds: int = 1) -> None:
        """Rounds in which every node stabilises, fixes a finger and probes, one after the other."""
        for _ in range(rounds):
            for number in sorted(self.nodes):
                if (node := self.nodes.get(number)) is not None and node.state == MEMBER:
                    self.now += 0.01
                    node.stabilise(self.now)
                    node.fix_finger(self.now)
                    node.probe(self.now)
                    self.collect(node)
                    self.quiet()

    def until_ideal(self, rounds: int = 60) -> int:
        """How many rounds the ring took to be ideal."""
        for count in range(rounds):
            if not self.flaws():
                return count
            self.turn()
        raise AssertionError(f"not ideal after {rounds} rounds: {self.flaws()}")

    def fix_all_fingers(self) -> None:
        for node in self.nodes.values():
            for _ in range(self.bits + 1):
                node.fix_finger(self.now)
                self.collect(node)
                self.quiet()

    def stale_fingers(self) -> list[str]:
        """Entries of finger tables that name another than the owner of me + 2^i, or nobody."""
        order = sorted(self.nodes)
        found = []
        for node in self.nodes.values():
            reach = (node.succ[0].id - node.me.id) % (1 << self.bits)
            for i in (i for i in range(self.bits) if 1 << i > reach):
                start = (node.me.id + (1 << i)) % (1 << self.bits)
                right = next((n for n in order if n >= start), order[0])
                known = node.fingers.get(i)
                if right != node.me.id and (known is None or known.id != right):
                    found.append(f"{node.me!r}: finger {i} is {known!r}, not N{right}")
        return found

    def look_up(self, target: int, start: int, *, walk: bool = False) -> Lookup:
        """As a client would; the dead do not answer."""
        lookup = Lookup(target, [contact(start)], bits=self.bits, walk=walk)
        while (peer := lookup.next()) is not None:
            node = self.nodes.get(peer.id)
            if node is None:
                lookup.failed(peer)
            else:
                lookup.answered(peer, node.receive("step", (target, walk), self.now))
        return lookup

    def chance(self, most: int = 14) -> None:
        """One step that dice choose; deaths only where Zave's rule allows them."""
        self.now += 0.01
        dice = self.rng.random()
        if self.flying and dice < 0.75:
            self.deliver(self.rng.randrange(len(self.flying)))
        elif dice < 0.93:
            node = self.rng.choice(sorted(self.nodes.values(), key=lambda n: n.me))
            if node.state == MEMBER:
                self.rng.choice((node.stabilise, node.stabilise, node.fix_finger, node.probe))(
                    self.now
                )
                self.collect(node)
            elif node.state == "out":
                member = self.rng.choice(sorted(self.ring()))
                node.join(member, self.now)
                self.collect(node)
        elif dice < 0.965 and len(self.nodes) < most:
            free = [n for n in range(1 << self.bits) if n not in self.nodes]
            through = self.rng.choice(sorted(self.ring()))
            self.join(self.rng.choice(free), through.id)
        else:
            victims = [n for n in sorted(self.nodes) if self.may_kill(n)]
            if victims:
                self.kill(self.rng.choice(victims))
        self.judge()
