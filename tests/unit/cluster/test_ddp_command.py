"""`ring ddp …`: sizes as nccl-tests reads them, tables and JSON, statuses."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from cluster.__main__ import app
from cluster.cli.ddp_allreduce import _cases, size_of, sizes
from cluster.errors import Unhealthy, Usage


def run(*arguments):
    return CliRunner().invoke(app, ["ddp", *arguments])


def test_sizes_are_those_of_nccl_tests():
    assert size_of("4K") == 4096
    assert size_of("32M") == 32 << 20
    assert size_of("100000000") == 100_000_000
    assert sizes("1K", "8K", "", 2) == [1024, 2048, 4096, 8192]
    assert sizes("1K", "3K", "1K", 2) == [1024, 2048, 3072]
    assert sizes("5", "", "", 2) == [5]
    assert sizes("0", "8", "", 2) == [0]
    for wrong in (("4Q", "", "", 2), ("8", "4", "", 2), ("8", "16", "", 1)):
        with pytest.raises(Usage):
            sizes(*wrong)


def test_ranks_of_pretended_hosts_share_memory_inside_each():
    arguments = ["-b", "4K", "-n", "1", "-P", "4", "-A", "hierarchical", "--hosts", "2", "--json"]
    report = json.loads(run("allreduce", *arguments).stdout)
    assert report["fabric"] == "netstack + shared memory"
    assert report["out_of_bounds"] == 0
    for wrong in (["-P", "2", "--hosts", "3"], ["--hosts", "2", "--transport", "network"]):
        assert isinstance(run("allreduce", *wrong).exception, Usage)


def test_the_table_of_costs_is_measured_and_equal_to_the_formulas():
    done = run("table", "--ranks", "5", "--elements", "100", "--json")
    rows = {row["algorithm"]: row for row in json.loads(done.stdout)["rows"]}
    assert rows["ring"]["rounds"] == 8
    assert rows["ring"]["sent_max"] == pytest.approx(1.6)
    assert not [row for row in rows.values() if row["equal"] is False]
    assert isinstance(run("table", "--ranks", "3", "--elements", "100").exception, Usage)


def test_a_schedule_is_printed_round_by_round():
    done = run("schedule", "naive-shift", "--ranks", "3", "--json")
    transfers = json.loads(done.stdout)["transfers"]
    assert len(transfers) == 6
    assert transfers[0] == {"round": 0, "src": 0, "dst": 1, "lo": 0, "hi": 1, "action": "keep"}
    assert isinstance(run("schedule", "quick").exception, Usage)


def test_allreduce_reports_in_the_shape_of_nccl_tests(tmp_path):
    out = tmp_path / "out.json"
    trace = tmp_path / "trace.json"
    arguments = ["-b", "4K", "-e", "8K", "-n", "2", "-P", "2", "-A", "ring"]
    done = run("allreduce", *arguments, "-J", str(out), "--trace", str(trace))
    assert done.exit_code == 0, done.output
    assert "# Out of bounds values : 0 OK" in done.stdout
    assert "# Avg bus bandwidth    : " in done.stdout
    report = json.loads(out.read_text())
    assert [row["size"] for row in report["results"]] == [4096, 8192]
    row = report["results"][0]
    assert (row["count"], row["type"], row["redop"], row["root"]) == (1024, "float32", "sum", -1)
    assert (row["rounds"], row["bytes_max"], row["fan_in"]) == (2, 4096, 1)
    assert set(row["in_place"]) >= {"time", "alg_bw", "bus_bw", "nwrong"}
    events = json.loads(trace.read_text())["traceEvents"]
    assert {event["pid"] for event in events} == {0, 1}


def test_the_head_names_ranks_and_what_auto_expects():
    done = run("allreduce", "-b", "4K", "-n", "2", "-P", "2", "-i", "1K")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "# Collective test starting: allreduce"
    assert lines[1] == (
        "# ranks 2 over shared memory minBytes 4096 maxBytes 4096 step: 1024(bytes) "
        "warmup iters: 1 iters: 2 agg iters: 1 validation: 1"
    )
    assert lines[3] == "# Using devices"
    for rank in (0, 1):
        assert re.fullmatch(
            rf"#  Rank  {rank} Group  0 Pid +\d+ on +\S+ device  - \[cpu\]", lines[4 + rank]
        )
    assert (
        "# auto: recursive-doubling: over shared memory there is nothing to choose" in done.stdout
    )


def test_all_flags_of_all_reduce_perf_are_taken(tmp_path):
    out = tmp_path / "out.json"
    arguments = "-b 4K -e 8K -n 3 -w 1 -m 3 -N 2 -a 1 -u 1 -r all -z 0 -d float -o avg -S -I -P 2"
    done = run("allreduce", *arguments.split(), "-J", str(out))
    assert done.exit_code == 0, done.output
    report = json.loads(out.read_text())
    assert [row["size"] for row in report["results"]] == [4096, 8192] * 2
    assert {(row["type"], row["redop"]) for row in report["results"]} == {("float32", "mean")}
    assert [device["rank"] for device in report["devices"]] == [0, 1]
    assert len({device["pid"] for device in report["devices"]}) == 2
    assert "agg iters: 3" in done.stdout
    head = next(line for line in done.stdout.splitlines() if "algorithm" in line)
    assert head.endswith("min(us)   max(us)   p99(us)     cv(%)  timestamp")
    rows = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    assert all(re.search(r"  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d$", row) for row in rows)
    assert len(rows) == 4


def test_names_of_types_are_those_of_nccl_tests():
    names = {"float": "float32", "half": "float16", "double": "float64", "int": "int32"}
    for name, ours in names.items():
        assert _cases(name, "prod") == [(ours, "product")]


def test_flags_without_a_meaning_say_so():
    said = " ".join(re.sub("[│\n]", " ", run("allreduce", "--help").output).split())
    assert said.count("No meaning here") == 2


def test_what_makes_no_sense_is_refused(monkeypatch):
    for arguments in (["-d", "complex64"], ["-o", "median"], ["-d", "int32", "-o", "mean"]):
        assert isinstance(run("allreduce", *arguments).exception, Usage)
    done = run("allreduce", "--transport", "pigeons", "-b", "4K")
    assert "no transport 'pigeons'; there are auto, network, shared" in str(done.exception)
    monkeypatch.setenv("NCCL_TESTS_MIN_BW", "1000000")
    done = run("allreduce", "-b", "4K", "-n", "1", "-P", "2")
    assert isinstance(done.exception, Unhealthy)
