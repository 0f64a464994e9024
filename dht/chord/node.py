"""One Chord node without I/O: the protocol that Zave proved, not the one that was published.

P. Zave, "Reasoning about identifier spaces: how to make Chord correct", IEEE TSE 2017. Of the
seven invariants that the paper of 2001 claims none holds; the corrected protocol differs in this:

    state       a predecessor, and a successor list of *exactly* r entries. A dead head is dropped
                and the tail padded with a placeholder, the identifier behind the last entry.
    join        takes over the whole list of the member that it comes behind, and that member as
                predecessor. Nobody else is told; they learn it by stabilising.
    stabilise   asks the first successor s; dead: drop, pad, done. Alive: the list is s and s's own.
                If s knows somebody between, that one is asked too, and adopted only if alive.
                Then the first successor is notified, unless it has just named this node as its
                predecessor: to a predecessor's notification it would do nothing.
    rectify     on a notification: adopt who lies between the predecessor and here; else ping the
                predecessor and adopt only if it is dead. The predecessor is never just forgotten.
    start       a ring begins with r+1 members that know each other (`bootstrap`).

From the moment a node asks a question whose answer may change it until that step is over, it shows
its state to nobody: it answers BUSY, which says that it lives. Steps are then as atomic as the
proof has them. Look-ups only read, and are always answered.

Beyond the proof: a node whose successors died all at once, and a ring that was cut in two, are not
in it. Every node asks, now and then, somebody whom it has ever heard of where its own identifier
belongs (`probe`). In one ring the answer is itself. If not, whoever is named is a successor in
another ring: it is adopted if it is closer, as in stabilise, and notified. That makes one ring of
two, and brings back who was left alone.

    ChordNode.receive(what, body, now)       a question from another node -> its answer
    ChordNode.answered(token, answer, now)   the answer to one of ours; `failed` if none came
    ChordNode.on_deadline(now)               as next_deadline() asked for
    ChordNode.take_outputs()                 what is to be sent

`check` raises with the story of how the node came to where it is.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from dht.chord.errors import BrokenNode, NotMember
from dht.chord.lookup import Lookup, Route, pursue
from dht.chord.options import ChordOptions
from dht.chord.outputs import BUSY, GONE, NOTIFY, PING, STATE, STEP, Ask, Changed, Output, State
from dht.chord.ring import Contact, between, first_at, padded, population, within

if TYPE_CHECKING:
    import random

# A calm round makes the next pause longer by this much (MIT's own timers do the same).
BACK_OFF: Final = 1.25

# Contacts that a node remembers for probing; the oldest are forgotten.
CONTACTS_MAX: Final = 128

# Candidates in one answer to a look-up: the best, and those for when it is dead. With half of all
# dead at once, all of sixteen are so once in 65,536 hops.
CANDIDATES: Final = 16

# Events kept for the story.
STORY: Final = 40

# While all who are remembered are found in this ring, probes become so much rarer.
PROBE_CALM: Final = 8

# So many members probe as often as `probe_s` says; those of a larger ring all together as often as
# these. One that finds another ring brings both together, and the way of each leads by others that
# have to be dialled: with 64 members it took a third of a processor.
PROBERS: Final = 8

# A node that nobody follows looks for others so much more often.
LONELY_S: Final = 0.2

OUT, JOINING, MEMBER, LEFT = "out", "joining", "member", "left"

Answered = Callable[[Any, float], None]
Failed = Callable[[float], None]


class ChordNode:
    """One member, or one that wants to be.

    Args:
        me: its own contact.
        options: see ChordOptions.
        rng: dice for pauses and for whom to probe.
    """

    def __init__(self, me: Contact, options: ChordOptions, rng: random.Random) -> None:
        self.me = me
        self.options = options
        self.state = OUT
        self.pred: Contact | None = None
        self.succ: list[Contact] = self._padded([])
        self.fingers: dict[int, Contact] = {}  # i -> successor of me + 2^i, beyond succ[0]
        self.rounds = 0
        self._mask = (1 << options.bits) - 1
        self._rng = rng
        self._token = 0
        self._asked: dict[int, tuple[Answered, Failed]] = {}
        self._outputs: list[Output] = []
        self._step = ""  # the one under way that may change the state
        self._lookups: set[str] = set()  # purposes of those under way
        self._contacts: dict[Contact, None] = {}
        self._next_finger = options.bits - 1
        self._pause_s, self._finger_pause_s = options.stabilise_s[0], options.finger_s[0]
        self._probe_pause_s = options.probe_s
        self._stabilise_at = self._finger_at = self._probe_at = 0.0
        self._table: tuple[list[int], list[Contact]] | None = None
        self._story: deque[str] = deque(maxlen=STORY)

    def __repr__(self) -> str:
        succ = " ".join(map(repr, self.succ))
        return f"<Chord {self.me!r} {self.state.upper()} pred={self.pred!r} succ=[{succ}]>"

    # -- the contract

    def next_deadline(self) -> float | None:
        """When `on_deadline` is wanted."""
        if self.state != MEMBER:
            return None
        return min(self._stabilise_at, self._finger_at, self._probe_at)

    def on_deadline(self, now: float) -> None:
        """Do what is due."""
        if self.state != MEMBER:
            return
        if now >= self._stabilise_at:
            self._stabilise_at = now + self._jittered(self._pause_s)
            self.stabilise(now)
        if now >= self._finger_at:
            self._finger_at = now + self._jittered(self._finger_pause_s)
            self.fix_finger(now)
        if now >= self._probe_at:
            self._probe_at = now + self._jittered(self._probe_pause())
            self.probe(now)

    def take_outputs(self) -> list[Output]:
        """What is to be done, in order."""
        outputs, self._outputs = self._outputs, []
        return outputs

    def receive(self, what: str, body: tuple[Any, ...], now: float) -> Any:
        """Another node's question; raises NotMember."""
        if self.state != MEMBER:
            raise NotMember(f"{self.me!r} is no member of the ring")
        if what == STATE:
            return BUSY if self._step else State(self.pred, tuple(self.succ))
        if what == STEP:
            return self.route(*body)
        if what == NOTIFY:
            return self.rectify(body[0], now)
        if what == GONE:
            self.suspect(body[0], now)
        return True

    def answered(self, token: int, answer: Any, now: float) -> None:
        """The answer to a question of ours."""
        if token in self._asked:
            self._asked.pop(token)[0](answer, now)

    def failed(self, token: int, now: float) -> None:
        """A question of ours was not answered: its node is dead."""
        if token in self._asked:
            self._asked.pop(token)[1](now)

    def check(self) -> None:
        """Raise BrokenNode if the node contradicts itself."""
        distances = [self._distance(c) for c in self.succ if c.real]
        reals = [c.real for c in self.succ]
        for holds, what in (
            (len(self.succ) == self.options.successors, "the list has not its length"),
            (distances == sorted(set(distances)), "the list is not in order"),
            (0 not in distances, "the list holds the node itself"),
            (reals == sorted(reals, reverse=True), "a placeholder stands before a contact"),
            (self.pred != self.me, "the node is its own predecessor"),
        ):
            if not holds:
                story = "\n  ".join(self._story)
                raise BrokenNode(f"{self!r}: {what}. How it came to that:\n  {story}")

    # -- coming and going

    def bootstrap(self, members: Iterable[Contact], now: float) -> None:
        """Begin as one of `members`, who know each other: an ideal ring from the first moment."""
        others = sorted((c for c in members if c != self.me), key=self._distance)
        self.remember(others)
        self._become(others[-1] if others else None, self._padded(others), now, "bootstrap")
        distances = [self._distance(c) for c in others]
        for i in range(self.options.bits):
            at = bisect_left(distances, 1 << i)
            if 0 < at < len(others):  # at 0 it is the first successor
                self.fingers[i] = others[at]
        self._finger_pause_s = self.options.finger_s[1]  # they are right, if all are there
        self._table = None

    def join(self, contact: Contact, now: float) -> None:
        """Become a member of the ring that `contact` belongs to; may fail, and be tried again."""
        if self.state == MEMBER or "join" in self._lookups:
            return
        self.state = JOINING
        self.remember([contact])
        self._look_up("join", self.me.id, [contact], self._join_behind, self._join_failed, now)

    def _join_behind(self, lookup: Lookup, now: float) -> None:
        found = lookup.found
        if found is None or found.via is None or found.via == self.me:
            self._join_failed(now)
        else:
            self._ask_to_join(found.via, now)

    def _ask_to_join(self, behind: Contact, now: float, again: bool = True) -> None:
        self._step = "join"

        def answered(state: Any, now: float) -> None:
            self._step = ""
            if not isinstance(state, State):
                self._join_failed(now)  # busy: it will be tried again
                return
            first, pred = state.succ[0], state.pred
            if first.real and not within(behind.id, self.me.id, first.id):
                if again and pred is not None and within(pred.id, self.me.id, behind.id):
                    # The owner itself answered, or somebody new stands before it.
                    self._ask_to_join(pred, now, again=False)
                else:
                    self._join_failed(now)
                return
            rest = [c for c in state.succ if c.id != self.me.id]
            if not rest[:1] or not rest[0].real:
                rest = [behind]
            self._become(behind, self._padded(rest), now, f"join behind {behind!r}")

        self._ask(behind, STATE, (), answered, self._join_failed)

    def _join_failed(self, now: float) -> None:
        self._step = ""
        if self.state == JOINING:
            self.state = OUT

    def _become(self, pred: Contact | None, succ: list[Contact], now: float, how: str) -> None:
        self.state = MEMBER
        self._set(pred, succ, how)
        self._stabilise_at = now
        self._finger_at = now + self._jittered(self._finger_pause_s)
        self._probe_at = now + self._jittered(self._probe_pause())

    def leave(self, now: float) -> None:
        """Stop being a member, and say so to both neighbours. Zave: the same as dying."""
        if self.state == MEMBER:
            for neighbour in {self.pred, self.succ[0]}:
                if neighbour is not None and neighbour.real:
                    self._tell(neighbour, GONE, (self.me,))
        self.state = LEFT
        self._story.append("leaves")

    def suspect(self, contact: Contact, now: float) -> None:
        """There is a sign that `contact` is gone: look at once instead of in a while."""
        if contact == self.succ[0] or contact == self.pred:
            self._hurry(now)

    # -- stabilise (Zave's name, and the paper's)

    def stabilise(self, now: float) -> None:
        """One round: is the first successor alive, and does it know somebody closer?"""
        if self._step:
            return
        self.rounds += 1
        first = self.succ[0]
        if not first.real:
            self._ask_behind(now)
            return
        self._step = "stabilise"

        def answered(state: Any, now: float) -> None:
            self._step = ""
            if not isinstance(state, State):
                self._stabilise_at = min(self._stabilise_at, now + self._jittered(0.01))
                return  # busy: alive, and to be asked again
            self._adopt(first, state, "stabilise", now)
            pred = state.pred
            if pred is not None and between(self.me.id, pred.id, first.id):
                self._ask_closer(pred, now)
            elif pred != self.me:
                self._notify(now)

        def failed(now: float) -> None:
            self._step = ""
            self._drop_head(first, now)

        self._ask(first, STATE, (), answered, failed)

    def _ask_behind(self, now: float) -> None:
        """All that followed died at once: who is behind may know who comes next.

        Nobody behind either: then it is alone, and `probe` looks for others.
        """
        pred = self.pred
        if pred is None:
            return
        self._step = "behind"

        def answered(state: Any, now: float) -> None:
            self._step = ""
            if isinstance(state, State) and not self.succ[0].real:
                rest = [c for c in state.succ if c.real and c != self.me] or [pred]
                self._set(self.pred, self._padded(rest), f"behind: {pred!r} knows who follows")
                self._hurry(now)

        def failed(now: float) -> None:
            self._step = ""
            if self.pred == pred and not self.succ[0].real:
                self._set(None, self.succ, f"{pred!r} is dead too: alone")

        self._ask(pred, STATE, (), answered, failed)

    def _ask_closer(self, candidate: Contact, now: float) -> None:
        """Somebody may stand between here and the first successor: adopt it if it is alive."""
        self._step = "closer"

        def answered(state: Any, now: float) -> None:
            self._step = ""
            if isinstance(state, State) and self._closer(candidate):
                self._adopt(candidate, state, "closer", now)
            self._notify(now)

        def failed(now: float) -> None:
            self._step = ""
            self._notify(now)

        self._ask(candidate, STATE, (), answered, failed)

    def _closer(self, candidate: Contact) -> bool:
        first = self.succ[0]
        return not first.real or between(self.me.id, candidate.id, first.id)

    def _adopt(self, first: Contact, state: State, how: str, now: float) -> None:
        changed = self._set(self.pred, self._padded([first, *state.succ[:-1]]), f"{how} {first!r}")
        if changed:
            self._hurry(now)
        else:
            self._pause_s = min(self._pause_s * BACK_OFF, self.options.stabilise_s[1])

    def _drop_head(self, head: Contact, now: float) -> None:
        if self.succ[0] != head:
            return
        last = self.succ[-1]
        tail = Contact((last.id + 1) & self._mask)
        self._set(self.pred, [*self.succ[1:], tail], f"{head!r} is dead")
        self._hurry(now)

    def _notify(self, now: float) -> None:
        if self.succ[0].real:
            self._tell(self.succ[0], NOTIFY, (self.me,))

    # -- rectify

    def rectify(self, candidate: Contact, now: float) -> bool:
        """`candidate` believes that it is our predecessor; returns whether it is now."""
        self.remember([candidate])
        pred = self.pred
        if candidate == self.me or candidate == pred:
            return candidate == pred
        if not self.succ[0].real:  # alone until now
            self._set(candidate, self._padded([candidate]), f"{candidate!r} came to the only one")
            self._hurry(now)
            return True
        if pred is None or between(pred.id, candidate.id, self.me.id):
            self._set(candidate, self.succ, f"rectify {candidate!r}")
            return True
        if not self._step:
            self._step = "rectify"

            def alive(_: Any, now: float) -> None:
                self._step = ""

            def dead(now: float) -> None:
                self._step = ""
                if self.pred == pred:
                    self._set(candidate, self.succ, f"rectify {candidate!r}: {pred!r} is dead")

            self._ask(pred, PING, (), alive, dead)
        return False

    # -- fingers

    def fix_finger(self, now: float) -> None:
        """Look up one entry of the finger table; the list knows those that lie within it."""
        reach = self._distance(self.succ[0]) if self.succ[0].real else self._mask
        i = self._next_finger
        if 1 << i <= reach:  # from here down all are the first successor itself
            self.fingers = {j: finger for j, finger in self.fingers.items() if 1 << j > reach}
            self._table = None
            i = self._next_finger = self.options.bits - 1
            if 1 << i <= reach:
                return
        self._next_finger = i - 1
        start = (self.me.id + (1 << i)) & self._mask
        if (listed := first_at(self.me, self.succ, 1 << i, self.options.bits)) is not None:
            self._set_finger(i, listed)
            return

        def fixed(lookup: Lookup, now: float) -> None:
            assert lookup.found is not None
            self._set_finger(i, lookup.found.owner)
            self._forget(lookup.dead)

        def search(now: float) -> None:
            self._look_up("finger", start, [self.me], fixed, lambda now: None, now)

        finger = self.fingers.get(i)
        if finger is None or "finger" in self._lookups:
            search(now)
        else:
            self._ask_finger(finger, start, search, now)

    def _ask_finger(self, finger: Contact, start: int, search: Failed, now: float) -> None:
        """Does it still own where it should be? Only if not, `search` for who does."""
        self._lookups.add("finger")

        def heard(route: Route, now: float) -> None:
            self._lookups.discard("finger")
            if route.final and route.contacts[0] == finger:
                self._calm_finger()
            else:
                search(now)

        def silent(now: float) -> None:
            self._lookups.discard("finger")
            self._forget([finger])
            search(now)

        self._ask(finger, STEP, (start, False), heard, silent)

    def _set_finger(self, i: int, owner: Contact) -> None:
        if owner in (self.me, self.fingers.get(i)):
            self._calm_finger()
        else:
            self._finger_pause_s = self.options.finger_s[0]
            self.fingers[i] = owner
            self._table = None

    def _calm_finger(self) -> None:
        self._finger_pause_s = min(self._finger_pause_s * BACK_OFF, self.options.finger_s[1])

    def _forget(self, dead: Iterable[Contact]) -> None:
        """Whom nobody could reach is no finger; the successor list is not touched by that."""
        if gone := set(dead):
            self.fingers = {i: finger for i, finger in self.fingers.items() if finger not in gone}
            self._table = None

    # -- two rings, or none

    def remember(self, contacts: Iterable[Contact]) -> None:
        """Keep somebody in mind for probing."""
        for contact in contacts:
            if contact.real and contact != self.me:
                self._contacts.pop(contact, None)
                self._contacts[contact] = None
        while len(self._contacts) > CONTACTS_MAX:
            del self._contacts[next(iter(self._contacts))]

    @property
    def contacts(self) -> list[Contact]:
        """Whom it has ever heard of, and not yet forgotten."""
        return list(self._contacts)

    def probe(self, now: float) -> None:
        """Ask somebody remembered where this node belongs; itself is the answer in one ring."""
        if not self._contacts:
            return
        contact = self._rng.choice(self.contacts)

        def found(lookup: Lookup, now: float) -> None:
            assert lookup.found is not None
            owner = lookup.found.owner
            if owner == self.me:
                longest_s = PROBE_CALM * self.options.probe_s
                self._probe_pause_s = min(self._probe_pause_s * BACK_OFF, longest_s)
                return
            missed(now)
            if self.state != MEMBER:
                return
            self._story.append(f"probe by {contact!r}: {owner!r} stands in this node's place")
            if self._closer(owner) and not self._step:
                self._ask_closer(owner, now)
            else:
                self._tell(owner, NOTIFY, (self.me,))

        def missed(now: float) -> None:
            self._probe_pause_s = self.options.probe_s

        self._look_up("probe", self.me.id, [contact], found, missed, now)

    def _probe_pause(self) -> float:
        if not self.succ[0].real:
            return LONELY_S
        members = population(self.me, self.succ, self.options.bits)
        return self._probe_pause_s * max(1.0, members / PROBERS)

    # -- look-ups

    def owns(self, target: int) -> bool:
        """Whether this node is the successor of `target`, as far as it knows."""
        if self.pred is None:
            return not self.succ[0].real
        return within(self.pred.id, target, self.me.id)

    def route(self, target: int, walk: bool = False) -> Route:
        """One step of a look-up. `walk`: by successors alone, as the lecture begins."""
        if self.owns(target):
            return Route(True, (self.me, *self.succ))
        distance = (target - self.me.id) & self._mask
        first = self.succ[0]
        if not first.real or 0 < distance <= self._distance(first):
            return Route(True, tuple(self.succ) if first.real else (self.me,))
        reals = [c for c in self.succ if c.real]
        beyond = tuple(c for c in reals if self._distance(c) >= distance)
        if walk:
            return Route(False, tuple(reals[: len(reals) - len(beyond)]), beyond, self.pred)
        distances, contacts = self._table or self._build_table()
        end = bisect_left(distances, distance)
        begin = 0 if beyond else max(0, end - CANDIDATES)
        return Route(False, tuple(reversed(contacts[begin:end])), beyond, self.pred)

    def _build_table(self) -> tuple[list[int], list[Contact]]:
        known = {c for c in (*self.fingers.values(), *self.succ) if c.real}
        ordered = sorted((self._distance(c), c) for c in known)
        self._table = [d for d, _ in ordered], [c for _, c in ordered]
        return self._table

    def _look_up(
        self,
        purpose: str,
        target: int,
        start: Iterable[Contact],
        found: Callable[[Lookup, float], None],
        failed: Failed,
        now: float,
    ) -> None:
        """Run a look-up of this node's own; one of a purpose at a time."""
        if purpose in self._lookups:
            return
        self._lookups.add(purpose)
        lookup = Lookup(target, start, bits=self.options.bits)

        def mine(peer: Contact) -> Route | None:
            return self.route(target) if peer == self.me and self.state == MEMBER else None

        def ask(peer: Contact, answered: Answered, silent: Failed) -> None:
            self._ask(peer, STEP, (target, False), answered, silent)

        def ended(now: float) -> None:
            self._lookups.discard(purpose)
            if lookup.found is not None:
                found(lookup, now)
            else:
                failed(now)

        pursue(lookup, mine, ask, ended, now)

    # -- small change

    def _ask(
        self, to: Contact, what: str, body: tuple[object, ...], answered: Answered, failed: Failed
    ) -> None:
        self._token += 1
        self._asked[self._token] = (answered, failed)
        self._outputs.append(Ask(self._token, to, what, body))

    def _tell(self, to: Contact, what: str, body: tuple[object, ...]) -> None:
        self._ask(to, what, body, lambda answer, now: None, lambda now: None)

    def _set(self, pred: Contact | None, succ: list[Contact], how: str) -> bool:
        """The one place where pointers change."""
        if pred == self.pred and succ == self.succ:
            return False
        self.pred, self.succ = pred, succ
        self._table = None
        self.remember(succ)
        self._story.append(f"{how}: {self!r}")
        self._outputs.append(Changed(pred, tuple(succ)))
        return True

    def _padded(self, contacts: Iterable[Contact]) -> list[Contact]:
        return padded(self.me, contacts, self.options.successors, self.options.bits)

    def _distance(self, contact: Contact) -> int:
        return (contact.id - self.me.id) & ((1 << self.options.bits) - 1)

    def _hurry(self, now: float) -> None:
        """Things are moving: look again soon, and for another ring as often as ever."""
        self._pause_s = self.options.stabilise_s[0]
        self._stabilise_at = min(self._stabilise_at, now + self._jittered(self._pause_s / 4))
        self._probe_pause_s = self.options.probe_s
        self._probe_at = min(self._probe_at, now + self._jittered(self._probe_pause()))

    def _jittered(self, pause_s: float) -> float:
        return pause_s * (0.75 + 0.5 * self._rng.random())
