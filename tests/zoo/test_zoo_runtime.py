"""Planted bugs of links, disks, sockets, threads, logs and worlds, and the test that catches each.

A judge is a test of tests/unit/runtime, where it passes; here it must fail.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from pathlib import Path

import pytest

from netstack.runtime.disk import Disk, DiskFile
from netstack.runtime.events import EventLog
from netstack.runtime.executor import ThreadExecutor
from netstack.runtime.memory_disk import MemoryStorage
from netstack.runtime.os_disk import OsStorage
from netstack.runtime.policy import LinkShaper, LinkTable, flip_bit
from netstack.runtime.simulation import world as worlds
from netstack.runtime.simulation.loop import Life, VirtualLoop

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "runtime"))
policies = importlib.import_module("test_policy")
disks = importlib.import_module("test_disk")
storages = importlib.import_module("test_storage")
endpoints = importlib.import_module("test_endpoints")
executors = importlib.import_module("test_executor")
logs = importlib.import_module("test_events")
configs = importlib.import_module("test_cluster_config")
spawning = importlib.import_module("test_runtime_spawn")
loops = importlib.import_module("test_virtual_loop")
simulation = importlib.import_module("test_simulation")
network = importlib.import_module("test_simulated_network")
endpoint_kit = importlib.import_module("endpoint_kit")
disk_kit = importlib.import_module("disk_kit")
world_kit = importlib.import_module("world_kit")
runtime_kit = importlib.import_module("runtime_kit")

CAUGHT = (AssertionError, pytest.fail.Exception, TimeoutError)


# -- the ways to call a judge, as its fixtures would


def plainly(judge, *args):
    return lambda tmp_path: judge(*args)


def on_disk(judge, kind="memory", *, power_cut=False):
    def call(tmp_path):
        place = disk_kit.Place(kind, tmp_path / "disk")
        place.disk.faults.power_cut = power_cut
        judge(place)

    return call


def with_log(judge):
    return lambda tmp_path: judge(logs.Log())


def on_net(judge, kind="raw"):
    def call(tmp_path):
        net = endpoint_kit.Net(kind, "asyncio")
        try:
            judge(net=net)
        finally:
            net.close()

    return call


def on_loop(judge, **patches):
    """An executor's judge on a real loop, with the clock that it moves."""

    def call(tmp_path):
        loop, watch = endpoint_kit.Loop("asyncio"), executors.Watch()
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(executors.executor, "time", watch)
            try:
                judge(loop=loop, watch=watch)
            finally:
                loop.close()

    return call


def with_threads(judge):
    def call(tmp_path):
        ground = executors.Threads("asyncio")
        try:
            judge(ground)
        finally:
            ground.close()

    return call


def with_spin(judge):
    def call(tmp_path):
        with pytest.MonkeyPatch.context() as patched:
            judge(executors.TestBusyPoll.now.__wrapped__(executors.TestBusyPoll(), patched))

    return call


def with_node(judge):
    """A judge of spawned tasks, on a loop of its own."""

    def call(tmp_path):
        async def scene():
            node = spawning.Node(tmp_path)
            try:
                async with asyncio.timeout(20):
                    await judge(node)
            finally:
                node.runtime.close()

        asyncio.run(scene())

    return call


def on_virtual_loop(judge, *, paused=False):
    def call(tmp_path):
        loop, life = VirtualLoop(), Life("n1")
        life.held = [] if paused else None
        try:
            judge(loop, life)
        finally:
            loop.close()

    return call


def in_world(judge):
    def call(tmp_path):
        world = worlds.World(seed=1)
        try:
            judge(world)
        finally:
            world.close()

    return call


def on_radio(judge):
    def call(tmp_path):
        world, radio = world_kit.radio_world()
        world.network.base_policy = network.STEADY
        try:
            judge((world, radio))
        finally:
            world.close()

    return call


def of_mistake(name):
    def call(tmp_path):
        def load(text):
            (tmp_path / "cluster.toml").write_text(text)
            return configs.ClusterConfig.load(tmp_path / "cluster.toml")

        configs.TestAMistake().test_is_told_in_one_sentence_with_file_and_key(load, name, tmp_path)

    return call


# -- links


class HasNoBursts(LinkShaper):
    def _lost(self):
        self._bad = False
        return self.policy.cut or self._rng.random() < self.policy.loss


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
    def before_write(self):
        due = self.faults.eio_at == 1
        super().before_write()
        self.faults.eio_at = max(self.faults.eio_at, int(due))

    def before_sync(self):
        return super().before_sync()


class SlowsDownWrites(Disk):
    def before_write(self):
        if self.faults.slow_s:
            self._pause(self.faults.slow_s)
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


class SyncsNoFolder(OsStorage):
    def sync_folder(self, folder):
        pass


# -- sockets


def gives_up_at_the_first(self, datagrams, destination):
    try:
        for datagram in datagrams:
            self._socket.sendto(datagram, destination)
    except OSError:
        self.send_failures += 1


def sends_loudly(self, datagrams, destination):
    for datagram in datagrams:
        self._socket.sendto(datagram, destination)


def closes_half(self):
    self._busy.stop()
    self._loop.remove_reader(self._socket.fileno())


def tells_nobody(port):
    return None


def sends_through(self, datagrams, destination):
    self._inner.send(datagrams, destination)


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


class NeverOnTheLoop(ThreadExecutor):
    def _begin(self):
        self._here_after = float("inf")
        super()._begin()


class NeverInTheThread(ThreadExecutor):
    def _begin(self):
        self._here_after = 0.0
        super()._begin()


def never_sleeps(self):
    self._loop.call_soon(self._spin)


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


def refuses_nothing(nodes):
    pass


def says_nothing(self, task):
    self._tasks.pop(task, None)
    task.cancelled() or task.exception()


async def cancels_and_leaves(self):
    for task in self._tasks:
        task.cancel()


# -- worlds


def runs_the_dead(life, callback, args):
    if life.held is None:
        callback(*args)
    elif not life.over:
        life.held.append((callback, args, life.context))


def runs_the_paused(life, callback, args):
    if not life.over:
        callback(*args)


def forgets_what_was_held(self, life):
    life.held = None


def resumes_backwards(self, life):
    held, life.held = life.held or [], None
    for callback, args, context in reversed(held):
        self.call_soon(callback, *args, context=context)


def hangs_for_ever(self, timeout):
    self.now += 1.0 if timeout is None else timeout
    if self.now > 1e6:
        raise AssertionError("it would hang")
    return []


def swallows_bugs(self, error):
    self.ended = error
    self.crash()


def raises_all(self, error):
    self.crash()
    self._world.failed(error)


def cuts_both_ways(self, source, destination):
    self._cut.update({(source, destination), (destination, source)})


def parts_one_way(self, groups):
    first, *others = map(list, groups)
    self._cut.update((a, b) for a in first for other in others for b in other)


def does_nothing(self, *args):
    pass


def throws_true_dice(self, count):
    return os.urandom(count)


class TheSameDiceInEachLife(worlds.SimulatedRuntime):
    def __init__(self, world, node):
        super().__init__(world, node)
        self.rng.seed(world.seed)


RUNTIME = "netstack.runtime"
SHAPER = "runtime_kit.LinkShaper"
DISK, FILE, MEMORY = "disk_kit.Disk", f"{RUNTIME}.disk.DiskFile", "test_storage.MemoryStorage"
RAW, THREADS = f"{RUNTIME}.raw_endpoint.RawEndpoint", "test_executor.ThreadExecutor"
LOOP = f"{RUNTIME}.simulation.loop.VirtualLoop"
NODE, WIRES = f"{RUNTIME}.simulation.world.SimulatedNode", f"{RUNTIME}.simulation.network"
link, burst, rate = policies.TestALink(), policies.TestBursts(), policies.TestARate()
table, cut_mode, replace = policies.TestATable(), disks.TestPowerCutMode(), disks.TestReplace()
eio, slow, torn = disks.TestEioAt(), disks.TestASlowDisk(), disks.TestTorn()
memory, killed = storages.TestACrashOfMemory(), storages.TestWorkThatIsKilledAtItsNextSync()
sending, closed = endpoints.TestSending(), endpoints.TestAClosedEndpoint()
threads, places = executors.TestTheThread(), executors.TestWhereACallIsMade()
any_executor, spin = executors.TestAnyExecutor(), executors.TestBusyPoll()
batch, failing, cancelling = logs.TestABatch(), spawning.TestATaskThatFails(), None
cancelling, life, pause = spawning.TestCancellingAllTasks(), loops.TestALife(), loops.TestAPausedLife()
crash, crashed_disk, bug = simulation.TestACrash(), simulation.TestADiskInACrash(), simulation.TestABug()
history, cut = simulation.TestTheLog(), network.TestACut()
