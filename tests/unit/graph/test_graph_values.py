"""A worker's values: in memory up to a limit, on the disk beyond, and never lost in silence."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mapreduce.graph.child import DONE, FAILED, Runner
from mapreduce.graph.graphs import Ref
from mapreduce.graph.values import FOLDER, Values
from mapreduce.graph.wire import dumps, loads
from netstack.runtime.disk import Disk
from netstack.runtime.memory_disk import MemoryStorage


class Work:
    """A disk's thread that does everything at once."""

    async def do(self, function, *arguments):
        return function(*arguments)

    def later(self, function):
        function()


class Place:
    def __init__(self, limit=100):
        self.disk = Disk(MemoryStorage(), lambda s: None)
        self.values = Values(self.disk, Work(), limit)

    async def put(self, name, data):
        if self.values.put(("s", name), data):
            await self.values.spill()

    async def get(self, name):
        return await self.values.get(("s", name))

    @property
    def files(self):
        return self.disk.list(FOLDER)


async def test_what_is_used_least_goes_to_the_disk_and_comes_back():
    place = Place()
    for name in "abc":
        await place.put(name, name.encode() * 40)
    assert place.values.spilled == 1
    assert place.values.in_memory(("s", "a")) is None
    assert [await place.get(name) for name in "abc"] == [b"a" * 40, b"b" * 40, b"c" * 40]
    await place.get("b")
    await place.put("d", b"d" * 40)
    assert place.values.in_memory(("s", "b")) is not None


async def test_a_dropped_value_leaves_no_file():
    place = Place()
    for name in "abc":
        await place.put(name, name.encode() * 90)
    assert len(place.files) == 2
    place.values.drop_session("s")
    assert place.files == []
    assert (len(place.values), place.values.memory_bytes) == (0, 0)


async def test_one_value_that_is_too_large_for_memory_stays_there():
    place = Place()
    await place.put("a", b"x" * 1000)
    assert await place.get("a") == b"x" * 1000
    assert place.files == []


async def test_a_value_that_rotted_on_the_disk_is_gone_and_not_wrong():
    place = Place()
    for name in "ab":
        await place.put(name, name.encode() * 90)
    with place.disk.open(f"{FOLDER}/{place.files[0]}") as file:
        file.write_at(30, b"?")
    assert await place.get("a") is None
    assert ("s", "a") not in place.values
    assert "checksum" in place.values.trouble


async def test_a_full_disk_keeps_the_values_in_memory_and_says_so():
    place = Place()
    place.disk.faults.full = True
    for name in "abc":
        await place.put(name, name.encode() * 90)
    assert [await place.get(name) for name in "abc"] == [b"a" * 90, b"b" * 90, b"c" * 90]
    assert "nor on the disk" in place.values.trouble
    place.disk.faults.full = False
    await place.put("d", b"d" * 90)
    assert place.values.trouble == ""


async def test_a_new_life_begins_with_an_empty_disk():
    place = Place()
    for name in "abc":
        await place.put(name, name.encode() * 90)
    await Values(place.disk, Work(), 100).clear_disk()
    assert place.files == []


NAMES = st.sampled_from("abcd")


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), NAMES, st.binary(max_size=70)),
            st.tuples(st.just("get"), NAMES),
            st.tuples(st.just("drop"), NAMES),
        ),
        max_size=40,
    )
)
async def test_they_are_a_plain_map(steps):
    place, model = Place(), {}
    for kind, name, *rest in steps:
        if kind == "put":
            await place.put(name, rest[0])
            model[name] = rest[0]
        elif kind == "drop":
            place.values.drop(("s", name))
            model.pop(name, None)
        assert await place.get(name) == model.get(name)
        assert len(place.values) == len(model)
        assert place.values.memory_bytes <= 100 or len(place.values._memory) == 1
        assert len(place.files) == place.values.spilled


# -- what the child does with them


def step(name, function, *args):
    return [name, function.__name__, dumps((args, ()))]


def runner(*functions):
    made = Runner()
    for function in functions:
        made.add_function(function.__name__, dumps(function))
    return made


def test_a_chain_of_steps_is_run_in_one_place():
    steps = [step("a", abs, -3), step("b", max, Ref("a"), Ref("x"))]
    kind, token, data, took = runner(abs, max).run("s", 7, steps, {"x": dumps(2)})
    assert (kind, token, loads(data), len(took)) == (DONE, 7, 3, 2)


def test_a_function_that_raises_is_told_without_our_frames():
    answer = runner(int).run("s", 1, [step("a", int, "no")], {})
    assert answer[0] == FAILED
    assert "invalid literal" in answer[2]
    assert isinstance(loads(answer[3]), ValueError)


def test_an_exception_that_cannot_be_sent_is_told_all_the_same():
    class Odd(Exception):
        def __init__(self, one, two):
            super().__init__("odd")

    def odd():
        raise Odd(1, 2)

    made = Runner()
    made._functions["odd"] = odd
    answer = made.run("s", 1, [["a", "odd", dumps(((), ()))]], {})
    assert answer[0] == FAILED
    assert "Odd: odd" in answer[2]


def test_values_of_one_session_are_not_those_of_another():
    made = runner(abs)
    made.run("s", 1, [step("a", abs, -1)], {})
    kind, _, data, _ = made.run("t", 2, [step("b", abs, Ref("a"))], {"a": dumps(-5)})
    assert (kind, loads(data)) == (DONE, 5)
    made.forget("s", ["abs"])
    assert ("s", "a") not in made._kept
    assert made._functions == {}
