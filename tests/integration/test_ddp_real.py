"""Groups of real processes, over shared memory and netstack: results, mismatches, kill -9."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from ring_kit import PATIENCE

from ddp.launch import Launch, LaunchFailed

TRANSPORTS = {"shared": "shared memory", "network": "netstack"}
MIXED = "netstack + shared memory"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Ranks find the kit, and this checkout."""
    here = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", f"{here}:{here.parent.parent}")


def launch(size, target, arguments=None, transport="auto", hosts=()):
    return Launch(
        size,
        f"ddp_real_kit:{target}",
        arguments,
        transport=transport,
        timeout_s=PATIENCE,
        quiet=True,
        hosts=hosts,
    )


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_every_algorithm_is_exact_between_processes(transport):
    with launch(3, "all_algorithms", {"n": 40_001}, transport) as ranks:
        for found in ranks.results(6 * PATIENCE):
            assert found["fabric"] == TRANSPORTS[transport]
            assert not any(found["wrong"].values()), found["wrong"]


def test_every_algorithm_is_exact_where_some_share_a_host():
    """The same schedules: through memory inside a host, over netstack between hosts."""
    with launch(3, "all_algorithms", {"n": 40_001}, hosts="aba") as ranks:
        for found in ranks.results(6 * PATIENCE):
            assert found["fabric"] == MIXED
            assert not any(found["wrong"].values()), found["wrong"]


def test_what_stays_inside_a_host_does_not_go_over_netstack():
    """A vector of three rings of memory; between hosts it goes once each way, by the leaders."""
    n = 800_001
    with launch(4, "ways", {"n": n, "algorithm": "hierarchical"}, hosts="aabb") as ranks:
        found = ranks.results(6 * PATIENCE)
    assert {said["fabric"] for said in found} == {MIXED}
    # Shares of half a vector: added inside, then across by pairs, then spread inside.
    assert [said["near"] for said in found] == pytest.approx([2 * 4 * n / 2] * 4, abs=16)
    assert sum(said["far"] for said in found) == 2 * 4 * n


@pytest.mark.slow
def test_the_other_collectives_where_some_share_a_host():
    with launch(3, "other_collectives", hosts="abb") as ranks:
        assert ranks.results(6 * PATIENCE) == [True] * 3


def test_a_group_that_spans_hosts_is_split():
    """Rows are inside hosts: they share memory. Columns are not."""
    with launch(4, "parts", hosts="aabb") as ranks:
        found = ranks.results(6 * PATIENCE)
    assert [name for name, *_ in found] == ["shared memory"] * 4
    assert [sums for _, *sums in found] == [[3, 4, 10], [3, 6, 10], [7, 4, 10], [7, 6, 10]]


@pytest.mark.slow
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_other_collectives_between_processes(transport):
    with launch(3, "other_collectives", transport=transport) as ranks:
        assert ranks.results(6 * PATIENCE) == [True] * 3


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_group_of_processes_is_split(transport):
    with launch(4, "parts", transport=transport) as ranks:
        found = ranks.results(6 * PATIENCE)
    assert [name for name, *_ in found] == [TRANSPORTS[transport]] * 4
    assert [sums for _, *sums in found] == [[3, 4, 10], [3, 6, 10], [7, 4, 10], [7, 6, 10]]


def test_what_a_rank_yields_is_told_as_it_comes():
    with launch(2, "counts", {"to": 5}) as ranks:
        said = list(ranks.events(6 * PATIENCE))
        assert ranks.results() == [100, 101]
    for rank in range(2):
        assert [event["i"] for who, event in said if who == rank] == list(range(5))
        assert {event["rank"] for who, event in said if who == rank} == {rank}


def test_the_error_is_that_of_the_rank_that_failed_by_itself():
    with launch(2, "fails_alone") as ranks, pytest.raises(LaunchFailed) as caught:
        ranks.results(6 * PATIENCE)
    assert (caught.value.kind, caught.value.text) == ("ValueError", "this one")


def test_ranks_of_one_host_find_by_themselves_that_they_share_memory():
    with launch(2, "all_algorithms", {"n": 7}) as ranks:
        assert {found["fabric"] for found in ranks.results(6 * PATIENCE)} == {"shared memory"}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("target", ["mismatch", "mixed_mismatch"])
@pytest.mark.parametrize("hosts", ["", "abb"])
def test_different_calls_are_named_on_all_ranks(target, transport, hosts):
    if hosts and transport == "shared":
        pytest.skip("between hosts no memory is shared")
    how = "auto" if hosts else transport
    with launch(3, target, transport=how, hosts=hosts) as ranks:
        for kind, text in ranks.results(6 * PATIENCE):
            assert kind == "Mismatch", text
            assert text.count(" called ") == 2


@pytest.mark.parametrize(
    ("transport", "algorithm"),
    [
        ("shared", "sharded-server"),
        ("shared", "ring"),
        ("network", "ring"),
        pytest.param("network", "double-tree", marks=pytest.mark.slow),
    ],
)
def test_after_kill_9_all_others_name_the_dead_and_nobody_has_a_wrong_number(transport, algorithm):
    victim = 1
    arguments = {"victim": victim, "algorithm": algorithm, "n": 200_000}
    with launch(3, "killed", arguments, transport) as ranks:
        found = ranks.outcomes(6 * PATIENCE)
    assert found[victim]["error"] == "its process ended (killed by SIGKILL)"
    survivors = [found[rank]["result"] for rank in (0, 2)]
    for told in survivors:
        assert told["kind"] == "RankLost", told
        assert f"rank {victim} is gone" in told["error"]
    assert survivors[0]["count"] == survivors[1]["count"], "one outcome for all survivors"


def test_after_kill_9_of_one_whose_vector_others_read():
    with launch(3, "killed_reaching", {"victim": 1, "n": 2_000_000}, "shared") as ranks:
        found = ranks.outcomes(6 * PATIENCE)
    survivors = [found[rank]["result"] for rank in (0, 2)]
    for told in survivors:
        assert told["kind"] == "RankLost", told
        assert "rank 1 is gone" in told["error"]
        assert told["reached"], "the kernel let nobody read: this tested nothing"
    assert survivors[0]["count"] == survivors[1]["count"], "one outcome for all survivors"


@pytest.mark.parametrize("hosts", ["aab", "abb"])
def test_after_kill_9_where_some_share_a_host(hosts):
    """Of one's own host the kernel tells, and by silence those of the other."""
    arguments = {"victim": 1, "algorithm": "ring", "n": 200_000}
    with launch(3, "killed", arguments, hosts=hosts) as ranks:
        found = ranks.outcomes(6 * PATIENCE)
    survivors = [found[rank]["result"] for rank in (0, 2)]
    for told in survivors:
        assert told["kind"] == "RankLost", told
        assert "rank 1 is gone" in told["error"]
    assert survivors[0]["count"] == survivors[1]["count"], "one outcome for all survivors"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_stopped_rank_is_named(transport):
    """As late; or, where silence is noticed first, as lost."""
    with launch(3, "stopped", {"victim": 2}, transport) as ranks:
        try:
            found = [ranks.outcome_of(rank, 6 * PATIENCE)["result"] for rank in (0, 1)]
        finally:
            ranks.signal(2, signal.SIGCONT)
    for kind, text in found:
        assert kind in ("RankLate", "RankLost"), text
        assert "rank 2 has not" in text or "rank 2 is gone" in text


def test_nothing_is_left_in_dev_shm_whatever_is_killed():
    before = set(os.listdir("/dev/shm"))
    with launch(3, "killed", {"victim": 0, "algorithm": "sharded-server", "n": 10_000}) as ranks:
        ranks.outcomes(6 * PATIENCE)
    assert set(os.listdir("/dev/shm")) == before


def test_a_rank_that_cannot_begin_is_named():
    with pytest.raises(LaunchFailed, match=r"rank 0: .*no_such_function"):
        launch(1, "no_such_function")
