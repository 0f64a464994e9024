"""Graphs of pure computations on many workers: what is lost is computed again, and no more."""
