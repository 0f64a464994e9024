"""The same job on an engine that is there already: Dask, Ray or Spark.

    run_on("dask", prepare(job))

A map task there is a map task here, over the same splits, and leaves the same runs; the engine only
decides where and when. So the output is the same, byte for byte. Runs travel as bytes in results,
not as files: the engines' workers may be anywhere. Counters travel with the task's result and not
by an accumulator, which a retry would count twice. What a record does is judged in the task, by the
job's policy; a task whose process dies is the engine's to retry.

The engines are extras, imported when asked for: `pip install ringleader[dask]` and so on. What a
person has configured for them (a cluster's address, say) holds; without, they run here.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from mapreduce.attempt import part_name
from mapreduce.errors import BadJob, JobFailed, MapReduceError
from mapreduce.local import Outcome, add_counters, loaded, run_task
from mapreduce.messages import MAP, REDUCE, JobSpec, Mission, Result, Start
from mapreduce.output import Output
from netstack.rpc.schema import decode, encode

# And the modules that must be there.
ENGINES: Final = {"dask": "dask", "ray": "ray", "spark": "pyspark"}

# What one task has come to: its Result, what failed before it, and of a map the bytes of its runs,
# for each part.
TaskDone = tuple[dict[str, Any], list[dict[str, Any]], list[bytes]]
RunAll = Callable[[Callable[..., TaskDone], Sequence[tuple[Any, ...]]], list[TaskDone]]


def check_engine(engine: str) -> None:
    """Before anything of a job is made; raises BadJob."""
    if engine not in ENGINES:
        raise BadJob(f"there is no engine {engine!r}; there are: {', '.join(ENGINES)}")
    if find_spec(ENGINES[engine]) is None:
        raise BadJob(f"{engine} is not installed: pip install ringleader[{engine}]")


def run_on(engine: str, spec: JobSpec) -> Outcome:
    """Run a prepared job on an engine that is there; raises JobFailed."""
    runners = {"dask": _dask, "ray": _ray, "spark": _spark}
    try:
        return runners[engine](spec)
    except MapReduceError:
        raise
    except Exception as error:  # each engine has its own, and some wrap ours in theirs
        text = str(error)
        found = re.findall(rf"{JobFailed.__name__}: (.*)", text) or [
            f"{type(error).__name__}: {text}"
        ]
        raise JobFailed(f"{engine}: {found[0].splitlines()[0][:500]}") from error


def map_task(wire: dict[str, Any], index: int) -> TaskDone:
    """One map, wherever it is."""
    spec = decode(JobSpec, wire)
    start = Start(f"engine-{time.time_ns()}", "engine", MAP, index, spec.splits[index])
    with tempfile.TemporaryDirectory(prefix="ring-mr-") as folder:
        is_part = not spec.job.reduces
        result, failures = _run(spec, start, folder, "" if is_part else f"{folder}/out", [])
        parts = []
        if not is_part:
            data = Path(result.path).read_bytes()
            parts = [b"".join(data[o : o + n] for o, n, _ in runs) for runs in result.runs]
    return encode(result), failures, parts


def reduce_task(wire: dict[str, Any], index: int, parts: Sequence[tuple[Any, bytes]]) -> TaskDone:
    """One reduce over what the maps made for it: (the runs of each map, their bytes)."""
    spec = decode(JobSpec, wire)
    start = Start(f"engine-{time.time_ns()}", "engine", REDUCE, index, maps=len(parts))
    with tempfile.TemporaryDirectory(prefix="ring-mr-") as folder:
        runs: list[list[Any]] = []
        for source, (lengths, data) in enumerate(parts):
            path = Path(folder) / f"source-{source}"
            path.write_bytes(data)
            position = 0
            for _, length, count in lengths:
                runs.append([str(path), position, length, count, source])
                position += length
        result, failures = _run(spec, start, folder, "", runs)
        return encode(result), failures, []


def _run(
    spec: JobSpec, first: Start, folder: str, out: str, runs: list[list[Any]]
) -> tuple[Result, list[dict[str, Any]]]:
    """Attempts until one ends well, or the job's policy gives up; `out` empty: to its output."""
    output = Output(spec.job.output)

    def mission(start: Start) -> Mission:
        where = out or output.temporary(start.attempt)
        return Mission(start, spec.job, spec.cuts, f"{folder}/{start.attempt}", where, runs)

    return run_task(first, mission, loaded(spec.job, Path(folder)))


def _in_two_stages(spec: JobSpec, run_all: RunAll) -> Outcome:
    """All maps, then all reduces; the parts renamed as each is there."""
    began = time.monotonic()
    output = Output(spec.job.output)
    wire, lean = encode(spec), encode(replace(spec, splits=[]))
    outcome = Outcome("engine", spec.job.output)
    try:
        maps = run_all(map_task, [(wire, i) for i in range(len(spec.splits))])
        found = [decode(Result, result) for result, _, _ in maps]
        pieces = [
            (lean, i, [(m.runs[i], parts[i]) for m, (_, _, parts) in zip(found, maps, strict=True)])
            for i in range(spec.job.reduces)
        ]
        reduces = run_all(reduce_task, pieces)
        found += [decode(Result, result) for result, _, _ in reduces]
        for result in found:
            if result.kind == REDUCE or not spec.job.reduces:
                output.commit(result.path, part_name(result.index))
    except BaseException:
        output.abandon()
        raise
    for result, (_, failures, _) in zip(found, (*maps, *reduces), strict=True):
        add_counters(outcome.counters, result.counters)
        outcome.skipped += [[result.kind, result.index, *entry] for entry in result.skipped]
        outcome.failures += failures
    outcome.seconds = time.monotonic() - began
    outcome.tasks = {MAP: len(maps), REDUCE: len(reduces)}
    output.finish(outcome.report())
    return outcome


def _dask(spec: JobSpec) -> Outcome:
    """Delayed calls, on the client's cluster where there is one, else on processes here."""
    import dask

    def run_all(function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        tasks = [dask.delayed(function, pure=False)(*call) for call in calls]
        return list(dask.compute(*tasks, **_scheduler()))

    def _scheduler() -> dict[str, Any]:
        try:
            from distributed import default_client

            default_client()
        except (ImportError, ValueError):
            return {"scheduler": "processes"}
        return {}

    return _in_two_stages(spec, run_all)


def _ray(spec: JobSpec) -> Outcome:
    """Remote functions; retried on another worker when theirs dies."""
    import ray

    if not ray.is_initialized():
        ray.init(log_to_driver=False)

    def run_all(function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        remote = ray.remote(function)
        return list(ray.get([remote.remote(*call) for call in calls]))

    return _in_two_stages(spec, run_all)


def _spark(spec: JobSpec) -> Outcome:
    """One partition a task. The session of whoever calls, or one here."""
    from pyspark.sql import SparkSession

    session = SparkSession.getActiveSession()
    own = session is None
    if session is None:
        # Its Python workers are to be what this is, not whatever `python3` is found first.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        here = str(Path(__file__).parents[1])
        paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, *paths]))
        builder = SparkSession.builder.master("local[2]").appName(spec.job.title)
        session = builder.config("spark.ui.enabled", "false").getOrCreate()
    context = session.sparkContext

    def run_all(function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        if not calls:
            return []
        spread = context.parallelize(list(enumerate(calls)), len(calls))
        done = spread.map(lambda numbered: (numbered[0], function(*numbered[1]))).collect()
        return [result for _, result in sorted(done, key=lambda pair: pair[0])]

    try:
        return _in_two_stages(spec, run_all)
    finally:
        if own:
            session.stop()
