"""Unique ids: none is given twice.

    {"f": "generate"}  ->  "n2-17"

Ids under one `key` differ from each other; other keys are other sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cluster.verify.finding import Finding, told
from cluster.verify.history import OK, Operation
from cluster.verify.linear import INVALID, UNSURE, VALID

CHECK = "unique ids"


def judge_ids(history: Sequence[Operation]) -> list[Finding]:
    """Findings about all ids that were given."""
    given: dict[tuple[Any, Any], list[Operation]] = {}
    for op in history:
        if op.outcome == OK:
            given.setdefault((op.key, op.result), []).append(op)
    findings = told(CHECK, (_twice(ops) for ops in given.values() if len(ops) > 1))
    summary = f"{len(given):,} ids, each given once"
    return findings or [Finding(CHECK, VALID if given else UNSURE, summary)]


def _twice(ops: Sequence[Operation]) -> Finding:
    who = ", ".join(f"process {op.process} at {op.returned:.3f}" for op in ops)
    sentence = f"{ops[0].result!r} was given {len(ops)} times: to {who}"
    return Finding(CHECK, INVALID, sentence, ops)
