"""Planted bugs of links, disks, sockets, threads and logs, and what catches each.

A judge is a test of tests/unit/runtime, where it passes; here it must fail.
"""

from __future__ import annotations

import pytest
import runtime_bugs as bugs
from evidence import caught
from runtime_judges import (
    DGRAM,
    DISK,
    DISK_OF_WORLD,
    EVENTS,
    FAULTY,
    FILE,
    GSO,
    MEMORY,
    RUNTIME,
    SHAPER,
    SIMULATED,
    TASKS,
    THREADS,
    an_address,
    any_executor,
    bad_links,
    cancelling,
    disks,
    dying,
    endpoints,
    executors,
    failing,
    in_crash,
    link,
    logs,
    memory,
    network,
    of_mistake,
    of_real_things,
    on_bad_links,
    on_disk,
    on_loop,
    on_net,
    on_radio,
    place,
    plainly,
    policies,
    power_cut,
    rate,
    real_log,
    replace,
    sending,
    spin,
    threads,
    with_little_at_once,
    with_log,
    with_node,
    with_spin,
    with_threads,
)

ZOO = [
    # links
    (
        bugs.HasNoBursts,
        SHAPER,
        plainly(policies.TestBursts().test_last_one_datagram_when_they_end_for_certain),
        "assert fates.count(False) > MANY / 10",
    ),
    (
        bugs.LetsJitterReorder,
        SHAPER,
        plainly(link.test_keeps_the_order_under_jitter),
        "assert arrivals == sorted(arrivals)",
    ),
    (
        bugs.SavesItsRateUp,
        SHAPER,
        plainly(rate.test_saves_nothing_up_while_the_link_is_idle),
        "assert link.shape(bytes(100), 60.0)[0][0] == pytest.approx(60.1)",
    ),
    (
        bugs.HasAnEndlessQueue,
        SHAPER,
        plainly(rate.test_drops_at_the_tail_what_the_queue_has_no_room_for),
        "assert [len(link.shape(bytes(100), 0.0)) for _ in range(5)] == [1, 1,",
    ),
    (
        bugs.ForgetsToCount,
        SHAPER,
        plainly(link.test_loses_the_share_it_says, 0.1),
        'assert about(link.counts["dropped"], MANY, chance)',
    ),
    (
        bugs.flips_two_bits,
        f"{RUNTIME}.policy.flip_bit",
        plainly(link.test_damages_the_share_it_says_by_exactly_one_bit, 0.05),
        "assert set(flipped) <= {0, 1}",
    ),
    (
        bugs.StartsAnewAtEachChange,
        "test_policy.LinkTable",
        plainly(policies.TestATable().test_goes_on_counting_when_a_policy_is_changed),
        'assert table.describe() == { "127.0.0.1:7402": { "delay_s": 1.0,',
    ),
    (
        bugs.clears_by_a_new_map,
        f"{RUNTIME}.policy.LinkTable.clear",
        plainly(policies.TestATable().test_is_cleared_in_place_for_those_who_look_at_it),
        "assert seen is table.shapers",
    ),
    # disks
    (
        bugs.WritesThroughAtOnce,
        FILE,
        on_disk(power_cut.test_loses_all_that_was_not_synced, "os", power_cut=True),
        'assert cut.kill().read("f") == b"kept"',
    ),
    (
        bugs.ReadsOnlyWhatIsSynced,
        FILE,
        on_disk(power_cut.test_shows_what_was_written_before_it_is_synced, power_cut=True),
        'assert file.read_at(0, 100) == b"Jello!"',
    ),
    (
        bugs.SyncsByClosingItsEyes,
        FILE,
        on_disk(replace.test_syncs_the_data_before_the_name_and_the_name_before_it_returns),
        'assert watched.calls == [ ("truncate", "a/f.new", 0), ("pwrite",',
    ),
    (
        bugs.SyncsByClosingItsEyes,
        FILE,
        lambda tmp: replace.test_is_all_or_nothing_wherever_the_process_is_killed(tmp, False),
        "assert found in ((new,) if returned else (old, new))",
    ),
    (
        bugs.TearsForEver,
        FILE,
        on_disk(disks.TestTorn().test_happens_once, power_cut=True),
        "assert not cut.disk.faults.torn",
    ),
    (
        bugs.ReplacesInPlace,
        DISK,
        lambda tmp: replace.test_is_all_or_nothing_wherever_the_process_is_killed(tmp, False),
        "assert found in ((new,) if returned else (old, new))",
    ),
    (
        bugs.ReplacesInPlace,
        DISK,
        on_disk(replace.test_keeps_the_old_when_any_call_fails, "os"),
        'assert place.disk.read("f") == b"old"',
    ),
    (
        bugs.RenamesWithoutTheFolder,
        DISK,
        on_disk(replace.test_syncs_the_data_before_the_name_and_the_name_before_it_returns),
        'assert watched.calls == [ ("truncate", "a/f.new", 0), ("pwrite",',
    ),
    (
        bugs.FailsFromThenOn,
        DISK,
        on_disk(lambda p: disks.TestEioAt().test_fails_that_call_and_no_other(p, 2)),
        "assert failed == [(call, errno.EIO)]",
    ),
    (
        bugs.OpensEachTimeAnew,
        DISK,
        on_disk(power_cut.test_shows_what_was_written_to_whoever_reads_the_file, power_cut=True),
        'assert cut.disk.read("f") == b"unsynced"',
    ),
    (
        bugs.HoldsOnToNames,
        DISK,
        on_disk(disks.TestAFileThatIsOpenTwice().test_keeps_its_name_when_it_is_renamed),
        "assert (first.size, other.size) == (3, 0)",
    ),
    (
        bugs.keeps_what_it_could_not_sync,
        f"{FILE}._forget",
        lambda tmp: disks.TestSyncError().test_loses_it_without_power_cut_mode_too(tmp),
        'pytest.fail("a failed sync has lost nothing in 20 power cuts")',
    ),
    (
        bugs.SlowsDownWrites,
        DISK,
        on_disk(disks.TestASlowDisk().test_takes_its_time_for_each_sync_and_nothing_else),
        "assert place.pauses == []",
    ),
    (
        bugs.KeepsAllInACrash,
        DISK_OF_WORLD,
        plainly(in_crash.test_keeps_what_was_synced_and_may_lose_what_was_not),
        'assert {self.found(seed, start) for seed in range(30)} == {b"synced",',
    ),
    (
        bugs.LosesSyncedToo,
        DISK_OF_WORLD,
        plainly(in_crash.test_keeps_what_was_synced_and_may_lose_what_was_not),
        'assert {self.found(seed, start) for seed in range(30)} == {b"synced",',
    ),
    (
        bugs.SplitsSectors,
        MEMORY,
        plainly(memory.test_writes_a_sector_whole_or_not_at_all),
        "assert all(len(set(sector)) == 1 for sector in cut)",
    ),
    (
        bugs.SyncsWhileItDies,
        MEMORY,
        plainly(dying.test_has_written_what_came_before_and_nothing_after),
        'assert storage.pread(handle, 0, 20) == b"before"',
    ),
    (
        bugs.SyncsWhileItDies,
        DISK_OF_WORLD,
        plainly(in_crash.test_has_done_half_of_what_an_executor_had_begun),
        'assert {self.found(seed, start) for seed in range(40)} == {b"", b"1"}',
    ),
    (
        bugs.writes_once,
        f"{RUNTIME}.os_disk.OsStorage.pwrite",
        with_little_at_once,
        'assert files.pread(handle, 0, 100) == b"\\0\\0hello world"',
    ),
    # sockets
    (
        bugs.gives_up_at_the_first,
        f"{GSO}.send",
        on_net(sending.test_what_the_kernel_has_no_room_for_loses_it_and_counts),
        "assert full.taken == [bytes(1), bytes(3), bytes(5)]",
    ),
    (
        bugs.gives_up_at_the_first,
        f"{DGRAM}.send",
        on_net(sending.test_what_the_kernel_has_no_room_for_loses_it_and_counts, "dgram"),
        "assert full.taken == [bytes(1), bytes(3), bytes(5)]",
    ),
    (
        bugs.ends_at_a_refusal,
        f"{GSO}._readable",
        on_net(sending.test_to_a_closed_port_does_not_end_the_endpoint),
        'TimeoutError: assert await inbox.until(1) == [b"still here?"]',
    ),
    (
        bugs.closes_in_a_while,
        f"{GSO}.close",
        on_net(endpoints.TestAClosedEndpoint().test_receives_nothing_of_what_had_come_already),
        "assert inbox.received == []",
    ),
    (
        bugs.tells_nobody,
        f"{RUNTIME}.sockets.port_holder",
        on_net(an_address.test_that_is_taken_is_refused_with_the_name_of_who_has_it),
        'assert f"UDP port {port} on {LOCALHOST} is taken by pid {os.getpid()}',
    ),
    (
        bugs.FOR_EVER,
        f"{RUNTIME}.gso_endpoint.BURST_MAX",
        on_net(endpoints.TestAFlood().test_leaves_the_loop_its_turns),
        "assert max(after - before for before, after in pairwise(seen)) <= most",
    ),
    (
        bugs.sends_through,
        f"{FAULTY}.FaultyEndpoint.send",
        on_radio(network.TestADatagram().test_passes_the_faults_of_its_senders_links_too),
        'assert heard(radio) == {"n1": "23", "n2": "3", "n3": "12"}',
    ),
    (
        bugs.sends_what_its_timer_was_set_for,
        f"{FAULTY}.FaultyEndpoint.send",
        on_bad_links(
            bad_links.test_keep_the_order_though_setting_a_timer_takes_time,
            "wire",
            "links",
            "hands",
        ),
        "assert wire.datagrams == sent",
    ),
    (
        bugs.runs_links_by_the_nodes_clock,
        f"{RUNTIME}.clock.Clock.true_now",
        on_bad_links(
            bad_links.test_are_as_slow_for_a_node_whose_clock_is_fast,
            "faulty",
            "links",
            "hands",
            "later",
        ),
        "assert later.delays == [1.0, 1.5] # the link is free at 1.0, and takes",
    ),
    (
        bugs.looks_at_the_port_alone,
        f"{RUNTIME}.sockets._as_in_proc",
        of_real_things(
            lambda _: endpoints.TestTheHolderOfAPort().test_is_that_of_the_same_address()
        ),
        'assert f"pid {',  # of the one holder or of the other: whose socket /proc lists first
    ),
    # threads
    (
        bugs.RunsTheLastFirst,
        THREADS,
        with_threads(any_executor.test_runs_calls_in_order_one_behind_the_other),
        "assert story.ran == story.results == list(range(100))",
    ),
    (
        bugs.ForgetsAtTheEnd,
        THREADS,
        on_loop(threads.test_ends_with_all_that_was_begun_or_waits),
        "assert story.ran == [0, 1, 2]",
    ),
    (
        bugs.AnswersInTheThread,
        THREADS,
        with_threads(any_executor.test_answers_on_the_loop_and_not_before_submit_has_returned),
        "assert threads == {threading.get_ident()}",
    ),
    (
        bugs.LosesErrors,
        THREADS,
        with_threads(any_executor.test_answers_each_call_once_with_what_it_returned_or_raised),
        "assert story.answers == [(1, None), (None, error), (2, None), (None,",
    ),
    (
        bugs.ForgetsWhatItHasBegun,
        f"{SIMULATED}.VirtualExecutor",
        with_threads(
            any_executor.test_runs_what_was_submitted_when_it_is_closed, executors.Virtual
        ),
        "assert story.ran == list(range(5))",
    ),
    (
        bugs.NeverOnTheLoop,
        THREADS,
        on_loop(place.test_on_the_loop_again_after_a_pause),
        'assert await where(disk, watch) == "loop"',
    ),
    (
        bugs.NeverInTheThread,
        THREADS,
        on_loop(place.test_in_the_thread_for_a_hundred_times_as_long_as_the_loop_was_blocked),
        "assert await where(disk, watch) == place",
    ),
    (
        bugs.never_sleeps,
        f"{RUNTIME}.busy_poll.BusyPoll._spin",
        with_spin(spin.test_looks_again_until_its_time_is_over_and_gives_way_at_each_idle_look),
        "assert now.yields == 4",
    ),
    (
        bugs.does_nothing,
        f"{RUNTIME}.busy_poll.BusyPoll.stop",
        with_spin(spin.test_stops_at_once_and_for_good),
        "assert loop.run() == 0",
    ),
    # logs, files, tasks
    (
        bugs.FlushesEachLine,
        EVENTS,
        with_log(logs.TestABatch().test_is_written_once_a_while_however_many_lines_there_are),
        "assert log.batches == []",
    ),
    (
        bugs.CountsAnewEachBatch,
        EVENTS,
        with_log(logs.TestABatch().test_is_counted_without_gaps),
        "assert log.sequence() == list(range(10))",
    ),
    (
        bugs.FlushesOnlyOnce,
        EVENTS,
        with_log(logs.TestABatch().test_is_followed_by_another),
        "assert log.later.delays == [FLUSH_S]",
    ),
    (
        bugs.DropsWithoutAWord,
        EVENTS,
        with_log(logs.TestASinkThatFails().test_has_the_oldest_lines_dropped_and_counted),
        "assert told is not None",
    ),
    (
        bugs.keeps_what_it_has_written,
        f"{RUNTIME}.runtime._LogFile.write",
        of_real_things(real_log.test_has_each_line_once_though_the_disk_was_full_at_first),
        'assert kinds == ["a.b", "a.c", "a.d"]',
    ),
    (
        bugs.does_nothing,
        f"{RUNTIME}.config._refuse_twins",
        of_mistake("two at an address"),
        "with pytest.raises(ConfigError) as caught:",
    ),
    (
        bugs.does_nothing,
        f"{RUNTIME}.config._refuse_twins",
        of_mistake("two of a name"),
        "with pytest.raises(ConfigError) as caught:",
    ),
    (
        bugs.says_nothing,
        f"{TASKS}._task_ended",
        with_node(failing.test_is_fatal_and_an_event),
        "assert node.fatal == [error]",
    ),
    (
        bugs.cancels_and_leaves,
        f"{TASKS}.cancel_tasks",
        with_node(cancelling.test_ends_each_and_waits_for_its_end),
        "assert sorted(order) == [0, 1, 2]",
    ),
    (
        bugs.cancels_once,
        f"{TASKS}.cancel_tasks",
        with_node(cancelling.test_ends_what_a_task_spawns_at_its_end),
        "assert late[0].cancelled()",
    ),
]


def _id(value: object) -> str:
    name = getattr(value, "__name__", "")
    return "" if isinstance(value, str) else name.strip("<>")


@pytest.mark.parametrize(("bug", "where", "judge", "by"), ZOO, ids=_id)
def test_the_bug_is_caught(bug, where, judge, by, monkeypatch, tmp_path):
    with monkeypatch.context() as planted:
        planted.setattr(where, bug)
        with caught(by):
            judge(tmp_path)


@pytest.mark.parametrize(
    "judge", [judge for _, _, judge, _ in ZOO], ids=[_id(bug) for bug, *_ in ZOO]
)
def test_the_judge_has_nothing_against_the_original(judge, tmp_path):
    judge(tmp_path)
