"""The simulated network: order, cuts in one direction or both, and what happens to late mail."""

from __future__ import annotations

import pytest
from world_kit import address, passes, radio_world

from netstack.runtime.endpoint import PortTaken
from netstack.runtime.policy import PERFECT, LinkPolicy
from netstack.runtime.simulation.network import DATAGRAM_BYTES_MAX, EPHEMERAL_PORT

STEADY = LinkPolicy(delay_s=0.01)


@pytest.fixture
def net():
    world, radio = radio_world()
    world.network.base_policy = STEADY
    yield world, radio
    world.close()


def everyone(radio, text):
    """Each node sends to each."""
    for source in radio.endpoints:
        for destination in radio.endpoints:
            if source != destination:
                radio.say(source, destination, text + source[1:].encode())


def heard(radio):
    """Who has heard from whom since the last time, as {n1: "23"}."""
    result = {}
    for name, datagrams in radio.heard.items():
        result[name] = "".join(sorted(datagram[-1:].decode() for datagram in datagrams))
        datagrams.clear()
    return result


class TestADatagram:
    def test_arrives_after_the_delay_of_the_link(self, net):
        world, radio = net
        radio.say("n1", "n2", b"hello")
        passes(world, 0.0099)
        assert radio.heard["n2"] == []
        passes(world, 0.0002)
        assert radio.heard["n2"] == [b"hello"]
        assert (world.network.delivered, world.network.dropped) == (1, 0)

    @pytest.mark.parametrize(
        ("jitter_s", "gap_s"), [(0.0, 0.001), (0.0, 0.0), (0.02, 0.0), (0.02, 0.001)]
    )
    def test_keeps_its_place_among_the_others(self, net, jitter_s, gap_s):
        """Jitter gives many the same time of arrival: that of the latest before them."""
        world, radio = net
        world.network.base_policy = LinkPolicy(delay_s=0.01, jitter_s=jitter_s)
        sent = [b"%d" % number for number in range(20)]
        for datagram in sent:
            radio.say("n1", "n2", datagram)
            passes(world, gap_s)
        passes(world, 1.0)
        assert radio.heard["n2"] == sent

    def test_to_nobody_is_dropped(self, net):
        world, radio = net
        radio.endpoints["n1"].send([b"x"], ("10.0.0.1", 9))
        passes(world, 1.0)
        assert (world.network.delivered, world.network.dropped) == (0, 1)

    def test_is_dropped_if_it_is_longer_than_any_socket_sends(self, net):
        world, radio = net
        radio.say("n1", "n2", bytes(DATAGRAM_BYTES_MAX), bytes(DATAGRAM_BYTES_MAX + 1))
        passes(world, 1.0)
        assert list(map(len, radio.heard["n2"])) == [DATAGRAM_BYTES_MAX]
        assert world.network.dropped == 1

    def test_may_be_for_its_own_sender(self, net):
        world, radio = net
        radio.say("n1", "n1", b"note to self")
        passes(world, 1.0)
        assert radio.heard["n1"] == [b"note to self"]

    def test_passes_the_links_of_the_world_as_they_are_when_it_is_sent(self, net):
        world, radio = net
        world.network.base_policy = LinkPolicy(loss=1.0)
        radio.say("n1", "n2", b"lost")
        world.network.base_policy = PERFECT
        radio.say("n1", "n2", b"found")
        passes(world, 1.0)
        assert radio.heard["n2"] == [b"found"]
        assert world.network.dropped == 1

    def test_passes_the_faults_of_its_senders_links_too(self, net):
        world, radio = net
        faults = world.nodes["n1"].runtime.faults
        faults.apply({"links": {"10.0.0.1:7002": {"cut": True}}})
        everyone(radio, b"")
        passes(world, 1.0)
        assert heard(radio) == {"n1": "23", "n2": "3", "n3": "12"}
        world.heal()
        everyone(radio, b"")
        passes(world, 1.0)
        assert heard(radio) == {"n1": "23", "n2": "13", "n3": "12"}


class TestACut:
    def test_between_groups_is_one_in_both_directions(self, net):
        world, radio = net
        world.network.partition([["n1"], ["n2", "n3"]])
        everyone(radio, b"")
        passes(world, 1.0)
        assert heard(radio) == {"n1": "", "n2": "3", "n3": "2"}
        assert world.network.dropped == 4

    def test_leaves_alone_who_is_in_no_group(self, net):
        world, radio = net
        world.network.partition([["n1"], ["n2"]])
        everyone(radio, b"")
        passes(world, 1.0)
        assert heard(radio) == {"n1": "3", "n2": "3", "n3": "12"}

    def test_may_part_all_from_all(self, net):
        world, radio = net
        world.network.partition(iter([iter(["n1"]), iter(["n2"]), iter(["n3"])]))
        everyone(radio, b"")
        passes(world, 1.0)
        assert heard(radio) == {"n1": "", "n2": "", "n3": ""}

    def test_of_one_way_leaves_the_other(self, net):
        world, radio = net
        world.network.cut("n1", "n2")
        everyone(radio, b"")
        passes(world, 1.0)
        assert heard(radio) == {"n1": "23", "n2": "3", "n3": "12"}

    def test_comes_on_top_of_those_there_are_until_all_are_healed(self, net):
        world, radio = net
        world.network.partition([["n1"], ["n2", "n3"]])
        world.network.partition([["n1", "n2"], ["n3"]])
        everyone(radio, b"")
        passes(world, 1.0)
        assert heard(radio) == {"n1": "", "n2": "", "n3": ""}
        world.network.heal()
        everyone(radio, b"")
        passes(world, 1.0)
        assert heard(radio) == {"n1": "23", "n2": "13", "n3": "12"}

    def test_does_not_stop_what_is_under_way(self, net):
        world, radio = net
        radio.say("n1", "n2", b"before")
        world.network.cut("n1", "n2")
        radio.say("n1", "n2", b"after")
        passes(world, 1.0)
        assert radio.heard["n2"] == [b"before"]


class TestAProcessThatIsKilled:
    def test_has_sent_what_it_had_sent(self, net):
        world, radio = net
        radio.say("n1", "n2", b"last words")
        world.crash("n1")
        passes(world, 1.0)
        assert radio.heard["n2"] == [b"last words"]

    def test_sends_nothing_any_more(self, net):
        world, radio = net
        world.crash("n1")
        radio.say("n1", "n2", b"ghost")
        passes(world, 1.0)
        assert radio.heard["n2"] == []

    def test_sends_nothing_of_what_its_own_links_held_up(self, net):
        world, radio = net
        world.nodes["n1"].runtime.faults.apply({"links": {"10.0.0.1:7002": {"delay_s": 0.5}}})
        life = world.nodes["n1"].life
        world.loop.call_soon(radio.say, "n1", "n2", b"held up", context=life.context)
        passes(world, 0.1)
        world.crash("n1")
        passes(world, 1.0)
        assert radio.heard["n2"] == []

    def test_receives_nothing_that_is_under_way(self, net):
        world, radio = net
        radio.say("n1", "n2", b"too late")
        world.crash("n2")
        passes(world, 1.0)
        assert radio.heard["n2"] == []
        assert world.network.dropped == 1

    def test_has_given_its_port_to_the_next_life(self, net):
        world, radio = net
        world.crash("n2")
        world.restart("n2")
        passes(world, 0.001)
        radio.say("n1", "n2", b"hello again")
        passes(world, 1.0)
        assert radio.heard["n2"] == [b"hello again"]


class TestAProcessThatIsPaused:
    def test_finds_in_order_what_came_meanwhile(self, net):
        world, radio = net
        world.pause("n2")
        for number in range(5):
            radio.say("n1", "n2", b"%d" % number)
            passes(world, 0.1)
        assert radio.heard["n2"] == []
        world.resume("n2")
        radio.say("n1", "n2", b"5")
        passes(world, 0.1)
        assert radio.heard["n2"] == [b"0", b"1", b"2", b"3", b"4", b"5"]

    def test_takes_its_mail_with_it_when_it_is_killed(self, net):
        world, radio = net
        world.pause("n2")
        radio.say("n1", "n2", b"unread")
        passes(world, 0.1)
        world.crash("n2")
        world.restart("n2")
        passes(world, 0.1)
        assert radio.heard["n2"] == []


class TestAPort:
    def test_is_one_sockets_and_the_refusal_says_whose(self, net):
        world, _ = net
        with pytest.raises(PortTaken, match=r"UDP port 7001 on 10\.0\.0\.1 is taken by n1"):
            world.network.bind("n3", address("n1"))

    def test_is_free_after_a_close(self, net):
        world, radio = net
        radio.endpoints["n1"].close()
        again = world.network.bind("n3", address("n1"))
        radio.endpoints["n1"].close()  # the old one's second close is not the new one's first
        received = []
        again.set_receiver(lambda datagrams, *_: received.extend(datagrams))
        radio.say("n2", "n1", b"for n3")
        passes(world, 1.0)
        assert received == [b"for n3"]

    def test_of_zero_is_one_of_its_own_each_time(self, net):
        world, _ = net
        ports = [world.network.bind("n1", ("10.0.0.1", 0)).address[1] for _ in range(5)]
        assert len(set(ports)) == 5
        assert 0 not in ports

    def test_of_zero_is_none_that_is_taken(self, net):
        world, _ = net
        world.network.bind("n1", ("10.0.0.1", EPHEMERAL_PORT))
        assert world.network.bind("n1", ("10.0.0.1", 0)).address[1] != EPHEMERAL_PORT
