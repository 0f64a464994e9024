"""The application of the examples: an account and a register, so that a mistake shows as money.

deposit 10 ──► "balance 10"      twice: the balance is wrong for good
set 7      ──► "register 7"      twice in a row: nothing has happened
show       ──► "balance 10, register 7"
"""

from __future__ import annotations

import re
from typing import Any, Final

from netstack.delivery.errors import BadMessage

# ASCII digits only, and few enough that msgpack's 64 bits hold a long life's sum.
ORDER: Final = re.compile(rb"(deposit|set) ([0-9]{1,12})")


class Ledger:
    """A balance that is added to, and a register that is set."""

    def __init__(self) -> None:
        self.balance = 0
        self.register = 0

    def __repr__(self) -> str:
        return f"<Ledger balance={self.balance} register={self.register}>"

    def execute(self, body: bytes) -> bytes:
        """Carry out one order; an order that it does not understand changes nothing."""
        if body == b"show":
            return b"balance %d, register %d" % (self.balance, self.register)
        order = ORDER.fullmatch(body)
        if order is None:
            return b"error: say `deposit N`, `set N` or `show`"
        amount = int(order[2])
        if order[1] == b"deposit":
            self.balance += amount
            return b"balance %d" % self.balance
        self.register = amount
        return b"register %d" % self.register

    def snapshot(self) -> list[int]:
        """What must outlive the process."""
        return [self.balance, self.register]

    def restore(self, saved: Any) -> None:
        """Go on from there; raises BadMessage."""
        if not isinstance(saved, list) or [type(value) for value in saved] != [int, int]:
            raise BadMessage(f"a ledger is [balance, register], not {saved!r:.80}")
        self.balance, self.register = saved
