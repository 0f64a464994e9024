"""An MRJob class as it is: its own methods, protocols, counters, options, files.

One step of it is one job here. The class is instantiated where the task runs, never in the process
that submits the job; that asks a process of its own what the steps are (client.steps_of).

    mapper, combiner, reducer     with their _init and _final
      _cmd                        commands instead, started without a shell (streaming.py)
      _pre_filter                 a shell's pipeline before the method; its status does not matter,
                                  as in mrjob, where it stands before the last pipe: a `grep` that
                                  finds nothing is no failure
    mapper_raw                    is given files, the path of each and its URL; what is compressed,
                                  or lies elsewhere, is copied into the attempt's folder first
    SORT_VALUES, FILES, DIRS      honoured; ARCHIVES refused; PARTITIONER, a class in Java, ignored
    JOBCONF                       in the environment of tasks; the number of reduces is honoured

What only Hadoop or Spark can do (JarStep, SparkStep …) is refused.
"""

from __future__ import annotations

import bz2
import gzip
import inspect
import io
import json
import os
import shlex
import shutil
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final

import fsspec
from fsspec.implementations.local import LocalFileSystem

from mapreduce.blocks import Pair
from mapreduce.context import Task
from mapreduce.errors import BadJob
from mapreduce.folder import environment
from mapreduce.job import Job, file_and_name
from mapreduce.messages import MAP, REDUCE
from mapreduce.programs import Groups, Program, import_program
from mapreduce.reduce_task import in_order
from mapreduce.streaming import reported, run_command

MAPPER, COMBINER, REDUCER = "mapper", "combiner", "reducer"

# The method of MRJob that runs all of a role over pairs.
METHODS: Final = {MAPPER: "map_pairs", COMBINER: "combine_pairs", REDUCER: "reduce_pairs"}

COPY_BYTES: Final = 1024 * 1024
OPENERS: Final[dict[str, Callable[..., Any]]] = {".gz": gzip.open, ".bz2": bz2.open}


class MRJobProgram(Program):
    """One step of an MRJob."""

    def __init__(self, job: Job, module: types.ModuleType) -> None:
        super().__init__(job)
        self._step = int(job.args.get("step", 0))
        self._arguments: list[str] = list(job.args.get("arguments", ()))
        self._class = _mrjob_class(module, job.program)
        instance = _instance(self._class, self._arguments, job.program)
        steps = instance.steps()
        if self._step >= len(steps):
            raise BadJob(f"{job.program} has {len(steps)} steps, no step {self._step}")
        self._roles: dict[str, Any] = steps[self._step].description(self._step)
        self._raw = bool(self._roles.get("input_manifest"))
        self.chunked = self._by_command(MAPPER)
        self.combines = job.combine and COMBINER in self._roles
        if self._by_command(COMBINER):
            self.combine_every = 1 << 62
        self.blames = frozenset(
            kind
            for kind, role in ((MAP, MAPPER), (REDUCE, REDUCER))
            if not self._by_command(role) and not (self._raw and kind == MAP)
        )
        self.sorts_values = bool(instance.sort_values())

    def map_records(self, records: Iterator[bytes], task: Task) -> Iterable[Pair]:
        """See Program."""
        if MAPPER not in self._roles:
            # A step without a mapper passes on what the step before has written.
            return map(_split, records)
        if self._raw:
            return self._map_file(task)
        return map(_split, self._written(MAPPER, records, task))

    def map_chunks(self, chunks: Iterator[bytes], task: Task) -> Iterable[Pair]:
        """See Program: a command, or what has one before it, is given whole pieces."""
        return map(_split, self._written(MAPPER, chunks, task))

    def combine(self, groups: Groups, task: Task) -> Iterable[Pair]:
        """See Program."""
        if self._by_command(COMBINER) or self.sorts_values:
            groups = sorted(groups, key=lambda group: group[0])
        if self.sorts_values:
            groups = ((key, in_order(values)) for key, values in groups)
        return map(_split, self._written(COMBINER, self._lines(COMBINER, groups), task))

    def reduce_groups(self, groups: Groups, task: Task) -> Iterable[bytes]:
        """See Program."""
        lines = self._lines(REDUCER, groups)
        return self._written(REDUCER, lines, task) if REDUCER in self._roles else lines

    def map_only(self, pairs: Iterable[Pair], task: Task) -> Iterable[bytes]:
        """See Program."""
        return (_joined(key, value) for key, value in pairs)

    def _by_command(self, role: str) -> bool:
        """Whether something of a role is run in a process of its own."""
        return not {"command", "pre_filter"}.isdisjoint(self._roles.get(role, ()))

    def _lines(self, role: str, groups: Groups) -> Iterator[bytes]:
        """What a combiner or reducer reads; commands want the ends of lines, too."""
        end = b"\n" if self._by_command(role) else b""
        return (_joined(key, value) + end for key, values in groups for value in values)

    def _written(self, role: str, lines: Iterable[bytes], task: Task) -> Iterable[bytes]:
        """The lines that a role makes of lines; of pieces of text, if there is a command in it."""
        what = self._roles[role]
        if "command" in what:
            return run_command(role, shlex.split(what["command"]), lines, self.job, task)
        if "pre_filter" in what:
            shell = ["/bin/sh", "-c", what["pre_filter"]]
            lines = run_command(f"{role}_pre_filter", shell, lines, self.job, task, strict=False)
        instance = self._listening(task)
        read, write = instance.pick_protocols(self._step, role)
        pairs = (read(line.rstrip(b"\r\n")) for line in lines)
        return (write(*pair) for pair in getattr(instance, METHODS[role])(pairs, self._step))

    def _map_file(self, task: Task) -> Iterator[Pair]:
        if not self.job.whole_files:
            raise BadJob(
                f"{self.job.program} has a mapper_raw, which reads whole files: make its jobs by"
                " client.steps_of, or say whole_files=True"
            )
        with _local(task.input) as path:
            instance = self._listening(task, path, task.input)
            _, write = instance.pick_protocols(self._step, MAPPER)
            for key, value in instance.map_pairs(iter(()), self._step):
                yield _split(write(key, value))

    def _listening(self, task: Task, *positional: str) -> Any:
        """An instance whose counters and status reach the task, and which knows its task's."""
        os.environ.update(environment(self.job, task))
        instance = _instance(self._class, [*self._arguments, *positional], self.job.program)
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


@contextmanager
def _local(url: str) -> Iterator[str]:
    """The path of a file, or of a copy of it in the working folder, unpacked."""
    fs, name = fsspec.core.url_to_fs(url)
    *rest, last = Path(name).suffixes or [""]
    opener = OPENERS.get(last)
    if opener is None and isinstance(fs, LocalFileSystem):
        yield str(name)
        return
    suffix = "".join(rest if opener else [*rest, last])
    with NamedTemporaryFile(prefix="input-", suffix=suffix, dir=".") as copy:
        with fs.open(name, "rb") as source:
            shutil.copyfileobj(opener(source) if opener else source, copy, COPY_BYTES)
        copy.flush()
        yield copy.name


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


def _instance(kind: Any, arguments: Sequence[str], where: str) -> Any:
    try:
        return kind(list(arguments))
    except SystemExit as error:
        raise BadJob(f"{where} refuses its arguments {list(arguments)}") from error


def _split(line: bytes) -> Pair:
    key, found, value = line.partition(b"\t")
    return key, value if found else None


def _joined(key: bytes, value: bytes | None) -> bytes:
    return key if value is None else key + b"\t" + value


def _as_property(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def describe(path: str, arguments: Sequence[str]) -> str:
    """What the class in a file asks for, as JSON; raises BadJob. Instantiates it.

    {"steps": [{"raw": whether it reads whole files, "properties": its JOBCONF} …],
     "files": to link into each attempt's folder,
     "arguments": those that a task is given, in which a file is called as it is there}
    """
    if find_spec("mrjob") is None:
        raise BadJob("an MRJob needs the package mrjob; do: pip install ringleader[mrjob]")
    job = Job.mrjob(path, arguments=arguments, inputs=["-"], output="-")
    kind = _mrjob_class(import_program(job), path)
    instance = _instance(kind, arguments, path)
    steps: list[dict[str, Any]] = []
    for step in instance.steps():
        described = step.description(len(steps))
        if described.get("type") != "streaming":
            raise BadJob(f"{path} has a {type(step).__name__}, which does not run here")
        conf = {**instance.jobconf(), **described.get("jobconf", {})}
        properties = {name: _as_property(value) for name, value in conf.items()}
        raw = bool(described.get("input_manifest"))
        steps.append({"raw": raw, "properties": properties})
    if any(step["raw"] for step in steps[1:]):
        raise BadJob(f"{path} has a mapper_raw in a later step; only the first is given files")
    if instance.archives():
        raise BadJob(f"{path} has ARCHIVES, which are not unpacked here: name files or folders")
    files = [*instance.files(), *instance.dirs()]
    given = []
    for argument in instance._non_option_kwargs()["extra_args"]:
        if isinstance(argument, dict):
            name = argument["name"] or Path(argument["path"]).name
            files.append(f"{argument['path']}#{name}")
            argument = name
        given.append(argument)
    absolute = [os.path.abspath(os.path.expanduser(file.rstrip("/"))) for file in files]
    for file in absolute:
        if not Path(file_and_name(file)[0]).exists():
            raise BadJob(f"{path} needs the file {file}, which is not there")
    return json.dumps({"steps": steps, "files": absolute, "arguments": given})
