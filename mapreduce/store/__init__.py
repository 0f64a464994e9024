"""Immutable files in replicated, checksummed chunks beneath the jobs."""
