"""`ring net lab` and its like: experiments, each with its assertion and its figure."""

from __future__ import annotations

import importlib
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

    Experiments = Mapping[str, Callable[[int], Outcome]]

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]

FIGURES = Path("figures")


def laboratory(group: str, module: str, text: str) -> Callable[..., None]:
    """The command `ring GROUP lab` for the EXPERIMENTS of a module; `text` is its help."""

    def lab(
        name: Annotated[str, typer.Argument(help="An experiment; without one, the list.")] = "",
        all_: Annotated[bool, typer.Option("--all", help="All of them, in turn.")] = False,
        out: Annotated[Path, typer.Option(help="Folder of the figures.")] = FIGURES,
        form: Annotated[str, typer.Option(help="svg or png.")] = "svg",
        figures: Annotated[bool, typer.Option(help="Draw them (needs matplotlib).")] = True,
        seed: Annotated[int, typer.Option(help="Of all dice: the same, the same run.")] = 1,
        json: Json = False,
    ) -> None:
        experiments = importlib.import_module(module).EXPERIMENTS
        if not name and not all_:
            _list(group, experiments)
            return
        if form not in ("svg", "png"):
            raise Usage(f"a figure is svg or png, not {form!r}")
        if name and name not in experiments:
            raise Usage(f"there is no experiment {name!r}; there are: {', '.join(experiments)}")
        chosen = {known: experiments[known] for known in ([name] if name else experiments)}
        outcomes = _run(chosen, seed, talk=not json, form=form, out=out if figures else None)
        _show(group, outcomes, json=json)

    lab.__doc__ = text
    return lab


def _list(group: str, experiments: Experiments) -> None:
    shows = [(known, (run.__doc__ or "").splitlines()[0]) for known, run in experiments.items()]
    render.table(("EXPERIMENT", "SHOWS"), shows)
    render.say(f"next   ring {group} lab {next(iter(experiments))}")


def _run(
    experiments: Experiments, seed: int, *, talk: bool, form: str, out: Path | None
) -> list[Outcome]:
    """Run them in turn; figures go to `out`."""
    outcomes = []
    for name, run in experiments.items():
        began = time.monotonic()
        outcome = run(seed)
        outcomes.append(outcome)
        if talk:
            render.say(f"{name}: {outcome.sentence} ({time.monotonic() - began:.0f} s)")
        if out is not None:
            from cluster.lab.draw import draw

            path = out / f"{name}.{form}"
            draw(outcome, path)
            render.say(f"figure {path}")
    return outcomes


def _show(group: str, outcomes: list[Outcome], *, json: bool) -> None:
    """Tell what was found; raises Unhealthy if a claim does not hold."""
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
