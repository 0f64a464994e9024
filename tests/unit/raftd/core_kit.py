"""One Raft core, or a few: the clock, the wire and the disk are in the hands of the test."""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "simulation"))

from core_cluster import Disk

from raftd import messages as m
from raftd.core import LEADER, PRECANDIDATE, Raft
from raftd.log import COMMAND, Entry, HardState, SnapshotMeta
from raftd.membership import Membership
from raftd.options import RaftOptions
from raftd.outputs import Apply, Output, Persist, ReadFailed, ReadReady, Restore, Send

# The algorithm of the paper's section 5 and nothing more; MODERN is what the daemon runs.
PAPER = RaftOptions(pre_vote=False, check_quorum=False)
MODERN = RaftOptions()
LOW, HIGH = MODERN.election_timeout_s

THREE = "n1 n2 n3"
FIVE = "n1 n2 n3 n4 n5"

# A conversation that goes on for longer than this does not end.
DELIVERIES_MAX = 10_000

Sent = list[tuple[str, m.Message]]


def entries(terms: str, first: int = 1) -> list[Entry]:
    """A log as the paper draws it: `entries("1 1 4")` are three entries with these terms."""
    return [
        Entry(index, int(term), COMMAND, f"{index}.{term}".encode())
        for index, term in enumerate(terms.split(), first)
    ]


def members(voters: str, learners: str = "", outgoing: str = "") -> Membership:
    names = sorted({*voters.split(), *learners.split(), *outgoing.split()})
    return Membership(
        tuple(voters.split()),
        tuple(outgoing.split()),
        tuple(learners.split()),
        tuple(learners.split()),
        {name: ("127.0.0.1", 7400 + place) for place, name in enumerate(names)},
    )


def vote_request(term: int, last: str = "0/0", *, pre: bool = False, forced: bool = False):
    """`last` is index/term of the candidate's last entry."""
    index, last_term = map(int, last.split("/"))
    return m.VoteRequest(term, index, last_term, pre, forced)


def append(term: int, prev: str = "0/0", new: str = "", commit: int = 0) -> m.AppendEntries:
    """`prev` is index/term of the entry before, `new` are the terms of the entries."""
    index, prev_term = map(int, prev.split("/"))
    return m.AppendEntries(term, index, prev_term, commit, entries(new, index + 1))


def of(kind: type, sent: Sent) -> Sent:
    return [(to, message) for to, message in sent if type(message) is kind]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0


class Desk:
    """One node. An act returns what left because of it; the disk is quick unless `slow_disk`."""

    def __init__(
        self,
        name: str = "n1",
        voters: str = THREE,
        *,
        learners: str = "",
        membership: Membership | None = None,
        log: str = "",
        term: int | None = None,
        vote: str | None = None,
        commit: int = 0,
        snapshot: str = "",
        options: RaftOptions = PAPER,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.options = options
        self.clock = clock or Clock()
        self.membership = membership or members(voters, learners)
        self.disk = Disk()
        base = base_term = 0
        if snapshot:
            base, base_term = map(int, snapshot.split("/"))
            meta = SnapshotMeta(base, base_term, self.membership)
            self.disk.snapshot = (meta, b"as of %d" % base)
        self.disk.entries = entries(log, base + 1)
        newest = self.disk.entries[-1].term if log else base_term
        self.disk.hard_state = HardState(newest if term is None else term, vote, commit)
        self.slow_disk = False
        self.life = 0
        self.start()

    def start(self) -> None:
        """Also after a crash: of what the disk had not finished, nothing is left."""
        self.life += 1
        self.disk.pending.clear()
        restored = self.disk.restored()
        dice = random.Random(f"{self.name}/{self.life}")
        self.raft = Raft(self.name, self.options, restored, self.membership, dice, self.now)
        self.sent: Sent = []
        self.applied: list[Entry] = []
        self.state = restored.snapshot_data.split()
        self.reads: dict[int, int | None] = {}
        self.done: list[Output] = []  # what was carried out, in order

    restart = start

    @property
    def now(self) -> float:
        return self.clock.now

    @property
    def terms(self) -> str:
        """The log as the paper draws it."""
        log = self.raft.log
        return " ".join(str(e.term) for e in log.slice(log.first_index, log.last_index))

    @property
    def others(self) -> list[str]:
        return [name for name in self.raft.membership.everyone if name != self.name]

    # -- acts

    def hear(self, message: m.Message, source: str = "n2", *, after: float = 0.0) -> Sent:
        self.clock.now += after
        self.raft.receive(message, source, self.now)
        return self.pump()

    def fire(self) -> Sent:
        """Time passes until this node has something to do."""
        self.clock.now = max(self.now, self.raft.next_deadline())
        self.raft.on_deadline(self.now)
        return self.pump()

    @property
    def stands_at(self) -> float:
        """When it stands for election, if it hears of no leader."""
        return self.raft._election_at if self.raft.leading is None else self.raft.next_deadline()

    def time_out(self) -> Sent:
        """Time passes until that, whatever else it has to do meanwhile."""
        due, sent = self.stands_at, self.fire()
        while self.now < due:
            sent += self.fire()
        return sent

    def beat(self) -> Sent:
        """A leader's next round of heartbeats."""
        sent = self.fire()
        while not of(m.Heartbeat, sent):
            sent += self.fire()
        return sent

    def propose(self, *commands: bytes) -> Sent:
        self.raft.propose(commands, self.now)
        return self.pump()

    def read(self, token: int) -> Sent:
        self.raft.read_index(token, self.now)
        return self.pump()

    def transfer(self, to: str) -> Sent:
        self.raft.transfer_leadership(to, self.now)
        return self.pump()

    def change(self, wanted: Membership) -> Sent:
        self.raft.change_membership(wanted, self.now)
        return self.pump()

    def compact(self) -> SnapshotMeta:
        """Everything applied so far goes into a snapshot."""
        index = self.raft.commit
        meta = SnapshotMeta(index, self.raft.log.term_at(index), self.raft.membership_at(index))
        data = b" ".join(self.state)
        self.raft.compact(meta, data, self.now)
        self.disk.snapshot = (meta, data)
        return meta

    def ack(self, source: str, index: int | None = None) -> Sent:
        """A follower has everything up to `index`, or all there is."""
        last = self.raft.log.last_index if index is None else index
        return self.hear(m.AppendReply(self.raft.term, True, last, 0, 0), source)

    # -- outputs

    def pump(self) -> Sent:
        before = len(self.sent)
        self._carry_out()
        if not self.slow_disk:
            self.sync()
        self.raft.check()
        return self.sent[before:]

    def sync(self) -> Sent:
        """The disk finishes all that it was given."""
        before = len(self.sent)
        while self.disk.pending:
            persist = self.disk.pending.pop(0)
            self.disk.write(persist)
            self.done += [persist] if self.slow_disk else []
            self.raft.persisted(persist.sequence, self.now)
            self.sent += [(send.to, send.message) for send in persist.then]
            self._carry_out()
        return self.sent[before:]

    def _carry_out(self) -> None:
        for output in self.raft.take_outputs():
            if isinstance(output, Send):
                self.sent.append((output.to, output.message))
                continue
            if isinstance(output, Persist):
                self.disk.pending.append(output)
                self.done += [] if self.slow_disk else [output]
                continue
            self.done.append(output)
            if isinstance(output, Apply):
                self.applied += output.entries
                self.state += [e.data for e in output.entries if e.kind == COMMAND]
            elif isinstance(output, Restore):
                self.state = output.data.split()
            elif isinstance(output, ReadReady):
                self.reads[output.token] = output.index
            elif isinstance(output, ReadFailed):
                self.reads[output.token] = None


def candidate(term: int | None = None, **given) -> Desk:
    """A node that has just begun an election; without `term`, in the one after its log's last."""
    desk = Desk(term=None if term is None else term - 1, **given)
    desk.fire()
    return desk


def leader(term: int | None = None, **given) -> Desk:
    """A node that has just been elected."""
    desk = candidate(term, **given)
    for peer in desk.others * 2:
        pre = desk.raft.role == PRECANDIDATE
        if desk.raft.role != LEADER:
            desk.hear(m.VoteReply(desk.raft.term + pre, True, pre), peer)
    assert desk.raft.role == LEADER
    return desk


class Stage:
    """A few nodes and the wire between them; nothing moves but by the hand of the test."""

    def __init__(
        self, names: str = THREE, options: RaftOptions = PAPER, logs: dict | None = None, **given
    ) -> None:
        self.clock = Clock()
        self.options = options
        self.desks: dict[str, Desk] = {}
        self.wire: list[tuple[str, str, m.Message]] = []
        self.cut: set[tuple[str, str]] = set()
        self.down: set[str] = set()
        for name in names.split():
            log = (logs or {}).get(name, "")
            self.desks[name] = Desk(
                name, names, log=log, options=options, clock=self.clock, **given
            )

    def __getitem__(self, name: str) -> Desk:
        return self.desks[name]

    def join(self, name: str) -> Desk:
        """A node that is to be added: it knows no members."""
        self.desks[name] = Desk(name, "", options=self.options, clock=self.clock)
        return self.desks[name]

    def post(self, name: str) -> None:
        """Put what a node has said on the wire."""
        desk = self.desks[name]
        self.wire += [(name, to, m) for to, m in desk.sent if (name, to) not in self.cut]
        desk.sent = []

    def deliver(self, place: int = 0) -> tuple[str, str, m.Message]:
        """One message, the oldest if not told which."""
        source, to, message = self.wire.pop(place)
        if to in self.desks and to not in self.down:
            self.desks[to].hear(message, source)
            self.post(to)
        return source, to, message

    def settle(self) -> int:
        """Deliver until nobody has more to say; returns how many messages that took."""
        for name in self.desks:
            self.post(name)
        for count in range(DELIVERIES_MAX):
            if not self.wire:
                return count
            self.deliver()
        raise AssertionError("the conversation does not end")

    def elect(self, name: str) -> Desk:
        """It times out; nobody else does."""
        self.desks[name].time_out()
        self.settle()
        assert self.desks[name].raft.role == LEADER
        return self.desks[name]

    def isolate(self, *names: str) -> None:
        """What is said to and by them from now on is lost."""
        rest = set(self.desks) - set(names)
        self.cut |= {pair for a in names for b in rest for pair in ((a, b), (b, a))}

    def heal(self) -> None:
        self.cut = set()

    def crash(self, name: str) -> None:
        self.down.add(name)
        self.desks[name].disk.pending.clear()

    def restart(self, name: str) -> None:
        self.down.discard(name)
        self.desks[name].restart()
