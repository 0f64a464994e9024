"""Distributed grep: the lines that match a pattern, each behind its file.

    ring mr run grep logs/ found --arg pattern='error|timeout'

Map alone: there is nothing to reduce. The pattern is searched in pieces of many lines, so that a
piece without a match costs one call.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from mapreduce.context import Task
from mapreduce.errors import BadJob

DEFAULTS: dict[str, Any] = {"reduces": 0}


def map_chunks(chunks: Iterator[bytes], task: Task) -> Iterator[tuple[bytes, bytes]]:
    """(file, line) of each line that matches."""
    if "pattern" not in task.args:
        raise BadJob("grep needs a pattern: --arg pattern='error|timeout'")
    try:
        pattern = re.compile(str(task.args["pattern"]).encode(), re.MULTILINE)
    except re.error as error:
        raise BadJob(f"the pattern {task.args['pattern']!r} is none: {error}") from None
    name = task.input.encode()
    for chunk in chunks:
        end = 0
        for match in pattern.finditer(chunk):
            if match.start() < end:
                continue  # on a line that was found already
            start = chunk.rfind(b"\n", 0, match.start()) + 1
            end = chunk.find(b"\n", match.start())
            end = len(chunk) if end < 0 else end
            if start < len(chunk):
                yield name, chunk[start:end]
                task.count("grep", "lines")
            end += 1
