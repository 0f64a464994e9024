"""A Raft core on a disk and a network, driving the store: the shell around core.py and store.py.

    commands, messages, reads ──> (end of this turn of the loop) ──> core ──> outputs
        Persist      ──> writer thread ──> persisted ──> the promises that waited for it
        Send         ──> link
        Apply        ──> store ──> answers, watches
        ReadReady    ──> served when applied
        Doubt        ──> is its process dead? ──> an election without the wait for a time-out

All that arrives in one turn of the loop makes one batch: one append, one message a follower, and,
since the writer takes whatever has gathered while it was busy, one sync. The loop never waits for
the disk, so heartbeats do not.

A disk that is full is waited for: no new commands are taken, reads go on, and writing is tried
again until it succeeds. Any other error of the disk ends the node: nobody knows what is on it.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from netstack.rpc import frames
from netstack.runtime.executor import Executor
from netstack.runtime.runtime import Fatal, Runtime
from raftd import messages as m
from raftd.checkpoints import Checkpoints
from raftd.config import RaftSettings
from raftd.core import LEADER, Raft
from raftd.errors import NotLeader, Overloaded
from raftd.lease import LeaseKeeper
from raftd.log import COMMAND, SnapshotMeta
from raftd.outputs import (
    Apply,
    Doubt,
    Emit,
    Persist,
    ReadFailed,
    ReadReady,
    Restore,
    Send,
)
from raftd.reads import WaitingReads
from raftd.sessions import UNKNOWN
from raftd.snapshot_store import save
from raftd.store import Store
from raftd.wal import DamagedLog, Wal

METHOD: Final = "raft"

# Of commands since the last snapshot: then the next is due, however few they are.
LOG_BYTES_MAX: Final = 64 * 1024 * 1024

# How often a full disk is tried again.
DISK_RETRY_S: Final = 0.2
# Time between two events that tell of the log's progress: a picture, not a copy of it.
PROGRESS_EVENT_S: Final = 0.1

_MAY_BE_LARGE: Final = (m.AppendEntries, m.InstallSnapshot)

Answered = Callable[[list[Any] | None, Exception | None], None]
Request = tuple[bytes, int]  # session, sequence
"""(answer, None), or (None, why): NotLeader and Overloaded are definite, LeadershipLost is not."""


class LeadershipLost(Exception):
    """The command was proposed, and this node cannot say what became of it."""


class DiskFull(Overloaded):
    """No command is taken until there is room again."""


class Replica:
    """One node's copy of the replicated store.

    Args:
        runtime: the world.
        settings: see RaftSettings.
        send: (to, encoded message, bulk) -> None; may drop.
        is_dead: whether the machine of a sibling says that no process has its port.
        is_sending: whether what may be large (`bulk`) is still on its way to a sibling.
    """

    def __init__(
        self,
        runtime: Runtime,
        settings: RaftSettings,
        send: Callable[[str, bytes, bool], None],
        is_dead: Callable[[str], bool],
        is_sending: Callable[[str], bool],
    ) -> None:
        self._runtime = runtime
        self._settings = settings
        self._send = send
        self._is_dead = is_dead
        self._is_sending = is_sending
        self._now = runtime.clock.now
        self.store = Store()
        self.leases = LeaseKeeper()
        self.disk_full = False
        self.counters = {"commands": 0, "reads": 0, "batches": 0, "malformed": 0, "snapshots": 0}
        runtime.disk.faults.power_cut = settings.power_cut or runtime.disk.faults.power_cut
        try:
            salt = int.from_bytes(runtime.entropy(4), "big")
            clock = runtime.clock.true_now
            self._wal, restored = Wal.open(runtime.disk, salt=salt, clock=clock)
        except (DamagedLog, OSError) as error:
            raise Fatal(f"the log of {runtime.node} cannot be used: {error}") from None
        if restored.snapshot is not None:
            self.store.restore(restored.snapshot_data)
        self._snapshot_due = self._next_snapshot(
            restored.snapshot.index if restored.snapshot else 0
        )
        self._log_bytes = 0  # applied since the last snapshot
        self._state_bytes = len(restored.snapshot_data)
        self.store.on_lease = self._lease_changed
        self.core = Raft(
            runtime.node,
            settings.options,
            restored,
            settings.bootstrap,
            runtime.rng,
            self._now(),
        )
        self._writer: Executor = runtime.executor("wal")
        self._snapshotter: Executor = runtime.executor("snapshot", brief=False)
        self._snapshotting = False
        self._to_write: list[Persist] = []
        self._to_apply: list[Apply] = []
        self._writing = False
        self._proposals: list[tuple[bytes, Answered]] = []
        self._waiters: dict[int, tuple[int, Answered]] = {}
        self._asked: dict[Request, list[Answered]] = {}  # who waits for what was proposed
        # Not from 0 in every life: an answer that is owed to the last one must not fit a read of
        # this one.
        self._reads = WaitingReads(runtime.rng.getrandbits(48))
        self._conditions: list[tuple[Callable[[], bool], asyncio.Future[bool]]] = []
        self._pumping = False
        self._timer: Any = None
        self._timer_at = float("inf")
        self._encoded: tuple[m.Message | None, bytes] = (None, b"")
        self._progress_at = 0.0
        self._append_told = (float("-inf"), 0, 0.0, 0)  # when, and of the log: syncs, time, bytes
        self._checkpoints = Checkpoints(self._checkpoint)
        self._loop = asyncio.get_running_loop()
        self.on_membership: Callable[[], None] | None = None
        self.touch()

    def __repr__(self) -> str:
        return f"<Replica {self.core!r} {self.store!r}>"

    def wal_metrics(self) -> dict[str, float]:
        """What the log has cost so far."""
        wal = self._wal
        return {
            "ring_wal_syncs_total": float(wal.syncs),
            "ring_wal_sync_seconds_total": wal.sync_s,
            "ring_wal_bytes_total": float(wal.bytes_written),
        }

    @property
    def is_leader(self) -> bool:
        """Whether this node leads, as far as it knows."""
        return self.core.role == LEADER

    # -- what callers ask

    def propose(
        self,
        command: bytes,
        answered: Answered,
        request: Request | None = None,
        *,
        again: bool = False,
    ) -> None:
        """Have a command applied; `answered` is called once, soon or late.

        Args:
            request: session and sequence. What waits already is not proposed a second time: on a
                slow link each copy of a large command would keep the next from coming about.
            again: it has been asked before, and may have been answered.
        """
        if self.core.leading is None:
            answered(None, NotLeader(self.core.leader_name))
        elif self.disk_full:
            answered(None, DiskFull("the disk is full; nothing is written until there is room"))
        elif request is None:
            self._proposals.append((command, answered))
            self.touch()
        elif request in self._asked:
            self._asked[request].append(answered)
        elif again and (known := self.store.sessions.answer(*request)) is not UNKNOWN:
            answered(known, None)
        else:
            self._asked[request] = [answered]
            self._proposals.append((command, partial(self._tell_all, request)))
            self.touch()

    def _tell_all(self, request: Request, answer: Any, error: Exception | None) -> None:
        for answered in self._asked.pop(request):
            self._tell(answered, answer, error)

    def read(self, ready: Callable[[Exception | None], None]) -> None:
        """Call `ready(None)` when the store may be read linearizably, or with why not."""
        self._reads.add(ready)
        self.touch()

    def receive(self, body: Any, source: str) -> None:
        """A message of a sibling."""
        try:
            message = m.unpack(body)
        except m.Malformed as error:
            self.counters["malformed"] += 1
            self._runtime.events.emit("raft.malformed", source=source, cause=str(error))
            return
        now = self._now()
        if type(message) is m.HeartbeatReply and self._is_sending(source):
            self._still_on_its_way(source, now)
        try:
            self.core.receive(message, source, now)
        except AssertionError as error:
            # An invariant does not hold: whatever this node did from here on would be worse.
            self._runtime.fatal(error, "raft")
            return
        self.touch()

    def _still_on_its_way(self, name: str, now: float) -> None:
        """A follower has not answered what the transport still carries: that it will deliver.

        Sent again it would only keep the link from what comes after it.
        """
        leading = self.core.leading
        if leading is not None and name in leading.progress:
            leading.progress[name].advanced_at = now

    def touch(self) -> None:
        """Something happened: run the core at the end of this turn of the loop."""
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def hand_over(self) -> None:
        """Let the follower that is furthest lead instead, if there is one."""
        if self.core.leading is None:
            return
        progress, voters = self.core.leading.progress, self.core.membership.voters
        followers = [(p.match_index, name) for name, p in progress.items() if name in voters]
        if followers:
            self.core.transfer_leadership(max(followers)[1], self._now())
            self.touch()

    async def until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until `condition()` holds; False if it does not in time. Asked after each batch."""
        if condition():
            return True
        met: asyncio.Future[bool] = self._loop.create_future()
        item = (condition, met)
        self._conditions.append(item)
        try:
            async with asyncio.timeout(timeout_s):
                return await met
        except TimeoutError:
            return False
        finally:
            self._conditions.remove(item)

    async def stop(self) -> None:
        """Finish what is being written, and close the log."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = float("-inf")
        self._writer.close()
        self._snapshotter.close()
        self._wal.close()

    # -- the pump

    def _pump(self) -> None:
        self._pumping = False
        now = self._now()
        core = self.core
        if self._proposals:
            self._propose_batch(now)
        token = self._reads.ask()
        if token is not None:
            core.read_index(token, now)
        for output in core.take_outputs():
            _CARRY_OUT[type(output)](self, output)
        if self._to_write and not self._writing:
            self._write()
        if self._conditions:
            self._wake_waiting()
        deadline = core.next_deadline()
        if deadline < self._timer_at:
            self._arm(deadline)

    def _wake_waiting(self) -> None:
        """Those for whom it is so, as they see it now."""
        for condition, met in self._conditions:
            if not met.done() and condition():
                met.set_result(True)

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._runtime.call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        """Armed when a deadline moves nearer, never when it moves away: it may be early."""
        self._timer, self._timer_at = None, float("inf")
        now = self._now()
        if now >= self.core.next_deadline():
            self.core.on_deadline(now)
        self._pump()

    def _propose_batch(self, now: float) -> None:
        batch, self._proposals = self._proposals, []
        try:
            index = self.core.propose([command for command, _ in batch], now)
        except (NotLeader, Overloaded) as error:
            for _, answered in batch:
                self._tell(answered, None, error)
            return
        term = self.core.term
        waiters = self._waiters
        for _, answered in batch:
            waiters[index] = (term, answered)
            index += 1
        self.counters["commands"] += len(batch)
        self.counters["batches"] += 1

    def _send_out(self, output: Send) -> None:
        message = output.message
        # Followers that stand alike get equal messages: encode one of them.
        last, encoded = self._encoded
        if type(last) is not type(message) or last != message:
            encoded = frames.notify(METHOD, m.pack(message))
            self._encoded = (message, encoded)
        # What may be large has a lane of its own: on a slow link a heartbeat must not wait for it.
        self._send(output.to, encoded, type(message) in _MAY_BE_LARGE)

    def _doubt(self, output: Doubt) -> None:
        if self._is_dead(output.leader):
            self.core.leader_gone(output.leader, self._now())
            self.touch()

    # -- the disk

    def _write(self) -> None:
        batch, self._to_write = self._to_write, []
        self._writing = True
        self._writer.submit(
            lambda: self._wal.append(batch), lambda _, error: self._written(batch, error)
        )

    def _written(self, batch: list[Persist], error: BaseException | None) -> None:
        if error is not None:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                self._disk_is_full(batch)
            else:
                # What came after it would follow a hole: until the process ends nothing is written.
                self._runtime.fatal(Fatal(f"the log cannot be written: {error}"), "wal")
            return
        self._writing = False
        if self.disk_full:
            self.disk_full, self.core.writable = False, True
            self._runtime.events.emit("disk.room", cause="writing works again")
        failpoint = self._runtime.failpoint
        failpoint("raft.persisted")
        core, now = self.core, self._now()
        for persist in batch:
            if persist.snapshot is not None:
                self._forget_before(persist.snapshot[0].index)
            core.persisted(persist.sequence, now)
            for send in persist.then:
                self._send_out(send)
        if now - self._append_told[0] >= PROGRESS_EVENT_S:
            self._tell_of_appends(batch, now)
        self._pump()

    def _tell_of_appends(self, batch: list[Persist], now: float) -> None:
        """What the disk has, and what that took since it was last told."""
        last = next((p.entries[-1].index for p in reversed(batch) if p.entries), None)
        if last is None:
            return
        _, syncs, sync_s, nbytes = self._append_told
        wal = self._wal
        self._append_told = (now, wal.syncs, wal.sync_s, wal.bytes_written)
        self._runtime.events.emit(
            "log.append",
            term=self.core.term,
            index=last,
            syncs=wal.syncs - syncs,
            sync_ms=round((wal.sync_s - sync_s) * 1000, 3),
            bytes=wal.bytes_written - nbytes,
        )

    def _disk_is_full(self, batch: list[Persist]) -> None:
        if not self.disk_full:
            self.disk_full, self.core.writable = True, False
            self._runtime.events.emit("disk.full", cause="commands are refused until there is room")
        self.hand_over()  # again each time: those who could take over may have been slow before
        self._to_write = batch + self._to_write
        self._writing = True  # nothing else is written before this

        def again() -> None:
            self._writing = False
            self._write()

        self._runtime.call_later_true(DISK_RETRY_S, again)

    # -- the state machine

    def _committed(self, output: Apply) -> None:
        """A leader's clients wait for this; a follower's leader waits for its acknowledgement."""
        if self.core.leading is not None:
            self._apply_waiting()
            self._apply(output)
            return
        if not self._to_apply:
            # Behind the turn that writes, and the one that sends what follows from that.
            self._loop.call_soon(self._loop.call_soon, self._apply_waiting)
        self._to_apply.append(output)

    def _apply_waiting(self) -> None:
        waiting, self._to_apply = self._to_apply, []
        for output in waiting:
            self._apply(output)
        if waiting and self._conditions:
            self._wake_waiting()

    def _apply(self, output: Apply) -> None:
        store, waiters = self.store, self._waiters
        failpoint = self._runtime.failpoint
        failpoint("raft.before-apply")
        checked = self._checkpoints.applied
        for entry in output.entries:
            checked(entry.index, entry.term, entry.data)
            if entry.kind == COMMAND:
                self._log_bytes += len(entry.data)
                answer = store.apply(entry.index, entry.data)
            else:
                store.advance(entry.index)
                answer = []
                if self.on_membership is not None:
                    self.on_membership()
            if waiters:
                waiter = waiters.pop(entry.index, None)
                if waiter is not None:
                    term, answered = waiter
                    if term == entry.term:
                        self._tell(answered, answer, None)
                    else:
                        lost = LeadershipLost("another leader's entry took the place")
                        self._tell(answered, None, lost)
        self._serve_reads()
        self._maybe_snapshot()
        now = self._now()
        if now - self._progress_at >= PROGRESS_EVENT_S:
            self._progress_at = now
            self._runtime.events.emit(
                "log.commit",
                term=self.core.term,
                index=self.core.commit,
                last=self.core.log.last_index,
                revision=store.revision,
            )

    def _checkpoint(self, index: int, term: int, checksum: int) -> None:
        self._runtime.events.emit("raft.checkpoint", index=index, term=term, sum=checksum)

    def _restore(self, output: Restore) -> None:
        failpoint = self._runtime.failpoint
        failpoint("raft.before-restore")
        self._apply_waiting()
        self.store.restore(output.data)
        self._snapshot_due = self._next_snapshot(output.meta.index)
        self._log_bytes, self._state_bytes = 0, len(output.data)
        for _, answered in list(self._waiters.values()):
            self._tell(answered, None, LeadershipLost("the state was replaced by the leader's"))
        self._waiters.clear()
        self._serve_reads()
        if self.on_membership is not None:
            self.on_membership()

    def _next_snapshot(self, index: int) -> int:
        """The index at which the next is due: not the same on all nodes; they take turns."""
        every = self._settings.snapshot_every
        return index + every + int(self._runtime.rng.random() * every / 2)

    def _maybe_snapshot(self) -> None:
        """When the log has grown as long as the state it makes: its upkeep is a constant factor."""
        index = self.store.applied_index
        due = index >= self._snapshot_due or self._log_bytes >= LOG_BYTES_MAX
        state_bytes = min(self._state_bytes, self.store.space.total)  # it may have shrunk since
        if self._snapshotting or not due or self._log_bytes < state_bytes:
            return
        term = self.core.log.term_at(index)
        if term is None:
            return
        self._snapshotting = True
        meta = SnapshotMeta(index, term, self.core.membership_at(index))
        self._log_bytes = 0
        frozen, runtime = self.store.freeze(), self._runtime

        def work() -> bytes:
            return save(runtime.disk, meta, runtime.unhurried(frozen.parts()))

        self._snapshotter.submit(work, lambda data, error: self._snapshot_saved(meta, data, error))

    def _snapshot_saved(
        self, meta: SnapshotMeta, data: bytes | None, error: BaseException | None
    ) -> None:
        self._snapshotting = False
        if error is not None or data is None:
            # The log has everything still; the next occasion tries again.
            self._snapshot_due = self._next_snapshot(self.store.applied_index)
            self._runtime.events.emit("snapshot.failed", cause=str(error))
            return
        self._state_bytes = len(data)
        self._snapshot_due = self._next_snapshot(meta.index)
        self.counters["snapshots"] += 1
        self._runtime.events.emit("snapshot.taken", index=meta.index, bytes=len(data))
        self.core.compact(meta, data, self._now())
        self._forget_before(meta.index)
        self.touch()

    def _forget_before(self, index: int) -> None:
        wal = self._wal
        self._writer.submit(lambda: wal.forget_before(index), self._segments_removed)

    def _segments_removed(self, _: Any, error: BaseException | None) -> None:
        if error is not None:
            self._runtime.events.emit("wal.not_removed", cause=str(error))

    # -- reads

    def _read_ready(self, output: ReadReady) -> None:
        self._reads.confirmed(output.token, output.index)
        self._serve_reads()

    def _serve_reads(self) -> None:
        for ready in self._reads.take_ready(self.store.applied_index):
            self.counters["reads"] += 1
            self._tell(ready, None)

    def _tell(self, callback: Callable[..., None], *outcome: Any) -> None:
        """One who asked. A bug of his must not keep from the store what follows."""
        try:
            callback(*outcome)
        except Exception as error:
            self._runtime.events.emit("raft.callback_error", error=repr(error))

    def _read_failed(self, output: ReadFailed) -> None:
        for ready in self._reads.take_failed(output.token):
            self._tell(ready, NotLeader(self.core.leader_name))

    # -- roles

    def _event(self, output: Emit) -> None:
        self._runtime.events.emit(output.kind, **output.fields)
        if output.kind != "raft.role":
            return
        if self.core.role == LEADER:
            self.leases.start(self.store.leases, self._now())
            return
        # Whatever we proposed or forwarded may or may not come about; who asked must ask again.
        waiters, self._waiters = self._waiters, {}
        for _, answered in waiters.values():
            self._tell(answered, None, LeadershipLost("this node no longer leads"))
        for ready in self._reads.take_asked():
            self._tell(ready, NotLeader(self.core.leader_name))

    def _lease_changed(self, lease_id: int, ttl_s: int) -> None:
        if self.core.role == LEADER:
            if ttl_s:
                self.leases.keep(lease_id, ttl_s, self._now())
            else:
                self.leases.gone(lease_id)


_CARRY_OUT: Final[dict[type, Callable[[Replica, Any], None]]] = {
    Send: Replica._send_out,
    Persist: lambda replica, output: replica._to_write.append(output),
    Apply: Replica._committed,
    Restore: Replica._restore,
    ReadReady: Replica._read_ready,
    ReadFailed: Replica._read_failed,
    Doubt: Replica._doubt,
    Emit: Replica._event,
}
