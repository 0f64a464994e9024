"""Trains of datagrams (GSO, GRO), and the two bits by which routers tell of congestion."""

from __future__ import annotations

import asyncio
import errno

import pytest
from endpoint_kit import LOCALHOST, Inbox, Net, scene, turns

from netstack.runtime import gso_endpoint
from netstack.runtime.endpoint import CE, ECT0, NOT_ECT
from netstack.runtime.gso_endpoint import ASKED_EVERY, SEGMENTS_MAX, TRAIN_BYTES_MAX

THERE = (LOCALHOST, 7401)

pytestmark = pytest.mark.skipif(
    not gso_endpoint.kernel_has_it(), reason="this kernel has no UDP_SEGMENT and UDP_GRO"
)


@pytest.fixture(params=["asyncio", "uvloop"])
def net(request):
    net = Net("gso", request.param)
    yield net
    net.close()
    assert net.errors == []


class Kernel:
    """A socket that writes down what it is asked to send, and may refuse trains.

    Its device carries datagrams of up to `mtu` bytes.
    """

    def __init__(self, refuses: int = 0, mtu: int = 65_507) -> None:
        self.calls: list[list[int]] = []
        self.refuses = refuses
        self.mtu = mtu

    def sendto(self, datagram, destination):
        if len(datagram) > self.mtu:
            raise OSError(errno.EMSGSIZE, "the device carries less")
        self.calls.append([len(datagram)])

    def sendmsg(self, train, ancillary, flags, destination):
        if self.refuses:
            raise OSError(self.refuses, "no trains here")
        ((level, kind, size),) = ancillary
        assert (level, kind) == (gso_endpoint.SOL_UDP, gso_endpoint.UDP_SEGMENT)
        sizes = [len(datagram) for datagram in train]
        segment = int.from_bytes(size, "little")
        assert set(sizes[:-1]) == {segment}
        assert sizes[-1] <= segment
        self.calls.append(sizes)


async def sent(net, kernel: Kernel, *sizes: int) -> list[list[int]]:
    """Which calls `datagrams` of these sizes become."""
    here = await net.bind()
    own, here._socket = here._socket, kernel
    try:
        here.send([bytes(size) for size in sizes], THERE)
    finally:
        here._socket = own
    return kernel.calls


class TestATrain:
    @scene
    async def test_is_one_call_for_datagrams_of_one_size(self, net):
        assert await sent(net, Kernel(), 9, 9, 9) == [[9, 9, 9]]

    @scene
    async def test_ends_with_the_first_that_is_shorter(self, net):
        assert await sent(net, Kernel(), 9, 9, 5, 5, 5) == [[9, 9, 5], [5, 5]]

    @scene
    async def test_begins_anew_with_the_first_that_is_longer(self, net):
        assert await sent(net, Kernel(), 5, 5, 9, 9, 30) == [[5, 5], [9, 9], [30]]

    @scene
    async def test_has_so_many_datagrams_at_the_most(self, net):
        calls = await sent(net, Kernel(), *[9] * (2 * SEGMENTS_MAX + 1))
        assert [len(call) for call in calls] == [SEGMENTS_MAX, SEGMENTS_MAX, 1]

    @scene
    async def test_has_so_many_bytes_at_the_most(self, net):
        calls = await sent(net, Kernel(), *[30_000] * 5, 100)
        assert [len(call) for call in calls] == [2, 2, 2]
        assert max(map(sum, calls)) <= TRAIN_BYTES_MAX

    @scene
    async def test_of_one_is_an_ordinary_datagram(self, net):
        kernel = Kernel(refuses=errno.EIO)
        assert await sent(net, kernel, 65_507, 9) == [[65_507], [9]]

    @pytest.mark.parametrize("refusal", [errno.EIO, errno.EINVAL])
    def test_that_the_device_does_not_take_is_sent_one_by_one(self, net, refusal):
        async def scenario():
            kernel = Kernel(refuses=refusal)
            assert await sent(net, kernel, 9, 9) == [[9], [9]]

        net.run(scenario())

    @pytest.mark.parametrize("refusal", [errno.EMSGSIZE, errno.EINVAL])
    def test_that_is_larger_than_the_device_loses_only_what_does_not_fit(self, net, refusal):
        async def scenario():
            here = await net.bind()
            kernel = Kernel(refuses=refusal, mtu=8)
            own, here._socket = here._socket, kernel
            here.send([bytes(9), bytes(9), bytes(5)], THERE)
            assert (kernel.calls, here.send_failures) == ([[5]], 2)
            # It said nothing about trains that fit: the next one is tried again.
            kernel.refuses = 0
            here.send([bytes(8)] * 3, THERE)
            here._socket = own
            assert kernel.calls == [[5], [8, 8, 8]]

        net.run(scenario())

    @scene
    async def test_for_which_there_is_no_room_is_lost_as_a_whole_and_counted(self, net):
        here = await net.bind()
        own, here._socket = here._socket, Kernel(refuses=errno.EAGAIN)
        here.send([bytes(9)] * 7, THERE)
        here._socket = own
        assert here.send_failures == 7
        assert here._trains

    @scene
    async def test_arrives_as_what_was_sent(self, net):
        here, there, inbox = await net.pair()
        sizes = [1200] * 70 + [700] + [5] * 3 + [1] + [40_000] * 2 + [1200] * 2
        datagrams = [bytes([i % 251]) * size for i, size in enumerate(sizes)]
        here.send(datagrams, there.address)
        assert await inbox.until(len(datagrams)) == datagrams
        await turns(3)
        assert len(inbox.received) == len(datagrams)

    @scene
    async def test_costs_the_receiver_few_calls(self, net):
        here, there = await net.bind(), await net.bind()
        calls = []
        there.set_receiver(lambda datagrams, *_: calls.append(len(datagrams)))
        here.send([bytes(1200)] * 100, there.address)
        while sum(calls) < 100:
            await turns(1)
        assert len(calls) <= 4


class Counted:
    """A socket that counts how often it is read."""

    def __init__(self, sock) -> None:
        self._socket = sock
        self.reads = 0

    def __getattr__(self, name):
        return getattr(self._socket, name)

    def recvmsg(self, *arguments):
        self.reads += 1
        return self._socket.recvmsg(*arguments)


class TestDatagramsThatComeAlone:
    @scene
    async def test_cost_one_call_each_and_a_burst_is_taken_whole_all_the_same(self, net):
        here, there, inbox = await net.pair()
        own, there._socket = there._socket, Counted(there._socket)
        try:
            for i in range(20):
                here.send((b"%d" % i,), there.address)
                await inbox.until(i + 1)
                await asyncio.sleep(0.002)
            # Those that a busy machine held up count as a burst, and are read to the end.
            assert 20 <= there._socket.reads <= 30
            sizes = [i % 50 + 1 for i in range(100)]
            for size in sizes:
                here.send((bytes(size),), there.address)
            assert [len(data) for data in (await inbox.until(120))[20:]] == sizes
            await turns(3)
            assert there._socket.reads <= 30 + 100 + 10
        finally:
            there._socket = own


class TestWhetherThereIsAnother:
    """Asked for no more often than it pays; read by hand, the loop has no turn meanwhile."""

    @scene
    async def test_is_asked_once_in_a_while_after_single_ones(self, net):
        here, there, inbox = await net.pair()
        asked, has_another = [], there._has_another
        there._has_another = lambda: asked.append(0) or has_another()
        for _ in range(3 * ASKED_EVERY):
            here.send((b"one",), there.address)
            there._readable()
        assert len(inbox.received) == 3 * ASKED_EVERY
        assert len(asked) == 2  # the third time it will be for the next one

    @scene
    async def test_is_noticed_and_then_a_burst_is_read_at_once(self, net):
        here, there, inbox = await net.pair()
        sizes = list(range(1, 51))
        for size in sizes:
            here.send((bytes(size),), there.address)
        for _ in range(ASKED_EVERY + 1):
            there._readable()
        assert [len(data) for data in inbox.received] == sizes


class TestALook:
    @scene
    async def test_takes_what_has_come_and_says_so(self, net):
        here, there, inbox = await net.pair()
        assert not there._look()
        here.send([b"one"], there.address)
        assert there._look()
        assert inbox.received == [b"one"]
        assert not there._look()

    @scene
    async def test_at_a_closed_endpoint_finds_nothing(self, net):
        here, there, inbox = await net.pair()
        here.send([b"one"], there.address)
        net.shut(there)
        assert not there._look()
        assert inbox.received == []


class TestMarks:
    @scene
    async def test_travel_with_every_datagram(self, net):
        here, there, inbox = await net.pair()
        expected = []
        for mark in (ECT0, CE, NOT_ECT, ECT0, ECT0):
            here.send([b"a"], there.address, mark)
            here.send([bytes(100)] * 3, there.address, mark)
            expected += [mark] * 4
        await inbox.until(len(expected))
        assert inbox.marks == expected

    @scene
    async def test_of_the_portable_endpoint_arrive_too(self, net):
        _, there, inbox = await net.pair()
        portable = Net.bind
        net.kind = "dgram"
        here = await portable(net)
        here.send([b"a"], there.address, ECT0)
        here.send([b"b"], there.address)
        await inbox.until(2)
        assert inbox.marks == [ECT0, NOT_ECT]

    @scene
    async def test_are_none_for_an_endpoint_that_cannot_see_them(self, net):
        here = await net.bind()
        net.kind = "dgram"
        there = await net.bind()
        inbox = Inbox(there)
        here.send([b"a"], there.address, CE)
        await inbox.until(1)
        assert inbox.marks == [NOT_ECT]
