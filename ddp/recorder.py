"""The flight recorder: the last calls of this rank, always on, and what they say when asked why.

Each record has who began when: a call that took long was waiting for somebody, and that somebody
is who began last. `chrome_trace` lays the records of all ranks side by side (chrome://tracing,
Perfetto).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

RECORDS_MAX: Final = 1024


@dataclass(slots=True)
class Record:
    """One call as this rank saw it; times are this rank's clock, in seconds."""

    sequence: int
    call: str
    began: float
    arrived: dict[int, float] = field(default_factory=dict)  # rank -> when it was heard to begin
    done: dict[int, float] = field(default_factory=dict)  # rank -> when its part was done
    ended: float | None = None
    outcome: str = "open"  # open | done | the error's text
    sent: int = 0  # bytes of payload
    rounds: int = 0
    fan_in: int = 0

    @property
    def last(self) -> int | None:
        """Who began last of the others, if all have."""
        return max(self.arrived, key=lambda rank: self.arrived[rank], default=None)

    def waited_s(self) -> float:
        """From this rank's beginning to the last of the others'."""
        return max(0.0, max(self.arrived.values(), default=self.began) - self.began)


class Recorder:
    """Of one rank in one epoch."""

    def __init__(self, rank: int, size: int, epoch: int) -> None:
        self.rank, self.size, self.epoch = rank, size, epoch
        self.records: deque[Record] = deque(maxlen=RECORDS_MAX)

    def __repr__(self) -> str:
        return f"<Recorder rank={self.rank} epoch={self.epoch} records={len(self.records)}>"

    def dump(self, now: float, clock: str = "") -> dict[str, Any]:
        """All of it, as plain data. `now` is by the clock of that name: times of ranks that have
        the same one compare."""
        return {
            "rank": self.rank,
            "size": self.size,
            "epoch": self.epoch,
            "now": now,
            "clock": clock,
            "records": [asdict(record) for record in self.records],
        }

    def why(self, now: float) -> list[str]:
        """Sentences: what is open and for whom it waits; who came last most often."""
        lines = []
        for record in self.records:
            if record.outcome == "open":
                lines.append(self._open(record, now))
            elif record.outcome != "done":
                lines.append(f"#{record.sequence} {record.call}: {record.outcome}")
        finished = [r for r in self.records if r.outcome == "done" and r.last is not None]
        if finished:
            blame: Counter[int] = Counter()
            for record in finished:
                if record.waited_s() > 0 and record.last is not None:
                    blame[record.last] += record.waited_s()  # type: ignore[assignment]
            for rank, seconds in blame.most_common(1):
                lines.append(
                    f"of {len(finished)} calls, rank {rank} came last for {seconds:.3f} s "
                    "of waiting"
                )
        return lines or [f"rank {self.rank}: nothing is open, and nothing has failed"]

    def _open(self, record: Record, now: float) -> str:
        others = [rank for rank in range(self.size) if rank != self.rank]
        absent = [rank for rank in others if rank not in record.arrived]
        busy = [rank for rank in others if rank in record.arrived and rank not in record.done]
        head = f"#{record.sequence} {record.call}, open for {now - record.began:.3f} s"
        if absent:
            return f"{head}: {ranks(absent)} not begun it"
        return f"{head}: {ranks(busy)} not done" if busy else head


def ranks(which: Iterable[int]) -> str:
    """`rank 2 has` or `ranks 1, 3 have`."""
    numbers = sorted(which)
    if len(numbers) == 1:
        return f"rank {numbers[0]} has"
    return f"ranks {', '.join(map(str, numbers))} have"


def chrome_trace(dumps: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The records of all ranks as one timeline: a row a rank; waiting and work apart.

    Ranks of one host share a clock. That of another host is shifted so that its dump is of the same
    moment as rank 0's, which it is where all dump on leaving a barrier: to within the time of a
    message. Dumps of several groups follow one another, each from rank 0.
    """
    events: list[dict[str, Any]] = []
    reference: Mapping[str, Any] | None = None
    for dump in dumps:
        rank = dump["rank"]
        if rank == 0 or reference is None:
            reference = dump
        same = dump["clock"] == reference["clock"]
        shift = 0.0 if same else reference["now"] - dump["now"]
        events.append(
            {"name": "process_name", "ph": "M", "pid": rank, "args": {"name": f"rank {rank}"}}
        )
        for record in dump["records"]:
            began = record["began"]
            ended = record["ended"] or dump["now"]
            arrived = min(max([began, *record["arrived"].values()]), ended)
            detail = {key: record[key] for key in ("sequence", "outcome", "sent", "rounds")}
            for name, start, end in (
                (f"wait for all: {record['call']}", began, arrived),
                (record["call"], arrived, ended),
            ):
                if end > start:
                    events.append(
                        {
                            "name": name,
                            "ph": "X",
                            "pid": rank,
                            "tid": 0,
                            "ts": (start + shift) * 1e6,
                            "dur": (end - start) * 1e6,
                            "args": detail,
                        }
                    )
    return {"traceEvents": events, "displayTimeUnit": "ms"}
