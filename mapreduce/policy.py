"""What becomes of a task after a failure: another attempt, and which records it leaves out.

The paper's rule (OSDI'04 §4.6): a record at which an attempt has died twice is skipped. Once may
have been the machine; twice at the same record is the record. Where a chunk of many records was
given away at once, the next attempt is *careful*: it hands them over one by one, to find out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mapreduce.job import Job
from mapreduce.messages import Failure

# Times that a record is blamed until it is believed.
BLAMES: Final = 2

# Not the task's fault: these do not count against it.
INNOCENT: Final = frozenset(("lost", "source"))

# The process died, whatever the reason: `on_crash` says what then. For the rest, `on_error`.
DEATHS: Final = frozenset(("crashed", "hung", "memory", "exited"))


@dataclass(frozen=True, slots=True)
class Verdict:
    """fail: why the job must fail; empty: try again, without `skip`, and carefully perhaps."""

    fail: str = ""
    skip: frozenset[int] = frozenset()
    careful: bool = False


def judge(job: Job, failures: Sequence[Failure]) -> Verdict:
    """What to do after these failures of one task, in their order."""
    guilty = [failure for failure in failures if failure.kind not in INNOCENT]
    if not guilty:
        return Verdict()
    last = guilty[-1]
    if last.kind == "job":
        return Verdict(last.message)
    blamed = Counter((f.record, f.kind in DEATHS) for f in guilty if f.record)
    convicted = [what for what, times in blamed.items() if times >= BLAMES]
    for record, died in sorted(convicted):
        policy = job.on_crash if died else job.on_error
        if policy == "fail":
            return Verdict(f"record {record}: {last.message}")
    skip = frozenset(record for record, _ in convicted)
    if len(skip) > job.skips_max:
        return Verdict(f"more than {job.skips_max} bad records: {last.message}")
    careful = any(not f.record for f in guilty)
    explained = sum(times for what, times in blamed.items() if what in convicted) + careful
    if len(guilty) - explained >= job.attempts:
        return Verdict(f"{len(guilty)} attempts failed: {last.message}")
    return Verdict(skip=skip, careful=careful)
