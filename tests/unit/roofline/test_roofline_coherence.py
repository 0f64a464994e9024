"""Caches that stay coherent, whatever the cores do; and what that costs in messages."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ddp.roofline.coherence import (
    PATTERNS,
    READ,
    SHARED,
    WRITE,
    Access,
    Machine,
    compare,
    traffic,
)

CORES = 4


class Coherence(RuleBasedStateMachine):
    """Against one memory without caches."""

    kind = Machine

    @initialize(exclusive=st.booleans())
    def begin(self, exclusive):
        self.machine = self.kind(CORES, exclusive)
        self.truth = {}
        self.number = 0

    @rule(core=st.integers(0, CORES - 1), line=st.integers(0, 2))
    def read(self, core, line):
        assert self.machine.read(core, line) == self.truth.get(line, 0)

    @rule(core=st.integers(0, CORES - 1), line=st.integers(0, 2))
    def write(self, core, line):
        self.number += 1
        self.truth[line] = self.number
        self.machine.write(core, line, self.number)

    @rule(core=st.integers(0, CORES - 1), line=st.integers(0, 2))
    def evict(self, core, line):
        self.machine.evict(core, line)

    @invariant()
    def holds(self):
        self.machine.check()


Coherence.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestCoherence = Coherence.TestCase


class ForgetsToInvalidate(Machine):
    def _holders(self, line, but):
        return super()._holders(line, but)[:-1]


class ForgetsToWriteBack(Machine):
    def evict(self, core, line):
        self.caches[core].pop(line, None)


class KeepsItsOwnExclusive(Machine):
    """A second reader comes, and the first is not told."""

    def read(self, core, line):
        states = {i: cache[line].state for i, cache in enumerate(self.caches) if line in cache}
        value = super().read(core, line)
        for i, state in states.items():
            self.caches[i][line].state = state
        return value


@pytest.mark.parametrize("bug", [ForgetsToInvalidate, ForgetsToWriteBack, KeepsItsOwnExclusive])
def test_planted_bugs_are_caught(bug, monkeypatch):
    from hypothesis import Phase

    monkeypatch.setattr(Coherence, "kind", bug)
    quick = settings(
        max_examples=300, deadline=None, phases=[Phase.generate], database=None, derandomize=True
    )
    monkeypatch.setattr(TestCoherence, "settings", quick)
    with pytest.raises(Exception):  # noqa: B017, PT011
        TestCoherence("runTest").runTest()


def messages(machine):
    return machine.snoop.total(), machine.directory.total()


def test_a_miss_costs_a_snoop_all_others_and_a_directory_those_that_have_it():
    machine = Machine(8)
    machine.read(0, 0)
    assert messages(machine) == (7 + 1, 1 + 1)
    machine.read(1, 0)  # core 0 has it alone, and is asked
    assert messages(machine) == (2 * 8, 2 + 3)
    machine.read(2, 0)  # shared and clean: home answers
    assert messages(machine) == (3 * 8, 5 + 2)
    machine.write(2, 0, 1)  # two others are told, and say so; no data moves
    assert messages(machine) == (3 * 8 + 7, 7 + 1 + 2 + 2)
    machine.write(2, 0, 2)  # ours alone: nobody is asked
    assert messages(machine) == (31, 12)


def test_exclusive_saves_the_first_writers_question():
    accesses = [Access(0, READ, 0), Access(0, WRITE, 0)]
    mesi, msi = (traffic(Machine(8, exclusive), accesses) for exclusive in (True, False))
    assert messages(mesi) == (8, 2)
    assert messages(msi) == (8 + 7, 2 + 1)
    assert msi.caches[0][0].state == mesi.caches[0][0].state == "M"


def test_msi_has_no_exclusive():
    machine = Machine(2, exclusive=False)
    machine.read(0, 0)
    assert machine.caches[0][0].state == SHARED
    assert repr(machine) == "<Machine 2 cores MSI snoop=2 directory=2>"


def test_snooping_grows_with_the_cores_and_a_directory_with_the_sharers():
    """LEC 22: why snooping does not scale."""
    for pattern in PATTERNS:
        small, large = ({n: m for n, *m in compare(cores)} for cores in (8, 64))
        grown = [large[pattern][i] / small[pattern][i] for i in (0, 1)]
        assert grown[0] > 60
        assert grown[1] < 10
    assert Machine(64).directory_bits == 65
