"""`ring ddp train`, `bubble`, `stale`: training runs, watched.

Each rank is a process, and they meet as a group; what they say becomes a progress bar, a table, a
figure. With `--elastic` or `ps=N` ranks may be killed: they are started again, and heal. With
`--staleness` the workers of a parameter server do not wait for one another, or not for long.
"""

from __future__ import annotations

import json as json_module
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster import render, topology
from cluster.bench.harness import machine
from cluster.cli.ddp_children import Children, lines_of
from cluster.errors import NotRunning, Unhealthy, Usage
from cluster.lab.outcome import Check, Curve, Outcome, Panel

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
FigureOption = Annotated[
    Path | None, typer.Option("--figure", help="Draw it there (.svg or .png; needs matplotlib).")
]

# Name of the process that is a parameter server.
SERVER = "ps"

# Deaths of one rank after which it is not started again.
RESTARTS_MAX = 20


def train(
    model: Annotated[str, typer.Argument(help="mlp | transformer")] = "mlp",
    data: Annotated[str, typer.Option(help="digits (mlp) | topics (transformer)")] = "",
    parallel: Annotated[
        str, typer.Option(help="dp=2,pp=2,tp=2 · ps=3: three workers, a parameter server.")
    ] = "dp=1",
    steps: Annotated[int, typer.Option(help="Of the optimizer.")] = 200,
    batch: Annotated[int, typer.Option(help="Samples a step, of all ranks together.")] = 64,
    width: Annotated[int, typer.Option(help="Units a layer.")] = 64,
    depth: Annotated[int, typer.Option(help="Layers in the middle.")] = 2,
    optimizer: Annotated[str, typer.Option(help="sgd | momentum | adam")] = "adam",
    rate: Annotated[float, typer.Option(help="Of learning.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Of weights and of the order of data.")] = 0,
    dtype: Annotated[str, typer.Option(help="float32 | float64")] = "float64",
    micros: Annotated[int, typer.Option(help="Micro-batches of a pipeline.")] = 1,
    schedule: Annotated[str, typer.Option(help="gpipe | 1f1b")] = "1f1b",
    elastic: Annotated[
        bool, typer.Option("--elastic", help="dp ranks that may be killed, as those of ps= may.")
    ] = False,
    staleness: Annotated[
        str, typer.Option(help="Of ps=: steps a worker may be ahead of the slowest; inf: any.")
    ] = "",
    slow: Annotated[
        str, typer.Option(help="w3=0.1: a straggler; seconds added to each gradient. Of ps=.")
    ] = "",
    run: Annotated[str, typer.Option(help="Name of an elastic run; one of before goes on.")] = "",
    figure: FigureOption = None,
    json: Json = False,
) -> None:
    """Train a network on real data, divided over ranks; the loss is that of one process."""
    data = data or {"mlp": "digits", "transformer": "topics"}.get(model, "")
    job = {
        "model": model, "data": data, "steps": steps, "batch": batch, "width": width,
        "depth": depth, "optimizer": optimizer, "rate": rate, "seed": seed, "dtype": dtype,
    }  # fmt: skip
    began = time.monotonic()
    served = parallel.startswith("ps=")
    if (staleness or slow) and not served:
        raise Usage("--staleness and --slow are of workers with a server: --parallel ps=3")
    if elastic or served:
        flags = _flags(_names(parallel), staleness, slow)
        events = _elastic(job, flags, run or f"run{os.getpid()}")
    else:
        events = _divided(job, parallel, micros, schedule)
    losses, accuracies, end = _watch(events, steps)
    seconds = time.monotonic() - began
    if figure is not None:
        _draw(_curves(f"{model} on {data}, {parallel}", losses, accuracies), figure)
    found: dict[str, Any] = {
        "job": job,
        "parallel": parallel,
        "machine": machine(),
        "seconds": round(seconds, 3),
        "losses": losses,
        "accuracies": accuracies,
        "end": end,
    }
    if staleness:
        found |= {"staleness": staleness, "synchronous": _synchronous(job)}
    if json:
        render.as_json(found)
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    """For a person: what came of it, beside the same without staleness; who waited; what next."""
    job, end = found["job"], found["end"]
    hits = found["accuracies"][-1][1] if found["accuracies"] else float("nan")
    how = found["parallel"]
    if "staleness" in found:
        how += f", staleness {found['staleness']}"
    results = [(how, found["losses"][-1][1], hits, found["seconds"])]
    if "synchronous" in found:
        results.append(("synchronous, in one process", *found["synchronous"].values()))
    rows = [
        [job["model"], job["data"], how, job["steps"], f"{loss:.4f}", f"{hits:.1%}", f"{took:.1f}"]
        for how, loss, hits, took in results
    ]
    heads = ["MODEL", "DATA", "PARALLEL", "STEPS", "LOSS", "ACCURACY", "SECONDS"]
    render.table(heads, rows, right=heads[3:])
    if "waits" in end:
        _show_waits(end)
    if "flop_per_step" in end:
        ratio = end["flop_per_step"] / end["rule_per_step"]
        parameters = f"{end['parameters']:,} parameters"
        render.say(f"{parameters}; counted operations are {ratio:.2f} x 6 x parameters x batch")
    render.say("next   ring ddp train mlp --parallel dp=2,pp=2,tp=2 --micros 4")


def _synchronous(job: dict[str, Any]) -> dict[str, float]:
    """The same job without staleness: the loss and the accuracy that it ends with."""
    began = time.monotonic()
    losses, accuracies, _ = _watch(_divided(job, "dp=1", 1, "1f1b"), job["steps"])
    seconds = round(time.monotonic() - began, 3)
    return {"loss": losses[-1][1], "accuracy": accuracies[-1][1], "seconds": seconds}


def _show_waits(end: dict[str, Any]) -> None:
    """A row a worker: what it pushed, and how long it waited for whom."""
    waits = {(who, whom): seconds for who, whom, seconds in end["waits"]}
    names = list(end["pushes"])
    rows = []
    for who in names:
        each = [waits.get((who, whom), 0.0) for whom in names]
        rows.append([who, end["pushes"][who], f"{sum(each):.2f}", *(f"{s:.2f}" for s in each)])
    heads = ["WORKER", "GRADIENTS", "WAITED", *(f"FOR {name}" for name in names)]
    render.table(heads, rows, right=heads[1:])
    render.say(
        f"seconds; the stalest gradient was {end['stalest']} updates old when it was applied"
    )


def bubble(
    stages: Annotated[int, typer.Option(help="Of the pipeline.")] = 4,
    micros: Annotated[int, typer.Option(help="Micro-batches.")] = 8,
    milliseconds: Annotated[float, typer.Option(help="That a stage takes, each way.")] = 20.0,
    json: Json = False,
) -> None:
    """The bubble of a pipeline whose stages sleep, beside (p - 1)/m."""
    flags = ["--stages", str(stages), "--micros", str(micros), "--milliseconds", str(milliseconds)]
    found = [e for e in lines_of("ddp.training", "bubble", *flags) if e["kind"] == "bubble"]
    if json:
        render.as_json({"stages": stages, "micros": micros, "machine": machine(), "rows": found})
        return
    rows = [
        [e["schedule"], f"{e['measured']:.3f}", f"{e['expected']:.3f}", e["held"]] for e in found
    ]
    heads = ["SCHEDULE", "MEASURED", "(P-1)/M", "ACTIVATIONS"]
    render.table(heads, rows, right=heads[1:])
    for event in found:
        render.say(f"{event['schedule']}: digits go forward, letters backward")
        for line in event["picture"]:
            render.say(f"  {line}")
    render.say("next   ring ddp bubble --micros 32")


def stale(
    pushes: Annotated[int, typer.Option(help="Gradients in all.")] = 400,
    slowest: Annotated[float, typer.Option(help="How many times as slow one of four is.")] = 5.0,
    seeds: Annotated[int, typer.Option(help="Runs of each bound.")] = 3,
    figure: FigureOption = None,
    json: Json = False,
) -> None:
    """What staleness costs: accuracy and speed by bound, and who waits for whom."""
    flags = ["--pushes", str(pushes), "--slowest", str(slowest), "--seeds", str(seeds)]
    found = [e for e in lines_of("ddp.training", "stale", *flags) if e["kind"] == "race"]
    by_bound: dict[str, list[dict[str, Any]]] = {}
    for event in found:
        by_bound.setdefault("none" if event["bound"] is None else str(event["bound"]), []).append(
            event
        )
    if figure is not None:
        _draw(_staleness(by_bound), figure)
    if json:
        render.as_json({"machine": machine(), "rows": found})
        return
    rows = []
    for bound, races in by_bound.items():
        scores = [race["accuracy"] for race in races]
        waits = _longest_wait(races)
        rows.append(
            [
                bound,
                f"{sum(scores) / len(scores):.1%}",
                f"{min(scores):.1%}",
                f"{sum(race['rate'] for race in races) / len(races):.2f}",
                max(race["stalest"] for race in races),
                waits,
            ]
        )
    heads = ["BOUND", "ACCURACY", "WORST", "GRADIENTS/S", "STALEST", "WAITS MOST"]
    render.table(heads, rows, right=heads[:5])
    render.say("seconds are virtual: a gradient takes one, the straggler's more")


# -- watching


def _watch(
    events: Iterator[dict[str, Any]], steps: int
) -> tuple[list[list[float]], list[list[float]], dict[str, Any]]:
    """Losses and accuracies by step, and the last word; a bar on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    losses: dict[int, float] = {}
    done: dict[str, int] = {}  # by each rank, the last step
    accuracies: list[list[float]] = []
    end: dict[str, Any] = {}
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("loss …", total=steps)
        for event in events:
            match event["kind"]:
                case "step":
                    losses[event["step"]] = event["loss"]
                    text = f"loss {event['loss']:.4f}{_lead(event.get('clocks'))}"
                    rank, last = event.get("rank", ""), done.get(event.get("rank", ""), -1)
                    done[rank] = event["step"]
                    if event["step"] <= last:
                        progress.console.print(_undone(rank, event["step"], last), highlight=False)
                    progress.update(bar, completed=event["step"] + 1, description=text)
                case "accuracy":
                    accuracies.append([event["step"], event["accuracy"]])
                case "finished":
                    end |= event
                    if "accuracy" in event:
                        accuracies.append([event["step"], event["accuracy"]])
                case "healed" if event["step"] >= steps:
                    pass  # it has fetched what the others have, at the end
                case "lost" | "healed" | "fenced" | "started" | "killed":
                    progress.console.print(_sentence(event), highlight=False)
    if not end:
        raise Unhealthy("the run ended before its last step; what it said is above")
    return [[step, losses[step]] for step in sorted(losses)], accuracies, end


def _undone(rank: str, first: int, last: int) -> str:
    which = f"step {first} is" if first == last else f"steps {first} to {last} are"
    return f"{rank} has nothing newer than step {first}: {which} done again"


def _lead(clocks: dict[str, int] | None) -> str:
    """How far the slowest is behind the first, where they do not go together."""
    if not clocks or max(clocks.values()) == min(clocks.values()):
        return ""
    slowest = min(clocks, key=clocks.__getitem__)
    return f", {slowest} is {max(clocks.values()) - clocks[slowest]} behind"


def _sentence(event: dict[str, Any]) -> str:
    who = event.get("rank", "")
    return {
        "started": lambda: f"{who} runs, pid {event['pid']}; try: kill -9 {event['pid']}",
        "lost": lambda: f"{who}: {event['error']}",
        "healed": lambda: f"{who} healed to step {event['step']} from {event['source']}",
        "fenced": lambda: f"{who} is fenced off: epoch {event['epoch']} goes on without it",
        "killed": lambda: f"{who} ended with status {event['status']}; it is started again",
    }[event["kind"]]()


def _divided(
    job: dict[str, Any], parallel: str, micros: int, schedule: str
) -> Iterator[dict[str, Any]]:
    """What the ranks say, each a process; raises Usage, Unhealthy."""
    from ddp.client import DdpError, TrainingError, train

    try:
        yield from train(job, parallel, micros=micros, schedule=schedule)
    except TrainingError as error:
        raise Usage(str(error)) from None
    except DdpError as error:
        raise Unhealthy(str(error)) from None


# -- elastic


def _names(parallel: str) -> list[str]:
    """Of the processes: w1, w2, …; and ps, a parameter server, which computes nothing."""
    kind, _, number = parallel.partition("=")
    if kind not in ("dp", "ps") or not number.isdecimal() or not 1 <= int(number) <= 8:
        raise Usage(
            f"an elastic run is dp=1 to dp=8, or ps=1 to ps=8 with a server, not {parallel!r}"
        )
    workers = [f"w{i + 1}" for i in range(int(number))]
    return [*workers, SERVER] if kind == "ps" else workers


def _flags(names: list[str], staleness: str, slow: str) -> dict[str, list[str]]:
    """What each rank is told of itself; raises Usage."""
    from ddp.client import TrainingError, parse_bound

    flags = {name: ["--role", "server"] if name == SERVER else [] for name in names}
    if staleness:
        try:
            parse_bound(staleness)
        except TrainingError as error:
            raise Usage(str(error)) from None
        flags = {name: [*own, "--staleness", staleness] for name, own in flags.items()}
    if slow:
        who, _, seconds = slow.partition("=")
        if not (re.fullmatch(r"w\d", who) and re.fullmatch(r"\d+(\.\d+)?", seconds)):
            raise Usage(f"a straggler is w3=0.1, a worker and seconds, not {slow!r}")
        if who not in flags:
            raise Usage(f"there is no {who} to be slow: there are {', '.join(names)}")
        flags[who] += ["--slow", seconds]
    return flags


def _elastic(
    job: dict[str, Any], flags: dict[str, list[str]], run: str
) -> Iterator[dict[str, Any]]:
    """All that the ranks say; those that die are started again; ends when all have finished.

    flags: of each rank, by its name.
    """
    home = topology.home()
    topology.load(home)
    if not (home / "run").exists():
        raise NotRunning("an elastic run keeps its record in raftd; do: ring up")
    command = [sys.executable, "-m", "ddp.training", "worker", "--job", json_module.dumps(job)]
    command += ["--config", str(home / "cluster.toml"), "--run", run]
    command += ["--founders", str(len(flags))]
    finished: set[str] = set()
    render.say(f"run {run}; the same name later goes on from its checkpoints")
    commands = {name: [*command, "--name", name, *own] for name, own in flags.items()}
    with Children(commands) as children:
        for name, event in children.events(RESTARTS_MAX):
            yield event | {"rank": name}
            if event["kind"] == "finished":
                finished.add(name)
            if len(finished) == len(flags):
                return


# -- figures


def _draw(outcome: Outcome, path: Path) -> None:
    from cluster.lab.draw import draw

    if path.suffix not in (".svg", ".png"):
        raise Usage(f"a figure is .svg or .png, not {path.name!r}")
    draw(outcome, path)
    render.say(f"figure {path}")


def _curves(title: str, losses: list[list[float]], accuracies: list[list[float]]) -> Outcome:
    loss = Panel("step", "loss", [Curve("loss of the batch", [(s, v) for s, v in losses])])
    hits = Panel(
        "step", "accuracy", [Curve("on held-back samples", [(s, v) for s, v in accuracies])]
    )
    return Outcome("train", title, [], [loss, hits])


def _staleness(by_bound: dict[str, list[dict[str, Any]]]) -> Outcome:
    places = list(enumerate(by_bound.items()))
    label = "bound: " + ", ".join(f"{i} = {bound}" for i, (bound, _) in places)
    scores = Curve("a run", [(i, r["accuracy"]) for i, (_, rs) in places for r in rs], dots=True)
    means = Curve("mean", [(i, sum(r["accuracy"] for r in rs) / len(rs)) for i, (_, rs) in places])
    rates = Curve("gradients a second", [(i, rs[0]["rate"]) for i, (_, rs) in places])
    sentence = "The same number of gradients, one worker slower: what waiting less costs and gives"
    check = Check("accuracy without staleness", means.points[0][1], least=0.9)
    panels = [Panel(label, "accuracy", [scores, means]), Panel(label, "gradients / s", [rates])]
    return Outcome("stale", sentence, [check], panels)


def _longest_wait(races: list[dict[str, Any]]) -> str:
    waits: dict[tuple[int, int], float] = {}
    for race in races:
        for who, whom, seconds in race["waits"]:
            waits[who, whom] = waits.get((who, whom), 0.0) + seconds
    if not waits:
        return "nobody"
    whom = max({pair[1] for pair in waits}, key=lambda w: sum(_of(waits, w)))
    return f"{sum(_of(waits, whom)) / len(races):.0f} s for worker {whom}"


def _of(waits: dict[tuple[int, int], float], whom: int) -> list[float]:
    return [seconds for (_, culprit), seconds in waits.items() if culprit == whom]
