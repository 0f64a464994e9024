"""Collectives between ranks, and training that stands on them."""
