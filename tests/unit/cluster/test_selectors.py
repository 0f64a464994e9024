"""What `leader`, `minority`, `n1,n3` or `raft:*` select, and what is said when it is nobody."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import USAGE, Usage
from cluster.selectors import WORDS, NodeView, resolve

RNG = random.Random


def cluster(size: int, *, leader: str = "n1", dead: tuple[str, ...] = ()) -> list[NodeView]:
    names = [f"n{i}" for i in range(1, size + 1)]
    return [
        NodeView(name, "raft", "leader" if name == leader else "follower", name not in dead)
        for name in names
    ]


def pick(text: str, nodes: list[NodeView], seed: int = 1) -> list[str]:
    return resolve(text, nodes, RNG(seed))


THREE = cluster(3)
MIXED = [
    NodeView("d1", "dht", "-", True),
    *cluster(3, leader="n2"),
    NodeView("d2", "dht", "-", True),
]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("n2", ["n2"]),
        ("n1,n3", ["n1", "n3"]),
        ("all", ["n1", "n2", "n3"]),
        ("leader", ["n1"]),
        ("followers", ["n2", "n3"]),
        ("leader,followers", ["n1", "n2", "n3"]),
        ("raft:*", ["n1", "n2", "n3"]),
        ("raft:leader", ["n1"]),
        ("raft:n3", ["n3"]),
    ],
)
def test_a_word_means_these_nodes(text, names):
    assert pick(text, THREE) == names


def test_names_come_in_the_order_of_the_topology_and_each_once():
    assert pick("n3, n1,n3", THREE) == ["n1", "n3"]
    assert pick("followers,all,n2", THREE) == ["n1", "n2", "n3"]


def test_a_service_prefix_keeps_to_its_service():
    assert pick("dht:*", MIXED) == ["d1", "d2"]
    assert pick("raft:*", MIXED) == ["n1", "n2", "n3"]
    assert pick("raft:followers", MIXED) == ["n1", "n3"]
    assert set(pick("raft:majority", MIXED)) <= {"n1", "n2", "n3"}
    assert len(pick("raft:majority", MIXED)) == 2


def test_a_follower_is_who_could_follow():
    """Not the peers of a service in which nobody leads."""
    assert pick("followers", MIXED) == ["n1", "n3"]
    leaderless = [NodeView("d1", "dht", "peer", True), *cluster(2, leader="")]
    assert pick("followers", leaderless) == ["n1", "n2"]
    starting = [NodeView("n4", "raft", "-", True), *leaderless]
    assert pick("followers", starting) == ["n4", "n1", "n2"]
    with pytest.raises(Usage, match="there is no follower at the moment"):
        pick("followers", [NodeView("d1", "dht", "peer", True)])


@pytest.mark.parametrize(
    ("size", "minority", "majority"),
    [(1, 1, 1), (2, 1, 2), (3, 1, 2), (4, 1, 3), (5, 2, 3), (7, 3, 4)],
)
def test_a_majority_decides_and_a_minority_leaves_one(size, minority, majority):
    nodes = cluster(size)
    assert len(pick("one", nodes)) == 1
    assert len(pick("minority", nodes)) == minority
    assert len(pick("majority", nodes)) == majority


def test_chance_picks_among_all_of_them_and_a_seed_repeats_itself():
    nodes = cluster(5)
    assert {pick("one", nodes, seed)[0] for seed in range(60)} == {n.name for n in nodes}
    assert pick("minority", nodes, 7) == pick("minority", nodes, 7)


def test_chance_and_roles_pick_none_that_is_down():
    nodes = cluster(5, leader="n4", dead=("n4", "n5"))
    assert pick("followers", nodes) == ["n1", "n2", "n3"]
    for seed in range(30):
        assert not {"n4", "n5"} & set(pick("majority", nodes, seed))
    assert pick("all", nodes) == ["n1", "n2", "n3", "n4", "n5"]
    assert pick("n5", nodes) == ["n5"]


@pytest.mark.parametrize("text", ["n9", "", ",", "n1,", "n1,,n2", "Leader", "nodes", "*"])
def test_an_unknown_word_is_refused_with_all_that_there_is(text):
    with pytest.raises(Usage) as refused:
        pick(text, THREE)
    assert "nodes: n1, n2, n3" in str(refused.value)
    assert all(word in str(refused.value) for word in WORDS)
    assert refused.value.status == USAGE


def test_an_unknown_service_is_refused_with_all_that_there_is():
    with pytest.raises(Usage, match=r"there is no 'torrent' node here; nodes: d1, n1"):
        pick("torrent:*", MIXED)


def test_an_unknown_node_of_a_service_is_answered_with_those_of_the_service():
    with pytest.raises(Usage, match=r"'n1' is no node; nodes: d1, d2;"):
        pick("dht:n1", MIXED)


def test_no_leader_at_the_moment_is_said_so():
    with pytest.raises(Usage, match="there is no leader at the moment"):
        pick("leader", cluster(3, leader="nobody"))
    with pytest.raises(Usage, match="there is no leader at the moment"):
        pick("leader", cluster(3, leader="n1", dead=("n1",)))


def test_too_few_that_run_is_said_with_both_numbers():
    with pytest.raises(Usage, match="majority means 2 running nodes; there are 1"):
        pick("majority", cluster(3, dead=("n1", "n2")))


@settings(deadline=None, database=None, max_examples=200)
@given(
    roles=st.lists(
        st.tuples(st.sampled_from(["leader", "follower", "-"]), st.booleans()), min_size=1
    ),
    words=st.lists(st.sampled_from([*WORDS, "n1", "raft:*", "raft:one"]), min_size=1, max_size=3),
    seed=st.integers(0, 1000),
)
def test_whatever_is_asked_the_answer_is_a_part_of_the_cluster_in_its_order(roles, words, seed):
    nodes = [
        NodeView(f"n{i}", "raft", role, alive) for i, (role, alive) in enumerate(roles, start=1)
    ]
    try:
        chosen = resolve(",".join(words), nodes, RNG(seed))
    except Usage:
        return
    order = [node.name for node in nodes]
    assert chosen
    assert chosen == [name for name in order if name in set(chosen)]
