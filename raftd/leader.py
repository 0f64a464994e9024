"""What a leader does: replicate, commit, confirm reads, change the membership, hand over.

    next_index, match_index   per follower, in Progress (figure 2, "volatile state on leaders")
    commit                    the highest index of *this term* that a majority holds (§5.4.2)
    reads                     served at the commit index of their arrival, once heartbeats sent
                              after it have shown that a majority follows (§8, dissertation §6.4);
                              they are sent to as many as that takes, the quickest of the last round

AppendEntries are decided when outputs are taken, not when commands come: however many commands a
turn of the loop brings, a follower gets one message. The leader's own disk works meanwhile; its
vote for an entry counts when it is durable, like anybody's (dissertation §10.2.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from raftd import messages as m
from raftd.errors import InvalidChange, NotLeader, Overloaded
from raftd.log import COMMAND, CONFIG, NOOP, Entry, SnapshotMeta
from raftd.membership import Membership
from raftd.outputs import ReadFailed, ReadReady
from raftd.progress import PROBE, REPLICATE, SNAPSHOT, Progress
from raftd.quorum import joint_committed_index

if TYPE_CHECKING:
    from raftd.core import Raft

# Chunks of a snapshot under way to a follower.
SNAPSHOT_CHUNKS_AHEAD = 4

# Part of the election timeout that a lease may use: clocks drift apart by less than the rest
# (§6.4.1).
LEASE_SHARE = 0.8

# The time until something unanswered is sent again doubles so many times: to 10 s, by default.
REPEATS_MAX = 7

# Rounds of heartbeats whose time is remembered; older ones confirm no lease any more.
ROUNDS_MAX = 4096

# Reads that may wait for confirmation; more are refused.
READS_MAX = 100_000


class Leader:
    """The state and duties of one term in office."""

    def __init__(self, raft: Raft) -> None:
        self._raft = raft
        self.progress: dict[str, Progress] = {}
        self.first_index = raft.log.last_index + 1  # of this term
        self.uncommitted_bytes = 0
        self.transfer_to: str | None = None
        self._handed_over = False  # somebody may have been told to take over, at any time
        self._snapshots: dict[str, tuple[SnapshotMeta, bytes]] = {}  # under way, by follower
        self.stranded: dict[str, int] = {}  # who needs a snapshot too large to be sent: its index
        self._transfer_until = 0.0
        self._durable_index = 0  # of this term's entries, which alone commit anything
        self._heartbeat_at = raft.now
        self._quorum_at = raft.now + raft.options.election_timeout_s[0]
        self._context = 0
        self._round_wanted = False
        self._rounds_sent: dict[int, float] = {}
        self._whole_round = 0  # the last one that went to everybody
        self._answered: dict[str, None] = {}  # that round, in this order
        self._front: list[str] = []  # who is asked when a read comes
        self._lease_until = float("-inf")
        self._reads: list[tuple[int, int, str | None, int]] = []  # context, token, from, index
        self._early_reads: list[tuple[int, str | None]] = []  # nothing of this term committed yet
        self.membership_changed()

    @property
    def lag(self) -> dict[str, int]:
        """Of each sibling, how many entries it is not known to have."""
        last = self._raft.log.last_index
        return {peer: last - progress.match_index for peer, progress in self.progress.items()}

    @property
    def trouble(self) -> str:
        """What an operator should see to."""
        names = ", ".join(self.stranded)
        why = "is stranded: it needs a snapshot that is too large; delete keys"
        return f"{names} {why}" if names else ""

    def begin(self) -> None:
        """Assert office: an empty entry of this term, without which nothing older commits (§8)."""
        raft = self._raft
        raft.append([Entry(self.first_index, raft.term, NOOP, b"")])
        self._heartbeat()

    def step_down(self) -> None:
        """Out of office: reads that wait must be asked elsewhere."""
        for token, source in [(t, s) for _, t, s, _ in self._reads] + self._early_reads:
            self._answer_read(token, source, 0)

    # -- proposals

    def propose(self, commands: Sequence[bytes]) -> int:
        """See Raft.propose."""
        raft = self._raft
        if self.transfer_to is not None:
            raise NotLeader(self.transfer_to)
        size = sum(map(len, commands))
        if self.uncommitted_bytes + size > raft.options.max_uncommitted_bytes:
            raise Overloaded(f"{self.uncommitted_bytes} bytes wait for a majority")
        self.uncommitted_bytes += size
        term = raft.term
        first = raft.log.last_index + 1
        raft.append([Entry(first + i, term, COMMAND, data) for i, data in enumerate(commands)])
        return first

    # -- replication

    def send_appends(self) -> None:
        """One message, or as many as the windows allow, to every follower that lacks entries."""
        raft = self._raft
        if self._round_wanted:
            self._round(self._front)
        last = raft.log.last_index
        cut: dict[int, list[Entry]] = {}  # followers that stand alike share one slice
        for name, progress in self.progress.items():
            while progress.next_index <= last and progress.may_send(raft.options.max_inflight):
                if not self._append_to(name, progress, cut):
                    break

    def _append_to(self, name: str, progress: Progress, cut: dict[int, list[Entry]]) -> bool:
        raft = self._raft
        previous = progress.next_index - 1
        previous_term = raft.log.term_at(previous)
        if previous_term is None or previous < raft.log.snapshot_index:
            self._start_snapshot(name, progress)
            return False
        if self.stranded:
            self.stranded.pop(name, None)
        entries = cut.get(previous)
        if entries is None:
            entries = cut[previous] = self._slice(previous + 1)
        message = m.AppendEntries(raft.term, previous, previous_term, raft.commit, entries)
        raft.send(name, message)
        progress.sent(previous + len(entries), raft.now)
        return True

    def _slice(self, first: int) -> list[Entry]:
        """Entries from `first` on, within the limits of one message; at least one."""
        options = self._raft.options
        entries = self._raft.log.slice(first, first + options.max_append_entries - 1)
        size = 0
        for count, entry in enumerate(entries):
            size += len(entry.data)
            if size > options.max_append_bytes and count:
                return entries[:count]
        return entries

    def own_log_is_durable(self, last_index: int) -> None:
        """This node's disk holds everything up to `last_index`."""
        if last_index > self._durable_index:
            self._durable_index = last_index
            self._advance_commit()

    def _match(self, name: str) -> int:
        if name == self._raft.name:
            return self._durable_index
        progress = self.progress.get(name)
        return progress.match_index if progress is not None else 0

    def _advance_commit(self) -> None:
        raft = self._raft
        membership = raft.membership
        index = joint_committed_index(membership.voters, membership.outgoing, self._match)
        # §5.4.2: an entry of an older term is committed by one of this term behind it, never by
        # count.
        if index <= raft.commit or raft.log.term_at(index) != raft.term:
            return
        committed = raft.log.slice(raft.commit + 1, index)
        self.uncommitted_bytes -= sum(len(e.data) for e in committed if e.kind == COMMAND)
        self.uncommitted_bytes = max(0, self.uncommitted_bytes)
        first_of_term = raft.commit < self.first_index
        raft.advance_commit(index)
        if self._early_reads and index >= self.first_index:
            early, self._early_reads = self._early_reads, []
            for token, source in early:
                self.read(token, source)
        # A change that the last leader left half-way is this one's to finish.
        if first_of_term or any(entry.kind == CONFIG for entry in committed):
            self._membership_committed()

    # -- what followers answer

    def receive(self, source: str, message: m.Message) -> None:
        """A reply of this term."""
        progress = self.progress.get(source)
        if progress is None:
            return  # of a node that was removed
        progress.heard_at = self._raft.now
        if isinstance(message, m.AppendReply):
            self._on_append_reply(source, progress, message)
        elif isinstance(message, m.HeartbeatReply):
            self._on_heartbeat_reply(source, progress, message)
        elif isinstance(message, m.SnapshotReply):
            self._on_snapshot_reply(source, progress, message)

    def _on_append_reply(self, source: str, progress: Progress, reply: m.AppendReply) -> None:
        raft = self._raft
        if not reply.accepted:
            # Our own log may end its run of that term earlier: skip that run as well.
            agrees = raft.log.last_at_or_below(reply.hint_index, reply.hint_term)
            progress.refused(reply.index, agrees + 1)
            return
        if reply.index > raft.log.last_index:
            return
        if progress.accepted(reply.index, raft.now):
            if progress.state != SNAPSHOT:
                self._snapshots.pop(source, None)
            self._advance_commit()
            self._promote(source, progress)
            if source == self.transfer_to and progress.match_index == raft.log.last_index:
                raft.send(source, m.TimeoutNow(raft.term))

    def _on_heartbeat_reply(self, source: str, progress: Progress, reply: m.HeartbeatReply) -> None:
        raft = self._raft
        progress.read_context = max(progress.read_context, min(reply.context, self._context))
        if reply.context == self._whole_round:
            self._answered[source] = None
        stalled_s = raft.now - progress.advanced_at
        if stalled_s > 2 * raft.options.heartbeat_s * 2 ** min(progress.repeats, REPEATS_MAX):
            # It answers heartbeats and not what we sent: that was lost. Or it takes long, on a slow
            # link: then each copy takes as long, and they must not become many.
            progress.repeats += 1
            if progress.state == REPLICATE and progress.inflight:
                progress.back_to_probe()
            elif progress.state == PROBE:
                progress.paused = False
            elif progress.state == SNAPSHOT:
                progress.snapshot_offset = progress.snapshot_sent = progress.snapshot_wanted
                self._send_chunks(source, progress)
        self._confirm_reads()

    # -- snapshots (§7)

    def _start_snapshot(self, name: str, progress: Progress) -> None:
        raft = self._raft
        assert raft.snapshot is not None, "entries are gone and no snapshot has them"
        meta, data = raft.snapshot
        if len(data) > raft.options.snapshot_bytes_max:
            self._strand(name, progress, meta, len(data))
            return
        self.stranded.pop(name, None)
        self._snapshots[name] = raft.snapshot
        progress.start_snapshot(meta.index, raft.now)
        raft.emit("snapshot.sent", to=name, index=meta.index, bytes=len(data))
        self._send_chunks(name, progress)

    def _strand(self, name: str, progress: Progress, meta: SnapshotMeta, nbytes: int) -> None:
        """What it needs cannot be sent. Looked at again when it answers, and told once."""
        raft = self._raft
        progress.back_to_probe()
        progress.sent(progress.match_index, raft.now)
        if self.stranded.get(name) != meta.index:
            self.stranded[name] = meta.index
            why = f"over {raft.options.snapshot_bytes_max} bytes; delete keys, the next is smaller"
            raft.emit("snapshot.too_large", to=name, index=meta.index, bytes=nbytes, cause=why)

    def _send_chunks(self, name: str, progress: Progress) -> None:
        """The next chunks of the snapshot that was begun, though there be a newer one by now."""
        raft = self._raft
        meta, data = self._snapshots[name]
        step = raft.options.snapshot_chunk_bytes
        ahead = progress.snapshot_offset + SNAPSHOT_CHUNKS_AHEAD * step
        packed = meta.membership.pack()
        while progress.snapshot_sent < min(len(data), ahead) or not data:
            offset = progress.snapshot_sent
            chunk = data[offset : offset + step]
            message = m.InstallSnapshot(
                raft.term, meta.index, meta.term, packed, offset, len(data), chunk
            )
            raft.send(name, message)
            progress.snapshot_sent = offset + len(chunk)
            if not data:
                break
        progress.advanced_at = raft.now

    def _on_snapshot_reply(self, source: str, progress: Progress, reply: m.SnapshotReply) -> None:
        raft = self._raft
        if progress.state != SNAPSHOT or reply.index != progress.snapshot_index:
            return
        if reply.offset >= len(self._snapshots[source][1]):
            self._snapshots.pop(source, None)
            progress.accepted(reply.index, raft.now)
            self._advance_commit()
            self._promote(source, progress)
            return
        progress.snapshot_wanted = reply.offset
        progress.snapshot_offset = max(progress.snapshot_offset, reply.offset)
        self._send_chunks(source, progress)

    # -- time

    def next_deadline(self) -> float:
        """The next heartbeat, check of the majority, or end of a transfer."""
        deadlines = [self._heartbeat_at, self._quorum_at]
        if self.transfer_to is not None:
            deadlines.append(self._transfer_until)
        return min(deadlines)

    def on_deadline(self) -> None:
        """Whatever is due."""
        raft = self._raft
        now = raft.now
        if self.transfer_to is not None and now >= self._transfer_until:
            raft.emit("raft.transfer", cause=f"{self.transfer_to} did not take over in time")
            self.transfer_to = None
        if now >= self._quorum_at:
            low, _ = raft.options.election_timeout_s
            self._quorum_at = now + low
            heard = [n for n, p in self.progress.items() if now - p.heard_at < low]
            if raft.options.check_quorum and not raft.membership.has_quorum([raft.name, *heard]):
                raft.emit("raft.quorum_lost", heard=heard)
                raft.become_follower(raft.term, None)
                return
        if now >= self._heartbeat_at:
            self._heartbeat()

    def _heartbeat(self) -> None:
        """Tell everybody who leads; who answers first is asked until the next time."""
        raft = self._raft
        membership = raft.membership
        needed = len(membership.voters) // 2 + (not membership.is_voter(raft.name))
        quickest = [name for name in self._answered if name in membership.voters][:needed]
        everybody = list(self.progress)
        self._front = everybody if membership.joint or len(quickest) < needed else quickest
        self._answered = {}
        self._heartbeat_at = raft.now + raft.options.heartbeat_s
        self._round(everybody)
        self._whole_round = self._context

    def _round(self, names: list[str]) -> None:
        """A round of heartbeats; its number confirms the reads that came before it."""
        raft = self._raft
        self._round_wanted = False
        self._context += 1
        self._rounds_sent[self._context] = raft.now
        for name in names:
            commit = min(raft.commit, self.progress[name].match_index)
            raft.send(name, m.Heartbeat(raft.term, commit, self._context))
        if len(self._rounds_sent) > ROUNDS_MAX:
            del self._rounds_sent[next(iter(self._rounds_sent))]
        if raft.membership.has_quorum([raft.name]):
            self._confirm_reads()  # there is nobody else to wait for

    # -- reads

    def read(self, token: int, source: str | None) -> None:
        """Confirm a read of ours (source None) or of a follower's client."""
        raft = self._raft
        if raft.commit < self.first_index:
            # Until an entry of this term is committed, the commit index may lag behind what was
            # acknowledged in an earlier one.
            if len(self._early_reads) < READS_MAX:
                self._early_reads.append((token, source))
            else:
                self._answer_read(token, source, 0)
        elif raft.membership.has_quorum([raft.name]) or self._has_lease():
            self._answer_read(token, source, raft.commit)
        elif len(self._reads) >= READS_MAX:
            self._answer_read(token, source, 0)
        else:
            self._round_wanted = True
            self._reads.append((self._context + 1, token, source, raft.commit))

    def _has_lease(self) -> bool:
        """Whether nobody else can have been elected yet. The order to take over ignores leases."""
        raft = self._raft
        return raft.options.lease_reads and raft.now < self._lease_until and not self._handed_over

    def _confirm_reads(self) -> None:
        raft = self._raft
        membership = raft.membership

        def answered(name: str) -> int:
            if name == raft.name:
                return self._context
            progress = self.progress.get(name)
            return progress.read_context if progress is not None else 0

        confirmed = joint_committed_index(membership.voters, membership.outgoing, answered)
        sent_at = self._rounds_sent.get(confirmed)
        if sent_at is not None:
            self._lease_until = sent_at + raft.options.election_timeout_s[0] * LEASE_SHARE
        for context in [c for c in self._rounds_sent if c < confirmed]:
            del self._rounds_sent[context]
        reads = self._reads
        if reads and reads[0][0] <= confirmed:
            ready = [read for read in reads if read[0] <= confirmed]
            self._reads = reads[len(ready) :]
            for _, token, source, index in ready:
                self._answer_read(token, source, index)

    def _answer_read(self, token: int, source: str | None, index: int) -> None:
        raft = self._raft
        if source is not None:
            raft.send(source, m.ReadIndexReply(raft.term, token, index))
        elif index:
            raft.output(ReadReady(token, index))
        else:
            raft.output(ReadFailed(token))

    # -- membership (§6)

    def membership_changed(self) -> None:
        """The log has another configuration: track exactly its members."""
        raft = self._raft
        members = set(raft.membership.everyone) - {raft.name}
        for name in sorted(members - set(self.progress)):
            # To the first of this term, or, for who joins later, the last entry there is: something
            # must be sent, or nobody would learn what the newcomer lacks.
            first = max(self.first_index, raft.log.last_index)
            fresh = Progress(next_index=first, advanced_at=raft.now)
            # Newcomers get the time of one check to answer before they count as silent.
            fresh.heard_at = raft.now
            self.progress[name] = fresh
        for name in sorted(set(self.progress) - members):
            del self.progress[name]
            self._snapshots.pop(name, None)
            self.stranded.pop(name, None)
        self._front = list(self.progress)

    def change_membership(self, wanted: Membership) -> int:
        """See Raft.change_membership."""
        raft = self._raft
        if raft.membership_index > raft.commit:
            raise InvalidChange("a membership change is under way; wait until it is committed")
        if raft.commit < self.first_index:
            raise InvalidChange("this leader has not committed anything yet; try again")
        index = raft.log.last_index + 1
        raft.append([Entry(index, raft.term, CONFIG, wanted.pack())])
        raft.emit("raft.membership", index=index, membership=str(wanted))
        self._advance_commit()
        return index

    def _membership_committed(self) -> None:
        raft = self._raft
        if raft.membership_index > raft.commit:
            return
        if raft.membership.joint:
            self.change_membership(raft.membership.left_joint())
        elif not raft.membership.is_voter(raft.name):
            raft.emit("raft.removed", cause="the new configuration does not have this node")
            # Tell the others that it is committed before leaving (§6, third issue).
            self._heartbeat()
            raft.become_follower(raft.term, None)
        else:
            for name, progress in list(self.progress.items()):
                self._promote(name, progress)

    def _promote(self, name: str, progress: Progress) -> None:
        """Make a learner a voter when it has caught up and nothing else is changing."""
        raft = self._raft
        membership = raft.membership
        if name not in membership.promoting or membership.joint:
            return
        if raft.membership_index > raft.commit or raft.commit < self.first_index:
            return
        if progress.match_index < raft.membership_index:
            return  # it does not even know yet that it belongs
        if raft.log.last_index - progress.match_index <= raft.options.caught_up_entries:
            self.change_membership(membership.promoted([name]))

    # -- handing over (dissertation §3.10)

    def transfer(self, to: str) -> None:
        """See Raft.transfer_leadership."""
        raft = self._raft
        progress = self.progress.get(to)
        if progress is None or not raft.membership.is_voter(to):
            raise InvalidChange(f"{to} is not another voter of this cluster")
        self.transfer_to = to
        self._handed_over = True
        self._transfer_until = raft.now + raft.options.election_timeout_s[1]
        raft.emit("raft.transfer", to=to)
        if progress.match_index == raft.log.last_index:
            raft.send(to, m.TimeoutNow(raft.term))
