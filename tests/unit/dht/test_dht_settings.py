"""The `[dht]` table, and the ranges that a client remembers."""

from __future__ import annotations

import pytest

from dht.chord.ring import SIZE, Contact, contact_of
from dht.config import DhtSettings, contacts_of
from dht.ranges import Ranges
from netstack.runtime.config import ClusterConfig, ConfigError


def config(table: dict | None = None, count: int = 3) -> ClusterConfig:
    nodes = [{"name": f"d{i}", "service": "dht", "port": 7400 + i} for i in range(1, count + 1)]
    data = {"cluster": {"id": "x"}, "node": nodes, **({"dht": table} if table else {})}
    return ClusterConfig.parse(data, None)


def test_defaults():
    settings = DhtSettings.of(config())
    assert (settings.vnodes, settings.replicas, settings.copies_min) == (4, 3, 2)
    assert settings.chord.successors == 8
    assert not settings.power_cut


def test_one_peer_alone_may_keep_the_only_copy():
    assert DhtSettings.of(config(count=1)).copies_min == 1


def test_what_is_set_is_taken():
    table = {"successors": 5, "stabilise_ms": [20, 200], "quota_mb": 1, "timeout_ms": 100}
    settings = DhtSettings.of(config(table))
    assert settings.chord.successors == 5
    assert settings.chord.stabilise_s == (0.02, 0.2)
    assert settings.quota_bytes == 1 << 20
    assert settings.timeout_s == 0.1


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"vnodes": 0}, "dht.vnodes should be a number from 1 to 1024, not 0"),
        ({"replicas": "3"}, "dht.replicas should be a number"),
        ({"copies_min": 4}, "dht.copies_min should be a number from 1 to 3"),
        ({"stabilise_ms": 5}, "dht.stabilise_ms should be"),
        ({"stabilise_ms": [50, 10]}, "dht: stabilise"),
        ({"power_cut": 1}, "dht.power_cut should be true or false"),
        ({"sucessors": 3}, "there is no setting dht.sucessors"),
    ],
)
def test_every_mistake_is_a_sentence(table, sentence):
    with pytest.raises(ConfigError) as caught:
        DhtSettings.of(config(table))
    assert str(caught.value).startswith(sentence)


def test_contacts_are_all_identifiers_of_all_peers():
    cluster = config({"vnodes": 2})
    found = contacts_of(cluster, DhtSettings.of(cluster))
    assert sorted(found) == ["d1", "d2", "d3"]
    assert len({c.id for ids in found.values() for c in ids}) == 6


def test_ranges_know_owners_over_zero_too():
    ranges = Ranges()
    assert ranges.owner(5) is None
    ten, high = Contact(10, "N10"), Contact(SIZE - 10, "high")
    ranges.learn(SIZE - 10, ten)
    ranges.learn(100, high)
    assert ranges.owner(SIZE - 5) == ranges.owner(0) == ranges.owner(10) == ten
    assert ranges.owner(50) is None
    assert ranges.owner(101) == high
    ranges.forget(ten)
    assert ranges.owner(0) is None
    assert repr(ranges) == "<Ranges 1>"


def test_a_silent_process_is_forgotten_with_all_its_ranges():
    ranges = Ranges()
    ours = [contact_of("d1", "127.0.0.1", 7001, vnode) for vnode in range(3)]
    other = contact_of("d2", "127.0.0.1", 7002, 0)
    for contact in (*ours, other):
        ranges.learn(contact.id - 2, contact)
    ranges.forget_process("d1")
    assert ranges.contacts() == [other]
    assert ranges.owner(ours[0].id) is None
    assert ranges.owner(other.id) == other
