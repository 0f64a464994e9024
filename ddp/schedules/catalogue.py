"""All schedules by name, made once for each size."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from ddp.errors import BadCall
from ddp.schedules import others
from ddp.schedules.double_tree import double_tree
from ddp.schedules.halving_doubling import halving_doubling
from ddp.schedules.hierarchical import hierarchical
from ddp.schedules.naive_serial import naive_serial
from ddp.schedules.naive_shift import naive_shift
from ddp.schedules.parameter_server import dedicated_server, parameter_server
from ddp.schedules.recursive_doubling import recursive_doubling
from ddp.schedules.ring import ring
from ddp.schedules.schedule import Schedule
from ddp.schedules.sharded_server import sharded_server

ALLREDUCE: Final[dict[str, Callable[[int], Schedule]]] = {
    "parameter-server": parameter_server,
    "dedicated-server": dedicated_server,
    "sharded-server": sharded_server,
    "naive-serial": naive_serial,
    "naive-shift": naive_shift,
    "ring": ring,
    "double-tree": double_tree,
    "recursive-doubling": recursive_doubling,
    "halving-doubling": halving_doubling,
    "hierarchical": hierarchical,
}
# For sums whose bits must be those of a loop over the ranks: of those that add in their order, the
# one that sends least.
IN_RANK_ORDER: Final = "sharded-server"

# How each of the others is done; there is one way.
SINGLE: Final = {
    "reduce-scatter": "ring",
    "all-gather": "ring",
    "broadcast": "binomial",
    "reduce": "binomial",
    "all-to-all": "shift",
    "barrier": "dissemination",
}
KINDS: Final = ("allreduce", *SINGLE)
ALGORITHMS: Final = (
    *ALLREDUCE,
    *dict.fromkeys(SINGLE[kind] for kind in SINGLE if SINGLE[kind] != "ring"),
)


@lru_cache(maxsize=256)
def schedule_of(kind: str, algorithm: str, size: int, root: int = 0, segments: int = 1) -> Schedule:
    """The schedule of one collective; raises BadCall for a name that there is not.

    segments: parts in which the double tree pipelines each half; others have no use for it.
    """
    if kind == "allreduce":
        if algorithm not in ALLREDUCE:
            raise BadCall(f"no algorithm {algorithm!r}; there are {', '.join(ALLREDUCE)}")
        if algorithm == "double-tree":
            return double_tree(size, segments)
        return ALLREDUCE[algorithm](size)
    if kind not in SINGLE:
        raise BadCall(f"no collective {kind!r}; there are {', '.join(KINDS)}")
    if kind == "broadcast":
        return others.broadcast(size, root)
    if kind == "reduce":
        return others.reduce(size, root)
    plain: dict[str, Callable[[int], Schedule]] = {
        "reduce-scatter": others.reduce_scatter,
        "all-gather": others.all_gather,
        "all-to-all": others.all_to_all,
        "barrier": others.barrier,
    }
    return plain[kind](size)
