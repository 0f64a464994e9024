"""Bugs of links, disks, sockets, threads, logs and worlds, each small enough to be overlooked."""

from __future__ import annotations

import asyncio
import os

import pytest

from netstack.runtime.disk import Disk, DiskFile
from netstack.runtime.events import EventLog
from netstack.runtime.executor import ThreadExecutor
from netstack.runtime.memory_disk import MemoryStorage
from netstack.runtime.policy import LinkShaper, LinkTable, flip_bit
from netstack.runtime.simulation import loop
from netstack.runtime.simulation.world import SimulatedRuntime, VirtualExecutor

# -- links


class HasNoBursts(LinkShaper):
    def _lost(self):
        self._bad = False
        if self.policy.cut:
            return "cut"
        return "lost" if self._rng.random() < self.policy.loss else ""


class LetsJitterReorder(LinkShaper):
    def shape(self, datagram, now):
        self._last_at = 0.0
        return super().shape(datagram, now)


class SavesItsRateUp(LinkShaper):
    def shape(self, datagram, now):
        return super().shape(datagram, min(now, self._free_at))


class HasAnEndlessQueue(LinkShaper):
    def shape(self, datagram, now):
        self.policy = self.policy.changed({"queue_bytes": 1 << 40})
        return super().shape(datagram, now)


class ForgetsToCount(LinkShaper):
    def shape(self, datagram, now):
        copies = super().shape(datagram, now)
        self.counts["dropped"] = 0
        return copies


def flips_two_bits(datagram, rng):
    return flip_bit(flip_bit(datagram, rng), rng)


class StartsAnewAtEachChange(LinkTable):
    def set(self, destination, policy):
        self.shapers.pop(destination, None)
        super().set(destination, policy)


def clears_by_a_new_map(self):
    self.shapers = {}


# -- disks


class WritesThroughAtOnce(DiskFile):
    """Power-cut mode that is none: kill -9 loses nothing."""

    def write_at(self, offset, data):
        mode, self._disk.faults.power_cut = self._disk.faults.power_cut, False
        super().write_at(offset, data)
        self._disk.faults.power_cut = mode


class ReadsOnlyWhatIsSynced(DiskFile):
    def read_at(self, offset, count):
        return self._storage.pread(self._handle, offset, count)


class SyncsByClosingItsEyes(DiskFile):
    """Writes what waits, and leaves the rest to the kernel."""

    def sync(self):
        storage, self._storage = self._storage, NoSync(self._storage)
        super().sync()
        self._storage = storage


class NoSync:
    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def sync(self, handle):
        pass


class TearsForEver(DiskFile):
    def sync(self):
        torn = self._disk.faults.torn
        try:
            super().sync()
        finally:
            self._disk.faults.torn = torn


class ReplacesInPlace(Disk):
    def replace(self, path, data):
        with self.open(path) as file:
            file.truncate(0)
            file.write_at(0, data)
            file.sync()


class RenamesWithoutTheFolder(Disk):
    def rename(self, old, new):
        self.before_write()
        self._storage.rename(old, new)


class FailsFromThenOn(Disk):
    def count_down(self):
        due = self.faults.eio_at == 1
        try:
            super().count_down()
        finally:
            self.faults.eio_at = max(self.faults.eio_at, int(due))


class OpensEachTimeAnew(Disk):
    def open(self, path):
        self._open.pop(path, None)
        return super().open(path)


class HoldsOnToNames(Disk):
    def rename(self, old, new):
        before = self._open.copy()
        super().rename(old, new)
        self._open = before


def keeps_what_it_could_not_sync(self):
    self._pending.clear()


class SlowsDownWrites(Disk):
    def before_write(self):
        if self.faults.slow_s:
            self.pause(self.faults.slow_s)
        super().before_write()


class KeepsAllInACrash(MemoryStorage):
    def crash(self, rng):
        for file in self._files.values():
            file.undo.clear()


class LosesSyncedToo(MemoryStorage):
    def sync(self, handle):
        pass


class SplitsSectors(MemoryStorage):
    def crash(self, rng):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("netstack.runtime.memory_disk.SECTOR_BYTES", 100)
            super().crash(rng)


class SyncsWhileItDies(MemoryStorage):
    def run_unsynced(self, work):
        work()


def writes_once(self, handle, offset, data):
    os.pwrite(handle, data, offset)


# -- sockets


def gives_up_at_the_first(self, datagrams, destination):
    try:
        for datagram in datagrams:
            self._socket.sendto(datagram, destination)
    except OSError:
        self.send_failures += 1


def ends_at_a_refusal(self):
    try:
        while True:
            data, source = self._socket.recvfrom(65_535)
            if self._receiver is not None:
                self._receiver((data,), source, 0)
    except BlockingIOError:
        return
    except OSError:
        self._loop.remove_reader(self._socket.fileno())


def closes_in_a_while(self, hops=3):
    if hops:
        self._loop.call_soon(closes_in_a_while, self, hops - 1)
    else:
        self._busy.stop()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()


FOR_EVER = 1 << 30


def tells_nobody(*args):
    return None


def sends_through(self, datagrams, destination, mark=0):
    self._inner.send(datagrams, destination, mark)


def sends_what_its_timer_was_set_for(self, datagrams, destination, mark=0):
    now = self._clock.true_now()
    for datagram in datagrams:
        for arrives, copy in self._shapers[destination].shape(datagram, now):
            self._later(arrives - now, lambda it=copy: self._inner.send((it,), destination))


def runs_links_by_the_nodes_clock(self):
    return self.now()


def looks_at_the_port_alone(host):
    return "00000000"


# -- threads


class RunsTheLastFirst(ThreadExecutor):
    def submit(self, function, done):
        self._waiting.appendleft((function, done))
        if not self._busy:
            self._begin()


class ForgetsAtTheEnd(ThreadExecutor):
    def close(self):
        self._waiting.clear()
        super().close()


class AnswersInTheThread(ThreadExecutor):
    def _run(self):
        while (work := self._queue.get()) is not None:
            self._finish(work[1], work[0](), None, 0.0)


class LosesErrors(ThreadExecutor):
    def _finish(self, done, result, failure, blocked_s):
        super()._finish(done, result, None, blocked_s)


class NeverOnTheLoop(ThreadExecutor):
    def _begin(self):
        self._here_after = float("inf")
        super()._begin()


class NeverInTheThread(ThreadExecutor):
    def _begin(self):
        self._here_after = 0.0
        super()._begin()


class ForgetsWhatItHasBegun(VirtualExecutor):
    def close(self):
        self.begun = None
        super().close()


def never_sleeps(self):
    pass


# -- logs, files, tasks


class FlushesEachLine(EventLog):
    def emit(self, kind, cause=None, **fields):
        super().emit(kind, cause, **fields)
        self.flush()


class CountsAnewEachBatch(EventLog):
    def flush(self):
        super().flush()
        self._sequence = 0


class FlushesOnlyOnce(EventLog):
    def flush(self):
        super().flush()
        self._scheduled = True


class DropsWithoutAWord(EventLog):
    def flush(self):
        self._written = self._sequence - len(self._waiting)
        super().flush()


def keeps_what_it_has_written(self, text):
    data = text.encode()
    while data:
        data = data[self._file.write(data) :]


def says_nothing(self, task):
    self._tasks.pop(task, None)
    task.cancelled() or task.exception()


async def cancels_and_leaves(self):
    for task in self._tasks:
        task.cancel()


async def cancels_once(self):
    tasks = [task for task in self._tasks if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


# -- worlds


def runs_the_dead(self):
    life = self._context.get(loop._life)
    if life is None or life.held is None:
        asyncio.Handle._run(self)
    else:
        life.held.append(self)


def runs_the_paused(self):
    life = self._context.get(loop._life)
    if life is None or not life.over:
        asyncio.Handle._run(self)


def compares_times_alone(self, other):
    return self.when() < other.when()


def forgets_what_was_held(self, life):
    life.held = None


def resumes_backwards(self, life):
    held, life.held = life.held or [], None
    self._ready.extendleft(held)


def resumes_at_the_end(self, life):
    held, life.held = life.held or [], None
    self._ready.extend(held)


class Hangs(Exception):
    """What would be seen of it, if somebody had the time."""


def hangs_for_ever(self, timeout):
    self.now += 1.0 if timeout is None else timeout
    if self.now > 1e6:
        raise Hangs
    return []


def swallows_bugs(self, error):
    self.ended = error
    self.crash()


def cuts_both_ways(self, source, destination):
    self._cut.update({(source, destination), (destination, source)})


def parts_one_way(self, groups):
    first, *others = map(list, groups)
    self._cut.update((a, b) for a in first for other in others for b in other)


def does_nothing(*args):
    pass


class HandsTheDiskOn:
    """To the next life, as the dead process holds it."""

    @staticmethod
    def copy(storage):
        return storage


def listens_to_the_dead(self, text):
    self._lines.append(text)


def throws_true_dice(self, count):
    return os.urandom(count)


class TheSameDiceInEachLife(SimulatedRuntime):
    def __init__(self, world, node):
        super().__init__(world, node)
        self.rng.seed(world.seed)
