"""Virtual time, and the lives it runs: what is over never runs again, what is paused waits."""

from __future__ import annotations

import asyncio
import contextvars
import gc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netstack.runtime.simulation.loop import Deadlock, Life, VirtualLoop, current_life

EXAMPLES = settings(deadline=None, database=None, max_examples=60)
DAY_S = 86_400.0


@pytest.fixture
def loop():
    made = VirtualLoop()
    yield made
    made.close()


def passes(loop, until=100.0):
    """Let so much virtual time go by."""
    loop.run_until_complete(asyncio.sleep(until))


class TestTime:
    def test_begins_at_zero_and_jumps(self, loop):
        assert loop.time() == 0.0

        async def scene():
            await asyncio.sleep(10 * DAY_S)
            return loop.time()

        assert loop.run_until_complete(scene()) == 10 * DAY_S

    def test_stands_still_while_there_is_something_to_do(self, loop):
        async def scene():
            for _ in range(1000):
                await asyncio.sleep(0)
            return loop.time()

        assert loop.run_until_complete(scene()) == 0.0

    def test_is_exactly_what_a_timer_was_set_to(self, loop):
        due = [0.1, 0.1 + 0.2, 1 / 3, 1e-6, 1e-6 + 1e-12, 12_345.678_9, DAY_S + 0.7]
        seen = []
        for when in due:
            loop.call_at(when, lambda when=when: seen.append((when, loop.time())))
        passes(loop, 2 * DAY_S)
        assert [when for when, _ in seen] == sorted(due)
        assert all(now == pytest.approx(when, abs=1e-9) for when, now in seen)

    def test_lets_a_timeout_expire_to_the_moment(self, loop):
        async def scene():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2.5):
                    await asyncio.sleep(3)
            return loop.time()

        assert loop.run_until_complete(scene()) == 2.5

    def test_shows_in_the_name(self, loop):
        passes(loop, 1.5)
        assert repr(loop) == "<VirtualLoop t=1.500000>"


class TestOrder:
    @EXAMPLES
    @given(st.lists(st.integers(0, 1000), unique=True, max_size=30))
    def test_is_that_of_the_times_set(self, due):
        loop, seen = VirtualLoop(), []
        for when in due:
            loop.call_at(float(when), seen.append, when)
        passes(loop, 2000.0)
        loop.close()
        assert seen == sorted(due)

    def test_is_that_of_setting_for_equal_times(self, loop):
        seen = []
        for number in range(20):
            loop.call_at(1.0, seen.append, number)
        passes(loop)
        assert seen == list(range(20))

    def test_is_that_of_asking_for_what_runs_at_once(self, loop):
        seen = []
        for number in range(20):
            loop.call_soon(seen.append, number)
        loop.call_soon(lambda: loop.call_soon(seen.append, "later"))
        loop.call_soon(seen.append, 20)
        passes(loop)
        assert seen == [*range(21), "later"]

    def test_leaves_out_what_was_cancelled(self, loop):
        seen = []
        loop.call_soon(seen.append, "soon").cancel()
        loop.call_at(1.0, seen.append, "at").cancel()
        loop.call_later(2.0, seen.append, "kept")
        passes(loop)
        assert seen == ["kept"]


class TestDeadlock:
    def test_is_raised_where_a_real_loop_would_hang(self, loop):
        async def scene():
            await loop.create_future()

        task = loop.create_task(scene())
        with pytest.raises(Deadlock, match="all tasks wait and no timer is set"):
            loop.run_until_complete(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)

    def test_is_none_while_a_timer_is_set(self, loop):
        future = loop.create_future()
        loop.call_at(3600.0, future.set_result, "late")
        assert loop.run_until_complete(future) == "late"

    def test_is_one_when_the_last_timer_is_cancelled(self, loop):
        loop.call_at(3600.0, print).cancel()
        task = loop.create_task(asyncio.Event().wait())
        with pytest.raises(Deadlock):
            loop.run_until_complete(task)
        assert loop.time() == 0.0
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)


class TestALife:
    @pytest.fixture
    def life(self):
        return Life("n1")

    def test_is_that_of_all_that_it_has_called(self, loop, life):
        seen = []

        async def work():
            seen.append(current_life())
            await asyncio.sleep(1)
            loop.call_soon(lambda: seen.append(current_life()))
            loop.call_later(1, lambda: seen.append(current_life()))
            await asyncio.create_task(child())

        async def child():
            seen.append(current_life())

        life.context.run(loop.create_task, work())
        passes(loop)
        assert seen == [life] * 4
        assert current_life() is None

    def test_leaves_others_alone(self, loop, life):
        seen = []
        other = Life("n2")
        for who in (life, other, None):
            context = contextvars.Context() if who is None else who.context
            loop.call_soon(seen.append, who, context=context)
        life.over = True
        passes(loop)
        assert seen == [other, None]

    def test_that_is_over_runs_nothing_that_was_called_soon_or_later(self, loop, life):
        seen = []
        loop.call_soon(seen.append, "soon", context=life.context)
        loop.call_later(1.0, seen.append, "later", context=life.context)
        life.over = True
        loop.call_soon(seen.append, "after", context=life.context)
        passes(loop)
        assert seen == []

    def test_that_is_over_does_not_even_clean_up(self, loop, life):
        seen = []

        async def work():
            try:
                await asyncio.sleep(1)
                seen.append("went on")
            except asyncio.CancelledError:
                seen.append("cancelled")
            finally:
                seen.append("finally")

        task = life.context.run(loop.create_task, work())
        loop.call_later(0.5, setattr, life, "over", True)
        loop.call_later(0.6, task.cancel)
        passes(loop)
        gc.collect()
        assert seen == []
        task._log_destroy_pending = False
        task.get_coro().close()
        assert seen == ["finally"]

    def test_says_how_it_is(self, life):
        assert repr(life) == "<Life of n1 running>"
        life.held = []
        assert repr(life) == "<Life of n1 paused>"
        life.over = True
        assert repr(life) == "<Life of n1 over>"


class TestAPausedLife:
    @pytest.fixture
    def life(self):
        life = Life("n1")
        life.held = []
        return life

    def test_runs_nothing_until_it_goes_on_and_then_all_in_order(self, loop, life):
        seen = []
        loop.call_soon(seen.append, "soon", context=life.context)
        for when in (3.0, 1.0, 2.0):
            loop.call_at(when, seen.append, when, context=life.context)
        passes(loop, 10.0)
        assert seen == []
        loop.resume(life)
        passes(loop, 1.0)
        assert seen == ["soon", 1.0, 2.0, 3.0]

    def test_runs_what_is_due_later_at_its_time(self, loop, life):
        seen = []
        for when in (1.0, 5.0):
            loop.call_at(when, lambda: seen.append(loop.time()), context=life.context)
        loop.call_at(3.0, loop.resume, life)
        passes(loop)
        assert seen == [3.0, 5.0]

    def test_goes_on_as_who_it_was(self, loop, life):
        seen = []
        loop.call_soon(lambda: seen.append(current_life()), context=life.context)
        passes(loop, 1.0)
        loop.resume(life)
        passes(loop, 1.0)
        assert seen == [life]

    def test_may_be_paused_again_before_it_has_run(self, loop, life):
        seen = []
        for number in range(3):
            loop.call_soon(seen.append, number, context=life.context)
        passes(loop, 1.0)
        loop.resume(life)
        life.held = []
        passes(loop, 1.0)
        assert seen == []
        loop.resume(life)
        passes(loop, 1.0)
        assert seen == [0, 1, 2]

    def test_that_ends_runs_nothing_of_what_was_held(self, loop, life):
        seen = []
        loop.call_soon(seen.append, "held", context=life.context)
        passes(loop, 1.0)
        loop.resume(life)
        life.over = True
        passes(loop, 1.0)
        assert seen == []

    def test_runs_what_was_held_before_what_is_due_as_it_goes_on(self, loop, life):
        seen = []
        loop.call_soon(seen.append, "held", context=life.context)
        passes(loop, 1.0)
        loop.call_soon(loop.resume, life)
        loop.call_soon(seen.append, "due", context=life.context)
        passes(loop, 1.0)
        assert seen == ["held", "due"]

    def test_does_not_run_what_is_cancelled_as_it_goes_on(self, loop, life):
        """Both are due after SIGCONT; the first cancels the second, as a protocol's timers do."""
        seen = []
        second = loop.call_at(2.0, seen.append, "second", context=life.context)

        def first():
            seen.append("first")
            second.cancel()

        loop.call_at(1.0, first, context=life.context)
        passes(loop, 3.0)
        loop.resume(life)
        passes(loop, 1.0)
        assert seen == ["first"]


def test_a_silent_loop_takes_callbacks_and_runs_none(loop):
    seen = []
    loop.silence()
    loop.call_soon(seen.append, "soon")
    assert not loop._ready
    assert seen == []
