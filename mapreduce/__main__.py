"""`python -m mapreduce master|worker --node NAME --config FILE`: one daemon in the foreground.

And `nursery`, which workers start for themselves (child.py); `steps FILE ARGUMENTS…`, which prints
what an MRJob asks for.
"""

from __future__ import annotations

import sys


def main(arguments: list[str]) -> None:
    """Run what the first word says."""
    word, *rest = arguments or [""]
    if word == "nursery":
        from mapreduce.child import nursery

        nursery(int(rest[0]), int(rest[1]))
    if word == "steps":
        from mapreduce.errors import BadJob
        from mapreduce.mrjob_program import describe

        try:
            print(describe(rest[0], rest[1:]))
        except BadJob as error:
            sys.exit(str(error))
        return
    from netstack.runtime import daemon

    if word == "master":
        from mapreduce.master import MasterService
        from mapreduce.messages import MASTER_SERVICE

        daemon.main(MASTER_SERVICE, MasterService, rest)
    if word == "worker":
        from mapreduce.messages import WORKER_SERVICE
        from mapreduce.worker import WorkerService

        daemon.main(WORKER_SERVICE, WorkerService, rest)
    print("python -m mapreduce: say master or worker", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
