"""`python -m ddp.training`: an elastic run's rank, or an experiment; each says JSON lines.

    worker    one rank of an elastic run; ends when its standard input does
    bubble    a pipeline of stages that sleep
    stale     workers of different speed against one parameter server, in virtual time

`ring ddp train` and its siblings start these, and show what they say.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from ddp.membership import ROLES, WORKER
from ddp.training.errors import TrainingError
from ddp.training.schedule import SCHEDULES


def say(kind: str, **fields: Any) -> None:
    """One line; `at` is by the clock that all processes of a host share, in seconds."""
    print(json.dumps({"kind": kind, "at": time.monotonic(), **fields}), flush=True)


def main(arguments: list[str]) -> int:
    """The exit status: 0 done, 2 what was asked makes no sense."""
    options = _parse(arguments)
    try:
        options.command(options)
    except TrainingError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ddp.training")
    commands = parser.add_subparsers(required=True)

    worker = commands.add_parser("worker")
    worker.add_argument("--job", required=True, help="a Job as JSON")
    worker.add_argument("--config", required=True, type=Path, help="the cluster file")
    worker.add_argument("--name", required=True, help="of this rank")
    worker.add_argument(
        "--run", required=True, help="of the whole: ranks of one name train together"
    )
    worker.add_argument("--founders", type=int, default=1)
    worker.add_argument("--role", choices=ROLES, default=WORKER, help="a server only adds")
    worker.add_argument(
        "--silence", type=float, default=None, help="seconds until one counts as dead"
    )
    worker.add_argument(
        "--staleness", default="", help="steps ahead of the slowest, or inf; asynchronous"
    )
    worker.add_argument("--slow", type=float, default=0.0, help="seconds added to each gradient")
    worker.set_defaults(command=_worker)

    bubble = commands.add_parser("bubble")
    for flag, default in (("--stages", 4), ("--micros", 8)):
        bubble.add_argument(flag, type=int, default=default)
    bubble.add_argument("--milliseconds", type=float, default=20.0)
    bubble.set_defaults(command=_bubble)

    stale = commands.add_parser("stale")
    stale.add_argument("--pushes", type=int, default=400)
    stale.add_argument("--slowest", type=float, default=5.0)
    stale.add_argument("--seeds", type=int, default=3)
    stale.set_defaults(command=_stale)
    return parser.parse_args(arguments)


def _worker(options: argparse.Namespace) -> None:
    import asyncio

    from ddp.training.job import Job
    from ddp.training.process import run_worker

    asyncio.run(
        run_worker(
            Job.from_json(options.job),
            options.config,
            options.run,
            options.name,
            options.founders,
            options.role,
            options.silence,
            options.staleness,
            options.slow,
            say,
        )
    )


def _bubble(options: argparse.Namespace) -> None:
    from ddp.training.bubble import measure

    seconds = options.milliseconds / 1000
    for schedule in SCHEDULES:
        found = measure(
            schedule,
            stages=options.stages,
            micros=options.micros,
            forward_s=seconds,
            backward_s=seconds,
        )
        figures: dict[str, Any] = {
            "measured": found.bubble,
            "expected": found.expected,
            "held": found.held,
        }
        figures["picture"] = found.picture
        say("bubble", schedule=schedule, **figures)


def _stale(options: argparse.Namespace) -> None:
    from ddp.training.data import load
    from ddp.training.race import compare_bounds

    compare_bounds(load("digits"), options.pushes, options.slowest, options.seeds, say)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
