"""Example jobs: each a module of plain functions, to be run by its name."""
