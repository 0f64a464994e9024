"""Master and worker cores together: every rule by a test of its own, then all of them in storms."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mr_core_kit import Cores, campaign, two_copies_end_well

from mapreduce import late
from mapreduce.job import Job
from mapreduce.late import Running
from mapreduce.master_core import MasterCore
from mapreduce.messages import Beat, Failure, JobSpec, Orders, Source, Start
from mapreduce.policy import judge
from mapreduce.worker_core import FETCHES_MAX, Fetch, WorkerCore


def finished(cores, id, maps=6, reduces=2):
    assert cores.run(cores.ended(id)), cores.state(id)
    assert cores.judge(id, maps, reduces) == []


def ready(seed=1, **more):
    cores = Cores(seed, **more)
    cores.sleep(0.3)
    return cores


def test_a_job_runs_every_task_once_when_nobody_fails():  # MIT lab 1: job count
    cores = ready()
    id = cores.submit()
    finished(cores, id)
    assert sorted((kind, index) for _, _, kind, index in cores.launched) == [
        *(("map", i) for i in range(6)),
        *(("reduce", i) for i in range(2)),
    ]


def test_all_workers_work_at_once():  # MIT lab 1: map parallelism
    cores = ready()
    id = cores.submit()
    cores.sleep(0.05)
    assert {name for _, name, _, _ in cores.launched} == {"w1", "w2", "w3"}
    finished(cores, id)


@pytest.mark.parametrize(("maps", "reduces"), [(0, 2), (3, 0), (1, 1), (0, 0)])
def test_jobs_of_any_shape_end(maps, reduces):
    cores = ready()
    id = cores.submit(maps, reduces)
    finished(cores, id, maps, reduces)


def test_the_maps_of_a_dead_worker_run_again_though_they_were_done():
    cores = ready()
    id = cores.submit(maps=9, reduces=2)
    cores.run(lambda: any(task.done for task in cores.master.jobs[id].maps))
    victim = next(task.worker for task in cores.master.jobs[id].maps if task.done)
    done = [task.index for task in cores.master.jobs[id].maps if task.worker == victim]
    cores.crash_worker(victim)
    finished(cores, id, 9)
    again = [index for _, name, kind, index in cores.launched if kind == "map" and name != victim]
    assert set(done) <= set(again)


def test_a_worker_that_restarts_at_once_is_noticed_by_its_new_life():
    cores = ready()
    id = cores.submit(maps=9, reduces=2)
    cores.sleep(1.0)
    cores.crash_worker("w1")
    cores.start_worker("w1")
    finished(cores, id, 9)


def test_after_a_restart_the_master_runs_nothing_again_that_was_done():
    cores = ready()
    id = cores.submit(maps=9, reduces=2)
    cores.run(lambda: sum(task.done for task in cores.master.jobs[id].maps) >= 5)
    cores.sleep(0.1)
    done = {f"job/{id}/map/{i}" for i in range(9)} & cores.durable.keys()
    cores.crash_master()
    cores.sleep(1.0)
    cores.start_master()
    finished(cores, id, 9)
    runs = [index for _, _, kind, index in cores.launched if kind == "map"]
    assert len(done) >= 4
    assert all(runs.count(int(key.rpartition("/")[2])) == 1 for key in done)


def test_what_runs_while_the_master_is_away_is_adopted_and_not_run_twice():
    cores = ready()
    cores.slow = dict.fromkeys(("w1", "w2", "w3"), 5.0)
    id = cores.submit(maps=3, reduces=1, backups=False)
    cores.run(lambda: len(cores.launched) == 3 and f"job/{id}" in cores.durable)
    cores.crash_master()
    cores.sleep(0.3)
    cores.start_master()
    finished(cores, id, 3, 1)
    assert len(cores.launched) == 4


@pytest.mark.parametrize("seed", range(20))
def test_attempts_are_counted_over_all_lives_of_the_master(seed):
    cores = ready(seed)
    id = cores.submit(maps=9, reduces=2)
    cores.run(lambda: f"job/{id}" in cores.durable)
    for life in range(3):
        cores.sleep(0.25 + 0.05 * seed % 0.4)
        if life == 1:
            cores.crash_worker("w2")
            cores.start_worker("w2")
            cores.sleep(0.3)  # the master has heard of it
        cores.crash_master()
        cores.sleep(0.3)
        cores.start_master()
    finished(cores, id, 9)
    tasks = cores.master.jobs[id].outcome(cores.now).tasks
    for kind in ("map", "reduce"):
        offered = list(cores.offered.values()).count(kind)
        # What died with its worker before a master that lived on had heard of it, nobody counts.
        assert offered - 2 <= tasks[f"{kind}_attempts"] <= offered, (kind, tasks)
    assert tasks["lost"] >= 1


@pytest.mark.parametrize("seed", range(10))
def test_what_an_earlier_life_counted_is_not_counted_again(seed):
    cores = ready(seed)
    id = cores.submit(maps=9, reduces=2)
    for _ in range(4):
        cores.sleep(0.4)
        cores.crash_master()
        cores.sleep(0.1)
        cores.start_master()
    finished(cores, id, 9)
    outcome = cores.master.jobs[id].outcome(cores.now)
    # No worker died: whatever one was told of is heard of sooner or later, and counts once. But
    # for what was cancelled while the record of it was on its way to the disk with a dying master.
    for kind in ("map", "reduce"):
        offered = list(cores.offered.values()).count(kind)
        assert offered - 2 <= outcome.tasks[f"{kind}_attempts"] <= offered


def test_nothing_is_acknowledged_or_renamed_before_it_is_durable():
    cores = ready()
    id = cores.submit(maps=2, reduces=1)
    cores.run(lambda: f"job/{id}" in cores.durable)
    persisted, cores._persisted = cores._persisted, lambda *_: None  # the disk hangs from now on
    cores.sleep(20.0)
    held = [worker.results for worker in cores.workers.values()]
    assert sum(map(len, held)) == 3
    assert cores.output == {}
    cores._persisted = persisted


def test_a_finished_job_is_not_called_so_before_that_is_durable():
    cores = ready()
    id = cores.submit(maps=2, reduces=1)
    finished(cores, id, 2, 1)
    assert not cores.master.durable(cores.master.end_sequence[id])
    cores.sleep(0.1)
    assert cores.master.durable(cores.master.end_sequence[id])
    cores.crash_master()
    cores.start_master()
    assert cores.state(id) == "finished"


def test_a_worker_that_heartbeats_but_cannot_be_reached_is_noticed():
    cores = ready(workers=3)
    cores.cut = {("w1", "w3"), ("w2", "w3")}
    id = cores.submit(maps=9, reduces=2)
    finished(cores, id, 9)
    assert cores.workers["w3"] is not None
    holders = {task.worker for task in cores.master.jobs[id].maps}
    readers = {task.worker for task in cores.master.jobs[id].reduces}
    assert "w3" not in holders or readers == {"w3"}


@pytest.mark.parametrize("seed", range(5))
def test_a_full_disk_fails_fast_and_burns_no_attempts(seed):
    """One of two workers fails at once whatever it is given; the other is busy, and must do all."""
    cores = ready(seed, workers=2)
    cores.full, cores.slow["w1"] = {"w1"}, 0.01
    id = cores.submit(maps=8, reduces=3)
    finished(cores, id, 8, 3)
    there = [(kind, index) for _, name, kind, index in cores.launched if name == "w1"]
    assert len(there) == len(set(there)), "the same task there twice"
    assert sum(kind == "map" for kind, _ in there) <= 3, "maps go where there is room for them"


def test_a_straggler_gets_a_second_copy_and_only_one_of_them_counts():
    cores = ready(workers=3)
    cores.slow["w3"] = 60.0
    id = cores.submit(maps=9, reduces=2)
    finished(cores, id, 9)
    counts = cores.master.jobs[id].counts
    assert counts["backups"] >= 1
    assert counts["backups_won"] >= 1
    assert cores.now < 20


def test_without_backups_the_straggler_is_waited_for():
    cores = ready(workers=3)
    cores.slow["w3"] = 60.0
    id = cores.submit(maps=9, reduces=2, backups=False)
    finished(cores, id, 9)
    assert cores.master.jobs[id].counts["backups"] == 0


def test_of_two_copies_that_end_at_the_same_time_one_is_renamed():
    assert len(two_copies_end_well()) == 1


def test_counters_of_a_map_that_was_lost_when_nobody_needed_it_any_more_still_count():
    assert campaign(219) == []


def test_a_record_that_kills_twice_is_skipped():
    cores = ready()
    cores.bad[("map", 3)] = 17
    id = cores.submit()
    finished(cores, id)
    assert [index for _, _, kind, index in cores.launched if kind == "map"].count(3) == 3


def test_a_task_that_has_failed_on_every_worker_is_tried_again():
    cores = ready(workers=2)
    deaths = iter(range(1, 6))
    real = cores._ran

    def ran(name, life, mission):
        number = next(deaths, 0) if mission.start.index == 0 and mission.start.kind == "map" else 0
        if number:
            cores.bad[("map", 0)] = number
        else:
            cores.bad.pop(("map", 0), None)
        real(name, life, mission)

    cores._ran = ran
    id = cores.submit(attempts=9)
    finished(cores, id)


def test_or_fails_the_job_where_that_is_the_policy():
    cores = ready()
    cores.bad[("map", 3)] = 17
    id = cores.submit(on_crash="fail")
    assert cores.run(cores.ended(id))
    assert cores.state(id) == "failed"
    assert cores.master.jobs[id].error == "map 3 failed: record 17: crashed"
    assert cores.output == {}


def test_a_cancelled_job_ends_and_its_workers_are_free():
    cores = ready()
    id = cores.submit(maps=50)
    cores.sleep(1.0)
    assert cores.master.cancel(id, cores.now)
    cores._do_master()
    cores.sleep(3.0)
    assert all(not w.held and not w.jobs for w in cores.workers.values())
    assert not cores.master.cancel(id, cores.now)


def test_two_jobs_share_the_workers():
    cores = ready()
    first, second = cores.submit(), cores.submit()
    assert first != second
    assert cores.run(lambda: cores.ended(first)() and cores.ended(second)())
    assert cores.state(first) == cores.state(second) == "finished"


def test_tasks_go_where_their_split_lies():
    from mapreduce.messages import JobSpec
    from mapreduce.splits import Split

    cores = ready()
    splits = [Split("/in", i, 1, [f"w{i % 3 + 1}"]) for i in range(9)]
    job = Job("p", ["/in"], "/out", reduces=1)
    id = cores.master.submit(JobSpec(job, splits, []), cores.now)
    cores._do_master()
    assert cores.run(cores.ended(id))
    counts = cores.master.jobs[id].locality()
    assert counts["local"] + counts["remote"] == 9
    assert counts["local"] >= 7
    cores.start_master()  # the next life knows it, too
    assert cores.master.jobs[id].locality() == counts
    assert cores.master.jobs[id].outcome(cores.now).tasks["local"] == counts["local"]


def test_a_job_is_as_old_as_its_last_result_when_the_master_is_back():
    cores = ready()
    id = cores.submit(maps=40)
    assert cores.run(lambda: sum(task.done for task in cores.master.jobs[id].maps) >= 10)
    cores.sleep(0.5)
    age = cores.now - cores.master.jobs[id].began
    cores.crash_master()
    cores.start_master()
    assert age / 2 < cores.now - cores.master.jobs[id].began <= age


def test_ended_jobs_are_forgotten_after_a_while():
    cores = ready()
    for _ in range(60):
        id = cores.submit(0, 1)
        cores.run(cores.ended(id))
        cores.sleep(0.1)
    assert len(cores.master.jobs) <= 52
    assert len({key.split("/")[1] for key in cores.durable}) <= 52


@pytest.mark.parametrize("seed", range(40))
def test_storms(seed):
    """Replay: campaign(seed) of mr_core_kit."""
    assert campaign(seed) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40, 2000))
def test_many_storms(seed):
    assert campaign(seed) == []


# -- LATE, on its own


def attempt(name, worker, fraction, age=10.0, copied=False):
    return Running(name, worker, fraction, age, copied)


def test_late_copies_the_one_that_ends_last():
    running = [attempt("a", "w1", 0.5), attempt("b", "w2", 0.1), attempt("c", "w3", 0.05)]
    finished_s = {"w4": [8.0, 8.0]}
    chosen = late.choose(running, finished_s, ["w4"], 40)
    assert chosen == (running[2], "w4")


@pytest.mark.parametrize(
    ("running", "finished_s", "free", "why"),
    [
        ([attempt("a", "w1", 0.1)], {}, ["w2"], "nobody knows how long a fresh one takes"),
        ([attempt("a", "w1", 0.1)], {"w2": [8.0]}, [], "nobody has room"),
        ([attempt("a", "w1", 0.1)], {"w1": [8.0]}, ["w1"], "only its own worker has"),
        ([attempt("a", "w1", 0.1, age=0.5)], {"w2": [8.0]}, ["w2"], "it is young"),
        ([attempt("a", "w1", 0.9)], {"w2": [8.0]}, ["w2"], "it ends soon"),
        ([attempt("a", "w1", 0.1, copied=True)], {"w2": [8.0]}, ["w2"], "it has a copy"),
    ],
)
def test_late_does_not_copy_when(running, finished_s, free, why):
    assert late.choose(running, finished_s, free, 10) is None, why


def test_late_has_a_cap_of_a_tenth_of_the_slots():
    copies = [attempt(f"c{i}", "w1", 0.1, copied=True) for i in range(4)]
    running = [*copies, attempt("a", "w1", 0.05)]
    assert late.choose(running, {"w2": [1.0]}, ["w2"], 20) is None
    assert late.choose(running, {"w2": [1.0]}, ["w2"], 30) is not None


def test_late_gives_no_copy_to_a_slow_worker():
    running = [attempt("a", "w1", 0.05)]
    finished_s = {"w2": [50.0], "w3": [5.0], "w4": [5.0], "w5": [5.0], "w6": [5.0]}
    assert late.choose(running, finished_s, ["w2"], 10) is None
    assert late.choose(running, finished_s, ["w2", "w3"], 10) == (running[0], "w3")


# -- policy


def died(record=0, kind="crashed"):
    return Failure(kind, f"{kind}!", record)


def job(**more):
    return Job("p", ["/in"], "/out", **more)


def test_one_death_blames_nobody_two_at_a_record_convict_it():
    assert judge(job(), [died(5)]).skip == frozenset()
    assert judge(job(), [died(5), died(6)]).skip == frozenset()
    assert judge(job(), [died(5), died(5)]).skip == {5}
    assert judge(job(), [died(5, "raised"), died(5)]).skip == frozenset()


def test_a_death_at_no_record_makes_the_next_attempt_careful():
    assert judge(job(), [died()]).careful
    assert not judge(job(), [died(3)]).careful


def test_what_raises_twice_fails_unless_the_job_skips():
    twice = [died(3, "raised")] * 2
    assert judge(job(), twice).fail == "record 3: raised!"
    assert judge(job(on_error="skip"), twice).skip == {3}


def test_four_deaths_that_tell_nothing_are_enough():
    deaths = [died(n) for n in (1, 2, 3)]
    assert not judge(job(), deaths).fail
    assert judge(job(), [*deaths, died(4)]).fail == "4 attempts failed: crashed!"


def test_finding_bad_records_is_no_failure_until_there_are_too_many():
    deaths = [died(n // 2 + 1) for n in range(40)]
    assert judge(job(), deaths).skip == set(range(1, 21))
    assert judge(job(skips_max=5), deaths).fail.startswith("more than 5 bad records")


def test_lost_workers_and_damaged_sources_are_not_the_tasks_fault():
    assert judge(job(attempts=1), [died(0, "lost"), died(0, "source")] * 9).fail == ""


def test_a_program_that_cannot_run_is_not_tried_again():
    assert judge(job(), [Failure("job", "no map")]).fail == "no map"


# -- time


@settings(max_examples=300, deadline=None)
@given(heard=st.floats(0, 1e9), death_s=st.floats(0.01, 100))
def test_whoever_is_asked_when_to_be_called_has_done_it_then(heard, death_s):
    """Else a clock that stands still until then, as the simulation's, stands still for ever."""
    core = MasterCore(1, death_s=death_s)
    core.receive(Beat("w1", "life1", 1), heard)
    core.on_deadline(core.next_deadline())
    assert core.next_deadline() is None  # the worker is gone: nothing is waited for any more


def fetching(maps: int) -> tuple[WorkerCore, list[Fetch]]:
    """A worker with a reduce of so many maps, and what it has asked for so far."""
    core = WorkerCore("w1", "life1", 1, "/w1")
    spec = JobSpec(Job("p", ["/in"], "/out", reduces=1), [], [])
    sources = [Source(i + 1, i, f"a{i}", "w2", f"/w2/{i}", [[[0, 1, 1]]]) for i in range(maps)]
    start = Start("r0", "j1", "reduce", 0, maps=maps)
    core.receive(Orders("life1", start=[start], jobs={"j1": spec}, sources={"j1": sources}), 0.0)
    return core, [output for output in core.take_outputs() if isinstance(output, Fetch)]


def test_a_worker_that_has_no_room_for_a_fetch_that_is_due_waits_for_room():
    """And not for a moment that is over: its loop would turn as fast as it can."""
    core, asked = fetching(FETCHES_MAX + 1)
    assert len(asked) == FETCHES_MAX
    core.not_fetched("r0", asked[0].source, 0.0)  # the fifth takes its place
    assert len(core.take_outputs()) == 1
    due = core.next_deadline()
    assert due is None or due > 100.0
    core.on_deadline(100.0)
    assert core.take_outputs() == []
    due = core.next_deadline()
    assert due is None or due > 100.0
    core.not_fetched("r0", asked[1].source, 100.0)  # room
    assert [output.source for output in core.take_outputs()] == [asked[0].source]


def test_a_fetch_that_failed_is_tried_again_when_it_is_time():
    core, [asked] = fetching(1)
    core.not_fetched("r0", asked.source, 0.0)
    assert core.take_outputs() == []
    core.on_deadline(core.next_deadline())
    assert [output.source for output in core.take_outputs()] == [asked.source]
