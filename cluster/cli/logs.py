"""`ring logs` and `ring events`: what the nodes said, and what happened to them."""

from __future__ import annotations

import json as json_module
import os
import sys
import time
from collections.abc import Iterator
from itertools import chain
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


class _Tails:
    """The ends of files that are being written."""

    def __init__(self, files: dict[str, Path]) -> None:
        self._files = files
        self._offsets = dict.fromkeys(files, 0)
        self._partial = dict.fromkeys(files, "")

    def lines(self) -> Iterator[tuple[str, str]]:
        """(node, line) for each line that was ended since the last call."""
        for name, path in self._files.items():
            if not path.exists():
                continue
            with path.open("rb") as file:
                file.seek(self._offsets[name])
                data = file.read()
                self._offsets[name] += len(data)
            text = self._partial[name] + data.decode(errors="replace")
            *lines, self._partial[name] = text.split("\n")
            yield from ((name, line) for line in lines)

    def last_words(self) -> Iterator[tuple[str, str]]:
        """(node, line) for each line that was begun: its writer may have died over it."""
        yield from ((name, words) for name, words in self._partial.items() if words)

    def follow(self) -> Iterator[tuple[str, str]]:
        """Lines as they come, for ever."""
        while True:
            yield from self.lines()
            sys.stdout.flush()
            time.sleep(POLL_S)


def _painter(names: list[str]) -> Any:
    width = max(map(len, names), default=0)
    coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ

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
    tails = _Tails(files)
    for name, line in tails.follow() if follow else chain(tails.lines(), tails.last_words()):
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

    tails = _Tails(files)
    past = sorted(_parse(tails.lines(), kind), key=lambda item: item[1]["wall"])
    show(past[-last:] if last else past)
    if follow:
        for item in _parse(tails.follow(), kind):
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
