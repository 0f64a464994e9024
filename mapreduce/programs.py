"""What a task runs: one face for the three ways to write a job.

    Program             the face: maps of records or of chunks, combine, reduce, partition, lines
    PythonProgram       functions in a module (here)
    StreamProgram       commands (streaming.py)
    MRJobProgram        an MRJob class (mrjob_program.py)

A module of plain functions has some of these; each may take the Task as one more argument:

    map(line)                     -> pairs             for each record
    map_chunks(chunks)            -> pairs, or a dict  for a split, as pieces of whole lines: the
                                                       fast way, in which C does the work
    combine(key, values)          -> pairs             on the map's side; or a fold, such as `sum`
    reduce(key, values)           -> pairs             for each key; or a fold
    partition(key, reduces)       -> int               with partition="program"
    line(key, value)              -> bytes             one line of output, without its end
    sample_key(record)            -> key               with partition="range"
    DEFAULTS                      fields of the Job where the user names none

A *fold* takes the values alone and makes one of them: sum, min, max, or a function of yours with
one parameter. Values reach a reducer as msgpack brings them back: a tuple as a list.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, Final

from mapreduce.blocks import Pair
from mapreduce.context import Task
from mapreduce.errors import BadJob
from mapreduce.job import Job
from mapreduce.keys import hash_partition, range_partition
from mapreduce.messages import MAP, REDUCE

Groups = Iterable[tuple[bytes, Iterable[Any]]]

# Values that a map task gathers before it combines them; then it does so again when as many more.
COMBINE_EVERY: Final = 200_000

FOLDS: Final = (sum, min, max)


class Program:
    """One job's code, ready to run.

    chunked: has map_chunks. combines: has a combiner. combine_every: see COMBINE_EVERY.
    blames: the kinds of task in which it is known at which record, or group, it is.
    sorts_values: wants the values of a key sorted, whatever the job says.
    """

    chunked = False
    combines = False
    blames = frozenset((MAP, REDUCE))
    sorts_values = False
    combine_every = COMBINE_EVERY

    def __init__(self, job: Job) -> None:
        self.job = job

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.job.title}>"

    def map_records(self, records: Iterator[bytes], task: Task) -> Iterable[Pair]:
        """Pairs of records; keys need not be bytes yet."""
        return zip(records, repeat(b""))

    def map_chunks(
        self, chunks: Iterator[bytes], task: Task
    ) -> Iterable[Pair] | Mapping[bytes, Any]:
        """Pairs of whole lines; only if `chunked`."""
        raise AssertionError("not a chunked program")

    def combine(self, groups: Groups, task: Task) -> Iterable[Pair]:
        """Fewer pairs; only if `combines`."""
        raise AssertionError("not a combining program")

    def reduce_groups(self, groups: Groups, task: Task) -> Iterable[bytes]:
        """Lines of output, without their ends."""
        line = self.line
        for key, values in groups:
            for value in values:
                yield line(key, value)

    def map_only(self, pairs: Iterable[Pair], task: Task) -> Iterable[bytes]:
        """Lines of output of a job without reduces."""
        line = self.line
        for key, value in pairs:
            yield line(key, value)

    def partition(self, keys: Sequence[bytes], cuts: Sequence[bytes]) -> list[int]:
        """The part of each key."""
        if self.job.partition == "range":
            return range_partition(keys, cuts)
        return hash_partition(keys, self.job.reduces)

    def line(self, key: Any, value: Any) -> bytes:
        """One line of output."""
        return as_text(key) + b"\t" + as_text(value) if value != b"" else as_text(key)

    def sample_key(self, record: bytes) -> bytes | None:
        """The key of a record, for the cuts of ranges."""
        if self.job.record_bytes:
            return record[: self.job.key_bytes]
        return record


def as_text(value: Any) -> bytes:
    """A key or value as it stands in the output."""
    if type(value) is bytes:
        return value
    if type(value) is int:
        return b"%d" % value
    if isinstance(value, str):
        return value.encode()
    return json.dumps(value, sort_keys=True, default=_jsonable).encode()


def _jsonable(value: Any) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def load(job: Job) -> Program:
    """The program of a job; raises BadJob saying why it cannot be had."""
    if job.kind == "stream":
        from mapreduce.streaming import StreamProgram

        return StreamProgram(job)
    module = import_program(job)
    if job.kind == "mrjob":
        from mapreduce.mrjob_program import MRJobProgram

        return MRJobProgram(job, module)
    return PythonProgram(job, module)


def import_program(job: Job) -> types.ModuleType:
    """The module; raises BadJob with the error that importing it met."""
    try:
        if not job.source:
            return importlib.import_module(job.program)
        name = Path(job.program).stem
        module = types.ModuleType(name)
        module.__file__ = job.program
        sys.modules[name] = module
        folder = str(Path(job.program).parent)
        if folder not in sys.path:
            sys.path.append(folder)
        exec(compile(job.source, job.program, "exec"), module.__dict__)
        return module
    except (Exception, SystemExit) as error:  # a script without `if __name__ …` may end here
        raise BadJob(
            f"the program {job.program} cannot be imported: {type(error).__name__}: {error}"
        ) from error


class PythonProgram(Program):
    """Plain functions in a module."""

    def __init__(self, job: Job, module: types.ModuleType) -> None:
        super().__init__(job)
        self._name = job.program
        self._map = _function(module, "map", 1)
        self._map_chunks = _function(module, "map_chunks", 1)
        self._combine = _function(module, "combine", 2) if job.combine else None
        self._reduce = _function(module, "reduce", 2)
        self._partition = getattr(module, "partition", None)
        self._sample_key = getattr(module, "sample_key", None)
        if (line := getattr(module, "line", None)) is not None:
            self.line = line  # type: ignore[method-assign]
        self.chunked = self._map_chunks is not None
        self.combines = self._combine is not None
        if self._map is None and not self.chunked and not job.record_bytes:
            raise BadJob(f"{job.program} has neither `map` nor `map_chunks`")
        if job.partition == "program" and self._partition is None:
            raise BadJob(f'{job.program} has no `partition`, as partition="program" needs')

    def map_records(self, records: Iterator[bytes], task: Task) -> Iterable[Pair]:
        """See Program."""
        assert self._map is not None
        function = self._map.bound(task)
        for record in records:
            yield from function(record) or ()

    def map_chunks(
        self, chunks: Iterator[bytes], task: Task
    ) -> Iterable[Pair] | Mapping[bytes, Any]:
        """See Program."""
        assert self._map_chunks is not None
        found: Iterable[Pair] | Mapping[bytes, Any] = self._map_chunks.bound(task)(chunks)
        return found if found is not None else ()

    def combine(self, groups: Groups, task: Task) -> Iterable[Pair]:
        """See Program."""
        assert self._combine is not None
        return self._combine.over(groups, task)

    def reduce_groups(self, groups: Groups, task: Task) -> Iterable[bytes]:
        """See Program."""
        if self._reduce is None:
            yield from super().reduce_groups(groups, task)
            return
        line = self.line
        for key, value in self._reduce.over(groups, task):
            yield line(key, value)

    def partition(self, keys: Sequence[bytes], cuts: Sequence[bytes]) -> list[int]:
        """See Program."""
        if self.job.partition != "program":
            return super().partition(keys, cuts)
        assert self._partition is not None
        reduces, function = self.job.reduces, self._partition
        parts = [function(key, reduces) for key in keys]
        for key, part in zip(keys, parts, strict=True):
            if type(part) is not int or not 0 <= part < reduces:
                raise BadJob(
                    f"partition({key!r:.100}, {reduces}) is {part!r}: no part of {reduces}"
                )
        return parts

    def sample_key(self, record: bytes) -> bytes | None:
        """See Program: `sample_key` of the module, or the key of the first pair that map emits."""
        if self._sample_key is not None:
            key: bytes | None = self._sample_key(record)
            return key
        if self._map is not None:
            task = Task(args=self.job.args, kind="map", index=0)
            for key, _ in self._map.bound(task)(record) or ():
                return key
            return None
        return super().sample_key(record)


class _Function:
    """A function of the user's: a fold or not, with the Task or without."""

    def __init__(self, function: Callable[..., Any], fold: bool, with_task: bool) -> None:
        self.function = function
        self.fold = fold
        self.with_task = with_task

    def bound(self, task: Task) -> Callable[..., Any]:
        """The function, its Task given."""
        if not self.with_task:
            return self.function
        function = self.function
        return lambda *arguments: function(*arguments, task)

    def over(self, groups: Groups, task: Task) -> Iterator[Pair]:
        """The pairs of all groups."""
        function = self.bound(task)
        if self.fold:
            for key, values in groups:
                yield key, function(values)
        else:
            for key, values in groups:
                yield from function(key, values) or ()


def _function(module: types.ModuleType, name: str, arguments: int) -> _Function | None:
    """The module's function of that name, that takes so many arguments, and maybe the Task."""
    function = module.__dict__.get(name)
    if function is None:
        return None
    if not callable(function):
        raise BadJob(f"{module.__name__}.{name} is no function")
    if function in FOLDS:
        return _Function(function, fold=True, with_task=False)
    try:
        parameters = [
            p
            for p in inspect.signature(function).parameters.values()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
        ]
    except (TypeError, ValueError):
        raise BadJob(f"{module.__name__}.{name}: its parameters are not known") from None
    if arguments == 2 and len(parameters) == 1:
        return _Function(function, fold=True, with_task=False)
    if len(parameters) not in (arguments, arguments + 1):
        raise BadJob(
            f"{module.__name__}.{name} takes {len(parameters)} arguments; it is given {arguments},"
            " or one more, the Task"
        )
    return _Function(function, fold=False, with_task=len(parameters) > arguments)
