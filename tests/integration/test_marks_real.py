"""Congestion control by marks (ECN) in the IP headers of real datagrams.

The sender's line is a policy of its own endpoint: 2 MB/s and 2 ms behind a queue that marks what
comes when 16 KB wait. The marks then travel in the two bits of real packets, through the kernel.
"""

from __future__ import annotations

import asyncio
import os

from netstack.runtime.gso_endpoint import GsoEndpoint
from netstack.runtime.policy import LinkPolicy
from netstack.transport.config import TransportConfig

RATE = 2_000_000
QUEUE, MARK = 60_000, 16_000
DATA = os.urandom(2_000_000)


async def send_over_a_marking_line(start_host, **config):
    """DATA from caller to server; the caller's peer and what its line counted."""
    got = bytearray()

    def opened(stream):
        def receiver(data, fin):
            got.extend(data)
            if fin:
                # The acknowledgement of the last packet rides on this.
                stream.push(b"all of it", fin=True)

        stream.receiver = receiver

    # Packets of an Ethernet, many to a queue.
    settings = TransportConfig(max_mtu=1472, **config)
    server = await start_host(
        "server", config=settings, on_peer=lambda peer: setattr(peer, "on_stream", opened)
    )
    caller = await start_host("caller", config=settings)
    peer = await caller.connect(server.address, service="echo")
    line = LinkPolicy(rate_bytes_s=RATE, delay_s=0.002, queue_bytes=QUEUE, mark_bytes=MARK)
    links = start_host.runtimes["caller"].faults.links
    links.set(server.address, line)
    stream = peer.open_stream()
    await stream.write(DATA, fin=True)
    assert await asyncio.wait_for(stream.read(), 60) == b"all of it"
    assert got == DATA
    return peer, links.shapers[server.address].counts


async def test_dctcp_listens_to_the_marks_so_nothing_is_dropped(start_host, request):
    peer, counts = await send_over_a_marking_line(start_host, congestion="dctcp")
    if GsoEndpoint.__name__ in request.node.name:
        stats = peer.stats()
        assert counts["marked"] == stats["marked"] > 10
        assert stats["lost"] == counts["dropped"] == 0
        # Of the path's 4 KB and the queue's 60: the window stays where the marks begin.
        assert stats["cwnd"] < QUEUE / 2
    else:
        # asyncio-dgram says nothing of the two bits: congestion is told by drops there.
        assert peer.stats()["marked"] == counts["marked"] == 0
        assert counts["dropped"] > 0


async def test_a_sender_that_asks_for_no_marks_fills_the_queue_until_it_drops(start_host):
    peer, counts = await send_over_a_marking_line(start_host, congestion="newreno", ecn=False)
    assert peer.stats()["marked"] == counts["marked"] == 0
    assert counts["dropped"] > 0
