"""The folder that a job fills: parts that appear whole, and a mark when all are there.

    output/_temporary/ATTEMPT    what attempts write; each its own file
    output/part-00000            renamed there when its attempt is committed, atomically
    output/_report.json          counters, skipped records, failures
    output/_SUCCESS              the job is finished, and nothing here will change any more

Of several attempts at one part exactly one is renamed: the master decides which, and does it, so
renaming again after a restart changes nothing. An object store renames by copying, which is not
atomic; readers there wait for _SUCCESS.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any, Final

import fsspec

from mapreduce.attempt import TEMPORARY
from mapreduce.errors import BadJob
from mapreduce.ring_urls import options_of_output
from netstack.runtime.config import ConfigError

SUCCESS: Final = "_SUCCESS"
REPORT: Final = "_report.json"


class Output:
    """One job's output; raises BadJob if its file system cannot be had. All calls block."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            self._fs, self._path = fsspec.core.url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            raise BadJob(f"the output {self.url} cannot be reached: {error}") from None

    def __repr__(self) -> str:
        return f"<Output {self.url}>"

    def check(self) -> None:
        """Raises BadJob if there is something already: a job does not mix with another's output."""
        try:
            if self._fs.exists(self._path) and self._fs.ls(self._path):
                raise BadJob(f"the output {self.url} exists; remove it, or name another folder")
        except (OSError, ValueError, ConfigError) as error:
            raise BadJob(f"the output {self.url} cannot be used: {error}") from None

    def begin(self) -> None:
        """Make the folder; raises BadJob."""
        self.check()
        try:
            self._fs.makedirs(f"{self._path}/{TEMPORARY}", exist_ok=True)
        except (OSError, ConfigError) as error:
            raise BadJob(f"the output {self.url} cannot be made: {error}") from None

    def temporary(self, attempt: str) -> str:
        """Where an attempt writes."""
        return f"{self.url}/{TEMPORARY}/{attempt}"

    def commit(self, temporary: str, name: str) -> bool:
        """Let what an attempt wrote be the part `name`; False if it is not there any more.

        True, too, if it has been committed before.
        """
        _, source = fsspec.core.url_to_fs(temporary)
        target = f"{self._path}/{name}"
        if self._fs.exists(source):
            # Of a local file system this is rename(2); an earlier copy of the same bytes goes.
            if self._fs.exists(target):
                self._fs.rm_file(target)
            self._fs.mv(source, target)
            return True
        return bool(self._fs.exists(target))

    def finish(self, report: dict[str, Any]) -> None:
        """Write the report and the mark, and clear away what losing attempts left."""
        options = options_of_output(self.url)
        self._fs.pipe_file(
            f"{self._path}/{REPORT}", json.dumps(report, indent=1).encode(), **options
        )
        self.abandon()
        self._fs.pipe_file(f"{self._path}/{SUCCESS}", b"", **options)

    def abandon(self) -> None:
        """Clear away what attempts left; parts stay."""
        with contextlib.suppress(OSError):
            self._fs.rm(f"{self._path}/{TEMPORARY}", recursive=True)

    @property
    def finished(self) -> bool:
        """Whether the mark is there."""
        return bool(self._fs.exists(f"{self._path}/{SUCCESS}"))
