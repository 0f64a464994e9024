"""A node's clock, and the map that makes links, disk and clock wrong: all of it or none."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runtime_kit import EPOCH, Hands

from netstack.runtime.disk import DiskFaults
from netstack.runtime.failpoints import Failpoints
from netstack.runtime.faults import Faults, parse_address
from netstack.runtime.policy import LinkPolicy, LinkTable

THERE = ("127.0.0.1", 7402)
GOOD = {"links": {}, "disk": {}, "clock": {}, "points": {}, "struck": {}}


@pytest.fixture
def hands():
    return Hands()


@pytest.fixture
def faults(hands):
    points = Failpoints(lambda: None, lambda seconds: None)
    return Faults(LinkTable(random.Random(1)), DiskFaults(), hands.clock, points)


class TestTheClock:
    def test_shows_the_true_time_at_first(self, hands):
        hands.true = 12.5
        assert hands.clock.now() == 12.5
        assert hands.clock.wall() == EPOCH + 12.5

    def test_runs_at_its_rate_from_when_that_is_set(self, hands):
        hands.true = 10.0
        hands.clock.set_rate(2.0)
        assert hands.clock.now() == 10.0
        hands.true = 15.0
        assert hands.clock.now() == 20.0
        hands.clock.set_rate(0.5)
        hands.true = 17.0
        assert hands.clock.now() == 21.0

    def test_keeps_what_it_gained_when_it_is_right_again(self, hands):
        hands.clock.set_rate(2.0)
        hands.true = 5.0
        hands.clock.set_rate(1.0)
        hands.true = 6.0
        assert hands.clock.now() == 11.0

    @settings(deadline=None, database=None, max_examples=100)
    @given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.1, 10)), max_size=20))
    def test_never_goes_back_and_gains_what_its_rates_say(self, stretches):
        hands, shown = Hands(), 0.0
        for length, rate in stretches:
            before = hands.clock.now()
            hands.clock.set_rate(rate)
            hands.true += length
            shown += length * rate
            assert hands.clock.now() >= before
            assert hands.clock.now() == pytest.approx(shown)

    def test_of_the_wall_jumps_alone(self, hands):
        hands.true = 5.0
        hands.clock.offset_s = -3600.0
        assert hands.clock.wall() == EPOCH + 5.0 - 3600.0
        assert hands.clock.now() == 5.0

    def test_says_how_long_a_deadline_is_away_in_true_seconds(self, hands):
        hands.clock.set_rate(2.0)
        assert hands.clock.true_delay(10.0) == 5.0
        hands.true = 4.0
        assert hands.clock.true_delay(10.0) == 1.0
        hands.true = 6.0
        assert hands.clock.true_delay(10.0) == 0.0

    @pytest.mark.parametrize("rate", [0.0, 0.09, 10.1, -1.0, float("nan"), float("inf")])
    def test_has_no_rate_that_stops_or_turns_it(self, hands, rate):
        with pytest.raises(ValueError, match="a clock's rate must be between"):
            hands.clock.set_rate(rate)
        assert hands.clock.rate == 1.0

    def test_shows_itself_by_what_is_wrong_with_it(self, hands):
        hands.clock.set_rate(1.5)
        hands.clock.offset_s = -2.0
        assert repr(hands.clock) == "<Clock rate=1.5 offset=-2.000s>"

    def test_knows_the_true_time_however_wrong_it_is(self, hands):
        hands.clock.set_rate(2.0)
        hands.true = 5.0
        assert (hands.clock.now(), hands.clock.true_now()) == (10.0, 5.0)


class TestAMapOfFaults:
    def test_takes_effect_in_every_part_it_names(self, faults):
        faults.apply(
            {
                "links": {"127.0.0.1:7402": {"loss": 0.5}},
                "disk": {"slow_s": 1, "full": True},
                "clock": {"offset_s": 30, "rate": 2.0},
            }
        )
        assert faults.links.get(THERE) == LinkPolicy(loss=0.5)
        assert faults.disk == DiskFaults(slow_s=1, full=True)
        assert (faults.clock.offset_s, faults.clock.rate) == (30.0, 2.0)

    def test_leaves_alone_what_it_does_not_name(self, faults):
        faults.apply({"disk": {"full": True}, "clock": {"rate": 2.0}})
        faults.apply({"disk": {"slow_s": 0.5}, "clock": {"offset_s": 1.0}})
        faults.apply({})
        described = faults.describe()
        assert described["disk"] == {"full": True, "slow_s": 0.5}
        assert described["clock"] == {"rate": 2.0, "offset_s": 1.0}

    def test_adds_to_what_a_link_has_already(self, faults):
        faults.apply({"links": {"127.0.0.1:7402": {"loss": 0.5}}})
        faults.apply({"links": {"127.0.0.1:7402": {"delay_s": 1.0}}})
        assert faults.links.get(THERE) == LinkPolicy(loss=0.5, delay_s=1.0)

    def test_heals_the_parts_it_names(self, faults):
        faults.apply({"links": {"127.0.0.1:7402": {"cut": True}}, "disk": {"full": True}})
        faults.apply({"heal": ["links"]})
        assert faults.describe() == GOOD | {"disk": {"full": True}}
        faults.apply({"heal": ["disk", "clock"]})
        assert faults.describe() == GOOD

    def test_heals_a_disk_and_a_clock_before_it_sets_them(self, faults):
        faults.apply({"disk": {"full": True}, "clock": {"offset_s": 5.0}})
        faults.apply({"heal": ["disk", "clock"], "disk": {"slow_s": 1.0}, "clock": {"rate": 2.0}})
        assert faults.describe() == GOOD | {"disk": {"slow_s": 1.0}, "clock": {"rate": 2.0}}

    def test_heals_a_link_before_it_sets_it(self, faults):
        faults.apply({"links": {"127.0.0.1:7402": {"loss": 0.5}}})
        faults.apply({"heal": ["links"], "links": {"127.0.0.1:7402": {"delay_s": 1.0}}})
        assert faults.links.get(THERE) == LinkPolicy(delay_s=1.0)


class TestHealing:
    def test_all_leaves_nothing_wrong(self, faults):
        faults.apply(
            {
                "links": {"127.0.0.1:7402": {"cut": True}},
                "disk": {"full": True},
                "clock": {"rate": 3},
            }
        )
        faults.heal()
        assert faults.describe() == GOOD

    def test_keeps_the_power_cut_mode_of_the_disk(self, faults):
        faults.apply({"disk": {"power_cut": True, "torn": True}})
        faults.heal()
        assert faults.disk == DiskFaults(power_cut=True)

    def test_does_not_turn_the_clock_back(self, faults, hands):
        faults.apply({"clock": {"rate": 2.0}})
        hands.true = 5.0
        faults.heal("clock")
        assert hands.clock.now() == 10.0


WRONG = [
    {"link": {}},
    {"links": {"127.0.0.1:7402": {"speed": 1}}},
    {"links": {"127.0.0.1:7402": {"loss": 2}}},
    {"links": {"127.0.0.1": {"loss": 0.1}}},
    {"links": {"127.0.0.1:http": {"loss": 0.1}}},
    {"links": "all"},
    {"disk": {"broken": True}},
    {"disk": {"slow_s": "1"}},
    {"disk": {"eio_at": -1}},
    {"disk": {"full": 1}},
    {"clock": {"speed": 2.0}},
    {"heal": "links"},
    {"heal": ["everything"]},
    {"clock": {"rate": 100}},
    {"links": []},
    {"disk": []},
    {"clock": []},
    {"links": {"127.0.0.1:7402": 5}},
    {"clock": {"rate": "fast"}},
    {"clock": {"offset_s": None}},
    {"disk": {"slow_s": float("nan")}},
    {"clock": {"offset_s": float("nan")}},
    {"clock": {"rate": 2.0, "offset_s": "later"}},
    {"heal": ["disk", "everything"]},
    {"heal": ["disk"], "clock": {"rate": 100}},
    {"heal": ["disk"], "clock": {"offset_s": "later"}},
]


class TestWhatLasts:
    def test_is_what_belongs_to_the_machine_and_makes_the_next_life_as_wrong(self, faults, hands):
        faults.apply(
            {
                "links": {"127.0.0.1:7402": {"cut": True}},
                "disk": {"full": True, "eio_at": 3, "torn": True, "sync_error": True},
                "clock": {"offset_s": 2.0, "rate": 1.5},
                "points": {"wal.append.before-sync": {}},
            }
        )
        faults.links.shapers[THERE].shape(b"lost", 0.0)
        lasting = faults.lasting()
        assert lasting == {
            "links": {"127.0.0.1:7402": {"cut": True}},
            "disk": {"full": True},
            "clock": {"offset_s": 2.0, "rate": 1.5},
        }
        points = Failpoints(lambda: None, lambda seconds: None)
        next_life = Faults(LinkTable(random.Random(1)), DiskFaults(), Hands().clock, points)
        next_life.apply(lasting)
        assert next_life.lasting() == lasting


class TestAMapThatIsWrong:
    @pytest.mark.parametrize("change", WRONG, ids=repr)
    def test_changes_nothing_and_is_answered_with_one_sentence(self, faults, change):
        faults.apply({"links": {"127.0.0.1:7403": {"cut": True}}, "disk": {"torn": True}})
        before = faults.describe()
        with pytest.raises(ValueError, match=r"^[^\n]+$"):
            faults.apply({"disk": {"full": True}} | change)
        assert faults.describe() == before

    def test_has_the_known_parts_named(self, faults):
        with pytest.raises(ValueError, match="no faults in 'network'; there are links, disk"):
            faults.apply({"network": {}})
        with pytest.raises(ValueError, match="nothing called 'all' to heal; there are links"):
            faults.heal("all")
        with pytest.raises(ValueError, match="a disk has no fault 'lost'; it has eio_at, full"):
            faults.apply({"disk": {"lost": True}})


class TestAnAddress:
    def test_is_host_and_port(self):
        assert parse_address("127.0.0.1:7402") == THERE
        assert parse_address("::1:7402") == ("::1", 7402)

    @pytest.mark.parametrize(
        "text", ["", "host", "host:", ":7402", "host:-1", "host:7402x", "h:1.0"]
    )
    def test_of_another_form_is_refused(self, text):
        with pytest.raises(ValueError, match="is not an address; write host:port"):
            parse_address(text)

    def test_has_a_port_that_exists(self):
        with pytest.raises(ValueError, match="70000"):
            parse_address("127.0.0.1:70000")
