"""What `ring mr run` makes of its words, and how it tells of failures."""

from __future__ import annotations

import pytest

from cluster.cli import mr
from cluster.errors import Usage
from mapreduce.client import job_of


def failure(record, **more):
    return {
        "attempt": f"j1-1.m0.1.{record}", "worker": "w1", "kind": "raised", "message": "oh",
        "record": record, "traceback": "", "last_lines": "the end", **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "means"),
    [
        (["a=1", "b=x=y"], {"a": "1", "b": "x=y"}),
        (["deep"], {"deep": True}),
        (["a=1", "a=2", "a=3"], {"a": ["1", "2", "3"]}),
        (["empty="], {"empty": ""}),
    ],
)
def test_arguments(texts, means):
    assert mr._arguments(texts) == means


def test_an_argument_without_a_name_is_not_understood():
    with pytest.raises(Usage, match="NAME=TEXT"):
        mr._arguments(["=x"])


def test_an_mrjob_is_given_them_as_options(tmp_path):
    (tmp_path / "j.py").write_text("from mrjob.job import MRJob")
    (tmp_path / "in").touch()
    args = mr._arguments(["least=5", "upper", "also=a", "also=b"])
    job = job_of(
        str(tmp_path / "j.py"), [str(tmp_path / "in")], str(tmp_path / "o"), {"args": args}
    )
    assert job.args["arguments"] == ["--least", "5", "--upper", "--also", "a", "--also", "b"]


def test_failures_that_are_alike_are_told_once():
    told = mr._distinct([failure(7), failure(0), failure(7), failure(7)])
    assert told == [
        "j1-1.m0.1.0 on w1: raised: oh\nthe end",
        "j1-1.m0.1.7 on w1: raised: oh, at record 7\nthe end\n(3 times)",
    ]
