"""What is said at the end: valid, invalid, or unknown, and why.

*Valid* is only said of what was really tested. Too few operations, a search that ran out of time,
a fault that never took effect: then nobody knows, and that is the verdict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cluster.verify.appends import anything_read, judge_appends
from cluster.verify.atmost import judge_at_most_once
from cluster.verify.bank import judge_bank
from cluster.verify.counters import judge_counter
from cluster.verify.finding import Finding
from cluster.verify.forms import APPENDS, check_forms
from cluster.verify.history import FAIL, INFO, OK, Operation
from cluster.verify.ids import judge_ids
from cluster.verify.leases import judge_leases
from cluster.verify.linear import INVALID, UNSURE, VALID, judge_all, parts
from cluster.verify.models import MODELS, Model
from cluster.verify.queues import judge_total_queue
from cluster.verify.sets import judge_set
from cluster.verify.watches import judge_watches

# With fewer answers than this nothing was tested.
ANSWERS_MIN: Final = 10

STATUS: Final = {VALID: 0, INVALID: 1, UNSURE: 3}
# No system is so broken that such a history would show it.
NOTHING_SEEN: Final = (
    "nobody was told of anything that another had changed: no answer could be wrong"
)
_SEVERITY: Final = (INVALID, UNSURE, VALID)

# What is judged otherwise than by a model that is stepped through: by what adds up.
_ACCOUNTS: Final[dict[str, Callable[[Sequence[Operation]], list[Finding]]]] = {
    "counter": judge_counter,
    "set-full": judge_set,
    "bank": judge_bank,
    "watches": judge_watches,
    "leases": judge_leases,
    "total-queue": judge_total_queue,
    "at-most-once": judge_at_most_once,
    "ids": judge_ids,
}

# All that a history can be judged by.
KNOWN: Final = (*MODELS, APPENDS, *_ACCOUNTS)


@dataclass(slots=True)
class Verdict:
    """All findings about one run."""

    findings: list[Finding]
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """The worst of them."""
        found = {finding.verdict for finding in self.findings}
        return next((verdict for verdict in _SEVERITY if verdict in found), UNSURE)

    def to_json(self) -> dict[str, Any]:
        """As `ring verify --json` prints it."""
        return {
            "verdict": self.verdict,
            "counts": self.counts,
            "findings": [
                {
                    "check": finding.check,
                    "verdict": finding.verdict,
                    "sentence": finding.sentence,
                    "operations": [operation.index for operation in finding.where],
                    "order": [operation.index for operation in finding.order],
                    "state": finding.state,
                }
                for finding in self.findings
            ],
        }


def judge_history(history: Sequence[Operation], model: str, *, limit_s: float) -> Verdict:
    """The verdict on a history alone: whether it could be right, and whether it says enough.

    Raises HistoryError for operations that are none of the model's.

    Args:
        model: a name of KNOWN.
        limit_s: what takes longer is unknown.
    """
    check_forms(history, model)
    counts = Counter(operation.outcome for operation in history)
    findings = [_enough(counts[OK])]
    if model == APPENDS:
        findings += _serializable(history)
    elif model in _ACCOUNTS:
        findings += _ACCOUNTS[model](history)
    else:
        findings += _linearizable(history, MODELS[model], limit_s)
    tally = {"operations": len(history), OK: counts[OK], FAIL: counts[FAIL], INFO: counts[INFO]}
    return Verdict(findings, tally)


def _linearizable(history: Sequence[Operation], model: Model, limit_s: float) -> list[Finding]:
    check = f"linearizable {model.name}"
    judged = judge_all(history, model, limit_s=limit_s)
    wrong = [judgement for judgement in judged if judgement.verdict != VALID]
    if wrong:
        return [
            Finding(check, j.verdict, j.sentence, j.stuck, j.order, repr(j.state)) for j in wrong
        ]
    if not any(model.tested(operations) for operations in parts(history, model).values()):
        return [Finding(check, UNSURE, NOTHING_SEEN)]
    objects = f"{len(judged)} object{'s' * (len(judged) != 1)}"
    return [Finding(check, VALID, f"{objects}, each with an order")]


def _serializable(history: Sequence[Operation]) -> list[Finding]:
    anomalies = judge_appends(history)
    if anomalies:
        return [
            Finding(f"{a.kind}, so not {a.rules_out}", INVALID, a.sentence, a.where)
            for a in anomalies
        ]
    check = "strict serializable"
    if not anything_read(history):
        return [Finding(check, UNSURE, NOTHING_SEEN)]
    return [Finding(check, VALID, "no transaction must come before itself")]


def _enough(answers: int) -> Finding:
    if answers < ANSWERS_MIN:
        few = (
            f"{answers} operations were answered; with fewer than {ANSWERS_MIN} nothing was tested"
        )
        return Finding("enough was asked", UNSURE, few)
    return Finding("enough was asked", VALID, f"{answers:,} operations were answered")
