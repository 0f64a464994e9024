"""A job is data: what to run, over what, into what. It crosses the wire as a map.

    Job(program="mapreduce.examples.wordcount", inputs=["books/*.txt"], output="counts")
    Job(program="./myjob.py", ...)                     a file of plain Python functions
    Job.stream(mapper="./map.sh", reducer="wc -l", ...)    commands, as Hadoop streaming runs them
    Job.mrjob("./mr_job.py", ...)                      an unmodified MRJob class

The program is named and not shipped as objects: whoever runs a task imports it. A program in a
file travels as its text, so that all attempts run the same code whatever happens to the file.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from mapreduce.errors import BadJob
from netstack.rpc.errors import BadRequest
from netstack.rpc.schema import decode, encode, message

# The chunk of the file system beneath: one task reads what lies on one machine.
SPLIT_BYTES: Final = 64 * 1024 * 1024

# What a task may hold of keys and values before it spills them to disk.
MEMORY_BYTES: Final = 64 * 1024 * 1024

REDUCES: Final = 2
REDUCES_MAX: Final = 5000
ATTEMPTS: Final = 4
SKIPS_MAX: Final = 100
# A task that shows no progress for so long hangs.
TIMEOUT_S: Final = 60.0
# Resident memory of a child process above which it is ended, and said to be a hog.
CHILD_BYTES_MAX: Final = 1024 * 1024 * 1024
# A program's text travels in the message that describes the job.
SOURCE_BYTES_MAX: Final = 1024 * 1024

KINDS: Final = ("python", "stream", "mrjob")
ORDERS: Final = ("ascending", "descending")
PARTITIONS: Final = ("hash", "range", "program")
POLICIES: Final = ("fail", "skip")
SHUFFLES: Final = ("files", "direct")


@message
class Job:
    """One job.

    program: a module by name, or a path to a file; for a stream empty.
    source: text of the program where that is a file.
    inputs: files or patterns, for fsspec; output: a folder that does not exist yet.
    reduces: how many parts the output has; 0: what maps emit is the output.
    partition: which part a key goes to: "hash" of its bytes, "range" (part n holds smaller keys
        than part n+1; cut where a sample of the input says), or the program's own function.
    order: of the keys in a part, byte by byte. sort_values: those of a key come sorted, too.
    combine: False: the program's combiner is not used.
    whole_files: each file is one split, however large; for programs that read files, not lines.
    record_bytes, key_bytes: records of fixed size, compared by their first bytes; no lines.
    args: the program's own. files: linked into the working folder of each attempt (folder.py).
    environment: variables for commands. commands, properties: of a stream (see streaming.py).
    on_crash, on_error: what becomes of a record at which the process died, or the code raised,
        twice: "skip" it, at most `skips_max` in a task, or "fail".
    attempts: failures of one task, that tell nothing new, until the job fails.
    backups: run a second copy of a task that is late.
    shuffle: "files": map output goes to disk, and reduces begin when all maps have; "direct": it
        stays in memory, and reduces wait for it from the start and take it as each map ends.
    """

    program: str
    inputs: list[str]
    output: str
    kind: str = "python"
    name: str = ""
    source: str = ""
    reduces: int = REDUCES
    partition: str = "hash"
    order: str = "ascending"
    sort_values: bool = False
    combine: bool = True
    whole_files: bool = False
    record_bytes: int = 0
    key_bytes: int = 0
    args: dict[str, Any] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    commands: dict[str, str] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)
    split_bytes: int = SPLIT_BYTES
    memory_bytes: int = MEMORY_BYTES
    child_bytes_max: int = CHILD_BYTES_MAX
    on_crash: str = "skip"
    on_error: str = "fail"
    skips_max: int = SKIPS_MAX
    attempts: int = ATTEMPTS
    timeout_s: float = TIMEOUT_S
    backups: bool = True
    shuffle: str = "files"

    def __repr__(self) -> str:
        return f"<Job {self.title} reduces={self.reduces} inputs={len(self.inputs)}>"

    @property
    def title(self) -> str:
        """What to call it."""
        if self.name:
            return self.name
        if self.kind == "stream":
            return "stream"
        return Path(self.program).stem if self.source else self.program.rpartition(".")[2]

    @classmethod
    def stream(cls, *, mapper: str, reducer: str = "", combiner: str = "", **more: Any) -> Job:
        """Commands that read lines and write lines, tabs between key and value.

        A reducer `NONE`, or none with reduces=0, makes a job of maps alone; else it is `cat`.
        """
        commands = {"mapper": mapper, "reducer": reducer, "combiner": combiner}
        if "partitioner" in more:
            commands["partitioner"] = more.pop("partitioner")
        if reducer == "NONE":
            commands["reducer"], more["reduces"] = "", 0
        kept = {role: command for role, command in commands.items() if command}
        return cls(program="", kind="stream", commands=kept, **more).checked()

    @classmethod
    def mrjob(
        cls, path: Path | str, *, step: int = 0, arguments: Sequence[str] = (), **more: Any
    ) -> Job:
        """One step of the MRJob class in the file `path`; `client.steps_of` makes all of them."""
        more["args"] = {"step": step, "arguments": list(arguments)}
        return cls(program=str(path), kind="mrjob", **more).checked()

    def checked(self) -> Job:
        """Itself, with paths made absolute and a program's file read; raises BadJob."""
        _one_of("kind", self.kind, KINDS)
        _one_of("partition", self.partition, PARTITIONS)
        _one_of("order", self.order, ORDERS)
        _one_of("on_crash", self.on_crash, POLICIES)
        _one_of("on_error", self.on_error, POLICIES)
        _one_of("shuffle", self.shuffle, SHUFFLES)
        _between("reduces", self.reduces, 0, REDUCES_MAX)
        _between("split_bytes", self.split_bytes, 1, 1 << 40)
        _between("memory_bytes", self.memory_bytes, 1 << 16, 1 << 40)
        _between("attempts", self.attempts, 1, 100)
        _between("skips_max", self.skips_max, 0, 1_000_000)
        _between("timeout_s", self.timeout_s, 0.1, 86_400)
        if not self.inputs:
            raise BadJob("the job has no input; name files, or patterns of files")
        if not self.output:
            raise BadJob("the job has no output; name a folder that does not exist yet")
        if not 0 <= self.key_bytes <= self.record_bytes:
            raise BadJob("key_bytes must be within record_bytes: a record begins with its key")
        if self.record_bytes and not self.key_bytes:
            raise BadJob("records of fixed size need key_bytes, how many of them are the key")
        if self.record_bytes and self.order != "ascending":
            raise BadJob("records of fixed size are sorted in ascending order only")
        if self.kind == "stream":
            _check_commands(self.commands)
        _check_files(self.files)
        job = replace(
            self,
            commands={role: _command(text) for role, text in self.commands.items()},
            inputs=[absolute(path) for path in self.inputs],
            output=absolute(self.output),
            files=[absolute(path) for path in self.files],
        )
        return job._with_source()

    def _with_source(self) -> Job:
        if self.source or self.kind == "stream" or not is_file(self.program):
            return self
        path = Path(self.program).absolute()
        try:
            source = path.read_text(encoding="utf-8")
        except OSError as error:
            raise BadJob(f"the program {self.program} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise BadJob(f"the program {self.program} is no text: {error}") from None
        if len(source) > SOURCE_BYTES_MAX:
            raise BadJob(f"the program {self.program} is larger than {SOURCE_BYTES_MAX} bytes")
        return replace(self, program=str(path), source=source)

    def to_wire(self) -> dict[str, Any]:
        """As a map."""
        return dict(encode(self))

    @classmethod
    def of(cls, wire: Any) -> Job:
        """From a map; raises BadJob."""
        try:
            return decode(cls, wire)
        except BadRequest as error:
            raise BadJob(str(error)) from None


def named(program: ModuleType | str) -> str:
    """The name by which workers find `program`; raises BadJob for what has none."""
    if isinstance(program, str):
        return program
    if program.__name__ == "__main__":
        if file := getattr(program, "__file__", None):
            return str(file)
        raise BadJob("functions typed into a prompt have no name elsewhere; put them into a file")
    return program.__name__


def is_file(program: str) -> bool:
    """Whether the program is named by its path; else it is a module."""
    return program.endswith(".py") or "/" in program


def absolute(path: str) -> str:
    """A local path made absolute; a URL as it is."""
    return path if "://" in path else str(Path(path).absolute())


def file_and_name(path: str) -> tuple[str, str]:
    """Where a file of a job lies, and what it is called in an attempt's folder.

    That is its own name, or what stands behind a `#`, as Hadoop has it: `stop-2026.txt#stop.txt`.
    """
    file, mark, name = path.rpartition("#")
    if mark and name and "/" not in name and not Path(path).exists():
        return file, name
    return path, Path(path).name


def _check_files(files: Sequence[str]) -> None:
    found: dict[str, str] = {}
    for path in files:
        file, name = file_and_name(path)
        if not Path(file).exists():
            raise BadJob(f"the file {path} does not exist; each task would need it")
        if found.setdefault(name, file) != file:
            raise BadJob(f"two files are called {name}; say what one is to be: {path}#other")


def _command(text: str) -> str:
    """A command whose program is named by its path from here, named so that it is found anywhere.

    Tasks run in folders of their own. What is named without a slash is looked for there, and in
    PATH: a file of the job, or a command that all have.
    """
    words = shlex.split(text)
    if "/" in words[0] and Path(words[0]).is_file():
        words[0] = str(Path(words[0]).absolute())
    return shlex.join(words)


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise BadJob(f"{name} must be one of {', '.join(known)}, not {value!r}")


def _between(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise BadJob(f"{name} must be between {least} and {most}, not {value}")


def _check_commands(commands: dict[str, str]) -> None:
    if "mapper" not in commands:
        raise BadJob("a stream needs a mapper: -mapper COMMAND (`cat` passes lines on)")
    for role, command in commands.items():
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise BadJob(f"the {role} {command!r} is no command: {error}") from None
        if not words:
            raise BadJob(f"the {role} is empty")
