"""A server and a client to play with, and the matrix:

    python -m netstack.delivery serve --port 7450 --strategy nonce-table --cure none
    python -m netstack.delivery ask --port 7450 deposit 10
    python -m netstack.delivery matrix --seed 1

`serve --lose-replies-to PORT` drops every reply to that client: kill -9 the server then, start it
again without, and see what the client's next copy does to the balance (give the client that port
by `ask --from-port PORT`, and time enough by `--rtt`).

    exit status   0 done    1 no answer, and stderr says what is known    2 bad flag or image
                  5 port taken
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import tempfile
from pathlib import Path
from typing import Final

from netstack.delivery.client import Client
from netstack.delivery.errors import BadMessage, DeliveryError
from netstack.delivery.restart import STRATEGIES, Cure, ports_for
from netstack.delivery.shell import ClientShell, ServerShell
from netstack.delivery.terms import Terms
from netstack.delivery.trials import matrix
from netstack.runtime.endpoint import EndpointError, PortTaken
from netstack.runtime.policy import LinkPolicy
from netstack.runtime.runtime import RealRuntime
from netstack.transport.rtt import ESTIMATORS

HOST: Final = "127.0.0.1"


def main(arguments: list[str]) -> int:
    """Run one command; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except PortTaken as error:
        print(error, file=sys.stderr)
        return 5
    except (EndpointError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m netstack.delivery")
    commands = parser.add_subparsers(required=True, metavar="serve|ask|matrix")
    both = argparse.ArgumentParser(add_help=False)
    both.add_argument("--port", type=int, default=7450, help="the server's UDP port")
    both.add_argument("--strategy", choices=STRATEGIES, default="nonce-table")
    both.add_argument("--cure", choices=[cure.value for cure in Cure], default=Cure.NONE.value)
    both.add_argument("--rtt", type=float, default=1.0, help="longest round trip, in seconds")
    both.add_argument("--tries", type=int, default=8, help="copies of a request at the most")

    serve = commands.add_parser("serve", parents=[both], help="keep an account and a register")
    serve.add_argument("--folder", type=Path, default=Path(".delivery"), help="for its image")
    serve.add_argument("--lose-replies-to", type=int, metavar="PORT", help="drop them")
    serve.set_defaults(run=lambda options: asyncio.run(_serve(options)))

    ask = commands.add_parser("ask", parents=[both], help="deposit N, set N or show")
    ask.add_argument("--from-port", type=int, default=0, help="the client's UDP port")
    ask.add_argument("--timer", choices=ESTIMATORS, default="rfc6298")
    ask.add_argument("order", nargs="+", metavar="deposit N|set N|show")
    ask.set_defaults(run=lambda options: asyncio.run(_ask(options)))

    show = commands.add_parser("matrix", help="which strategy breaks under which fault")
    show.add_argument("--seed", type=int, default=1)
    show.set_defaults(run=_matrix)
    return parser


def _terms(options: argparse.Namespace) -> Terms:
    return Terms(rtt_s=options.rtt, tries_max=options.tries)


async def _serve(options: argparse.Namespace) -> int:
    runtime = RealRuntime("server", options.folder)
    with contextlib.closing(runtime):
        if options.lose_replies_to:
            runtime.faults.links.set((HOST, options.lose_replies_to), LinkPolicy(cut=True))
        terms = _terms(options)
        try:
            shell = ServerShell(
                runtime, STRATEGIES[options.strategy](terms), Cure(options.cure), terms
            )
        except BadMessage as error:
            print(f"{options.folder / 'data'}: {error}; remove it to begin anew", file=sys.stderr)
            return 2
        ended = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        with contextlib.closing(shell):
            host, port = await shell.serve((HOST, options.port))
            print(f"serving on {host}:{port}, life {shell.core.life}", flush=True)
            await ended.wait()
    return 0


async def _ask(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        runtime = RealRuntime("client", Path(folder))
        core = Client(
            runtime.entropy(8),
            _terms(options),
            runtime.rng,
            estimator=ESTIMATORS[options.timer](options.rtt / 10),
            ports=ports_for(options.strategy, Cure(options.cure)),
        )
        shell = ClientShell(runtime, core, (HOST, options.port))
        with contextlib.closing(runtime), contextlib.closing(shell):
            await shell.open((HOST, options.from_port))
            try:
                reply = await shell.ask(" ".join(options.order).encode())
            except DeliveryError as error:
                print(error, file=sys.stderr)
                return 1
            print(reply.decode(errors="replace"))
    return 0


def _matrix(options: argparse.Namespace) -> int:
    print("executed exactly once / never / more than once\n")
    print(matrix.table(matrix.run(options.seed)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
