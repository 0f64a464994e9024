"""What a rank asks of its group. All ranks must ask the same under one number, or all are told."""

from __future__ import annotations

from dataclasses import dataclass

from ddp.elements import TYPES


@dataclass(frozen=True, slots=True)
class Call:
    """One collective: equal on all ranks, or a Mismatch.

    count: elements of the whole vector (of an all-gather: of what each rank gets).
    """

    kind: str
    algorithm: str
    op: str
    dtype: str
    count: int
    root: int = 0

    def __str__(self) -> str:
        if self.kind == "barrier":
            return "barrier()"
        if self.kind in ("broadcast", "reduce"):
            how = f"{self.op}, root {self.root}" if self.kind == "reduce" else f"root {self.root}"
        elif self.kind in ("all-gather", "all-to-all"):
            how = self.algorithm
        else:
            how = f"{self.op}, {self.algorithm}"
        return f"{self.kind}({self.count} × {self.dtype}, {how})"

    @property
    def nbytes(self) -> int:
        """Of the whole vector."""
        return self.count * TYPES[self.dtype].itemsize
