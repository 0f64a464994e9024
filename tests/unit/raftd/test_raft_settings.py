"""The [raft] table of the cluster file: its defaults, and a sentence for every mistake."""

from __future__ import annotations

import pytest

from netstack.runtime.config import ClusterConfig, ConfigError
from raftd.config import RaftSettings
from raftd.options import RaftOptions

NODES = [
    {"name": f"n{i}", "service": service, "host": "127.0.0.1", "port": 7400 + i}
    for i, service in enumerate(("raft", "raft", "raft", "dht"), 1)
]


def settings(**table: object) -> RaftSettings:
    data = {"cluster": {"id": "c"}, "node": NODES, "raft": table}
    return RaftSettings.of(ClusterConfig.parse(data, home=None))


def test_without_a_table_all_raft_nodes_vote_and_the_rest_is_by_default():
    data = {"cluster": {"id": "c"}, "node": NODES}
    found = RaftSettings.of(ClusterConfig.parse(data, home=None))
    assert found == settings()
    assert found.options == RaftOptions()
    assert found.bootstrap.voters == ("n1", "n2", "n3")
    assert found.bootstrap.addresses["n3"] == ("127.0.0.1", 7403)
    assert (found.snapshot_every, found.power_cut) == (10_000, False)


def test_each_setting_arrives_in_its_unit():
    found = settings(
        election_timeout_ms=[300, 600],
        heartbeat_ms=90,
        lease_reads=True,
        snapshot_every=7,
        power_cut=True,
        bootstrap=["n2"],
    )
    assert found.options == RaftOptions(
        election_timeout_s=(0.3, 0.6), heartbeat_s=0.09, lease_reads=True
    )
    assert (found.snapshot_every, found.power_cut) == (7, True)
    assert found.bootstrap.voters == ("n2",)


def test_reading_the_table_leaves_it_as_it_was():
    config = ClusterConfig.parse(
        {"cluster": {"id": "c"}, "node": NODES, "raft": {"snapshot_every": 5}}, home=None
    )
    assert RaftSettings.of(config) == RaftSettings.of(config)
    assert config.settings["raft"] == {"snapshot_every": 5}


MISTAKES = [
    ({"heartbeat": 5}, "there is no setting raft.heartbeat"),
    ({"bootstrap": ["n9"]}, "raft.bootstrap names 'n9', which is no raft node"),
    ({"bootstrap": ["n4"]}, "raft.bootstrap names 'n4', which is no raft node"),
    ({"snapshot_every": 0}, "raft.snapshot_every should be 1 or more, not 0"),
    ({"snapshot_every": True}, "raft.snapshot_every should be 1 or more, not True"),
    ({"snapshot_every": "x"}, "raft.snapshot_every should be 1 or more, not 'x'"),
    ({"election_timeout_ms": 150}, "raft.election_timeout_ms should be [low, high], not 150"),
    ({"election_timeout_ms": [1, 2, 3]}, "raft.election_timeout_ms should be [low, high]"),
    ({"election_timeout_ms": [300, 150]}, "raft: election_timeout_s must be two times"),
    ({"heartbeat_ms": 100}, "raft: heartbeat_s must be a third of the lower election timeout"),
    ({"heartbeat_ms": 0}, "raft: heartbeat_s must be"),
]


@pytest.mark.parametrize(("table", "text"), MISTAKES, ids=[str(t) for t, _ in MISTAKES])
def test_a_mistake_is_one_sentence_that_names_the_key(table, text):
    with pytest.raises(ConfigError) as caught:
        settings(**table)
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "table",
    [
        {"election_timeout_ms": ["150", "300"]},
        {"heartbeat_ms": "40"},
        {"lease_reads": "no"},
        {"power_cut": "false"},
        {"bootstrap": 3},
        {"bootstrap": []},
    ],
    ids=str,
)
def test_a_value_of_another_kind_is_a_mistake_like_any_other(table):
    """`lease_reads = "no"` must not turn them on."""
    [key] = table
    with pytest.raises(ConfigError, match=rf"raft\.{key}\b"):
        settings(**table)
