"""Planted bugs of the graphs, and the test that catches each."""

from __future__ import annotations

import asyncio
import importlib
import sys
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mapreduce.graph import fusion, values
from mapreduce.graph.graphs import Graph, Task
from mapreduce.graph.scheduler import Scheduler
from mapreduce.graph.states import MEMORY, RELEASED, WorkerState
from mapreduce.graph.values import Values

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "graph"))
core = importlib.import_module("test_graph_scheduler")
graphs = importlib.import_module("test_graph_graphs")
memory = importlib.import_module("test_graph_values")


random_kills = settings(
    max_examples=250, deadline=None, database=None, derandomize=True, phases=(Phase.generate,)
)(given(core.dags(), st.data())(core.whatever_dies))


def awaited(test):
    def run():
        asyncio.run(test())

    run.__name__ = test.__name__
    return run


class RecomputesEverything(Scheduler):
    def left(self, worker):
        super().left(worker)
        self._begin()
        for task in self.tasks.values():
            if task.state == RELEASED:
                self._need(task.name, "to be safe")
        self._end()


class RecomputesTheWholeLineage(Scheduler):
    """Does not stop at the first living ancestor."""

    def _lost(self, task, cause):
        for needed in task.inputs:
            source = self.tasks[needed]
            if source.state == MEMORY:
                for holder in source.holders:
                    self.workers[holder].holds.discard(needed)
                source.holders.clear()
                self._lost(source, "its descendant is")
        super()._lost(task, cause)


class ForgetsWhatWasLost(Scheduler):
    def _lost(self, task, cause):
        self._move(task, RELEASED, cause)


class RunsATaskBeforeItsInputs(Scheduler):
    def _need(self, name, cause):
        super()._need(name, cause)
        task = self.tasks[name]
        if len(task.waiting_for) == 1:
            task.waiting_for.clear()
            self._make_ready(task)


class NeverForgetsAValue(Scheduler):
    def _drop_if_unneeded(self, task, cause):
        """Memory is cheap."""


class ForgetsAValueTooSoon(Scheduler):
    def _done_with_inputs(self, task):
        for needed in task.inputs:
            self.tasks[needed].pending.clear()
        super()._done_with_inputs(task)


class ListensToTheDead(Scheduler):
    def finished(self, name, worker, size):
        if worker not in self.workers:
            self.workers[worker] = WorkerState(worker, 1)
            self.tasks[name].runs_on = worker
        super().finished(name, worker, size)


def fuses_across_a_requested_value(graph, wanted):
    return _fuse(graph, set())


def fuses_what_two_need(graph, wanted):
    """Copies a shared ancestor into each of those who need it."""
    tasks = {}
    for name, task in graph.tasks.items():
        steps, inputs = task.steps, task.inputs
        while len(inputs) == 1:
            before = graph.tasks[inputs[0]]
            steps, inputs = before.steps + steps, before.inputs
        tasks[name] = Task(name, steps, inputs)
    return Graph(tasks).culled(wanted)


_fuse = fusion.fuse


class LosesAValueOnSpill(Values):
    def _save(self, name, data):
        """The disk has it, surely."""


class SpillsWithoutAChecksum(Values):
    def _load(self, name, size):
        with self._disk.open(name) as file:
            return file.read_at(values.SUM_BYTES, size)


class SpillsWhatWasReplaced(Values):
    def drop(self, key):
        data = self._memory.pop(key, None)
        if data is not None:
            self.memory_bytes -= len(data)


SCHEDULER = [(core, "Scheduler")]
FUSE = [(graphs, "fuse")]
VALUES = [(memory, "Values")]
ZOO = [
    (RecomputesEverything, SCHEDULER, random_kills),
    (RecomputesTheWholeLineage, SCHEDULER, random_kills),
    (ForgetsWhatWasLost, SCHEDULER, random_kills),
    (RunsATaskBeforeItsInputs, SCHEDULER, random_kills),
    (NeverForgetsAValue, SCHEDULER, core.test_a_value_is_forgotten_when_its_last_user_is_done),
    (ForgetsAValueTooSoon, SCHEDULER, random_kills),
    (ListensToTheDead, SCHEDULER, core.test_what_an_old_life_says_is_not_heard),
    (
        fuses_across_a_requested_value,
        FUSE,
        graphs.test_fusion_stops_at_a_value_that_is_asked_for,
    ),
    (fuses_what_two_need, FUSE, graphs.test_fusion_stops_where_two_need_a_value),
    (
        LosesAValueOnSpill,
        VALUES,
        awaited(memory.test_what_is_used_least_goes_to_the_disk_and_comes_back),
    ),
    (
        SpillsWithoutAChecksum,
        VALUES,
        awaited(memory.test_a_value_that_rotted_on_the_disk_is_gone_and_not_wrong),
    ),
    (SpillsWhatWasReplaced, VALUES, awaited(memory.test_a_dropped_value_leaves_no_file)),
]


@pytest.mark.parametrize(("bug", "places", "judge"), ZOO, ids=lambda v: getattr(v, "__name__", ""))
def test_the_bug_is_caught(bug, places, judge, monkeypatch):
    with monkeypatch.context() as planted:
        for module, name in places:
            planted.setattr(module, name, bug)
        with pytest.raises(AssertionError):
            judge()


@pytest.mark.parametrize("judge", list(dict.fromkeys(j for *_, j in ZOO)), ids=lambda j: j.__name__)
def test_the_judge_finds_nothing_wrong_with_the_original(judge):
    judge()
