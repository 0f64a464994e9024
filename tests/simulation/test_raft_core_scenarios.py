"""Cores under a hostile network, after the scenarios of the MIT 6.5840 Raft labs; the judge of
core_cluster checks figure 3 after every step."""

from __future__ import annotations

import random

import pytest
from core_cluster import FAST, CoreCluster

from raftd.errors import RaftError

FIVE = ("n1", "n2", "n3", "n4", "n5")


class TestElections:
    def test_initial_election(self):
        cluster = CoreCluster(seed=1)
        leader = cluster.elect()
        cluster.run(2.0)
        assert cluster.leader() == leader
        assert {n.raft.term for n in cluster.live} == {1}

    def test_re_election(self):
        cluster = CoreCluster(seed=2)
        first = cluster.elect()
        cluster.isolate(first)
        cluster.run(1.0, lambda: cluster.leader() not in (None, first))
        second = cluster.ready() or cluster.elect()
        assert second != first
        cluster.heal()
        cluster.run(1.0)
        assert cluster.nodes[first].raft.role == "follower"
        assert cluster.leader() == second

    def test_many_elections(self):
        cluster = CoreCluster(seed=3, names=tuple(f"n{i}" for i in range(1, 8)))
        cluster.elect()
        for _ in range(10):
            cut = cluster.rng.sample(sorted(cluster.nodes), 3)
            cluster.partition(cut, [n for n in cluster.nodes if n not in cut])
            assert cluster.run(2.0, lambda: cluster.ready() is not None)
            cluster.heal()
        cluster.converge()

    def test_no_leader_without_a_majority(self):
        cluster = CoreCluster(seed=4)
        leader = cluster.elect()
        for name in cluster.nodes:
            if name != leader:
                cluster.crash(name)
        cluster.run(2.0)
        assert cluster.leader() is None  # CheckQuorum: it has stepped down
        cluster.converge()

    def test_a_node_that_was_cut_off_does_not_unseat_a_good_leader(self):
        """PreVote: its term has not grown meanwhile."""
        cluster = CoreCluster(seed=5)
        leader = cluster.elect()
        other = next(n for n in cluster.nodes if n != leader)
        cluster.isolate(other)
        cluster.run(5.0)
        cluster.heal()
        cluster.run(2.0)
        assert cluster.leader() == leader
        assert cluster.nodes[leader].raft.term == 1

    def test_electing_and_idling_cost_few_messages(self):
        """The labs' bound: 30 to elect, 60 requests in an idle second for three servers."""
        cluster = CoreCluster(seed=6)
        cluster.elect()
        assert sum(cluster.messages.values()) <= 30
        cluster.messages.clear()
        cluster.run(1.0)
        assert sum(cluster.messages.values()) <= 2 * 60


class TestAgreement:
    def test_basic_agree(self):
        cluster = CoreCluster(seed=1)
        cluster.elect()
        indices = [cluster.agree(b"%d" % i, expect=3) for i in range(10)]
        assert indices == list(range(indices[0], indices[0] + 10))

    def test_each_command_is_sent_to_each_follower_once(self):
        cluster = CoreCluster(seed=2)
        cluster.elect()
        sent = []
        original = cluster.send
        cluster.send = lambda s, t, m: (
            sent.extend((t, e.index) for e in getattr(m, "entries", ())),
            original(s, t, m),
        )
        for i in range(50):
            cluster.propose(b"x" * 100, b"%d" % i)
            cluster.run(0.01)
        cluster.run(1.0)
        assert len(sent) == len(set(sent)) == 2 * 100

    def test_follower_failure_and_rejoin(self):
        cluster = CoreCluster(seed=3)
        leader = cluster.elect()
        followers = [n for n in cluster.nodes if n != leader]
        cluster.crash(followers[0])
        cluster.agree(b"a")
        cluster.crash(followers[1])
        assert cluster.propose(b"b") is not None
        committed = cluster.max_committed
        cluster.run(0.1)
        assert cluster.max_committed == committed
        cluster.converge()
        cluster.agree(b"c", expect=3)
        assert cluster.commands("n1") == cluster.commands("n2") == cluster.commands("n3")

    def test_backup_over_many_conflicting_entries_is_quick(self):
        """Fast backtracking (§5.3): a term a round trip, not an entry."""
        cluster = CoreCluster(seed=4, names=FIVE)
        leader = cluster.elect()
        partner = next(n for n in FIVE if n != leader)
        rest = [n for n in FIVE if n not in (leader, partner)]
        cluster.partition([leader, partner], rest)
        for i in range(50):
            cluster.propose(b"lost %d" % i, at=leader)
        cluster.run(2.0, lambda: cluster.leader() in rest)
        for i in range(50):
            cluster.agree(b"kept %d" % i, expect=3)
        cluster.messages.clear()
        cluster.heal()
        cluster.run(1.0)
        assert len({n.raft.log.last_index for n in cluster.live}) == 1
        assert 2 <= cluster.messages["AppendReply"] < 30
        cluster.converge()
        assert not any(c.startswith(b"lost") for c in cluster.commands(leader))

    def test_a_follower_behind_the_log_gets_a_snapshot(self):
        cluster = CoreCluster(seed=5, options=FAST)
        leader = cluster.elect()
        behind = next(n for n in cluster.nodes if n != leader)
        cluster.crash(behind)
        for i in range(60):
            cluster.agree(b"%d" % i)
        cluster.snapshot(leader)
        cluster.restart(behind)
        cluster.converge()
        assert cluster.messages["InstallSnapshot"] > 1
        assert cluster.commands(behind) == cluster.commands(leader)


class TestCrashes:
    @pytest.mark.parametrize("seed", range(3))
    def test_figure_8(self, seed):
        """Leaders crash with entries half-way; what was committed must never change."""
        cluster = CoreCluster(seed=seed, names=FIVE)
        dice = random.Random(seed)
        cluster.elect()
        for i in range(150):
            for name in FIVE:
                cluster.propose(b"%d" % i, at=name)
            cluster.run(dice.uniform(0, 0.15) if dice.random() < 0.1 else dice.uniform(0, 0.013))
            leader = cluster.leader()
            if leader is not None and dice.random() < 0.5:
                cluster.crash(leader)
            if len(cluster.live) < 3:
                dead = [n for n in FIVE if cluster.nodes[n].raft is None]
                cluster.restart(dice.choice(dead))
        cluster.converge()
        cluster.agree(b"final", expect=5)

    def test_everything_at_once_again_and_again(self):
        cluster = CoreCluster(seed=7)
        kept = []
        for i in range(10):
            cluster.agree(b"%d" % i)
            kept.append(b"%d" % i)
            for name in cluster.nodes:
                cluster.crash(name)
            for name in cluster.nodes:
                cluster.restart(name)
        cluster.converge()
        # At least once here; exactly once is the business of the sessions above.
        assert list(dict.fromkeys(cluster.commands("n1"))) == kept


class TestReads:
    def read(self, cluster: CoreCluster, name: str, token: int):
        cluster.nodes[name].raft.read_index(token, cluster.now)
        cluster.drain(name)
        cluster.run(1.0, lambda: token in cluster.reads or token in cluster.failed_reads)
        return cluster.reads.get(token)

    def test_a_leader_reads_at_its_commit_index(self):
        cluster = CoreCluster(seed=1)
        leader = cluster.elect()
        cluster.agree(b"x")
        assert self.read(cluster, leader, 1) == (leader, cluster.nodes[leader].raft.commit)

    def test_a_follower_asks_its_leader(self):
        cluster = CoreCluster(seed=2)
        leader = cluster.elect()
        cluster.agree(b"x")
        follower = next(n for n in cluster.nodes if n != leader)
        assert self.read(cluster, follower, 2) == (follower, cluster.nodes[leader].raft.commit)

    def test_a_leader_that_was_cut_off_confirms_no_read(self):
        cluster = CoreCluster(seed=3)
        leader = cluster.elect()
        cluster.isolate(leader)
        assert self.read(cluster, leader, 3) is None

    def test_a_paused_leader_confirms_no_read_with_old_answers(self):
        """etcd#20418: replies to heartbeats of before the pause arrive after it."""
        cluster = CoreCluster(seed=4)
        leader = cluster.elect()
        cluster.delay = (0.02, 0.03)
        cluster.run(0.1)
        cluster.nodes[leader].paused = True
        cluster.run(
            2.0, lambda: cluster.leader() != leader and cluster.ready() not in (None, leader)
        )
        other = cluster.ready()
        assert other not in (None, leader)
        cluster.agree(b"newer")
        committed = cluster.max_committed
        cluster.nodes[leader].paused = False
        cluster.nodes[leader].raft.read_index(9, cluster.now)
        cluster.drain(leader)
        cluster.run(0.5)
        if 9 in cluster.reads:  # if it was answered, then by way of the new leader
            assert cluster.reads[9][1] >= committed
        assert cluster.nodes[leader].raft.role == "follower"


class TestMembership:
    def change(self, cluster: CoreCluster, wanted) -> None:
        leader = cluster.elect()
        cluster.nodes[leader].raft.change_membership(wanted, cluster.now)
        cluster.drain(leader)

    def settled(self, cluster: CoreCluster, voters: set[str]) -> bool:
        leader = cluster.ready()
        if leader is None:
            return False
        raft = cluster.nodes[leader].raft
        return (
            set(raft.membership.voters) == voters
            and not raft.membership.joint
            and raft.membership_index <= raft.commit
        )

    def test_three_grow_to_five_and_shrink_again(self):
        cluster = CoreCluster(seed=1, joiners=("n4", "n5"))
        leader = cluster.elect()
        for i in range(30):
            cluster.agree(b"%d" % i)
        membership = cluster.nodes[leader].raft.membership
        newcomers = {"n4": ("127.0.0.1", 1), "n5": ("127.0.0.1", 2)}
        self.change(cluster, membership.adding(newcomers))
        assert cluster.run(5.0, lambda: self.settled(cluster, set(FIVE))), cluster.describe()
        cluster.agree(b"with five", expect=5)
        leader = cluster.elect()
        self.change(cluster, cluster.nodes[leader].raft.membership.removing(["n1", "n2"]))
        assert cluster.run(5.0, lambda: self.settled(cluster, {"n3", "n4", "n5"}))
        cluster.agree(b"with three")

    def test_a_leader_that_is_removed_steps_down_and_disturbs_nobody(self):
        cluster = CoreCluster(seed=2, names=FIVE)
        leader = cluster.elect()
        self.change(cluster, cluster.nodes[leader].raft.membership.removing([leader]))
        rest = set(FIVE) - {leader}
        assert cluster.run(5.0, lambda: self.settled(cluster, rest)), cluster.describe()
        term = cluster.nodes[cluster.leader()].raft.term
        cluster.run(3.0)
        assert cluster.nodes[cluster.leader()].raft.term == term
        assert cluster.nodes[leader].raft.role == "follower"

    def test_a_learner_does_not_count(self):
        cluster = CoreCluster(seed=3, joiners=("n4",))
        leader = cluster.elect()
        cluster.cut = {(a, "n4") for a in cluster.nodes} | {("n4", a) for a in cluster.nodes}
        membership = cluster.nodes[leader].raft.membership
        self.change(cluster, membership.adding({"n4": ("127.0.0.1", 1)}))
        for i in range(100):
            cluster.agree(b"%d" % i)
        assert cluster.nodes[cluster.leader()].raft.membership.learners == ("n4",)
        cluster.heal()
        assert cluster.run(5.0, lambda: self.settled(cluster, {"n1", "n2", "n3", "n4"}))

    def test_one_change_at_a_time(self):
        cluster = CoreCluster(seed=4, joiners=("n4", "n5"))
        leader = cluster.elect()
        raft = cluster.nodes[leader].raft
        self.change(cluster, raft.membership.adding({"n4": ("127.0.0.1", 1)}))
        with pytest.raises(RaftError, match="under way"):
            raft.change_membership(raft.membership, cluster.now)

    @pytest.mark.parametrize("seed", range(10))
    def test_changes_under_crashes(self, seed):
        cluster = CoreCluster(seed=seed, joiners=("n4", "n5"))
        dice = random.Random(seed)
        addresses = {n: ("127.0.0.1", i) for i, n in enumerate(FIVE)}
        for step in range(40):
            cluster.run(dice.uniform(0.02, 0.3))
            leader = cluster.ready()
            if leader is not None:
                raft = cluster.nodes[leader].raft
                outside = [n for n in FIVE if n not in raft.membership.everyone]
                try:
                    if outside and dice.random() < 0.5:
                        wanted = raft.membership.adding({outside[0]: addresses[outside[0]]})
                    else:
                        wanted = raft.membership.removing([dice.choice(raft.membership.everyone)])
                    if len(wanted.voters) >= 2:
                        raft.change_membership(wanted, cluster.now)
                except RaftError:
                    pass
                cluster.drain(leader)
                cluster.propose(b"%d" % step)
            name = dice.choice(FIVE)
            cluster.crash(name) if dice.random() < 0.2 else cluster.restart(name)
        cluster.converge()
        cluster.agree(b"final")


class TestTransfer:
    def test_to_an_up_to_date_node(self):
        cluster = CoreCluster(seed=1)
        leader = cluster.elect()
        target = next(n for n in cluster.nodes if n != leader)
        cluster.agree(b"x", expect=3)
        cluster.nodes[leader].raft.transfer_leadership(target, cluster.now)
        cluster.drain(leader)
        assert cluster.run(0.1, lambda: cluster.leader() == target)

    def test_to_a_dead_node_is_given_up(self):
        cluster = CoreCluster(seed=2)
        leader = cluster.elect()
        target = next(n for n in cluster.nodes if n != leader)
        cluster.crash(target)
        cluster.nodes[leader].raft.transfer_leadership(target, cluster.now)
        cluster.drain(leader)
        assert cluster.propose(b"refused meanwhile") is None
        cluster.run(1.0)
        cluster.agree(b"accepted again")


def hostile(seed: int, make=None) -> None:
    """A random history of faults; raises AssertionError for what must not be."""
    dice = random.Random(seed)
    names = FIVE if seed % 2 else FIVE[:3]
    cluster = CoreCluster(seed, names=names, options=FAST, make=make)
    cluster.loss = 0.1 * (seed % 3 == 0)
    cluster.duplicate = 0.1 * (seed % 4 == 0)
    cluster.delay = (0.0002, 0.03 if seed % 5 == 0 else 0.001)
    cluster.lies = 0.5 * (seed % 7 == 0)  # of who is said to be dead and lives
    count = 0
    for _ in range(120):
        cluster.run(dice.uniform(0.0, 0.15))
        for name in names:
            if dice.random() < 0.5:
                commands = [b"%d" % (count := count + 1) for _ in range(dice.randint(1, 5))]
                cluster.propose(*commands, at=name)
        name, fate = dice.choice(names), dice.random()
        if fate < 0.15:
            cluster.crash(name)
        elif fate < 0.35:
            for other in names:
                if dice.random() < 0.6:
                    cluster.restart(other)
        elif fate < 0.42:
            shuffled = dice.sample(names, len(names))
            half = dice.randint(1, len(names) - 1)
            cluster.partition(shuffled[:half], shuffled[half:])
        elif fate < 0.55:
            cluster.cut = set()
        elif fate < 0.60:
            cluster.nodes[name].paused = True
        elif fate < 0.66:
            for node in cluster.nodes.values():
                node.paused = False
        elif fate < 0.72:
            cluster.snapshot(name)
    cluster.converge()
    cluster.agree(b"final", expect=len(names))


@pytest.mark.parametrize("seed", range(100))
def test_a_hostile_world(seed):
    hostile(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 3000, 100))
def test_a_hostile_world_at_length(seed):
    for one in range(seed, seed + 100):
        hostile(one)
