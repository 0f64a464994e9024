"""Graphs as they are written, and what fusion makes of them."""

from __future__ import annotations

from operator import add, mul

import pytest
from graph_kit import dags
from hypothesis import given, settings
from hypothesis import strategies as st

from mapreduce.graph.delayed import delayed, graph_of
from mapreduce.graph.drawing import DRAWN_MAX, to_dot, to_svg
from mapreduce.graph.errors import CycleFound, UnknownTask
from mapreduce.graph.fusion import STEPS_MAX, fuse
from mapreduce.graph.graphs import Graph, Step, Task, evaluate, in_order, key_name, run_step


def test_dask_s_forms():
    dsk = {
        "x": 1,
        "y": (add, "x", 10),
        "nested": (add, (mul, "x", 2), ["y", 1][1]),
        "list": (sum, ["x", "y", 100]),
        "alias": "y",
        "keys": ["x", "y"],
        ("chunk", 0): (add, "y", 1),
        ("chunk", 1): (add, ("chunk", 0), 1),
        "literal": (len, "not a key"),
        "empty": (list,),
        7: (add, "x", 6),
    }
    graph = Graph.of(dsk)
    names = [key_name(key) for key in dsk]
    values = dict(zip(dsk, evaluate(graph, names), strict=True))
    assert values == {
        "x": 1,
        "y": 11,
        "nested": 3,
        "list": 112,
        "alias": 11,
        "keys": [1, 11],
        ("chunk", 0): 12,
        ("chunk", 1): 13,
        "literal": 9,
        "empty": [],
        7: 7,
    }


def test_a_circle_is_refused_and_shown():
    with pytest.raises(CycleFound, match="b → d → c → b"):
        Graph.of({"a": 1, "b": (add, "a", "d"), "c": (add, "b", 1), "d": (add, "c", 1)})
    with pytest.raises(CycleFound, match="a → a"):
        Graph.of({"a": (add, "a", 1)})


def test_keys_that_look_the_same_are_refused():
    with pytest.raises(ValueError, match="look the same"):
        Graph.of({1: 1, "1": 2})


def test_an_input_that_is_not_there_is_named():
    step = Step("a", add, (1, 2))
    with pytest.raises(UnknownTask, match="a needs 'b'"):
        Graph({"a": Task("a", (step,), ("b",))})


def test_a_deep_graph_is_no_deep_recursion():
    dsk = {"t0": 0, **{f"t{i}": (add, f"t{i - 1}", 1) for i in range(1, 20_000)}}
    graph = Graph.of(dsk)
    assert evaluate(graph, ["t19999"]) == [19_999]
    assert len(in_order({n: t.inputs for n, t in graph.tasks.items()})) == 20_000


def test_the_same_call_has_the_same_name_and_is_one_task():
    later = delayed(add)
    one, other = later(later(1, 2), 3), later(later(1, 2), 4)
    assert one.name != other.name
    assert later(1, 2).name == later(1, 2).name
    assert len(graph_of([one, other]).tasks) == 3


def test_delayed_arguments_may_be_anywhere():
    later = delayed(lambda *args, **kwargs: (args, kwargs))
    x = delayed(add)(1, 2)
    value = later([x, {"k": (x, 5)}], key=x)
    assert evaluate(value.graph, [value.name]) == [(([3, {"k": (3, 5)}],), {"key": 3})]


CHAIN = {"a": 1, "b": (add, "a", 1), "c": (add, "b", 1), "d": (mul, "c", 2)}


def test_a_chain_becomes_one_task_that_remembers_its_steps():
    fused = fuse(Graph.of(CHAIN), {"d"})
    [task] = fused.tasks.values()
    assert [step.name for step in task.steps] == ["a", "b", "c", "d"]
    assert evaluate(fused, ["d"]) == [6]


def test_fusion_stops_at_a_value_that_is_asked_for():
    fused = fuse(Graph.of(CHAIN), {"b", "d"})
    assert set(fused.tasks) == {"b", "d"}
    assert evaluate(fused, ["b", "d"]) == [2, 6]


def test_fusion_stops_where_two_need_a_value():
    dsk = {**CHAIN, "other": (add, "b", 5), "end": (add, "d", "other")}
    fused = fuse(Graph.of(dsk), {"end"})
    assert set(fused.tasks) == {"b", "d", "other", "end"}


def test_a_long_chain_is_cut():
    dsk = {"t0": 0, **{f"t{i}": (add, f"t{i - 1}", 1) for i in range(1, 200)}}
    fused = fuse(Graph.of(dsk), {"t199"})
    assert len(fused.tasks) == -(-200 // STEPS_MAX)
    assert all(len(task.steps) <= STEPS_MAX for task in fused.tasks.values())
    assert evaluate(fused, ["t199"]) == [199]


def collect(name, *values):
    return (name, values)


@settings(max_examples=100, deadline=None)
@given(dags(), st.data())
def test_fused_or_not_the_values_are_the_same(shape, data):
    wanted = data.draw(st.lists(st.sampled_from(sorted(shape)), min_size=1, unique=True))
    dsk = {name: (collect, f"<{name}>", *inputs) for name, inputs in shape.items()}
    graph = Graph.of(dsk).culled(wanted)
    fused = fuse(graph, set(wanted))
    assert set(wanted) <= set(fused.tasks)
    assert evaluate(fused, wanted) == evaluate(graph, wanted)
    steps = [step.name for task in fused.tasks.values() for step in task.steps]
    assert sorted(steps) == sorted(graph.tasks)


def test_a_task_of_dask_s_own_class_is_called_with_its_dependencies():
    class Node:
        key = "b"
        dependencies = frozenset({"a"})

        def __call__(self, values):
            return values["a"] + 1

    graph = Graph.of({"a": 1, "b": Node()})
    assert graph.tasks["b"].inputs == ("a",)
    assert evaluate(graph, ["b"]) == [2]


def test_pictures_have_every_task_its_state_and_what_ran_again():
    graph = Graph.of({**CHAIN, 'odd"<name>': (add, "a", "d")})
    states = {"a": "done", "b": "done", "c": "running", "d": "waiting", 'odd"<name>': "waiting"}
    dot = to_dot(graph, states, ["b"])
    assert dot.count("->") == 5
    assert "penwidth=3" in dot
    svg = to_svg(graph, states, ["b"])
    assert svg.count("<title>") == 5
    assert "b: done, computed again" in svg
    assert "odd&quot;&lt;name&gt;" in svg

    import xml.etree.ElementTree as Xml

    Xml.fromstring(svg)


def test_layers_put_a_task_below_its_inputs():
    svg = to_svg(Graph.of(CHAIN), {})
    heights = [float(part.split('"')[3]) for part in svg.split("<rect x=")[1:]]
    assert heights == sorted(set(heights))


def test_what_nobody_could_look_at_is_not_drawn():
    graph = Graph.of({f"t{i}": i for i in range(DRAWN_MAX + 1)})
    with pytest.raises(ValueError, match="too many to draw"):
        to_svg(graph, {})


def test_a_step_is_one_call():
    assert run_step(Step("s", add, (1, 2)), {}) == 3
