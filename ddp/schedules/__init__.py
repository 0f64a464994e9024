"""Collectives as pure data; schedule.py says of what kind."""
