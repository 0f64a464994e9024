"""Send a file, or receive some, over UDP on this machine: any sender with any receiver.

    python -m netstack.arq receive --port 7914 --receiver nak --out inbox
    python -m netstack.arq send FILE --port 7914 --sender sliding-window --window 64 --loss 0.02

stdout has one JSON object for each message, stderr what people want to know.

    exit status   0 acknowledged, or ended by SIGTERM or SIGINT     2 bad flag, unreadable file
                  4 gave up: nobody acknowledged                    5 port taken
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from netstack.arq.errors import GaveUp, TooLong
from netstack.arq.receiver import BUFFER_BYTES, Receiver
from netstack.arq.segment import cut
from netstack.arq.sender import INITIAL_RTT_S, TRIES_MAX, Sender
from netstack.arq.shell import Inbox, Outgoing
from netstack.arq.strategies import RECEIVERS, SENDERS
from netstack.runtime.endpoint import Address, EndpointError
from netstack.runtime.policy import LinkPolicy
from netstack.runtime.runtime import RealRuntime
from netstack.transport.rtt import ESTIMATORS

HOST = "127.0.0.1"
EXIT_USAGE, EXIT_GAVE_UP, EXIT_CONFLICT, EXIT_INTERRUPTED = 2, 4, 5, 130

# How long a receiver that has all it wants goes on to answer: the sender may have missed the last
# answer, and with a time-out of a second it asks again within this time.
LINGER_S = 1.5


def main(arguments: list[str]) -> int:
    """Run one command; returns the exit status."""
    options = _parse(arguments)
    try:
        status: int = asyncio.run(options.run(options))
        return status
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror}", EXIT_USAGE)
    except (TooLong, ValueError) as error:
        return _fail(error, EXIT_USAGE)
    except EndpointError as error:
        return _fail(error, EXIT_CONFLICT)
    except GaveUp as error:
        return _fail(error, EXIT_GAVE_UP)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _fail(error: object, status: int) -> int:
    _say(str(error))
    return status


def _say(text: str) -> None:
    print(f"arq: {text}", file=sys.stderr, flush=True)


def _report(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port < 1 << 16:
        raise argparse.ArgumentTypeError(f"a port is 0 to 65535, not {port}")
    return port


def _parse(arguments: list[str]) -> argparse.Namespace:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--port", type=_port, default=7914, help="of the receiver (%(default)s)")
    common.add_argument("--loss", type=float, default=0.0, help="chance that a datagram is lost")
    common.add_argument("--delay-ms", type=float, default=0.0, help="one way, on top of the real")
    home = Path(os.environ.get("RING_HOME", ".ring"))
    common.add_argument("--home", type=Path, default=home, help="for the event log (%(default)s)")

    parser = argparse.ArgumentParser(
        prog="python -m netstack.arq", description="A message over UDP, as the lectures teach it."
    )
    commands = parser.add_subparsers(required=True, metavar="send|receive")
    send = commands.add_parser("send", parents=[common], help="send a file")
    send.set_defaults(run=_send, role="send")
    send.add_argument("file", type=Path)
    send.add_argument("--sender", choices=SENDERS, default="sliding-window")
    send.add_argument("--window", type=int, help="in segments (64; lock-step: 1)")
    send.add_argument("--segment", type=int, default=1200, help="bytes (%(default)s)")
    send.add_argument("--timer", choices=ESTIMATORS, default="rfc6298")
    send.add_argument("--tries", type=int, default=TRIES_MAX, help="in a row (%(default)s)")
    send.add_argument("--message", type=int, help="its number; by default a random one")

    receive = commands.add_parser("receive", parents=[common], help="receive messages")
    receive.set_defaults(run=_receive, role="receive")
    receive.add_argument("--receiver", choices=RECEIVERS, default="nak")
    receive.add_argument("--buffer", type=int, default=BUFFER_BYTES, help="bytes (%(default)s)")
    receive.add_argument("--out", type=Path, help="folder for the messages")
    receive.add_argument("--messages", type=int, default=0, help="end after so many")
    return parser.parse_args(arguments)


async def _send(options: argparse.Namespace) -> int:
    data = options.file.read_bytes()
    with closing(_runtime(options)) as runtime:
        return await _send_data(runtime, data, options)


async def _send_data(runtime: RealRuntime, data: bytes, options: argparse.Namespace) -> int:
    destination = HOST, options.port
    message = runtime.rng.getrandbits(32) if options.message is None else options.message
    kind: type[Sender] = SENDERS[options.sender]
    window = options.window
    if window is None:
        window = 1 if options.sender == "lock-step" else 64
    timer = ESTIMATORS[options.timer](INITIAL_RTT_S)
    segments = cut(message, data, options.segment)
    sender = kind(segments, window, timer=timer, tries_max=options.tries)
    endpoint = await runtime.bind((HOST, 0))
    runtime.faults.links.set(destination, _policy(options))
    _say(
        f"message {message}: {len(data)} bytes in {len(segments)} segments to {_text(destination)}"
    )
    began = runtime.clock.now()
    try:
        await Outgoing(runtime, endpoint, destination, sender).run()
    except GaveUp as error:
        runtime.events.emit("arq.gave_up", cause=str(error), message=message)
        raise
    finally:
        endpoint.close()
    _report(
        message=message,
        bytes=len(data),
        seconds=round(runtime.clock.now() - began, 6),
        bytes_sent_again=sender.bytes_sent_again,
        timeouts=sender.timeouts,
        rtt_ms=round(timer.smoothed * 1000, 3),
    )
    return 0


async def _receive(options: argparse.Namespace) -> int:
    with closing(_runtime(options)) as runtime:
        shelf = Shelf(runtime, options)
        endpoint = await runtime.bind((HOST, options.port))
        Inbox(endpoint, shelf.make, shelf.put)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, shelf.ended.set)
        _say(f"receiving on {_text(endpoint.address)} ({options.receiver}); end it with Ctrl-C")
        await shelf.ended.wait()
        endpoint.close()
    if shelf.failure is not None:
        raise shelf.failure
    return 0


class Shelf:
    """Where received messages go: a file each, or nowhere; and a line on stdout for each."""

    def __init__(self, runtime: RealRuntime, options: argparse.Namespace) -> None:
        self.ended = asyncio.Event()
        self.failure: OSError | None = None
        self._runtime = runtime
        self._options = options
        self._complete = 0
        self._hashes: dict[Path, Any] = {}  # of those that are not complete
        self._make: Callable[[], Receiver] = partial(RECEIVERS[options.receiver], options.buffer)
        self._make()  # a flag that makes no sense is told now, not when a message comes
        self._policy = _policy(options)
        if options.out is not None:
            options.out.mkdir(parents=True, exist_ok=True)

    def make(self, source: Address) -> Receiver:
        """A receiver for one more message of `source`, whose answers fare as the flags say."""
        self._runtime.faults.links.set(source, self._policy)
        return self._make()

    def put(self, source: Address, receiver: Receiver, data: bytes) -> bool:
        """The next bytes of a message; False if they cannot be kept."""
        path = Path(f"message-{receiver.message}-from-{source[1]}")
        first = path not in self._hashes
        digest = self._hashes.setdefault(path, hashlib.sha256())
        digest.update(data)
        if self._options.out is not None:
            try:
                with (self._options.out / path).open("wb" if first else "ab") as file:
                    file.write(data)
            except OSError as error:
                self.failure = error
                self.ended.set()
                return False
        if receiver.done:
            del self._hashes[path]
            self._report(receiver, digest.hexdigest())
        return True

    def _report(self, receiver: Receiver, digest: str) -> None:
        _report(
            message=receiver.message,
            segments=receiver.count,
            sha256=digest,
            duplicates=receiver.duplicates,
            dropped=receiver.dropped,
            high_water_bytes=receiver.high_water_bytes,
        )
        self._runtime.events.emit("arq.received", message=receiver.message, sha256=digest)
        self._complete += 1
        if self._complete == self._options.messages:
            asyncio.get_running_loop().call_later(LINGER_S, self.ended.set)


def _runtime(options: argparse.Namespace) -> RealRuntime:
    return RealRuntime(f"arq-{options.role}", options.home / "arq" / options.role)


def _policy(options: argparse.Namespace) -> LinkPolicy:
    return LinkPolicy(loss=options.loss, delay_s=options.delay_ms / 1000)


def _text(address: Address) -> str:
    return f"{address[0]}:{address[1]}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
