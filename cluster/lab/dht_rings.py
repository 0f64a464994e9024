"""Rings of bare Chord cores, as large as one likes: no daemon, no socket, virtual time.

    ideal_ring     all pointers as they should be: for path lengths and sudden deaths
    LivingRing     nodes that stabilise, fail and join while look-ups run: for churn

The nodes are those of the daemon (dht/chord/node.py); only the messenger is another.
"""

from __future__ import annotations

import heapq
import itertools
import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from dht.chord.lookup import HOPS_MAX, Lookup
from dht.chord.node import MEMBER, ChordNode
from dht.chord.options import ChordOptions
from dht.chord.outputs import Ask
from dht.chord.ring import BITS, SIZE, Contact

# A message takes this long one way, and silence this long is death; the paper's simulator had
# 50 ms and 500 ms.
DELAY_S, TIMEOUT_S = 0.05, 0.5

# Fingers much closer than the next member are the successor itself: no need to look for them.
SPARE_BITS = 8


def random_contacts(count: int, rng: random.Random) -> list[Contact]:
    """Members at random places, in order."""
    return sorted(Contact(rng.getrandbits(BITS), f"p{i}", "lab", 1) for i in range(count))


def ideal_ring(members: Sequence[Contact], options: ChordOptions) -> dict[Contact, ChordNode]:
    """Every node with the predecessor, successors and fingers that it should have."""
    ids = [member.id for member in members]
    count, deepest = len(members), len(members).bit_length() + SPARE_BITS
    dice = random.Random(0)
    nodes = {}
    for at, me in enumerate(members):
        node = nodes[me] = ChordNode(me, options, dice)
        near = [members[(at + k) % count] for k in range(1, options.successors + 1)]
        node.bootstrap([*near, members[at - 1]], 0.0)
        reach = (node.succ[0].id - me.id) % SIZE
        for i in range(BITS - 1, max(0, BITS - deepest), -1):
            if 1 << i > reach:
                start = (me.id + (1 << i)) % SIZE
                node.fingers[i] = members[bisect_left(ids, start) % count]
        node.take_outputs()
    return nodes


def owner(ids: Sequence[int], target: int) -> int:
    """The index of the member that owns `target`."""
    return bisect_left(ids, target) % len(ids)


def look_up(
    nodes: dict[Contact, ChordNode], start: Contact, target: int, *, walk: bool = False
) -> tuple[Contact | None, Lookup]:
    """A client's look-up among the living; who is not in `nodes` is dead. (live owner, look-up)"""
    hops_max = len(nodes) + 64 if walk else HOPS_MAX
    lookup = Lookup(target, [start], bits=BITS, hops_max=hops_max, walk=walk, confirm=True)
    while (peer := lookup.next()) is not None:
        node = nodes.get(peer)
        if node is None or node.state != MEMBER:
            lookup.failed(peer)
        else:
            lookup.answered(peer, node.route(target, walk))
    return lookup.found.owner if lookup.found is not None else None, lookup


class LivingRing:
    """Cores, and a messenger in virtual time.

    Args:
        count: members at the beginning, all pointers ideal.
        options: of the cores.
        rng: all dice.
    """

    def __init__(self, count: int, options: ChordOptions, rng: random.Random) -> None:
        self.now = 0.0
        self.messages = 0
        self.nodes = ideal_ring(random_contacts(count, rng), options)
        self._options = options
        self._rng = rng
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._names = itertools.count(count)
        self._wakes: dict[Contact, float] = {}
        for node in self.nodes.values():
            self._wake_at(node, rng.uniform(0.0, options.stabilise_s[1]))  # not all in step

    def at(self, time: float, call: Callable[[], None]) -> None:
        """Do something then."""
        heapq.heappush(self._events, (time, next(self._order), call))

    def run(self, until: float) -> None:
        """Let it live."""
        while self._events and self._events[0][0] <= until:
            self.now, _, call = heapq.heappop(self._events)
            call()
        self.now = until

    def anyone(self) -> Contact:
        """A member, by dice."""
        while True:
            found = self._rng.choice(list(self.nodes))
            if self.nodes[found].state == MEMBER:
                return found

    def kill(self) -> None:
        """Somebody dies, without a word."""
        del self.nodes[self.anyone()]

    def join(self) -> None:
        """Somebody new comes, through whoever is there."""
        me = Contact(self._rng.getrandbits(BITS), f"p{next(self._names)}", "lab", 1)
        node = self.nodes[me] = ChordNode(me, self._options, self._rng)
        self._knock(node)

    def rightly(self, found: Contact, target: int) -> bool:
        """Whether `found` is the first living member from the target on.

        Newcomers of whom nobody knows yet do not count: no protocol could have found them.
        """
        members = sorted(me for me, node in self.nodes.items() if node.state == MEMBER)
        at = owner([member.id for member in members], target)
        while members[at] != found and not self._known(members[at]):
            at = (at + 1) % len(members)
        return members[at] == found

    def _known(self, contact: Contact) -> bool:
        return any(contact in node.succ or contact == node.pred for node in self.nodes.values())

    def _knock(self, node: ChordNode) -> None:
        if node.state != MEMBER and self.nodes.get(node.me) is node:
            node.join(self.anyone(), self.now)
            self._carry(node)
            # Its way in may have met a dead node: once more then.
            self.at(self.now + 4 * TIMEOUT_S, lambda: self._knock(node))

    def _wake_at(self, node: ChordNode, time: float) -> None:
        self._wakes[node.me] = time
        self.at(time, lambda: self._wake(node, time))

    def _wake(self, node: ChordNode, time: float) -> None:
        if self.nodes.get(node.me) is node and self._wakes.get(node.me) == time:
            node.on_deadline(self.now)
            self._carry(node)

    def _carry(self, node: ChordNode) -> None:
        """Send what the node asks, and wake it when it wants."""
        for output in node.take_outputs():
            if isinstance(output, Ask):
                self.messages += 1
                self.at(self.now + DELAY_S, partial(self._arrive, node, output))
        due = node.next_deadline()
        if due is not None and due != self._wakes.get(node.me):
            self._wake_at(node, max(due, self.now))

    def _arrive(self, asker: ChordNode, ask: Ask) -> None:
        target = self.nodes.get(ask.to)
        answer: Any = None
        if target is not None and target.state == MEMBER:
            answer = target.receive(ask.what, ask.body, self.now)
            self._carry(target)
            self.at(self.now + DELAY_S, lambda: self._answer(asker, ask.token, True, answer))
        else:
            self.at(self.now + TIMEOUT_S, lambda: self._answer(asker, ask.token, False, None))

    def _answer(self, asker: ChordNode, token: int, came: bool, answer: Any) -> None:
        if self.nodes.get(asker.me) is not asker:
            return
        if came:
            asker.answered(token, answer, self.now)
        else:
            asker.failed(token, self.now)
        self._carry(asker)
