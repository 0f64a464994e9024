"""The same job on an engine that is there already: Dask, Ray or Spark.

    run_on("dask", prepare(job))

A map task there is a map task here, over the same splits, and leaves the same runs; the engine only
decides where and when. So the output is the same, byte for byte. Runs travel as bytes in results,
not as files: the engines' workers may be anywhere. Counters travel with the task's result and not
by an accumulator, which a retry would count twice. A task that fails is the engine's to retry.

The engines are extras, imported when asked for: `pip install ringleader[dask]` and so on. What a
person has configured for them (a cluster's address, say) holds; without, they run here.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from mapreduce.attempt import part_name, run_attempt
from mapreduce.errors import BadJob, JobFailed
from mapreduce.folder import furnished
from mapreduce.local import Outcome, add_counters, failure_as_json
from mapreduce.messages import MAP, REDUCE, JobSpec, Mission, Result, Start
from mapreduce.output import Output
from mapreduce.programs import load
from netstack.rpc.schema import decode, encode

# And the modules that must be there.
ENGINES: Final = {"dask": "dask", "ray": "ray", "spark": "pyspark"}

# One map's result: what it says of itself, and for each part the bytes of its runs.
MapDone = tuple[dict[str, Any], list[bytes]]
RunAll = Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], list[Any]]


def check_engine(engine: str) -> None:
    """Before anything of a job is made; raises BadJob."""
    if engine not in ENGINES:
        raise BadJob(f"there is no engine {engine!r}; there are: {', '.join(ENGINES)}")
    if find_spec(ENGINES[engine]) is None:
        raise BadJob(f"{engine} is not installed: pip install ringleader[{engine}]")


def run_on(engine: str, spec: JobSpec) -> Outcome:
    """Run a prepared job on an engine that is there; raises JobFailed."""
    runners = {"dask": _dask, "ray": _ray, "spark": _spark}
    return runners[engine](spec)


def map_task(wire: dict[str, Any], index: int) -> MapDone:
    """One map, wherever it is: its Result, and the runs of each part as bytes."""
    spec = decode(JobSpec, wire)
    attempt = f"engine-map-{index}-{time.time_ns()}"
    start = Start(attempt, "engine", MAP, index, spec.splits[index])
    with tempfile.TemporaryDirectory(prefix="ring-mr-") as folder:
        is_part = not spec.job.reduces
        out = Output(spec.job.output).temporary(attempt) if is_part else f"{folder}/out"
        result = _run(Mission(start, spec.job, spec.cuts, folder, out))
        parts = []
        if not is_part:
            data = Path(out).read_bytes()
            parts = [b"".join(data[o : o + n] for o, n, _ in runs) for runs in result.runs]
    return encode(result), parts


def reduce_task(wire: dict[str, Any], index: int, parts: Sequence[tuple[Any, bytes]]) -> Any:
    """One reduce over what the maps made for it: (the runs of each map, their bytes)."""
    spec = decode(JobSpec, wire)
    attempt = f"engine-reduce-{index}-{time.time_ns()}"
    start = Start(attempt, "engine", REDUCE, index, maps=len(parts))
    with tempfile.TemporaryDirectory(prefix="ring-mr-") as folder:
        runs: list[list[Any]] = []
        for source, (lengths, data) in enumerate(parts):
            path = Path(folder) / f"source-{source}"
            path.write_bytes(data)
            position = 0
            for _, length, count in lengths:
                runs.append([str(path), position, length, count, source])
                position += length
        out = Output(spec.job.output).temporary(attempt)
        return encode(_run(Mission(start, spec.job, spec.cuts, folder, out, runs)))


def _run(mission: Mission) -> Result:
    with furnished(mission):
        result = run_attempt(mission, load(mission.job))
    if result.failure is not None:
        raise JobFailed(result.failure.message, [failure_as_json(result.failure)])
    return result


def _in_two_stages(spec: JobSpec, run_all: RunAll) -> Outcome:
    """All maps, then all reduces; the parts renamed as each is there."""
    began = time.monotonic()
    output = Output(spec.job.output)
    wire, lean = encode(spec), encode(replace(spec, splits=[]))
    outcome = Outcome("engine", spec.job.output)
    try:
        done: list[MapDone] = run_all(map_task, [(wire, i) for i in range(len(spec.splits))])
        maps = [decode(Result, result) for result, _ in done]
        pieces = [
            (lean, i, [(m.runs[i], parts[i]) for m, (_, parts) in zip(maps, done, strict=True)])
            for i in range(spec.job.reduces)
        ]
        reduces = [decode(Result, result) for result in run_all(reduce_task, pieces)]
        for result in reduces if spec.job.reduces else maps:
            output.commit(result.path, part_name(result.index))
    except BaseException:
        output.abandon()
        raise
    for result in (*maps, *reduces):
        add_counters(outcome.counters, result.counters)
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
