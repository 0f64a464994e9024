"""The tracker and the calls to it: minds, packets, tiers, the ring; without a socket."""

from __future__ import annotations

import asyncio
import random
import struct
from itertools import pairwise

import pytest

from dht.torrent import metadata, pex, tracker_udp
from dht.torrent.addresses import pack_all, parse_address, unpack_all
from dht.torrent.announcer import RETRY_S, Announcer
from dht.torrent.bencode import decode, encode
from dht.torrent.directory import LIFE_S, SLOTS, RingDirectory
from dht.torrent.directory import PEERS_MAX as PEERS_OF_A_SLOT
from dht.torrent.errors import ProtocolViolation, TorrentError, TrackerError
from dht.torrent.http import where
from dht.torrent.shape import BLOCK
from dht.torrent.storage import sha1
from dht.torrent.tracker import GIVEN_MAX, LIFE, PEERS_MAX, Announce, Scrape, Tracker
from dht.torrent.tracker_http import (
    Reply,
    announce_url,
    fields_of,
    read_announce,
    read_reply,
    read_scrape,
    scrape_url,
    write_failure,
    write_found,
    write_scrape,
)
from dht.torrent.tracker_udp import SLOT_S, UdpTracker

HASH = bytes(range(20))
HERE = "127.0.0.1"

# An entry of a ring's list that would never go away.
FOREVER = encode([[pack_all([(HERE, 5000)]), 10**18]])


def call(port, left=1, event="", wanted=-1, info_hash=HASH):
    return Announce(info_hash, b"-XX0000-%012d" % port, (HERE, port), left, event, wanted)


def tracker():
    return Tracker(random.Random(1), interval_s=60)


class TestTracker:
    def test_names_the_others_and_not_the_caller(self):
        made = tracker()
        for port in (1, 2, 3):
            found = made.announce(call(port), 0.0)
        assert sorted(port for _, (_, port) in found.peers) == [1, 2]
        assert (found.seeds, found.leeches) == (0, 3)

    def test_a_seed_is_given_no_seeds(self):
        made = tracker()
        made.announce(call(1, left=0), 0.0)
        made.announce(call(2), 0.0)
        found = made.announce(call(3, left=0), 0.0)
        assert [port for _, (_, port) in found.peers] == [2]
        assert (found.seeds, found.leeches) == (2, 1)

    def test_stopped_is_gone_at_once(self):
        made = tracker()
        made.announce(call(1), 0.0)
        assert made.announce(call(1, event="stopped"), 0.0).peers == []
        assert made.swarms == {}

    def test_who_does_not_call_is_forgotten(self):
        made = tracker()
        made.announce(call(1), 0.0)
        assert made.announce(call(2), 60.0 * LIFE).leeches == 2
        assert made.announce(call(2), 60.0 * LIFE + 61).leeches == 1

    def test_completed_counts_once(self):
        made = tracker()
        made.announce(call(1), 0.0)
        for _ in range(3):
            made.announce(call(1, left=0, event="completed"), 1.0)
        assert made.scrape([HASH]) == {HASH: Scrape(1, 1, 0)}
        assert made.scrape([b"?" * 20]) == {b"?" * 20: Scrape(0, 0, 0)}

    def test_answers_are_a_bounded_random_choice(self):
        made = tracker()
        for port in range(1, 400):
            made.announce(call(port), 0.0)
        one, other = (made.announce(call(999, wanted=10), 0.0).peers for _ in range(2))
        assert len(one) == len(other) == 10
        assert one != other
        assert len(made.announce(call(999, wanted=10**6), 0.0).peers) == GIVEN_MAX

    def test_a_full_swarm_refuses_newcomers_and_keeps_the_known(self):
        made = tracker()
        for port in range(1, PEERS_MAX + 1):
            made.announce(call(port, wanted=0), 0.0)
        with pytest.raises(TrackerError, match="as many peers"):
            made.announce(call(60_000), 0.0)
        made.announce(call(1, wanted=0), 0.0)

    @pytest.mark.parametrize(
        "bad",
        [call(1, info_hash=b"short"), call(0), call(70_000), call(1, event="nonsense")],
    )
    def test_refused(self, bad):
        with pytest.raises(TrackerError):
            tracker().announce(bad, 0.0)


class TestHttp:
    def test_any_byte_of_a_hash_goes_through_a_url(self):
        for info_hash in (HASH, bytes(range(236, 256)), b"&=%+ ?#/\0" + bytes(11)):
            sent = call(6881, left=7, event="started", info_hash=info_hash)
            url = announce_url("http://127.0.0.1:1/announce", sent, 5)
            got, compact = read_announce(url.partition("?")[2], HERE)
            assert (got.info_hash, got.peer_id, got.address) == (info_hash, *sent_of(sent))
            assert (got.left, got.event, compact) == (7, "started", True)

    def test_the_address_is_the_callers_whatever_it_says(self):
        got, _ = read_announce("info_hash=x&port=5&ip=10.0.0.1&left=0", "127.0.0.9")
        assert got.address == ("127.0.0.9", 5)

    @pytest.mark.parametrize("query", ["port=abc", "port=1&left=-x", "left=" + "9" * 40])
    def test_numbers_that_are_none(self, query):
        with pytest.raises(TrackerError, match="is no number"):
            read_announce(query, HERE)

    @pytest.mark.parametrize("compact", [True, False])
    def test_both_forms_of_an_answer_are_read(self, compact):
        made = tracker()
        made.announce(call(2), 0.0)
        data = write_found(made.announce(call(1), 0.0), 60, compact=compact)
        assert read_reply(data) == Reply(60, [(HERE, 2)], 0, 2)

    @pytest.mark.parametrize(
        ("data", "why"),
        [
            (b"<html>", "no bencode"),
            (b"le", "no dictionary"),
            (b"de", "no interval"),
            (write_failure("too late"), "too late"),
        ],
    )
    def test_bad_answers(self, data, why):
        with pytest.raises(TrackerError, match=why):
            read_reply(data)

    def test_odd_peers_are_left_out(self):
        peers = [{b"ip": b"127.0.0.1", b"port": 5}, {b"ip": 7, b"port": 5}, {}, 3]
        data = encode({b"interval": 99999999, b"peers": peers, b"warning message": b"beware"})
        found = read_reply(data)
        assert found.peers == [(HERE, 5)]
        assert found.interval_s == 7200
        assert found.warning == "beware"

    def test_scrape(self):
        data = write_scrape({HASH: Scrape(1, 2, 3)})
        assert read_scrape(data, HASH) == Scrape(1, 2, 3)
        assert read_scrape(data, b"?" * 20) == Scrape(0, 0, 0)
        url = scrape_url("http://127.0.0.1/x/announce?key=1", HASH)
        assert url.startswith("http://127.0.0.1/x/scrape?key=1&info_hash=%00%01")
        with pytest.raises(TrackerError, match="no scrape"):
            scrape_url("http://127.0.0.1/a", HASH)

    def test_a_key_may_come_several_times(self):
        assert fields_of("a=1&a=%ff&b") == {b"a": [b"1", b"\xff"], b"b": [b""]}

    @pytest.mark.parametrize(
        "url",
        ["http://example.org/announce", "http://10.0.0.1/a", "https://127.0.0.1/a", "udp://127.0.0.1",
         "http://127.0.0.1:99999/", "file:///etc/passwd", "http://169.254.169.254/latest"],
    )  # fmt: skip
    def test_nothing_beyond_this_machine_is_called(self, url):
        with pytest.raises(TrackerError):
            where(url)


def sent_of(sent):
    return sent.peer_id, sent.address


class TestUdp:
    SOURCE = (HERE, 5000)

    def server(self):
        return UdpTracker(tracker(), b"secret")

    def connection(self, server, now=0.0, source=SOURCE):
        packet = server.answer(tracker_udp.connect(7), source, now)
        return tracker_udp.read_connected(tracker_udp.body(packet, tracker_udp.CONNECT, 7))

    def test_an_exchange(self):
        server = self.server()
        connection = self.connection(server)
        for port in (1, 2):
            packet = tracker_udp.announce(connection, 9, call(port, event="started"), 5)
            assert len(packet) == 98
            answer = server.answer(packet, self.SOURCE, 1.0)
        rest = tracker_udp.body(answer, tracker_udp.ANNOUNCE, 9)
        assert tracker_udp.read_announced(rest) == Reply(60, [(HERE, 1)], 0, 2)
        answer = server.answer(tracker_udp.scrape(connection, 4, HASH), self.SOURCE, 1.0)
        rest = tracker_udp.body(answer, tracker_udp.SCRAPE, 4)
        assert tracker_udp.read_scraped(rest) == Scrape(0, 0, 2)

    def test_packets_are_bep_15s(self):
        assert tracker_udp.connect(1) == bytes.fromhex("00000417271019800000000000000001")
        packet = tracker_udp.announce(2, 3, call(6881, left=9, event="completed"), 8)
        fields = struct.unpack("!QII20s20sQQQIIIiH", packet)
        assert fields[:3] == (2, 1, 3)
        assert fields[5:] == (0, 9, 0, 1, 0, 8, -1, 6881)

    @pytest.mark.parametrize("later", [0.0, SLOT_S])
    def test_an_id_is_good_for_a_minute_at_least(self, later):
        server = self.server()
        connection = self.connection(server)
        answer = server.answer(tracker_udp.scrape(connection, 4, HASH), self.SOURCE, later)
        assert tracker_udp.body(answer, tracker_udp.SCRAPE, 4) is not None

    @pytest.mark.parametrize(
        ("source", "now"), [(SOURCE, 2 * SLOT_S), ((HERE, 5001), 0.0), (("127.0.0.2", 5000), 0.0)]
    )
    def test_not_for_ever_and_not_for_another(self, source, now):
        server = self.server()
        packet = tracker_udp.announce(self.connection(server), 9, call(1), 5)
        with pytest.raises(TrackerError, match="connection id"):
            tracker_udp.body(server.answer(packet, source, now), tracker_udp.ANNOUNCE, 9)
        assert server._tracker.swarms == {}

    @pytest.mark.parametrize("packet", [b"", b"x" * 15])
    def test_what_is_no_query_gets_no_answer(self, packet):
        assert self.server().answer(packet, self.SOURCE, 0.0) is None

    def test_a_stranger_gets_no_more_than_he_sent(self):
        """Before the id is shown, an answer is no amplifier."""
        server = self.server()
        for packet in (tracker_udp.connect(1), b"x" * 98):
            assert len(server.answer(packet, self.SOURCE, 0.0)) <= max(len(packet), 60)

    def test_a_short_announce_is_refused(self):
        server = self.server()
        packet = tracker_udp.announce(self.connection(server), 9, call(1), 5)[:-1]
        with pytest.raises(TrackerError, match="98 bytes"):
            tracker_udp.body(server.answer(packet, self.SOURCE, 0.0), tracker_udp.ANNOUNCE, 9)

    def test_answers_to_others_are_not_ours(self):
        packet = struct.pack("!IIQ", 0, 8, 1)
        assert tracker_udp.body(packet, tracker_udp.CONNECT, 7) is None
        assert tracker_udp.body(packet, tracker_udp.ANNOUNCE, 8) is None
        assert tracker_udp.body(b"short", tracker_udp.CONNECT, 7) is None
        with pytest.raises(TrackerError, match="too short"):
            tracker_udp.read_announced(b"short")


class TestAnnouncer:
    REPLY = Reply(60, [])

    def announcer(self, tiers, complete=False):
        return Announcer(tiers, complete=complete, now=0.0, rng=random.Random(3))

    def test_started_then_periodic_completed_once_and_stopped(self):
        made = self.announcer([["a"]])
        first = made.due(0.0)
        assert first == ("a", "started")
        assert made.due(0.0) is None  # one at a time
        made.answered(first, self.REPLY, 0.0)
        assert made.due(59.0) is None
        second = made.due(60.0)
        assert second.event == ""
        made.answered(second, self.REPLY, 60.0)
        made.complete(70.0)
        made.complete(70.0)
        third = made.due(70.0)
        assert third.event == "completed"
        made.answered(third, self.REPLY, 70.0)
        fourth = made.due(130.0)
        assert fourth.event == ""
        made.answered(fourth, self.REPLY, 130.0)
        made.leave(140.0)
        assert made.due(140.0) == ("a", "stopped")

    def test_no_completed_from_who_began_complete(self):
        made = self.announcer([["a"]], complete=True)
        made.answered(made.due(0.0), self.REPLY, 0.0)
        made.complete(1.0)
        assert made.due(1.0) is None

    def test_no_stopped_to_who_does_not_know_us(self):
        made = self.announcer([["a"]])
        made.due(0.0)
        made.failed(0.0)
        made.leave(0.0)
        assert made.gone
        assert made.due(0.0) is None

    def test_stopped_waits_for_the_answer_to_what_was_said_before(self):
        """Two calls under way at once may overtake each other, and who had left is back."""
        made = self.announcer([["a"]])
        made.answered(made.due(0.0), self.REPLY, 0.0)
        made.complete(1.0)
        completed = made.due(1.0)
        made.leave(2.0)
        assert made.due(2.0) is None
        assert not made.gone
        made.answered(completed, self.REPLY, 3.0)
        stopped = made.due(3.0)
        assert stopped == ("a", "stopped")
        assert not made.gone
        made.answered(stopped, self.REPLY, 4.0)
        assert made.gone

    def test_who_leaves_at_once_still_tells_that_it_completed(self):
        made = self.announcer([["a"]])
        made.answered(made.due(0.0), self.REPLY, 0.0)
        made.complete(1.0)
        made.leave(1.0)
        last = []
        while not made.gone:
            call = made.due(1.0)
            last.append(call.event)
            made.answered(call, self.REPLY, 1.0)
        assert last == ["completed", "stopped"]

    def test_a_tracker_that_does_not_hear_the_last_call_is_left_alone(self):
        made = self.announcer([["a"], ["b"]])
        made.answered(made.due(0.0), self.REPLY, 0.0)
        made.leave(1.0)
        made.due(1.0)
        made.failed(2.0)
        assert made.gone

    @pytest.mark.parametrize("known", [False, True])
    def test_completed_during_a_call_is_told_right_after_it(self, known):
        made = self.announcer([["a"]])
        now = 0.0
        if known:
            made.answered(made.due(0.0), self.REPLY, 0.0)
            now = 60.0
        under_way = made.due(now)
        made.complete(now)
        made.answered(under_way, self.REPLY, now + 1)
        assert made.due(now + 1) == ("a", "completed")

    def test_tiers_in_order_and_whoever_answers_comes_to_the_front(self):
        made = self.announcer([["a", "b", "c"], ["d"]])
        first_tier = []
        for _ in range(2):
            first_tier.append(made.due(0.0).url)
            made.failed(0.0)
        third = made.due(0.0)
        assert {*first_tier, third.url} == {"a", "b", "c"}
        made.answered(third, self.REPLY, 0.0)
        assert made.due(60.0).url == third.url

    def test_the_next_tier_only_if_nobody_before_it_answers(self):
        made = self.announcer([["a"], ["d"]])
        assert made.due(0.0).url == "a"
        made.failed(0.0)
        assert made.due(0.0) == ("d", "started")

    def test_nobody_at_all(self):
        made, now, tries = self.announcer([["a"]]), 0.0, []
        for _ in range(5):
            now = made.next_deadline()
            tries.append(now)
            made.due(now)
            made.failed(now)
        assert [b - a for a, b in pairwise(tries)] == [
            RETRY_S, 2 * RETRY_S, 4 * RETRY_S, 8 * RETRY_S
        ]  # fmt: skip

    def test_without_trackers_nothing_is_due(self):
        assert self.announcer([]).next_deadline() is None


class FakeRing:
    """Versions and compare-and-swap; `busy` writers come in between."""

    def __init__(self, busy=0):
        self.values = {}
        self.busy = busy

    async def get(self, key):
        found = self.values.get(key, (b"", 0))
        await asyncio.sleep(0)  # meanwhile others write
        return found

    async def put(self, key, value, version, life_s):
        if self.busy:
            self.busy -= 1
            old, number = self.values.get(key, (b"", 0))
            self.values[key] = (old, number + 1)
        if self.values.get(key, (b"", 0))[1] != version:
            return False
        self.values[key] = (value, version + 1)
        return True


class TestRing:
    async def test_peers_find_one_another(self):
        ring = RingDirectory(FakeRing())
        for port in range(5000, 5010):
            await ring.announce(HASH, (HERE, port), 0.0)
        found = await ring.find(HASH, 1.0)
        assert sorted(found) == [(HERE, port) for port in range(5000, 5010)]
        assert await ring.find(b"?" * 20, 1.0) == []

    async def test_they_are_forgotten_and_can_leave(self):
        ring = RingDirectory(FakeRing())
        await ring.announce(HASH, (HERE, 5000), 0.0)
        await ring.announce(HASH, (HERE, 5001), 100.0)
        assert await ring.find(HASH, LIFE_S + 1) == [(HERE, 5001)]
        await ring.withdraw(HASH, (HERE, 5001), 101.0)
        assert await ring.find(HASH, LIFE_S + 1) == []

    async def test_others_that_write_at_the_same_time_lose_nothing(self):
        ring = RingDirectory(FakeRing(busy=3))
        await ring.announce(HASH, (HERE, 5000), 0.0)
        assert await ring.find(HASH, 0.0) == [(HERE, 5000)]
        with pytest.raises(TrackerError, match="wrote first"):
            await RingDirectory(FakeRing(busy=99)).announce(HASH, (HERE, 5000), 0.0)

    async def test_a_hundred_who_announce_at_once_lose_nobody(self):
        """Each reads before any writes; who loses the race a few times comes back later."""
        ring, left = RingDirectory(FakeRing()), {(HERE, port) for port in range(5000, 5100)}
        while left:
            waiting = sorted(left)
            said = await asyncio.gather(
                *(ring.announce(HASH, peer, 0.0) for peer in waiting), return_exceptions=True
            )
            assert {type(error) for error in said} <= {type(None), TrackerError}
            left -= {peer for peer, error in zip(waiting, said, strict=True) if error is None}
        assert len(await ring.find(HASH, 0.0)) == 100

    async def test_a_list_is_bounded_and_keeps_who_came_last(self):
        fake = FakeRing()
        ring = RingDirectory(fake)
        for number in range(2 * PEERS_OF_A_SLOT):
            await ring.announce(HASH, (HERE, 5000 + SLOTS * number), float(number))
        found = await ring.find(HASH, 0.0 + 2 * PEERS_OF_A_SLOT)
        last = 5000 + SLOTS * (2 * PEERS_OF_A_SLOT - 1)
        assert len(found) == PEERS_OF_A_SLOT
        assert max(found) == (HERE, last)
        assert max(len(value) for value, _ in fake.values.values()) < 2000

    async def test_a_write_that_nobody_answered_is_looked_up_and_not_done_twice(self):
        class Mute(FakeRing):
            """Writes, and does not say so."""

            writes = 0

            async def put(self, key, value, version, life_s):
                self.writes += 1
                await super().put(key, value, version, life_s)
                return False

        fake = Mute()
        await RingDirectory(fake).announce(HASH, (HERE, 5000), 0.0)
        assert fake.writes == 1

    async def test_what_can_be_read_is_found(self):
        class Torn(FakeRing):
            """Some of the lists cannot be read."""

            torn = ()

            async def get(self, key):
                if key in self.torn:
                    raise OSError("nobody who holds it answers")
                return await super().get(key)

        fake = Torn()
        ring = RingDirectory(fake)
        await ring.announce(HASH, (HERE, 5000), 0.0)
        await ring.announce(HASH, (HERE, 5001), 0.0)
        one, other = fake.values
        fake.torn = (other,)
        assert len(await ring.find(HASH, 0.0)) == 1
        fake.torn = (one, other)
        with pytest.raises(TrackerError, match="nobody who holds it"):
            await ring.find(HASH, 0.0)

    async def test_what_others_put_there_is_not_trusted(self):
        fake = FakeRing()
        ring = RingDirectory(fake)
        await ring.announce(HASH, (HERE, 5000), 0.0)
        for key in list(fake.values):
            for junk in (
                b"junk",
                b"de",
                b"l1:xe",
                b"ll1:x1:yee",
                encode([[b"short", 100]]),
                FOREVER,
            ):
                fake.values[key] = (junk, 1)
                assert await ring.find(HASH, 0.0) == []


class TestMetadata:
    INFO = bytes(range(256)) * 200  # four parts

    def fetch(self):
        return metadata.MetadataFetch(sha1(self.INFO))

    def serve(self, fetch, peer, request, info=INFO, now=0.0):
        return fetch.receive(peer, metadata.answer(info, request), now)

    def test_is_fetched_from_one_peer_in_parts(self):
        fetch = self.fetch()
        fetch.offer("a", len(self.INFO))
        requests = fetch.requests(0.0)
        assert len(requests) == -(-len(self.INFO) // BLOCK)
        found = [self.serve(fetch, peer, request) for peer, request in requests]
        assert found == [None, None, None, self.INFO]
        assert fetch.requests(1.0) == []

    def test_a_slow_peer_is_passed_over_and_a_refusing_one_forgotten(self):
        fetch = self.fetch()
        fetch.offer("slow", len(self.INFO))
        assert fetch.requests(0.0)[0][0] == "slow"
        fetch.offer("b", len(self.INFO))
        assert fetch.requests(metadata.PATIENCE_S)[0][0] == "b"
        refusal = encode({b"msg_type": metadata.REJECT, b"piece": 0})
        assert fetch.receive("b", refusal, 1.0) is None
        assert fetch.requests(11.0)[0][0] == "slow"

    def test_wrong_metadata_shows_who_lied(self):
        fetch = self.fetch()
        fetch.offer("a", len(self.INFO))
        *requests, (peer, last) = fetch.requests(0.0)
        wrong = bytes(len(self.INFO))
        for _, request in requests:
            self.serve(fetch, peer, request, wrong)
        with pytest.raises(ProtocolViolation, match="wrong hash"):
            self.serve(fetch, peer, last, wrong)

    @pytest.mark.parametrize("size", [0, -1, metadata.METADATA_MAX + 1, b"9", None])
    def test_sizes_are_bounded_before_anything_is_asked(self, size):
        fetch = self.fetch()
        fetch.offer("a", size)
        assert fetch.requests(0.0) == []

    def test_who_has_none_says_so(self):
        request = encode({b"msg_type": metadata.REQUEST, b"piece": 0})
        says = decode(metadata.answer(None, request))
        assert says == {b"msg_type": metadata.REJECT, b"piece": 0}
        assert metadata.answer(b"x", encode({b"msg_type": 9, b"piece": 0})) is None


class TestPeerExchange:
    def test_tells_what_has_changed(self):
        known = set()
        a, b = (HERE, 1), (HERE, 2)
        assert list(pex.read(pex.message(known, {a: True, b: False}))) == [a, b]
        assert pex.message(known, {a: True, b: False}) is None
        says = decode(pex.message(known, {b: False}))
        assert says[b"dropped"] == pack_all([a])

    def test_is_bounded(self):
        many = {(HERE, port): False for port in range(1, 200)}
        assert len(list(pex.read(pex.message(set(), many)))) == pex.CHANGES_MAX

    @pytest.mark.parametrize("payload", [b"", b"junk", b"le", b"d5:addedi1ee"])
    def test_nonsense(self, payload):
        with pytest.raises(ProtocolViolation):
            list(pex.read(payload))


class TestAddresses:
    def test_there_and_back(self):
        addresses = [(HERE, 1), ("127.255.0.9", 65_535)]
        assert unpack_all(pack_all(addresses) + b"rest") == addresses

    def test_as_typed(self):
        assert parse_address("6881") == parse_address("localhost:6881") == (HERE, 6881)
        for bad in ("", "x", "10.0.0.1:5", "127.0.0.1:0", "127.0.0.1:99999"):
            with pytest.raises(TorrentError, match="is no address here"):
                parse_address(bad)
