"""The judges of the runtime's planted bugs: tests of tests/unit/runtime, and the ways to call them
as their fixtures would."""

from __future__ import annotations

import asyncio
import importlib
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from netstack.runtime.simulation.loop import Life, VirtualLoop
from netstack.runtime.simulation.world import World

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
runtime_kit = importlib.import_module("runtime_kit")
endpoint_kit = importlib.import_module("endpoint_kit")
disk_kit = importlib.import_module("disk_kit")
world_kit = importlib.import_module("world_kit")


# How long a judge waits for what a bug keeps from coming.
PATIENCE_S = 2.0


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


def on_net(judge, kind="gso"):
    def call(tmp_path):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(endpoint_kit, "PATIENCE_S", PATIENCE_S)
            net = endpoint_kit.Net(kind, "asyncio")
            try:
                judge(net=net)
            finally:
                net.close()

    return call


def on_bad_links(judge, *names):
    """A judge of what stands before a wire, with the fixtures that it names."""

    def call(tmp_path):
        wire, hands, later = endpoints.Wire(), runtime_kit.Hands(), runtime_kit.Later()
        links = policies.LinkTable(random.Random(1))
        faulty = endpoints.FaultyEndpoint(wire, links, hands.clock, later)
        given = {"wire": wire, "hands": hands, "later": later, "links": links, "faulty": faulty}
        judge(*(given[name] for name in names))

    return call


def on_loop(judge):
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


def with_threads(judge, make=lambda: executors.Threads("asyncio")):
    def call(tmp_path):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(executors, "PATIENCE_S", PATIENCE_S)
            ground = make()
            try:
                judge(ground)
            finally:
                ground.close()

    return call


def with_spin(judge):
    def call(tmp_path):
        with pytest.MonkeyPatch.context() as patched:
            now = executors.TestBusyPoll.now.__wrapped__(executors.TestBusyPoll(), patched)
            try:
                judge(next(now))
            finally:
                now.close()

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
        world = World(seed=1)
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


def after_last_words(judge):
    def call(tmp_path):
        request = SimpleNamespace(param="crashed")
        judge(simulation.TestTheEnd.last_words.__wrapped__(the_end, request))

    return call


def of_real_things(judge):
    """A judge that is a coroutine and makes what it needs itself."""
    return lambda tmp_path: asyncio.run(judge(tmp_path))


def with_little_at_once(tmp_path):
    with pytest.MonkeyPatch.context() as patched:
        files = storages.OsStorage(tmp_path)
        test = storages.TestFiles().test_are_written_whole_however_little_the_kernel_takes_at_once
        test(files, patched)


def of_mistake(name):
    def call(tmp_path):
        def load(text):
            (tmp_path / "cluster.toml").write_text(text)
            return configs.ClusterConfig.load(tmp_path / "cluster.toml")

        judge = configs.TestAMistake().test_is_told_in_one_sentence_with_file_and_key
        judge(load, name, tmp_path)

    return call


RUNTIME = "netstack.runtime"
SHAPER, DISK, FILE = "runtime_kit.LinkShaper", "disk_kit.Disk", f"{RUNTIME}.disk.DiskFile"
MEMORY = "test_storage.MemoryStorage"
GSO, DGRAM = f"{RUNTIME}.gso_endpoint.GsoEndpoint", f"{RUNTIME}.dgram_endpoint.DgramEndpoint"
THREADS, EVENTS = "test_executor.ThreadExecutor", "test_events.EventLog"
TASKS, SIMULATED = f"{RUNTIME}.runtime.Runtime", f"{RUNTIME}.simulation.world"
LOOPS = f"{RUNTIME}.simulation.loop"
LOOP, RUN, FAULTY = f"{LOOPS}.VirtualLoop", f"{LOOPS}._Handle._run", f"{RUNTIME}.faulty_endpoint"
WIRES = f"{RUNTIME}.simulation.network.SimulatedNetwork"
NODE, DISK_OF_WORLD = f"{SIMULATED}.SimulatedNode", f"{SIMULATED}.MemoryStorage"

link, rate = policies.TestALink(), policies.TestARate()
power_cut, replace = disks.TestPowerCutMode(), disks.TestReplace()
an_address, dying = endpoints.TestAnAddress(), storages.TestWorkThatIsKilledAtItsNextSync()
memory, sending = storages.TestACrashOfMemory(), endpoints.TestSending()
any_executor, threads = executors.TestAnyExecutor(), executors.TestTheThread()
place, spin = executors.TestWhereACallIsMade(), executors.TestBusyPoll()
failing, cancelling = spawning.TestATaskThatFails(), spawning.TestCancellingAllTasks()
life, pause = loops.TestALife(), loops.TestAPausedLife()
in_crash, a_bug = simulation.TestADiskInACrash(), simulation.TestABug()
real_log, bad_links = logs.TestTheLogOfARealNode(), endpoints.TestBadLinks()
the_end = simulation.TestTheEnd()
