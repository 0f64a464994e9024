"""`pytest tests/unit/raftd --rewrite-transcripts` writes what the core does into the files."""

from __future__ import annotations


def pytest_addoption(parser):
    parser.addoption(
        "--rewrite-transcripts",
        action="store_true",
        help="take what the consensus core does now for what the transcripts expect",
    )
