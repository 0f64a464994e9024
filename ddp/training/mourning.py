"""Tells of members of this host whose process has ended, at once: the kernel knows.

    mourning = Mourning()                    on the running loop
    mourning.watch(member, tell)             `tell` is called once, when it has ended
    mourning.forget(life)

A process that is only stopped has not ended, and of another host nothing is known here: both are
found out by their silence (worker.py). A number that the kernel has given to somebody else since
means that silence has to tell of that one, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

from ddp.segment import host_id
from ddp.training.elastic import Member


def process_here() -> str:
    """This process, as a member names its own."""
    return f"{os.getpid()}@{host_id()}"


class Mourning:
    """The members that live on this host."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._here = host_id()
        self._watched: dict[str, int] = {}  # life -> descriptor of its process

    def __repr__(self) -> str:
        return f"<Mourning watching={sorted(self._watched)}>"

    def watch(self, member: Member, tell: Callable[[], None]) -> None:
        """Call `tell` when the member's process has ended; nothing for one of another host."""
        pid, _, host = member.process.partition("@")
        if host != self._here or member.life in self._watched:
            return
        try:
            descriptor = os.pidfd_open(int(pid))
        except ProcessLookupError:
            self._loop.call_soon(tell)
            return
        self._watched[member.life] = descriptor

        def ended() -> None:
            self.forget(member.life)
            tell()

        self._loop.add_reader(descriptor, ended)

    def forget(self, life: str) -> None:
        """Nobody wants to know any more."""
        descriptor = self._watched.pop(life, None)
        if descriptor is not None:
            self._loop.remove_reader(descriptor)
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def close(self) -> None:
        """Watch nobody."""
        for life in list(self._watched):
            self.forget(life)
