"""A real server, killed with -9 between a deposit and its reply; its client asks again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgpack
import pytest

from netstack.delivery.client import Client
from netstack.delivery.errors import GaveUp, NotExecuted, Refused
from netstack.delivery.restart import Cure, ports_for
from netstack.delivery.shell import ClientShell
from netstack.delivery.terms import Terms
from netstack.runtime.runtime import RealRuntime
from netstack.transport.rtt import RttEstimator

# Long enough for a server to be started again on a busy machine, while its client still asks.
PATIENT = Terms(rtt_s=12.0, tries_max=200)
# Short enough to wait for the end of a silence.
BRIEF = Terms(rtt_s=0.4, tries_max=200)


class Server:
    """`python -m netstack.delivery serve` in a process of its own."""

    def __init__(self, folder: Path, terms: Terms, strategy: str, cure: Cure) -> None:
        self.folder = folder
        self._options = (
            f"--strategy={strategy}",
            f"--cure={cure.value}",
            f"--rtt={terms.rtt_s}",
            f"--tries={terms.tries_max}",
            f"--folder={folder}",
        )
        self._process: subprocess.Popen[str] | None = None
        self.port = 0

    def start(self, *options: str) -> None:
        """Returns when it serves."""
        command = [sys.executable, "-m", "netstack.delivery", "serve", f"--port={self.port}"]
        self._process = subprocess.Popen(
            [*command, *self._options, *options], stdout=subprocess.PIPE, text=True
        )
        line = self._process.stdout.readline()
        assert line.startswith("serving on 127.0.0.1:"), line
        self.port = int(line.split(":")[1].split(",")[0])

    def end(self, number: int = signal.SIGKILL) -> int:
        """Its exit status."""
        process, self._process = self._process, None
        process.send_signal(number)
        status = process.wait(30)
        process.stdout.close()
        return status

    def close(self) -> None:
        if self._process is not None:
            self.end()

    @property
    def balance(self) -> int:
        """What is stable."""
        with contextlib.suppress(FileNotFoundError):
            return msgpack.unpackb((self.folder / "data" / "image").read_bytes())[1][0]
        return 0


@contextlib.asynccontextmanager
async def client_of(server, folder, terms, strategy, cure):
    runtime = RealRuntime("client", folder)
    core = Client(
        os.urandom(8),
        terms,
        runtime.rng,
        estimator=RttEstimator(0.05),
        ports=ports_for(strategy, cure),
    )
    shell = ClientShell(runtime, core, ("127.0.0.1", server.port))
    await shell.open()
    with contextlib.closing(runtime), contextlib.closing(shell):
        yield shell


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def serve(tmp_path):
    servers = []

    def make(terms, strategy, cure):
        servers.append(Server(tmp_path / "server", terms, strategy, cure))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


async def deposit_across_a_kill(serve, tmp_path, strategy, cure, terms=PATIENT):
    """(what the client was told, the balance after it, the reply to one more deposit).

    The reply is lost; the kill comes when the deposit is stable.
    """
    server = serve(terms, strategy, cure)
    server.start()
    async with client_of(server, tmp_path / "client", terms, strategy, cure) as client:
        receive = client.core.receive

        def lose_replies(datagram, now):
            if b"balance" not in datagram:
                receive(datagram, now)

        client.core.receive = lose_replies
        asking = asyncio.create_task(client.ask(b"deposit 1"))
        await stable(server, 1)
        server.end()
        client.core.receive = receive
        server.start()
        told = await settled(asking)
        return told, server.balance, await answered(client, b"deposit 10")


async def stable(server, balance: int) -> None:
    async with asyncio.timeout(60):
        while server.balance < balance:  # noqa: ASYNC110 - a file of another process
            await asyncio.sleep(0.01)


async def settled(asking):
    try:
        async with asyncio.timeout(90):
            return await asking
    except (GaveUp, Refused, NotExecuted) as error:
        return type(error)


async def answered(client, body: bytes):
    """The reply, however long the server is silent."""
    for _ in range(20):
        with contextlib.suppress(GaveUp):
            return await client.ask(body)
    raise AssertionError("no answer")


async def test_without_a_cure_a_deposit_is_executed_twice(serve, tmp_path):
    told = await deposit_across_a_kill(serve, tmp_path, "nonce-table", Cure.NONE)
    assert told == (b"balance 2", 2, b"balance 12")


async def test_a_durable_table_answers_again_and_executes_once(serve, tmp_path):
    told = await deposit_across_a_kill(serve, tmp_path, "nonce-table", Cure.DURABLE_TABLE)
    assert told == (b"balance 1", 1, b"balance 11")


async def test_a_fresh_port_in_each_life_refuses_and_executes_once(serve, tmp_path):
    told = await deposit_across_a_kill(serve, tmp_path, "nonce-table", Cure.FRESH_PORT)
    assert told == (Refused, 1, b"balance 11")


async def test_silence_lets_the_client_give_up_and_executes_once(serve, tmp_path):
    told = await deposit_across_a_kill(serve, tmp_path, "nonce-table", Cure.SILENCE, BRIEF)
    assert told == (GaveUp, 1, b"balance 11")


async def test_a_fresh_port_for_each_request_refuses_and_executes_once(serve, tmp_path):
    told = await deposit_across_a_kill(serve, tmp_path, "fresh-port", Cure.FRESH_PORT)
    assert told == (Refused, 1, b"balance 11")


async def test_a_hundred_deposits_at_once_are_a_hundred(serve, tmp_path):
    server = serve(PATIENT, "nonce-table", Cure.NONE)
    server.start()
    caller = client_of(server, tmp_path / "client", PATIENT, "nonce-table", Cure.NONE)
    async with caller as client:
        for _ in range(2):
            replies = await asyncio.gather(*(client.ask(b"deposit 1") for _ in range(50)))
            assert len(set(replies)) == 50
        assert await client.ask(b"show") == b"balance 100, register 0"
    assert server.end(signal.SIGTERM) == 0


def run(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "netstack.delivery", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_commands_say_what_happened(serve, tmp_path):
    server = serve(PATIENT, "nonce-table", Cure.NONE)
    server.start()
    port = f"--port={server.port}"
    assert run("ask", port, "deposit", "10") == (0, "balance 10\n", "")
    assert run("ask", port, "set", "7") == (0, "register 7\n", "")
    assert run("ask", port, "show") == (0, "balance 10, register 7\n", "")
    assert run("ask", port, "steal", "5")[1] == "error: say `deposit N`, `set N` or `show`\n"
    status, _, error = run("serve", port, f"--folder={tmp_path / 'other'}")
    assert (status, f"UDP port {server.port} on 127.0.0.1 is taken" in error) == (5, True)
    server.end()
    status, _, error = run("ask", port, "--rtt=0.1", "show")
    assert status == 1
    assert "executed once, more than once or never" in error


async def test_the_demonstration_of_the_readme(serve, tmp_path):
    server = serve(PATIENT, "nonce-table", Cure.NONE)
    port = free_port()
    server.start(f"--lose-replies-to={port}")
    order = ("ask", f"--port={server.port}", f"--from-port={port}", "--rtt=12", "deposit", "10")
    asking = asyncio.create_task(asyncio.to_thread(run, *order))
    await stable(server, 10)
    server.end()
    server.start()
    assert await asking == (0, "balance 20\n", "")


def test_a_bad_flag_or_image_is_one_line_and_status_2(tmp_path):
    assert run("ask", "--rtt=0", "show")[0::2] == (
        2,
        "rtt_s must be a positive number of seconds, not 0.0\n",
    )
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "image").write_bytes(b"nonsense")
    status, _, error = run("serve", "--port=0", f"--folder={tmp_path}")
    assert status == 2
    assert "remove it to begin anew" in error
    assert error.count("\n") == 1
