"""Example jobs: each a module of plain functions, to be run by its name."""

from __future__ import annotations

MODULES = (
    "mapreduce.examples.grep",
    "mapreduce.examples.inverted_index",
    "mapreduce.examples.inverted_index_by_record",
    "mapreduce.examples.loganalysis",
    "mapreduce.examples.pagerank",
    "mapreduce.examples.sort",
    "mapreduce.examples.wordcount",
    "mapreduce.examples.wordcount_by_record",
)
