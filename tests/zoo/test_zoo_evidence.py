"""The rule by which a bug counts as caught: it must be the statement that it names."""

from __future__ import annotations

import asyncio

import pytest
from evidence import caught, evidence


class Core:
    """Of which a judge believes this and that."""

    answer = 41

    # It has no line in any test, as those of the parts that are judged have none.
    exec(compile("def check(self): raise AssertionError", "core.py", "exec"))

    def ask(self):
        raise LookupError("nobody knows")


def looks_closely():
    core = Core()
    assert core.answer > 0
    assert [core.answer, core] == [
        42,
        core,
    ]


def expects_a_refusal():
    with pytest.raises(ValueError, match="no"):
        assert Core().answer


def expects_other_words():
    with pytest.raises(LookupError, match="somebody knows"):
        Core().ask()


def calls_what_fails():
    return Core().ask()


def asks_the_core_itself():
    Core().check()


def a_kit_that_insists(value):
    assert value


def uses_a_kit():
    a_kit_that_insists(0)


async def waits_for_ever():
    async with asyncio.timeout(0):
        await asyncio.Event().wait()


def waits():
    asyncio.run(waits_for_ever())


def is_skipped():
    pytest.skip("not on this machine")


@pytest.mark.parametrize(
    ("judge", "by"),
    [
        (looks_closely, "assert [core.answer, core] == [ 42, core, ]"),
        (expects_a_refusal, "with pytest.raises(ValueError"),
        (expects_other_words, 'with pytest.raises(LookupError, match="somebody'),
        (calls_what_fails, "LookupError: return Core().ask()"),
        (asks_the_core_itself, "AssertionError: Core().check()"),
        (uses_a_kit, "a_kit_that_insists(0)"),
        (uses_a_kit, "assert value"),
        (waits, "TimeoutError: await asyncio.Event().wait()"),
    ],
)
def test_the_statement_that_failed_is_evidence(judge, by):
    with caught(by):
        judge()


@pytest.mark.parametrize(
    ("judge", "by"),
    [
        (looks_closely, "assert core.answer > 0"),
        (looks_closely, "AssertionError: assert [core.answer,"),
        (expects_a_refusal, "assert Core().answer"),
        (calls_what_fails, "return Core().ask()"),
        (calls_what_fails, "ValueError: return Core().ask()"),
        (asks_the_core_itself, "Core().check()"),
        (waits, "await asyncio.Event().wait()"),
    ],
)
def test_no_other_is(judge, by):
    with pytest.raises(AssertionError, match="not caught by"), caught(by):
        judge()


def test_who_finds_nothing_wrong_has_caught_nothing():
    with pytest.raises(AssertionError, match="survived"), caught("assert"):
        assert Core().answer


def test_that_the_whole_test_took_too_long_is_no_evidence():
    with pytest.raises(pytest.fail.Exception, match="Timeout"), caught("pytest.fail"):
        pytest.fail("Timeout (>120.0s) from pytest-timeout.")


def test_a_judge_that_is_skipped_skips_the_bug_too():
    with pytest.raises(pytest.skip.Exception), caught("assert"):
        is_skipped()


def test_the_innermost_statement_is_the_last():
    with pytest.raises(AssertionError) as raised:
        uses_a_kit()
    assert evidence(raised.value)[-2:] == ["a_kit_that_insists(0)", "assert value"]
