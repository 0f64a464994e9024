"""At most once: a request is executed once or never, however often it was sent.

    {"f": "request",  "value": "c7-12"}                 asked by a client; ok: it was done
    {"f": "executed", "value": "c7-12", "key": "n2"}    told by whoever executed it

`key` of an execution says on what: replicas execute each request once each. So for each of them

    twice        executed again, as happens to a retry that is not known, or after a restart that
                 has forgotten what was done

and for all of them together

    never        acknowledged, and executed nowhere
    refused      executed, though the client was told that it was not and never will be
    unasked      executed, and no client had asked for it
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cluster.verify.finding import Finding, told
from cluster.verify.history import FAIL, OK, Operation
from cluster.verify.linear import INVALID, UNSURE, VALID

CHECK = "at most once"


def judge_at_most_once(history: Sequence[Operation]) -> list[Finding]:
    """Findings about all requests; the log of executions must be complete."""
    requests: dict[Any, list[Operation]] = {}
    executions: dict[Any, list[Operation]] = {}
    for op in history:
        if op.f == "request":
            requests.setdefault(op.value, []).append(op)
        elif op.outcome == OK:
            executions.setdefault(op.value, []).append(op)
    findings = [
        *told(CHECK, _twice(executions)),
        *told(CHECK, _unlike(requests, executions)),
    ]
    if findings:
        return findings
    sure = sum(any(op.outcome == OK for op in asked) for asked in requests.values())
    perhaps = sum(
        request in executions and all(op.outcome != OK for op in asked)
        for request, asked in requests.items()
    )
    summary = (
        f"{len(requests):,} requests: {sure:,} acknowledged and executed,"
        f" {perhaps:,} executed of those that nobody knew of"
    )
    return [Finding(CHECK, VALID if executions else UNSURE, summary)]


def _twice(executions: dict[Any, list[Operation]]) -> Iterator[Finding]:
    for request, all_of_it in executions.items():
        if len(all_of_it) == 1:
            continue
        places: dict[Any, list[Operation]] = {}
        for op in all_of_it:
            places.setdefault(op.key, []).append(op)
        for place, ops in places.items():
            if len(ops) > 1:
                where = "" if place is None else f" on {place}"
                times = ", ".join(f"by process {op.process} at {op.called:.3f}" for op in ops)
                sentence = f"{request!r} was executed {len(ops)} times{where}: {times}"
                yield Finding(CHECK, INVALID, sentence, ops)


def _unlike(
    requests: dict[Any, list[Operation]], executions: dict[Any, list[Operation]]
) -> Iterator[Finding]:
    """Where what clients were told and what was done do not go together."""
    for request, asked in requests.items():
        sure = [op for op in asked if op.outcome == OK]
        if sure and request not in executions:
            yield Finding(CHECK, INVALID, f"{request!r} was acknowledged and not executed", sure)
    for request, done in executions.items():
        asked = requests.get(request, [])
        first = min(done, key=lambda op: op.returned)
        if not any(op.called <= first.returned for op in asked):
            sentence = f"{request!r} was executed, and nobody had asked for it"
            yield Finding(CHECK, INVALID, sentence, [first])
        elif all(op.outcome == FAIL for op in asked):
            sentence = f"{request!r} was refused for good, and executed"
            yield Finding(CHECK, INVALID, sentence, [*asked, first])
