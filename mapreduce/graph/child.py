"""The process that runs users' functions, so that whatever they do to it, the worker lives.

Over one socket, msgpack both ways, one task behind the other:

    [FUNCTION, hash, bytes]                        before its first use
    [FORGET, session, [hashes]]                    when a session is over
    [RUN, session, token, steps, {input: bytes}]   -> [DONE, token, bytes, [seconds a step]]
                                                   or [FAILED, token, traceback, exception]

It dies with its worker (PR_SET_PDEATHSIG, and the end of the socket). What functions print goes to
the worker's output. Values that came or were made lately are kept, decoded: a chain of tasks in one
worker decodes nothing twice.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
import traceback
from collections import OrderedDict
from typing import Any, Final

import msgpack

from mapreduce.graph.graphs import run_step
from mapreduce.graph.wire import dumps, loads, unpacked_step
from netstack.runtime.parent import die_with

FUNCTION, RUN, DONE, FAILED, FORGET = range(5)

# Decoded values that are kept; each is an input that need not be decoded again.
KEPT_MAX: Final = 256
# Larger ones are not kept: two copies of each value would take twice the memory.
KEPT_BYTES_MAX: Final = 1024 * 1024

RECEIVE_BYTES: Final = 1024 * 1024


class Runner:
    """Runs tasks from their bytes; what the child does, and the simulation too."""

    def __init__(self) -> None:
        self._functions: dict[str, Any] = {}
        self._kept: OrderedDict[tuple[str, str], Any] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Runner functions={len(self._functions)} kept={len(self._kept)}>"

    def add_function(self, digest: str, data: bytes) -> None:
        """Decoded when it is used first: if that fails, its task does."""
        self._functions[digest] = data

    def run(self, session: str, token: int, steps: Any, inputs: dict[str, bytes]) -> list[Any]:
        """The answer to one task."""
        at = ""
        try:
            values = {name: self._value(session, name, data) for name, data in inputs.items()}
            took = []
            for name, digest, data in steps:
                began = time.perf_counter()
                at = f"in its step {name}\n" if len(steps) > 1 else ""
                step = unpacked_step(name, self._function(digest), data)
                values[name] = run_step(step, values)
                took.append(time.perf_counter() - began)
            name = steps[-1][0]
            packed = dumps(values[name])
            if len(packed) <= KEPT_BYTES_MAX:
                self._keep((session, name), values[name])
            return [DONE, token, packed, took]
        except BaseException as error:
            return [FAILED, token, at + _told(error), _packed_error(error)]

    def forget(self, session: str, functions: list[str]) -> None:
        """All kept values of a session that is over, and functions that nobody uses."""
        for digest in functions:
            self._functions.pop(digest, None)
        for key in [key for key in self._kept if key[0] == session]:
            del self._kept[key]

    def _function(self, digest: str) -> Any:
        found = self._functions[digest]
        if isinstance(found, bytes):
            found = self._functions[digest] = loads(found)
        return found

    def _value(self, session: str, name: str, data: bytes) -> Any:
        key = (session, name)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        value = loads(data)
        if len(data) <= KEPT_BYTES_MAX:
            self._keep(key, value)
        return value

    def _keep(self, key: tuple[str, str], value: Any) -> None:
        self._kept[key] = value
        if len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)


def _told(error: BaseException) -> str:
    """The traceback from the user's function on, without ours above it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = os.path.dirname(__file__)
    theirs = [frame for frame in frames if not frame.filename.startswith(own)] or frames
    lines = ["Traceback (most recent call last):\n", *traceback.format_list(theirs)]
    return "".join(lines + traceback.format_exception_only(error))


def _packed_error(error: BaseException) -> bytes:
    with contextlib.suppress(Exception):
        data = dumps(error)
        loads(data)
        return data
    return b""


def main(descriptor: int, parent: int) -> None:
    """Serve the worker at the other end of the socket until it is gone."""
    die_with(parent)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the worker's to handle
    connection = socket.socket(fileno=descriptor)
    unpacker = msgpack.Unpacker(raw=False, max_buffer_size=0)
    runner = Runner()
    while data := connection.recv(RECEIVE_BYTES):
        unpacker.feed(data)
        for message in unpacker:
            kind = message[0]
            if kind == FUNCTION:
                runner.add_function(message[1], message[2])
            elif kind == FORGET:
                runner.forget(message[1], message[2])
            else:
                _, session, token, steps, inputs = message
                connection.sendall(msgpack.packb(runner.run(session, token, steps, inputs)))
                sys.stdout.flush()
