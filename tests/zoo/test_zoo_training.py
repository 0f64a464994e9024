"""Planted bugs of training: each must be caught by the test that claims to catch its kind."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import training_bugs as bugs
from hypothesis import Phase, settings

from ddp.errors import DdpError
from ddp.training import layers, trainer
from ddp.training.errors import InvalidSchedule, TrainingError
from ddp.training.grid import Grid
from ddp.training.optimizers import Sgd
from ddp.training.schedule import check

UNIT = Path(__file__).resolve().parent.parent / "unit" / "training"


def unit(name):
    """A module of the unit tests, by its file: what catches the bugs."""
    sys.path.insert(0, str(UNIT))
    try:
        spec = importlib.util.spec_from_file_location(f"zoo_{name}", UNIT / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(UNIT))
    return module


elastics = unit("elastic_kit")
pushers = unit("asynchronous_kit")
parallel = unit("test_training_parallel")
checkpoints = unit("test_training_checkpoints")
stale = unit("test_training_stale")

SEEDS = 100


def campaign(world, lose_all=False):
    for turn in range(1500):
        world.step()
        if turn % 25 == 0 and world.dice.random() < 0.5:
            world.befall(lose_all)
        world.check(lost=lose_all)
    world.settle()
    world.check(lost=lose_all)


def does_not_survive(campaign):
    for seed in range(SEEDS):
        try:
            campaign(seed)
        except (AssertionError, TrainingError):
            return
    raise AssertionError(f"it survived {SEEDS} seeds")


@pytest.mark.parametrize(
    "kind",
    [
        bugs.AcceptsVotesOfThePast,
        bugs.AcceptsSumsOfThePast,
        bugs.ObeysRecordsOfThePast,
        bugs.AppliesWhateverWasCommitted,
        bugs.CommitsWithAMajority,
        bugs.ComputesBeforeItIsHealed,
        bugs.ComesBackAsItself,
    ],
)
def test_elastic_bugs_do_not_survive_random_misfortunes(kind):
    does_not_survive(lambda seed: campaign(elastics.Elastics(seed, kind=kind, steps=40)))


@pytest.mark.parametrize(
    "kind",
    [bugs.CommitsWhatItOnlyRemembers, bugs.ServesBeforeItIsHealed, bugs.PushesToTheDead],
)
def test_asynchronous_bugs_do_not_survive_random_misfortunes(kind):
    does_not_survive(
        lambda seed: campaign(pushers.Pushers(seed, kind=kind, steps=40), lose_all=True)
    )


def divided(grid, **options):
    return parallel.divided(parallel.MLP, grid, lambda: Sgd(0.01), **options)


def is_as_alone(found):
    expected = parallel.alone(parallel.MLP, lambda: Sgd(0.01))
    return all(np.allclose(losses, expected, rtol=0, atol=1e-10) for losses in found)


@pytest.mark.parametrize("kind", [bugs.SumsABucketTwice, bugs.StartsBucketsAsTheyFill])
def test_bucket_bugs_change_the_loss(kind, monkeypatch):
    assert is_as_alone(divided(Grid(dp=3), bucket_bytes=2000))
    monkeypatch.setattr(trainer, "Buckets", kind)
    with contextlib.suppress(DdpError):  # it may say so itself
        assert not is_as_alone(divided(Grid(dp=3), bucket_bytes=2000))


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        (bugs.copies_without_summing_back, "copy_to_group"),
        (bugs.sums_back_what_is_whole, "sum_over_group"),
    ],
)
def test_wrong_backwards_of_a_split_change_the_loss(wrong, name, monkeypatch):
    assert is_as_alone(divided(Grid(tp=2)))
    monkeypatch.setattr(layers, name, wrong)
    with contextlib.suppress(RuntimeWarning):  # an overflow: so wrong that numbers end
        assert not is_as_alone(divided(Grid(tp=2)))


@pytest.mark.parametrize(
    ("schedule", "rule"),
    [
        (bugs.drops_a_micro_batch, "never does"),
        (bugs.goes_backward_too_early, "deadlock"),
        (bugs.hoards_activations, "may hold"),
    ],
)
def test_wrong_schedules_are_refused(schedule, rule):
    stages, micros = 4, 8
    with pytest.raises(InvalidSchedule, match=rule):
        check(schedule(stages, micros), micros, [min(stages - i, micros) for i in range(stages)])


@pytest.mark.parametrize(
    "kind",
    [
        bugs.LetsEverybodyRun,
        bugs.LetsOneClockMore,
        bugs.ForgetsWhoIsSlow,
        bugs.TakesAnyTicket,
        bugs.TakesPartsOfTheOldDivision,
        bugs.LetsNewcomersBeginAtZero,
    ],
)
def test_stale_servers_that_break_their_bound(kind, monkeypatch):
    monkeypatch.setattr(stale, "StaleServer", kind)
    unshrunk = settings(
        max_examples=100, deadline=None, phases=[Phase.generate], database=None,
        report_multiple_bugs=False,
    )  # fmt: skip
    monkeypatch.setattr(stale.TestServer, "settings", unshrunk)
    with pytest.raises(AssertionError):
        stale.TestServer("runTest").runTest()


@pytest.mark.parametrize(
    ("kind", "catcher"),
    [
        (bugs.LoadsWhateverIsThere, checkpoints.test_a_damaged_newest_costs_some_steps),
        (bugs.LoadsWhateverIsThere, checkpoints.test_a_checkpoint_under_another_name_is_refused),
        (bugs.LoadsAStaleOne, checkpoints.test_the_newest_is_found_and_old_ones_go),
        (bugs.WritesInPlace, lambda: [
            checkpoints.test_a_power_cut_while_saving_leaves_the_one_before(s) for s in range(5)
        ]),
    ],
)  # fmt: skip
def test_checkpoint_bugs(kind, catcher, monkeypatch):
    monkeypatch.setattr(checkpoints, "Checkpoints", kind)
    with pytest.raises(AssertionError):
        catcher()
