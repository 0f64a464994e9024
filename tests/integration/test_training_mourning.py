"""The kernel tells of processes that end, and of nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess

import pytest
from ring_kit import PATIENCE

from ddp.segment import host_id
from ddp.training.elastic import Member
from ddp.training.mourning import Mourning, process_here


@pytest.fixture
def child():
    """A process that does nothing."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def member(process, host=None):
    return Member("w1", "w1/1.1", process=f"{process}@{host or host_id()}")


async def test_who_is_killed_is_told_of_once_without_any_silence(child):
    mourning, told = Mourning(), asyncio.Queue()
    mourning.watch(member(child.pid), lambda: told.put_nowait("dead"))
    mourning.watch(member(child.pid), lambda: told.put_nowait("again"))
    child.send_signal(signal.SIGSTOP)
    await asyncio.sleep(0)
    assert told.empty(), "it is only stopped"
    child.kill()
    assert await asyncio.wait_for(told.get(), PATIENCE) == "dead"
    await asyncio.sleep(0.01)
    assert told.empty()
    assert repr(mourning) == "<Mourning watching=[]>"


async def test_who_was_dead_already_is_told_of(child):
    child.kill()
    child.wait()
    told = asyncio.Event()
    Mourning().watch(member(child.pid), told.set)
    await asyncio.wait_for(told.wait(), PATIENCE)


async def test_of_those_forgotten_or_elsewhere_nothing_is_told(child):
    mourning, told = Mourning(), []
    mourning.watch(member(child.pid), lambda: told.append("forgotten"))
    mourning.forget("w1/1.1")
    mourning.watch(member(child.pid, "another host"), lambda: told.append("elsewhere"))
    mourning.watch(Member("w2", "w2/1.1"), lambda: told.append("unknown"))
    before = len(os.listdir("/proc/self/fd"))
    mourning.watch(member(child.pid), lambda: told.append("closed"))
    mourning.close()
    assert len(os.listdir("/proc/self/fd")) == before
    child.kill()
    child.wait()
    await asyncio.sleep(0.05)
    assert told == []


def test_a_process_names_itself_so():
    assert process_here() == f"{os.getpid()}@{host_id()}"
