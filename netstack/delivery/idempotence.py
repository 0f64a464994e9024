"""Idempotence: remember nothing, and let the application bear what comes twice.

    deposit 10, deposit 10   ≠ deposit 10        set 7, set 7          = set 7
                                                 set 7, set 8, set 7   ≠ set 7, set 8

The second line is the limit: a copy of `set 7` that shows up after `set 8` undoes it. Executing
twice *in a row* equals executing once; executing again later need not.
"""

from __future__ import annotations

from netstack.delivery.messages import Request
from netstack.delivery.suppressor import EXECUTE, Suppressor, Verdict


class Idempotence(Suppressor):
    """Executes every copy."""

    def __len__(self) -> int:
        return 0

    def admit(self, request: Request, now: float) -> Verdict:
        """See Suppressor."""
        return EXECUTE

    def executed(self, request: Request, reply: bytes, now: float) -> None:
        """Nothing to remember."""

    def snapshot(self, now: float) -> None:
        """Nothing to keep."""

    def restore(self, saved: object, now: float) -> None:
        """Nothing to go on with."""
