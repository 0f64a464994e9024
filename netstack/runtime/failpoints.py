"""Named lines of the code at which a node can be made to die, stumble or hesitate.

    self._file.write_at(offset, record)
    failpoint("wal.append.before-sync")         # free while nothing is armed: one look at a dict
    self._file.sync()

kill -9 from outside falls where most of the time is spent, which is waiting; the interesting
moments are a few microseconds wide. A failpoint falls exactly there. Armed by the operator or the
simulation, at the k-th time that the line is reached:

    crash    the process ends at once, as if killed
    error    OSError(EIO)
    sleep    it stands still for `seconds`

Each fires once. Which points there are is read from the source (`catalogue`), so that the list
cannot be wrong. The idea is that of etcd's gofail.
"""

from __future__ import annotations

import errno
import importlib.util
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ACTIONS: Final = ("crash", "error", "sleep")

_CALL: Final = re.compile(r"""\bfailpoint\(\s*"([a-z0-9.-]+)"\s*\)""")


class Died(BaseException):
    """Unwinds what a simulated process was doing when it died; nobody may catch it."""


@dataclass(slots=True)
class _Armed:
    action: str
    after: int  # the how manieth time from now
    seconds: float


class Failpoints:
    """The points of one node. `failpoints(name)` is what the code calls.

    Args:
        die: ends the process, and does not return.
        pause: spends seconds.
    """

    __slots__ = ("_armed", "_die", "_pause", "fired")

    def __init__(self, die: Callable[[], None], pause: Callable[[float], None]) -> None:
        self._die = die
        self._pause = pause
        self._armed: dict[str, _Armed] = {}
        self.fired: list[str] = []

    def __repr__(self) -> str:
        return f"<Failpoints armed={sorted(self._armed)} fired={self.fired}>"

    def __call__(self, name: str) -> None:
        """The code has come to the point `name`."""
        if self._armed:
            self._reached(name)

    def _reached(self, name: str) -> None:
        armed = self._armed.get(name)
        if armed is None:
            return
        armed.after -= 1
        if armed.after:
            return
        del self._armed[name]
        self.fired.append(name)
        if armed.action == "crash":
            self._die()
        elif armed.action == "sleep":
            self._pause(armed.seconds)
        else:
            raise OSError(errno.EIO, f"{os.strerror(errno.EIO)} (failpoint {name})")

    def apply(self, values: dict[str, Any]) -> None:
        """Arm points, as `checked` has them; None disarms."""
        for name, armed in checked(values).items():
            if armed is None:
                self._armed.pop(name, None)
            else:
                self._armed[name] = armed

    def clear(self) -> None:
        """Nothing is armed."""
        self._armed.clear()

    def describe(self) -> dict[str, Any]:
        """What is armed, by name."""
        return {
            name: {"action": armed.action, "after": armed.after}
            for name, armed in sorted(self._armed.items())
        }


def checked(values: dict[str, Any]) -> dict[str, _Armed | None]:
    """{"name": {"action": "crash", "after": 1, "seconds": 0.1} or None}; raises ValueError."""
    found: dict[str, _Armed | None] = {}
    for name, wanted in values.items():
        if wanted is None:
            found[name] = None
            continue
        if not isinstance(wanted, dict) or set(wanted) - {"action", "after", "seconds"}:
            raise ValueError(f"points.{name} is a map of action, after and seconds, not {wanted!r}")
        action, after = wanted.get("action", "crash"), wanted.get("after", 1)
        seconds = wanted.get("seconds", 0.1)
        if action not in ACTIONS:
            raise ValueError(f"points.{name}: action is {', '.join(ACTIONS)}, not {action!r}")
        if type(after) is not int or after < 1:
            raise ValueError(f"points.{name}: after is 1 or more, not {after!r}")
        if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
            raise ValueError(f"points.{name}: seconds is 0 or more, not {seconds!r}")
        found[name] = _Armed(action, after, float(seconds))
    return found


def catalogue(package: str) -> dict[str, str]:
    """Every point in the source of `package`, and where: {"wal.append.before-sync": "wal.py:131"}.

    Raises ValueError if two lines have one name.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"there is no package {package!r}")
    found: dict[str, str] = {}
    for folder in spec.submodule_search_locations:
        for path in sorted(Path(folder).rglob("*.py")):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                for name in _CALL.findall(line):
                    if name in found:
                        raise ValueError(f"{path.name}:{number}: {name} is at {found[name]} too")
                    found[name] = f"{path.relative_to(folder)}:{number}"
    return dict(sorted(found.items()))
