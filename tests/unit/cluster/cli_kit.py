"""`ring` in this process: what it prints, and the status that it ends with."""

from __future__ import annotations

import ast
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.main import get_command

from cluster.__main__ import app, main

ROOT = Path(__file__).resolve().parents[3]

# A command in a text, up to what cannot be part of it; "the ring is …" is one of peers.
COMMAND = re.compile(
    r"(?:^|[\s:;$(])(?<!the )(?<![aA] )(?<!whose )(?<!Chord )"
    r"ring ([a-z](?:(?!  |;|`|·|#|, | &| $).)*)"
)


@dataclass(frozen=True, slots=True)
class Done:
    """A command's end."""

    status: int
    out: str
    err: str

    def refused(self, status: int, *words: str) -> None:
        """Assert: this status, one line of ours on stderr with these words, nothing on stdout."""
        assert (self.status, self.out) == (status, ""), self
        assert self.err.startswith("ring: "), self
        assert len(self.err.splitlines()) == 1, self
        for word in words:
            assert word in self.err, self


class Typed:
    """Calls the entry point of `ring` with a command line."""

    def __init__(self, monkeypatch, capsys) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str) -> Done:
        self._monkeypatch.setattr(sys, "argv", ["ring", *arguments])
        self._capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        out, err = self._capsys.readouterr()
        return Done(status, out, err)


def commands() -> list[tuple[str, ...]]:
    """The words of each command, the groups' inner ones spelt out."""

    def walk(command: Any, words: tuple[str, ...]) -> list[tuple[str, ...]]:
        if not hasattr(command, "commands"):
            return [words]
        inner = [(name, command.get_command(None, name)) for name in command.list_commands(None)]
        return [found for name, sub in inner for found in walk(sub, (*words, name))]

    return walk(get_command(app), ())


def parse(line: str) -> dict[str, Any]:
    """What the command line would be called with; raises what typer would print."""
    command = get_command(app)
    context = command.make_context("ring", shlex.split(line))
    while hasattr(command, "commands"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
    return dict(context.params)


def strings(tree: ast.AST) -> Iterator[str]:
    """The lines of all strings of a program; n1 where a name is put in, {…} for all else."""
    inner = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inner.update(node.values)
            parts = [v.value if isinstance(v, ast.Constant) else _put_in(v) for v in node.values]
            yield from "".join(map(str, parts)).splitlines()
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inner:
            yield from node.value.splitlines()


def _put_in(value: ast.expr) -> str:
    return "n1" if ast.unparse(value) in ("{name}", "f'{name}'") else "{…}"


def lines_told_to_type() -> list[str]:
    """What the documentation's examples and the program's own hints tell people to type."""
    texts: list[str] = []
    for page in [*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("*/*/README.md")]:
        for block in re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.M | re.S):
            texts += block.splitlines()
    for source in (ROOT / "cluster").rglob("*.py"):
        texts += strings(ast.parse(source.read_text()))
    lines: set[str] = set()
    for text in texts:
        found = COMMAND.findall(text)
        lines.update(line.strip() for line in found)
    return sorted(line for line in lines if not set("{…|[") & set(line))
