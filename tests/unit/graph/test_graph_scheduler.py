"""The scheduler's core: what runs, where, what is forgotten, and what is computed again."""

from __future__ import annotations

import pytest
from graph_kit import Workers, dags, must_run, planned, sequential
from hypothesis import given, settings
from hypothesis import strategies as st

from mapreduce.graph.errors import InvalidTransition, UnknownTask
from mapreduce.graph.scheduler import DEATHS_MAX, Scheduler
from mapreduce.graph.states import MEMORY, RELEASED, RUNNING

DIAMOND = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}
CHAIN = {"a": (), "b": ("a",), "c": ("b",), "d": ("c",)}


def made(graph, wanted, workers=("w1", "w2"), slots=2):
    scheduler = Scheduler(validate=True)
    system = Workers(scheduler, graph)
    for worker in workers:
        system.join(worker, slots)
    scheduler.add(graph, wanted)
    system.obey()
    return scheduler, system


def ancestors(graph, names):
    found, stack = set(), list(names)
    while stack:
        new = set(graph[stack.pop()]) - found
        found |= new
        stack += new
    return found


def states(scheduler):
    return {name: task.state for name, task in scheduler.tasks.items()}


def test_a_task_runs_once_its_inputs_are_there_and_no_sooner():
    _scheduler, system = made(DIAMOND, ["d"])
    assert [run.task for queue in system.queue.values() for run in queue] == ["a"]
    system.run_all()
    assert system.finished[0] == "a"
    assert system.finished[-1] == "d"
    assert system.answers == {"d": sequential(DIAMOND)["d"]}


def test_what_does_not_depend_on_one_another_runs_at_the_same_time():
    graph = {f"t{i}": () for i in range(4)}
    _, system = made(graph, list(graph))
    assert {worker: len(queue) for worker, queue in system.queue.items()} == {"w1": 2, "w2": 2}


def test_only_what_is_needed_runs():
    _scheduler, system = made({**DIAMOND, "e": ("a",)}, ["b"])
    system.run_all()
    assert system.finished == ["a", "b"]


def test_a_value_is_forgotten_when_its_last_user_is_done():
    scheduler, system = made(CHAIN, ["d"])
    system.run_all()
    assert states(scheduler) == {"a": RELEASED, "b": RELEASED, "c": RELEASED, "d": MEMORY}
    assert sum(len(memory) for memory in system.memory.values()) == 1
    scheduler.unwant("d")
    system.obey()
    assert not any(system.memory.values())


def test_a_task_goes_where_its_inputs_are():
    graph = {"a": (), "x": (), "b": ("a",), "y": ("x",), "z": ("b", "y")}
    _scheduler, system = made(graph, ["z"], slots=1)
    at = {queue[0].task: worker for worker, queue in system.queue.items()}
    for worker in ("w1", "w2"):
        system.step(worker)
    assert {queue[0].task: worker for worker, queue in system.queue.items()} == {
        "b": at["a"],
        "y": at["x"],
    }


def test_depth_first_what_was_begun_is_finished_before_more_is_begun():
    graph = {}
    for i in range(4):
        graph[f"a{i}"], graph[f"b{i}"] = (), (f"a{i}",)
    graph["sum"] = tuple(f"b{i}" for i in range(4))
    _, system = made(graph, ["sum"], workers=("w1",), slots=1)
    system.run_all()
    assert system.finished[:4] == ["a0", "b0", "a1", "b1"]


def test_a_lost_value_is_computed_again_back_to_the_first_living_ancestor():
    scheduler, system = made(CHAIN, ["a", "b", "d"], workers=("w1",), slots=1)
    system.step("w1")  # a
    system.step("w1")  # b
    system.join("w2", 1)
    system.memory["w2"]["a"] = system.memory["w1"]["a"]
    scheduler.copied("a", "w2")
    system.kill("w1")  # b is lost, a lives at w2
    assert planned(scheduler) | {"b"} == {"b", "c", "d"}
    system.run_all()
    assert scheduler.recomputed == ["b"]
    assert system.answers["d"] == sequential(CHAIN)["d"]


def test_when_the_ancestors_are_gone_too_the_walk_goes_on():
    scheduler, system = made(CHAIN, ["d"], workers=("w1",), slots=1)
    for _ in range(3):
        system.step("w1")
    assert states(scheduler)["c"] == MEMORY
    system.kill("w1")
    system.join("w2", 1)
    system.run_all()
    assert scheduler.recomputed == ["a", "b", "c"]


def test_what_nobody_needs_any_more_is_not_computed_again():
    scheduler, system = made(CHAIN, ["d"], workers=("w1",))
    system.run_all()
    scheduler.unwant("d")
    system.obey()
    system.kill("w1")
    assert not planned(scheduler)
    assert scheduler.recomputed == []


def test_a_value_with_a_copy_elsewhere_is_not_lost():
    scheduler, system = made(DIAMOND, ["a", "d"], workers=("w1", "w2"), slots=1)
    system.run_all()
    holder = next(iter(scheduler.tasks["a"].holders))
    other = "w2" if holder == "w1" else "w1"
    system.memory[other]["a"] = system.memory[holder]["a"]
    scheduler.copied("a", other)
    system.kill(holder)
    assert scheduler.tasks["a"].state == MEMORY


def test_a_task_that_runs_elsewhere_with_what_was_lost_is_left_alone():
    """It has read its input; only if it says that it has not, the input is computed again."""
    graph = {"a": (), "b": ("a",), "x": ()}
    scheduler, system = made(graph, ["b"], workers=("w1",), slots=1)
    system.step("w1")
    scheduler.workers["w1"].slots = 0
    system.kill("w1")
    system.join("w2", 1)
    system.step("w2")  # a again: it alone
    run = system.queue["w2"][0]
    assert run.task == "b"
    assert scheduler.tasks["b"].state == RUNNING


def test_a_function_that_raises_fails_what_needs_it_and_nothing_else():
    graph = {**DIAMOND, "other": ("a",)}
    scheduler, system = made(graph, ["d", "other"], workers=("w1",), slots=1)
    system.step("w1")
    run = system.queue["w1"].pop(0)
    assert run.task == "b"
    scheduler.failed("b", "w1", "ValueError: no")
    system.obey()
    system.run_all()
    assert system.failures["d"].because == "b"
    assert "other" in system.answers


def test_a_task_that_kills_its_process_is_tried_a_few_times_and_named():
    scheduler, system = made({"a": ()}, ["a"], workers=("w1",))
    for _ in range(DEATHS_MAX):
        system.queue["w1"].pop(0)
        scheduler.failed("a", "w1", "SIGSEGV", killed=True)
        system.obey()
    assert system.failures["a"].killed
    assert not system.queue["w1"]


def test_an_input_that_nobody_has_any_more_is_computed_again():
    scheduler, system = made(CHAIN, ["b"], workers=("w1", "w2"), slots=1)
    system.step(scheduler.tasks["a"].runs_on)
    worker = scheduler.tasks["b"].runs_on
    for memory in system.memory.values():
        memory.clear()
    system.step(worker)
    system.run_all()
    assert scheduler.recomputed == ["a"]
    assert system.answers["b"] == sequential(CHAIN)["b"]


def test_the_story_tells_how_a_task_came_to_where_it_is():
    scheduler, system = made({"a": ()}, ["a"], workers=("w1",))
    system.run_all()
    assert scheduler.story("a") == [
        "event 2: released → waiting (wanted)",
        "event 2: waiting → ready (all inputs are there)",
        "event 2: ready → running (given to w1)",
        "event 3: running → memory (w1 finished it)",
    ]


def test_an_illegal_step_tells_the_story():
    scheduler, _ = made({"a": ()}, ["a"], workers=("w1",))
    with pytest.raises(InvalidTransition, match=r"(?s)running → ready\n.*given to w1"):
        scheduler._move(scheduler.tasks["a"], "ready", "a bug")


def test_a_wanted_task_that_is_not_there_is_named():
    scheduler = Scheduler()
    with pytest.raises(UnknownTask, match="'z'"):
        scheduler.add({"a": ()}, ["z"])


def test_what_an_old_life_says_is_not_heard():
    scheduler, _system = made({"a": (), "b": ("a",)}, ["b"], workers=("w1",))
    scheduler.finished("a", "somebody", 1)
    scheduler.failed("a", "somebody", "no")
    scheduler.missing("b", "somebody", "a", ["w1"])
    assert scheduler.tasks["a"].state == RUNNING


def whatever_dies(graph, data):
    """Random graphs, random kills; after each kill the plan is what a naive walk says."""
    wanted = data.draw(st.lists(st.sampled_from(sorted(graph)), min_size=1, max_size=3))
    scheduler, system = made(graph, wanted, slots=data.draw(st.integers(1, 3)))
    names = ["w1", "w2"]
    for i in range(data.draw(st.integers(0, 4))):
        for _ in range(data.draw(st.integers(0, 8))):
            system.step(data.draw(st.sampled_from(names)))
        victim = data.draw(st.sampled_from(names))
        names.remove(victim)
        # Without room, so that nothing is given away before we have looked.
        for worker in names:
            scheduler.resize(worker, 0)
        expected = must_run(system, victim)
        system.kill(victim)
        assert planned(scheduler) == expected
        running = {n for n, t in scheduler.tasks.items() if t.state == RUNNING}
        before = len(system.finished)
        names.append(f"n{i}")
        system.join(names[-1], 2)
        for worker in names:
            scheduler.resize(worker, 2)
        system.obey()
        if data.draw(st.booleans()):
            system.run_all()
            ran = system.finished[before:]
            assert len(ran) == len(set(ran)), "a task ran twice without need"
            # What a living worker was about to read, and what that came from, may come on top.
            assert set(ran) - expected <= running | ancestors(graph, running)
            assert expected <= set(ran)
    system.run_all()
    truth = sequential(graph)
    assert system.answers == {name: truth[name] for name in wanted}


test_whatever_dies_the_answer_is_right_and_no_more_is_run_than_must = settings(
    max_examples=150, deadline=None
)(given(dags(), st.data())(whatever_dies))
