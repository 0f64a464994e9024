"""Clicks a site a day, from the logs of web servers (lecture chapter 23).

    ring mr run loganalysis access-*.log clicks

Reads lines in the combined log format of Apache and nginx, with the site in front, as a log of many
sites has it:

    www.example.org 192.0.2.7 - - [30/Nov/2026:11:20:01 +0000] "GET /index.html HTTP/1.1" 200 512

The output is a line a site and day: `www.example.org 2026-11-30 TAB clicks`. Lines that are no
clicks (another status than 2xx or 3xx) and lines that make no sense are counted apart.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from mapreduce.context import Task

LINE = re.compile(rb'(\S+) \S+ \S+ \S+ \[(\d\d)/(\w\w\w)/(\d{4}):[^\]]*\] "[^"]*" (\d)\d\d\b')
MONTHS = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
MONTH = {name: b"%02d" % number for number, name in enumerate(MONTHS, 1)}

combine = sum
reduce = sum


def map_chunks(chunks: Iterator[bytes], task: Task) -> dict[bytes, int]:
    """Clicks of each site and day in this split."""
    clicks: Counter[tuple[bytes, bytes, bytes, bytes]] = Counter()
    lines = others = 0
    for chunk in chunks:
        found = LINE.findall(chunk)
        lines += chunk.count(b"\n") + (not chunk.endswith(b"\n"))
        others += len(found)
        clicks.update((s, y, m, d) for s, d, m, y, status in found if status in b"23")
    task.count("log", "lines that make no sense", lines - others)
    task.count("log", "requests that are no clicks", others - clicks.total())
    return {
        b"%b %b-%b-%b" % (site, year, MONTH.get(month, month), day): count
        for (site, year, month, day), count in clicks.items()
    }
