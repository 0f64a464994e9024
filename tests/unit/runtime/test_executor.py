"""Blocking calls in order, in a thread, on the loop or in virtual time; and the wakeful loop."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import pytest
from endpoint_kit import LOOPS, PATIENCE_S, Loop, scene, turns
from runtime_kit import Later

from netstack.runtime import busy_poll, executor
from netstack.runtime.busy_poll import BusyPoll
from netstack.runtime.executor import ABSTINENCE, BRIEF_S, PAUSE_S, ThreadExecutor
from netstack.runtime.simulation.world import World

THREADS = ["thread-asyncio", "thread-uvloop"]


class Threads:
    """A scene with a ThreadExecutor, on a real loop."""

    def __init__(self, loop: str) -> None:
        self.loop = Loop(loop)

    def run(self, scene):
        async def with_executor():
            made = ThreadExecutor("disk of a test")
            try:
                await scene(made)
            finally:
                made.close()
                await turns(3)

        self.loop.run(with_executor())
        assert self.loop.errors == []

    def close(self):
        self.loop.close()


class Virtual:
    """The same with the executor of a simulated node, whose disk may be slow."""

    def __init__(self) -> None:
        self.world = World(seed=1)
        self.runtime = None

    def run(self, scene):
        ended = self.world.loop.create_future()

        async def start(runtime):
            self.runtime = runtime
            await scene(runtime.executor("disk of a test"))
            ended.set_result(None)

        async def scenario():
            self.world.restart("n1")
            await ended

        self.world.add_node("n1", start)
        self.world.run(scenario())

    def close(self):
        self.world.close()


@pytest.fixture(params=[*THREADS, "virtual"])
def ground(request):
    kind, _, loop = request.param.partition("-")
    made = Threads(loop) if kind == "thread" else Virtual()
    yield made
    made.close()


class Story:
    """What was done, in order: calls that ran, and answers that came."""

    def __init__(self) -> None:
        self.ran: list[int] = []
        self.answers: list[tuple[object, BaseException | None]] = []
        self.running = 0
        self.together = 0
        self._news = asyncio.Event()

    def call(self, number):
        def function():
            self.running += 1
            self.together = max(self.together, self.running)
            self.ran.append(number)
            self.running -= 1
            return number

        return function

    def done(self, result, error):
        self.answers.append((result, error))
        self._news.set()

    def submit(self, to, numbers):
        for number in numbers:
            to.submit(self.call(number), self.done)

    async def until(self, count):
        async with asyncio.timeout(PATIENCE_S):
            while len(self.answers) < count:
                self._news.clear()
                await self._news.wait()

    @property
    def results(self):
        return [result for result, _ in self.answers]


class TestAnyExecutor:
    def test_runs_calls_in_order_one_behind_the_other(self, ground):
        async def scenario(disk):
            story = Story()
            for first in range(0, 100, 10):
                story.submit(disk, range(first, first + 10))
                await asyncio.sleep(0.0005)
            await story.until(100)
            assert story.ran == story.results == list(range(100))
            assert story.together == 1

        ground.run(scenario)

    def test_keeps_the_order_of_what_is_submitted_in_an_answer(self, ground):
        async def scenario(disk):
            story = Story()

            def again(result, error):
                story.done(result, error)
                if result < 20:
                    disk.submit(story.call(result + 2), again)

            disk.submit(story.call(1), again)
            disk.submit(story.call(2), again)
            await story.until(21)
            assert story.ran == story.results == list(range(1, 23))[: len(story.ran)]

        ground.run(scenario)

    def test_answers_each_call_once_with_what_it_returned_or_raised(self, ground):
        async def scenario(disk):
            story, error = Story(), OSError("no disk")

            def fail():
                raise error

            for function in (story.call(1), fail, story.call(2), fail):
                disk.submit(function, story.done)
            await story.until(4)
            await turns(5)
            assert story.answers == [(1, None), (None, error), (2, None), (None, error)]

        ground.run(scenario)

    def test_answers_on_the_loop_and_not_before_submit_has_returned(self, ground):
        async def scenario(disk):
            story, threads = Story(), set()

            def done(result, error):
                threads.add(threading.get_ident())
                story.done(result, error)

            for number in range(3):
                disk.submit(story.call(number), done)
            assert story.ran in ([], [0])
            assert story.answers == []
            await story.until(3)
            assert threads == {threading.get_ident()}

        ground.run(scenario)

    def test_runs_what_was_submitted_when_it_is_closed(self, ground):
        async def scenario(disk):
            story = Story()
            story.submit(disk, range(5))
            disk.close()
            assert story.ran == list(range(5))

        ground.run(scenario)

    def test_answers_what_it_ran_when_it_was_closed(self, ground):
        async def scenario(disk):
            story = Story()
            story.submit(disk, range(5))
            disk.close()
            await asyncio.sleep(0.01)
            assert sorted(story.results) == list(range(5))

        ground.run(scenario)

    def test_hands_an_error_over_when_it_is_closed(self, ground):
        async def scenario(disk):
            story = Story()
            disk.submit(story.call(1), story.done)
            disk.submit(lambda: 1 // 0, story.done)
            disk.submit(story.call(2), story.done)
            disk.close()
            assert story.ran == [1, 2]

        ground.run(scenario)


class TestASlowDiskInVirtualTime:
    """Each call takes a disk's time, and the next waits for its end."""

    def story(self, faults):
        """(what, number, when) with calls at 0.0 and 0.1, and `faults` for the time of each."""
        ground, story = Virtual(), []

        async def scenario(disk):
            file = ground.runtime.disk.open("f")

            def submit(number):
                def call():
                    story.append(("ran", number))
                    file.append(b"x")
                    file.sync()

                disk.submit(call, lambda *_: story.append(("answered", number, at())))

            def at():
                return round(ground.world.now, 2)

            for number, slow_s in enumerate(faults):
                ground.runtime.faults.disk.slow_s = slow_s
                submit(number)
                await asyncio.sleep(0.1)
            await asyncio.sleep(5.0)

        ground.run(scenario)
        ground.close()
        return story

    def test_takes_its_time_before_it_answers(self):
        assert self.story([0.5]) == [("ran", 0), ("answered", 0, 0.5)]
        assert self.story([0.0]) == [("ran", 0), ("answered", 0, 0.0)]

    def test_begins_nothing_before_it_has_answered(self):
        verbs = [entry[:2] for entry in self.story([0.5, 0.5])]
        assert verbs == [("ran", 0), ("answered", 0), ("ran", 1), ("answered", 1)]

    def test_answers_in_order_when_it_gets_fast_meanwhile(self):
        answers = [entry[1] for entry in self.story([0.5, 0.0]) if entry[0] == "answered"]
        assert answers == [0, 1]


class Watch:
    """The executor's clock, moved by the calls it times."""

    def __init__(self) -> None:
        self.now = 10_000.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def watch(monkeypatch):
    made = Watch()
    monkeypatch.setattr(executor, "time", made)
    return made


@pytest.fixture(params=list(LOOPS))
def loop(request):
    made = Loop(request.param)
    yield made
    made.close()


async def where(disk, watch, takes_s=0.0):
    """'loop' or 'thread': where one call is made that takes so long."""
    answered = asyncio.get_running_loop().create_future()

    def call():
        watch.now += takes_s
        return "loop" if threading.get_ident() == here else "thread"

    here = threading.get_ident()
    disk.submit(call, lambda result, _: answered.set_result(result))
    return await answered


class TestWhereACallIsMade:
    @scene
    async def test_on_the_loop_if_it_is_the_first_and_in_the_thread_if_it_follows(
        self, loop, watch
    ):
        disk = ThreadExecutor("x")
        assert [await where(disk, watch) for _ in range(3)] == ["loop", "thread", "thread"]
        disk.close()

    @scene
    async def test_on_the_loop_again_after_a_pause(self, loop, watch):
        disk = ThreadExecutor("x")
        await where(disk, watch)
        watch.now += PAUSE_S
        assert await where(disk, watch) == "thread"
        watch.now += PAUSE_S + 0.001
        assert await where(disk, watch) == "loop"
        disk.close()

    @scene
    async def test_in_the_thread_for_a_hundred_times_as_long_as_the_loop_was_blocked(
        self, loop, watch
    ):
        blocked_s = 100 * BRIEF_S
        for after_s, place in ((0.99, "thread"), (1.01, "loop")):
            disk = ThreadExecutor("x")
            assert await where(disk, watch, blocked_s) == "loop"
            watch.now += after_s * ABSTINENCE * blocked_s
            assert await where(disk, watch) == place
            disk.close()

    @scene
    async def test_in_the_thread_after_the_second_that_may_have_been_but_a_turn(self, loop, watch):
        disk = ThreadExecutor("x")
        for place in ("loop", "loop", "thread"):
            assert await where(disk, watch, 2 * BRIEF_S) == place
            watch.now += 2 * PAUSE_S
        watch.now += 2 * ABSTINENCE * BRIEF_S
        for place in ("loop", "thread"):  # it was slow before: one more is enough
            assert await where(disk, watch, 2 * BRIEF_S) == place
            watch.now += 2 * PAUSE_S
        disk.close()

    @scene
    async def test_one_brief_call_makes_up_for_a_slow_one(self, loop, watch):
        disk = ThreadExecutor("x")
        for blocked_s in (2 * BRIEF_S, 1e-4, 2 * BRIEF_S, 1e-4, 1e-4):
            assert await where(disk, watch, blocked_s) == "loop"
            watch.now += 2 * PAUSE_S
        disk.close()

    @scene
    async def test_after_what_the_caller_has_queued(self, loop, watch):
        disk, order = ThreadExecutor("x"), []
        disk.submit(lambda: order.append("call"), lambda *_: None)
        order.append("caller")
        asyncio.get_running_loop().call_soon(order.append, "next")
        await turns(3)
        assert order == ["caller", "call", "next"]
        disk.close()

    @scene
    async def test_in_order_even_if_it_changes_from_call_to_call(self, loop, watch):
        disk, story, places = ThreadExecutor("x"), Story(), []

        def call(number):
            def function():
                places.append(threading.get_ident())
                return story.call(number)()

            return function

        for number in range(60):
            watch.now += PAUSE_S + 1 if number % 3 == 0 else 0.0
            disk.submit(call(number), story.done)
            if number % 7 == 0:
                await asyncio.sleep(0.001)
        await story.until(60)
        assert story.ran == story.results == list(range(60))
        assert len(set(places)) == 2
        disk.close()


class TestTheThread:
    @scene
    async def test_leaves_the_loop_to_others(self, loop, watch):
        disk = ThreadExecutor("x")
        await where(disk, watch)
        go, answered = threading.Event(), asyncio.get_running_loop().create_future()
        disk.submit(lambda: go.wait(PATIENCE_S), lambda result, _: answered.set_result(result))
        await turns(5)
        assert not answered.done()
        go.set()
        assert await answered
        disk.close()

    @scene
    async def test_hands_over_even_what_is_no_exception(self, loop, watch):
        disk, errors = ThreadExecutor("x"), []

        def leave():
            raise SystemExit(3)

        for _ in range(2):
            answered = asyncio.get_running_loop().create_future()
            disk.submit(leave, lambda _, error, to=answered: to.set_result(error))
            errors.append(await answered)
        assert [type(error) for error in errors] == [SystemExit, SystemExit]
        assert await where(disk, watch) == "thread"
        disk.close()

    def test_goes_on_when_an_answer_fails(self, loop, watch):
        async def scenario():
            disk = ThreadExecutor("x")
            for _ in range(3):
                disk.submit(lambda: None, lambda *_: 1 // 0)
            assert await where(disk, watch) == "thread"
            disk.close()

        loop.run(scenario())
        assert [type(error) for error in loop.errors] == [ZeroDivisionError] * 3

    @scene
    async def test_is_gone_when_it_is_closed(self, loop):
        before = set(threading.enumerate())
        disk = ThreadExecutor("the disk of n1")
        (thread,) = set(threading.enumerate()) - before
        assert thread.name == "the disk of n1"
        assert "the disk of n1 waiting=0" in repr(disk)
        disk.close()
        assert set(threading.enumerate()) == before

    @scene
    async def test_ends_with_all_that_was_begun_or_waits(self, loop, watch):
        disk, story, go = ThreadExecutor("x"), Story(), threading.Event()
        await where(disk, watch)
        disk.submit(lambda: go.wait(PATIENCE_S), story.done)
        story.submit(disk, range(3))
        go.set()
        disk.close()
        assert story.ran == [0, 1, 2]
        await story.until(4)
        await turns(3)
        assert story.answers == [(True, None), (0, None), (1, None), (2, None)]


class TestBusyPoll:
    @pytest.fixture
    def now(self, monkeypatch):
        clock = SimpleNamespace(s=5.0, yields=0)
        polls = []

        def give_way():
            clock.yields += 1

        def poll(*args, **options):
            polls.append(BusyPoll(*args, **options))
            return polls[-1]

        clock.poll = poll
        monkeypatch.setattr(busy_poll, "time", SimpleNamespace(monotonic=lambda: clock.s))
        monkeypatch.setattr(busy_poll, "os", SimpleNamespace(sched_yield=give_way))
        try:
            yield clock
        finally:
            for each in polls:
                each._always.close()  # whatever a planted bug leaves undone

    def test_sleeps_until_there_is_work(self, now):
        loop = Later()
        assert "asleep" in repr(now.poll(loop, 0.5))
        assert loop.run() == 0

    def test_looks_again_until_its_time_is_over_and_gives_way_at_each_idle_look(self, now):
        loop = Later()
        poll = now.poll(loop, 0.5)
        poll.stir()
        for _ in range(5):
            assert loop.run() == 1
            now.s += 0.09
        assert now.yields == 4  # what came first is not kept waiting
        assert "spinning" in repr(poll)
        now.s += 0.11
        assert loop.run() == 1
        assert loop.run() == 0
        assert "asleep" in repr(poll)
        assert now.yields == 4

    def test_gives_way_to_nobody_before_what_has_just_come_is_done(self, now):
        loop = Later()
        poll = now.poll(loop, 0.5)
        for yields in (0, 1, 2):
            poll.stir()
            assert [loop.run(), now.yields] == [1, yields]
            assert [loop.run(), now.yields] == [1, yields + 1]

    def test_counts_from_the_last_work(self, now):
        loop = Later()
        poll = now.poll(loop, 0.5)
        poll.stir()
        now.s += 0.4
        poll.stir()
        now.s += 0.4
        assert [loop.run(), loop.run()] == [1, 1]
        now.s += 0.2
        assert [loop.run(), loop.run()] == [1, 0]

    def test_has_one_look_under_way_however_much_work_there_is(self, now):
        loop = Later()
        poll = now.poll(loop, 0.5)
        for _ in range(5):
            poll.stir()
        assert loop.run() == 1

    def test_begins_again_with_new_work(self, now):
        loop = Later()
        poll = now.poll(loop, 0.5)
        poll.stir()
        now.s += 1.0
        assert [loop.run(), loop.run()] == [1, 0]
        poll.stir()
        assert [loop.run(), loop.run()] == [1, 1]

    def test_stops_at_once_and_for_good(self, now):
        loop = Later()
        poll = now.poll(loop, 0.5)
        poll.stir()
        poll.stop()
        assert loop.run() == 0
        poll.stir()
        assert loop.run() == 0

    def test_asks_its_socket_a_few_times_a_turn_giving_way_each_time(self, now):
        loop, looks = Later(), []
        poll = now.poll(loop, 0.5, look=lambda: looks.append(now.yields) or False)
        poll.stir()
        loop.run()
        assert looks == []  # there is work to be done first
        loop.run()
        assert looks == [1, 2, 3, 4]

    def test_asks_no_more_once_there_is_something(self, now):
        loop, looks = Later(), []
        poll = now.poll(loop, 0.5, look=lambda: looks.append(now.yields) or len(looks) == 2)
        poll.stir()
        loop.run()
        loop.run()
        assert looks == [1, 2]

    def test_a_socket_that_fails_keeps_nobody_awake_for_ever(self, now):
        def fails():
            raise OSError("no such socket")

        loop = Later()
        poll = now.poll(loop, 0.5, look=fails)
        poll.stir()
        loop.run()
        with pytest.raises(OSError, match="no such socket"):
            loop.run()
        now.s += 0.6
        assert [loop.run(), loop.run()] == [1, 0]

    def test_of_no_time_never_spins(self, now):
        loop = Later()
        now.poll(loop, 0.0).stir()
        assert loop.run() == 0

    def test_lets_other_callbacks_of_a_real_loop_run(self):
        async def scenario():
            poll, turns_had = BusyPoll(asyncio.get_running_loop(), 60.0), 0
            poll.stir()
            for _ in range(50):
                await asyncio.sleep(0)
                turns_had += 1
            poll.stop()
            assert turns_had == 50

        asyncio.run(scenario())
