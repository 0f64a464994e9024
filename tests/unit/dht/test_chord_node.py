"""One node, event by event: the sentences of Zave's corrected protocol."""

from __future__ import annotations

import random

import pytest
from rehearsal_kit import Rehearsal, contact

from dht.chord.errors import BrokenNode, NotMember
from dht.chord.lookup import HOPS_MAX, Lookup, Route
from dht.chord.node import BACK_OFF, LONELY_S, PROBE_CALM, PROBERS, ChordNode
from dht.chord.options import ChordOptions
from dht.chord.outputs import BUSY, NOTIFY, PING, STATE, Ask, Changed, State
from dht.chord.ring import Contact

OPTIONS = ChordOptions(bits=7, successors=3)


def member(number: int, pred: int, *succ: int) -> ChordNode:
    node = ChordNode(contact(number), OPTIONS, random.Random(0))
    node.bootstrap([contact(n) for n in succ], 0.0)
    node.pred = contact(pred)
    node.take_outputs()
    return node


def asks(node: ChordNode) -> list[tuple[str, int]]:
    return [(o.what, o.to.id) for o in node.take_outputs() if isinstance(o, Ask)]


def only(node: ChordNode) -> Ask:
    found = [o for o in node.take_outputs() if isinstance(o, Ask)]
    assert len(found) == 1, found
    return found[0]


def numbers(contacts) -> list[int]:
    return [c.id for c in contacts]


def state(pred: int, *succ: int) -> State:
    return State(contact(pred), tuple(contact(n) for n in succ))


class TestStabilise:
    def test_takes_the_successor_and_its_list_but_the_last(self):
        node = member(10, 99, 20, 30, 40)
        node.stabilise(1.0)
        ask = only(node)
        assert (ask.what, ask.to.id) == (STATE, 20)
        node.answered(ask.token, state(10, 25, 35, 45), 1.0)
        assert numbers(node.succ) == [20, 25, 35]

    @pytest.mark.parametrize("pred", [99, 5])
    def test_ends_by_notifying_a_first_successor_that_has_another_predecessor(self, pred):
        node = member(10, 99, 20, 30, 40)
        node.stabilise(1.0)
        node.answered(only(node).token, state(pred, 30, 40, 50), 1.0)
        assert asks(node) == [(NOTIFY, 20)]

    def test_says_nothing_to_one_that_names_this_node(self):
        """To whom its predecessor notifies nothing happens: `TestRectify`."""
        node = member(10, 99, 20, 30, 40)
        node.stabilise(1.0)
        node.answered(only(node).token, state(10, 30, 40, 50), 1.0)
        assert asks(node) == []

    def test_asks_who_stands_between_and_adopts_it_alive(self):
        node = member(10, 99, 20, 30, 40)
        node.stabilise(1.0)
        node.answered(only(node).token, state(15, 30, 40, 50), 1.0)
        ask = only(node)
        assert (ask.what, ask.to.id) == (STATE, 15)
        node.answered(ask.token, state(10, 20, 30, 40), 1.0)
        assert numbers(node.succ) == [15, 20, 30]
        assert asks(node) == [(NOTIFY, 15)]

    def test_does_not_adopt_it_dead(self):
        node = member(10, 99, 20, 30, 40)
        node.stabilise(1.0)
        node.answered(only(node).token, state(15, 30, 40, 50), 1.0)
        node.failed(only(node).token, 1.5)
        assert numbers(node.succ) == [20, 30, 40]
        assert asks(node) == [(NOTIFY, 20)]

    def test_a_dead_head_is_dropped_and_the_tail_padded_with_last_plus_one(self):
        node = member(10, 99, 20, 30, 40)
        node.stabilise(1.0)
        node.failed(only(node).token, 1.5)
        assert node.succ == [contact(30), contact(40), Contact(41)]
        assert len(node.succ) == OPTIONS.successors
        assert asks(node) == []

    def test_a_busy_successor_lives_and_is_asked_again_soon(self):
        node = member(10, 99, 20, 30, 40)
        node.on_deadline(0.0)
        token = next(o.token for o in node.take_outputs() if isinstance(o, Ask) and o.what == STATE)
        node.answered(token, BUSY, 0.1)
        assert numbers(node.succ) == [20, 30, 40]
        assert node.next_deadline() <= 0.1 + 0.0125

    def test_only_one_step_at_a_time(self):
        node = member(10, 99, 20, 30, 40)
        node.stabilise(1.0)
        only(node)
        node.stabilise(1.1)
        assert asks(node) == []


class TestRectify:
    def test_a_notification_by_the_predecessor_changes_nothing(self):
        node = member(50, 30, 60, 70, 80)
        before = repr(node)
        assert node.rectify(contact(30), 1.0) is True
        assert node.take_outputs() == []
        assert repr(node) == before

    def test_adopts_who_lies_between(self):
        node = member(50, 10, 60, 70, 80)
        assert node.rectify(contact(30), 1.0) is True
        assert node.pred == contact(30)
        assert asks(node) == []

    def test_pings_the_predecessor_and_adopts_only_if_it_is_dead(self):
        node = member(50, 30, 60, 70, 80)
        assert node.rectify(contact(10), 1.0) is False
        ask = only(node)
        assert (ask.what, ask.to.id) == (PING, 30)
        node.failed(ask.token, 1.5)
        assert node.pred == contact(10)

    def test_keeps_a_living_predecessor(self):
        node = member(50, 30, 60, 70, 80)
        node.rectify(contact(10), 1.0)
        node.answered(only(node).token, True, 1.1)
        assert node.pred == contact(30)

    def test_the_only_one_takes_the_first_that_comes_for_both(self):
        node = ChordNode(contact(50), OPTIONS, random.Random(0))
        node.bootstrap([], 0.0)
        assert node.rectify(contact(10), 1.0) is True
        assert node.pred == node.succ[0] == contact(10)


class TestSharedState:
    """Between a question that may change it and the end of the step, a node shows its state to
    nobody."""

    def test_it_is_busy_meanwhile(self):
        node = member(10, 99, 20, 30, 40)
        assert node.receive(STATE, (), 1.0) == state(99, 20, 30, 40)
        node.stabilise(1.0)
        ask = only(node)
        assert node.receive(STATE, (), 1.0) == BUSY
        node.answered(ask.token, state(10, 30, 40, 50), 1.0)
        assert node.receive(STATE, (), 1.0) == state(99, 20, 30, 40)

    def test_pings_and_look_ups_are_answered_at_once(self):
        node = member(10, 99, 20, 30, 40)
        node.stabilise(1.0)
        assert node.receive(PING, (), 1.0) is True
        assert node.receive("step", (15, False), 1.0).contacts[0] == contact(20)


class TestJoin:
    def joining(self) -> tuple[ChordNode, Ask]:
        node = ChordNode(contact(36), OPTIONS, random.Random(0))
        node.join(contact(99), 0.0)
        ask = only(node)
        assert (ask.what, ask.to.id, ask.body) == ("step", 99, (36, False))
        return node, ask

    def test_takes_over_the_list_of_the_member_that_it_comes_behind(self):
        node, ask = self.joining()
        node.answered(ask.token, Route(False, (contact(25),)), 0.1)
        ask = only(node)
        node.answered(ask.token, Route(True, (contact(40), contact(60))), 0.2)
        ask = only(node)
        assert (ask.what, ask.to.id) == (STATE, 25)
        node.answered(ask.token, state(5, 40, 60, 99), 0.3)
        assert (node.state, node.pred, numbers(node.succ)) == ("member", contact(25), [40, 60, 99])
        assert asks(node) == []  # nobody else is told

    def test_fails_if_somebody_came_between_meanwhile(self):
        node, ask = self.joining()
        node.answered(ask.token, Route(False, (contact(25),)), 0.1)
        node.answered(only(node).token, Route(True, (contact(40),)), 0.1)
        node.answered(only(node).token, state(5, 30, 40, 60), 0.2)
        assert node.state == "out"

    def test_if_the_owner_itself_answered_its_predecessor_is_asked(self):
        node, ask = self.joining()
        node.answered(ask.token, Route(True, (contact(99), contact(5))), 0.1)
        node.answered(only(node).token, state(25, 5, 25, 60), 0.2)
        ask = only(node)
        assert (ask.what, ask.to.id) == (STATE, 25)
        node.answered(ask.token, state(5, 99, 5, 25), 0.3)
        assert (node.pred, numbers(node.succ)) == (contact(25), [99, 5, 25])

    def test_fails_if_the_member_is_busy_or_gone(self):
        for answer in (BUSY, None):
            node, ask = self.joining()
            node.answered(ask.token, Route(True, (contact(40),)), 0.1)
            ask = only(node)
            if answer is None:
                node.failed(ask.token, 0.2)
            else:
                node.answered(ask.token, answer, 0.2)
            assert node.state == "out"

    def test_a_node_that_was_never_missed_comes_back_to_its_place(self):
        node, ask = self.joining()
        node.answered(ask.token, Route(True, (contact(36), contact(40))), 0.1)
        node.answered(only(node).token, state(5, 36, 40, 60), 0.2)
        assert (node.state, numbers(node.succ)[:2]) == ("member", [40, 60])

    def test_who_is_no_member_answers_nothing(self):
        node = ChordNode(contact(36), OPTIONS, random.Random(0))
        with pytest.raises(NotMember, match="no member"):
            node.receive(STATE, (), 0.0)


class TestLeave:
    def test_tells_both_neighbours_and_is_gone(self):
        node = member(10, 99, 20, 30, 40)
        node.leave(1.0)
        assert sorted(asks(node)) == [("gone", 20), ("gone", 99)]
        with pytest.raises(NotMember):
            node.receive(STATE, (), 1.0)
        assert node.next_deadline() is None

    def test_the_neighbours_look_at_once(self):
        node = member(99, 80, 10, 20, 30)
        node.on_deadline(0.0)
        node.take_outputs()
        node.receive("gone", (contact(10),), 0.01)
        assert node.next_deadline() <= 0.05


class TestAlone:
    def test_when_all_that_followed_died_the_one_behind_knows_who_comes_next(self):
        node = member(50, 30, 60)
        node.succ = [Contact(51), Contact(52), Contact(53)]
        node.stabilise(1.0)
        ask = only(node)
        assert (ask.what, ask.to.id) == (STATE, 30)
        node.answered(ask.token, state(10, 50, 70, 80), 1.1)
        assert numbers(node.succ)[:2] == [70, 80]

    def test_nobody_behind_either_then_it_looks_around_more_often(self):
        node = member(50, 30, 60)
        node.succ = [Contact(51), Contact(52), Contact(53)]
        node.stabilise(1.0)
        node.failed(only(node).token, 1.5)
        assert node.pred is None
        assert node._probe_pause() < node.options.probe_s


class TestFingers:
    def checking(self) -> tuple[ChordNode, Ask]:
        """N0 in a ring of eight checks its finger over 64, which is N70."""
        node = member(0, 120, 20, 40, 60, 70, 80, 100, 120)
        assert node.fingers[6] == contact(70)
        node.fix_finger(1.0)
        return node, only(node)

    def test_one_question_tells_that_it_is_still_where_it_should_be(self):
        node, ask = self.checking()
        assert (ask.what, ask.to.id, ask.body) == ("step", 70, (64, False))
        node.answered(ask.token, Route(True, (contact(70), contact(80))), 1.0)
        assert asks(node) == []
        assert node.fingers[6] == contact(70)

    def test_if_somebody_has_come_before_it_the_owner_is_looked_up(self):
        node, ask = self.checking()
        node.answered(ask.token, Route(False, (contact(20),), (), contact(65)), 1.0)
        ask = only(node)
        assert (ask.what, ask.to.id, ask.body) == ("step", 60, (64, False))
        node.answered(ask.token, Route(True, (contact(65), contact(70))), 1.1)
        assert node.fingers[6] == contact(65)

    def test_if_it_is_dead_it_goes_at_once_and_the_owner_is_looked_up(self):
        node, ask = self.checking()
        node.failed(ask.token, 1.5)
        assert contact(70) not in node.fingers.values()
        ask = only(node)
        assert (ask.to.id, ask.body) == (60, (64, False))
        node.answered(ask.token, Route(True, (contact(80),)), 1.6)
        assert node.fingers[6] == contact(80)

    def test_within_the_successor_list_nobody_is_asked(self):
        """The list of N0 goes to N60."""
        node, _ = self.checking()
        node.fix_finger(1.0)  # over 32: N40, which is in the list
        assert asks(node) == []
        assert node.fingers[5] == contact(40)
        node.succ[1] = contact(33)
        node._next_finger = 5
        node.fix_finger(1.1)
        assert asks(node) == []
        assert node.fingers[5] == contact(33)

    def test_one_check_at_a_time(self):
        node, _ = self.checking()
        node._next_finger = 6
        node.fix_finger(1.1)
        assert asks(node) == []


class TestProbe:
    """Rarer while all who are remembered are in this ring; never while one may be in another."""

    def probed(self, answer: Route | None, times: int = 20) -> ChordNode:
        node = member(10, 99, 20, 60, 99)
        for _ in range(times):
            node.probe(1.0)
            ask = only(node)
            if answer is None:
                node.failed(ask.token, 1.0)
            else:
                node.answered(ask.token, answer, 1.0)
        return node

    def test_in_one_ring_ever_rarer(self):
        base_s = OPTIONS.probe_s
        found = self.probed(Route(True, (contact(10), contact(20))), times=1)
        assert found._probe_pause() == base_s * BACK_OFF
        found = self.probed(Route(True, (contact(10), contact(20))))
        assert found._probe_pause() == base_s * PROBE_CALM

    def test_all_of_a_large_ring_together_no_oftener_than_a_few(self):
        """Three successors within 12 of 128: some 32 members, each a quarter as often as of 8."""
        few = member(10, 99, 20, 60, 99)
        many = member(10, 9, 14, 18, 22)
        assert few._probe_pause() == OPTIONS.probe_s
        assert many._probe_pause() == OPTIONS.probe_s * 32 / PROBERS
        many.succ = [Contact(11), Contact(12), Contact(13)]
        assert many._probe_pause() == LONELY_S

    @pytest.mark.parametrize("sign", ["silence", "a stranger"])
    def test_at_the_old_pace_as_soon_as_somebody_may_be_in_another_ring(self, sign):
        node = self.probed(Route(True, (contact(10), contact(20))))
        node.probe(1.0)
        ask = only(node)
        if sign == "silence":
            node.failed(ask.token, 1.5)
        else:
            node.answered(ask.token, Route(True, (contact(12), contact(20))), 1.5)
        assert node._probe_pause() == OPTIONS.probe_s

    def test_at_the_old_pace_as_soon_as_somebody_is_missed(self):
        """After a cut everything near it changes, and who was beyond it is to be found soon."""
        node = self.probed(Route(True, (contact(10), contact(20))))
        node._probe_at = 99.0
        node.stabilise(1.0)
        node.failed(only(node).token, 1.5)
        assert node._probe_pause() == OPTIONS.probe_s
        assert node._probe_at <= 1.5 + 1.25 * OPTIONS.probe_s


class TestItself:
    def test_the_list_must_keep_its_length_and_order(self):
        node = member(10, 99, 20, 30, 40)
        node.check()
        for wrong in ([20, 30], [30, 20, 40], [20, 20, 40], [20, 10, 40]):
            node.succ = [contact(n) for n in wrong]
            with pytest.raises(BrokenNode, match="How it came to that"):
                node.check()
        node.succ = [Contact(11), contact(20), contact(30)]
        with pytest.raises(BrokenNode, match="placeholder"):
            node.check()

    def test_repr(self):
        node = member(10, 99, 20)
        assert repr(node) == "<Chord N10/0@10 MEMBER pred=N99/0@99 succ=[N20/0@20 ~21 ~22]>"

    def test_changes_are_told_to_the_shell(self):
        node = member(50, 10, 60, 70, 80)
        node.rectify(contact(30), 1.0)
        assert node.take_outputs() == [Changed(contact(30), tuple(map(contact, (60, 70, 80))))]

    def test_a_calm_ring_is_asked_less_and_less(self):
        ring = Rehearsal()
        ring.bootstrap(10, 30, 50, 70, 90)
        ring.turn(20)
        assert {n._pause_s for n in ring.nodes.values()} == {ring.options.stabilise_s[1]}
        ring.kill(30)
        ring.turn(1)
        assert ring.nodes[10]._pause_s == ring.options.stabilise_s[0]

    def test_what_is_remembered_is_bounded(self):
        node = member(10, 99, 20, 30, 40)
        node.remember(Contact(i, f"N{i}") for i in range(1000))
        assert len(node.contacts) == 128


class TestLookup:
    def test_the_closest_before_the_target_is_asked_first(self):
        lookup = Lookup(90, [contact(10), contact(80), contact(100)], bits=7)
        assert lookup.next() == contact(80)

    def test_a_dead_one_is_replaced_by_the_next_best(self):
        lookup = Lookup(90, [contact(10), contact(80)], bits=7)
        lookup.failed(lookup.next())
        assert lookup.next() == contact(10)
        lookup.failed(contact(10))
        assert lookup.next() is None
        assert lookup.found is None
        assert repr(lookup) == "<Lookup hops=0 timeouts=2 0 to ask>"

    def test_the_first_behind_the_dead_is_the_owner(self):
        lookup = Lookup(90, [contact(80)], bits=7)
        beyond = (contact(102), contact(113))
        lookup.answered(lookup.next(), Route(False, (contact(85),), beyond))
        lookup.failed(lookup.next())
        assert lookup.next() is None
        assert lookup.found.owners == beyond
        assert lookup.found.via == contact(80)

    def test_it_ends_however_long_the_liars_go_on(self):
        lookup = Lookup(0, [contact(1)], bits=160)
        asked = 0
        while (peer := lookup.next()) is not None:
            asked += 1
            more = (Contact(peer.id + 1, f"N{peer.id + 1}"),)
            lookup.answered(peer, Route(False, more))
        assert asked == HOPS_MAX

    def test_fingers_take_log_n_hops_and_a_walk_takes_n(self):
        ring = Rehearsal(bits=7, judged=False)
        ring.bootstrap(*range(0, 128, 2))
        ring.fix_all_fingers()
        hops = [ring.look_up(t, 0).hops for t in range(1, 128)]
        walks = [ring.look_up(t, 0, walk=True).hops for t in range(1, 128)]
        assert max(hops) <= 7
        assert max(walks) == 64
        owners = {t: ring.look_up(t, 0).found.owner.id for t in range(1, 128)}
        assert owners == {t: (t + 1) // 2 * 2 % 128 for t in range(1, 128)}


@pytest.mark.parametrize(
    "wrong",
    [{"successors": 0}, {"stabilise_s": (0.0, 1.0)}, {"finger_s": (2.0, 1.0)}, {"probe_s": 0}],
)
def test_options_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match=r"must be|pause"):
        ChordOptions(**wrong)
