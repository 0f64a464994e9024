"""Classic bugs of Raft, each one method of the core that does a little too much or too little."""

from __future__ import annotations

from dataclasses import replace

from raftd import messages as m
from raftd.core import CANDIDATE, FOLLOWER, Raft
from raftd.leader import Leader
from raftd.log import RaftLog
from raftd.membership import Membership
from raftd.outputs import Apply
from raftd.progress import PROBE, Progress
from raftd.quorum import committed_index, has_majority

# -- terms and votes


class VotesTwice(Raft):
    def _on_vote_request(self, source, request):
        self.vote = None
        super()._on_vote_request(source, request)


class ForgetsToSaveItsVote(Raft):
    def _take_persist(self):
        persist = super()._take_persist()
        if persist is None or persist.hard_state is None:
            return persist
        return persist._replace(hard_state=replace(persist.hard_state, vote=None))


class AnswersBeforeItsDisk(Raft):
    promise = Raft.send


class IgnoresTermsOfReplies(Raft):
    def receive(self, message, source, now):
        if message.term > self.term and type(message).__name__.endswith("Reply"):
            return
        super().receive(message, source, now)


class CountsVotesOfThePast(Raft):
    def receive(self, message, source, now):
        if type(message) is m.VoteReply and not message.pre:
            message = message._replace(term=self.term)
        super().receive(message, source, now)


class ObeysLeadersOfThePast(Raft):
    def receive(self, message, source, now):
        if type(message) in (m.AppendEntries, m.Heartbeat) and self.role == FOLLOWER:
            message = message._replace(term=max(message.term, self.term))
        super().receive(message, source, now)


class StandsAgainstItsLeader(Raft):
    """A candidate goes on although another has won."""

    def _heard_from_leader(self, source):
        if self.role != "candidate":
            super()._heard_from_leader(source)


class ForgetsTheTimerWhenItVotes(Raft):
    def _on_vote_request(self, source, request):
        due = self._election_at
        super()._on_vote_request(source, request)
        self._election_at = due


class AlwaysWaitsAsLong(Raft):
    def _reset_election_timer(self):
        self._election_at = self.now + self.options.election_timeout_s[0]


class VotesForAnyLog(RaftLog):
    def is_up_to_date(self, last_index, last_term):
        return True


class VotesForTheLongestLog(RaftLog):
    def is_up_to_date(self, last_index, last_term):
        return last_index >= self.last_index


class LeadsBeforeItsVoteIsDurable(Raft):
    def campaign(self, *, pre, forced=False):
        super().campaign(pre=pre, forced=forced)
        if self.role == CANDIDATE:
            self.votes[self.name] = True
            self._count_votes()


# -- replication and commitment


class CommitsOldTermsByCounting(Leader):
    def _advance_commit(self):
        raft, members = self._raft, self._raft.membership
        held = min(committed_index(members.voters, self._match), raft.log.last_index)
        if held < self.first_index:
            raft.advance_commit(max(held, raft.commit))
        super()._advance_commit()


class CountsItselfBeforeItsDisk(Leader):
    def _match(self, name):
        return self._raft.log.last_index if name == self._raft.name else super()._match(name)


class TruncatesOnAStaleAppend(Raft):
    def _skip_what_agrees(self, entries):
        fresh = super()._skip_what_agrees(entries)
        if entries and not fresh and entries[-1].index < self.log.last_index:
            self._truncate(max(entries[-1].index, self.commit) + 1)
        return fresh


class KeepsWhatConflicts(Raft):
    def _skip_what_agrees(self, entries):
        return [entry for entry in entries if entry.index > self.log.last_index]


class LooksAtTheIndexOnly(Raft):
    def _on_append(self, source, message):
        have = self.log.term_at(message.prev_index)
        if have is not None:
            message = message._replace(prev_term=have)
        super()._on_append(source, message)


class AppliesWhatIsNotCommitted(Raft):
    def _on_append(self, source, message):
        super()._on_append(source, message)
        self.advance_commit(self.log.last_index)


class CommitsBehindTheLastNewEntry(Raft):
    def _on_append(self, source, message):
        super()._on_append(source, message)
        self.advance_commit(min(message.commit, self.log.last_index))


class CommitsBeyondItsLog(Raft):
    def _on_heartbeat(self, source, message):
        self.advance_commit(message.commit)
        super()._on_heartbeat(source, message)


class TellsEverybodyTheSameCommit(Leader):
    def _heartbeat(self):
        known = {name: progress.match_index for name, progress in self.progress.items()}
        for one in self.progress.values():
            one.match_index = self._raft.commit
        super()._heartbeat()
        for name, match in known.items():
            self.progress[name].match_index = match


class AppliesTwice(Raft):
    def take_outputs(self):
        outputs = super().take_outputs()
        return [*outputs, *(output for output in outputs if type(output) is Apply)]


class SaysNothingAtFirst(Leader):
    """No empty entry of its own: what was before is committed some day."""

    def begin(self):
        self._heartbeat()


class StepsBackBelowOne(Progress):
    def refused(self, prev_index, next_index):
        self.next_index, self.paused = min(prev_index, next_index) - 1, False
        return True


class StepsBackOneAtATime(Progress):
    def refused(self, prev_index, next_index):
        return super().refused(prev_index, prev_index)


class BelievesEveryRefusal(Progress):
    def refused(self, prev_index, next_index):
        self.match_index = min(self.match_index, max(0, next_index - 1))
        return super().refused(prev_index, next_index)


class ForgetsItsWindow(Progress):
    def may_send(self, max_inflight):
        return self.state != PROBE or not self.paused


class NeverTriesAgain(Leader):
    def _on_heartbeat_reply(self, source, progress, reply):
        progress.advanced_at = self._raft.now
        super()._on_heartbeat_reply(source, progress, reply)


# -- reads and office


class ReadsWithoutAsking(Leader):
    def read(self, token, source):
        self._answer_read(token, source, self._raft.commit)


class ReadsBeforeItsFirstCommit(Leader):
    def read(self, token, source):
        first, self.first_index = self.first_index, 0
        super().read(token, source)
        self.first_index = first


class ConfirmsReadsByOldAnswers(Leader):
    def read(self, token, source):
        super().read(token, source)
        self._reads = [(self._context, *rest) for _, *rest in self._reads]


class LeadsOnAlone(Leader):
    def on_deadline(self):
        for one in self.progress.values():
            one.heard_at = self._raft.now
        super().on_deadline()


class RaisesItsTermForAPreVote(Raft):
    def campaign(self, *, pre, forced=False):
        super().campaign(pre=pre, forced=forced)
        self.term += pre


class IsBoundByAPreVote(Raft):
    def _on_vote_request(self, source, request):
        super()._on_vote_request(source, request)
        if request.pre:
            self.vote = source


class ListensToEveryCandidate(Raft):
    def _must_not_vote(self, request):
        return False


class ForgetsLeasesInANewTerm(Raft):
    def _must_not_vote(self, request):
        return request.term > self.term and super()._must_not_vote(request)


class KeepsItsLeaseWhenItHandsOver(Leader):
    def _has_lease(self):
        self._handed_over = False
        return super()._has_lease()


class HandsOverTooEarly(Leader):
    def transfer(self, to):
        super().transfer(to)
        self._raft.send(to, m.TimeoutNow(self._raft.term))


# -- membership and snapshots


def needs_the_new_majority_only(voters, outgoing, match):
    return committed_index(voters, match)


def is_elected_by_the_new_majority_only(voters, outgoing, members):
    return has_majority(voters, members)


class CountsLearners(Leader):
    def _advance_commit(self):
        raft = self._raft
        index, members = raft._memberships[-1]
        raft._memberships[-1] = index, replace(members, voters=members.everyone)
        super()._advance_commit()
        if raft._memberships[-1][0] == index:
            raft._memberships[-1] = index, members


class CountsItselfWhenRemoved(Leader):
    def _match(self, name):
        names = self._raft.membership.voters
        held = super()._match(name)
        lowest = self._raft.name not in names and name == names[-1]
        return max(held, self._durable_index) if lowest else held


class WaitsForTheCommitOfAChange(Raft):
    commit = 0  # while it starts

    def __init__(self, *given, **named):
        super().__init__(*given, **named)
        super()._note_memberships(self.log.slice(self.log.snapshot_index + 1, self.commit))

    def _note_memberships(self, entries):
        super()._note_memberships([entry for entry in entries if entry.index <= self.commit])

    def advance_commit(self, index):
        known = self.commit
        super().advance_commit(index)
        if index > known:
            super()._note_memberships(self.log.slice(known + 1, index))


class KeepsAnOverwrittenConfiguration(Raft):
    def _truncate(self, index):
        known = list(self._memberships)
        super()._truncate(index)
        self._memberships = known


class ChangesTwiceAtOnce(Leader):
    def change_membership(self, wanted):
        raft = self._raft
        kept, raft.commit = raft.commit, raft.log.last_index
        try:
            return super().change_membership(wanted)
        finally:
            raft.commit = kept


class SnapshotsWithoutTheMembership(Raft):
    def membership_at(self, index):
        return self._memberships[0][1]


class InstallsWithoutTheMembership(Raft):
    def _on_install_snapshot(self, source, message):
        packed = Membership().pack()
        super()._on_install_snapshot(source, message._replace(membership=packed))


class InstallsOldSnapshots(Raft):
    def _on_install_snapshot(self, source, message):
        self.commit = self._handed = self.log.snapshot_index
        super()._on_install_snapshot(source, message)


class DiscardsWhatFollowsASnapshot(Raft):
    def _on_install_snapshot(self, source, message):
        self.log.truncate_from(self.commit + 1)
        super()._on_install_snapshot(source, message)


class ForgetsTheSnapshotsTerm(RaftLog):
    def __init__(self, entries=(), snapshot_index=0, snapshot_term=0):
        super().__init__(entries, snapshot_index, 0)
