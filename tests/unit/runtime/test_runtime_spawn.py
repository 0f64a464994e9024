"""Tasks that cannot fail in silence, and the end of them all; timers of the node's clock."""

from __future__ import annotations

import asyncio
import threading

import pytest

from netstack.runtime.events import read_events
from netstack.runtime.executor import ThreadExecutor
from netstack.runtime.faulty_endpoint import FaultyEndpoint
from netstack.runtime.policy import LinkPolicy
from netstack.runtime.runtime import Fatal, RealRuntime


class Node:
    """A real runtime, and what was said to its daemon."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.runtime = RealRuntime("n1", folder)
        self.fatal: list[BaseException] = []
        self.runtime.on_fatal = self.fatal.append

    def events(self, kind: str) -> list[dict]:
        self.runtime.events.flush()
        found = read_events(self.folder / "events.jsonl")
        return [event for event in found if event["kind"] == kind]


@pytest.fixture
async def node(tmp_path):
    made = Node(tmp_path)
    yield made
    made.runtime.on_fatal = None
    await made.runtime.cancel_tasks()
    made.runtime.close()


async def forever():
    await asyncio.get_running_loop().create_future()


async def fail(error):
    raise error


async def ended(task):
    """The task is done, and all that follows from it."""
    await asyncio.wait([task])
    await asyncio.sleep(0)


class TestATaskThatFails:
    async def test_is_fatal_and_an_event(self, node):
        error = ZeroDivisionError("by zero")
        await ended(node.runtime.spawn(fail(error), "the counter"))
        assert node.fatal == [error]
        (event,) = node.events("node.fatal")
        assert event["where"] == "the counter"
        assert event["error"] == "ZeroDivisionError: by zero"

    async def test_is_so_even_if_somebody_waits_for_it(self, node):
        error = Fatal("a disk that cannot be trusted")
        task = node.runtime.spawn(fail(error), "x")
        with pytest.raises(Fatal):
            await task
        await asyncio.sleep(0)
        assert node.fatal == [error]

    async def test_is_logged_even_if_no_daemon_listens(self, node):
        node.runtime.on_fatal = None
        await ended(node.runtime.spawn(fail(OSError("gone")), "x"))
        assert [event["error"] for event in node.events("node.fatal")] == ["OSError: gone"]

    async def test_is_told_of_before_the_others_have_ended(self, node):
        other = node.runtime.spawn(forever(), "other")
        await ended(node.runtime.spawn(fail(KeyError("x")), "x"))
        assert len(node.fatal) == 1
        assert not other.done()

    async def test_is_told_of_each_time(self, node):
        tasks = [node.runtime.spawn(fail(KeyError(name)), name) for name in "ab"]
        await asyncio.wait(tasks)
        await asyncio.sleep(0)
        assert [event["where"] for event in node.events("node.fatal")] == ["a", "b"]
        assert len(node.fatal) == 2


class TestATaskThatEndsWell:
    async def test_is_no_event_and_is_forgotten(self, node):
        task = node.runtime.spawn(asyncio.sleep(0, "result"), "x")
        assert await task == "result"
        await asyncio.sleep(0)
        assert node.fatal == []
        assert node.events("node.fatal") == []
        assert repr(node.runtime) == "<RealRuntime n1 tasks=0>"

    async def test_that_was_cancelled_is_no_failure(self, node):
        task = node.runtime.spawn(forever(), "x")
        await asyncio.sleep(0)
        task.cancel()
        await ended(task)
        assert node.fatal == []

    async def test_has_its_name(self, node):
        assert node.runtime.spawn(forever(), "the counter").get_name() == "the counter"


class TestCancellingAllTasks:
    async def test_ends_each_and_waits_for_its_end(self, node):
        order = []

        async def work(number):
            try:
                await forever()
            finally:
                await asyncio.sleep(0)
                order.append(number)

        tasks = [node.runtime.spawn(work(number), str(number)) for number in range(3)]
        await asyncio.sleep(0)
        await node.runtime.cancel_tasks()
        assert sorted(order) == [0, 1, 2]
        assert all(task.cancelled() for task in tasks)
        await asyncio.sleep(0)
        assert "tasks=0" in repr(node.runtime)

    async def test_leaves_the_one_that_asks(self, node):
        async def work():
            await node.runtime.cancel_tasks()
            return "went on"

        other = node.runtime.spawn(forever(), "other")
        assert await node.runtime.spawn(work(), "asks") == "went on"
        assert other.cancelled()

    async def test_goes_on_past_one_that_fails_and_has_it_told(self, node):
        async def work():
            try:
                await forever()
            finally:
                raise ZeroDivisionError

        failing, other = node.runtime.spawn(work(), "x"), node.runtime.spawn(forever(), "y")
        await asyncio.sleep(0)
        await node.runtime.cancel_tasks()
        assert failing.done()
        assert other.cancelled()
        await asyncio.sleep(0)
        assert [type(error) for error in node.fatal] == [ZeroDivisionError]

    async def test_goes_on_past_one_that_has_ended(self, node):
        done = node.runtime.spawn(asyncio.sleep(0), "done")
        await done
        await node.runtime.cancel_tasks()
        assert not done.cancelled()

    async def test_ends_what_a_task_spawns_at_its_end(self, node):
        late = []

        async def work():
            try:
                await forever()
            finally:
                late.append(node.runtime.spawn(forever(), "late"))

        node.runtime.spawn(work(), "x")
        await asyncio.sleep(0)
        await node.runtime.cancel_tasks()
        await asyncio.sleep(0)
        assert late[0].cancelled()

    async def test_can_itself_be_cancelled(self, node):
        leave = asyncio.Event()

        async def slow_to_end():
            try:
                await forever()
            finally:
                await leave.wait()

        node.runtime.spawn(slow_to_end(), "x")
        await asyncio.sleep(0)
        caller = asyncio.create_task(node.runtime.cancel_tasks())
        for _ in range(5):
            await asyncio.sleep(0)
        caller.cancel()
        leave.set()
        await asyncio.wait([caller])
        assert caller.cancelled()


class TestTimers:
    @pytest.fixture
    async def delays(self, node, monkeypatch):
        """What the loop is asked to wait."""
        asked: list[float] = []
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "call_later", lambda delay, *_: asked.append(delay))
        return asked

    async def test_of_the_true_time_do_not_mind_the_clock(self, node, delays):
        node.runtime.clock.set_rate(2.0)
        node.runtime.call_later_true(1.0, print)
        assert delays == [1.0]

    async def test_of_the_nodes_clock_wait_as_long_as_it_takes_that_clock(self, node, delays):
        node.runtime.clock.set_rate(2.0)
        node.runtime.call_at(node.runtime.clock.now() + 100.0, print)
        node.runtime.call_at(node.runtime.clock.now() - 1.0, print)
        assert delays == [pytest.approx(50.0, abs=1.0), 0.0]

    async def test_of_the_nodes_clock_know_no_later_rate(self, node, delays):
        node.runtime.call_at(node.runtime.clock.now() + 100.0, print)
        node.runtime.clock.set_rate(2.0)
        node.runtime.call_at(node.runtime.clock.now() + 100.0, print)
        assert delays == [pytest.approx(100.0, abs=1.0), pytest.approx(50.0, abs=1.0)]


class TestTheRealWorld:
    async def test_has_sockets_that_pass_the_links_faults(self, node):
        here, there = [await node.runtime.bind(("127.0.0.1", 0)) for _ in range(2)]
        assert isinstance(here, FaultyEndpoint)
        received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        there.set_receiver(lambda datagrams, *_: received.set_result(datagrams[0]))
        node.runtime.faults.links.set(there.address, LinkPolicy(cut=True))
        here.send([b"cut"], there.address)
        node.runtime.faults.heal("links")
        here.send([b"whole"], there.address)
        assert await received == b"whole"
        here.close()
        there.close()

    async def test_has_files_below_its_folder(self, node, tmp_path):
        node.runtime.disk.replace("wal/x", b"data")
        assert (tmp_path / "data" / "wal" / "x").read_bytes() == b"data"

    async def test_has_faults_that_are_its_disks_and_clocks_own(self, node):
        node.runtime.faults.apply({"disk": {"full": True}, "clock": {"offset_s": 5.0}})
        assert node.runtime.disk.faults.full
        assert node.runtime.clock.offset_s == 5.0

    async def test_has_entropy_that_does_not_come_again(self, node):
        assert len({node.runtime.entropy(16) for _ in range(100)}) == 100
        assert len(node.runtime.entropy(33)) == 33

    async def test_has_threads_for_blocking_calls(self, node):
        disk = node.runtime.executor("wal")
        assert isinstance(disk, ThreadExecutor)
        disk.close()

    async def test_makes_no_pause_of_unhurried_work_on_the_loop(self, node, monkeypatch):
        """The first snapshot of a life is such work: hundreds of milliseconds in one piece."""
        slept_in: set[int] = set()
        monkeypatch.setattr(
            "netstack.runtime.runtime.time.sleep", lambda _: slept_in.add(threading.get_ident())
        )
        monkeypatch.setattr("netstack.runtime.runtime.BURST_S", 0.0)
        worker = node.runtime.executor("snapshot", brief=False)
        answered = asyncio.get_running_loop().create_future()
        worker.submit(
            lambda: list(node.runtime.unhurried(range(100))),
            lambda result, _: answered.set_result(result),
        )
        assert len(await answered) == 100
        worker.close()
        assert slept_in
        assert threading.get_ident() not in slept_in

    async def test_hands_unhurried_items_over_as_they_are(self, node, monkeypatch):
        slept = []
        monkeypatch.setattr("netstack.runtime.runtime.time.sleep", slept.append)
        monkeypatch.setattr("netstack.runtime.runtime.BURST_S", 0.0)
        assert list(node.runtime.unhurried(iter(range(5)))) == [0, 1, 2, 3, 4]
        assert slept
