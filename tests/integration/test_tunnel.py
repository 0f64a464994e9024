"""The tunnel: TCP in, TCP out, and what lies between is not to be noticed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import socket
import struct
import subprocess

import pytest
import uvloop
from tunnel_kit import HOST, PATIENCE_S, Processes, Tunnel, free_port, program, until

from netstack.presets import bytestream
from netstack.tunnel import entry as entry_module
from netstack.tunnel.relay import READ_AHEAD, STREAM_BUFFER, STREAM_WINDOW


def with_tunnel(scenario):
    """A test that runs `scenario` with a tunnel, on either kind of event loop."""

    @pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
    def test(self, run, tmp_path, monkeypatch):
        async def body():
            tunnel = Tunnel(tmp_path, monkeypatch)
            try:
                await scenario(self, tunnel)
            finally:
                await tunnel.close()

        run(body())

    return test


@pytest.fixture
def processes(tmp_path):
    processes = Processes(tmp_path)
    yield processes
    processes.end()


async def echo(reader, writer):
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def never_reads(reader, writer):
    await asyncio.Event().wait()


async def ask(tunnel, data):
    """What comes back for `data`, both in full."""
    reader, writer = await tunnel.connect()
    writer.write(data)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


def reset_by(writer):
    """RST."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class TestBytes:
    @with_tunnel
    async def test_come_back_as_they_went(self, tunnel):
        await tunnel.start(await tunnel.target(echo))
        data = os.urandom(3_000_000)
        assert await ask(tunnel, data) == data
        assert tunnel.said == []

    @with_tunnel
    async def test_of_many_connections_do_not_mix(self, tunnel):
        await tunnel.start(await tunnel.target(echo))
        messages = [os.urandom(50_000) for _ in range(40)]
        assert await asyncio.gather(*(ask(tunnel, m) for m in messages)) == messages
        assert (tunnel.entry.carried, tunnel.exit.carried) == (40, 40)
        await until(lambda: not tunnel.entry._tasks and not tunnel.exit._tasks, "the end")

    @with_tunnel
    async def test_of_hundreds_of_connections_leave_nothing_behind(self, tunnel):
        await tunnel.start(await tunnel.target(echo))
        for _ in range(15):
            messages = [os.urandom(1_000) for _ in range(20)]
            assert await asyncio.gather(*(ask(tunnel, m) for m in messages)) == messages
        await until(lambda: not tunnel.entry._tasks and not tunnel.exit._tasks, "the end")
        for end in (tunnel.entry, tunnel.exit):
            ((peer, streams),) = end._socket._open.items()
            await until(lambda peer=peer: not peer._streams, "the last acknowledgement")
            assert (len(streams), len(peer.connection.streams)) == (0, 0)

    @with_tunnel
    async def test_arrive_over_a_link_that_loses_doubles_and_damages(self, tunnel):
        await tunnel.start(await tunnel.target(echo))
        tunnel.impair(loss=0.05, duplicate=0.05, corrupt=0.02, reorder=0.1)
        messages = [os.urandom(200_000) for _ in range(5)]
        assert await asyncio.gather(*(ask(tunnel, m) for m in messages)) == messages

    @with_tunnel
    async def test_of_who_speaks_first_at_the_far_end_arrive_unasked(self, tunnel):
        async def greet(reader, writer):
            writer.write(b"220 welcome\r\n")
            await writer.drain()
            await reader.read()

        await tunnel.start(await tunnel.target(greet))
        reader, writer = await tunnel.connect()
        assert await reader.readline() == b"220 welcome\r\n"
        writer.close()


class TestEnds:
    @with_tunnel
    async def test_a_half_closed_connection_carries_on_the_other_way(self, tunnel):
        heard = []

        async def answer_at_the_end(reader, writer):
            heard.append(await reader.read())
            for part in (b"late ", b"answer"):
                await asyncio.sleep(0.05)
                writer.write(part)
                await writer.drain()
            writer.write_eof()

        await tunnel.start(await tunnel.target(answer_at_the_end))
        assert await ask(tunnel, b"question") == b"late answer"
        assert heard == [b"question"]

    @with_tunnel
    async def test_the_target_may_half_close_first(self, tunnel):
        heard = asyncio.get_running_loop().create_future()

        async def end_at_once(reader, writer):
            writer.write(b"all I have")
            writer.write_eof()
            heard.set_result(await reader.read())

        await tunnel.start(await tunnel.target(end_at_once))
        reader, writer = await tunnel.connect()
        assert await reader.read() == b"all I have"
        writer.write(b"thank you")
        await writer.drain()
        writer.write_eof()
        assert await asyncio.wait_for(heard, PATIENCE_S) == b"thank you"
        writer.close()

    @with_tunnel
    async def test_a_reset_is_carried_to_the_target(self, tunnel):
        seen = asyncio.get_running_loop().create_future()

        async def watch(reader, writer):
            try:
                await reader.read()
                seen.set_result("a clean end")
            except ConnectionResetError:
                seen.set_result("a reset")

        await tunnel.start(await tunnel.target(watch))
        _, writer = await tunnel.connect()
        writer.write(b"half a mess")
        await until(lambda: tunnel.exit.carried, "the connection")
        await asyncio.sleep(0.05)
        reset_by(writer)
        assert await asyncio.wait_for(seen, PATIENCE_S) == "a reset"
        assert tunnel.said == []  # it was the program's wish, and no failure of the tunnel

    @with_tunnel
    async def test_a_reset_by_the_target_is_carried_back(self, tunnel):
        async def slam(reader, writer):
            await reader.readline()
            reset_by(writer)

        await tunnel.start(await tunnel.target(slam))
        reader, writer = await tunnel.connect()
        writer.write(b"hello\n")
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), PATIENCE_S)
        writer.close()

    @with_tunnel
    async def test_a_program_that_hangs_up_resets_who_still_sends_to_it(self, tunnel):
        ended = asyncio.get_running_loop().create_future()

        async def send_for_ever(reader, writer):
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(bytes(100_000))
                    await writer.drain()
            ended.set_result(None)

        await tunnel.start(await tunnel.target(send_for_ever))
        reader, writer = await tunnel.connect()
        await reader.read(1000)
        writer.close()
        await asyncio.wait_for(ended, PATIENCE_S)

    @with_tunnel
    async def test_a_tunnel_that_ends_resets_what_it_carries(self, tunnel):
        await tunnel.start(await tunnel.target(echo))
        reader, writer = await tunnel.connect()
        writer.write(b"x")
        assert await reader.read(1) == b"x"
        await tunnel.exit.close()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), PATIENCE_S)
        writer.close()


class TestPressure:
    """What a kernel's own buffers take comes on top: a few megabytes for each TCP connection."""

    @with_tunnel
    async def test_a_target_that_does_not_read_stops_the_writer(self, tunnel):
        await tunnel.start(await tunnel.target(never_reads))
        _, writer = await tunnel.connect()
        writer.transport.set_write_buffer_limits(high=0)
        sent = await _until_it_stalls(writer)
        held = STREAM_BUFFER + STREAM_WINDOW + 4 * READ_AHEAD
        assert STREAM_WINDOW < sent < held + 24_000_000
        (streams,) = tunnel.entry._socket._open.values()
        (stream,) = streams
        assert stream._stream.buffered <= STREAM_BUFFER
        reset_by(writer)
        await until(lambda: not tunnel.exit._tasks, "the end, though nobody reads")

    @with_tunnel
    async def test_a_program_that_does_not_read_stops_the_target(self, tunnel):
        sent = []

        async def flood(reader, writer):
            writer.transport.set_write_buffer_limits(high=0)
            sent.append(await _until_it_stalls(writer))
            await reader.read()

        await tunnel.start(await tunnel.target(flood))
        reader, writer = await tunnel.connect()
        reader._transport.pause_reading()
        await until(lambda: sent, "a stall")
        assert STREAM_WINDOW < sent[0] < 30_000_000
        reader._transport.resume_reading()
        got = 0
        while got < sent[0]:
            got += len(await asyncio.wait_for(reader.read(1 << 20), PATIENCE_S))
        writer.close()

    @with_tunnel
    async def test_one_that_does_not_read_keeps_nobody_else_waiting(self, tunnel):
        served = []

        async def first_is_deaf(reader, writer):
            served.append(writer)
            await (never_reads if len(served) <= 3 else echo)(reader, writer)

        await tunnel.start(await tunnel.target(first_is_deaf))
        deaf = [await tunnel.connect() for _ in range(3)]
        for _, writer in deaf:
            writer.transport.set_write_buffer_limits(high=0)
        await asyncio.gather(*(_until_it_stalls(writer) for _, writer in deaf))
        data = os.urandom(2_000_000)
        assert await asyncio.wait_for(ask(tunnel, data), PATIENCE_S) == data
        for _, writer in deaf:
            reset_by(writer)


async def _until_it_stalls(writer):
    """Write until nothing moves for a while; returns how many bytes were taken."""
    sent, piece = 0, bytes(100_000)
    while sent < 60_000_000:
        writer.write(piece)
        try:
            await asyncio.wait_for(writer.drain(), 2)
        except TimeoutError:
            return sent + len(piece)
        sent += len(piece)
    return sent


class TestRefusals:
    @with_tunnel
    async def test_a_target_that_is_not_there_is_a_reset_and_a_sentence(self, tunnel):
        port = free_port()
        await tunnel.start(port)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(ask(tunnel, b"x"), PATIENCE_S)
        await until(lambda: len(tunnel.said) == 2, "what both ends say")
        assert tunnel.said[0].startswith(f"127.0.0.1:{port} does not accept: ")
        assert tunnel.said[1] == "reset a connection: nothing answers at the exit's target"

    @with_tunnel
    async def test_an_exit_that_is_not_there_is_a_reset_and_a_sentence(self, tunnel):
        tunnel.monkeypatch.setattr(bytestream, "CONNECT_TIMEOUT_S", 0.5)
        via = (HOST, free_port(socket.SOCK_DGRAM))
        await tunnel.start(await tunnel.target(echo), via)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(ask(tunnel, b"x"), PATIENCE_S)
        assert tunnel.said == [f"reset a connection: nobody listens at {HOST}:{via[1]}"]

    @with_tunnel
    async def test_one_connection_too_many_is_refused_and_the_others_go_on(self, tunnel):
        tunnel.monkeypatch.setattr(entry_module, "CONNECTIONS_MAX", 2)
        await tunnel.start(await tunnel.target(echo))
        held = [await tunnel.connect() for _ in range(2)]
        await until(lambda: tunnel.entry.carried == 2, "two connections")
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(ask(tunnel, b"x"), PATIENCE_S)
        assert tunnel.said == ["refused a connection: 2 are carried already"]
        for reader, writer in held:
            writer.write(b"still here")
            assert await reader.read(100) == b"still here"
            writer.close()
        await until(lambda: not tunnel.entry._tasks, "the end of both")
        assert await ask(tunnel, b"room again") == b"room again"


def fetch(port, path):
    """What curl gets; raises CalledProcessError."""
    command = (
        program("curl"),
        "-sS",
        "--max-time",
        str(PATIENCE_S),
        f"http://{HOST}:{port}/{path}",
    )
    return subprocess.run(command, check=True, capture_output=True).stdout


def measure(port, *arguments):
    """Bytes that iperf3's receiver got in a second."""
    command = (program("iperf3"), "-c", HOST, "-p", str(port), "-t", "1", "-J", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    report = json.loads(done.stdout)
    assert (done.returncode, report.get("error")) == (0, None)
    return report["end"]["sum_received"]["bytes"]


class TestPrograms:
    def test_curl_downloads_through_it(self, processes, tmp_path):
        program("curl")
        data = os.urandom(8_000_000)
        (tmp_path / "file").write_bytes(data)
        web = processes.web(tmp_path)
        far = processes.tunnel("exit", "0", "--to", web)
        near = processes.tunnel("entry", 0, "--via", far.port)
        for _ in range(3):
            assert (
                hashlib.sha256(fetch(near.port, "file")).digest() == hashlib.sha256(data).digest()
            )
        for end in (near, far):
            end.send_signal(signal.SIGTERM)
            assert end.wait(PATIENCE_S) == 0
            assert end.stderr.read() == "✓ connections carried: 3\n"

    def test_curl_downloads_over_a_link_that_loses_five_percent(self, processes, tmp_path):
        program("curl")
        data = os.urandom(1_000_000)
        (tmp_path / "file").write_bytes(data)
        web = processes.web(tmp_path)
        both = processes.tunnel("both", 0, "--to", web, "--loss", "5%", "--delay", "2ms")
        assert fetch(both.port, "file") == data

    @pytest.mark.parametrize("direction", [(), ("-R",), ("-P", "4")], ids=str)
    def test_iperf3_runs_through_it(self, processes, direction):
        far = processes.tunnel("exit", "0", "--to", processes.iperf())
        near = processes.tunnel("entry", 0, "--via", far.port)
        assert measure(near.port, *direction) > 1_000_000

    @pytest.mark.parametrize("direction", [(), ("-R",)], ids=str)
    def test_iperf3_runs_over_a_link_that_loses_two_percent(self, processes, direction):
        both = processes.tunnel("both", 0, "--to", processes.iperf(), "--loss", "2%")
        assert measure(both.port, *direction) > 100_000

    @pytest.mark.parametrize("back_at_once", [True, pytest.param(False, marks=pytest.mark.slow)])
    def test_an_exit_that_is_killed_resets_its_connections_and_the_next_serves(
        self, processes, tmp_path, back_at_once
    ):
        program("curl")
        (tmp_path / "file").write_bytes(b"here I am")
        web = processes.web(tmp_path)
        far = processes.tunnel("exit", "0", "--to", web)
        near = processes.tunnel("entry", 0, "--via", far.port)
        with socket.create_connection((HOST, near.port), timeout=PATIENCE_S) as waiting:
            waiting.sendall(b"GET /file HTTP/1.1\r\n")  # and nothing more
            assert fetch(near.port, "file") == b"here I am"
            far.kill()
            far.wait()
            if back_at_once:
                processes.tunnel("exit", far.port, "--to", web)
            with pytest.raises(ConnectionResetError):
                waiting.recv(1)
        if not back_at_once:
            processes.tunnel("exit", far.port, "--to", web)
        assert fetch(near.port, "file") == b"here I am"
        assert near.poll() is None
