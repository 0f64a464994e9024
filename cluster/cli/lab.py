"""`ring net lab` and its like: experiments, each with its assertion and its figure."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster import render
from cluster.bench.harness import machine
from cluster.errors import Unhealthy, Usage

if TYPE_CHECKING:
    from cluster.lab.outcome import Outcome

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]

FIGURES = Path("figures")


def lab(
    name: Annotated[str, typer.Argument(help="An experiment; without one, the list.")] = "",
    all_: Annotated[bool, typer.Option("--all", help="All of them, one after the other.")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the figures.")] = FIGURES,
    form: Annotated[str, typer.Option(help="svg or png.")] = "svg",
    figures: Annotated[bool, typer.Option(help="Draw them (needs matplotlib).")] = True,
    seed: Annotated[int, typer.Option(help="Of all dice; the same seed gives the same run.")] = 1,
    json: Json = False,
) -> None:
    """Experiments that a lecturer would project; exit status 1 if a claim does not hold."""
    from cluster.lab.experiments import EXPERIMENTS

    run_experiments(
        "net",
        EXPERIMENTS,
        name,
        all_=all_,
        out=out,
        form=form,
        figures=figures,
        seed=seed,
        json=json,
    )


def run_experiments(
    group: str,
    experiments: Mapping[str, Callable[[int], Outcome]],
    name: str,
    *,
    all_: bool,
    out: Path,
    form: str,
    figures: bool,
    seed: int,
    json: bool,
) -> None:
    """What `ring GROUP lab` does; raises Usage, and Unhealthy if a claim does not hold."""
    if not name and not all_:
        shows = [(known, (run.__doc__ or "").splitlines()[0]) for known, run in experiments.items()]
        render.table(("EXPERIMENT", "SHOWS"), shows)
        render.say(f"next   ring {group} lab {next(iter(experiments))}")
        return
    if form not in ("svg", "png"):
        raise Usage(f"a figure is svg or png, not {form!r}")
    if name and name not in experiments:
        raise Usage(f"there is no experiment {name!r}; there are: {', '.join(experiments)}")
    outcomes = []
    for known in [name] if name else experiments:
        began = time.monotonic()
        outcome = experiments[known](seed)
        outcomes.append(outcome)
        if not json:
            render.say(f"{known}: {outcome.sentence} ({time.monotonic() - began:.0f} s)")
        if figures:
            from cluster.lab.draw import draw

            path = out / f"{known}.{form}"
            draw(outcome, path)
            render.say(f"figure {path}")
    if json:
        found = [row for outcome in outcomes for row in outcome.rows()]
        render.as_json({"bench": f"{group} lab", "machine": machine(), "rows": found})
    else:
        columns = ("EXPERIMENT", "CLAIM", "VALUE", "BOUND", "HOLDS")
        rows = [
            (
                o.name,
                c.claim,
                f"{c.value:.3g} {c.unit}".strip(),
                c.bound,
                "yes" if c.holds else "NO",
            )
            for o in outcomes
            for c in o.checks
        ]
        render.table(columns, rows, right=("VALUE", "BOUND"))
    if not all(outcome.holds for outcome in outcomes):
        raise Unhealthy("a claim does not hold")
