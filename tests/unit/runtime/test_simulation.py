"""A world: lives that end and begin, disks that lose, bugs that show, and one history a seed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import world_kit
from world_kit import address, busy, passes

from netstack.runtime.disk import Disk
from netstack.runtime.runtime import Fatal, Runtime
from netstack.runtime.simulation.world import EPOCH, World


@pytest.fixture
def world():
    made = World(seed=1)
    yield made
    made.close()


def begin(world, start, name="n1"):
    """A new node, running."""
    node = world.add_node(name, start)
    world.restart(name)
    return node


async def ticks(seen):
    """One mark a second."""
    while True:
        await asyncio.sleep(1.0)
        seen.append(len(seen))


class TestACrash:
    def test_ends_all_that_runs(self, world):
        seen = []

        async def start(runtime):
            runtime.spawn(ticks(seen), "ticks")
            runtime.call_at(5.0, lambda: seen.append("timer"))

        node = begin(world, start)
        passes(world, 2.5)
        assert seen == [0, 1]
        assert node.running
        world.crash("n1")
        assert not node.running
        passes(world, 10.0)
        assert seen == [0, 1]

    def test_lets_nothing_clean_up_until_the_world_is_closed(self):
        world, seen = World(seed=1), []

        async def inner():
            try:
                await asyncio.sleep(100)
            finally:
                seen.append("inner")

        async def start(runtime):
            try:
                await asyncio.create_task(inner())
            except BaseException:
                seen.append("outer")
                raise

        begin(world, start)
        passes(world, 1.0)
        world.crash("n1")
        passes(world, 200.0)
        gc.collect()
        assert seen == []
        world.close()
        assert sorted(seen) == ["inner", "outer"]

    def test_that_comes_before_the_node_has_begun_lets_it_never_begin(self, world):
        seen = []

        async def start(runtime):
            seen.append("began")

        begin(world, start)
        world.crash("n1")
        passes(world, 1.0)
        assert seen == []
        assert world.log == ""

    def test_of_a_node_that_is_down_is_nothing(self, world):
        async def start(runtime):
            pass

        begin(world, start)
        passes(world, 1.0)
        world.crash("n1")
        log = world.log
        world.crash("n1")
        assert world.log == log

    def test_is_followed_by_a_life_with_another_number_and_other_dice(self, world):
        entropy = []

        async def start(runtime):
            entropy.append(runtime.entropy(8))

        node = begin(world, start)
        for _ in range(2):
            passes(world, 1.0)
            world.crash("n1")
            world.restart("n1")
        passes(world, 1.0)
        assert node.lives == 3
        assert len(set(entropy)) == 3
        lives = [event.get("life") for event in events(world, "node.start")]
        assert lives == [1, 2, 3]

    def test_leaves_the_name_of_what_the_life_returned_empty(self, world):
        async def start(runtime):
            return "service"

        node = begin(world, start)
        passes(world, 1.0)
        assert node.service == "service"
        assert node.runtime is not None
        world.crash("n1")
        assert node.service is node.runtime is None


def events(world, kind):
    return [line for line in map(json.loads, world.log.splitlines()) if line["kind"] == kind]


class TestADiskInACrash:
    def found(self, seed, start):
        """What the next life finds in the file "f"."""
        world, contents = World(seed), []

        async def lives(runtime):
            file = runtime.disk.open("f")
            contents.append(file.read_at(0, 100))
            if len(contents) == 1:
                start(runtime, file)

        begin(world, lives)
        passes(world, 0.0001)
        world.crash("n1")
        world.restart("n1")
        passes(world, 1.0)
        world.close()
        return contents[1]

    def test_keeps_what_was_synced_and_may_lose_what_was_not(self):
        def start(runtime, file):
            file.append(b"synced")
            file.sync()
            file.append(b"not")

        assert {self.found(seed, start) for seed in range(30)} == {b"synced", b"syncednot"}

    def test_keeps_nothing_unsynced_in_power_cut_mode(self):
        def start(runtime, file):
            runtime.disk.faults.power_cut = True
            file.append(b"synced")
            file.sync()
            file.append(b"not")

        assert {self.found(seed, start) for seed in range(30)} == {b"synced"}

    def test_has_done_half_of_what_an_executor_had_begun(self):
        """Killed between begin and answer: nothing was written, or what was not synced."""

        def start(runtime, file):
            def work():
                file.append(b"1")
                file.sync()
                file.append(b"2")
                file.sync()

            runtime.executor("disk").submit(work, lambda *_: pytest.fail("answered"))

        assert {self.found(seed, start) for seed in range(40)} == {b"", b"1"}

    def test_has_done_nothing_of_what_waited_behind_it(self):
        def start(runtime, file):
            disk = runtime.executor("disk")
            disk.submit(lambda: None, lambda *_: None)
            disk.submit(lambda: file.append(b"waited"), lambda *_: None)

        assert {self.found(seed, start) for seed in range(20)} == {b""}

    def test_belongs_to_one_node_alone(self, world):
        found = {}

        async def start(runtime):
            found[runtime.node] = runtime.disk.list()
            runtime.disk.replace(runtime.node, b"x")

        for _ in range(2):
            for name in ("n1", "n2"):
                world.add_node(name, start) if name not in world.nodes else world.crash(name)
                world.restart(name)
            passes(world, 1.0)
        assert found == {"n1": ["n1"], "n2": ["n2"]}


class TestAPause:
    def test_holds_the_node_and_nothing_else(self, world):
        paused, other = [], []

        async def start(runtime):
            await ticks(paused if runtime.node == "n1" else other)

        begin(world, start)
        begin(world, start, "n2")
        passes(world, 2.5)
        world.pause("n1")
        passes(world, 10.0)
        assert (len(paused), len(other)) == (2, 12)
        world.resume("n1")
        passes(world, 1.5)
        assert (len(paused), len(other)) == (4, 14)

    def test_may_be_asked_for_twice_and_ended_twice(self, world):
        seen = []

        async def start(runtime):
            await ticks(seen)

        begin(world, start)
        passes(world, 0.5)
        world.pause("n1")
        passes(world, 1.0)
        world.pause("n1")
        world.resume("n1")
        world.resume("n1")
        passes(world, 0.1)
        assert seen == [0]

    def test_does_not_keep_a_node_from_being_killed(self, world):
        seen = []

        async def start(runtime):
            await ticks(seen)

        begin(world, start)
        passes(world, 0.5)
        world.pause("n1")
        passes(world, 5.0)
        world.crash("n1")
        world.resume("n1")
        passes(world, 5.0)
        assert seen == []
        world.restart("n1")
        passes(world, 1.5)
        assert seen == [0]

    def test_of_a_node_that_is_down_is_a_mistake_of_the_scenario(self, world):
        world.add_node("n1", lambda _: ticks([]))
        with pytest.raises(AssertionError, match="n1 is not running"):
            world.pause("n1")

    def test_is_no_reason_to_begin_twice(self, world):
        begin(world, lambda _: ticks([]))
        with pytest.raises(AssertionError, match="n1 is running already"):
            world.restart("n1")
        world.crash("n1")

    def test_before_the_node_has_begun_lets_it_begin_later(self, world):
        began = []

        async def start(runtime):
            began.append(world.now)

        begin(world, start)
        world.pause("n1")
        passes(world, 2.0)
        world.resume("n1")
        passes(world, 1.0)
        assert began == [2.0]


class TestABug:
    def test_in_a_node_is_raised_by_the_run(self, world):
        async def start(runtime):
            await asyncio.sleep(1.0)
            raise ZeroDivisionError("in n1")

        node = begin(world, start)
        with pytest.raises(ZeroDivisionError, match="in n1"):
            passes(world, 100.0)
        assert world.now == 1.0
        assert isinstance(node.ended, ZeroDivisionError)

    def test_in_a_callback_is_raised_too(self, world):
        async def start(runtime):
            runtime.call_at(1.0, lambda: 1 // 0)

        begin(world, start)
        with pytest.raises(ZeroDivisionError):
            passes(world, 100.0)

    def test_in_a_receiver_is_raised_too(self, world):
        async def start(runtime):
            endpoint = await runtime.bind(address("n1"))
            endpoint.set_receiver(lambda *_: 1 // 0)
            endpoint.send([b"x"], address("n1"))

        begin(world, start)
        with pytest.raises(ZeroDivisionError):
            passes(world, 100.0)

    def test_in_the_scenario_is_raised_as_it_is(self, world):
        async def scenario():
            await asyncio.sleep(1.0)
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            world.run(scenario())

    def test_is_raised_even_if_the_scenario_makes_nothing_of_it(self, world):
        async def start(runtime):
            raise ZeroDivisionError

        async def scenario():
            begin(world, start)
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(100)
            return "all is well"

        with pytest.raises(ZeroDivisionError):
            world.run(scenario())
        assert world.now < 1.0

    def test_is_raised_even_if_the_scenario_fails_of_it(self, world):
        async def start(runtime):
            raise ZeroDivisionError

        async def scenario():
            begin(world, start)
            try:
                await asyncio.sleep(100)
            finally:
                raise AssertionError("there is no leader")

        with pytest.raises(ZeroDivisionError):
            world.run(scenario())

    def test_that_is_fatal_is_a_crash_and_not_a_bug(self, world):
        async def start(runtime):
            if world.nodes["n1"].lives == 1:
                await asyncio.sleep(1.0)
                raise Fatal("a disk that cannot be trusted")

        node = begin(world, start)
        passes(world, 5.0)
        assert not node.running
        assert str(node.ended) == "a disk that cannot be trusted"
        kinds = [json.loads(line)["kind"] for line in world.log.splitlines()]
        assert kinds == ["node.start", "node.fatal", "node.killed"]
        world.restart("n1")
        passes(world, 1.0)
        assert node.running
        assert node.ended is None

    def test_leaves_the_result_of_the_scenario_alone_if_there_is_none(self, world):
        assert world.run(asyncio.sleep(1.0, "result")) == "result"
        assert world.now == 1.0


class TestTheLog:
    def test_is_the_history_of_all_nodes_in_order(self, world):
        async def start(runtime):
            for _ in range(3):
                await asyncio.sleep(runtime.rng.random())
                runtime.events.emit("a.b")

        for name in ("n1", "n2", "n3"):
            begin(world, start, name)
        passes(world, 10.0)
        lines = [json.loads(line) for line in world.log.splitlines()]
        assert [line["mono"] for line in lines] == sorted(line["mono"] for line in lines)
        for name in ("n1", "n2", "n3"):
            assert [line["seq"] for line in lines if line["node"] == name] == [0, 1, 2, 3]

    def test_shows_virtual_dates(self, world):
        async def start(runtime):
            await asyncio.sleep(5.0)
            runtime.events.emit("a.b")

        begin(world, start)
        passes(world, 10.0)
        (event,) = events(world, "a.b")
        assert (event["mono"], event["wall"]) == (5.0, EPOCH + 5.0)

    def test_shows_the_clock_of_a_node_that_is_off(self, world):
        async def start(runtime):
            runtime.faults.apply({"clock": {"rate": 2.0, "offset_s": 60.0}})
            called = asyncio.get_running_loop().create_future()
            runtime.call_at(10.0, lambda: called.set_result(None))
            await called
            runtime.events.emit("a.b", true=world.now)

        begin(world, start)
        passes(world, 20.0)
        (event,) = events(world, "a.b")
        assert (event["mono"], event["true"]) == (10.0, 5.0)
        assert event["wall"] == EPOCH + 65.0

    @pytest.mark.parametrize("seed", range(5))
    def test_is_the_same_for_the_same_seed(self, seed):
        log = busy(seed)
        assert busy(seed) == log
        assert log.count("\n") > 100
        assert {"heard", "wrote", "node.killed"} <= {
            json.loads(line)["kind"] for line in log.splitlines()
        }

    def test_is_another_for_another_seed(self):
        assert len({busy(seed) for seed in range(5)}) == 5

    def test_is_the_same_in_another_process(self):
        """Where text has other hashes, and sets of it another order."""
        digests = set()
        for hash_seed in ("1", "2"):
            environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
            finished = subprocess.run(
                [sys.executable, str(Path(world_kit.__file__)), "5"],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            digests.add(finished.stdout)
        assert len(digests) == 1

    def test_of_one_node_does_not_depend_on_the_dice_of_another(self):
        throws = []
        for other in (0, 10):
            world = World(seed=1)

            async def start(runtime, other=other):
                if runtime.node == "n2":
                    runtime.entropy(other)
                else:
                    await asyncio.sleep(1.0)
                    throws.append(runtime.entropy(8))

            for name in ("n2", "n1"):
                begin(world, start, name)
            passes(world, 2.0)
            world.close()
        assert throws[0] == throws[1]


class TestTheEnd:
    """`close` lets what was left half done run its `finally` blocks, which have no effect."""

    @pytest.fixture(params=["running", "crashed"])
    def last_words(self, request):
        """The world, and a node's disk, after its last words."""
        world = World(seed=1)

        async def start(runtime):
            file = runtime.disk.open("f")
            endpoint = await runtime.bind(address("n1"))
            try:
                await asyncio.sleep(100)
            finally:
                endpoint.send([b"late"], address("n1"))
                runtime.events.emit("late")
                file.append(b"late")
                file.sync()
                runtime.disk.replace("late", b"late")

        node = begin(world, start)
        passes(world, 1.0)
        if request.param == "crashed":
            world.crash("n1")
        world.close()
        return world, Disk(node.storage, print)

    def test_sends_nothing(self, last_words):
        world, _ = last_words
        assert (world.network.delivered, world.network.dropped) == (0, 0)

    def test_writes_nothing_into_the_log(self, last_words):
        world, _ = last_words
        assert events(world, "late") == []

    def test_writes_nothing_to_the_disk(self, last_words):
        _, disk = last_words
        assert disk.list() == ["f"]
        assert disk.read("f") == b""

    def test_leaves_no_task_and_no_warning(self, recwarn):
        world = World(seed=1)
        begin(world, lambda _: ticks([]))
        world.run(asyncio.sleep(0))
        world.close()
        gc.collect()
        assert list(recwarn) == []
        assert world.loop.is_closed()


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.9, 1.1, 3.0, 7.0])
def test_a_timer_of_a_clock_that_drifts_is_early_a_few_times_at_most(rate):
    """Else a callback that finds itself early, and asks again, does so for ever at one moment."""
    world, early = World(1), []

    async def start(runtime: Runtime) -> None:
        def at(deadline: float) -> None:
            if runtime.clock.now() < deadline:
                early.append(deadline)
                runtime.call_at(deadline, lambda: at(deadline))

        for _ in range(500):
            deadline = runtime.clock.now() + runtime.rng.random() * 1e-3
            runtime.call_at(deadline, lambda when=deadline: at(when))
            await asyncio.sleep(runtime.rng.random() * 1e-2)
            runtime.clock.set_rate(rate if runtime.rng.random() < 0.5 else 1.0)

    world.add_node("n1", start)
    world.restart("n1")
    world.run(asyncio.sleep(10.0))
    world.close()
    assert len(early) < 1500
