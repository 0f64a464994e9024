"""`ring verify`: the verdict on a recorded history, or on all that a run has left."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster import render, topology
from cluster.errors import Usage

if TYPE_CHECKING:
    from cluster.verify.verdict import Verdict

# Findings of what is wrong that are printed; a broken system has hundreds that say the same.
SHOWN_MAX = 10


def verify(
    history: Annotated[
        Path | None,
        typer.Argument(
            help="A history (.jsonl, .edn, .log, .txt) or the folder of a run; else the newest run."
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="register, strings, kv, set, queue, lock, appends, counter, set-full, bank,"
            " watches, leases, total-queue, at-most-once, ids; else by its operations."
        ),
    ] = "",
    limit: Annotated[float, typer.Option(min=0, help="Seconds until the verdict is unknown.")] = 60,
    json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """The verdict on a history, or on a whole run. Exit status 0 valid, 1 invalid, 3 unknown."""
    from cluster.verify.forms import NoModel
    from cluster.verify.history import HistoryError
    from cluster.verify.linear import VALID
    from cluster.verify.verdict import KNOWN, STATUS

    if model and model not in KNOWN:
        raise Usage(f"there is no model {model!r}; there are: {', '.join(KNOWN)}")
    named, history = history is not None, history or _newest()
    try:
        found = _judge(history, model, limit)
    except OSError as error:
        raise Usage(f"{error.filename or history} cannot be read: {error.strerror}") from None
    except (HistoryError, NoModel, ValueError) as error:
        told = str(error)
        raise Usage(told if told.startswith(str(history)) else f"{history}: {told}") from None
    if not named:
        render.say(f"the newest run: {history}")
    if json:
        render.as_json(found.to_json())
    else:
        # What is valid is one line a check, and hides nothing that is not.
        others = [finding for finding in found.findings if finding.verdict != VALID]
        for finding in found.findings:
            if finding.verdict == VALID or finding in others[:SHOWN_MAX]:
                print(f"{finding.verdict:8} {finding.check}: {finding.sentence}")
        if len(others) > SHOWN_MAX:
            render.say(f"and {len(others) - SHOWN_MAX} more; all with --json")
        counts = found.counts
        print(
            f"{found.verdict.upper()}  {counts['operations']:,} operations · {counts['ok']:,} ok"
            f" · {counts['fail']:,} failed · {counts['info']:,} unknown"
        )
    raise typer.Exit(STATUS[found.verdict])


def _newest() -> Path:
    """The folder of the newest run in this home; raises Usage."""
    latest = topology.home() / "runs" / "latest"
    if not latest.exists():
        raise Usage(f"there is no run in {latest.parent} yet; name a history, or try: ring chaos")
    return latest.resolve()


def _judge(history: Path, model: str, limit_s: float) -> Verdict:
    """The folder of a run says by what it is to be judged, and what else is known of it."""
    from cluster.chaos.folder import judge_folder
    from cluster.verify.foreign import read_history
    from cluster.verify.forms import model_of
    from cluster.verify.verdict import judge_history

    if history.is_dir():
        return judge_folder(history, model, limit_s=limit_s)
    operations = read_history(history)
    return judge_history(operations, model or model_of(operations), limit_s=limit_s)
