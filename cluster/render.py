"""What a person reads: tables on stdout, talk on stderr, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from cluster.services import SERVICES, Column

# Columns of a pipe: whoever reads it gets every cell whole.
UNBOUNDED = 1_000_000

STYLES = {
    "running": "green",
    "ok": "green",
    "leader": "bold cyan",
    "starting": "yellow",
    "backoff": "yellow",
    "paused": "yellow",
    "no leader": "yellow",
    "silent": "yellow",
    "lost entries": "bold red",
    "killed": "red",
    "fatal": "bold red",
    "down": "red",
    "stopped": "dim",
}


def say(text: str) -> None:
    """Talk: progress, hints and errors go to stderr, so that stdout stays data."""
    print(text, file=sys.stderr)


def as_json(value: Any) -> None:
    """Data for programs."""
    print(json.dumps(value, indent=2, default=_jsonable))


def _jsonable(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Iterable[str] = ()
) -> None:
    """A table on stdout: coloured on a terminal, plain columns in a pipe."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    numbers = set(right)
    for column in columns:
        drawn.add_column(column, justify="right" if column in numbers else "left", no_wrap=True)
    for row in rows:
        cells = [str(cell) for cell in row]
        drawn.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in cells))
    if not console.is_terminal:
        console.width = UNBOUNDED
    console.print(drawn)


# Columns that every node has, before and after those of its service.
BEFORE = (
    Column("NODE", "name"),
    Column("ADDRESS", "address"),
    Column("PID", lambda node: node["pid"] or "-", number=True),
    Column("STATE", "state"),
    Column("HEALTH", "health"),
)
AFTER = (Column("RESTARTS", "restarts", number=True),)


def status_table(
    service: str, nodes: Iterable[dict[str, Any]]
) -> tuple[list[str], list[list[Any]]]:
    """Heads and rows of the nodes of one service in `ring status`."""
    own = SERVICES[service].columns
    heads = [column.head for column in (*BEFORE, *own, *AFTER)]
    rows = [
        [
            *(column.cell(node) for column in BEFORE),
            *(column.cell(node["says"]) for column in own),
            *(column.cell(node) for column in AFTER),
        ]
        for node in nodes
    ]
    return heads, rows


def show_status(status: dict[str, Any]) -> None:
    """A table a service, and below them why some nodes are not well."""
    for service, kind in SERVICES.items():
        nodes = [node for node in status["nodes"] if node["service"] == service]
        if nodes:
            numbers = [c.head for c in (*BEFORE, *kind.columns, *AFTER) if c.number]
            table(*status_table(service, nodes), right=numbers)
    for node in status["nodes"]:
        if node["reason"] and node["health"] != "ok":
            say(f"{node['name']}: {node['reason']}")
        for line in node.get("output", ())[-5:]:
            say(f"{node['name']} | {line}")
