"""The knobs of the consensus core, with unit, trade-off and reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RaftOptions:
    """How one Raft node behaves; all nodes of a cluster should agree on the first three.

    election_timeout_s
        Silence of the leader after which a follower stands for election, drawn anew each time
        from this range. Below the lower end no follower votes against a leader it hears, so it is
        also the lease. Lower: faster failover. Higher: fewer elections over nothing on a busy
        machine. The dissertation (§9.3) finds 150 to 300 ms good where a broadcast takes 15 ms.
    heartbeat_s
        How often a leader speaks. A third of the lower election timeout or less, so that two may
        be lost.
    pre_vote
        Ask before standing, so that a node that was cut off does not unseat a good leader on its
        return.
    check_quorum
        A leader that has not heard a majority for an election timeout steps down.
    lease_reads
        Answer reads within the lease without asking a majority. Saves a round trip; wrong if a
        clock runs away. Off: reads are safe under any clock.
    max_append_entries, max_append_bytes
        Size of one AppendEntries. It bounds memory, and how long a follower works before it
        answers.
    max_inflight
        AppendEntries under way to a follower. Window = max_inflight × max_append_bytes.
    max_uncommitted_bytes
        Proposals that may wait for a majority; more are refused (Overloaded), since a cluster
        that has lost its majority must not fill its leader's memory.
    snapshot_chunk_bytes
        Piece of a snapshot in one message.
    snapshot_bytes_max
        A larger one is neither sent nor taken, and both sides say so: it is put together in
        memory. What the store holds at the most (space.py) fits it.
    keep_entries, keep_bytes
        What is kept behind a snapshot at the most, for followers that are only a little behind.
    caught_up_entries
        A learner this near to the end of the log is promoted.
    """

    election_timeout_s: tuple[float, float] = (0.15, 0.30)
    heartbeat_s: float = 0.04
    pre_vote: bool = True
    check_quorum: bool = True
    lease_reads: bool = False
    max_append_entries: int = 1024
    max_append_bytes: int = 1024 * 1024
    max_inflight: int = 64
    max_uncommitted_bytes: int = 64 * 1024 * 1024
    snapshot_chunk_bytes: int = 256 * 1024
    snapshot_bytes_max: int = 1024 * 1024 * 1024
    keep_entries: int = 2048
    keep_bytes: int = 16 * 1024 * 1024
    caught_up_entries: int = 64

    def __post_init__(self) -> None:
        low, high = self.election_timeout_s
        if not 0 < low < high:
            raise ValueError("election_timeout_s must be two times, the lower one first")
        if not 0 < self.heartbeat_s <= low / 3:
            raise ValueError("heartbeat_s must be a third of the lower election timeout or less")
        if self.lease_reads and not self.check_quorum:
            raise ValueError("lease_reads needs check_quorum: without it nothing ends a lease")
        for name in ("max_append_entries", "max_append_bytes", "max_inflight"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more")
