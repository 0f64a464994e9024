"""No packet holds a link for long: sizes follow the rate, and a fast path is bounded by nothing."""

import pytest
from transport_kit import Pair

from netstack.transport.config import BASE_MTU, TransportConfig
from netstack.transport.mtu import LADDER, MtuDiscovery
from netstack.transport.outgoing import CAPPED_PACKETS_MIN
from netstack.transport.path_rate import HOLD_S, TELLING_BYTES, PathRate

LOOPBACK_S = 0.00005
LARGEST = LADDER[-1]

# That drops none of the large packets: many lost in a row would be taken for a black hole.
LONG_QUEUE = 100_000_000


class TestRate:
    """Of one path."""

    def test_nothing_is_known_at_first_and_of_another_path(self):
        rate = PathRate()
        assert rate.packet_bytes_max == 0
        rate.sample(1000, 0.001, BASE_MTU)
        rate.restart()
        assert rate.packet_bytes_max == 0

    def test_faster_is_believed_of_anything(self):
        rate = PathRate()
        rate.sample(80, 0.0001, 80)
        assert rate.bytes_per_s == pytest.approx(800_000)
        assert rate.packet_bytes_max == pytest.approx(8_000)

    def test_slower_is_believed_of_what_took_too_long(self):
        rate = PathRate()
        rate.sample(65_507, 0.0001, 65_507)
        rate.sample(65_507, 0.65, 65_507)
        assert rate.bytes_per_s == pytest.approx(65_507 / 0.65)

    def test_what_came_within_the_time_lowers_nothing_however_little_it_was(self):
        rate = PathRate()
        rate.sample(65_507, 0.0001, 65_507)
        rate.sample(2_000, HOLD_S, 2_000)
        assert rate.bytes_per_s == pytest.approx(655_070_000)

    @pytest.mark.parametrize(("size", "believed"), [(TELLING_BYTES - 1, False), (600, True)])
    def test_a_small_message_that_was_late_says_nothing(self, size, believed):
        rate = PathRate()
        rate.sample(65_507, 0.0001, 65_507)
        rate.sample(size, 0.1, size)
        assert (rate.bytes_per_s < 655_070_000) is believed


class TestSizes:
    """What MtuDiscovery makes of a limit."""

    def found(self, size: int) -> MtuDiscovery:
        mtu = MtuDiscovery(LARGEST)
        mtu.probe_arrived(size, 0.0)
        return mtu

    @pytest.mark.parametrize(
        ("limit", "size"),
        [
            (0, BASE_MTU), (1_451, BASE_MTU), (1_452, 1_452), (8_971, 4_096), (8_972, 8_972),
            (39_999, 32_768), (40_000, 40_000), (float("inf"), 40_000),
        ],
    )  # fmt: skip
    def test_the_largest_step_that_passes_in_time(self, limit, size):
        assert self.found(40_000).fit(limit, BASE_MTU) == size

    def test_a_rate_that_wavers_changes_nothing_until_the_size_is_twice_too_large(self):
        mtu = self.found(40_000)
        assert mtu.fit(4_486, 8_972) == 8_972
        assert mtu.fit(4_485, 8_972) == 4_096

    def test_what_the_path_does_not_carry_any_more_is_not_kept(self):
        mtu = self.found(9_000)
        assert mtu.timed_out(3, 1.0)
        assert mtu.fit(1e9, 8_972) == BASE_MTU
        assert mtu.fit(0, 8_972) == BASE_MTU

    def test_a_probe_waits_until_its_size_passes_in_time(self):
        mtu = MtuDiscovery(LARGEST)
        mtu.packet_was_full(0.0)
        assert mtu.next_probe(1_451) == 0
        assert not mtu.probing
        assert mtu.searching
        assert mtu.next_probe(1_452) == 1_452


def sizes(pair: Pair, since: float = 0.0) -> list[int]:
    return [len(data) for at, data in pair.data_packets("client") if at >= since]


def send(pair: Pair, nbytes: int, *, within_s: float = 60.0) -> int:
    """One stream with so many bytes, to its end."""
    streams = pair.client.connection.streams
    stream = streams.open()
    pair.client.connection.write(stream, bytes(nbytes), fin=True)
    assert pair.run(within_s, lambda: stream in pair.server.fins)
    pair.run(0.1)  # the last acknowledgements
    return stream


class TestSlowLinks:
    """A connection over a link with a rate."""

    @pytest.mark.parametrize(
        ("rate", "largest"), [(100_000, BASE_MTU), (1_000_000, 8_972), (5_000_000, 32_768)]
    )
    def test_a_packet_holds_the_link_for_10_ms_at_the_most(self, rate, largest):
        pair = Pair(delay=LOOPBACK_S)
        pair.slow_down("client", rate, LONG_QUEUE)
        send(pair, 2 * rate)
        # A rate that is measured a little too high finds the step above it: not one of twice that.
        assert largest <= max(sizes(pair)) <= max(BASE_MTU, 1.2 * rate * HOLD_S)

    @pytest.mark.parametrize("congestion", ["newreno", "cubic", "bbr"])
    def test_whatever_the_controller(self, congestion):
        pair = Pair(TransportConfig(congestion=congestion), delay=LOOPBACK_S)
        pair.slow_down("client", 100_000)
        send(pair, 400_000)
        assert max(sizes(pair)) == BASE_MTU

    def test_a_path_that_slows_down_is_noticed_with_the_first_packet_that_comes_through(self):
        pair = Pair(delay=LOOPBACK_S)
        send(pair, 8_000_000)
        assert max(sizes(pair)) == LARGEST
        pair.slow_down("client", 100_000)
        began = pair.now
        send(pair, 200_000)
        # One of them keeps the link for 0.66 s, and what is asked for meanwhile is as large.
        assert max(sizes(pair, began + 0.67)) == BASE_MTU

    def test_and_when_it_is_fast_again_nothing_has_to_be_found_anew(self):
        pair = Pair(delay=LOOPBACK_S)
        send(pair, 8_000_000)
        pair.slow_down("client", 1_000_000, LONG_QUEUE)
        send(pair, 1_000_000)
        assert sizes(pair)[-1] < LARGEST == pair.client.connection.mtu.current
        pair.slow_down("client", 0)
        send(pair, 1_000_000)  # its first acknowledgements tell
        began = pair.now
        send(pair, 8_000_000)
        assert sizes(pair, began).count(LARGEST) > 100

    def test_a_message_waits_for_no_more_of_the_bulk_than_it_was_said_to(self):
        """Beside 400 kB, a word every 40 ms."""

        def longest_wait(queue_s_max: float) -> float:
            pair = Pair(TransportConfig(queue_s_max=queue_s_max), delay=LOOPBACK_S)
            client = pair.client.connection
            words, bulk = client.streams.open(), client.streams.open()
            client.write(words, bytes(40))
            pair.run(0.1)
            pair.slow_down("client", 100_000)
            client.write(bulk, bytes(400_000), fin=True)
            said, waited = [], [0.0]
            while bulk not in pair.server.fins:
                if pair.now > 0.04 * len(said):
                    said.append(pair.now)
                    client.write(words, bytes(40))
                pair.run(0.002)
                heard = len(pair.server.received[words]) // 40 - 1
                # The first window, of 12,000 bytes, leaves before anything is known of the link.
                waited += [pair.now - at for at in said[heard:] if at > 0.5]
            return max(waited)

        # That time, one packet that was about to leave, and what a rate measured is wrong by.
        assert longest_wait(0.03) < 0.08
        assert longest_wait(float("inf")) > 0.25

    def test_however_slow_the_link_some_packets_are_under_way(self):
        pair = Pair(TransportConfig(queue_s_max=0.001), delay=LOOPBACK_S)
        pair.slow_down("client", 10_000)
        client = pair.client.connection
        client.write(client.streams.open(), bytes(100_000))
        pair.run(5.0)  # the first window is through
        assert CAPPED_PACKETS_MIN == 4
        for _ in range(20):
            pair.run(0.1)
            # One of them may be half-way over the last byte that was allowed.
            assert 3 * BASE_MTU <= client.recovery.bytes_in_flight < 5 * BASE_MTU

    def test_such_a_bound_takes_nothing_of_the_rate(self):
        pair = Pair(TransportConfig(queue_s_max=0.03), delay=0.02)
        pair.slow_down("client", 1_000_000)
        began = pair.now
        send(pair, 4_000_000)
        assert pair.now - began < 4.1 * 1.1


class TestFastPaths:
    """What it costs where nothing needs a bound: nothing."""

    def test_bulk_finds_the_largest_size_in_as_many_round_trips_as_there_are_steps(self):
        pair = Pair(delay=LOOPBACK_S)
        began = pair.now
        send(pair, 8_000_000)
        largest_at = next(at for at, d in pair.data_packets("client") if len(d) == LARGEST)
        # One more than steps: the first probe waits for something to be known of the rate.
        assert largest_at - began < (len(LADDER) + 1) * 2 * LOOPBACK_S + 1e-9

    def test_messages_that_never_fill_a_window_find_it_too(self):
        pair = Pair(delay=LOOPBACK_S)
        for _ in range(len(LADDER) + 2):
            send(pair, 8_000)
            pair.run(0.05)
        assert pair.client.connection.mtu.current == LARGEST
        began = pair.now
        send(pair, 60_000)
        assert len([size for size in sizes(pair, began) if size > 100]) == 1

    def test_an_answer_held_back_is_no_slow_path(self):
        """A message of one packet now and then: each is acknowledged 25 ms late."""
        pair = Pair(delay=LOOPBACK_S)
        send(pair, 8_000_000)
        client = pair.client.connection
        stream, began = client.streams.open(), pair.now
        for _ in range(10):
            client.write(stream, bytes(60_000))
            pair.run(0.1)
        assert [size for size in sizes(pair, began) if size > 100] == [
            pytest.approx(60_000, abs=100)
        ] * 10

    def test_a_peer_that_was_busy_costs_some_messages_in_pieces(self):
        pair = Pair(delay=LOOPBACK_S)
        send(pair, 8_000_000)
        client = pair.client.connection
        stream = client.streams.open()

        def pieces() -> int:
            began = pair.now
            client.write(stream, bytes(60_000))
            pair.run(0.3)
            return len([size for size in sizes(pair, began) if size > 100])

        assert pieces() == 1
        pair.delay = 0.1
        pieces()
        pair.delay = LOOPBACK_S
        counts = [pieces() for _ in range(3)]
        assert counts[0] > 1
        assert counts[2] == 1
        assert sum(counts) < 25

    def test_a_datagram_is_not_cut_so_it_may_be_as_large_as_what_the_path_carries(self):
        pair = Pair(delay=LOOPBACK_S)
        send(pair, 8_000_000)
        pair.slow_down("client", 1_000_000, LONG_QUEUE)
        send(pair, 1_000_000)
        client, began = pair.client.connection, pair.now
        assert client.outgoing.size < 30_000 < client.mtu.current
        client.send_datagram(bytes(30_000))
        client.send_datagram(b"the next")
        assert pair.run(2.0, lambda: len(pair.server.events) == 2)
        assert [len(event.data) for event in pair.server.events] == [30_000, 8]
        assert max(sizes(pair, began)) == pytest.approx(30_000, abs=100)


def test_a_bound_for_queues_is_a_time():
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="queue_s_max must be more than 0"):
            TransportConfig(queue_s_max=wrong)
