"""A campaign on a system that only remembers: what it complains of in the end."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json

import pytest
from chaos_kit import FakeSystem, in_virtual_time

from cluster.chaos.campaign import PEACE_S, Campaign
from cluster.chaos.plan import Episode
from cluster.chaos.system import Refused
from cluster.chaos.workloads.base import Plain
from cluster.errors import NotInTime

TROUBLE_S = 5.0


class Asking(FakeSystem):
    """Answers, unless a test has it otherwise."""

    @contextlib.asynccontextmanager
    async def client(self):
        yield None


class Writes(Plain):
    """Each turn a write. From `silent_from` on the requests of worker 1 are not answered."""

    model = "register"

    def __init__(self, silent_from: float = float("inf"), silent_s: float = float("inf")) -> None:
        self._from, self._for = silent_from, silent_s

    async def turn(self, worker) -> None:
        async def write() -> None:
            loop = asyncio.get_running_loop()
            if worker.index == 1 and loop.time() > self._from:
                await asyncio.sleep(min(self._for, 1e6))

        await worker.ask("write", "x", 1, write)


def campaign(system, workload, *plan, **options):
    """What comes of it, and its history."""
    history = io.StringIO()

    async def scenario():
        loop = asyncio.get_running_loop()
        made = Campaign(
            system,
            workload,
            list(plan),
            seconds=TROUBLE_S,
            seed=1,
            history=history,
            now=loop.time,
            **options,
        )
        return await made.run()

    result = in_virtual_time(scenario())
    return result, [json.loads(line) for line in history.getvalue().splitlines()]


def test_where_all_is_well_there_is_nothing_to_complain_of():
    result, events = campaign(Asking(3), Writes(), Episode("kill", "n2", {}, 1.0, 2.0))
    assert result.complaints == []
    assert result.peace_s is not None
    assert (result.began_s, result.trouble_s) == pytest.approx((0.0, TROUBLE_S))
    assert len(result.answered_at) == sum(event["type"] == "ok" for event in events) > 100
    assert result.harmed[1][1] == {"n2"}


def test_a_request_that_is_still_open_at_the_end_is_a_complaint():
    """It was answered once more when all was well, and then never again."""
    result, events = campaign(Asking(3), Writes(silent_from=TROUBLE_S + 0.05))
    assert result.peace_s is not None
    assert result.complaints == [
        f"the last request of worker 1 was not answered within {PEACE_S:.0f} s"
    ]
    assert len({e["process"] for e in events}) == 6


def test_one_that_is_answered_in_time_is_none():
    result, _ = campaign(Asking(3), Writes(silent_from=TROUBLE_S + 0.05, silent_s=PEACE_S - 5))
    assert result.complaints == []


def test_a_worker_that_is_not_answered_when_all_is_well_is_named():
    result, _ = campaign(Asking(3), Writes(silent_from=TROUBLE_S - 1))
    assert result.peace_s is None
    assert result.complaints[0] == "30 s after the end of the faults: worker 1 is not answered"


class SlowToStart(Asking):
    """Whoever was killed is not there before the `tries`-th attempt to start it."""

    def __init__(self, tries: int) -> None:
        super().__init__(3)
        self._tries = tries

    async def revive(self, node):
        self._tries -= 1
        await asyncio.sleep(10.0)
        if self._tries:
            raise NotInTime(f"waited 10 s for {node}, in vain")
        return await super().revive(node)


def test_a_node_that_takes_long_to_start_is_started_again_while_there_is_time():
    kill = Episode("kill", "n2", {}, TROUBLE_S - 1.0, TROUBLE_S + 60.0)
    result, _ = campaign(SlowToStart(2), Writes(), kill)
    assert result.complaints == []
    assert 20.0 < result.peace_s < PEACE_S


def test_a_machine_that_gets_slower_meanwhile_has_more_time():
    """Slow at last, when all should be well again: as others that share it begin to work."""
    kill = Episode("kill", "n2", {}, TROUBLE_S - 1.0, TROUBLE_S + 60.0)
    late, _ = campaign(SlowToStart(5), Writes(), kill)
    assert late.peace_s is None
    assert "30 s after the end of the faults: the faults could not be ended" in late.complaints[0]

    def slowness() -> float:
        return 1.0 if asyncio.get_running_loop().time() < TROUBLE_S + 15.0 else 3.0

    in_time, _ = campaign(SlowToStart(5), Writes(), kill, slowness=slowness)
    assert in_time.complaints == []
    assert 50.0 < in_time.peace_s < 3 * PEACE_S


@pytest.mark.parametrize("error", [NotInTime("waited 30 s for n2, in vain"), Refused("n2 did not")])
def test_what_cannot_be_healed_is_a_complaint_and_no_error(error):
    class Stuck(Asking):
        async def revive(self, node):
            if asyncio.get_running_loop().time() >= TROUBLE_S - 0.1 and node == "n2":
                raise error
            return await super().revive(node)

    system = Stuck(3)
    result, _ = campaign(system, Writes(), Episode("kill", "all", {}, 1.0, 60.0))
    assert result.peace_s is None
    assert result.complaints == [
        f"{PEACE_S:.0f} s after the end of the faults: the faults could not be ended: {error}"
    ]
    # The others were not left lying.
    assert system.states == {"n1": "running", "n2": "killed", "n3": "running"}
