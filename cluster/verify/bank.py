"""Accounts: transfers move money, and none of it appears or vanishes.

    {"f": "transfer", "value": {"from": "a", "to": "b", "amount": 5}}
    {"f": "read"}  ->  {"a": 95, "b": 105}

Whatever order the transfers come in,

    total     every read that saw one moment has the same sum. A read between the two halves of a
              transfer, or a transfer that was applied to an account of before, shows in it
    balance   each account lies between what the transfers since an earlier read surely and
              perhaps made of it (totals.py): one that was acknowledged and lost leaves the sum
              as it was, and shows here
    overdraft no account is below zero, if none may be
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from cluster.verify.finding import Finding, told
from cluster.verify.history import FAIL, OK, HistoryError, Operation
from cluster.verify.linear import INVALID, UNSURE, VALID
from cluster.verify.totals import Change, Total, misfits

CHECK = "bank"


class _Read(NamedTuple):
    operation: Operation
    balances: dict[Any, int]

    def __repr__(self) -> str:
        found = ", ".join(f"{account}: {balance}" for account, balance in self.balances.items())
        return f"<{self.operation.index} p{self.operation.process} read -> {found}>"


def judge_bank(history: Sequence[Operation], *, overdraft: bool = False) -> list[Finding]:
    """Findings about all reads; raises HistoryError for what is no transfer and no map of numbers.

    Args:
        overdraft: accounts may be below zero.
    """
    reads = [_read(op) for op in history if op.f == "read" and op.outcome == OK]
    if not reads:
        return [Finding(CHECK, UNSURE, "nobody has read the accounts")]
    # The commonest sum is the right one, so that a single wrong read does not accuse the others.
    sums = Counter(sum(read.balances.values()) for read in reads)
    total = sums.most_common(1)[0][0]
    findings = told(CHECK, _other_totals(reads, total, sums[total]))
    if not overdraft:
        findings += told(CHECK, _overdrawn(reads))
    if not findings:
        # Where the sum is wrong, some balance is too: that is told already.
        findings += told(CHECK, _misfits(history, reads))
    moved = sum(op.f == "transfer" and op.outcome == OK and _moves(op) for op in history)
    summary = f"{moved:,} transfers, and the total is {total:,} in {len(reads):,} reads"
    # Money that nobody moves stays in any bank.
    return findings or [Finding(CHECK, VALID if moved else UNSURE, summary)]


def _other_totals(reads: Sequence[_Read], total: int, times: int) -> Iterator[Finding]:
    for read in reads:
        found = sum(read.balances.values())
        if found == total:
            continue
        change = f"{abs(found - total)} has {'appeared' if found > total else 'vanished'}"
        sentence = f"{read}: together {found}, and {total} in {times:,} of all reads: {change}"
        yield Finding(CHECK, INVALID, sentence, [read.operation])


def _overdrawn(reads: Sequence[_Read]) -> Iterator[Finding]:
    for read in reads:
        for account, balance in read.balances.items():
            if balance < 0:
                yield Finding(CHECK, INVALID, f"{read}: {account} is overdrawn", [read.operation])


def _misfits(history: Sequence[Operation], reads: Sequence[_Read]) -> Iterator[Finding]:
    """Balances that no transfers can have made."""
    changes: dict[Any, list[Change]] = {}
    for op in history:
        if op.f == "transfer" and op.outcome != FAIL:
            source, target, amount = _transfer(op)
            if source != target:
                changes.setdefault(source, []).append(Change(op, -amount))
                changes.setdefault(target, []).append(Change(op, amount))
    balances: dict[Any, list[Total]] = {}
    for read in reads:
        for account, balance in read.balances.items():
            balances.setdefault(account, []).append(Total(read.operation, balance))
    for account, totals in balances.items():
        for misfit in misfits(changes.get(account, []), totals, start=None):
            assert misfit.after is not None  # nothing else bounds a balance
            before, now = _read(misfit.after), _read(misfit.read)
            sentence = (
                f"{now}: {account} held {before.balances[account]} in the read of process"
                f" {misfit.after.process} at {misfit.after.called:.3f}, so with the transfers"
                f" since it holds {misfit.low} to {misfit.high}: one was lost or repeated"
            )
            yield Finding(CHECK, INVALID, sentence, [misfit.after, misfit.read])


def _read(op: Operation) -> _Read:
    try:
        balances = dict(op.result)
    except (TypeError, ValueError):
        balances = {None: None}
    if not all(type(balance) is int for balance in balances.values()):
        raise HistoryError(f"{op!r}: a read answers with a map of accounts to whole numbers")
    return _Read(op, balances)


def _moves(op: Operation) -> bool:
    source, target, amount = _transfer(op)
    return bool(source != target and amount)


def _transfer(op: Operation) -> tuple[Any, Any, int]:
    try:
        asked = dict(op.value)
        return asked["from"], asked["to"], asked["amount"] + 0
    except (TypeError, ValueError, KeyError):
        raise HistoryError(f"{op!r}: a transfer is a map with from, to and amount") from None
