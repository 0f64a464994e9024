"""What a judge fell over: a planted bug counts as caught by the statement that it names, only.

A judge is a test that passes elsewhere. That it fails is not enough: a broken part shows many
things, and a judge that never came to what it claims to see, since something before it broke or
took for ever, has not been seen to work. So every bug names the statement that must fail, by how
it begins:

    assert town.server.service.seen == {"ran": 10}      an assertion that does not hold
    with pytest.raises(Overloaded)                      an error that does not come, or says else
    ConnectTimeout: peer = await caller.connect(        an error that comes where none must
    AssertionError: node.check()                        an invariant of the part's own

Any statement counts that was under way in a test or its kit when the error came up, so that a bug
can name the line of its test as well as the line of the kit that the test calls.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pytest

TESTS = Path(__file__).resolve().parents[1]


@contextlib.contextmanager
def caught(by: str) -> Iterator[None]:
    """What is done here must fail, at a statement that begins so."""
    try:
        yield
    except (Exception, BaseExceptionGroup, pytest.fail.Exception) as error:
        if _ran_out_of_time(error):
            raise
        told = evidence(error)
        if not any(statement.startswith(by) for statement in told):
            raise AssertionError(f"not caught by `{by}`, but by `{told[-1:]}`") from error
    else:
        raise AssertionError(f"survived: `{by}` found nothing wrong")


def evidence(error: BaseException) -> list[str]:
    """The statements of tests that were under way, the innermost last; before each the name of the
    error, unless a test raised it to say that something is wrong."""
    ours = isinstance(error, AssertionError | pytest.fail.Exception) and _raised_by_a_test(error)
    name = "" if ours else f"{type(error).__name__}: "
    return [name + statement for statement in _under_way(error)]


def _under_way(error: BaseException) -> list[str]:
    found = [
        _statement(Path(file), line) for file, line in _places(error.__traceback__) if _a_test(file)
    ]
    # A time limit cancels what waits: where that was is in the cancellation.
    before = error.__cause__ or error.__context__
    if isinstance(error, TimeoutError) and isinstance(before, asyncio.CancelledError):
        found += _under_way(before)
    return found


def _places(traceback: TracebackType | None) -> Iterator[tuple[str, int]]:
    while traceback is not None:
        yield traceback.tb_frame.f_code.co_filename, traceback.tb_lineno
        traceback = traceback.tb_next


def _a_test(file: str) -> bool:
    return Path(file).is_relative_to(TESTS)


def _raised_by_a_test(error: BaseException) -> bool:
    """By an `assert` in one, or by pytest for one."""
    *_, (file, _) = _places(error.__traceback__)
    return _a_test(file) or "_pytest" in Path(file).parts


def _ran_out_of_time(error: BaseException) -> bool:
    """Of the whole test: that says nothing."""
    return isinstance(error, pytest.fail.Exception) and str(error).startswith("Timeout (>")


@functools.cache
def _headers(file: Path) -> tuple[list[str], list[tuple[int, int]]]:
    """The lines of a file, and the first and last of each statement; of one with a body, of what
    stands before that."""
    text = file.read_text()
    spans = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno
            spans.append((node.lineno, last or node.lineno))
    return text.splitlines(), spans


def _statement(file: Path, line: int) -> str:
    """In one line."""
    lines, spans = _headers(file)
    around = [span for span in spans if span[0] <= line <= span[1]]
    first, last = min(around, key=lambda span: span[1] - span[0], default=(line, line))
    return " ".join(" ".join(lines[first - 1 : last]).split())
