"""Planted bugs of the consensus core, the classics of the field, and the test that catches each.

A judge is a test of tests/unit/raftd, one of its transcripts, or a hostile world of
tests/simulation. Where nothing is planted it passes; here it must fail.
"""

from __future__ import annotations

import importlib
import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import raft_core_bugs as bugs
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from raftd import core
from raftd import messages as m

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "unit" / "raftd"), str(TESTS / "simulation")]
paper = importlib.import_module("test_raft_paper")
compaction = importlib.import_module("test_raft_compaction")
reads = importlib.import_module("test_raft_reads")
office = importlib.import_module("test_raft_office")
membership = importlib.import_module("test_membership")
progress = importlib.import_module("test_progress")
transcripts = importlib.import_module("test_transcripts")
scenarios = importlib.import_module("test_raft_core_scenarios")

CoreCluster, FAST = scenarios.CoreCluster, scenarios.FAST

CAUGHT = (AssertionError, pytest.fail.Exception)

HANDLERS = tuple(core._HANDLERS.items())

# A bug that needs more worlds than this to show has to be caught by a test of its own.
WORLDS = 40


def a_hostile_world() -> None:
    for seed in range(WORLDS):
        scenarios.hostile(seed)


def slow_disks(seed: int) -> None:
    """Crashes of several at once, while what they wrote is still on its way to the disk."""
    dice = random.Random(seed)
    names = ("n1", "n2", "n3")
    cluster = CoreCluster(seed, names=names, options=replace(FAST, keep_entries=0))
    cluster.disk_delay = (0.0005, dice.choice((0.02, 0.06, 0.12)))
    cluster.delay = (0.0002, dice.choice((0.001, 0.02)))
    for step in range(120):
        cluster.run(dice.choice((0.005, 0.02, 0.1, 0.3)) * dice.random())
        for name in names:
            cluster.propose(b"%d" % step, at=name)
        cluster.run(0.03 * dice.random())
        fate = dice.random()
        if fate < 0.3:
            for name in dice.sample(names, dice.randint(1, 3)):
                cluster.crash(name)
        if fate < 0.5:
            for name in dice.sample(names, dice.randint(1, 3)):
                cluster.restart(name)
        elif fate < 0.6:
            cluster.isolate(dice.choice(names))
        elif fate < 0.75:
            cluster.cut = set()
        elif fate < 0.9:
            cluster.snapshot(dice.choice(names))
    cluster.converge()
    cluster.agree(b"final", expect=3)


def a_world_of_slow_disks() -> None:
    for seed in range(WORLDS):
        slow_disks(seed)


def over_a_bad_wire() -> None:
    finding_is_enough = settings(
        progress.BadWire.TestCase.settings,
        max_examples=300,
        derandomize=True,
        phases=(Phase.generate,),
    )
    run_state_machine_as_test(progress.BadWire, settings=finding_is_enough)


def transcript(name: str):
    def judge() -> None:
        transcripts.judge(transcripts.FOLDER / f"{name}.txt")

    judge.__name__ = f"{name}.txt"
    return judge


RAFT = ("core_kit.Raft", "core_cluster.Raft")
LEADER = ("raftd.core.Leader",)
LOG = ("raftd.core.RaftLog",)
PROGRESS = ("raftd.leader.Progress", "test_progress.Progress")
ZOO = {
    (bugs.VotesTwice, RAFT): [
        paper.test_a_server_votes_for_at_most_one_candidate_in_a_term,
        paper.test_a_candidate_votes_for_itself_and_for_nobody_else,
        transcript("split_vote"),
        a_hostile_world,
    ],
    (bugs.ForgetsToSaveItsVote, RAFT): [
        paper.test_a_restarted_server_remembers_term_vote_and_log,
        paper.test_term_and_vote_are_on_stable_storage_before_the_server_responds,
    ],
    (bugs.AnswersBeforeItsDisk, RAFT): [
        paper.test_term_and_vote_are_on_stable_storage_before_the_server_responds,
        paper.test_a_candidates_own_vote_is_on_stable_storage_before_it_asks_for_others,
        paper.test_entries_are_on_stable_storage_before_they_are_acknowledged,
        compaction.test_a_snapshot_is_acknowledged_when_it_is_on_stable_storage,
        transcript("slow_disk"),
        a_world_of_slow_disks,
    ],
    (bugs.LeadsBeforeItsVoteIsDurable, RAFT): [
        office.test_nobody_leads_the_same_term_twice,
    ],
    (bugs.IgnoresTermsOfReplies, RAFT): [transcript("disruption")],
    (bugs.CountsVotesOfThePast, RAFT): [paper.test_a_vote_of_an_earlier_election_does_not_count],
    (bugs.ObeysLeadersOfThePast, RAFT): [
        paper.test_a_request_with_a_stale_term_is_answered_with_the_current_one,
        paper.test_a_leader_of_the_past_does_not_restart_the_election_timer,
        a_hostile_world,
    ],
    (bugs.StandsAgainstItsLeader, RAFT): [
        lambda: paper.test_a_candidate_that_hears_a_leader_of_its_term_becomes_its_follower(
            m.Heartbeat(7, 0, 1)
        ),
    ],
    (bugs.ForgetsTheTimerWhenItVotes, RAFT): [
        paper.test_granting_a_vote_restarts_the_election_timer_and_refusing_one_does_not
    ],
    (bugs.AlwaysWaitsAsLong, RAFT): [
        lambda: paper.test_election_timeouts_are_random_and_drawn_anew(paper.Desk)
    ],
    (bugs.VotesForAnyLog, LOG): [
        lambda: paper.test_figure_8(True),
        lambda: paper.test_a_voter_refuses_a_candidate_whose_log_is_less_up_to_date(
            "2", "1/1", False
        ),
        transcript("figure_8_e"),
        a_hostile_world,
    ],
    (bugs.VotesForTheLongestLog, LOG): [
        lambda: paper.test_a_voter_refuses_a_candidate_whose_log_is_less_up_to_date(
            "2", "2/1", False
        ),
        transcript("figure_8_e"),
    ],
    (bugs.CommitsOldTermsByCounting, LEADER): [
        paper.test_only_entries_of_the_leaders_current_term_are_committed_by_counting_replicas,
        transcript("figure_8"),
    ],
    (bugs.CountsItselfBeforeItsDisk, LEADER): [
        paper.test_a_leaders_own_copy_counts_when_its_disk_has_it_and_not_before,
        transcript("slow_disk"),
        a_world_of_slow_disks,
    ],
    (bugs.TruncatesOnAStaleAppend, RAFT): [paper.test_an_append_of_long_ago_truncates_nothing],
    (bugs.KeepsWhatConflicts, RAFT): [
        paper.test_a_leader_brings_every_follower_of_figure_7_to_its_own_log,
        transcript("conflicting_logs"),
        a_hostile_world,
    ],
    (bugs.LooksAtTheIndexOnly, RAFT): [
        lambda: paper.test_a_follower_refuses_entries_unless_it_has_the_one_before_them(
            "1/2", False
        ),
        transcript("conflicting_logs"),
        a_hostile_world,
    ],
    (bugs.AppliesWhatIsNotCommitted, RAFT): [
        paper.test_a_follower_learns_from_the_leader_what_is_committed,
        transcript("replication"),
        a_hostile_world,
    ],
    (bugs.CommitsBehindTheLastNewEntry, RAFT): [
        paper.test_a_follower_commits_no_further_than_the_last_entry_it_was_sent
    ],
    (bugs.CommitsBeyondItsLog, RAFT): [
        paper.test_a_follower_commits_no_further_than_the_last_entry_it_was_sent
    ],
    (bugs.TellsEverybodyTheSameCommit, LEADER): [
        paper.test_a_heartbeat_names_no_more_as_committed_than_its_receiver_is_known_to_have,
        a_hostile_world,
    ],
    (bugs.AppliesTwice, RAFT): [
        paper.test_every_server_applies_each_entry_once_and_in_log_order,
        transcript("replication"),
    ],
    (bugs.SaysNothingAtFirst, LEADER): [
        reads.test_a_leader_commits_a_blank_entry_at_the_start_of_its_term,
        a_hostile_world,
    ],
    (bugs.StepsBackBelowOne, PROGRESS): [
        paper.test_next_index_never_falls_below_one,
        progress.test_a_refusal_of_another_probe_changes_nothing,
    ],
    (bugs.StepsBackOneAtATime, PROGRESS): [
        lambda: paper.test_next_index_steps_back_over_a_term_at_a_time("1 " * 9, "", 1),
        transcript("conflicting_logs"),
    ],
    (bugs.BelievesEveryRefusal, PROGRESS): [
        over_a_bad_wire,
    ],
    (bugs.ForgetsItsWindow, PROGRESS): [
        progress.test_no_more_messages_are_under_way_than_the_window_allows,
        progress.test_the_pipeline_runs_ahead_as_far_as_its_window,
    ],
    (bugs.NeverTriesAgain, LEADER): [
        paper.test_a_leader_retries_until_a_follower_has_stored_all_entries,
        progress.test_chunks_that_were_lost_are_sent_again_from_where_the_follower_stands,
        transcript("replication"),
        a_hostile_world,
    ],
    (bugs.ReadsWithoutAsking, LEADER): [
        reads.test_a_leader_exchanges_heartbeats_with_a_majority_before_it_answers_a_read,
        scenarios.TestReads().test_a_leader_that_was_cut_off_confirms_no_read,
        transcript("read_index"),
    ],
    (bugs.ReadsBeforeItsFirstCommit, LEADER): [
        reads.test_a_leader_serves_no_read_before_it_has_committed_an_entry_of_its_term
    ],
    (bugs.ConfirmsReadsByOldAnswers, LEADER): [
        reads.test_answers_to_heartbeats_of_before_a_read_do_not_confirm_it
    ],
    (bugs.LeadsOnAlone, LEADER): [
        office.test_a_leader_steps_down_if_an_election_timeout_passes_without_a_majority,
        scenarios.TestElections().test_no_leader_without_a_majority,
        transcript("check_quorum"),
    ],
    (bugs.RaisesItsTermForAPreVote, RAFT): [
        office.test_the_term_of_a_server_that_is_cut_off_does_not_grow,
        scenarios.TestElections().test_a_node_that_was_cut_off_does_not_unseat_a_good_leader,
        transcript("prevote"),
    ],
    (bugs.IsBoundByAPreVote, RAFT): [office.test_a_pre_vote_binds_nobody],
    (bugs.ListensToEveryCandidate, RAFT): [
        office.test_who_believes_that_a_leader_is_alive_disregards_requests_for_votes,
        membership.test_a_server_that_was_removed_unseats_nobody,
        transcript("prevote"),
    ],
    (bugs.ForgetsLeasesInANewTerm, RAFT): [
        reads.test_who_heard_a_leader_just_now_votes_for_nobody_even_in_a_newer_term
    ],
    (bugs.KeepsItsLeaseWhenItHandsOver, LEADER): [
        reads.test_a_leader_that_hands_over_gives_up_its_lease
    ],
    (bugs.HandsOverTooEarly, LEADER): [
        office.test_the_target_is_brought_up_to_date_first_and_then_told_to_stand,
        transcript("transfer"),
    ],
    (bugs.needs_the_new_majority_only, ("raftd.leader.joint_committed_index",)): [
        lambda: membership.test_while_joint_a_decision_needs_a_majority_of_both("n4 n5", False),
        lambda: membership.test_while_joint_a_read_needs_a_majority_of_both("n4 n5", "n2"),
    ],
    (bugs.is_elected_by_the_new_majority_only, ("raftd.quorum.has_joint_majority",)): [
        lambda: membership.test_while_joint_an_election_needs_a_majority_of_both("n4 n5", False),
        lambda: membership.test_while_joint_an_office_needs_a_majority_of_both(
            "n4 n5", "n2", False
        ),
    ],
    (bugs.CountsLearners, LEADER): [membership.test_a_learner_gets_the_log_and_has_no_say],
    (bugs.CountsItselfWhenRemoved, LEADER): [
        membership.test_a_leader_that_is_removed_leads_until_the_change_is_committed,
        transcript("leader_removed"),
    ],
    (bugs.WaitsForTheCommitOfAChange, RAFT): [
        membership.test_a_server_uses_the_newest_configuration_in_its_log_committed_or_not,
        transcript("membership"),
    ],
    (bugs.KeepsAnOverwrittenConfiguration, RAFT): [
        membership.test_a_configuration_that_is_overwritten_gives_way_to_the_one_before
    ],
    (bugs.ChangesTwiceAtOnce, LEADER): [
        membership.test_one_change_is_finished_before_the_next_begins,
        membership.test_only_a_leader_that_has_committed_something_changes_the_configuration,
    ],
    (bugs.SnapshotsWithoutTheMembership, RAFT): [
        membership.test_a_snapshot_carries_the_configuration_of_its_last_entry
    ],
    (bugs.InstallsWithoutTheMembership, RAFT): [
        membership.test_a_snapshot_carries_the_configuration_of_its_last_entry,
    ],
    (bugs.InstallsOldSnapshots, RAFT): [
        compaction.test_an_older_snapshot_or_one_of_an_older_leader_is_not_installed
    ],
    (bugs.DiscardsWhatFollowsASnapshot, RAFT): [
        compaction.test_a_committed_entry_outlives_a_snapshot_that_comes_late
    ],
    (bugs.ForgetsTheSnapshotsTerm, LOG): [
        compaction.test_the_consistency_check_works_right_behind_the_snapshot,
        a_hostile_world,
    ],
}
CASES = [(bug, where, judge) for (bug, where), judges in ZOO.items() for judge in judges]


def _id(value: object) -> str:
    return "" if isinstance(value, tuple) else value.__name__.strip("<>")


def test_the_honest_core_comes_through_slow_disks():
    a_world_of_slow_disks()


@pytest.mark.parametrize(("bug", "where", "judge"), CASES, ids=_id)
def test_the_bug_is_caught(bug, where, judge, monkeypatch):
    with monkeypatch.context() as planted:
        for place in where:
            planted.setattr(place, bug)
        if where is RAFT:  # messages reach their handlers by a table, not by a method's name
            planted.setattr(core, "_HANDLERS", {k: getattr(bug, h.__name__) for k, h in HANDLERS})
        with pytest.raises(CAUGHT):
            judge()
