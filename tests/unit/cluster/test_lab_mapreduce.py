"""`ring mr lab`: smaller here than its figures, and with a scheduler that does wrong."""

from __future__ import annotations

import pytest

from cluster.bench.mapreduce import STRAGGLER_MAPS
from cluster.lab import mapreduce_cores as cores
from cluster.lab import mapreduce_experiments as lab
from cluster.lab.mapreduce_cores import MB, Span, rate
from mapreduce import late
from mapreduce.job import Job


def failing(outcome) -> list[str]:
    return [check.claim for check in outcome.checks if not check.holds]


@pytest.fixture
def small(monkeypatch):
    """A third of the maps, a quarter of the reduces."""
    monkeypatch.setattr(lab, "MAPS", 120)
    monkeypatch.setattr(lab, "REDUCES", 20)
    monkeypatch.setattr(lab, "KILLED_AT_S", 6.0)
    monkeypatch.setattr(lab, "SLOW", {"w7": 8.0})


def test_rates_hold_every_byte():
    spans = [Span("input", 0.3, 2.7, 24 * MB), Span("input", 1.0, 1.0, 3 * MB)]
    spans[1:] = [Span("input", 1.0, 1.5, 3 * MB), Span("output", 0.0, 9.0, MB)]
    found = rate(spans, "input", 0.5)
    assert sum(value * 0.5 for _, value in found) == pytest.approx(27)
    assert dict(found)[1.25] == pytest.approx(10 + 6)


def test_grep(monkeypatch):
    monkeypatch.setattr(lab, "MAPS", 240)
    outcome = lab.grep(1)
    assert failing(outcome) == []
    assert len(outcome.panels) == 1


def test_sort(small):
    outcome = lab.sort(1)
    assert failing(outcome) == []
    assert len(outcome.panels) == 3


def test_one_seed_one_history(small):
    first, again = (
        lab._run(3, lab.Machines(slow=lab.SLOW), reduces=8, kills={"w3": 5.0}) for _ in range(2)
    )
    other = lab._run(4, lab.Machines(slow=lab.SLOW), reduces=8, kills={"w3": 5.0})
    assert first.cores.spans == again.cores.spans != other.cores.spans


def test_a_master_that_copies_no_late_task_is_seen(small, monkeypatch):
    monkeypatch.setattr(late, "choose", lambda *_: None)
    found = failing(lab.sort(1))
    assert "copies of late tasks that won" in found
    assert any(claim.startswith("time without backup tasks") for claim in found)


def without_backups(maps: int, slower: float, seed: int) -> float:
    """How many times as long two workers take, one of them slow, if nobody copies its tasks."""
    took = []
    for backups in (False, True):
        model = cores.Cores(seed, cores.Machines(count=2, slots=1, slow={"w1": slower}))
        job = Job("lab", ["/in"], "/out", reduces=0, backups=backups)
        took.append(model.run(job, maps, {})["seconds"])
    return took[0] / took[1]


def test_a_straggler_costs_most_where_it_is_always_waited_for(monkeypatch):
    """The shape of `ring bench mapreduce`'s case: one task of its is longer than all the others'.

    With more, what it costs is where it happens to be when the others end: much, or nothing.
    """
    gains = {}
    for maps in (STRAGGLER_MAPS, 16):
        monkeypatch.setattr(cores, "SPLIT_BYTES", 7 * cores.DISK_B_S // maps)  # 7 s in all
        for slower in (8.0, 10.0, 14.0):
            gains[maps, slower] = [without_backups(maps, slower, seed) for seed in range(5)]
    few = [gains[STRAGGLER_MAPS, slower] for slower in (8.0, 10.0, 14.0)]
    assert max(few[0]) < max(few[1]) < max(few[2])
    assert min(few[1]) > 1.25  # the paper's sort: 1.44
    assert min(few[2]) > 1.6
    assert min(gains[16, 8.0]) < 1.02
    assert min(gains[16, 14.0]) < 1.02 < 1.4 < max(gains[16, 14.0])


def through_files() -> float:
    """How many times as long a sort takes on five workers if its shuffle is not direct."""
    took = []
    for shuffle in ("files", "direct"):
        job = Job("lab", ["/in"], "/out", reduces=10, shuffle=shuffle)
        model = cores.Cores(1, cores.Machines(count=5, slots=2))
        took.append(model.run(job, 90, {})["seconds"])
    return took[0] / took[1]


@pytest.mark.parametrize(
    ("line_mb_s", "least", "most"), [(10, 1.2, 1.5), (25, 1.05, 1.2), (1000, 0.98, 1.03)]
)
def test_a_direct_shuffle_gains_where_lines_are_waited_for(monkeypatch, line_mb_s, least, most):
    """It fetches while maps run. In the memory of one machine nothing is waited for."""
    monkeypatch.setattr(cores, "LINE_B_S", line_mb_s * MB)
    assert least < through_files() < most


@pytest.mark.slow
@pytest.mark.parametrize("name", lab.EXPERIMENTS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_at_full_size(name, seed):
    assert failing(lab.EXPERIMENTS[name](seed)) == []
