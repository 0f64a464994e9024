"""Datagram sockets on loopback: both kinds, on both loops, and bad links before them."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from itertools import pairwise

import pytest
from endpoint_kit import LOCALHOST, Inbox, Net, nets, scene, turns
from runtime_kit import Hands, Later

from netstack.runtime.endpoint import CE, ECT0, NOT_ECT, EndpointError, PortTaken
from netstack.runtime.faulty_endpoint import FaultyEndpoint
from netstack.runtime.gso_endpoint import BURST_MAX, SEGMENTS_MAX, GsoEndpoint
from netstack.runtime.policy import PERFECT, LinkPolicy, LinkTable
from netstack.runtime.simulation.loop import VirtualLoop

# As <linux/in.h> has it: have ICMP errors reported, which a socket that is not connected has not.
IP_RECVERR = 11


@pytest.fixture(params=nets())
def net(request):
    made = Net(*request.param)
    yield made
    made.close()


class TestADatagram:
    @scene
    async def test_arrives_whole_whatever_its_length(self, net):
        here, there, inbox = await net.pair()
        for size in (0, 1, 1200, 9000, 65_507):
            datagram = random.Random(size).randbytes(size)
            here.send([datagram], there.address)
            await inbox.until(1)
            assert inbox.received == [datagram]
            inbox.received.clear()

    @scene
    async def test_arrives_in_order_with_the_others_and_once(self, net):
        here, there, inbox = await net.pair()
        sent = [b"%d" % number for number in range(200)]
        here.send(sent[:150], there.address)
        for datagram in sent[150:]:
            here.send((datagram,), there.address)
        await inbox.until(len(sent))
        await turns(3)
        assert inbox.received == sent
        assert here.send_failures == 0

    @scene
    async def test_says_where_it_came_from(self, net):
        here, there, inbox = await net.pair()
        answers = Inbox(here)
        here.send([b"question"], there.address)
        await inbox.until(1)
        assert inbox.sources == [here.address]
        there.send([b"answer"], inbox.sources[0])
        assert await answers.until(1) == [b"answer"]
        assert answers.sources == [there.address]

    @scene
    async def test_is_handed_over_on_the_loop(self, net):
        here, there, _ = await net.pair()
        called: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        there.set_receiver(lambda *_: called.set_result(threading.get_ident()))
        here.send([b"x"], there.address)
        assert await called == threading.get_ident()

    @scene
    async def test_that_nobody_waits_for_is_dropped(self, net):
        here, there = await net.bind(), await net.bind()
        here.send([b"early"], there.address)
        echo = Inbox(here)
        here.send([b"after"], here.address)
        await echo.until(1)
        await turns(5)
        inbox = Inbox(there)
        here.send([b"in time"], there.address)
        assert await inbox.until(1) == [b"in time"]


class TestAFlood:
    @scene
    async def test_leaves_the_loop_its_turns(self, net):
        """No more than a burst and a train between two turns of whoever else is there."""
        here, there, inbox = await net.pair()
        seen = [0]
        count = 3 * BURST_MAX + 1
        for _ in range(3):
            here.send([b"x"] * (count // 3 + 1), there.address)
        while len(inbox.received) < count:
            await asyncio.sleep(0)
            seen.append(len(inbox.received))
        most = BURST_MAX + SEGMENTS_MAX
        assert max(after - before for before, after in pairwise(seen)) <= most


class TestAReceiver:
    @scene
    async def test_may_be_replaced(self, net):
        here, there, first = await net.pair()
        here.send([b"1"], there.address)
        await first.until(1)
        second = Inbox(there)
        here.send([b"2"], there.address)
        assert await second.until(1) == [b"2"]
        assert first.received == [b"1"]

    def test_that_fails_is_called_for_the_next_datagram(self, net):

        async def scenario():
            here, there = await net.bind(), await net.bind()
            heard = []

            def receiver(datagrams, *_):
                heard.extend(datagrams)
                if datagrams[0] == b"bad":
                    raise ZeroDivisionError

            there.set_receiver(receiver)
            here.send([b"bad", b"good"], there.address)
            here.send([b"witness"], here.address)
            await Inbox(here).until(1)
            await turns(10)
            assert heard == [b"bad", b"good"]

        net.run(scenario())
        assert [type(error) for error in net.errors] == [ZeroDivisionError]


class TestAnAddress:
    @scene
    async def test_of_port_zero_is_one_that_was_free(self, net):
        here, there = await net.bind(), await net.bind()
        assert here.address[0] == there.address[0] == LOCALHOST
        assert 0 < here.address[1] != there.address[1] > 0
        assert f"{LOCALHOST}:{here.address[1]}" in repr(here)

    @scene
    async def test_that_is_taken_is_refused_with_the_name_of_who_has_it(self, net):
        here = await net.bind()
        port = here.address[1]
        with pytest.raises(PortTaken) as caught:
            await net.bind(port)
        assert f"UDP port {port} on {LOCALHOST} is taken by pid {os.getpid()} (" in str(
            caught.value
        )
        assert "python" in str(caught.value)

    @scene
    async def test_that_is_not_of_this_machine_is_refused_but_not_as_taken(self, net):
        with pytest.raises(EndpointError, match=r"cannot bind UDP 192\.0\.2\.1:7401: ") as caught:
            await net.bind(7401, "192.0.2.1")
        assert not isinstance(caught.value, PortTaken)

    @scene
    async def test_that_was_refused_leaves_no_socket_behind(self, net):
        here = await net.bind()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with pytest.raises(PortTaken):
                await net.bind(here.address[1])
        assert len(os.listdir("/proc/self/fd")) == before


@contextmanager
def held_elsewhere(host, port=0):
    """(pid, port) of another process that holds a UDP port."""
    program = (
        "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
        f"s.bind(({host!r}, {port})); print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process.pid, int(process.stdout.readline())
        finally:
            process.stdin.close()


class TestTheHolderOfAPort:
    async def taken(self, host, port):
        with pytest.raises(PortTaken) as caught:
            await GsoEndpoint.bind((host, port))
        return str(caught.value)

    async def test_is_found_in_another_process(self):
        with held_elsewhere(LOCALHOST) as (pid, port):
            assert f"is taken by pid {pid} (" in await self.taken(LOCALHOST, port)

    async def test_is_that_of_the_same_address(self):
        with (
            held_elsewhere(LOCALHOST) as (pid, port),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours,
        ):
            ours.bind(("127.0.0.2", port))
            assert f"pid {pid} (" in await self.taken(LOCALHOST, port)
            assert f"pid {os.getpid()} (" in await self.taken("127.0.0.2", port)

    @pytest.mark.parametrize(("theirs", "ours"), [("0.0.0.0", LOCALHOST), (LOCALHOST, "0.0.0.0")])
    async def test_may_have_it_on_all_addresses(self, theirs, ours):
        with held_elsewhere(theirs) as (pid, port):
            assert f"pid {pid} (" in await self.taken(ours, port)

    async def test_is_found_by_the_name_of_the_address(self):
        with held_elsewhere(LOCALHOST) as (pid, port):
            assert f"pid {pid} (" in await self.taken("localhost", port)


class TestAClosedEndpoint:
    @scene
    async def test_receives_nothing_of_what_had_come_already(self, net):
        here, there, inbox = await net.pair()
        here.send([b"x"] * 5, there.address)
        net.shut(there)
        await turns(10)
        assert inbox.received == []

    @scene
    async def test_receives_nothing_after_a_receiver_has_closed_it(self, net):
        here, there = await net.bind(), await net.bind()
        received = []

        def receiver(datagrams, *_):
            received.extend(datagrams)
            net.shut(there)

        there.set_receiver(receiver)
        here.send([b"1", b"22", b"333"], there.address)  # of one size they would come together
        echo = Inbox(here)
        here.send([b"x"], here.address)
        await echo.until(1)
        await turns(10)
        assert received == [b"1"]

    @scene
    async def test_sends_nothing(self, net):
        here, there, inbox = await net.pair()
        net.shut(here)
        here.send([b"late"], there.address)
        witness = await net.bind()
        witness.send([b"end"], there.address)
        await inbox.until(1)
        await turns(3)
        assert inbox.received == [b"end"]

    @scene
    async def test_has_given_its_port_back(self, net):
        here = await net.bind()
        net.shut(here)
        await turns(3 if net.kind == "dgram" else 0)  # asyncio's transports close a turn later
        assert (await net.bind(here.address[1])).address == here.address

    @scene
    async def test_may_be_closed_again(self, net):
        here = await net.bind()
        net.shut(here)
        here.close()
        await turns(3)
        here.close()

    @scene
    async def test_leaves_no_descriptor_behind(self, net):
        await turns(3)
        before = sorted(os.listdir("/proc/self/fd"))
        here = await net.bind()
        net.shut(here)
        await turns(5)
        assert sorted(os.listdir("/proc/self/fd")) == before


class FullSocket:
    """A socket that takes every other datagram and has no room for the rest."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.asked = 0

    def sendto(self, datagram, destination):
        self.asked += 1
        if self.asked % 2 == 0:
            raise BlockingIOError(errno.EAGAIN, "no room")
        self.taken.append(datagram)


class TestSending:
    def test_what_the_kernel_has_no_room_for_loses_it_and_counts(self, net):
        async def scenario():
            here = await net.bind()
            full = FullSocket()
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(here, "_socket", full)
                here.send([bytes(size) for size in range(1, 7)], (LOCALHOST, 7401))
            assert full.taken == [bytes(1), bytes(3), bytes(5)]
            assert here.send_failures == 3

        net.run(scenario())

    @scene
    async def test_what_is_too_long_loses_it_alone(self, net):
        here, there, inbox = await net.pair()
        here.send([b"before", bytes(65_508), b"after"], there.address)
        assert await inbox.until(2) == [b"before", b"after"]
        assert here.send_failures == 1

    @scene
    async def test_where_it_may_not_is_counted_too(self, net):
        here = await net.bind()
        here.send([b"x"], ("255.255.255.255", 7401))
        assert here.send_failures == 1

    @scene
    async def test_to_a_closed_port_does_not_end_the_endpoint(self, net):
        """With IP_RECVERR the ICMP error comes back as ECONNREFUSED of a later call."""
        here, gone, _ = await net.pair()
        if net.name == "asyncio":  # libuv takes such a socket for broken
            here._socket.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        inbox = Inbox(here)
        net.shut(gone)
        await turns(5)
        for _ in range(5):
            here.send([b"anyone?"], gone.address)
            await turns(5)
        witness = await net.bind()
        witness.send([b"still here?"], here.address)
        assert await inbox.until(1) == [b"still here?"]
        answers = Inbox(witness)
        while b"yes" not in answers.received:
            here.send([b"yes"], witness.address)
            await asyncio.sleep(0)


class Wire:
    """An endpoint that writes down what it is to send."""

    address = (LOCALHOST, 7401)

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, tuple[str, int]]] = []
        self.marks: list[int] = []
        self.calls: list[object] = []

    @property
    def datagrams(self) -> list[bytes]:
        return [datagram for datagram, _ in self.sent]

    def send(self, datagrams, destination, mark=NOT_ECT):
        self.sent += [(datagram, destination) for datagram in datagrams]
        self.marks += [mark] * len(datagrams)

    def set_receiver(self, receiver):
        self.calls.append(receiver)

    def close(self):
        self.calls.append("close")


THERE, ELSEWHERE = (LOCALHOST, 7402), (LOCALHOST, 7403)


class TestBadLinks:
    @pytest.fixture
    def hands(self):
        return Hands()

    @pytest.fixture
    def later(self):
        return Later()

    @pytest.fixture
    def wire(self):
        return Wire()

    @pytest.fixture
    def links(self):
        return LinkTable(random.Random(1))

    @pytest.fixture
    def faulty(self, wire, links, hands, later):
        return FaultyEndpoint(wire, links, hands.clock, later)

    def test_are_none_at_first(self, faulty, wire, later):
        faulty.send([b"1", b"2"], THERE)
        assert wire.sent == [(b"1", THERE), (b"2", THERE)]
        assert later.calls == []

    def test_leave_other_links_alone(self, faulty, wire, links):
        links.set(THERE, LinkPolicy(cut=True))
        faulty.send([b"1"], THERE)
        faulty.send([b"2"], ELSEWHERE)
        assert wire.sent == [(b"2", ELSEWHERE)]

    def test_hold_up_what_they_delay(self, faulty, wire, links, later):
        links.set(THERE, LinkPolicy(delay_s=0.5))
        faulty.send([b"1", b"2"], THERE)
        assert wire.sent == []
        assert later.delays == [0.5, 0.5]
        later.run()
        assert wire.sent == [(b"1", THERE), (b"2", THERE)]

    def test_carry_the_marks_and_set_them_behind_a_long_queue(self, faulty, wire, links, later):
        faulty.send([b"x"], THERE, ECT0)
        links.set(THERE, LinkPolicy(rate_bytes_s=100.0, mark_bytes=20))
        faulty.send([bytes(10)] * 5, THERE, ECT0)
        faulty.send([bytes(10)], THERE)
        later.run()
        assert wire.marks == [ECT0, ECT0, ECT0, ECT0, CE, CE, NOT_ECT]

    def test_double_what_they_double(self, faulty, wire, links):
        links.set(THERE, LinkPolicy(duplicate=1.0))
        faulty.send([b"1", b"2"], THERE)
        assert wire.datagrams == [b"1", b"1", b"2", b"2"]

    def test_damage_what_they_damage(self, faulty, wire, links):
        links.set(THERE, LinkPolicy(corrupt=1.0))
        faulty.send([b"\0"], THERE)
        assert wire.datagrams[0] in [bytes([1 << bit]) for bit in range(8)]

    def test_are_good_again_when_they_are_healed(self, faulty, wire, links):
        links.set(THERE, LinkPolicy(cut=True))
        faulty.send([b"1"], THERE)
        links.set(THERE, PERFECT)
        faulty.send([b"2"], THERE)
        links.set(THERE, LinkPolicy(cut=True))
        links.clear()
        faulty.send([b"3"], THERE)
        assert wire.datagrams == [b"2", b"3"]

    def test_leave_to_the_socket_what_is_the_sockets(self, faulty, wire):
        assert faulty.address == wire.address
        faulty.set_receiver(print)
        faulty.close()
        assert wire.calls == [print, "close"]

    def test_are_as_slow_for_a_node_whose_clock_is_fast(self, faulty, links, hands, later):
        links.set(THERE, LinkPolicy(rate_bytes_s=100.0))
        hands.clock.set_rate(2.0)
        faulty.send([bytes(100)], THERE)
        hands.true = 0.5
        faulty.send([bytes(100)], THERE)
        assert later.delays == [1.0, 1.5]  # the link is free at 1.0, and takes a second for each

    def test_keep_the_order_though_setting_a_timer_takes_time(self, wire, links, hands):
        due: list[tuple[float, int, object]] = []

        def later(delay_s, callback):
            hands.true += 1e-6
            due.append((hands.true + delay_s, len(due), callback))

        links.set(THERE, LinkPolicy(delay_s=0.001, jitter_s=0.5))
        faulty = FaultyEndpoint(wire, links, hands.clock, later)
        sent = [b"%d" % number for number in range(50)]
        for at in range(0, 50, 5):
            faulty.send(sent[at : at + 5], THERE)
        for _, _, callback in sorted(due):
            callback()
        assert wire.datagrams == sent

    def test_keep_the_order_of_what_arrives_at_the_same_time(self, wire, links, hands):
        loop = VirtualLoop()
        links.set(THERE, LinkPolicy(delay_s=0.001))
        faulty = FaultyEndpoint(wire, links, hands.clock, loop.call_later)
        sent = [b"%d" % number for number in range(20)]
        faulty.send(sent, THERE)
        loop.run_until_complete(asyncio.sleep(1))
        loop.close()
        assert wire.datagrams == sent

    def test_can_stand_before_a_real_socket(self, net, links, hands):
        async def scenario():
            here, there, inbox = await net.pair()
            loop = asyncio.get_running_loop()
            faulty = FaultyEndpoint(here, links, hands.clock, loop.call_later)
            links.set(there.address, LinkPolicy(delay_s=0.002, duplicate=1.0))
            faulty.send([b"slow"], there.address)
            links.clear()
            faulty.send([b"fast"], there.address)
            assert await inbox.until(3) == [b"fast", b"slow", b"slow"]

        net.run(scenario())
        assert net.errors == []
