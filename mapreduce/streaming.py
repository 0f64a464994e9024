"""Jobs made of commands, by the conventions of Hadoop streaming.

    mapper     reads lines of the input, writes lines; up to the first tab is the key
    reducer    reads "key TAB value" lines, sorted by key and without marks between keys
    combiner   as a reducer, on the map's side; partitioner: see below

    stderr     reporter:counter:<group>,<counter>,<amount>    a counter
               reporter:status:<text>                         a status, and a sign of life
               anything else                                  is kept; its last lines are shown
    exit       not 0: the attempt failed (unless stream.non.zero.exit.is.failure=false)
    environ    the job's properties with _ for all that is not a letter or digit, such as
               mapreduce_map_input_file, mapreduce_task_partition, mapreduce_task_attempt_id
    folder     the attempt's own, with the job's files linked into it and first in PATH

Properties honoured: stream.map.output.field.separator, stream.num.map.output.key.fields,
stream.non.zero.exit.is.failure, mapreduce.partition.keypartitioner.options (-k1 or -k1,n).
A partitioner is a command, as madoop has it: the number of parts is its argument, it reads keys
and writes a number a line. Commands are started without a shell; write bash -c '…' for one.

A record that kills a command cannot be named: nobody knows how far a command has read. So bad
records are not skipped in streams.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import IO, Final

from mapreduce.blocks import Pair
from mapreduce.context import Task
from mapreduce.errors import BadJob, CommandFailed
from mapreduce.folder import environment
from mapreduce.job import Job
from mapreduce.keys import hash_partition
from mapreduce.programs import Groups, Program
from netstack.runtime.parent import die_with

READ_BYTES: Final = 256 * 1024
STATUS = b"reporter:status:"
COUNTER = b"reporter:counter:"
PROPERTIES: Final = (
    "stream.map.output.field.separator",
    "stream.num.map.output.key.fields",
    "stream.non.zero.exit.is.failure",
    "mapreduce.partition.keypartitioner.options",
    "mapreduce.job.name",
)


class StreamProgram(Program):
    """A mapper, and perhaps a combiner, a reducer and a partitioner, that are commands."""

    chunked = True
    blames = frozenset()
    combine_every = 1 << 62

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._commands = job.commands
        properties = job.properties
        self.combines = job.combine and "combiner" in job.commands
        self._separator = properties.get("stream.map.output.field.separator", "\t").encode()
        self._key_fields = _number(properties, "stream.num.map.output.key.fields", 1)
        self._strict = properties.get("stream.non.zero.exit.is.failure", "true") != "false"
        self._partition_fields = _partition_fields(properties)

    def map_chunks(self, chunks: Iterator[bytes], task: Task) -> Iterable[Pair]:
        """See Program."""
        return self._pairs(self._run("mapper", chunks, task))

    def map_only(self, pairs: Iterable[Pair], task: Task) -> Iterable[bytes]:
        """What the mapper wrote, as it wrote it."""
        separator = self._separator
        for key, value in pairs:
            yield key if value is None else key + separator + value

    def combine(self, groups: Groups, task: Task) -> Iterable[Pair]:
        """See Program."""
        ordered = sorted(groups, key=lambda group: group[0])
        return self._pairs(self._run("combiner", self._as_lines(ordered), task))

    def reduce_groups(self, groups: Groups, task: Task) -> Iterable[bytes]:
        """See Program."""
        written = self._as_lines(groups)
        if "reducer" not in self._commands:
            return (line.removesuffix(b"\n") for line in written)
        return self._run("reducer", written, task)

    def partition(self, keys: Sequence[bytes], cuts: Sequence[bytes]) -> list[int]:
        """See Program."""
        if "partitioner" in self._commands:
            return self._ask_partitioner(keys)
        if self._partition_fields:
            count, separator = self._partition_fields, self._separator
            keys = [separator.join(key.split(separator)[:count]) for key in keys]
            return hash_partition(keys, self.job.reduces)
        return super().partition(keys, cuts)

    def _ask_partitioner(self, keys: Sequence[bytes]) -> list[int]:
        task = Task(args={}, kind="map", index=0)
        written = self._run(
            "partitioner", (key + b"\n" for key in keys), task, str(self.job.reduces)
        )
        parts = []
        for line in written:
            if not line.strip().isdigit() or int(line) >= self.job.reduces:
                raise BadJob(f"the partitioner wrote {line!r:.100}: no part of {self.job.reduces}")
            parts.append(int(line))
        if len(parts) != len(keys):
            raise BadJob(f"the partitioner wrote {len(parts)} lines for {len(keys)} keys")
        return parts

    def _as_lines(self, groups: Groups) -> Iterator[bytes]:
        separator = self._separator
        for key, values in groups:
            for value in values:
                yield key + b"\n" if value is None else b"%b%b%b\n" % (key, separator, value)

    def _pairs(self, written: Iterable[bytes]) -> Iterator[Pair]:
        """Key and value of each line; no separator, no value."""
        separator, count = self._separator, self._key_fields
        for line in written:
            if count == 1:
                key, found, value = line.partition(separator)
                yield key, value if found else None
            else:
                fields = line.split(separator, count)
                yield separator.join(fields[:count]), fields[count] if fields[count:] else None

    def _run(
        self, role: str, pieces: Iterable[bytes], task: Task, *arguments: str
    ) -> Iterator[bytes]:
        command = [*shlex.split(self._commands[role]), *arguments]
        return run_command(role, command, pieces, self.job, task, strict=self._strict)


def run_command(
    role: str,
    command: Sequence[str],
    pieces: Iterable[bytes],
    job: Job,
    task: Task,
    *,
    strict: bool = True,
) -> Iterator[bytes]:
    """The lines that a command writes when it is given `pieces`; raises CommandFailed.

    strict: a status other than 0 is a failure; a signal is one in any case.
    """
    path = f"{os.getcwd()}:{os.environ.get('PATH', '')}"
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PATH": path, **environment(job, task)},
            preexec_fn=partial(die_with, os.getpid()),
        )
    except OSError as error:
        why = f"the {role} {command[0]!r} cannot be started: {error.strerror}"
        hint = "" if "/" in command[0] else "; does the job bring it along (-files)?"
        raise CommandFailed(why + hint) from None
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    failures: list[BaseException] = []
    threads = [
        threading.Thread(target=_feed, args=(process.stdin, pieces, failures), daemon=True),
        threading.Thread(target=_listen, args=(process.stderr, task), daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        yield from _lines(process.stdout)
        status = process.wait()
        for thread in threads:
            thread.join()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()
    if failures:
        raise failures[0]
    if status and (strict or status < 0):
        how = f"signal {-status}" if status < 0 else f"status {status}"
        raise CommandFailed(f"the {role} {shlex.join(command)} ended with {how}")


def check_properties(properties: dict[str, str], honoured: Sequence[str] = PROPERTIES) -> None:
    """Raises BadJob for properties that would change the result and are not honoured."""
    for name in properties:
        touches_result = (
            name.startswith(("stream.", "mapreduce.partition.")) or "comparator" in name
        )
        if touches_result and name not in honoured:
            known = ", ".join(honoured) or "none of its kind"
            raise BadJob(f"the property {name} is not honoured; what is: {known}")


def _number(properties: dict[str, str], name: str, default: int) -> int:
    text = properties.get(name, str(default))
    if not text.isdecimal() or int(text) < 1:
        raise BadJob(f"{name} must be a number from 1, not {text!r}")
    return int(text)


def _partition_fields(properties: dict[str, str]) -> int:
    text = properties.get("mapreduce.partition.keypartitioner.options", "")
    if not text:
        return 0
    found = re.fullmatch(r"-k1(?:,(\d+))?", text)
    if not found:
        raise BadJob(f"the partitioner's options {text!r}: only -k1 and -k1,n are honoured")
    return int(found[1] or 1)


def _feed(stdin: IO[bytes], pieces: Iterable[bytes], failures: list[BaseException]) -> None:
    """Write all to the command; one that has read enough has ended or closed its input."""
    try:
        for piece in pieces:
            stdin.write(piece)
    except BrokenPipeError:
        pass
    except BaseException as error:
        failures.append(error)
    finally:
        with contextlib.suppress(OSError):
            stdin.close()


def _listen(stderr: IO[bytes], task: Task) -> None:
    """Counters and status are for the task; all else is for people."""
    with stderr:
        for line in stderr:
            if not reported(line, task):
                sys.stderr.write(line.decode(errors="backslashreplace"))
                sys.stderr.flush()


def reported(line: bytes, task: Task) -> bool:
    """Whether a line of stderr was a report to the task."""
    if line.startswith(STATUS):
        task.status(line[len(STATUS) :].strip().decode(errors="replace"))
        return True
    if line.startswith(COUNTER):
        group, _, rest = line[len(COUNTER) :].strip().decode(errors="replace").partition(",")
        name, _, amount = rest.rpartition(",")
        if name and amount.strip().lstrip("-").isdecimal():
            task.count(group, name, int(amount))
            return True
    return False


def _lines(stdout: IO[bytes]) -> Iterator[bytes]:
    """Lines without their ends, split in C a piece at a time."""
    rest = b""
    read: Callable[[int], bytes] = stdout.read1  # type: ignore[attr-defined]
    while data := read(READ_BYTES):
        found = (rest + data).split(b"\n")
        rest = found.pop()
        yield from found
    if rest:
        yield rest
