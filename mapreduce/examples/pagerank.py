"""PageRank by iteration: one job a round, each reading what the last has written.

    python -m mapreduce.examples.pagerank links.txt ranks --rounds 10

Input lines are `page TAB page page …`: a page and those that it links to. A round's lines are
`page TAB rank TAB links`. Every page passes its rank on to those it links to; a page keeps 15 % as
its own, and gets 85 % of what comes in (Brin and Page, 1998). What pages without links would pass
on is lost, as in the paper's simple form, so the sum of all falls below one a page.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

DAMPING = 0.85
ROUNDS = 10

Message = list[Any]
"""["links", text] hands the page's links on, ["rank", share] a share of another's rank."""


def map(line: bytes) -> Iterator[tuple[bytes, Message]]:
    """The page's links to itself, and a share of its rank to each of them."""
    page, _, rest = line.partition(b"\t")
    first, tab, second = rest.partition(b"\t")
    rank, links = (float(first), second) if tab else (1.0, first)
    yield page, ["links", links]
    targets = links.split()
    for target in targets:
        yield target, ["rank", rank / len(targets)]


def reduce(key: bytes, values: Iterable[Message]) -> Iterator[tuple[bytes, bytes]]:
    """The page's new rank, in front of its links."""
    links, incoming = b"", 0.0
    for kind, what in values:
        if kind == "links":
            links = what
        else:
            incoming += what
    rank = 1 - DAMPING + DAMPING * incoming
    yield key, b"%b\t%b" % (repr(rank).encode(), links)


def main(arguments: list[str]) -> None:
    """Run all rounds on the cluster; the last one's output is the answer."""
    import argparse

    from mapreduce.client import run_sync
    from mapreduce.job import Job

    parser = argparse.ArgumentParser(prog="pagerank", description=__doc__.splitlines()[0])
    parser.add_argument("input")
    parser.add_argument("output")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--local", action="store_true", help="in this process")
    options = parser.parse_args(arguments)
    read = options.input
    for number in range(1, options.rounds + 1):
        write = options.output if number == options.rounds else f"{options.output}.{number}"
        job = Job(program=__spec__.name if __spec__ else __name__, inputs=[read], output=write)
        run_sync(job, local=options.local)
        read = f"{write}/part-*"


if __name__ == "__main__":
    main(sys.argv[1:])
