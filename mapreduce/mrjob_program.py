"""An MRJob class as it is: its own methods, protocols, counters, options.

One step of it is one job here. The class is instantiated where the task runs, never in the process
that submits the job; that asks a process of its own how many steps it has (client.mrjob_steps).

What a step may consist of: mapper, combiner, reducer, with their _init and _final; commands
(_cmd) and filters (_pre_filter) and mapper_raw are refused. SORT_VALUES is honoured; PARTITIONER,
a class in Java, is not.
"""

from __future__ import annotations

import inspect
import io
import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mapreduce.blocks import Pair
from mapreduce.context import Task
from mapreduce.errors import BadJob
from mapreduce.job import Job
from mapreduce.programs import Groups, Program, import_program
from mapreduce.streaming import reported

PARTS = ("mapper", "combiner", "reducer")
REFUSED = ("mapper_raw", *(f"{p}_{x}" for p in PARTS for x in ("cmd", "pre_filter")))


class MRJobProgram(Program):
    """One step of an MRJob."""

    def __init__(self, job: Job, module: types.ModuleType) -> None:
        super().__init__(job)
        self._step = int(job.args.get("step", 0))
        self._arguments: list[str] = list(job.args.get("arguments", ()))
        self._class = _mrjob_class(module, job.program)
        self._instance = self._make()
        steps = self._instance.steps()
        if self._step >= len(steps):
            raise BadJob(f"{job.program} has {len(steps)} steps, no step {self._step}")
        step = steps[self._step]
        for what in REFUSED:
            if getattr(step, "_steps", {}).get(what):
                raise BadJob(
                    f"{job.program} has a {what}; only mapper, combiner and reducer run here"
                )
        self._has = {part for part in PARTS if step[part] is not None}
        self.combines = job.combine and "combiner" in self._has
        self.sorts_values = bool(self._instance.sort_values())

    def map_records(self, records: Iterator[bytes], task: Task) -> Iterable[Pair]:
        """See Program."""
        instance = self._listening(task)
        description = instance.steps()[self._step].description(self._step)
        if "mapper" not in description:
            # A step without a mapper passes on what the step before has written.
            return (_split(record) for record in records)
        read, write = instance.pick_protocols(self._step, "mapper")
        pairs = instance.map_pairs((read(record) for record in records), self._step)
        return (_split(write(key, value)) for key, value in pairs)

    def combine(self, groups: Groups, task: Task) -> Iterable[Pair]:
        """See Program."""
        instance = self._listening(task)
        read, write = instance.pick_protocols(self._step, "combiner")
        pairs = instance.combine_pairs(_decoded(groups, read), self._step)
        return (_split(write(key, value)) for key, value in pairs)

    def reduce_groups(self, groups: Groups, task: Task) -> Iterable[bytes]:
        """See Program."""
        if "reducer" not in self._has:
            return (_joined(key, value) for key, values in groups for value in values)
        instance = self._listening(task)
        read, write = instance.pick_protocols(self._step, "reducer")
        pairs = instance.reduce_pairs(_decoded(groups, read), self._step)
        return (write(key, value) for key, value in pairs)

    def map_only(self, pairs: Iterable[Pair], task: Task) -> Iterable[bytes]:
        """See Program."""
        return (_joined(key, value) for key, value in pairs)

    def _make(self) -> Any:
        try:
            return self._class(self._arguments)
        except SystemExit as error:
            raise BadJob(f"{self.job.program} refuses its arguments {self._arguments}") from error

    def _listening(self, task: Task) -> Any:
        """An instance whose counters and status reach the task."""
        instance = self._make()
        instance.sandbox(stdin=io.BytesIO(), stdout=io.BytesIO(), stderr=_Reporter(task))
        return instance


class _Reporter(io.RawIOBase):
    """A stderr that is heard."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        for line in bytes(data).splitlines():
            reported(line, self._task)
        return len(data)


def _mrjob_class(module: types.ModuleType, where: str) -> Any:
    from mrjob.job import MRJob

    found: list[type] = [
        kind
        for kind in vars(module).values()
        if inspect.isclass(kind) and issubclass(kind, MRJob) and kind.__module__ == module.__name__
    ]
    if len(found) != 1:
        names = ", ".join(kind.__name__ for kind in found) or "none"
        raise BadJob(f"{where} must have one MRJob class; it has: {names}")
    return found[0]


def _split(line: bytes) -> Pair:
    key, found, value = line.partition(b"\t")
    return key, value if found else None


def _joined(key: bytes, value: bytes | None) -> bytes:
    return key if value is None else key + b"\t" + value


def _decoded(groups: Groups, read: Any) -> Iterator[tuple[Any, Any]]:
    for key, values in groups:
        for value in values:
            yield read(_joined(key, value))


def count_steps(path: str, arguments: Sequence[str]) -> int:
    """How many steps the class in a file has; raises BadJob. Instantiates it."""
    job = Job.mrjob(path, arguments=arguments, inputs=["-"], output="-")
    kind = _mrjob_class(import_program(job), path)
    try:
        steps = kind(list(arguments)).steps()
    except SystemExit as error:
        raise BadJob(f"{path} refuses its arguments {list(arguments)}") from error
    for step in steps:
        if step.description(0).get("type") != "streaming":
            raise BadJob(f"{path} has a {type(step).__name__}, which does not run here")
    return len(steps)
