"""What callers use: run a job, wait for it, see what there is.

    outcome = await mapreduce.client.run(job)             on the cluster of $RING_HOME, or `.ring`
    outcome = mapreduce.client.run_sync(job)              the same, without await
    outcome = run_sync(job, local=True)                   in this process, one task after the other
    outcome = run_sync(job, engine="dask")                on an engine that is there already
    for step in steps_of(Job.mrjob("./mr_job.py", ...)): run_sync(step)     all of an MRJob

    async with MapReduceClient.connect(config) as client:
        id = await client.submit(prepare(job))
        async for state in client.watch(id): ...

A job is planned here: its inputs looked up and split, its output folder made. Then it is the
master's, and goes on whatever happens to this process. Waiting goes on across restarts of the
master; only when none has answered for PATIENCE_S it is NotReached. A client that is not `patient`
is told of a master that is not there at once.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

from mapreduce import examples
from mapreduce.errors import (
    BadJob,
    JobCancelled,
    JobFailed,
    MapReduceError,
    MasterGone,
    NotReached,
)
from mapreduce.job import REDUCES, Job, is_file, named
from mapreduce.local import Outcome, run_local
from mapreduce.messages import MASTER_SERVICE, JobSpec
from mapreduce.output import Output
from mapreduce.programs import import_program, load
from mapreduce.ring_urls import leads_to
from mapreduce.splits import Locator, plan, sample
from mapreduce.streaming import check_properties
from netstack.rpc.caller import caller
from netstack.rpc.errors import BadRequest, Failed, Forbidden, NotListening, RpcError
from netstack.rpc.node import RpcNode
from netstack.rpc.schema import encode
from netstack.runtime.config import ClusterConfig

__all__ = [
    "BadJob",
    "Job",
    "JobCancelled",
    "JobFailed",
    "MapReduceClient",
    "MapReduceError",
    "MasterGone",
    "NotReached",
    "Outcome",
    "Watcher",
    "example_jobs",
    "job_of",
    "named",
    "prepare",
    "run",
    "run_sync",
    "steps_of",
    "with_defaults",
]

# No master that answers for so long: it is not being restarted, it is not there.
PATIENCE_S: Final = 30.0
PAUSE_S: Final = 0.1
# What is shown of an MRJob that cannot even say its steps.
STEPS_LINES: Final = 12

Watcher = Callable[[dict[str, Any]], None]
"""Is given how a job goes, each time that it has changed."""


def with_defaults(job: Job, given: Sequence[str] = ()) -> Job:
    """The job with its program's DEFAULTS, but for the fields `given`; raises BadJob."""
    if job.kind != "python":
        return job
    defaults = getattr(import_program(job), "DEFAULTS", {})
    known = {field.name for field in fields(Job)}
    for name in defaults:
        if name not in known:
            raise BadJob(f"DEFAULTS of {job.program} has {name!r}, which no job has")
    return replace(job, **{n: value for n, value in defaults.items() if n not in given})


def prepare(job: Job, locator: Locator | None = None) -> JobSpec:
    """Check a job, split its input, cut its ranges, make its output folder; raises BadJob."""
    job = job.checked()
    if job.kind == "stream":
        check_properties(job.properties)
        load(job)
    elif job.kind == "python":
        load(job)  # better here than on a worker, where nobody reads
    splits = plan(job, locator)
    cuts: list[bytes] = []
    if job.partition == "range":
        if job.kind != "python":
            raise BadJob("ranges are for jobs of Python functions; others partition by hash")
        cuts = sample(job, splits, load(job).sample_key)
    Output(job.output).begin()
    return JobSpec(job, splits, cuts)


def steps_of(job: Job) -> list[Job]:
    """The jobs that an MRJob is made of, a step each, which reads what the one before has written.

    What the class wants is asked in a process of its own; raises BadJob. The last writes where the
    job says, those before it beside that: `out.step0`. Any other job is its own only step.
    """
    if job.kind != "mrjob":
        return [job]
    job = job.checked()
    command = [sys.executable, "-m", "mapreduce", "steps", job.program]
    done = subprocess.run(
        [*command, *job.args["arguments"]], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BadJob("\n".join(done.stderr.splitlines()[-STEPS_LINES:]))
    said = json.loads(done.stdout.splitlines()[-1])
    base = replace(
        job,
        args={"arguments": said["arguments"]},
        files=[*job.files, *said["files"]],
    )
    found: list[Job] = []
    inputs = job.inputs
    for step, wants in enumerate(said["steps"]):
        last = step == len(said["steps"]) - 1
        output = job.output if last else f"{job.output}.step{step}"
        check_properties(wants["properties"], honoured=())
        found.append(
            replace(
                base,
                inputs=inputs,
                output=output,
                args={**base.args, "step": step},
                whole_files=wants["raw"],
                properties={**wants["properties"], **job.properties},
                reduces=_reduces(job, wants["properties"]),
            )
        )
        inputs = [f"{output}/part-*"]
    return found


def _reduces(job: Job, properties: dict[str, str]) -> int:
    """How many the job says; where it says nothing, how many the class does."""
    if job.reduces != REDUCES:
        return job.reduces
    for name in ("mapreduce.job.reduces", "mapred.reduce.tasks"):
        if properties.get(name, "").isdecimal():
            return int(properties[name])
    return job.reduces


def job_of(program: str, inputs: Sequence[str], output: str, given: dict[str, Any]) -> Job:
    """The job that a person named: an example, a module, a file, an MRJob; raises BadJob."""
    fields_ = {"inputs": list(inputs), "output": output, **given}
    if is_file(program):
        try:
            text = Path(program).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadJob(f"the program {program} cannot be read: {error}") from None
        if "MRJob" in text:
            options = _as_options(fields_.pop("args", {}))
            return Job.mrjob(program, arguments=options, **fields_)
    elif program in dict(example_jobs()):
        program = f"{examples.__name__}.{program}"
    return with_defaults(Job(program=program, **fields_).checked(), list(given))


def _as_options(args: dict[str, Any]) -> list[str]:
    """Arguments as a command line has them: a list is an option several times, True one alone."""
    found: list[str] = []
    for name, value in args.items():
        for one in value if isinstance(value, list) else [value]:
            found += [f"--{name}"] if one is True else [f"--{name}", str(one)]
    return found


def example_jobs() -> list[tuple[str, str]]:
    """(name, what it does) of the jobs that come with it."""
    found = []
    for module in examples.MODULES:
        name = module.rpartition(".")[2]
        source = (Path(__file__).parent / "examples" / f"{name}.py").read_text(encoding="utf-8")
        found.append((name, (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]))
    return found


class MapReduceClient:
    """Calls to the master of one cluster.

    Args:
        patient: wait for a master that is not running; it may be about to be restarted.
    """

    def __init__(self, node: RpcNode, config: ClusterConfig, *, patient: bool = True) -> None:
        masters = config.of_service(MASTER_SERVICE)
        if not masters:
            raise BadJob("this cluster has no master; do: ring up mapreduce=2")
        self._node = node
        self._patient = patient
        self._master = masters[0].name
        self._client = node.client(masters[0].address, MASTER_SERVICE, masters[0].name)

    def __repr__(self) -> str:
        return f"<MapReduceClient {self._client!r}>"

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(
        cls, config: Path | str, *, identity: str = "cli", patient: bool = True
    ) -> AsyncIterator[MapReduceClient]:
        """A client of the cluster whose file is `config`; raises ConfigError or KeystoreError."""
        cluster = ClusterConfig.load(Path(config))
        async with caller(cluster, identity) as node:
            yield cls(node, cluster, patient=patient)

    async def submit(self, spec: JobSpec) -> str:
        """Hand over a prepared job; its id, once the master will remember it."""
        body = {"spec": encode(spec), "token": uuid.uuid4().hex}
        return str(await self._ask("mr.submit", body))

    async def jobs(self) -> list[dict[str, Any]]:
        """All jobs that the master knows, and how they go."""
        return list(await self._ask("mr.jobs", None))

    async def job(self, id: str) -> dict[str, Any]:
        """One job, with its counters; raises BadJob if there is none."""
        return dict(await self._ask("mr.job", id))

    async def cancel(self, id: str) -> bool:
        """End a job; False if it was over."""
        return bool(await self._ask("mr.cancel", id))

    async def watch(self, id: str) -> AsyncIterator[dict[str, Any]]:
        """How a job goes, until it is over."""
        now = self._node.runtime.clock.now
        heard_at = now()
        while True:
            try:
                async with contextlib.aclosing(
                    self._client.stream("mr.watch", id, timeout_s=5.0)
                ) as states:
                    async for state in states:
                        heard_at = now()
                        yield state
                return
            except (Failed, BadRequest, Forbidden) as error:
                if not _not_ready(error):
                    raise _as_error(error) from None
            except RpcError as error:
                if now() - heard_at > PATIENCE_S:
                    raise NotReached(f"the master is gone: {error}") from None
            await asyncio.sleep(PAUSE_S)

    async def wait(self, id: str, watcher: Watcher | None = None) -> Outcome:
        """How a job ended; raises JobFailed, JobCancelled, NotReached."""
        last: dict[str, Any] = {}
        async for state in self.watch(id):
            last = state
            if watcher is not None:
                watcher(state)
        outcome = Outcome(**last["outcome"])
        if last["state"] == "failed":
            raise JobFailed(last["error"], outcome.failures)
        if last["state"] == "cancelled":
            raise JobCancelled(f"job {id} was cancelled")
        return outcome

    async def _ask(self, method: str, body: Any) -> Any:
        """Asked again until it is answered: all that is asked may be asked twice."""
        now = self._node.runtime.clock.now
        began = now()
        while True:
            try:
                return await self._client.call(method, body, timeout_s=5.0, idempotent=True)
            except (Failed, BadRequest, Forbidden) as error:
                if not _not_ready(error):
                    raise _as_error(error) from None
            except RpcError as error:
                if isinstance(error, NotListening) and not self._patient:
                    raise MasterGone(self._master) from None
                if now() - began > PATIENCE_S:
                    raise NotReached(f"no master answers: {error}") from None
            await asyncio.sleep(PAUSE_S)


def _not_ready(error: RpcError) -> bool:
    return isinstance(error, Failed) and error.reason == "not-ready"


def _as_error(error: RpcError) -> MapReduceError:
    return BadJob(error.message)


def _cluster_file() -> Path:
    return Path(os.environ.get("RING_HOME") or ".ring") / "cluster.toml"


async def run(
    job: Job,
    *,
    config: Path | str | None = None,
    local: bool = False,
    engine: str = "",
    watcher: Watcher | None = None,
    locator: Locator | None = None,
) -> Outcome:
    """Run a job to its end; raises BadJob, JobFailed, JobCancelled, NotReached.

    Args:
        config: the cluster's file. local: in this process. engine: "dask", "ray" or "spark".
    """
    cluster = Path(config or _cluster_file())
    with leads_to(cluster):
        if local:
            return run_local(prepare(job))
        if engine:
            from mapreduce.engines import check_engine, run_on

            check_engine(engine)
            return run_on(engine, prepare(job))
        async with MapReduceClient.connect(cluster) as client:
            spec = prepare(job, locator)
            return await client.wait(await client.submit(spec), watcher)


def run_sync(job: Job, **options: Any) -> Outcome:
    """See run."""
    return asyncio.run(run(job, **options))
