"""What the store weighs, and how much it may: the same on every node, for it decides commands.

    present   pairs that exist now, and leases. A command that would take them over the limit is
              refused whole; whatever makes the store no larger goes on, so deleting helps
    past      versions that were overwritten or deleted. Beyond the limit the oldest revisions are
              compacted, as by the operator's command

Both with the answers of sessions (sessions.py) fit the largest snapshot that a follower takes
(snapshots.py), or it could never be helped up again. etcd has one quota for all of it, of 2 GB on
disk, and stops at it until somebody compacts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from raftd.commands import COMMAND_BYTES_MAX, TXN_OPS_TOTAL
from raftd.model import KeyValue

# A laptop runs three nodes, and each holds its state twice while it writes it out.
PRESENT_BYTES_MAX: Final = 512 * 1024 * 1024
PAST_BYTES_MAX: Final = 64 * 1024 * 1024

# Beside its key and its value: the tuple, the numbers, its places in the lists, its event.
VERSION_BYTES: Final = 256
LEASE_BYTES: Final = 256

# No command makes the present grow by more than that.
GROWTH_BYTES_MAX: Final = COMMAND_BYTES_MAX + TXN_OPS_TOTAL * VERSION_BYTES


def weight(kv: KeyValue) -> int:
    """Bytes of one version."""
    return VERSION_BYTES + len(kv.key) + len(kv.value)


@dataclass(slots=True)
class Space:
    """Bytes held, and their limits."""

    present_max: int = PRESENT_BYTES_MAX
    past_max: int = PAST_BYTES_MAX
    present: int = 0
    past: int = 0

    @property
    def total(self) -> int:
        """Bytes of both."""
        return self.present + self.past

    @property
    def is_short(self) -> bool:
        """Whether a command may not fit: then each is looked at."""
        return self.present > self.present_max - GROWTH_BYTES_MAX

    def fits(self, growth: int) -> bool:
        """Whether the present may change by so much."""
        return growth <= 0 or self.present + growth <= self.present_max

    def replaced(self, old: KeyValue | None, new: KeyValue) -> None:
        """A version is followed by another; a deletion (version 0) belongs to the past itself."""
        if old is not None:
            self.present -= weight(old)
            self.past += weight(old)
        if new.version:
            self.present += weight(new)
        else:
            self.past += weight(new)

    @property
    def excess(self) -> int:
        """Bytes of the past to be forgotten now: a hundredth at a time, or more if it is large."""
        return self.past - self.past_max if self.past > self.past_max * 1.01 else 0
