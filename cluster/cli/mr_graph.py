"""`ring mr graph FILE.py:name`: a graph of computations, run on the workers, and drawn."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster import render, topology
from cluster.control import running
from cluster.errors import NotRunning, Unhealthy, Usage

if TYPE_CHECKING:
    from mapreduce.graph.client import Graph, Report

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


def graph(
    what: Annotated[str, typer.Argument(help="FILE.py:name of a graph, or of a function of one.")],
    draw: Annotated[
        Path | None, typer.Option(help="Draw it with its states: FILE.svg or FILE.dot.")
    ] = None,
    dry: Annotated[bool, typer.Option("--dry", help="Draw it, and run nothing.")] = False,
    fusion: Annotated[bool, typer.Option(help="Run chains as single tasks.")] = True,
    json: Json = False,
) -> None:
    """Compute a graph of pure functions on the workers, and draw it with the state of each task.

    `name` is a Dask graph (a dictionary), a Delayed, a list of these, or a function that makes one.
    """
    import mapreduce.graph.client as graphs

    if draw is not None and draw.suffix not in (".svg", ".dot"):
        raise Usage(f"--draw {draw}: the name should end in .svg or .dot")
    found = _load(what)
    try:
        whole, names = _as_graph(found)
        whole = whole.culled(names)
    except (graphs.GraphError, ValueError) as error:
        raise Usage(str(error)) from None
    if dry:
        _draw(draw, whole, graphs.Report())
        render.say(f"{len(whole.tasks)} tasks, {len(names)} of them asked for; nothing was run")
        return
    values, drawn, report, failure = _compute(whole, names, fusion)
    _draw(draw, drawn, report)
    if failure is not None:
        raise Unhealthy(str(failure))
    if json:
        render.as_json(
            {
                "values": {name: repr(value) for name, value in values.items()},
                "tasks": report.tasks,
                "ran": report.ran,
                "recomputed": report.recomputed,
                "lost": report.lost,
                "states": report.states,
            }
        )
        return
    for name, value in values.items():
        print(repr(value) if len(values) == 1 else f"{name}\t{value!r}")
    again = f", {len(report.recomputed)} of them again" if report.recomputed else ""
    lost = f"; lost meanwhile: {' '.join(report.lost)}" if report.lost else ""
    render.say(f"✓ {report.tasks} tasks, {report.ran} runs{again}{lost}")


def _load(what: str) -> Any:
    """The object that FILE.py:name means."""
    import cloudpickle

    file, colon, name = what.rpartition(":")
    path = Path(file)
    if not colon or not path.is_file():
        raise Usage(f"{what!r}: write FILE.py:name, and let the file be there")
    module_name = f"graph_in_{path.stem}"  # no name that another module may have
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise Usage(f"{file} cannot be imported: {_said(error, file)}") from None
    # Workers cannot import it: its functions travel as they are.
    cloudpickle.register_pickle_by_value(module)
    try:
        found = getattr(module, name)
    except AttributeError:
        raise Usage(f"there is no {name!r} in {file}") from None
    plain = callable(found) and not hasattr(found, "graph") and not hasattr(found, "__wrapped__")
    try:
        return found() if plain else found
    except (Exception, SystemExit) as error:
        raise Usage(f"{what} makes no graph: {_said(error, file)}") from None


def _said(error: BaseException, file: str) -> str:
    """What was raised, and at which line of the user's file."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    where = f", at line {lines[-1]}" if lines else ""
    return f"{type(error).__name__}: {error}{where}"


def _as_graph(found: Any) -> tuple[Graph, list[str]]:
    from mapreduce.graph.client import Delayed, graph_of
    from mapreduce.graph.client import Graph as Kind

    if isinstance(found, Delayed):
        found = [found]
    if isinstance(found, (list, tuple)) and found and all(isinstance(d, Delayed) for d in found):
        return graph_of(found), [value.name for value in found]
    if isinstance(found, dict):
        whole = Kind.of(found)
        return whole, whole.sinks()
    raise Usage(f"a {type(found).__name__} is no graph: a dictionary, a Delayed or a list of them")


def _compute(
    whole: Graph, names: list[str], fusion: bool
) -> tuple[dict[str, Any], Graph, Report, Exception | None]:
    import mapreduce.graph.client as graphs
    from netstack.runtime.config import ConfigError

    home = topology.home()
    topology.load(home)
    if not running(home):
        raise NotRunning(f"no cluster is running in {home}; start one with: ring up graph=2")

    async def go() -> tuple[dict[str, Any], Graph, Report, Exception | None]:
        async with graphs.GraphClient.connect(home / "cluster.toml") as client:
            with _Progress(len(whole.tasks)) as progress:
                client.on_change = progress.show
                values, failure = {}, None
                try:
                    values = await client.values(whole, names, fusion=fusion)
                except graphs.GraphError as error:
                    failure = error
            if client.run is None:
                raise failure or Usage("nothing was run")
            return values, client.run.graph, client.report, failure

    try:
        return asyncio.run(go())
    except ConfigError as error:
        raise Usage(str(error)) from None


def _draw(path: Path | None, drawn: Graph, report: Report) -> None:
    from mapreduce.graph.client import to_dot, to_svg

    if path is None:
        return
    draw = to_svg if path.suffix == ".svg" else to_dot
    try:
        path.write_text(draw(drawn, report.states, report.recomputed), encoding="utf-8")
    except ValueError as error:
        raise Usage(f"{error}; a .dot file has no limit") from None
    render.say(f"drawn: {path}")


class _Progress:
    """A bar on a terminal, nothing elsewhere."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._bar: Any = None

    def __enter__(self) -> _Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress

            columns = (BarColumn(), MofNCompleteColumn(), "{task.description}")
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=self._total)
        return self

    def show(self, counts: dict[str, int]) -> None:
        """How many tasks are in each state."""
        if self._bar is not None:
            told = " ".join(f"{n} {state}" for state, n in counts.items() if n)
            left = sum(counts[state] for state in ("waiting", "ready", "running"))
            done = sum(counts.values()) - left
            self._bar.update(
                self._task, completed=done, total=sum(counts.values()), description=told
            )

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
