"""What a person reads: tables on stdout, talk on stderr, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

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


def status_rows(status: dict[str, Any]) -> list[list[Any]]:
    """The rows of `ring status`, in the order of STATUS_COLUMNS."""
    rows = []
    for node in status["nodes"]:
        says = node["says"]
        lag = says.get("lag") or {}
        rows.append(
            [
                node["name"],
                node["address"],
                node["pid"] or "-",
                node["state"],
                node["health"],
                says.get("role", "-"),
                says.get("term", "-"),
                says.get("commit", "-"),
                says.get("applied", "-"),
                " ".join(f"{name}:{n}" for name, n in sorted(lag.items())) or "-",
                node["restarts"],
            ]
        )
    return rows


STATUS_COLUMNS = (
    "NODE",
    "ADDRESS",
    "PID",
    "STATE",
    "HEALTH",
    "ROLE",
    "TERM",
    "COMMIT",
    "APPLIED",
    "LAG",
    "RESTARTS",
)
STATUS_NUMBERS = ("PID", "TERM", "COMMIT", "APPLIED", "RESTARTS")


def show_status(status: dict[str, Any]) -> None:
    """The table of nodes, and below it why some are not well."""
    table(STATUS_COLUMNS, status_rows(status), right=STATUS_NUMBERS)
    for node in status["nodes"]:
        if node["reason"] and node["health"] != "ok":
            say(f"{node['name']}: {node['reason']}")
        for line in node.get("output", ())[-5:]:
            say(f"{node['name']} | {line}")
