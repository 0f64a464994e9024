"""Serves compiled twins of modules, while their sources are as they were when they were compiled.

`make fast` puts this file into the virtual environment as `ringleader_compiled`, with a line that
imports it whenever Python starts there, and the twins into `compiled/`. If one source of them has
changed, or RING_PURE is set to anything but 0, nothing is served and Python reads the sources as
ever: all or nothing, for twins of different days do not fit together.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location

HOME = os.path.join(sys.prefix, "compiled")


class Finder:
    """For `sys.meta_path`. `manifest`: root, modules (name to file), sources (path to digest)."""

    def __init__(self, manifest: dict) -> None:
        self._root = manifest["root"]
        self._modules = manifest["modules"]
        self._sources = manifest["sources"]
        self._serves: bool | None = None

    def find_spec(self, name, path=None, target=None) -> ModuleSpec | None:
        file = self._modules.get(name)
        if file is None:
            return None
        if path is not None and self._folder(name) not in path:
            return None  # of another checkout
        if self._serves is None:
            self._serves = wanted() and all(map(self._unchanged, self._sources))
        return spec_from_file_location(name, os.path.join(HOME, file)) if self._serves else None

    def _folder(self, name: str) -> str:
        return os.path.join(self._root, *name.split(".")[:-1])

    def _unchanged(self, source: str) -> bool:
        try:
            return digest(os.path.join(self._root, source)) == self._sources[source]
        except OSError:
            return False


def wanted() -> bool:
    """Whether the environment lets twins be served."""
    return os.environ.get("RING_PURE", "0") in ("", "0")


def digest(path: str) -> str:
    """Of a file's content."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def install() -> None:
    """Called when Python starts; never fails it."""
    try:
        with open(os.path.join(HOME, "manifest.json"), encoding="utf-8") as file:
            sys.meta_path.insert(0, Finder(json.load(file)))
    except (OSError, ValueError, KeyError):
        pass


if __name__ == "ringleader_compiled":
    install()
