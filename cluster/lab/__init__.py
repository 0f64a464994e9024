"""Experiments that a lecturer would project: seeded, in virtual time, each with its assertion."""
