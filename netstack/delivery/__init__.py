"""Requests over a network that loses and repeats: at least once, at most once. See README.md."""
