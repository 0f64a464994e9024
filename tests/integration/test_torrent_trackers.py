"""Calls to trackers that lose packets, redirect, fail and talk nonsense."""

from __future__ import annotations

import asyncio

import pytest
from torrent_roles_kit import HOST, free_port

from dht.torrent.errors import TrackerError
from dht.torrent.http import get
from dht.torrent.tracker import Announce, Tracker
from dht.torrent.tracker_client import TRIES, TrackerClient
from dht.torrent.tracker_server import TrackerServer
from netstack.runtime.runtime import RealRuntime

CALL = Announce(b"i" * 20, b"-XX0000-............", (HOST, 5), 1, "started")


@pytest.fixture
def runtime(tmp_path):
    made = RealRuntime("test", tmp_path)
    yield made
    made.close()


@pytest.fixture
async def tracker(runtime):
    server = TrackerServer(runtime, Tracker(runtime.rng))
    server.address = await server.start((HOST, 0))
    yield server
    await server.close()


def url(server, scheme):
    return f"{scheme}://{HOST}:{server.address[1]}/announce"


@pytest.mark.parametrize("scheme", ["http", "udp"])
async def test_announce_and_scrape(runtime, tracker, scheme):
    client = TrackerClient(runtime)
    assert (await client.announce(url(tracker, scheme), CALL)).leeches == 1
    assert (await client.scrape(url(tracker, scheme), CALL.info_hash)).leeches == 1


@pytest.mark.parametrize("lost", range(1, TRIES + 1))
async def test_lost_packets_are_sent_again_so_many_times(runtime, tracker, monkeypatch, lost):
    answered, honest = [], TrackerServer.answer_udp

    def forgetful(self, packet, source):
        answered.append(packet)
        return honest(self, packet, source) if len(answered) > lost else None

    monkeypatch.setattr(TrackerServer, "answer_udp", forgetful)
    client = TrackerClient(runtime, resend_s=0.05)
    if lost < TRIES:
        assert (await client.announce(url(tracker, "udp"), CALL)).leeches == 1
    else:
        with pytest.raises(TrackerError, match="does not answer"):
            await client.announce(url(tracker, "udp"), CALL)


async def test_answers_to_other_questions_are_passed_over(runtime, tracker, monkeypatch):
    honest = TrackerServer.answer_udp

    def chatty(self, packet, source):
        for junk in (b"", b"x" * 7, bytes(16), b"\xff" * 40):
            tracker._datagrams.sendto(junk, source)
        return honest(self, packet, source)

    monkeypatch.setattr(TrackerServer, "answer_udp", chatty)
    assert (await TrackerClient(runtime).announce(url(tracker, "udp"), CALL)).leeches == 1


@pytest.mark.parametrize("scheme", ["http", "udp"])
async def test_where_nobody_is(runtime, scheme):
    with pytest.raises(TrackerError):
        await TrackerClient(runtime).announce(f"{scheme}://{HOST}:{free_port()}/announce", CALL)


async def serve(answer):
    """A web server that says just that; its port."""

    async def accept(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(accept, HOST, 0)
    return server, server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 503 Busy\r\n\r\n", "status 503"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "status 404"),
        (b"nonsense\r\n\r\n", "not HTTP"),
        (b"", "bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "too long"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "invalid literal"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n", "too long"),
        (b"HTTP/1.1 301 Away\r\nLocation: http://example.org/\r\n\r\n", "not on this machine"),
        (b"HTTP/1.1 301 Round\r\nLocation: /again\r\n\r\n", "more than 3 redirects"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", "no bencode"),
    ],
)
async def test_bad_answers_are_errors_of_the_tracker(runtime, answer, why):
    server, port = await serve(answer)
    async with server:
        with pytest.raises(TrackerError, match=why):
            await TrackerClient(runtime).announce(f"http://{HOST}:{port}/announce", CALL)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2;x=y\r\ndy\r\n0\r\n\r\n",
    ],
)
async def test_bodies_of_all_three_kinds(answer):
    server, port = await serve(answer)
    async with server:
        assert await get(f"http://{HOST}:{port}/") == b"body"


async def test_a_redirect_is_followed(runtime, tracker):
    location = url(tracker, "http") + "?info_hash=" + "i" * 20 + "&peer_id=" + "p" * 20 + "&port=7"
    server, port = await serve(f"HTTP/1.1 302 There\r\nLocation: {location}\r\n\r\n".encode())
    async with server:
        reply = await TrackerClient(runtime).announce(f"http://{HOST}:{port}/announce", CALL)
    assert reply.leeches == 1
