"""Raft, without I/O: messages, the time and the disk's reports in; outputs (outputs.py) out.

    FOLLOWER ──(silence)──> PRECANDIDATE ──(would win)──> CANDIDATE ──(majority)──> LEADER
        ^                        │                            │                        │
        └────────(a leader, or a higher term, is heard of; or a majority is lost)──────┘

Here: terms, votes, elections, and a follower's part in replication. What a leader does is in
leader.py, a snapshot on its way in is in snapshots.py, the log in log.py, what waits for the disk
in unsaved.py. Section numbers are the paper's ("In Search of an Understandable Consensus
Algorithm", extended version); "dissertation" is Ongaro's.

The contract with the shell:
    1. call take_outputs() after any other call, and carry the outputs out in order;
    2. make each Persist durable in the order of its sequence, then call persisted(sequence);
    3. send a Persist's `then` only after that; all other Sends may leave at once, and may be lost;
    4. hand each Apply to the state machine; call compact() with a snapshot of it now and then.

Guarantees: the five properties of the paper's figure 3, for any loss, delay, repetition and
reordering of messages, and any crash at which the disk keeps what was reported durable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from raftd import messages as m
from raftd.errors import InvariantViolated, NotLeader
from raftd.leader import Leader
from raftd.log import CONFIG, Entry, RaftLog, Restored, SnapshotMeta
from raftd.membership import Membership
from raftd.options import RaftOptions
from raftd.outputs import (
    Apply,
    Doubt,
    Emit,
    Output,
    Persist,
    ReadFailed,
    ReadReady,
    Restore,
    Send,
)
from raftd.quorum import vote_is_lost
from raftd.snapshots import IncomingSnapshot
from raftd.unsaved import Unsaved

if TYPE_CHECKING:
    import random

FOLLOWER, PRECANDIDATE, CANDIDATE, LEADER = "follower", "precandidate", "candidate", "leader"

# A leader that is silent for so many heartbeats is doubted, and again after each one more.
DOUBT_HEARTBEATS = 1.5

# What an InvariantViolated tells of how it came about.
STORY_LINES = 40


class Raft:
    """One node's part of the protocol.

    Args:
        name: this node's, as in the membership.
        options: see RaftOptions.
        restored: what was on its disk.
        bootstrap: the membership of an empty log; of a node to be added later, an empty one.
        rng: for election timeouts.
        now: seconds on a steady clock.
    """

    def __init__(
        self,
        name: str,
        options: RaftOptions,
        restored: Restored,
        bootstrap: Membership,
        rng: random.Random,
        now: float,
    ) -> None:
        self.name = name
        self.options = options
        self.rng = rng
        self.now = now
        # The shell clears it while its disk is full: a vote that cannot be kept is not offered, or
        # elections that nobody can win would raise the term for as long as that lasts.
        self.writable = True
        self.role = FOLLOWER
        self.leader_name: str | None = None
        self.leading: Leader | None = None
        self.votes: dict[str, bool] = {}
        self.snapshot: tuple[SnapshotMeta, bytes] | None = None
        self._incoming = IncomingSnapshot()
        base, base_term = 0, 0
        self._memberships: list[tuple[int, Membership]] = [(0, bootstrap)]
        if restored.snapshot is not None:
            meta = restored.snapshot
            self.snapshot = (meta, restored.snapshot_data)
            base, base_term = meta.index, meta.term
            self._memberships = [(base, meta.membership)]
        entries = [entry for entry in restored.entries if entry.index > base]
        self.log = RaftLog(entries, base, base_term)
        self._note_memberships(entries)
        # The last write may have been cut off between its entries and its term.
        self.term = max(restored.hard_state.term, self.log.last_term)
        known = self.term == restored.hard_state.term
        self.vote = restored.hard_state.vote if known else None
        self.commit = max(base, min(restored.hard_state.commit, self.log.last_index))
        self.acknowledged = 0  # the highest index that its leader counts on here and says so
        self._handed = base  # last index handed to the state machine
        self._outputs: list[Output] = []
        self._unsaved = Unsaved(self.term, self.vote)
        self._heard_leader_at = float("-inf")
        # Whoever was promised a lease before this restart may still rely on it (§6.4.1).
        lease_s = options.election_timeout_s[0] if options.lease_reads else 0.0
        self._no_vote_until = now + lease_s
        self._election_at = 0.0
        self._doubt_at = float("inf")
        self._story: deque[str] = deque(maxlen=STORY_LINES)
        self._reset_election_timer()

    def __repr__(self) -> str:
        lag = ""
        if self.leading is not None:
            lag = f" lag={{{','.join(f'{p}:{n}' for p, n in sorted(self.leading.lag.items()))}}}"
        return (
            f"<Raft {self.name} {self.role.upper()} term={self.term} "
            f"commit={self.commit}/{self.log.last_index}{lag}>"
        )

    # -- what the world sees

    @property
    def membership(self) -> Membership:
        """The newest configuration in the log, committed or not (§6)."""
        return self._memberships[-1][1]

    @property
    def membership_index(self) -> int:
        """Where that configuration stands in the log."""
        return self._memberships[-1][0]

    @property
    def trouble(self) -> str:
        """What an operator should see to; empty if nothing."""
        if self.leader_name is None:
            return "no leader"
        return self._incoming.trouble or (self.leading.trouble if self.leading else "")

    # -- the client's side

    def propose(self, commands: Sequence[bytes], now: float) -> int:
        """Append commands; returns the index of the first. Raises NotLeader or Overloaded."""
        self.now = now
        if self.leading is None:
            raise NotLeader(self.leader_name)
        return self.leading.propose(commands)

    def read_index(self, token: int, now: float) -> None:
        """Ask from which index on a read is linearizable; ReadReady or ReadFailed answers."""
        self.now = now
        if self.leading is not None:
            self.leading.read(token, None)
        elif self.leader_name is not None:
            self.send(self.leader_name, m.ReadIndex(self.term, token))
        else:
            self.output(ReadFailed(token))

    def change_membership(self, wanted: Membership, now: float) -> int:
        """Append the configuration `wanted`; returns its index. Raises NotLeader, InvalidChange."""
        self.now = now
        if self.leading is None:
            raise NotLeader(self.leader_name)
        return self.leading.change_membership(wanted)

    def transfer_leadership(self, to: str, now: float) -> None:
        """Hand over to `to` once it has all entries. Raises NotLeader, InvalidChange."""
        self.now = now
        if self.leading is None:
            raise NotLeader(self.leader_name)
        self.leading.transfer(to)

    # -- the shell's side

    def next_deadline(self) -> float:
        """When on_deadline should be called."""
        if self.leading is not None:
            return self.leading.next_deadline()
        return min(self._election_at, self._doubt_at)

    def on_deadline(self, now: float) -> None:
        """Whatever is due by `now`."""
        self.now = now
        if self.leading is not None:
            self.leading.on_deadline()
        elif now >= self._election_at:
            self._reset_election_timer()
            if self.membership.is_voter(self.name) and self.writable:
                self.campaign(pre=self.options.pre_vote)
        elif now >= self._doubt_at and self.leader_name is not None:
            self._doubt_at = now + self.options.heartbeat_s
            self.output(Doubt(self.leader_name))

    def leader_gone(self, leader: str, now: float) -> None:
        """The machine of `leader` says that its process is dead: there is nobody to wait for.

        That may be false, or of the past by now. Then the others still hear it, and PreVote keeps
        this node from disturbing anybody; but a lease is never broken over it.
        """
        self.now = now
        if self.role != FOLLOWER or leader != self.leader_name or self.options.lease_reads:
            return
        self.emit("raft.leader_gone", leader=leader)
        self.become_follower(self.term, None)
        # One after another, lest votes be split: a vote takes less than half a heartbeat.
        order = sorted({*self.membership.voters, self.name} - {leader})
        place = order.index(self.name) + 0.5 + self.rng.random() / 2
        self._election_at = min(self._election_at, now + place * self.options.heartbeat_s / 2)

    def persisted(self, sequence: int, now: float) -> None:
        """Persist `sequence`, and all before it, is durable."""
        self.now = now
        for saved in self._unsaved.durable(sequence):
            if saved.term != self.term:
                continue
            if self.leading is not None:
                self.leading.own_log_is_durable(saved.last_index)
            elif self.role == CANDIDATE and saved.vote == self.name and self.name not in self.votes:
                self.votes[self.name] = True  # durable: it cannot be forgotten any more
                self._count_votes()

    def compact(self, meta: SnapshotMeta, data: bytes, now: float) -> None:
        """The state machine has a snapshot: entries well behind it may go (§7)."""
        self.now = now
        assert meta.index <= self._handed, "a snapshot of what was not applied"
        if self.snapshot is not None and meta.index <= self.snapshot[0].index:
            return
        self.snapshot = (meta, data)
        options = self.options
        keep_from = self.log.back_from(meta.index, options.keep_entries, options.keep_bytes)
        term = self.log.term_at(keep_from)
        assert term is not None
        self.log.compact(keep_from, term)
        at_or_below = [i for i, (index, _) in enumerate(self._memberships) if index <= keep_from]
        del self._memberships[: at_or_below[-1] if at_or_below else 0]
        self.emit("log.compact", index=keep_from, snapshot=meta.index)

    def membership_at(self, index: int) -> Membership:
        """The configuration in force at `index`, for a snapshot's meta."""
        return next(mem for at, mem in reversed(self._memberships) if at <= index)

    def take_outputs(self) -> list[Output]:
        """What is to be done, in order."""
        if self.leading is not None:
            self.leading.send_appends()
        out: list[Output] = []
        persist = self._take_persist()
        if persist is not None:
            out.append(persist)
        outputs, self._outputs = self._outputs, []
        out += outputs
        if self.commit > self._handed:
            entries = self.log.slice(self._handed + 1, self.commit)
            self._handed = self.commit
            out.append(Apply(entries))
        return out

    def _take_persist(self) -> Persist | None:
        last_index = self.log.last_index
        persist, at_once = self._unsaved.take(self.term, self.vote, self.commit, last_index)
        self._outputs += at_once
        return persist

    # -- used by the leader's and the snapshot's part

    def send(self, to: str, message: m.Message) -> None:
        """A message that may leave at once."""
        self._outputs.append(Send(to, message))

    def promise(self, to: str, message: m.Message) -> None:
        """A message that may leave when everything up to now is durable."""
        self._unsaved.promise(Send(to, message))

    def output(self, output: Output) -> None:
        """Any other output."""
        self._outputs.append(output)

    def emit(self, kind: str, **fields: Any) -> None:
        """An event."""
        self._story.append(f"{self.now:.3f} {kind} {fields}")
        self._outputs.append(Emit(kind, fields))

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries behind the last of the log."""
        self.log.append(entries)
        self._unsaved.append(entries)
        self._note_memberships(entries)

    def advance_commit(self, index: int) -> None:
        """Everything up to `index` is committed."""
        if index > self.commit:
            self.commit = index

    def become_follower(self, term: int, leader: str | None) -> None:
        """Step back, to `term` if it is higher."""
        was, old_leader = self.role, self.leader_name
        if term > self.term:
            self.term, self.vote = term, None
            self._incoming.forget()
        if self.leading is not None:
            self.leading.step_down()
            self.leading = None
        self.role = FOLLOWER
        self.leader_name = leader
        self._doubt_at = float("inf")  # until it is heard
        self.votes = {}
        if was != FOLLOWER or old_leader != leader:
            self._incoming.refused = 0
            self.emit("raft.role", role=FOLLOWER, term=self.term, leader=leader)
        if was != FOLLOWER:
            self._reset_election_timer()

    def _note_memberships(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.kind == CONFIG:
                self._memberships.append((entry.index, Membership.unpack(entry.data)))
                if self.leading is not None:
                    self.leading.membership_changed()

    def _reset_election_timer(self) -> None:
        low, high = self.options.election_timeout_s
        self._election_at = self.now + self.rng.uniform(low, high)

    # -- elections (§5.2)

    def campaign(self, *, pre: bool, forced: bool = False) -> None:
        """Stand for election, or ask whether it would be won."""
        if pre:
            self.role, term = PRECANDIDATE, self.term + 1
        else:
            self.role = CANDIDATE
            self.term = term = self.term + 1
            self.vote = self.name
        self.leader_name, self._doubt_at = None, float("inf")
        self.votes = {self.name: True} if pre else {}  # a real vote counts when it is durable
        self._reset_election_timer()
        self.emit("raft.role", role=self.role, term=term)
        request = m.VoteRequest(term, self.log.last_index, self.log.last_term, pre, forced)
        ask = self.send if pre else self.promise  # our own vote must not be forgotten
        for peer in sorted({*self.membership.voters, *self.membership.outgoing} - {self.name}):
            ask(peer, request)
        self._count_votes()

    def _count_votes(self) -> None:
        membership = self.membership
        granted = [name for name, vote in self.votes.items() if vote]
        if membership.has_quorum(granted):
            if self.role == PRECANDIDATE:
                self.campaign(pre=False)
            else:
                self._become_leader()
        elif vote_is_lost(membership.voters, membership.outgoing, self.votes):
            self.become_follower(self.term, None)

    def _become_leader(self) -> None:
        self.role, self.leader_name = LEADER, self.name
        won = [name for name, vote in self.votes.items() if vote]
        self.emit("raft.role", role=LEADER, term=self.term, votes=won, last=self.log.last_index)
        self.leading = Leader(self)
        self.leading.begin()

    def _must_not_vote(self, request: m.VoteRequest) -> bool:
        """Whether a leader is, or was just now, in office: then nobody else is voted for (§6).

        A leader with a lease counts on that in any term, and whatever was heard since (§6.4.1).
        """
        leases = self.options.lease_reads
        if request.forced or not (request.term > self.term or leases):
            return False
        if not (self.options.check_quorum or request.pre):
            return False
        if self.leading is not None or self.now < self._no_vote_until:
            return True
        low, _ = self.options.election_timeout_s
        return (leases or self.leader_name is not None) and self.now - self._heard_leader_at < low

    def _on_vote_request(self, source: str, request: m.VoteRequest) -> None:
        if request.term < self.term:
            self.send(source, m.VoteReply(self.term, False, request.pre))
            return
        up_to_date = self.log.is_up_to_date(request.last_index, request.last_term)
        if request.pre:
            granted = up_to_date and request.term > self.term and self.writable
            term = request.term if granted else self.term
            self.send(source, m.VoteReply(term, granted, True))
            return
        free = self.vote == source or (self.vote is None and self.leader_name is None)
        granted = free and up_to_date
        if granted:
            self.vote = source
            self._reset_election_timer()
        self.promise(source, m.VoteReply(self.term, granted, False))

    def _on_vote_reply(self, source: str, reply: m.VoteReply) -> None:
        wanted = PRECANDIDATE if reply.pre else CANDIDATE
        expected = self.term + 1 if reply.pre and reply.granted else self.term
        if self.role == wanted and reply.term == expected:
            self.votes.setdefault(source, reply.granted)
            self._count_votes()

    # -- messages

    def receive(self, message: m.Message, source: str, now: float) -> None:
        """Take a message; anything stale, repeated or out of place changes nothing."""
        self.now = now
        kind = type(message)
        if kind is m.VoteRequest:
            assert isinstance(message, m.VoteRequest)
            if self._must_not_vote(message):
                return
        if message.term > self.term:
            if not self._speaks_of_the_future(message):
                leader = source if kind in _FROM_LEADER else None
                self.become_follower(message.term, leader)
        elif message.term < self.term and kind is not m.VoteRequest:
            self._on_stale(message, source)
            return
        if kind in _FROM_LEADER:
            self._heard_from_leader(source)
        handler: Any = _HANDLERS[kind]
        handler(self, source, message)

    @staticmethod
    def _speaks_of_the_future(message: m.Message) -> bool:
        """Pre-votes name a term that nobody has entered yet."""
        if isinstance(message, m.VoteRequest):
            return message.pre
        return isinstance(message, m.VoteReply) and message.pre and message.granted

    def _on_stale(self, message: m.Message, source: str) -> None:
        if type(message) in _FROM_LEADER:
            # A leader of the past, or one that a node with too high a term ignores: tell it our
            # term.
            self.promise(source, m.AppendReply(self.term, False, 0, 0, 0))

    def _heard_from_leader(self, source: str) -> None:
        """AppendEntries, Heartbeat or InstallSnapshot of the current term."""
        if self.role == LEADER:
            raise self.violation(f"{source} leads term {self.term} too")
        if self.role != FOLLOWER or self.leader_name != source:
            self.become_follower(self.term, source)
        self._heard_leader_at = self.now
        self._doubt_at = self.now + DOUBT_HEARTBEATS * self.options.heartbeat_s
        self._reset_election_timer()

    # -- a follower's part in replication (§5.3)

    def _on_append(self, source: str, message: m.AppendEntries) -> None:
        entries, prev_index = message.entries, message.prev_index
        log = self.log
        if prev_index < log.snapshot_index:
            # Compacted, hence committed, hence the same: the leader may go on behind it.
            self.promise(source, m.AppendReply(self.term, True, self.commit, 0, 0))
            return
        if log.term_at(prev_index) != message.prev_term:
            self._refuse_append(source, message)
            return
        if prev_index != log.last_index:
            entries = self._skip_what_agrees(entries)
        if entries:
            self.append(entries)
        last_new = prev_index + len(message.entries)
        self.advance_commit(min(message.commit, last_new))
        self.promise(source, m.AppendReply(self.term, True, last_new, 0, 0))

    def _skip_what_agrees(self, entries: list[Entry]) -> list[Entry]:
        """The entries that are new; an existing entry that conflicts goes, and all behind it."""
        for position, entry in enumerate(entries):
            term = self.log.term_at(entry.index)
            if term is None:
                return entries[position:]
            if term != entry.term:
                self._truncate(entry.index)
                return entries[position:]
        return []

    def _truncate(self, index: int) -> None:
        if index <= self.commit:
            raise self.violation(f"entry {index} is committed and would be overwritten")
        self.emit("log.truncate", index=index, last=self.log.last_index)
        self.log.truncate_from(index)
        self._unsaved.truncate(index)
        while self._memberships[-1][0] >= index:
            self._memberships.pop()

    def _refuse_append(self, source: str, message: m.AppendEntries) -> None:
        """Say where our log may agree, a whole term at a time (§5.3, end)."""
        hint = self.log.last_at_or_below(message.prev_index, message.prev_term)
        hint_term = self.log.term_at(hint) or 0
        self.promise(source, m.AppendReply(self.term, False, message.prev_index, hint, hint_term))

    def _on_heartbeat(self, source: str, message: m.Heartbeat) -> None:
        last = self.log.last_index
        if message.commit > max(last, self.acknowledged):
            # A leader tells nobody of more than he has acknowledged: the disk has broken its word.
            self.emit("raft.lost", acknowledged=message.commit, last=last)
        self.acknowledged = max(message.commit, self.acknowledged)
        self.advance_commit(min(message.commit, last))
        self.send(source, m.HeartbeatReply(self.term, message.context))

    def _on_install_snapshot(self, source: str, message: m.InstallSnapshot) -> None:
        if message.index <= self.commit:
            self.promise(source, m.AppendReply(self.term, True, self.commit, 0, 0))
            return
        if self.log.term_at(message.index) == message.last_term:
            # All of it is in our log, and what follows there may be committed (figure 13, rule 6).
            self.advance_commit(message.index)
            self.promise(source, m.AppendReply(self.term, True, message.index, 0, 0))
            return
        if message.total > self.options.snapshot_bytes_max:
            # An answer would have the leader begin again, for ever; our operator is told instead.
            if self._incoming.refuse(message):
                why = f"it has over {self.options.snapshot_bytes_max} bytes; delete keys"
                self.emit("snapshot.refused", index=message.index, bytes=message.total, cause=why)
            return
        data = self._incoming.receive(message)
        if data is None:
            offset = self._incoming.offset
            self.send(source, m.SnapshotReply(self.term, message.index, offset))
            return
        membership = Membership.unpack(message.membership)
        meta = SnapshotMeta(message.index, message.last_term, membership)
        self.snapshot = (meta, data)
        self._unsaved.replace(self.snapshot)
        self.log = RaftLog((), meta.index, meta.term)
        self._memberships = [(meta.index, membership)]
        self.commit = self._handed = meta.index
        self.output(Restore(meta, data))
        self.emit("snapshot.installed", index=meta.index, bytes=len(data))
        self.promise(source, m.SnapshotReply(self.term, meta.index, len(data)))

    def _on_timeout_now(self, source: str, message: m.TimeoutNow) -> None:
        if self.role == FOLLOWER and self.membership.is_voter(self.name):
            self.emit("raft.transfer", cause=f"{source} hands over")
            self.campaign(pre=False, forced=True)

    def _on_read_index(self, source: str, message: m.ReadIndex) -> None:
        if self.leading is not None:
            self.leading.read(message.token, source)
        else:
            self.send(source, m.ReadIndexReply(self.term, message.token, 0))

    def _on_read_index_reply(self, source: str, message: m.ReadIndexReply) -> None:
        token, index = message.token, message.index
        self.output(ReadReady(token, index) if index else ReadFailed(token))

    def _on_leaders_mail(self, source: str, message: m.Message) -> None:
        """AppendReply, HeartbeatReply, SnapshotReply: only a leader has use for them."""
        if self.leading is not None:
            self.leading.receive(source, message)

    # -- invariants

    def violation(self, what: str) -> InvariantViolated:
        """The error to raise when a property does not hold."""
        story = "\n  ".join(self._story)
        return InvariantViolated(f"{self!r}: {what}\n  {story}")

    def check(self) -> None:
        """What one node alone can know to hold; raises InvariantViolated."""
        log = self.log
        if not log.snapshot_index <= self._handed <= self.commit <= log.last_index:
            raise self.violation(
                f"snapshot {log.snapshot_index} <= applied {self._handed} <= commit {self.commit}"
                f" <= last {log.last_index} does not hold"
            )
        if (self.role == LEADER) != (self.leading is not None):
            raise self.violation("role and leader's state disagree")
        if self.leading is not None and self.vote not in (self.name, None):
            raise self.violation(f"leads a term in which it voted for {self.vote}")
        if log.last_term > self.term:
            raise self.violation("an entry of a term that was never entered")


_FROM_LEADER = frozenset((m.AppendEntries, m.Heartbeat, m.InstallSnapshot))

_HANDLERS: dict[type, Any] = {
    m.VoteRequest: Raft._on_vote_request,
    m.VoteReply: Raft._on_vote_reply,
    m.AppendEntries: Raft._on_append,
    m.Heartbeat: Raft._on_heartbeat,
    m.InstallSnapshot: Raft._on_install_snapshot,
    m.TimeoutNow: Raft._on_timeout_now,
    m.ReadIndex: Raft._on_read_index,
    m.ReadIndexReply: Raft._on_read_index_reply,
    m.AppendReply: Raft._on_leaders_mail,
    m.HeartbeatReply: Raft._on_leaders_mail,
    m.SnapshotReply: Raft._on_leaders_mail,
}
