"""Training divided over real processes is training in one."""

from __future__ import annotations

import pytest

from ddp.errors import DdpError
from ddp.launch import LaunchFailed
from ddp.training.run import train

JOB = {"model": "transformer", "data": "topics", "steps": 3, "batch": 8, "width": 16, "depth": 2}


def losses(parallel, **options):
    """The curve, the accuracies, and what was said at the end."""
    events = list(train(JOB, parallel, **options))
    curve = [e["loss"] for e in events if e["kind"] == "step"]
    curve += [e["accuracy"] for e in events if e["kind"] == "accuracy"]
    return curve, events[-1]


@pytest.fixture(scope="module")
def alone():
    return losses("dp=1")[0]


@pytest.mark.parametrize(
    ("parallel", "options"),
    [
        ("dp=4", {}),
        ("dp=2", {"transport": "network"}),
        pytest.param("pp=2,tp=2", {"micros": 2, "transport": "network"}, marks=pytest.mark.slow),
        pytest.param("dp=2,pp=2,tp=2", {"micros": 2}, marks=pytest.mark.slow),
        pytest.param("pp=4", {"micros": 4, "schedule": "gpipe"}, marks=pytest.mark.slow),
    ],
)
def test_a_run_on_processes_equals_one_process(alone, parallel, options):
    found, end = losses(parallel, **options)
    assert found == pytest.approx(alone, abs=1e-10)
    network = options.get("transport") == "network"
    assert end["fabric"] == ("netstack" if network else "shared memory")
    assert end["sent_bytes"] > 0


def test_what_makes_no_sense_is_said_once():
    with pytest.raises(DdpError, match=r"^tp=3 does not divide 4 heads$") as caught:
        list(train(JOB, "tp=3"))
    assert not isinstance(caught.value, LaunchFailed)
    with pytest.raises(DdpError, match="there is no schedule 'fast'; there are: gpipe, 1f1b"):
        list(train(JOB, "pp=2", schedule="fast"))
