"""What one Chord node is tuned by; the reason for each number stands with it."""

from __future__ import annotations

from dataclasses import dataclass

from dht.chord.ring import BITS


@dataclass(frozen=True, slots=True)
class ChordOptions:
    """Settings of a node.

    bits
        Of an identifier. 160; the lecture's examples use 7.
    successors
        Entries of the successor list, always exactly so many. It survives that many deaths at once
        less one; with each peer dying with probability ½, 2·log₂N entries are enough (Chord
        §V-C). A ring needs one member more than this (Zave 2017), or it works without guarantee.
    stabilise_s
        (shortest, longest) pause between two rounds. A round that changes something makes the next
        one early, one that changes nothing makes it later by `BACK_OFF`, as MIT's own does.
    finger_s
        The same for fingers, one a round. They only make look-ups short, so they may be slower, and
        no death makes them faster: upkeep must not grow when the ring has most to do.
    probe_s
        How often a remembered contact is asked where this node belongs; that is how two rings find
        out that they are two. While nothing changes, and all who are asked live and belong to this
        ring, it becomes rarer, down to one in `PROBE_CALM` times as long: who is beyond a cut is
        missed here. In a ring of more than `PROBERS` all together ask as often as so many would.
    """

    bits: int = BITS
    successors: int = 8
    stabilise_s: tuple[float, float] = (0.1, 1.0)
    finger_s: tuple[float, float] = (0.2, 4.0)
    probe_s: float = 2.0

    def __post_init__(self) -> None:
        if not 1 <= self.successors <= 64:
            raise ValueError("successors must be between 1 and 64")
        for name, (low, high) in (("stabilise", self.stabilise_s), ("finger", self.finger_s)):
            if not 0 < low <= high:
                raise ValueError(f"{name}: the shortest pause is above 0 and not over the longest")
        if self.probe_s <= 0:
            raise ValueError("probe must be above 0")
