"""Where the user's code runs: children, forked from a nursery that has imported everything already.

    worker ──fork: a socket, a log──▶ nursery ──fork(2)──▶ child: one Mission, one Result, the end
           ◀──pid; pid, status──────

The nursery is a small process with one thread, so that forking it is safe and takes milliseconds.
A child runs one attempt and ends: nothing that the code of one attempt leaves behind in memory
meets the next. It is the leader of a session, so that it can be ended with all that it has
started; and it cannot outlive the nursery, nor that the worker (PR_SET_PDEATHSIG).

How far an attempt is stands in a small file that the child maps into memory. It is there for the
worker to read after the child was killed by whatever it was; writing to it costs 30 ns a record.
"""

from __future__ import annotations

import faulthandler
import gc
import mmap
import os
import select
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any, Final, NoReturn

import fsspec
import msgpack

from mapreduce.attempt import FULL, run_attempt
from mapreduce.folder import furnish
from mapreduce.messages import Failure, Mission, Result
from mapreduce.programs import load
from mapreduce.ring_urls import PROTOCOL
from netstack.rpc.schema import decode, encode
from netstack.runtime.parent import die_with

LENGTH: Final = struct.Struct("<I")

# The progress file: three numbers, then text that says how it goes.
NUMBERS: Final = 3
STATUS_AT: Final = 8 * NUMBERS
STATUS_BYTES: Final = 232
PROGRESS_BYTES: Final = STATUS_AT + STATUS_BYTES


def nursery(control_fd: int, parent: int) -> NoReturn:
    """Fork a child for each request, and tell how each ends, until the worker is gone."""
    die_with(parent)
    control = socket.socket(fileno=control_fd)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _import_all()
    gc.collect()
    gc.freeze()  # what is there now stays shared with the children
    control.send(b"ready")
    while True:
        waiting: list[Any] = [control, reading]
        ready, _, _ = select.select(waiting, [], [])
        if control in ready:
            data, descriptors, _, _ = socket.recv_fds(control, 64, 2)
            if not data:
                os._exit(0)
            _fork(control, descriptors)
        if reading in ready:
            os.read(reading, 4096)
            _reap(control)


def _import_all() -> None:
    """What most programs need, before it is needed."""
    import collections
    import json
    import re

    import numpy as np

    for module in (collections, json, re, np):
        assert module.__name__ in sys.modules
    if PROTOCOL in fsspec.config.conf:
        fsspec.get_filesystem_class(PROTOCOL)


def _fork(control: socket.socket, descriptors: list[int]) -> None:
    task, log = descriptors
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        try:
            control.close()
            _child(socket.socket(fileno=task), log, parent)
        finally:
            os._exit(1)
    for descriptor in descriptors:
        os.close(descriptor)
    control.send(msgpack.packb([pid]))


def _reap(control: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        control.send(msgpack.packb([pid, os.waitstatus_to_exitcode(status)]))


def _child(task: socket.socket, log: int, parent: int) -> NoReturn:
    """One attempt."""
    os.setsid()
    die_with(parent)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.enable()
    gc.set_threshold(50_000, 50, 1000)  # many small objects, few cycles: 18 % of a map's time
    data = _receive(task)
    if data is None:
        os._exit(0)  # never needed
    result = perform(decode(Mission, msgpack.unpackb(data)))
    answer = msgpack.packb(encode(result))
    task.sendall(LENGTH.pack(len(answer)) + answer)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def perform(mission: Mission) -> Result:
    """Prepare the folder, load the program, run it."""
    try:
        return _perform(mission)
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in FULL
        failure = Failure("disk" if full else "job", f"{type(error).__name__}: {error}"[:2000])
        start = mission.start
        return Result(start.attempt, start.job_id, start.kind, start.index, failure=failure)


def _perform(mission: Mission) -> Result:
    furnish(mission)
    with open_progress(progress_path(mission.folder)) as memory:
        numbers = memoryview(memory).cast("Q")[:NUMBERS]

        def report(text: str) -> None:
            data = text.encode(errors="replace")[:STATUS_BYTES]
            memory[STATUS_AT:PROGRESS_BYTES] = data.ljust(STATUS_BYTES, b"\0")

        try:
            program = load(mission.job)
            return run_attempt(mission, program, numbers, report)
        finally:
            numbers.release()


def progress_path(folder: str) -> Path:
    """Where an attempt with this folder says how far it is."""
    return Path(f"{folder}.progress")


def open_progress(path: Path) -> mmap.mmap:
    """The file, mapped; made if it is not there.

    With its room taken: a full disk is an error here, and not a SIGBUS at some record later.
    """
    with path.open("a+b") as file:
        os.posix_fallocate(file.fileno(), 0, PROGRESS_BYTES)
        return mmap.mmap(file.fileno(), PROGRESS_BYTES)


def read_progress(path: Path) -> tuple[tuple[int, ...], str]:
    """Numbers and status as they are now, or were when the process died."""
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    data = data.ljust(PROGRESS_BYTES, b"\0")
    numbers = struct.unpack_from(f"<{NUMBERS}Q", data)
    return numbers, data[STATUS_AT:PROGRESS_BYTES].rstrip(b"\0").decode(errors="replace")


def _receive(task: socket.socket) -> bytes | None:
    """One message; None at the end."""
    header = _exactly(task, LENGTH.size)
    return None if header is None else _exactly(task, LENGTH.unpack(header)[0])


def _exactly(task: socket.socket, count: int) -> bytes | None:
    parts: list[Any] = []
    while count:
        data = task.recv(min(count, 1 << 20))
        if not data:
            return None
        parts.append(data)
        count -= len(data)
    return b"".join(parts)
