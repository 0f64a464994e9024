"""`ring`, the same as `python -m cluster`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any, Final

import typer
from typer.core import TyperGroup

from cluster.cli import (
    chaos,
    crashpoints,
    lifecycle,
    logs,
    metrics,
    nodes,
    repair,
    tools,
    verify,
)
from cluster.errors import INTERNAL, RingError

# Groups of commands, and where they are: imported when one of them is asked for, since what a
# group needs (numpy, the client of a service) would make every `ring status` wait.
GROUPS: Final = {
    "kv": "cluster.cli.kv:app",
    "dht": "cluster.cli.dht:app",
    "torrent": "cluster.cli.torrent:app",
    "mr": "cluster.cli.mr:app",
    "ddp": "cluster.cli.ddp:app",
    "net": "cluster.cli.faults:net",
    "disk": "cluster.cli.faults:disk",
    "clock": "cluster.cli.faults:clock",
    "cert": "cluster.cli.certificates:app",
}


class Groups(TyperGroup):
    """The commands given to it, and GROUPS."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names, in the order of the help."""
        return [name for name in super().list_commands(ctx) if name not in GROUPS] + list(GROUPS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command or group of that name, or None."""
        if cmd_name in GROUPS and cmd_name not in self.commands:
            module, _, name = GROUPS[cmd_name].partition(":")
            group = typer.main.get_group(getattr(importlib.import_module(module), name))
            group.name = cmd_name
            self.commands[cmd_name] = group
        return super().get_command(ctx, cmd_name)


app = typer.Typer(
    cls=Groups,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A distributed system you can hold in your hands.",
    epilog=(
        "Exit status: 0 done · 1 unhealthy, or verdict invalid · 2 usage · 3 unknown · "
        "4 not in time · 5 conflict · 6 not running · 70 a bug of ours"
    ),
)
COMMANDS: tuple[Callable[..., None], ...] = (
    lifecycle.up,
    lifecycle.status,
    lifecycle.down,
    logs.logs,
    logs.events,
    metrics.metrics,
    nodes.kill,
    nodes.pause,
    nodes.resume,
    nodes.slow,
    crashpoints.crashpoint,
    nodes.restart,
    repair.repair,
    chaos.chaos,
    chaos.sim,
    verify.verify,
    tools.bench,
)
for command in COMMANDS:
    app.command()(command)


def main() -> None:
    """Entry of the console script."""
    try:
        app()
    except RingError as error:
        print(f"ring: {error}", file=sys.stderr)
        sys.exit(error.status)
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):
            sys.exit(0)  # the reader, `head` perhaps, has seen enough
        raise
    except Exception as error:
        print(f"ring: a bug of ours: {type(error).__name__}: {error}", file=sys.stderr)
        import traceback

        traceback.print_exc()
        sys.exit(INTERNAL)


if __name__ == "__main__":
    main()
