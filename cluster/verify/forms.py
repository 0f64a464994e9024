"""What each model is asked, and what it answers: the forms by which a history is known.

A model is stepped through, or added up, only after every operation of the history has been found
to be of its form. So a history of something else is a mistake that is told with the operation
that does not fit, and is never judged by what it is not.

Some words are of several models. Then the answers tell: a counter reads a number and a set a list;
a lock gives a token, and who leases gets a map. Where even those are alike, as for queues in order
and in any order, nobody can tell, and it has to be said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from cluster.verify.history import OK, HistoryError, Operation

# Transactions on lists, which no model steps through (appends.py).
APPENDS: Final = "appends"


class NoModel(ValueError):
    """No specification knows these operations, or more than one does."""


class _Form(NamedTuple):
    """What a value has to be, and whether it is."""

    words: str
    fits: Callable[[Any], bool]


class _Call(NamedTuple):
    """An operation's argument, and the answer to it."""

    asked: _Form
    told: _Form


def _number(value: Any) -> bool:
    return type(value) in (int, float)


def _whole(value: Any) -> bool:
    return type(value) is int


def _is_map(value: Any) -> bool:
    """As history.py freezes one: a tuple of pairs, or an empty one."""
    pairs = isinstance(value, tuple)
    return pairs and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value)


def _has(value: Any, *names: str) -> bool:
    return _is_map(value) and set(names) <= {name for name, _ in value}


def _pair_of(value: Any, *fits: Callable[[Any], bool]) -> bool:
    """A list of as many as there are tests, each of which its item passes."""
    if not isinstance(value, tuple) or len(value) != len(fits):
        return False
    return all(fit(item) for fit, item in zip(fits, value, strict=True))


def _any(value: Any) -> bool:
    return True


def _truth(value: Any) -> bool:
    return type(value) is bool


ANYTHING: Final = _Form("anything", _any)
_TRUTH: Final = _Form("true or false", _truth)
_TOKEN: Final = _Form("a token, which is a number", _number)
_REVISION: Final = _Form("a revision, which is a whole number", _whole)
_AMOUNT: Final = _Form("a whole number", _whole)
_TEXT: Final = _Form("a string", lambda v: isinstance(v, str))
_LIST: Final = _Form("a list", lambda v: isinstance(v, tuple))
_SWAP: Final = _Form("[old, new]", lambda v: _pair_of(v, _any, _any))
_DONE: Final = _Form("[done or not, revision]", lambda v: _pair_of(v, _truth, _whole))
_ROWS: Final = _Form(
    "rows [revision, key, value or null]",
    lambda v: isinstance(v, tuple) and all(_pair_of(row, _whole, _any, _any) for row in v),
)


def _or_null(form: _Form) -> _Form:
    return _Form(f"{form.words}, or null", lambda v: v is None or form.fits(v))


def _map(words: str, *names: str) -> _Form:
    return _Form(words, lambda v: _has(v, *names))


_FREE: Final = _Call(ANYTHING, ANYTHING)

# Of each model, what it is asked; the first that all operations of a history fit is meant.
FORMS: Final[dict[str, dict[str, _Call]]] = {
    "register": {"read": _FREE, "write": _FREE, "cas": _Call(_SWAP, _TRUTH)},
    "kv": {
        "get": _Call(
            ANYTHING,
            _or_null(
                _Form("[value, mod, version]", lambda v: _pair_of(v, _any, _whole, _whole)),
            ),
        ),
        "put": _Call(ANYTHING, _REVISION),
        "delete": _Call(ANYTHING, _DONE),
        "cas": _Call(_SWAP, _DONE),
    },
    "strings": {
        "get": _Call(ANYTHING, _or_null(_TEXT)),
        "put": _Call(_TEXT, ANYTHING),
        "append": _Call(_TEXT, ANYTHING),
    },
    "set-full": {"add": _FREE, "read": _Call(ANYTHING, _LIST)},
    "set": {"add": _FREE, "remove": _FREE, "read": _Call(ANYTHING, _LIST)},
    "queue": {"enqueue": _FREE, "dequeue": _FREE},
    "lock": {
        "acquire": _Call(ANYTHING, _or_null(_TOKEN)),
        "release": _Call(_TOKEN, _TRUTH),
    },
    APPENDS: {"txn": _Call(_LIST, _LIST)},
    "counter": {"add": _Call(_AMOUNT, ANYTHING), "read": _Call(ANYTHING, _AMOUNT)},
    "bank": {
        "transfer": _Call(_map("a map with from, to and amount", "from", "to", "amount"), ANYTHING),
        "read": _Call(
            ANYTHING,
            _Form(
                "a map of accounts to whole numbers",
                lambda v: _is_map(v) and all(_whole(balance) for _, balance in v),
            ),
        ),
    },
    "watches": {
        "watch": _Call(_REVISION, _ROWS),
        "gap": _Call(ANYTHING, _REVISION),
        "put": _Call(ANYTHING, _REVISION),
        "commit": _Call(_Form("a map of keys to values", _is_map), _REVISION),
        "delete": _Call(ANYTHING, _DONE),
        "compact": _Call(_REVISION, ANYTHING),
    },
    "leases": {
        "acquire": _Call(
            ANYTHING,
            _or_null(
                _Form(
                    "a map with token and until, two numbers",
                    lambda v: (
                        _has(v, "token", "until")
                        and all(_number(dict(v)[name]) for name in ("token", "until"))
                    ),
                )
            ),
        ),
        "renew": _Call(_TOKEN, _or_null(_Form("a time", _number))),
        "work": _Call(_TOKEN, ANYTHING),
        "release": _Call(_TOKEN, ANYTHING),
    },
    "total-queue": {"enqueue": _FREE, "dequeue": _FREE, "drain": _Call(ANYTHING, _LIST)},
    "at-most-once": {"request": _FREE, "executed": _FREE},
    "ids": {"generate": _FREE},
}

# Models between which no answer decides, if nothing is asked that only one of them knows.
_ALIKE: Final = (("queue", "total-queue"), ("lock", "leases"))


def model_of(history: Sequence[Operation]) -> str:
    """The name of what knows these operations, a key of FORMS; raises NoModel or HistoryError."""
    asked = {operation.f for operation in history}
    knowing = [name for name, known in FORMS.items() if asked <= set(known)]
    if not knowing:
        raise NoModel(
            f"no model knows {', '.join(sorted(map(str, asked)))}; there are "
            + "; ".join(f"{name}: {', '.join(sorted(known))}" for name, known in FORMS.items())
        )
    fitting = [name for name in knowing if _misfit(history, name) is None]
    if not fitting:
        raise HistoryError(_misfit(history, knowing[0]))
    for alike in _ALIKE:
        if set(alike) <= set(fitting):
            raise NoModel(
                f"{' and '.join(alike)} both know {', '.join(sorted(asked))}, and promise different"
                f" things; say which with --model {' or --model '.join(alike)}"
            )
    return fitting[0]


def check_forms(history: Sequence[Operation], model: str) -> None:
    """Raises HistoryError, with the first operation that is none of the model's."""
    told = _misfit(history, model)
    if told is not None:
        raise HistoryError(told)


def _misfit(history: Sequence[Operation], model: str) -> str | None:
    known = FORMS[model]
    for op in history:
        call = known.get(op.f)
        if call is None:
            return f"{op!r}: {model} knows {', '.join(sorted(known))}, and no {op.f}"
        if not call.asked.fits(op.value):
            return f"{op!r}: {op.f} of {model} is asked with {call.asked.words}"
        if op.outcome == OK and not call.told.fits(op.result):
            return f"{op!r}: {op.f} of {model} is answered with {call.told.words}"
    return None
