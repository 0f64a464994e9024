"""A machine that is shared: what counts as slow, and that it is noticed in the middle of a run."""

from __future__ import annotations

import asyncio
import os

import pytest
from chaos_kit import in_virtual_time

from cluster.chaos import slowness as module
from cluster.chaos.slowness import STRETCH_S, WORK_S_MIN, Slowness, processor_share


def watched(stretches: list[tuple[float, float]], at_first: float = 1.0) -> list[float]:
    """The factor after each stretch, of which is told what was had and what was waited for."""

    async def scenario() -> list[float]:
        total = [0.0, 0.0]
        slowness = Slowness(at_first, lambda: (total[0], total[1]))
        watching = asyncio.create_task(slowness.watch())
        await asyncio.sleep(0.1)
        found = []
        for had, waited in stretches:
            total[0], total[1] = total[0] + had, total[1] + waited
            await asyncio.sleep(STRETCH_S)
            found.append(slowness())
        watching.cancel()
        return found

    return in_virtual_time(scenario())


def test_who_waits_no_longer_than_he_works_keeps_up():
    assert watched([(1.0, 0.2), (0.5, 0.5)]) == [1.0, 1.0]


def test_the_worst_stretch_counts_until_the_end():
    assert watched([(1.0, 0.2), (0.1, 1.2), (1.0, 0.0)]) == pytest.approx([1.0, 12.0, 12.0])


def test_what_was_measured_at_first_is_not_forgotten():
    assert watched([(1.0, 2.0), (1.0, 4.0)], at_first=3.0) == pytest.approx([3.0, 4.0])
    assert Slowness(0.1)() == 1.0


def test_a_stretch_without_work_is_judged_with_the_next():
    little = WORK_S_MIN / 2
    found = watched([(little, 10 * little), (0.0, 0.0), (little + 1e-6, 10 * little)])
    assert found == pytest.approx([1.0, 1.0, 10.0], rel=1e-3)


@pytest.mark.skipif(not module.SCHEDSTAT.exists(), reason="this kernel does not tell")
def test_the_kernel_tells_what_was_had_and_what_was_waited_for():
    before = processor_share()
    cpu = os.times().user
    while os.times().user < cpu + 0.05:
        pass
    after = processor_share()
    assert after[0] >= before[0] + 0.04
    assert after[1] >= before[1]


@pytest.mark.parametrize("text", ["", "1 2", "a b c"])
def test_where_the_kernel_does_not_tell_only_the_timers_count(tmp_path, monkeypatch, text):
    monkeypatch.setattr(module, "SCHEDSTAT", tmp_path / "none")
    assert processor_share() == (0.0, 0.0)
    module.SCHEDSTAT.write_text(text)
    assert processor_share() == (0.0, 0.0)
