"""Hours of all that can go wrong, in virtual time: every byte is right, and nothing grows.

Five minutes in the ordinary run, an hour with the slow ones. What the hosts hold is weighed when
nobody has spoken for a while, early and at the end (soak_kit.py), and its peaks in between.
"""

from __future__ import annotations

import pytest
from soak_kit import CLIENTS, WEATHERS, Soak


def soaked(seed, minutes_before, minutes_in_all):
    """The soak; the tables at rest and the peaks, after the first minutes and after all."""
    soak = Soak(seed)
    tables, peaks = [], []

    async def scenario():
        for minutes in (minutes_before, minutes_in_all - minutes_before):
            await soak.storm(60 * minutes)
            peaks.append(soak.peak)
            soak.peak = 0
            await soak.rest()
            tables.append(soak.tables())

    soak.run(scenario())
    return soak, tables, peaks


def check_memory(soak, tables, peaks):
    """Flat: at rest a few connections that hold nothing, and in the storm no more than before."""
    early, late = tables
    for table in tables:
        # Who closed or was killed is gone from the other's tables too, once it was told or idle.
        assert len(CLIENTS) + 1 <= table["connections"] // 2 + 2 <= len(CLIENTS) + 3
        assert table["objects"] < 200 * table["connections"]
        assert table["bytes"] < 20_000 * table["connections"]
        for name in ("half open", "streams", "in flight"):
            assert table[name] == 0, f"{table[name]} {name} are left"
        assert table["known"] <= len(CLIENTS) + 1
        assert table["sockets"] == len(CLIENTS) + 3
        assert table["timers"] < 50
    assert late["objects"] < 1.5 * early["objects"]
    # The world keeps what a killed process left half done: a task or two, a connection each.
    assert late["connections of nobody"] <= 2 * soak.did["_kill"]
    assert peaks[1] < 2 * peaks[0] + 200_000


def check_that_it_was_a_soak(soak, minutes):
    """Whoever tested nothing has shown nothing."""
    faults = soak.faults()
    for fault in ("dropped", "duplicated", "corrupted", "reordered", "marked"):
        assert faults[fault] > 10 * minutes, fault
    for seen in ("replayed", "tampered", "unknown"):
        assert faults[seen] > 2 * minutes, seen
    for name in ("_cut", "_rebind", "_kill"):
        assert soak.did[name] >= minutes, name
    assert faults["challenges"] > 0
    assert soak.ends["PeerRestarted"] > 0
    assert soak.did["left", "dial"] == 1  # one connection through all of it
    assert min(soak.answers[name] for name in (*CLIENTS, "left")) > 100 * minutes
    assert soak.exact > 1_000_000 * minutes


@pytest.mark.parametrize("seed", [1, 2])
def test_five_minutes_of_everything(seed):
    soak, tables, peaks = soaked(seed, 1, 5)
    check_memory(soak, tables, peaks)
    check_that_it_was_a_soak(soak, 5)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(3))
def test_an_hour_of_everything(seed):
    soak, tables, peaks = soaked(seed, 10, 60)
    check_memory(soak, tables, peaks)
    check_that_it_was_a_soak(soak, 60)
    assert all(soak.did["weather", name] > 0 for name in WEATHERS)
    assert soak.ends["IdleTimeout"] > 0
    assert soak.ends["ConnectTimeout"] > 0
