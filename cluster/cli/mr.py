"""`ring mr …`: MapReduce jobs from the command line."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Annotated, Any, TypeVar

import typer

from cluster import quantities, render, topology
from cluster.cli import mr_fs, mr_graph
from cluster.cli.lab import laboratory
from cluster.control import running
from cluster.errors import NotInTime, NotRunning, Unhealthy, Usage
from mapreduce.client import (
    BadJob,
    Job,
    JobCancelled,
    JobFailed,
    MapReduceClient,
    MasterGone,
    NotReached,
    Outcome,
    Watcher,
    example_jobs,
    job_of,
    run_sync,
    steps_of,
)

app = typer.Typer(no_args_is_help=True, help="MapReduce: jobs that finish whatever is killed.")
app.add_typer(mr_fs.app, name="fs")
app.command("graph")(mr_graph.graph)
app.command("lab")(
    laboratory(
        "mr",
        "cluster.lab.mapreduce_experiments",
        "The experiments of the MapReduce paper, with our scheduler in virtual time.",
    )
)

T = TypeVar("T")
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Local = Annotated[bool, typer.Option("--local", help="In this process, one task after another.")]
Engine = Annotated[str, typer.Option(help="dask | ray | spark: run the same job there.")]
Reduces = Annotated[int | None, typer.Option(help="Parts of the output; 0: maps alone.")]
Split = Annotated[str | None, typer.Option(help="Bytes of input a map: 64M, 1M.")]
Memory = Annotated[str | None, typer.Option(help="What a task holds before it spills: 64M.")]
JobId = Annotated[str, typer.Argument(help="Id; see: ring mr jobs")]
Files = Annotated[list[str] | None, typer.Option("--file", help="Linked into each task's folder.")]


@app.command()
def run(
    program: Annotated[str, typer.Argument(help="An example, a module, or a file ./myjob.py.")],
    paths: Annotated[list[str], typer.Argument(help="INPUT… OUTPUT")],
    reduces: Reduces = None,
    split: Split = None,
    memory: Memory = None,
    args: Annotated[
        list[str] | None,
        typer.Option("--arg", help="NAME=TEXT, the job's own; NAME: true. Again: a list."),
    ] = None,
    files: Files = None,
    partition: Annotated[str | None, typer.Option(help="hash | range | program")] = None,
    order: Annotated[str | None, typer.Option(help="ascending | descending")] = None,
    record_bytes: Annotated[
        int | None, typer.Option(help="Records of fixed size, no lines.")
    ] = None,
    key_bytes: Annotated[int | None, typer.Option(help="How many of them are the key.")] = None,
    on_error: Annotated[str | None, typer.Option(help="A bad record: fail | skip")] = None,
    shuffle: Annotated[str | None, typer.Option(help="files | direct")] = None,
    backups: Annotated[bool, typer.Option(help="Second copies of late tasks.")] = True,
    local: Local = False,
    engine: Engine = "",
    json: Json = False,
) -> None:
    """Run a job of Python functions, or an MRJob class, to its end."""
    inputs, output = _inputs_and_output(paths)
    given: dict[str, Any] = {
        "reduces": reduces,
        "split_bytes": _size(split),
        "memory_bytes": _size(memory),
        "partition": partition,
        "order": order,
        "record_bytes": record_bytes,
        "key_bytes": key_bytes,
        "on_error": on_error,
        "shuffle": shuffle,
        "backups": None if backups else False,
        "args": _arguments(args) if args else None,
        "files": files or None,
    }
    fields = {name: value for name, value in given.items() if value is not None}
    how: dict[str, Any] = {"local": local, "engine": engine}
    with _errors():
        job = job_of(program, inputs, output, fields)
        steps = steps_of(job)
        for step in steps:
            _run(step, json and step is steps[-1], how)


@app.command()
def stream(
    mapper: Annotated[str, typer.Option("-mapper", "--mapper", help="Command.")],
    input_: Annotated[list[str], typer.Option("-input", "--input", help="Files.")],
    output: Annotated[str, typer.Option("-output", "--output", help="A folder to make.")],
    reducer: Annotated[str, typer.Option("-reducer", "--reducer", help="Command, or NONE.")] = "",
    combiner: Annotated[str, typer.Option("-combiner", "--combiner", help="Command.")] = "",
    partitioner: Annotated[str, typer.Option("-partitioner", "--partitioner")] = "",
    reduces: Annotated[int, typer.Option("-numReduceTasks", "--reduces")] = 1,
    define: Annotated[list[str] | None, typer.Option("-D", help="property=value")] = None,
    cmdenv: Annotated[list[str] | None, typer.Option("-cmdenv", help="NAME=TEXT")] = None,
    files: Annotated[list[str] | None, typer.Option("-file", "-files", "--file")] = None,
    split: Split = None,
    local: Local = False,
    engine: Engine = "",
    json: Json = False,
) -> None:
    """Run commands as Hadoop streaming does: lines in, lines out, a tab behind the key."""
    properties = dict(map(_argument, define or ()))
    if (number := properties.pop("mapreduce.job.reduces", "")) and number.isdecimal():
        reduces = int(number)
    more: dict[str, Any] = {"partitioner": partitioner} if partitioner else {}
    if (size := _size(split)) is not None:
        more["split_bytes"] = size
    with _errors():
        job = Job.stream(
            mapper=mapper,
            reducer=reducer,
            combiner=combiner,
            inputs=input_,
            output=output,
            reduces=reduces,
            properties=properties,
            environment=dict(map(_argument, cmdenv or ())),
            files=[name for text in files or () for name in text.split(",")],
            **more,
        )
        _run(job, json, {"local": local, "engine": engine})


@app.command()
def jobs(json: Json = False) -> None:
    """The jobs that the master knows, the latest last."""
    found = _ask(lambda client: client.jobs())
    if json:
        render.as_json({"jobs": found})
        return
    columns = ("JOB", "NAME", "STATE", "MAPS", "REDUCES", "MB/S", "SECONDS", "OUTPUT")
    rows = [
        (
            job["id"],
            job["name"],
            job["state"],
            f"{job['maps']['done']}/{job['maps']['all']}",
            f"{job['reduces']['done']}/{job['reduces']['all']}",
            f"{job['mb_s']:.1f}",
            f"{job['seconds']:.1f}",
            job["output"],
        )
        for job in found
    ]
    render.table(columns, rows, right=("MAPS", "REDUCES", "MB/S", "SECONDS"))


@app.command()
def status(
    job: Annotated[str, typer.Argument(help="Id; see: ring mr jobs")], json: Json = False
) -> None:
    """One job: how it goes, its counters, what was skipped, what failed."""
    found = _ask(lambda client: client.job(job))
    if json:
        render.as_json(found)
        return
    print(_line(found))
    _show(Outcome(**found["outcome"]), sys.stdout)
    for failure in found["outcome"]["failures"]:
        print(_failure(failure))


@app.command()
def cancel(job: JobId) -> None:
    """End a job; what it has written of its output stays out of sight."""
    if _ask(lambda client: client.cancel(job)):
        render.say(f"✓ cancelled {job}")
    else:
        render.say(f"{job} was over already")


@app.command()
def examples() -> None:
    """The jobs that come with it."""
    for name, says in example_jobs():
        print(f"{name:20} {says}")


def _inputs_and_output(paths: list[str]) -> tuple[list[str], str]:
    if len(paths) < 2:
        raise Usage("say what to read and where to write: ring mr run PROGRAM INPUT… OUTPUT")
    return paths[:-1], paths[-1]


def _size(text: str | None) -> int | None:
    return None if text is None else quantities.size_bytes(text)


def _arguments(texts: list[str]) -> dict[str, Any]:
    """A job's own: a name alone is True, one that comes again has a list of values."""
    found: dict[str, Any] = {}
    for text in texts:
        name, value = _argument(text) if "=" in text else (text, True)
        if name in found:
            before = found[name]
            found[name] = [*(before if isinstance(before, list) else [before]), value]
        else:
            found[name] = value
    return found


def _argument(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise Usage(f"{text!r} is not understood; write NAME=TEXT")
    return name, value


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """What goes wrong with a job, as the command line says it."""
    try:
        yield
    except BadJob as error:
        raise Usage(str(error)) from None
    except JobFailed as error:
        for text in _distinct(error.failures)[-3:]:
            render.say(text)
        raise Unhealthy(str(error)) from None
    except JobCancelled as error:
        raise Unhealthy(str(error)) from None
    except MasterGone as error:
        raise NotRunning(f"{error}; do: ring restart {error.master}") from None
    except NotReached as error:
        home = topology.home()
        if not running(home):
            raise NotRunning(f"no cluster runs in {home}; do: ring up mapreduce=2") from None
        raise NotInTime(f"{error}; see: ring status") from None


def _distinct(failures: list[dict[str, Any]]) -> list[str]:
    """Failures as text, the latest last; of those that were alike one, and how many they were."""
    alike: dict[Any, list[dict[str, Any]]] = {}
    for failure in failures:
        kind = (failure["kind"], failure["message"], failure["record"])
        alike[kind] = [*alike.pop(kind, ()), failure]
    return [
        _failure(same[-1]) + (f"\n({len(same)} times)" if len(same) > 1 else "")
        for same in alike.values()
    ]


def _failure(failure: dict[str, Any]) -> str:
    where = f"{failure['attempt']} on {failure['worker']}: " if failure["attempt"] else ""
    record = f", at record {failure['record']}" if failure["record"] else ""
    told = failure["traceback"] or failure["last_lines"]
    return f"{where}{failure['kind']}: {failure['message']}{record}\n{told}".rstrip()


def _ask(use: Callable[[MapReduceClient], Awaitable[T]]) -> T:
    home = topology.home()
    topology.load(home)

    async def go() -> T:
        async with MapReduceClient.connect(home / "cluster.toml", patient=False) as client:
            return await use(client)

    with _errors():
        if not running(home):
            raise NotRunning(f"no cluster runs in {home}; do: ring up mapreduce=2")
        return asyncio.run(go())


def _run(job: Job, json: bool, how: dict[str, Any]) -> None:
    """To its end, with a bar on a terminal; then its counters."""
    if not how["local"] and not how["engine"]:
        home = topology.home()
        topology.load(home)
        if not running(home):
            raise NotRunning(f"no cluster runs in {home}; do: ring up mapreduce=2, or use --local")
        how = {**how, "config": home / "cluster.toml"}
    with _bar() as watcher:
        outcome = run_sync(job, watcher=watcher, **how)
    if json:
        render.as_json({"output": outcome.output, **outcome.report()})
        return
    _show(outcome, sys.stderr)
    render.say(f"✓ {outcome.output} ({outcome.seconds:.1f} s)")
    part = f"{outcome.output}/part-00000"
    look = f"ring mr fs get {part}" if part.startswith("ring://") else f"head {part}"
    render.say(f"try next   {look}")


def _show(outcome: Outcome, out: Any) -> None:
    for group, counters in outcome.counters.items():
        print(group, file=out)
        for name, amount in counters.items():
            print(f"  {name:32} {amount:>14,}", file=out)
    if near := outcome.tasks.get("local", 0) + outcome.tasks.get("remote", 0):
        local = outcome.tasks["local"]
        print(f"{local} of {near} maps ran where their input lies", file=out)
    for kind, index, record, text in outcome.skipped:
        print(f"skipped {kind} {index} record {record}: {text[:80]}", file=out)


def _line(state: dict[str, Any]) -> str:
    maps, reduces = state["maps"], state["reduces"]
    return (
        f"{state['id']} {state['name']} {state['state']}  maps {maps['done']}/{maps['all']}"
        f"  shuffling {state['shuffling']}  reduces {reduces['done']}/{reduces['all']}"
        f"  {state['mb_s']:.1f} MB/s  copies of late tasks {state['backups']}"
        f"  failures {state['failures']}  lost {state['lost']}"
    )


@contextlib.contextmanager
def _bar() -> Iterator[Watcher | None]:
    """Shows how a job goes; nothing where stderr is no terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("waiting", total=1.0)

        def watch(state: dict[str, Any]) -> None:
            shares = [state["maps"]["share"]]
            if state["reduces"]["all"]:
                shares.append(state["reduces"]["share"])
            progress.update(bar, description=_line(state), completed=sum(shares) / len(shares))

        yield watch
