"""`ring`, the same as `python -m cluster`."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from cluster.cli import (
    certificates,
    chaos,
    ddp,
    ddp_roofline,
    ddp_train,
    dht,
    faults,
    kv,
    lab,
    lifecycle,
    logs,
    metrics,
    mr,
    mr_fs,
    mr_graph,
    nodes,
    repair,
    tools,
    torrent,
    tunnel,
    verify,
)
from cluster.errors import INTERNAL, RingError

app = typer.Typer(
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
    nodes.crashpoint,
    nodes.restart,
    repair.repair,
    chaos.chaos,
    chaos.sim,
    verify.verify,
    tools.bench,
)
for command in COMMANDS:
    app.command()(command)
faults.net.command()(lab.lab)
faults.net.add_typer(tunnel.app, name="tunnel")
for command in (ddp_train.train, ddp_train.bubble, ddp_train.stale, ddp_roofline.roofline):
    ddp.app.command()(command)
app.add_typer(faults.net, name="net")
app.add_typer(faults.disk, name="disk")
app.add_typer(faults.clock, name="clock")
app.add_typer(kv.app, name="kv")
app.add_typer(dht.app, name="dht")
app.add_typer(ddp.app, name="ddp")
mr.app.add_typer(mr_fs.app, name="fs")
mr.app.command("graph")(mr_graph.graph)
app.add_typer(mr.app, name="mr")
app.add_typer(torrent.app, name="torrent")
app.add_typer(certificates.app, name="cert")


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
