"""Accounts: transfers move money, and none of it appears or vanishes.

    {"f": "transfer", "value": {"from": "a", "to": "b", "amount": 5}}
    {"f": "read"}  ->  {"a": 95, "b": 105}

Whatever order the transfers come in, every read that saw one moment has the same total, and no
account that may not be overdrawn is below zero. A read between the two halves of a transfer, or a
transfer that was applied to an account of before, shows in the total.
"""

from __future__ import annotations

from collections.abc import Sequence

from cluster.verify.finding import Finding
from cluster.verify.history import OK, Operation
from cluster.verify.linear import INVALID, VALID

CHECK = "bank"


def judge_bank(history: Sequence[Operation]) -> list[Finding]:
    """Findings about all reads. The first one tells what the total is."""
    reads = [op for op in history if op.f == "read" and op.outcome == OK]
    findings: list[Finding] = []
    total: int | None = None
    for read in reads:
        balances = dict(read.result)
        found = sum(balances.values())
        total = found if total is None else total
        if found != total:
            findings.append(Finding(CHECK, INVALID, f"{read}: the total was {total}", [read]))
        for account, balance in balances.items():
            if balance < 0:
                sentence = f"{read}: {account} is overdrawn"
                findings.append(Finding(CHECK, INVALID, sentence, [read]))
    moved = sum(op.f == "transfer" and op.outcome == OK for op in history)
    told = f"{moved:,} transfers, and the total is {total} in {len(reads):,} reads"
    return findings or [Finding(CHECK, VALID, told)]
