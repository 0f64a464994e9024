"""Where an attempt runs: a folder of its own with the job's files in it, and an environment."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mapreduce.context import Task
from mapreduce.job import Job, file_and_name
from mapreduce.messages import Mission

# Of a process all threads have one working folder and one environment.
_alone = threading.RLock()


def environment(job: Job, task: Task) -> dict[str, str]:
    """What the job's code finds in its environment, commands and MRJob classes alike."""
    properties = {
        "mapreduce.job.name": job.title,
        "mapreduce.job.reduces": str(job.reduces),
        "mapreduce.task.partition": str(task.index),
        "mapreduce.task.ismap": str(task.kind == "map").lower(),
        "mapreduce.map.input.file": task.input,
        "mapreduce.output.fileoutputformat.outputdir": job.output,
        **job.properties,
    }
    named = {re.sub(r"[^A-Za-z0-9]", "_", name): value for name, value in properties.items()}
    return {**named, **job.environment}


def furnish(mission: Mission) -> None:
    """Make the folder, link the files, go there; say who one is. For a process that ends after."""
    folder = Path(mission.folder)
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    for path in mission.job.files:
        file, name = file_and_name(path)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(file)
    names = {
        "mapreduce_task_attempt_id": mission.start.attempt,
        "mapreduce_job_id": mission.start.job_id,
    }
    os.environ.update({**names, **mission.job.environment})


@contextmanager
def furnished(mission: Mission) -> Iterator[None]:
    """The same in a process that has a life after it: all is put back as it was."""
    with _alone:
        before, variables, found_by = os.getcwd(), dict(os.environ), list(sys.path)
        # An empty entry means the working folder; what was found there still is.
        sys.path[:] = [entry or before for entry in found_by]
        try:
            furnish(mission)
            yield
        finally:
            os.chdir(before)
            sys.path[: len(found_by)] = found_by
            os.environ.clear()
            os.environ.update(variables)
