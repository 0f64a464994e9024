"""The bones of every daemon: configuration, identity, runtime, service, ready, serve, drain, stop.

    python -m raftd --node n1 --config .ring/cluster.toml

    exit status   0 ended by SIGTERM or SIGINT    2 bad flag or configuration
                  5 port taken, or the node runs already
                  70 a bug, or a disk that cannot be trusted

$RING_FAULTS holds what is wrong with the machine already when it starts (netstack.runtime.faults).
SIGHUP makes it read its certificate and the list of the revoked again.

A daemon that is ready says so itself: one line on the descriptor that $RING_READY_FD names.
Errors before that are one line on stderr, and a bug its traceback.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, Protocol

from netstack.runtime.config import ClusterConfig, ConfigError, NodeConfig
from netstack.runtime.endpoint import EndpointError, PortTaken
from netstack.runtime.node_lock import NodeRunning, lock_node
from netstack.runtime.runtime import Fatal, RealRuntime, Runtime
from security import keystore
from security.errors import KeystoreError
from security.identity import Identity

EXIT_OK, EXIT_USAGE, EXIT_CONFLICT, EXIT_BUG = 0, 2, 5, 70

# What a service may take to finish the calls it has; then it is stopped all the same.
DRAIN_S = 5.0

# A store that takes 6,000 writes a second makes so many objects that live in a third of a second.
YOUNG_OBJECTS = 10_000


class Service(Protocol):
    """What a daemon is made of; the simulation starts the same objects."""

    async def start(self, runtime: Runtime, identity: Identity, config: ClusterConfig) -> None:
        """Bind, recover, and be ready to serve."""

    def status(self) -> dict[str, Any]:
        """A flat map of what a person wants to see."""

    def metrics(self) -> dict[str, float]:
        """Counters and gauges by Prometheus name."""

    def trust(self, identity: Identity) -> None:
        """The certificates have changed: a new one of this node, or one that was revoked."""

    async def drain(self) -> None:
        """Finish what is open, refuse what is new."""

    async def stop(self) -> None:
        """Release socket and files."""


def main(service_name: str, make: Callable[[], Service], arguments: list[str]) -> NoReturn:
    """Run one daemon until it is told to end; never returns."""
    options = _parse(service_name, arguments)
    try:
        config = ClusterConfig.load(options.config)
        node = config.node(options.node)
        if node.service != service_name:
            raise ConfigError(f"{node.name} is a {node.service} node, not a {service_name} node")
        identity = keystore.load_identity(config.home, node.name)
        if identity.expires_at < time.time():
            raise KeystoreError(f"the certificate of {node.name} has expired; do: ring cert renew")
    except (ConfigError, KeystoreError) as error:
        _refuse(service_name, error, EXIT_USAGE)
    try:
        lock_node(config.home / "nodes" / node.name)
    except NodeRunning as error:
        _refuse(service_name, error, EXIT_CONFLICT)
    import uvloop

    tune_interpreter()
    sys.exit(uvloop.run(_run(make(), node, identity, config)))


def tune_interpreter() -> None:
    """Against pauses: a garbage collection stops everything, 1 ms for each thousand objects.

    Reference counting frees all that is not in a cycle. Young cycles are still collected, in
    portions that no heartbeat notices: three times YOUNG_OBJECTS at most. What has been searched
    twice is not searched again, nor is what is there at the start. And a thread that comes back
    from the disk gets its turn after 0.5 ms instead of 5.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 1, 1_000_000)
    sys.setswitchinterval(0.0005)


def _parse(service_name: str, arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {service_name}d")
    parser.add_argument("--node", required=True, help="name of the node in the cluster file")
    parser.add_argument("--config", required=True, type=Path, help="the cluster file")
    return parser.parse_args(arguments)


async def _run(
    service: Service, node: NodeConfig, identity: Identity, config: ClusterConfig
) -> int:
    runtime = RealRuntime(node.name, config.home / "nodes" / node.name)
    ended = asyncio.Event()
    failures: list[BaseException] = []

    def fail(error: BaseException) -> None:
        failures.append(error)
        ended.set()

    runtime.on_fatal = fail

    asyncio.get_running_loop().set_exception_handler(partial(_unhandled, runtime))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)

    def trust() -> None:
        try:
            service.trust(keystore.load_identity(config.home, node.name))
        except KeystoreError as error:
            runtime.events.emit("node.certificate", cause=f"not read again: {error}")
        else:
            runtime.events.emit("node.certificate", cause="read again")

    runtime.faults.apply(json.loads(os.environ.get("RING_FAULTS", "{}")))
    if identity.renew_due(time.time()):
        runtime.events.emit("node.certificate", cause="two thirds of its life are over")
    runtime.events.emit("node.start", pid=os.getpid(), service=node.service)
    try:
        ready = await _start(service.start(runtime, identity, config), ended)
    except Exception as error:
        cause = str(error) or repr(error)
        runtime.events.emit("node.refused", cause=cause)
        runtime.close()
        if not isinstance(error, (EndpointError, ConfigError, Fatal)):
            traceback.print_exc()
        _refuse(node.name, cause, _status(error))
    if ready:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, trust)
        _report_ready()
        runtime.events.emit("node.ready")
        await ended.wait()
        if not failures:
            runtime.events.emit("node.drain")
            await _attempt(runtime, "drain", _drain(service, runtime))
        await _attempt(runtime, "stop", service.stop())
    runtime.on_fatal = None
    asyncio.get_running_loop().set_exception_handler(None)
    await runtime.cancel_tasks()
    reason = failures[0] if failures else None
    runtime.events.emit("node.stop", cause=None if reason is None else str(reason))
    runtime.close()
    if reason is not None:
        print(f"{node.name}: {type(reason).__name__}: {reason}", file=sys.stderr)
        return EXIT_BUG
    return EXIT_OK


def _unhandled(runtime: Runtime, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What the loop has caught. A callback that stopped halfway is fatal: nobody knows what is left
    of what it did. A future's error that nobody has asked for is not.
    """
    error = context.get("exception")
    if error is not None and "handle" in context:
        runtime.fatal(error, "a callback")
    loop.default_exception_handler(context)


async def _start(work: Coroutine[Any, Any, None], ended: asyncio.Event) -> bool:
    """Whether the service is ready; False if it is to end before that, which may never come."""
    starting = asyncio.ensure_future(work)
    told = asyncio.ensure_future(ended.wait())
    await asyncio.wait((starting, told), return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if starting.done():
        starting.result()
        return True
    starting.cancel()
    await asyncio.wait((starting,))
    return False


async def _drain(service: Service, runtime: Runtime) -> None:
    try:
        async with asyncio.timeout(DRAIN_S):
            await service.drain()
    except TimeoutError:
        runtime.events.emit("node.drain_cut", cause=f"not drained within {DRAIN_S} s")


async def _attempt(runtime: Runtime, step: str, work: Awaitable[None]) -> None:
    """A step of the way out: an error in it is fatal, but keeps nobody from the next."""
    try:
        await work
    except Exception as error:
        runtime.fatal(error, step)


def _status(error: Exception) -> int:
    if isinstance(error, ConfigError):
        return EXIT_USAGE
    return EXIT_CONFLICT if isinstance(error, PortTaken) else EXIT_BUG


def _report_ready() -> None:
    descriptor = os.environ.get("RING_READY_FD", "")
    if descriptor.isdigit():
        os.write(int(descriptor), b"ready\n")
        os.close(int(descriptor))


def _refuse(who: str, why: object, status: int) -> NoReturn:
    print(f"{who}: {why}", file=sys.stderr)
    sys.exit(status)
