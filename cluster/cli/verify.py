"""`ring verify`: the verdict on a recorded history."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster import render
from cluster.errors import Usage

# Findings that are printed in full; a broken system has hundreds that say the same.
SHOWN_MAX = 10


def verify(
    history: Annotated[
        Path, typer.Argument(help="A history (.jsonl, .edn, .log), or the folder of a run.")
    ],
    model: Annotated[
        str,
        typer.Option(
            help="register, kv, set, queue, lock, appends, counter, set-full, bank;"
            " else by its operations."
        ),
    ] = "",
    limit: Annotated[float, typer.Option(min=0, help="Seconds until the verdict is unknown.")] = 60,
    json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """The verdict on a recorded history. Exit status 0 valid, 1 invalid, 3 unknown."""
    from cluster.verify.foreign import read_history
    from cluster.verify.forms import NoModel, model_of
    from cluster.verify.history import HistoryError
    from cluster.verify.invariants import judge_events, read_node_events
    from cluster.verify.verdict import KNOWN, STATUS, judge_history

    if model and model not in KNOWN:
        raise Usage(f"there is no model {model!r}; there are: {', '.join(KNOWN)}")
    logs: list[dict[str, Any]] = []
    if history.is_dir():
        # The folder of a run: it says by what it is to be judged.
        described = _described(history)
        logs = read_node_events(history / "events")
        model, history = model or described, history / "history.jsonl"
    try:
        operations = read_history(history)
        found = judge_history(operations, model or model_of(operations), limit_s=limit)
        found.findings += judge_events(logs)
    except OSError as error:
        raise Usage(f"{history} cannot be read: {error.strerror}") from None
    except (HistoryError, NoModel, ValueError) as error:
        raise Usage(f"{history}: {error}") from None
    if json:
        render.as_json(found.to_json())
    else:
        for finding in found.findings[:SHOWN_MAX]:
            print(f"{finding.verdict:8} {finding.check}: {finding.sentence}")
        if len(found.findings) > SHOWN_MAX:
            render.say(f"and {len(found.findings) - SHOWN_MAX} more; all with --json")
        counts = found.counts
        print(
            f"{found.verdict.upper()}  {counts['operations']:,} operations · {counts['ok']:,} ok"
            f" · {counts['fail']:,} failed · {counts['info']:,} unknown"
        )
    raise typer.Exit(STATUS[found.verdict])


def _described(run: Path) -> str:
    try:
        return str(json_module.loads((run / "run.json").read_text())["model"])
    except (OSError, ValueError, KeyError):
        raise Usage(f"{run} is not the folder of a run: there is no run.json in it") from None
