"""Three kinds of parallelism at once: which rank belongs to which groups.

    dp=2 pp=2 tp=2, eight ranks:                  tp     dp      pp
                                                  0 1    0 2     0 4
      stage 0   replica 0: 0 1   replica 1: 2 3   2 3    1 3     1 5
      stage 1   replica 0: 4 5   replica 1: 6 7   4 5    4 6     2 6
                                                  6 7    5 7     3 7

rank = t + tp·(d + dp·s): tensor ranks are neighbours, since they talk most and belong on one
machine; stages are farthest apart, since they talk least (Megatron's order tp-dp-pp). Each kind
of group partitions the ranks, and two groups of different kinds meet in one rank at the most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ddp.training.errors import TrainingError


class Place(NamedTuple):
    """Where a rank stands."""

    data: int
    stage: int
    tensor: int


@dataclass(frozen=True, slots=True)
class Grid:
    """How many replicas, stages and tensor ranks."""

    dp: int = 1
    pp: int = 1
    tp: int = 1

    def __post_init__(self) -> None:
        for name in ("dp", "pp", "tp"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name}={getattr(self, name)}: there is at least one")

    def __str__(self) -> str:
        return f"dp={self.dp},pp={self.pp},tp={self.tp}"

    @classmethod
    def parse(cls, text: str) -> Grid:
        """`dp=2,pp=2,tp=2`, any of them left out; raises TrainingError."""
        sizes: dict[str, int] = {}
        for word in filter(None, text.replace(" ", ",").split(",")):
            name, equals, number = word.partition("=")
            if name not in ("dp", "pp", "tp") or not equals or not number.isdecimal():
                raise TrainingError(f"{word!r} is not understood; write dp=2,pp=2,tp=2")
            sizes[name] = int(number)
        return cls(**sizes)

    @property
    def size(self) -> int:
        """Ranks in all."""
        return self.dp * self.pp * self.tp

    def place(self, rank: int) -> Place:
        """Where a rank stands."""
        rest, tensor = divmod(rank, self.tp)
        stage, data = divmod(rest, self.dp)
        return Place(data, stage, tensor)

    def rank(self, place: Place) -> int:
        """Who stands there."""
        return place.tensor + self.tp * (place.data + self.dp * place.stage)

    def group(self, kind: str, rank: int) -> list[int]:
        """The ranks that differ from `rank` in nothing but their place in `kind`, in its order."""
        place = self.place(rank)
        if kind == "dp":
            return [self.rank(place._replace(data=i)) for i in range(self.dp)]
        if kind == "pp":
            return [self.rank(place._replace(stage=i)) for i in range(self.pp)]
        return [self.rank(place._replace(tensor=i)) for i in range(self.tp)]
