"""Every word of a LinkPolicy, counted: what is lost, doubled, damaged, late, overtaken."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runtime_kit import about, shaper

from netstack.runtime.policy import PERFECT, LinkPolicy, LinkShaper, LinkTable, flip_bit

MANY = 20_000
HERE = ("127.0.0.1", 7401)
THERE = ("127.0.0.1", 7402)


def send(link: LinkShaper, count: int, gap_s: float = 0.0) -> list[list[tuple[float, bytes]]]:
    """What becomes of each of `count` datagrams that carry their number."""
    return [link.shape(b"%d" % number, number * gap_s) for number in range(count)]


class TestALink:
    def test_that_is_perfect_delivers_all_at_once_and_throws_no_dice(self):
        dice = random.Random(1)
        before = dice.getstate()
        link = LinkShaper(PERFECT, dice)
        assert send(link, 100, 1.0) == [[(float(n), b"%d" % n)] for n in range(100)]
        assert dice.getstate() == before

    def test_that_is_cut_delivers_nothing_and_counts_it(self):
        link = shaper(cut=True)
        assert send(link, 100) == [[]] * 100
        assert link.counts["dropped"] == 100
        assert link.counts["passed"] == 0

    def test_with_a_delay_delivers_exactly_that_much_later(self):
        assert send(shaper(delay_s=0.25), 3, 1.0) == [
            [(0.25, b"0")],
            [(1.25, b"1")],
            [(2.25, b"2")],
        ]

    @pytest.mark.parametrize("chance", [0.01, 0.1, 0.5, 0.99])
    def test_loses_the_share_it_says(self, chance):
        link = shaper(loss=chance)
        arrived = sum(map(len, send(link, MANY)))
        assert about(link.counts["dropped"], MANY, chance)
        assert arrived == link.counts["passed"] == MANY - link.counts["dropped"]

    @pytest.mark.parametrize("chance", [0.0, 1.0])
    def test_that_loses_nothing_or_all_is_exact(self, chance):
        link = shaper(loss=chance)
        send(link, MANY)
        assert link.counts["dropped"] == MANY * chance

    def test_loses_one_datagram_without_regard_to_the_one_before(self):
        fates = [bool(copies) for copies in send(shaper(loss=0.3), MANY)]
        both = sum(not first and not second for first, second in pairwise(fates))
        assert about(both, MANY, 0.3 * 0.3)

    @pytest.mark.parametrize("chance", [0.05, 0.5])
    def test_doubles_the_share_it_says_and_both_copies_come_at_once(self, chance):
        link = shaper(duplicate=chance, delay_s=0.1, jitter_s=0.1)
        outcomes = send(link, MANY)
        doubled = [copies for copies in outcomes if len(copies) == 2]
        assert about(len(doubled), MANY, chance)
        assert link.counts["duplicated"] == len(doubled)
        assert all(first == second for first, second in doubled)
        assert all(len(copies) in (1, 2) for copies in outcomes)

    @pytest.mark.parametrize("chance", [0.05, 1.0])
    def test_damages_the_share_it_says_by_exactly_one_bit(self, chance):
        link, sound = shaper(corrupt=chance), bytes(40)
        flipped = [
            int.from_bytes(link.shape(sound, 0.0)[0][1], "big").bit_count() for _ in range(MANY)
        ]
        assert set(flipped) <= {0, 1}
        assert about(sum(flipped), MANY, chance)
        assert link.counts["corrupted"] == sum(flipped)

    def test_damages_every_bit_as_often_as_any_other(self):
        link, hits = shaper(corrupt=1.0), [0] * 16
        for _ in range(MANY):
            damaged = int.from_bytes(link.shape(b"\0\0", 0.0)[0][1], "big")
            hits[damaged.bit_length() - 1] += 1
        assert all(about(count, MANY, 1 / 16) for count in hits)

    def test_has_nothing_to_damage_in_an_empty_datagram(self):
        assert shaper(corrupt=1.0).shape(b"", 0.0) == [(0.0, b"")]
        assert flip_bit(b"", random.Random(1)) == b""

    def test_spreads_its_jitter_over_all_it_may_be(self):
        links = [shaper(seed, delay_s=1.0, jitter_s=0.5) for seed in range(2_000)]
        waits = [link.shape(b"x", 0.0)[0][0] for link in links]
        assert all(1.0 <= wait < 1.5 for wait in waits)
        assert all(
            about(sum(low <= wait - 1.0 < low + 0.1 for wait in waits), 2_000, 0.2)
            for low in (0.0, 0.1, 0.2, 0.3, 0.4)
        )

    def test_keeps_the_order_under_jitter(self):
        arrivals = [copies[0][0] for copies in send(shaper(jitter_s=0.5), 2_000, 0.001)]
        assert arrivals == sorted(arrivals)

    def test_keeps_the_order_when_its_delay_is_lowered(self):
        link = shaper(delay_s=1.0)
        (first,) = link.shape(b"first", 0.0)
        link.policy = PERFECT
        (second,) = link.shape(b"second", 0.1)
        assert first[0] == 1.0
        assert second[0] >= first[0]


class TestReorder:
    def test_holds_back_the_share_it_says_for_the_time_it_says(self):
        link = shaper(reorder=0.1, reorder_s=0.25)
        waits = [copies[0][0] for copies in send(link, MANY)]
        assert set(waits) == {0.0, 0.25}
        assert about(waits.count(0.25), MANY, 0.1)
        assert link.counts["reordered"] == waits.count(0.25)

    def test_lets_what_was_held_back_be_overtaken(self):
        link = shaper(reorder=1.0, reorder_s=0.25)
        (held,) = link.shape(b"held", 0.0)
        link.policy = PERFECT
        (next_one,) = link.shape(b"next", 0.001)
        assert held[0] == 0.25
        assert next_one[0] == 0.001

    def test_never_lets_what_was_held_back_arrive_before_what_was_sent_before_it(self):
        link = shaper(jitter_s=0.1, reorder=0.2, reorder_s=0.005)
        latest = 0.0
        for number in range(2_000):
            held_before = link.counts["reordered"]
            ((arrives, _),) = link.shape(b"x", number * 0.001)
            if link.counts["reordered"] > held_before:
                assert arrives >= latest
            else:
                latest = arrives


class TestBursts:
    def test_last_one_datagram_when_they_end_for_certain(self):
        fates = [bool(copies) for copies in send(shaper(burst_begin=0.2), MANY)]
        assert fates.count(False) > MANY / 10
        assert all(first or second for first, second in pairwise(fates))

    @pytest.mark.parametrize(("begin", "end"), [(0.01, 0.1), (0.05, 0.5), (0.002, 0.05)])
    def test_have_the_mean_and_the_share_of_gilbert_and_elliott(self, begin, end):
        count = 10 * MANY
        fates = [bool(copies) for copies in send(shaper(burst_begin=begin, burst_end=end), count)]
        lost = fates.count(False)
        bursts = sum(first and not second for first, second in pairwise([True, *fates]))
        deviation = 5 / math.sqrt(bursts)
        assert lost / bursts == pytest.approx(1 / end, rel=deviation)
        assert lost / count == pytest.approx(begin / (begin + end), rel=1.5 * deviation)

    def test_never_end_if_they_are_not_to(self):
        fates = [bool(copies) for copies in send(shaper(burst_begin=0.5, burst_end=0.0), 100)]
        first = fates.index(False)
        assert not any(fates[first:])

    def test_come_on_top_of_the_loss(self):
        link = shaper(burst_begin=0.1, burst_end=0.4, loss=0.25)
        send(link, MANY)
        share = 0.2 + 0.8 * 0.25
        assert link.counts["dropped"] / MANY == pytest.approx(share, rel=0.1)


class TestARate:
    def test_spaces_datagrams_by_their_length(self):
        link = shaper(rate_bytes_s=1000.0)
        departures = [link.shape(bytes(size), 0.0)[0][0] for size in (100, 50, 200)]
        assert departures == pytest.approx([0.1, 0.15, 0.35])

    def test_comes_before_the_delay(self):
        link = shaper(rate_bytes_s=1000.0, delay_s=2.0)
        assert [link.shape(bytes(100), 0.0)[0][0] for _ in range(2)] == pytest.approx([2.1, 2.2])

    def test_saves_nothing_up_while_the_link_is_idle(self):
        link = shaper(rate_bytes_s=1000.0)
        assert link.shape(bytes(100), 60.0)[0][0] == pytest.approx(60.1)
        assert link.shape(bytes(100), 60.0)[0][0] == pytest.approx(60.2)

    def test_drops_at_the_tail_what_the_queue_has_no_room_for(self):
        link = shaper(rate_bytes_s=1000.0, queue_bytes=350)
        assert [len(link.shape(bytes(100), 0.0)) for _ in range(5)] == [1, 1, 1, 0, 0]
        assert link.counts["dropped"] == 2

    def test_has_room_again_as_the_queue_drains(self):
        link = shaper(rate_bytes_s=1000.0, queue_bytes=300)
        assert [len(link.shape(bytes(100), 0.0)) for _ in range(4)] == [1, 1, 1, 0]
        assert [len(link.shape(bytes(100), 0.1)) for _ in range(2)] == [1, 0]

    def test_lets_pass_what_finds_it_free_though_there_is_no_queue(self):
        link = shaper(rate_bytes_s=1000.0, queue_bytes=0)
        assert [len(link.shape(bytes(100), at)) for at in (0.0, 0.05, 0.1, 0.15)] == [1, 0, 1, 0]

    def test_is_not_spent_on_what_was_lost(self):
        link = shaper(rate_bytes_s=1000.0, loss=0.5)
        fates = [link.shape(bytes(100), 0.0) for _ in range(40)]
        arrived = [copies[0][0] for copies in fates if copies]
        assert arrived == pytest.approx([0.1 * (n + 1) for n in range(len(arrived))])
        assert 5 < len(arrived) < 35


chances = st.floats(0, 1)
seconds = st.floats(0, 2)
policies = st.builds(
    LinkPolicy,
    cut=st.booleans(),
    loss=chances,
    burst_begin=chances,
    burst_end=chances,
    delay_s=seconds,
    jitter_s=seconds,
    duplicate=chances,
    reorder=chances,
    reorder_s=seconds,
    corrupt=chances,
    rate_bytes_s=st.sampled_from([0.0, 100.0, 1e6]),
    queue_bytes=st.integers(0, 10_000),
)
sendings = st.lists(st.tuples(st.binary(max_size=40), st.floats(0, 0.5)), max_size=30)
EXAMPLES = settings(deadline=None, database=None, max_examples=150)


class TestAnyPolicy:
    @EXAMPLES
    @given(policies, sendings, st.integers(0, 99))
    def test_accounts_for_every_datagram(self, policy, sendings, seed):
        link, now, arrived = LinkShaper(policy, random.Random(seed)), 0.0, 0
        for datagram, gap in sendings:
            now += gap
            for when, copy in link.shape(datagram, now):
                arrived += 1
                assert when >= now + policy.delay_s
                assert len(copy) == len(datagram)
        counts = link.counts
        assert counts["passed"] + counts["dropped"] == len(sendings)
        assert arrived == counts["passed"] + counts["duplicated"]

    @EXAMPLES
    @given(policies, sendings, st.integers(0, 99))
    def test_gives_the_same_history_for_the_same_dice(self, policy, sendings, seed):
        once, again = (LinkShaper(policy, random.Random(seed)) for _ in range(2))
        for number, (datagram, _) in enumerate(sendings):
            assert once.shape(datagram, number) == again.shape(datagram, number)

    @EXAMPLES
    @given(policies, sendings, st.integers(0, 99))
    def test_without_reorder_keeps_the_order(self, policy, sendings, seed):
        link = LinkShaper(policy.changed({"reorder": 0.0}), random.Random(seed))
        now, arrivals = 0.0, []
        for datagram, gap in sendings:
            now += gap
            arrivals += [when for when, _ in link.shape(datagram, now)]
        assert arrivals == sorted(arrivals)

    @EXAMPLES
    @given(policies)
    def test_is_what_its_description_says(self, policy):
        assert LinkPolicy.parse(policy.describe()) == policy
        assert all(value != getattr(PERFECT, name) for name, value in policy.describe().items())


PROBABILITIES = ("loss", "burst_begin", "burst_end", "duplicate", "reorder", "corrupt")
AMOUNTS = ("delay_s", "jitter_s", "reorder_s", "rate_bytes_s", "queue_bytes")
nan, inf = float("nan"), float("inf")


class TestAMalformedPolicy:
    @pytest.mark.parametrize("value", [-0.1, 1.1, nan, inf, "0.5", None, [0.5]])
    @pytest.mark.parametrize("name", PROBABILITIES)
    def test_has_its_probability_named(self, name, value):
        with pytest.raises(ValueError, match=f"^{name} is a probability between 0 and 1, not "):
            LinkPolicy.parse({name: value})

    @pytest.mark.parametrize("value", [-1, -0.001, "1", None, [1]])
    @pytest.mark.parametrize("name", AMOUNTS)
    def test_has_its_amount_named(self, name, value):
        with pytest.raises(ValueError, match=f"^{name} must be 0 or more, not "):
            LinkPolicy.parse({name: value})

    @pytest.mark.parametrize("value", [nan, inf])
    @pytest.mark.parametrize("name", AMOUNTS)
    def test_has_an_amount_that_is_no_number_named(self, name, value):
        with pytest.raises(ValueError, match=name):
            LinkPolicy.parse({name: value})

    @pytest.mark.parametrize("value", ["no", "false", 2, None])
    def test_has_its_cut_named(self, value):
        with pytest.raises(ValueError, match="cut"):
            LinkPolicy.parse({"cut": value})

    def test_has_the_unknown_word_named_beside_the_known_ones(self):
        with pytest.raises(ValueError, match=r"a link has no 'lost'; it has burst_begin, .*loss"):
            LinkPolicy.parse({"loss": 0.1, "lost": 0.1})

    def test_does_not_come_of_a_change_either(self):
        policy = LinkPolicy(loss=0.5)
        with pytest.raises(ValueError, match="'speed'"):
            policy.changed({"speed": 1})
        with pytest.raises(ValueError, match="loss"):
            policy.changed({"loss": 2})
        assert policy == LinkPolicy(loss=0.5)


class TestAChange:
    def test_sets_what_it_names_and_nothing_else(self):
        policy = LinkPolicy(loss=0.5, delay_s=1.0)
        assert policy.changed({"delay_s": 2}) == LinkPolicy(loss=0.5, delay_s=2)
        assert policy == LinkPolicy(loss=0.5, delay_s=1.0)

    def test_is_described_by_what_differs_from_a_perfect_link(self):
        assert PERFECT.describe() == {}
        described = LinkPolicy(loss=0.5, cut=True, duplicate=0.0).describe()
        assert described == {"cut": True, "loss": 0.5}


class TestATable:
    def table(self) -> LinkTable:
        return LinkTable(random.Random(1))

    def test_is_empty_at_first_and_every_link_perfect(self):
        table = self.table()
        assert table.shapers == {}
        assert table.get(THERE) is PERFECT

    def test_keeps_each_destination_to_itself(self):
        table = self.table()
        table.set(THERE, LinkPolicy(loss=0.5))
        assert table.get(THERE) == LinkPolicy(loss=0.5)
        assert table.get(HERE) == PERFECT

    def test_goes_on_counting_when_a_policy_is_changed(self):
        table = self.table()
        table.set(THERE, LinkPolicy(cut=True))
        table.shapers[THERE].shape(b"x", 0.0)
        table.set(THERE, LinkPolicy(delay_s=1.0))
        table.shapers[THERE].shape(b"x", 0.0)
        assert table.describe() == {
            "127.0.0.1:7402": {
                "delay_s": 1.0,
                "counts": {
                    "cut": 1,
                    "lost": 0,
                    "burst": 0,
                    "delayed": 1,
                    "throttled": 0,
                    "passed": 1,
                    "dropped": 1,
                    "duplicated": 0,
                    "corrupted": 0,
                    "reordered": 0,
                    "marked": 0,
                },
            }
        }

    def test_forgets_a_link_that_is_perfect_again(self):
        table = self.table()
        table.set(THERE, LinkPolicy(cut=True))
        table.set(THERE, PERFECT)
        assert table.shapers == {}
        table.set(HERE, PERFECT)
        assert table.shapers == {}

    def test_is_cleared_in_place_for_those_who_look_at_it(self):
        table = self.table()
        seen = table.shapers
        table.set(THERE, LinkPolicy(cut=True))
        table.clear()
        assert seen is table.shapers
        assert seen == {}

    def test_lists_its_links_in_order(self):
        table = self.table()
        for port in (7403, 7401, 7402):
            table.set(("127.0.0.1", port), LinkPolicy(cut=True))
        assert list(table.describe()) == [f"127.0.0.1:{port}" for port in (7401, 7402, 7403)]


class TestEachFaultHasACountOfItsOwn:
    """What was dropped or held up is counted for the fault that did it, and for no other."""

    @pytest.mark.parametrize(
        ("policy", "cause"),
        [
            ({"cut": True}, "cut"),
            ({"loss": 1.0}, "lost"),
            ({"burst_begin": 1.0, "burst_end": 0.0}, "burst"),
            ({"delay_s": 0.01}, "delayed"),
            ({"rate_bytes_s": 1000.0}, "throttled"),
        ],
    )
    def test_of_what_it_did(self, policy, cause):
        link = shaper(**policy)
        for i in range(50):
            link.shape(b"x" * 100, float(i))
        causes = {
            name: link.counts[name] for name in ("cut", "lost", "burst", "delayed", "throttled")
        }
        assert causes == {**dict.fromkeys(causes, 0), cause: 50}

    def test_a_delay_of_nothing_holds_nothing_up(self):
        link = shaper(delay_s=0.0, duplicate=0.5)
        for i in range(50):
            link.shape(b"x", float(i))
        assert (link.counts["passed"], link.counts["delayed"]) == (50, 0)
