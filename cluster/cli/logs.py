"""`ring logs` and `ring events`: what the nodes said, and what happened to them."""

from __future__ import annotations

import json as json_module
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster import topology
from cluster.errors import Usage

COLOURS = ("36", "33", "32", "35", "34", "31", "96", "93", "92", "95", "94", "91")
POLL_S = 0.1

Names = Annotated[list[str] | None, typer.Argument(help="Nodes; all if none are named.")]
Follow = Annotated[bool, typer.Option("-f", "--follow", help="Go on as more comes.")]


def _files(names: list[str] | None, file: str) -> dict[str, Path]:
    home = topology.home()
    config = topology.load(home)
    known = [node.name for node in config.nodes]
    for name in names or ():
        if name not in [*known, "supervisor"]:
            raise Usage(f"there is no node {name!r}; nodes: {', '.join(known)}, supervisor")
    return {name: home / "nodes" / name / file for name in names or known}


def _tail(files: dict[str, Path], follow: bool) -> Iterator[tuple[str, str]]:
    """(node, line) of all files: what is there, then, with `follow`, what comes."""
    offsets = dict.fromkeys(files, 0)
    partial = dict.fromkeys(files, "")
    while True:
        for name, path in files.items():
            if not path.exists():
                continue
            with path.open("rb") as file:
                file.seek(offsets[name])
                data = file.read()
                offsets[name] += len(data)
            *lines, partial[name] = (partial[name] + data.decode(errors="replace")).split("\n")
            yield from ((name, line) for line in lines)
        if not follow:
            return
        sys.stdout.flush()
        time.sleep(POLL_S)


def _painter(names: list[str]) -> Any:
    width = max(map(len, names), default=0)
    coloured = sys.stdout.isatty() and "NO_COLOR" not in __import__("os").environ

    def paint(name: str) -> str:
        label = name.ljust(width)
        if not coloured:
            return label
        colour = COLOURS[names.index(name) % len(COLOURS)]
        return f"\x1b[{colour}m{label}\x1b[0m"

    return paint


def logs(nodes: Names = None, follow: Follow = False) -> None:
    """What daemons printed: start-up errors and tracebacks. What happened is in `ring events`."""
    files = _files(nodes, "output.log")
    paint = _painter(list(files))
    for name, line in _tail(files, follow):
        print(f"{paint(name)} │ {line}")


def events(
    nodes: Names = None,
    follow: Follow = False,
    kind: Annotated[str, typer.Option(help="Only kinds that begin so, as in raft.")] = "",
    last: Annotated[int, typer.Option("-n", help="At first only this many.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="The lines as they are.")] = False,
) -> None:
    """The typed event log of all nodes, in the order of time."""
    files = _files(nodes, "events.jsonl")
    paint = _painter(list(files))

    def show(found: list[tuple[str, dict[str, Any], str]]) -> None:
        for name, event, line in found:
            if json:
                print(line)
                continue
            skip = ("v", "seq", "wall", "mono", "node", "kind")
            fields = "  ".join(f"{k}={v}" for k, v in event.items() if k not in skip)
            at = time.strftime("%H:%M:%S", time.localtime(event["wall"]))
            print(
                f"{at}.{int(event['wall'] % 1 * 1000):03d}  {paint(name)}  "
                f"{event['kind']:18} {fields}"
            )

    past = sorted(_parse(_tail(files, False), kind), key=lambda item: item[1]["wall"])
    show(past[-last:] if last else past)
    if follow:
        seen = len(past)
        for i, item in enumerate(_parse(_tail(files, True), kind)):
            if i >= seen:
                show([item])


def _parse(
    lines: Iterator[tuple[str, str]], kind: str
) -> Iterator[tuple[str, dict[str, Any], str]]:
    for name, line in lines:
        try:
            event = json_module.loads(line)
        except ValueError:
            continue
        if event.get("kind", "").startswith(kind):
            yield name, event, line
