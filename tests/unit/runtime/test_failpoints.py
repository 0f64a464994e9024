"""Named lines at which a node dies, stumbles or hesitates: at its time, once, else free."""

from __future__ import annotations

import asyncio
import errno

import pytest

from netstack.runtime.failpoints import Failpoints, catalogue
from netstack.runtime.simulation.world import World


@pytest.fixture
def happened():
    return []


@pytest.fixture
def failpoint(happened):
    return Failpoints(lambda: happened.append("died"), lambda s: happened.append(f"slept {s:g}"))


def test_a_point_that_is_not_armed_does_nothing(failpoint, happened):
    failpoint("a.b")
    failpoint.apply({"another": {}})
    failpoint("a.b")
    assert (happened, failpoint.fired) == ([], [])


def test_it_fires_at_the_time_that_was_asked_for_and_never_again(failpoint, happened):
    failpoint.apply({"a.b": {"action": "crash", "after": 3}})
    for _ in range(2):
        failpoint("a.b")
    assert happened == []
    for _ in range(5):
        failpoint("a.b")
    assert (happened, failpoint.fired, failpoint.describe()) == (["died"], ["a.b"], {})


def test_it_stumbles_or_hesitates(failpoint, happened):
    failpoint.apply({"a": {"action": "error"}, "b": {"action": "sleep", "seconds": 0.5}})
    with pytest.raises(OSError, match="failpoint a") as caught:
        failpoint("a")
    failpoint("b")
    assert (caught.value.errno, happened) == (errno.EIO, ["slept 0.5"])


def test_it_can_be_disarmed(failpoint, happened):
    failpoint.apply({"a": {}, "b": {}})
    failpoint.apply({"a": None})
    failpoint("a")
    failpoint.clear()
    failpoint("b")
    assert happened == []


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"a": "crash"}, "points.a is a map"),
        ({"a": {"when": 1}}, "points.a is a map"),
        ({"a": {"action": "explode"}}, "action is crash, error, sleep"),
        ({"a": {"after": 0}}, "after is 1 or more"),
        ({"a": {"after": 1.5}}, "after is 1 or more"),
        ({"a": {"action": "sleep", "seconds": -1}}, "seconds is 0 or more"),
    ],
)
def test_what_makes_no_sense_is_refused(failpoint, values, sentence):
    with pytest.raises(ValueError, match=sentence):
        failpoint.apply({"fine": {}} | values)
    assert failpoint.describe() == {}


def test_the_catalogue_is_read_from_the_source(tmp_path, monkeypatch):
    package = tmp_path / "somewhere"
    package.mkdir()
    (package / "__init__.py").write_text("")
    code = 'failpoint("x.one")\nself._disk.failpoint( "x.two" )\n# failpoints("x.three")\n'
    (package / "code.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    assert catalogue("somewhere") == {"x.one": "code.py:1", "x.two": "code.py:2"}
    (package / "again.py").write_text('failpoint("x.one")\n')
    with pytest.raises(ValueError, match=r"code\.py:1: x\.one is at again\.py:1 too"):
        catalogue("somewhere")


def test_the_store_has_points_around_everything_that_must_not_be_torn_apart():
    points = catalogue("raftd")
    assert {"wal.append.before-sync", "wal.append.after-sync", "snapshot.before-sync"} <= set(
        points
    )


def test_a_simulated_node_that_dies_at_a_point_does_nothing_after_it():
    world = World(1)
    lives = []

    async def start(runtime):
        lives.append(runtime)
        runtime.failpoint("start.begun")
        runtime.faults.apply({"points": {"work": {"after": 2}}})
        executor = runtime.executor("work")

        def work():
            file = runtime.disk.open("file")
            file.append(b"x")
            runtime.failpoint("work")
            file.append(b"y")

        for _ in range(3):
            executor.submit(work, lambda *_: lives.append("done"))

    async def scenario():
        world.restart("n1")
        await asyncio.sleep(1)
        node = world.nodes["n1"]
        assert not node.running
        assert lives[1:] == ["done"]
        world.restart("n1")
        await asyncio.sleep(0.0001)
        assert node.running

    world.add_node("n1", start)
    world.run(scenario())
    world.close()
