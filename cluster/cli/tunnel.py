"""`ring net tunnel …`: ordinary programs over our transport.

    curl ── TCP ──> entry ══ UDP, sealed ══> exit ── TCP ──> web server
            8080                 7600                 8000

Both ends are ordinary processes and need no cluster. They prove themselves to one another with
certificates of an authority of their own, `$RING_HOME/tunnel`, which is made on first use.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer

from cluster import render, topology
from cluster.errors import Conflict, Usage
from cluster.quantities import probability, seconds
from netstack.runtime.endpoint import Address, EndpointError, PortTaken
from netstack.runtime.policy import PERFECT, LinkPolicy
from netstack.runtime.runtime import RealRuntime
from netstack.tunnel.address import HOST, loopback
from netstack.tunnel.entry import SERVICE, Entry
from netstack.tunnel.exit import Exit
from security import keystore
from security.errors import KeystoreError
from security.identity import Authority, Identity

app = typer.Typer(
    no_args_is_help=True, help="Forward a TCP port over the transport, for ordinary programs."
)

UDP_PORT = 7600  # above the ports of any cluster that began at 7400

TcpPort = Annotated[int, typer.Argument(help="TCP port to listen on.", min=0, max=65_535)]
UdpPort = Annotated[int, typer.Argument(help="UDP port to listen on.", min=0, max=65_535)]
To = Annotated[str, typer.Option("--to", help="Where connections go: a port, or 127.0.0.1:PORT.")]
Via = Annotated[str, typer.Option("--via", help="The exit: its UDP port, or 127.0.0.1:PORT.")]
Loss = Annotated[str, typer.Option(help="Datagrams lost each way: 5% or 0.05.")]
Delay = Annotated[str, typer.Option(help="One way's delay: 20ms.")]


class Ends:
    """What runs in this process: an exit, an entry, or both."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runtimes: list[RealRuntime] = []
        self._open: list[Exit | Entry] = []
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def exit(self, target: Address, port: int) -> Exit:
        """Start an exit; raises Conflict or Usage."""
        way_out = Exit(*self._who("exit"), target, render.say)
        self._open.append(way_out)
        try:
            await way_out.start((HOST, port))
        except PortTaken as error:
            raise Conflict(f"{error}; choose another: ring net tunnel exit PORT --to …") from None
        except EndpointError as error:
            raise Usage(str(error)) from None
        return way_out

    async def entry(self, via: Address, port: int) -> Entry:
        """Start an entry; raises Conflict or Usage."""
        way_in = Entry(*self._who("entry"), via, render.say)
        self._open.append(way_in)
        try:
            await way_in.start(port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise Conflict(f"TCP port {port} is taken; choose another, or 0") from None
            raise Usage(f"TCP port {port}: {os.strerror(error.errno or 0)}") from None
        return way_in

    def _who(self, name: str) -> tuple[RealRuntime, Identity]:
        identity = identity_of(self._folder, name)
        runtime = RealRuntime(name, self._folder / "nodes" / name)
        runtime.on_fatal = self._fatal
        self._runtimes.append(runtime)
        return runtime, identity

    def _fatal(self, error: BaseException) -> None:
        if not self.over.done():
            self.over.set_exception(error)

    @property
    def carried(self) -> int:
        """Connections so far."""
        return self._open[0].carried

    def stop(self) -> None:
        """End it, as after SIGINT."""
        if not self.over.done():
            self.over.set_result(None)

    def impair(self, link: LinkPolicy) -> None:
        """Make the path between the two as bad as `link`, both ways."""
        for runtime in self._runtimes:
            for end in self._open:
                runtime.faults.links.set(end.address, link)

    async def close(self) -> None:
        """Reset what is open, and release all ports."""
        for end in self._open:
            await end.close()
        for runtime in self._runtimes:
            runtime.on_fatal = None
            await runtime.cancel_tasks()
            runtime.close()


def _serve(begin: Callable[[Ends], Awaitable[None]]) -> None:
    """Run until SIGINT or SIGTERM."""
    folder = trust(topology.home())

    async def run() -> None:
        ends = Ends(folder)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, ends.stop)
        try:
            await begin(ends)
            await ends.over
            render.say(f"✓ connections carried: {ends.carried}")
        finally:
            await ends.close()

    import uvloop

    uvloop.run(run())


@app.command("exit")
def exit_(to: To, port: UdpPort = UDP_PORT) -> None:
    """The far end: takes streams from entries and connects each to the target."""
    target = _address(to)

    async def begin(ends: Ends) -> None:
        way_out = await ends.exit(target, port)
        render.say(f"✓ exit on UDP {_name(way_out.address)}, to TCP {_name(target)}")
        render.say(f"try next   ring net tunnel entry 8080 --via {way_out.address[1]}")

    _serve(begin)


@app.command()
def entry(port: TcpPort, via: Via = str(UDP_PORT)) -> None:
    """The near end: listens for TCP and carries each connection to the exit."""
    far_end = _address(via)

    async def begin(ends: Ends) -> None:
        way_in = await ends.entry(far_end, port)
        render.say(f"✓ entry on TCP {HOST}:{way_in.port}, via UDP {_name(far_end)}")
        render.say(f"try next   curl http://{HOST}:{way_in.port}/")

    _serve(begin)


@app.command()
def both(port: TcpPort, to: To, loss: Loss = "0%", delay: Delay = "0ms") -> None:
    """Both ends in one process, and between them a link as bad as you like."""
    target = _address(to)
    link = LinkPolicy(loss=probability(loss), delay_s=seconds(delay))

    async def begin(ends: Ends) -> None:
        way_out = await ends.exit(target, 0)
        way_in = await ends.entry(way_out.address, port)
        ends.impair(link)
        between = "" if link == PERFECT else f", between them loss {loss} and delay {delay}"
        render.say(f"✓ TCP {HOST}:{way_in.port} leads to TCP {_name(target)}{between}")
        render.say(f"try next   curl http://{HOST}:{way_in.port}/")

    _serve(begin)


def _address(text: str) -> Address:
    try:
        return loopback(text)
    except ValueError as error:
        raise Usage(str(error)) from None


def _name(address: Address) -> str:
    return f"{address[0]}:{address[1]}"


def trust(home: Path) -> Path:
    """The folder of the tunnel's authority and its two identities, made if it is missing.

    It is no cluster's, so that it outlives clusters, and neither end is anybody in one. Two
    processes may make it at once: the first to give it its name has made it.
    """
    folder = home / "tunnel"
    if not folder.exists():
        now, made = time.time(), home / f"tunnel.new-{os.getpid()}"
        authority = Authority.create(os.urandom(8).hex(), now=now, entropy=os.urandom)
        keystore.save_authority(made, authority)
        for name in ("exit", "entry"):
            identity = authority.issue(name, SERVICE, now=now, entropy=os.urandom)
            keystore.save_identity(made, identity)
        try:
            made.rename(folder)
        except OSError:
            shutil.rmtree(made)
    return folder


def identity_of(folder: Path, name: str) -> Identity:
    """The keys and certificate of an end, renewed if that is due; raises Usage."""
    try:
        identity = keystore.load_identity(folder, name)
        if identity.renew_due(time.time()):
            authority = keystore.load_authority(folder)
            identity = authority.renew(identity, now=time.time(), entropy=os.urandom)
            keystore.save_identity(folder, identity)
    except KeystoreError as error:
        raise Usage(f"{error}; or delete {folder}, and it is made anew") from None
    return identity
